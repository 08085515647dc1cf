"""The alerts of deploy/monitoring in Prometheus' own hands: each fires on a series made for it, and is silent without."""

import shutil
import subprocess

import pytest
import yaml
from monitoring import ALERTS, FOLDER

RULES = FOLDER / "alerts.yaml"
FRACTION = "sedflow_effective_fraction_bucket"
NOVEL, GALAXIES = 'sedflow_flags_total{flag="NOVEL"}', 'sedflow_galaxies_total{method="FLOW"}'
NONE = 'sedflow_galaxies_total{method="NONE"}'
JOB = '{stage="infer"}'
ADVANCED, DONE, TOTAL = (f"sedflow_job_{name}{JOB}" for name in ("advanced_timestamp_seconds", "done", "total"))

#: Alert -> series that it fires on, and some that it must not fire on: (at the beginning, more each minute).
CASES = {
    "SedflowStalled": [
        {ADVANCED: (0, 0), DONE: (5, 0), TOTAL: (10, 0)},
        {ADVANCED: (0, 60), DONE: (5, 0), TOTAL: (10, 0)},
        {ADVANCED: (0, 0), DONE: (10, 0), TOTAL: (10, 0)},
    ],
    "SedflowManyRetries": [{f"sedflow_retries_total{JOB}": (0, 2)}, {f"sedflow_retries_total{JOB}": (0, 1)}],
    "SedflowManyUnanswered": [{NONE: (0, 3), GALAXIES: (0, 7)}, {NONE: (0, 1), GALAXIES: (0, 9)}],
    "SedflowManyNovel": [{NOVEL: (0, 4), GALAXIES: (0, 10)}, {NOVEL: (0, 2), GALAXIES: (0, 10)}],
    "SedflowLowEffectiveFraction": [
        {f'{FRACTION}{{le="{le}"}}': (0, n) for le, n in (("0.05", 6), ("0.5", 10), ("+Inf", 10))},
        {f'{FRACTION}{{le="{le}"}}': (0, n) for le, n in (("0.05", 1), ("0.5", 8), ("+Inf", 10))},
    ],
    "DaskWithoutWorkers": [
        {'dask_scheduler_tasks{state="queued"}': (3, 0), 'dask_scheduler_workers{state="idle"}': (0, 0)},
        {'dask_scheduler_tasks{state="queued"}': (3, 0), 'dask_scheduler_workers{state="idle"}': (2, 0)},
        {'dask_scheduler_tasks{state="queued"}': (0, 0), 'dask_scheduler_workers{state="idle"}': (0, 0)},
    ],
    "DaskWorkersDie": [
        {"dask_scheduler_tasks_suspicious_total": (0, 1)}, {"dask_scheduler_tasks_suspicious_total": (0, 0.2)},
    ],
    "RayNodeFull": [
        {f'ray_node_mem_{what}{{instance="n1"}}': (n, 0) for what, n in (("used", 95), ("total", 100))},
        {f'ray_node_mem_{what}{{instance="n1"}}': (n, 0) for what, n in (("used", 90), ("total", 100))},
    ],
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def promtool():
    if not (found := shutil.which("promtool")):
        pytest.skip("no promtool here; `sudo tests/debian_packages.sh` installs it")
    return lambda *words: subprocess.run([found, *map(str, words)], capture_output=True, text=True)


def fires(promtool, folder, series, expected):
    """Let Prometheus see two hours of series; whether what fires then is what is expected, and what it said."""
    content = {
        "rule_files": [str(RULES)], "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                {"series": name, "values": f"{first}+{more}x120"}
                for name, (first, more) in series.items()
            ],
            "promql_expr_test": [{
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "2h",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected],
            }],
        }],
    }  # fmt: skip
    (folder / "test.yaml").write_text(yaml.safe_dump(content))
    done = promtool("test", "rules", folder / "test.yaml")
    return done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules(promtool):
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_has_series_here():
    assert sorted(CASES) == sorted(rule["alert"] for rule in ALERTS)


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_on_its_series_alone(promtool, tmp_path, name):
    planted, *harmless = CASES[name]
    good, said = fires(promtool, tmp_path, planted, [name])
    assert good, said
    assert not fires(promtool, tmp_path, planted, [])[0]  # what is expected is looked at
    for series in harmless:
        good, said = fires(promtool, tmp_path, series, [])
        assert good, said
