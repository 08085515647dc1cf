"""Dashboard and alert rules ask for metrics that exist: ours and Dask's here, Ray's in test_observed_run.py."""

import urllib.request

import promql_parser
import pytest
import yaml
from monitoring import ALERTS, DASHBOARD, EXPRESSIONS, FOLDER, names

from jobs.telemetry.metrics import REGISTRY


def exposed(families):
    """Names of samples of metric families, also of those that have no sample yet."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return {family.name + ending for family in families for ending in endings.get(family.type, [""])}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_is_one(expression):
    promql_parser.parse(expression)
    assert names([expression], ("sedflow", "dask", "ray"))


def test_a_query_that_is_none_is_noticed():
    with pytest.raises(ValueError):
        promql_parser.parse("sum(sedflow_galaxies_total")


def test_our_metrics_exist():
    wanted, there = names(EXPRESSIONS, "sedflow_"), exposed(REGISTRY.collect())
    assert wanted <= there
    assert {"sedflow_galaxies_total", "sedflow_flags_total", "sedflow_effective_fraction_bucket"} <= wanted


def test_dasks_metrics_exist():
    from distributed import Client, LocalCluster
    from prometheus_client.parser import text_string_to_metric_families

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://",
            host="127.0.0.1", dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.submit(abs, -1).result()
        ports = [cluster.scheduler.http_server.port, *(worker.http_server.port for worker in cluster.workers.values())]
        there = set()
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
                there |= exposed(families) | {s.name for family in families for s in family.samples}
    wanted = names(EXPRESSIONS, "dask_")
    assert wanted <= there
    assert {"dask_scheduler_workers", "dask_worker_memory_bytes"} <= wanted


def test_every_rule_says_what_to_do():
    assert len(ALERTS) == len({rule["alert"] for rule in ALERTS}) >= 8
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["action"]


def test_panels_of_the_dashboard_are_whole():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > 10
    for panel in DASHBOARD["panels"]:
        assert panel["targets"] and panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}


def test_what_is_scraped_is_yaml_of_the_right_kind():
    monitors = list(yaml.safe_load_all((FOLDER / "podmonitors.yaml").read_text()))
    assert {monitor["kind"] for monitor in monitors} == {"PodMonitor"}
    assert all(monitor["spec"]["podMetricsEndpoints"] and monitor["spec"]["selector"] for monitor in monitors)
    jobs = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    assert {job["job_name"] for job in jobs} == {"sedflow", "dask", "ray"}
