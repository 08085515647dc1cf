"""Kill -9 of workers, of the scheduler and of the driver at random moments: the final content is that of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import small
import tiny
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from storage_schemas.catalog import schema as catalog

N_ROWS = 260  # 13 shards, seven commits
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]


@pytest.fixture(scope="module")
def undisturbed(filled_run, tmp_path_factory):
    run = filled_run(tiny.location(tmp_path_factory.mktemp("undisturbed")), N_ROWS)
    run.infer()
    return run.contents()


@pytest.fixture
def run(filled_run, tmp_path):
    return filled_run(tiny.location(tmp_path), N_ROWS)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Kill(WorkerPlugin):
    """Kill -9 the worker that starts its ``number``-th task, once for every file that this makes in ``folder``."""

    def __init__(self, folder, numbers):
        self.folder, self.numbers, self.started = str(folder), numbers, 0

    def transition(self, key, start, finish, **_):
        if finish != "executing" or "fill" not in str(key):
            return
        self.started += 1
        if self.started in self.numbers:
            try:
                os.close(os.open(f"{self.folder}/killed-{self.started}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_workers_change_nothing(run, undisturbed, tmp_path, seed):
    moments = random.Random(seed).sample(range(1, 6), 2)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Kill(tmp_path, moments))
        small.Small(run.root, run.model, cluster.scheduler_address, run.bands).infer()
    assert [path for path in tmp_path.iterdir() if path.name.startswith("killed")]
    small.assert_same(run.contents(), undisturbed)


_DRIVER = """
import sys; sys.path.insert(0, sys.argv[1])
import small
from storage_schemas.backend.location import Location
small.Small(Location.parse(sys.argv[2]), Location.parse(sys.argv[3]), sys.argv[4], tuple(sys.argv[5].split(","))).infer()
"""


@contextmanager
def driver(run, dask):
    arguments = [os.path.dirname(small.__file__), run.root.url, run.model.url, dask, ",".join(run.bands)]
    process = subprocess.Popen([sys.executable, "-c", _DRIVER, *arguments], stderr=subprocess.PIPE, text=True)
    yield process
    kill(process.pid)
    process.wait()


def wait_until(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_driver_changes_nothing(run, undisturbed, dask, seed):
    """It is killed some moments after the store is there, mostly amid its commits."""
    pause = random.Random(seed).uniform(0, 1.5)
    with driver(run, dask) as process:
        wait_until(lambda: (run.catalog / "refs").exists(), process)
        time.sleep(pause)
    run.infer()
    small.assert_same(run.contents(), undisturbed)
    repo = catalog.repository(run.catalog)
    assert (repo.list_branches(), repo.list_tags()) == ({"main"}, {"release-1"})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_lost_scheduler_is_an_error_and_changes_nothing(run, undisturbed, dask, seed, tmp_path):
    """The driver says that the scheduler is gone, within half a minute or so, and another run goes on."""
    pause = random.Random(seed).uniform(0, 1.0)
    file = tmp_path / "scheduler.json"
    arguments = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *arguments], **quiet)
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(file),
        "--no-nanny",
        "--no-dashboard",
    ]
    try:
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), scheduler)
        worker = subprocess.Popen(command, **quiet)
        address = json.loads(file.read_text())["address"]
        with driver(run, address) as process:
            wait_until(lambda: (run.catalog / "refs").exists(), process)
            time.sleep(pause)
            kill(scheduler.pid)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 0 or "scheduler went away" in err or "Timed out trying to connect" in err
    finally:
        kill(scheduler.pid)
        kill(worker.pid)
    run.infer()
    small.assert_same(run.contents(), undisturbed)
