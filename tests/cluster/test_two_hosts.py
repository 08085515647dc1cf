"""Two network namespaces are two hosts: a Ray cluster and a Dask cluster across the link between them."""

import os
import shutil
import subprocess
import sys

import pytest
import tiny
from ray_nodes import RayNodes

ONE, TWO = "10.77.13.1", "10.77.13.2"


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts():
    """Commands that stand in front of a command to run it on the first or the second host."""
    names = [f"sedflow-{os.getpid()}-{i}" for i in (1, 2)]
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "veth1", "netns", names[0], "type", "veth", "peer", "name", "veth2", "netns", names[1])
        for name, link, address in zip(names, ("veth1", "veth2"), (ONE, TWO), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_simulate_and_infer_across_two_hosts(hosts, local, tmp_path):
    one, two = hosts
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with RayNodes() as nodes:
        nodes.add(host=ONE, before=one)
        nodes.add(host=TWO, before=two)
        dask = [sys.executable, "-m"]
        started = [
            subprocess.Popen([*one, *dask, "distributed.cli.dask_scheduler", "--host", ONE, "--port", "8786",
                              "--no-dashboard", "--scheduler-file", str(file)], **quiet),
            *(subprocess.Popen([*host, *dask, "distributed.cli.dask_worker", f"tcp://{ONE}:8786", "--nthreads", "1",
                                "--host", address, "--no-dashboard"], **quiet)
              for host, address in ((one, ONE), (two, TWO))),
        ]  # fmt: skip
        try:
            engines = {"ray": {"address": nodes.address, "actors": 2}, "dask": {"address": f"tcp://{ONE}:8786"}}
            run = tiny.settings(tmp_path / "run", local.input, engines=engines)
            for stage in ("ssp", "photometry", "model"):
                shutil.copytree(local.store(stage).url, run.store(stage).url)
            arguments = tiny.write(run, tmp_path / "run.yaml")
            for command in ("simulate", "run"):
                done = subprocess.run(
                    [*one, sys.executable, "-m", "jobs.cli", command, *arguments], check=False,
                    capture_output=True, text=True, env={**os.environ, "RAY_AUTH_MODE": "token"},
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
        finally:
            for process in started:
                tiny.kill_when(process, lambda: True)
    tiny.assert_same(tiny.training_arrays(local), tiny.training_arrays(run))
    found, expected = tiny.contents(run), tiny.contents(local)
    tiny.assert_same(expected, found)
