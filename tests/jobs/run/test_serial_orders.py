"""Two writers of one run at once, killed at random moments: every release is that of some serial order.

Each seed draws what two processes do (ingest, infer, reprocess, rollback, export), from which of three inputs, when they start
and when they are killed (SIGKILL). Whatever came of it, every release must hold the whole catalog of one input, bit by bit, and
the run must go on afterwards as if nothing had been.
"""

import json
import os
import random
import signal
import time

import forked
import numpy as np
import pyarrow.parquet
import pytest
import small
import tiny
import writers
from astropy.table import Table

from jobs.catalog.verify import verify
from jobs.run.reprocess import reprocess
from storage_schemas import model as model_store
from storage_schemas import open_catalog, photometry
from storage_schemas.backend.location import Location
from storage_schemas.catalog import schema as catalog

WHAT = ("ingest", "infer", "reprocess", "reprocess", "rollback", "export")
INPUTS = ("a", "b", "c")
INFERENCE = {
    "n_draws": 16, "rows_per_shard": 16, "commit_every": 1, "keep_draws": 0, "certificate": False,
}  # fmt: skip
SLOW = pytest.mark.slow
SEEDS = [
    ("local", 0),
    ("s3", 1),
    *(pytest.param("local" if n % 2 == 0 else "s3", n, marks=SLOW) for n in range(2, 200)),
]


@pytest.fixture(scope="module")
def made(source, learnt_flow, dask, s3_server, tmp_path_factory):
    """Makes the run of an input at a root; and what a catalog of each input holds, made by itself."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, name in enumerate(INPUTS):
        table = Table.read(source)[20:84]
        table["MODELFLUX"] *= 1 + 0.1 * number
        table.write(folder / f"{name}.fits")
    storage = {"endpoint": s3_server}

    def run_of(root, name, path=None):
        sections = {
            "engines": {"dask": {"address": dask}},
            "inference": INFERENCE,
            "flow": {"preset": "paper"},
            "seed": 7,
        }
        if str(root).startswith("s3:"):
            sections["storage"] = storage
        run = tiny.settings(root, path or folder / f"{name}.fits", **sections)
        if not model_store.is_finished(run.store("model")):
            model_store.write(run.store("model"), *learnt_flow.to_bytes())
        return run

    alone = {}
    for name in INPUTS:
        root = tmp_path_factory.mktemp(name)
        run = run_of(root, name, write(folder / f"{name}.fits", root / "in.fits"))
        reprocess(run)
        alone[name] = fingerprint(run.store("catalog"), "main")
    assert len(set(alone.values())) == len(INPUTS)
    return run_of, folder, alone


def write(one, other):
    other.write_bytes(one.read_bytes())
    return other


def fingerprint(where, release):
    """All values of a release but where the input was."""
    arrays, _ = small.contents(where, release)
    return json.dumps(
        {n: v.tolist() if v.dtype.kind == "T" else v.tobytes().hex() for n, (v, _) in sorted(arrays.items())}
    )


@pytest.mark.parametrize(("storage", "seed"), SEEDS)
def test_every_release_is_that_of_some_serial_order(made, s3_server, tmp_path, storage, seed):
    run_of, folder, alone = made
    chance = random.Random(seed)
    root = (
        Location.parse(f"s3://galaxies/serial-{seed}", s3_server)
        if storage == "s3"
        else tiny.location(tmp_path / "root")
    )
    path = write(folder / "a.fits", tmp_path / "in.fits")  # one file, replaced under whoever reads it
    run = run_of(root, "a", path)
    reprocess(run)
    settings, complaints = json.loads(run.model_dump_json()), tmp_path / "complaints"

    for _ in range(1 if seed < 2 else 2):
        started = []
        for number in range(2):
            if chance.random() < 0.7:
                os.replace(write(folder / f"{chance.choice(INPUTS)}.fits", tmp_path / "new.fits"), path)
            what, out = chance.choice(WHAT), tmp_path / f"{number}.parquet"
            process = forked.start(writers.act, what, settings, out, complaints)
            end = time.monotonic() + chance.uniform(0.1, 3.0) if chance.random() < 0.6 else None
            started.append((what, process, end))
            time.sleep(chance.uniform(0, 1.0))
        for what, process, end in started:
            process.join(None if end is None else max(end - time.monotonic(), 0))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
            code = process.exitcode
            said = complaints.read_text() if complaints.exists() else ""
            assert code in (writers.DONE, writers.TURNED_AWAY, -signal.SIGKILL), f"{what}\n{said}"
    check(run, alone)

    name = chance.choice(INPUTS)
    write(folder / f"{name}.fits", path)
    reprocess(run)
    assert list(verify(run)) == []
    check(run, alone)
    repo = catalog.repository(run.store("catalog"))
    same = [release for release in repo.list_tags() if fingerprint(run.store("catalog"), release) == alone[name]]
    assert same, "what was asked for last is a release"
    for out in tmp_path.glob("*.parquet"):
        exported = pyarrow.parquet.read_table(out)
        assert exported.num_rows == 64
        assert any(
            np.array_equal(exported["redshift"].to_numpy(), open_catalog(run.store("catalog"), r)["redshift"].values)
            for r in repo.list_tags()
        )


def check(run, alone):
    """Every release holds the catalog of one input, and ``main`` shows one of them, or what is about to become one."""
    where = run.store("catalog")
    repo = catalog.repository(where)
    for release in (*repo.list_tags(), "main"):
        assert fingerprint(where, release) in alone.values(), f"{release} is a mixture"
    assert not list(photometry.open(run.store("photometry")).damaged())
