"""Runs submitted to a real Ray head that asks for a token; and versions that differ."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml
from paths import ROOT
from ray_nodes import RayNodes, free_port

from cluster import versions
from jobs.telemetry import events
from storage_schemas import training_set

CHUNKS = 2000  # of 100 galaxies: some seconds


def sedflow(*arguments, cwd=None, **environment):
    """Run the command as somebody who has only the environment given, without a token of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env={**clean, **environment})


# -- versions ---------------------------------------------------------------------------------------------------------


def test_versions_that_differ_are_both_named():
    ours = versions.here(("sedflow-dist", "python", "no-such-package"))
    assert ours["no-such-package"] == "none"
    versions.refuse_difference(ours, dict(ours), "here", "there")
    theirs = {**ours, "sedflow-dist": "9.9.9"}
    with pytest.raises(RuntimeError, match=rf"sedflow-dist: {ours['sedflow-dist']} here, 9\.9\.9 there\."):
        versions.refuse_difference(ours, theirs, "here", "there")


def test_a_job_submitted_from_another_version_is_refused():
    other = {**versions.here(versions.OF_SUBMITTER), "sedflow-dist": "9.9.9"}
    done = sedflow("plan", "demo", SEDFLOW_SUBMITTED_FROM=json.dumps(other))
    assert done.returncode == 1
    assert "sedflow-dist: 9.9.9 where it was submitted, 0.1.0 on the cluster" in done.stderr


@pytest.fixture
def other_version(tmp_path):
    """The environment that makes a process believe that it has sedflow-dist 9.9.9, wherever it finds the package."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from importlib import metadata\n"
        "version = metadata.version\n"
        "metadata.version = lambda name: '9.9.9' if name == 'sedflow-dist' else version(name)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "PYTHONSAFEPATH": "1"}


@pytest.mark.slow
def test_a_ray_node_of_another_version_is_refused(other_version, tmp_path):
    with RayNodes() as nodes:
        nodes.add(cpus=0)
        nodes.add(**other_version)
        done = sedflow("doctor", "--ray", nodes.address, cwd=tmp_path)  # Ray's workers search its folder first
    assert done.returncode == 1
    assert "sedflow-dist: 0.1.0 here, 9.9.9 on Ray's node 127.0.0.1" in done.stdout


@pytest.mark.slow
def test_a_dask_worker_of_another_version_is_refused(other_version):
    from distributed import Client, LocalCluster

    from cluster import dask_engine
    from cluster.settings import DaskSettings

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster, Client(cluster) as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny",
                   "--no-dashboard", "--host", "127.0.0.1"]  # fmt: skip
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **other_version})
        try:
            client.wait_for_workers(1, timeout=60)
            with (
                pytest.raises(RuntimeError, match=r"sedflow-dist: 0.1.0 here, 9.9.9 on Dask's worker tcp://"),
                dask_engine.client(DaskSettings(address=cluster.scheduler_address)),
            ):
                pass
        finally:
            worker.kill()
            worker.wait()


# -- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"), [("head:8265", "is not the URL of a Ray dashboard"), (None, "no Ray dashboard")]
)
def test_a_cluster_that_is_not_there_says_so(url, message):
    done = sedflow("jobs", "status", "job", "--ray", url or f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head with a token of its own, and the environment of somebody who knows it."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    ours = {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_MODE": "token"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # a job's command is `python`
    with RayNodes(**ours, PYTHONPATH=str(ROOT), PATH=path) as nodes:
        nodes.add(cpus=2, dashboard=True)
        yield nodes.dashboard, ours


@pytest.fixture
def run_file(local, tmp_path):
    """A run whose SSP table and photometry are there; its training set takes some seconds."""
    run = tiny.settings(tmp_path / "run", local.input, simulation={"n_galaxies": 100 * CHUNKS, "rows_per_chunk": 100},
                        engines={"ray": {"actors": 1}})  # fmt: skip
    for stage in ("ssp", "photometry"):
        shutil.copytree(local.store(stage).url, run.store(stage).url)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return path, run


@pytest.mark.slow
def test_without_the_token_a_job_is_refused(head, run_file, tmp_path):
    url, ours = head
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 32)
    empty = tmp_path / "home"
    empty.mkdir()
    for environment, words in (  # the last looks for a token itself, and finds none
        ({"RAY_AUTH_MODE": "disabled"}, "got none: RAY_AUTH_TOKEN"),
        ({**ours, "RAY_AUTH_TOKEN_PATH": str(wrong)}, "has another than ours"),
        ({**ours, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, "there is no file"),
        ({"RAY_AUTH_MODE": "token", "HOME": str(empty)}, "got none"),
    ):
        done = sedflow("submit", run_file[0], "--ray", url, **environment)
        assert done.returncode == 1, words
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert "0123456789abcdef" not in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("how", "state"), [("stopped", "STOPPED"), ("killed", "FAILED")])
def test_a_job_that_ended_midway_goes_on_when_it_is_submitted_again(head, run_file, how, state):
    url, ours = head
    path, run = run_file
    done = sedflow("submit", path, "--ray", url, "--command", "simulate", "--code", ROOT, **ours)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    chunks = Path(run.store("training").url) / "chunk_digest/c"

    def written():
        return {int(p.name): p.stat().st_mtime_ns for p in chunks.glob("[0-9]*") if p.name.isdigit()}

    end = time.monotonic() + 120
    while len(written()) < 10:
        assert time.monotonic() < end, sedflow("jobs", "logs", job, "--ray", url, **ours).stdout
        time.sleep(0.1)
    assert sedflow("jobs", "status", job, "--ray", url, **ours).returncode == 3
    if how == "stopped":
        assert "stopped" in sedflow("jobs", "stop", job, "--ray", url, **ours).stdout
    else:
        os.kill(events.records(run.location)["simulate"].pid, signal.SIGKILL)
    while (said := sedflow("jobs", "status", job, "--ray", url, **ours)).returncode == 3:
        assert time.monotonic() < end
    assert said.returncode == 1
    assert state in said.stderr
    before = written()
    assert 10 <= len(before) < CHUNKS
    seen = sedflow("status", path)  # from anywhere: it reads the stores
    assert seen.returncode == 1
    assert f"{len(before):,} of {CHUNKS:,} chunks" in " ".join(seen.stdout.split())

    done = sedflow("submit", path, "--ray", url, "--command", "simulate", "--code", ROOT, "--wait", **ours)
    assert done.returncode == 0, done.stderr
    assert "SUCCEEDED, exit code 0" in done.stderr
    after = written()
    assert len(after) == CHUNKS
    assert {chunk: after[chunk] for chunk in before} == before
    assert not training_set.open(run.store("training")).missing()
    logs = sedflow("jobs", "logs", done.stdout.split()[0], "--ray", url, **ours).stdout
    assert f"{100 * (CHUNKS - len(before)):,} galaxies in" in logs


@pytest.mark.slow
def test_a_job_that_fails_says_why(head, run_file):
    url, ours = head
    path, _ = run_file
    done = sedflow("submit", path, "--ray", url, "--command", "train", "--wait", **ours)
    assert done.returncode == 1
    assert "FAILED, exit code 1" in done.stderr
    job = done.stdout.split()[0]
    assert "no training_set store" in sedflow("jobs", "logs", job, "--ray", url, **ours).stdout
    done = sedflow("jobs", "status", "no-such-job", "--ray", url, **ours)
    assert done.returncode == 1
    assert "knows no such job" in done.stderr
