"""What happens when something dies, stage by stage: the table below, every cell of it done to real processes.

docs/guarantees.md shows the same table. Attempts are those of the item (chunk, block, row, training) that the fault hits.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import small
import tiny
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin
from paths import HELPERS, ROOT
from ray_nodes import RayNodes

from cluster import ray_engine
from cluster.settings import RaySettings
from jobs import mcmc, train
from jobs.config.sections import MCMC
from jobs.simulate import job as simulate
from sedflow_dist.photometry.flags import Flag
from storage_schemas import chains, photometry
from storage_schemas import model as model_store

SAME, FLAGGED, ERROR = "same content", "row flagged", "error"
#: What is expected: outcome and attempts. Dask gives a task four workers, Ray an item four actors; MCMC has `tries` (here 2).
TABLE = {
    "worker killed": {"simulate": (SAME, 2), "train": (SAME, 2), "mcmc": (SAME, 2), "infer": (SAME, 2)},
    "worker killed every time": {"simulate": (ERROR, 4), "mcmc": (FLAGGED, 4), "infer": (FLAGGED, 8)},
    "worker hangs": {"simulate": (SAME, 2)},
    "worker out of memory": {"infer": (SAME, 2)},
    "node lost": {"simulate": (SAME, 2), "train": (SAME, 2), "mcmc": (SAME, 2), "infer": (SAME, 2)},
}
FAST = {("node lost", "simulate")}


def cells(stage):
    """Faults of a stage as parameters, each with what is expected."""
    return [
        pytest.param(fault, *row[stage], id=fault, marks=() if (fault, stage) in FAST else pytest.mark.slow)
        for fault, row in TABLE.items() if stage in row
    ]  # fmt: skip


def note(folder, name):
    """Write down an attempt; return its number."""
    number = 1
    while True:
        try:
            os.close(os.open(f"{folder}/{name}-{number}", os.O_CREAT | os.O_EXCL))
            return number
        except FileExistsError:
            number += 1


def attempts(folder, name):
    return len(list(Path(folder).glob(f"{name}-*")))


def act(fault, attempt, test):
    """Do the fault to this process, a worker of the engine that the test ``test`` (a process id) uses."""
    assert test not in (os.getpid(), os.getppid())
    if attempt > 1 and fault != "worker killed every time":
        return
    if fault.startswith("worker killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "worker hangs":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "node lost":
        os.kill(os.getppid(), signal.SIGKILL)  # raylet or nanny
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "worker out of memory":
        held = np.ones(2 * 2**30, np.uint8)
        time.sleep(60)
        raise AssertionError(f"{held.nbytes} bytes were there")


@pytest.fixture(scope="module")
def nodes():
    """A head without cores, so that all work is on two other nodes."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RayNodes(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2", RAY_gcs_rpc_server_reconnect_timeout_s="5") as nodes:
        nodes.add(cpus=0)
        yield nodes
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def two_nodes(nodes):
    """The cluster, with as many nodes again as the last test has killed."""
    for node in nodes.nodes[1:]:
        if node.poll() is not None:
            nodes.kill(node)
    while len(nodes.nodes) < 3:
        nodes.add()
    return nodes


def run_on(nodes, local, root, stages, **sections):
    """The tiny run on a cluster, with what ``local`` has of some stages."""
    sections = {"engines": {"ray": {"address": nodes.address, "actors": 2}}, **sections}
    run = tiny.settings(root, local.input, **sections)
    for stage in stages:
        shutil.copytree(local.store(stage).url, run.store(stage).url)
    return run


# -- simulate ---------------------------------------------------------------------------------------------------------


def faulty_simulator(folder, fault):
    test = os.getpid()

    class Faulty(simulate.Simulator):
        def fill(self, chunk):
            attempt = note(folder, f"chunk{chunk}")
            if chunk == 2:
                act(fault, attempt, test)
            return super().fill(chunk)

    return Faulty


@pytest.mark.parametrize(("fault", "outcome", "number"), cells("simulate"))
def test_simulations_bear_faults(two_nodes, local, tmp_path, monkeypatch, fault, outcome, number):
    run = run_on(two_nodes, local, tmp_path / "run", ["ssp", "photometry"])
    monkeypatch.setattr(simulate, "Simulator", faulty_simulator(tmp_path, fault))
    monkeypatch.setattr(ray_engine, "_LATE_SECONDS", 3.0)
    if outcome == ERROR:
        with pytest.raises(RuntimeError, match="item 2: its actor died 4 times"):
            simulate.simulate(run)
        assert attempts(tmp_path, "chunk2") == number
        monkeypatch.undo()  # whatever it was has been mended
        simulate.simulate(run)
    else:
        simulate.simulate(run)
        assert attempts(tmp_path, "chunk2") == number
    tiny.assert_same(tiny.training_arrays(local), tiny.training_arrays(run))


@pytest.mark.slow
def test_a_cluster_that_shrinks_to_one_node_and_grows_again(two_nodes, local, tmp_path, monkeypatch):
    folder = tmp_path

    class Slow(simulate.Simulator):
        def fill(self, chunk):
            time.sleep(0.5)
            note(folder, ray.get_runtime_context().get_node_id())
            return super().fill(chunk)

    run = run_on(two_nodes, local, tmp_path / "run", ["ssp", "photometry"],
                 simulation={"n_galaxies": 12_000, "rows_per_chunk": 200})  # fmt: skip
    monkeypatch.setattr(simulate, "Simulator", Slow)
    store = simulate.create(run)

    def weather():
        while store.n_chunks - len(store.missing()) < 6:
            time.sleep(0.1)
        two_nodes.kill(two_nodes.nodes[1])
        time.sleep(4)
        two_nodes.add()

    thread = threading.Thread(target=weather)
    thread.start()
    simulate.simulate(run)
    thread.join()
    assert not store.missing()
    worked = [path.name.rpartition("-")[0] for path in tmp_path.iterdir() if path.is_file()]
    assert len(set(worked)) == 3  # the new one took its part
    two_nodes.kill(two_nodes.nodes[1])  # all that is left of the table starts from two


# -- the driver and the head -------------------------------------------------------------------------------------------


@pytest.fixture
def many_chunks(two_nodes, local, tmp_path):
    """A run of 120 chunks by one actor, which takes some seconds."""
    return run_on(two_nodes, local, tmp_path / "run", ["ssp", "photometry"],
                  engines={"ray": {"address": two_nodes.address, "actors": 1}},
                  simulation={"n_galaxies": 12_000, "rows_per_chunk": 100})  # fmt: skip


def start(run, folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "simulate", *tiny.write(run, folder / "run.yaml")], start_new_session=True,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "RAY_AUTH_MODE": "token", **environment},
    )  # fmt: skip


def written(run):
    """When each finished chunk was finished [ns]."""
    folder = Path(run.store("training").url) / "chunk_digest/c"
    return {int(path.name): path.stat().st_mtime_ns for path in folder.glob("[0-9]*") if path.name.isdigit()}


def wait_for_chunks(run, process, number=10):
    end = time.monotonic() + 120
    while len(written(run)) < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def finish(run, before):
    """Run again: only missing chunks are computed, and all is as if nothing had happened."""
    assert 10 <= len(before) < 120
    simulate.simulate(run)
    after = written(run)
    assert len(after) == 120
    assert {chunk: after[chunk] for chunk in before} == before
    whole = run.model_copy(update={"root": run.root + "-whole"})
    shutil.copytree(run.store("ssp").url, whole.store("ssp").url)
    simulate.simulate(whole)
    tiny.assert_same(tiny.training_arrays(whole), tiny.training_arrays(run))


@pytest.mark.slow
def test_a_killed_driver_goes_on_with_missing_chunks(many_chunks, tmp_path):
    process = start(many_chunks, tmp_path)
    wait_for_chunks(many_chunks, process)
    tiny.kill_when(process, lambda: True)
    time.sleep(2)  # its actors are ended by Ray
    finish(many_chunks, written(many_chunks))


@pytest.mark.slow
def test_a_driver_told_to_end_ends_at_once(many_chunks, tmp_path):
    """As before a node is taken away: it ends soon, says so, and has an exit code of its own."""
    process = start(many_chunks, tmp_path)
    wait_for_chunks(many_chunks, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert "told to end (SIGTERM); what is committed stays" in said
    assert "Traceback" not in said
    time.sleep(2)
    finish(many_chunks, written(many_chunks))


@pytest.mark.slow
def test_a_lost_head_is_an_error_and_another_cluster_goes_on(many_chunks, two_nodes, tmp_path):
    """The driver ends with an error; on another cluster the same command goes on."""
    with RayNodes(RAY_gcs_rpc_server_reconnect_timeout_s="5") as doomed:
        doomed.add()
        ours = {"ray": {"address": doomed.address, "actors": 1}}
        lost = many_chunks.model_copy(update={"engines": type(many_chunks.engines).model_validate(ours)})
        process = start(lost, tmp_path, RAY_gcs_rpc_server_reconnect_timeout_s="5")
        wait_for_chunks(lost, process)
        doomed.kill(doomed.nodes[0])
        process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    finish(many_chunks, written(many_chunks))


# -- train ------------------------------------------------------------------------------------------------------------


def faulty_loop(folder, fault):
    """The training loop, which the fault hits as it is about to report its third validation; it notes where it starts."""
    test = os.getpid()

    def loop(config):
        import json

        import ray.train

        from jobs import train as job

        start, report = 0, job._report
        if checkpoint := ray.train.get_checkpoint():
            with checkpoint.as_directory() as where:
                start = json.loads((Path(where) / job._STATE).read_text())["step"]
        note(folder, f"start{start}")

        def watched(progress, *rest):
            if progress.step == 30:
                time.sleep(1)  # as long as a validation takes
                act(fault, note(folder, "report"), test)
            report(progress, *rest)

        job._report = watched
        job._loop(config)

    return loop


@pytest.mark.parametrize(("fault", "outcome", "number"), cells("train"))
def test_the_training_bears_faults(two_nodes, local, tmp_path, monkeypatch, fault, outcome, number):
    run = run_on(two_nodes, local, tmp_path / "run", ["ssp", "photometry", "training"])
    monkeypatch.setattr(train, "_loop", faulty_loop(tmp_path, fault))
    train.train(run)
    assert attempts(tmp_path, "start*") == number
    steps = sorted(int(re.search(r"start(\d+)", path.name)[1]) for path in tmp_path.glob("start*"))
    assert steps[0] == 0
    assert steps[1] in (10, 20)  # it had reported 20: at most one report is lost
    for one, other in zip(model_store.read(local.store("model")), model_store.read(run.store("model")), strict=True):
        assert one == other


# -- mcmc -------------------------------------------------------------------------------------------------------------

CHAIN = MCMC(sampler="emcee", walkers=22, steps=60, burn_in=20, thin=5, checkpoint_steps=20)


def faulty_sampler(folder, fault):
    test = os.getpid()

    class Faulty(mcmc.Sampler):
        def _task(self, target, place, galaxy, missing):
            work = super()._task(target, place, galaxy, missing)
            if int(self.data["row"][galaxy]) != 2:
                return work

            def hit(ask):
                act(fault, note(folder, "row2"), test)
                return work(ask)

            return hit

    return Faulty


@pytest.fixture(scope="module")
def stored_model(flow, tmp_path_factory):
    where = tiny.location(tmp_path_factory.mktemp("faults") / "model")
    model_store.write(where, *flow.to_bytes())
    return where


def summary_of(out):
    group = chains.open(out)[1].group
    return {name: np.asarray(values[:]) for name, values in group.arrays() if name not in ("shape", "chunk_digest")}


@pytest.mark.parametrize(("fault", "outcome", "number"), cells("mcmc"))
def test_chains_bear_faults(two_nodes, flow, stored_model, tmp_path, monkeypatch, fault, outcome, number):
    data = mcmc.mocks(flow, 4, seed=5)
    settings = RaySettings(address=two_nodes.address, actors=2, tries=2)
    out, whole = tiny.location(tmp_path / "chains"), tiny.location(tmp_path / "whole")
    with ray_engine.session(settings):
        mcmc.sample(data, stored_model, whole, CHAIN, 5, settings)
        monkeypatch.setattr(mcmc, "Sampler", faulty_sampler(tmp_path, fault))
        mcmc.sample(data, stored_model, out, CHAIN, 5, settings)
        assert attempts(tmp_path, "row2") == number
        mcmc.sample(data, stored_model, out, CHAIN, 5, settings)  # nothing is missing
        assert attempts(tmp_path, "row2") == number
    one, other = summary_of(whole), summary_of(out)
    spared = np.array([row != 2 or outcome == SAME for row in range(4)])
    for name, values in one.items():
        assert values[spared].tobytes() == other[name][spared].tobytes(), name
    assert other["flags"].tolist() == [0, 0, 0 if outcome == SAME else int(Flag.FAILED), 0]
    if outcome == FLAGGED:
        assert np.isnan(other["rhat"][2]).all()
        assert other["row"][2] == 2


# -- infer ------------------------------------------------------------------------------------------------------------

N_ROWS, ROW = 100, 47  # five shards; the row is in the third


class Hit(WorkerPlugin):
    """The fault hits whoever is to answer one row; rows that are flagged as failed are answered by nobody."""

    def __init__(self, folder, fault):
        self.folder, self.fault, self.test = str(folder), fault, os.getpid()

    def setup(self, worker):
        from sedflow_dist.inference.posterior import Posterior

        summarise = Posterior.summarise

        def hit(posterior, photometry, flags, row):
            if row <= ROW < row + len(flags) and not flags[ROW - row] & int(Flag.FAILED):
                act(self.fault, note(self.folder, "row"), self.test)
            return summarise(posterior, photometry, flags, row)

        Posterior.summarise = hit


@pytest.fixture
def dask_nodes(monkeypatch):
    """A scheduler, and two workers each on a nanny of its own."""
    folder = str(HELPERS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")])))
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1",
                   "--memory-limit", "1500 MiB", "--host", "127.0.0.1", "--no-dashboard"]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        nannies = [subprocess.Popen(command, **quiet) for _ in range(2)]
        with Client(cluster) as client:
            client.wait_for_workers(2, timeout=60)
            yield client
        for nanny in nannies:
            if nanny.poll() is None:
                tiny.kill_when(nanny, lambda: True)


@pytest.mark.parametrize(("fault", "outcome", "number"), cells("infer"))
def test_inference_bears_faults(filled_run, dask_nodes, tmp_path, fault, outcome, number):
    run = filled_run(tiny.location(tmp_path / "run"), N_ROWS)
    reference = filled_run(tiny.location(tmp_path / "reference"), N_ROWS)
    if outcome == FLAGGED:
        store = photometry.open(reference.photometry, "r+")
        values = store.read(2, small.ARRAYS)
        values["flags"][ROW - 2 * small.SHARD] |= np.uint32(int(Flag.FAILED))
        store.write(2, values)
    reference.infer()
    dask_nodes.register_plugin(Hit(tmp_path, fault))
    counts = small.Small(run.root, run.model, dask_nodes.scheduler.address, run.bands).infer()
    assert attempts(tmp_path, "row") == number
    (one, _), (other, _) = reference.contents(), run.contents()
    for name, (values, _) in one.items():
        if name != "shard_key":
            assert values.tobytes() == other[name][0].tobytes() or values.dtype.kind == "T", name
    flagged = np.flatnonzero(other["flags"][0] & int(Flag.FAILED)).tolist()
    assert flagged == ([ROW] if outcome == FLAGGED else [])
    assert counts["FAILED"] == len(flagged)
    assert counts["rows"] == N_ROWS


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_this_table():
    page = (ROOT / "docs" / "guarantees.md").read_text()
    lines = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    head = next(line for line in lines if line[:2] == ["fault", "simulate"])
    shown = {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines if line[0] in TABLE}
    for fault, row in TABLE.items():
        for stage, (outcome, number) in row.items():
            assert shown[fault][stage] == f"{outcome}, {number} attempts", (fault, stage)
