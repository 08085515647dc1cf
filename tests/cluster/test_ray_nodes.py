"""The tiny chain on three Ray nodes and two Dask workers: the same stores, and every node took part."""

import os
import sys

import pytest
import ray
import tiny
from ray_nodes import RayNodes

from jobs.run.job import run_all
from jobs.simulate import job as simulate


@pytest.fixture(scope="module")
def nodes():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RayNodes() as nodes:
        for _ in range(3):
            nodes.add()
        yield nodes
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def signing(folder):
    """Simulators that say on which node they were."""

    class Signing(simulate.Simulator):
        def fill(self, chunk):
            (folder / f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}-{chunk}").touch()
            return super().fill(chunk)

    return Signing


@pytest.mark.slow
def test_three_ray_nodes_and_two_dask_workers_make_the_stores_of_one_machine(
    nodes, dask, local, source, tmp_path, monkeypatch
):
    (tmp_path / "signed").mkdir()
    monkeypatch.setattr(simulate, "Simulator", signing(tmp_path / "signed"))
    engines = {"ray": {"address": nodes.address, "actors": 3}, "dask": {"address": dask}}
    run = tiny.settings(tmp_path / "run", source, engines=engines)
    run_all(run)
    tiny.assert_same(tiny.contents(local), tiny.contents(run))
    signed = [path.name.split("-") for path in (tmp_path / "signed").iterdir()]
    assert len({node for node, _, _ in signed}) == 3
    assert sorted(int(chunk) for _, _, chunk in signed) == [0, 1, 2, 3]
