"""The tiny chain against S3, in a process of its own, watched from outside while it works.

What it tells must be right, what it opens must be reachable from this machine only, and the credentials that it has must stand
nowhere: in no output, no log of an engine, no command line, no stored object.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import monitoring
import numpy as np
import psutil
import pytest
import tiny
import yaml
from moto.server import ThreadedMotoServer
from prometheus_client.parser import text_string_to_metric_families

from jobs.config.run_file import RunFile
from jobs.run import status
from jobs.telemetry import events
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import Flag
from storage_schemas import open_catalog

pytestmark = pytest.mark.slow
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAWATCHEDRUN000001",
    "AWS_SECRET_ACCESS_KEY": "NobodyMaySeeThisKey0/abcdefghij+klmnopqr",
    "AWS_SESSION_TOKEN": "NobodyMaySeeThisToken0/aaaabbbbccccdddd==",
}
MINUTES = 20


@dataclass
class Observed:
    """What was seen of a run: of its processes while it worked, and of its storage afterwards."""

    run: RunFile
    folder: Path
    said: list[dict] = field(default_factory=list)
    samples: dict[tuple, float] = field(default_factory=dict)
    states: set[tuple[str, str]] = field(default_factory=set)
    listening: dict[tuple, str] = field(default_factory=dict)
    of_ray: set[str] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)

    def sample(self, name, **labels):
        return self.samples[name, tuple(sorted(labels.items()))]


def look_at_processes(process, seen):
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    for one in family:
        try:
            command = " ".join(one.cmdline())
            sockets = [c.laddr for c in one.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        seen.commands.add(command)
        seen.listening.update({(address.ip, address.port): command[:200] for address in sockets})


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def names_of_ray(seen):
    """Names of the metrics that Ray's agent serves, once it does: of its ports, that of the metrics answers."""
    found = set()
    for (_, port), what in seen.listening.items():
        if "DashboardAgent" in what or "dashboard/agent" in what:
            try:
                found |= {name for name, _ in scrape(port) if name.startswith("ray_")}
            except (OSError, ValueError, http.client.HTTPException):
                continue
    return found


@pytest.fixture(scope="module")
def observed(source, tmp_path_factory):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="other", aws_secret_access_key="other"
    )
    s3.create_bucket(Bucket="galaxies")
    folder = tmp_path_factory.mktemp("observed")
    with (
        pytest.MonkeyPatch.context() as patch,
        # Of the engines; paths of Ray's sockets must be short.
        tempfile.TemporaryDirectory(prefix="o", dir="/tmp", ignore_cleanup_errors=True) as logs,
    ):
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "other")
        run = tiny.settings("s3://galaxies/run", source, storage={"endpoint": endpoint})
        seen = Observed(run, folder)
        (folder / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
        environment = {
            **os.environ, **SECRETS, "SEDFLOW_METRICS": "127.0.0.1:0", "RAY_TMPDIR": logs,
            "DASK_TEMPORARY_DIRECTORY": f"{logs}/dask", "TMPDIR": logs,
        }  # fmt: skip
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "--log", "json", "run", "run.yaml"],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=err,
            )
            try:
                watch(process, run, seen)
            finally:
                process.kill()
        assert process.returncode == 0, (folder / "err").read_text()[-2000:]
        shutil.copytree(logs, folder / "logs", ignore=lambda at, names: [n for n in names if not is_file(at, n)])
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="galaxies")
        names = [item["Key"] for page in pages for item in page["Contents"]]
        seen.objects = {name: s3.get_object(Bucket="galaxies", Key=name)["Body"].read() for name in names}
        seen.said = [json.loads(line) for line in (folder / "err").read_text().splitlines() if line.startswith("{")]
        yield seen
    server.stop()


def is_file(at, name):
    path = Path(at) / name
    return not path.is_symlink() and (path.is_dir() or path.is_file())


def watch(process, run, seen):
    port, turn, deadline = None, 0, time.monotonic() + 60 * MINUTES
    while process.poll() is None:
        assert time.monotonic() < deadline, f"the run took more than {MINUTES} minutes"
        if port is None:
            serving = [line for line in (seen.folder / "err").read_text().splitlines() if '"serving"' in line]
            port = json.loads(serving[0])["metrics"].rpartition(":")[2] if serving else None
        else:
            try:
                seen.samples = scrape(port)
            except OSError:  # the process ended meanwhile
                continue
        if turn % 10 == 0:
            try:
                look_at_processes(process, seen)
            except psutil.NoSuchProcess:
                continue
            seen.of_ray |= names_of_ray(seen)
            seen.states |= {(r.stage, r.state) for r in events.records(run.location).values()}
        turn += 1
        time.sleep(0.2)


def test_events_tell_the_whole_run(observed):
    assert all({"time", "event"} <= set(line) for line in observed.said)
    kinds = Counter((line["event"], line.get("stage")) for line in observed.said)
    for stage in ("run", "ingest", "simulate", "train", "validate", "infer"):
        assert kinds["started", stage] == kinds["done", stage] == 1
    assert kinds["chunk", "simulate"] == 4 and kinds["chunk", "infer"] == 5
    assert not any(event == "failed" for event, _ in kinds)
    chunks = [line for line in observed.said if line["event"] == "chunk" and line["stage"] == "infer"]
    assert sorted(line["chunk"] for line in chunks) == [0, 1, 2, 3, 4]
    assert sum(line["rows"] for line in chunks) == tiny.N_ROWS
    assert all(line["bytes"] > 0 and line["seconds"] > 0 and line["run"] == "tiny" for line in chunks)


def test_a_scrape_during_the_run_counts_what_the_catalog_holds(observed):
    data = open_catalog(observed.run.store("catalog"))
    method, flags = data["method"].values, data["flags"].values
    for one in Method:
        assert observed.sample("sedflow_galaxies_total", method=one.name) == np.sum(method == one), one
    for flag in Flag:
        assert observed.sample("sedflow_flags_total", flag=flag.name) == np.sum((flags & int(flag)) != 0), flag
    fraction = data["effective_fraction"].values
    assert observed.sample("sedflow_effective_fraction_count") == np.isfinite(fraction).sum()
    assert observed.sample("sedflow_effective_fraction_sum") == pytest.approx(np.nansum(fraction.astype(float)))
    at_most = observed.sample("sedflow_effective_fraction_bucket", le="0.1")
    assert at_most == np.sum(fraction[np.isfinite(fraction)] <= 0.1)
    assert observed.sample("sedflow_work_total", stage="infer", unit="galaxies") == tiny.N_ROWS
    assert observed.sample("sedflow_work_total", stage="simulate", unit="galaxies") == 12_000
    assert observed.sample("sedflow_work_total", stage="train", unit="steps") == 40
    assert observed.sample("sedflow_chunks_total", stage="infer") == 5
    assert observed.sample("sedflow_chunks_total", stage="simulate") == 4
    assert observed.sample("sedflow_chunk_seconds_count", stage="infer") == 5
    assert observed.sample("sedflow_job_done", stage="infer") == observed.sample("sedflow_job_total", stage="infer")


def test_records_followed_the_run_and_outlive_it(observed):
    assert {("run", "running"), ("infer", "running"), ("train", "running")} <= observed.states
    records = events.records(observed.run.location)
    assert {"run", "ingest", "simulate", "train", "validate", "infer"} == set(records)
    assert {record.state for record in records.values()} == {"done"}
    assert records["infer"].rows == tiny.N_ROWS and records["infer"].chunks == 5
    assert records["simulate"].bytes == sum(
        line["bytes"] for line in observed.said if line["event"] == "chunk" and line["stage"] == "simulate"
    )
    complete, lines = status.status(observed.run)
    assert complete
    assert any(line.startswith("infer") and "5 of 5 chunks" in line for line in lines)
    assert sum(line[10:].strip().startswith("done ") for line in lines) == 6
    names = {name.split("/")[1] for name in observed.objects}
    assert {"progress", "catalog", "photometry"} <= names
    assert sum(name.startswith("run/progress/") for name in observed.objects) == 6


def test_rays_metrics_in_dashboard_and_alerts_exist(observed):
    assert observed.of_ray
    wanted = monitoring.names(monitoring.EXPRESSIONS, "ray_")
    assert len(wanted) >= 4
    assert wanted <= observed.of_ray


def test_nothing_listens_beyond_this_machine(observed):
    assert any("raylet" in command for command in observed.commands)
    assert any("ray::" in command or "default_worker" in command for command in observed.commands)
    assert len(observed.listening) > 5
    beyond = {
        at: what for at, what in observed.listening.items() if at[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    }
    assert not beyond


def test_credentials_stand_nowhere(observed):
    logs = [path for path in (observed.folder / "logs").rglob("*") if path.is_file()]
    assert any(path.name.startswith("raylet") for path in logs)
    places = {str(path): path.read_bytes() for path in [*logs, observed.folder / "out", observed.folder / "err"]}
    places |= observed.objects | {"command lines": "\n".join(observed.commands).encode()}
    assert len(observed.objects) > 50
    found = {
        (name, place) for name, secret in SECRETS.items() for place, data in places.items() if secret.encode() in data
    }
    assert not found
