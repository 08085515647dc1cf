"""A second S3 server, of another make: what catalogs rest on holds there, and a whole chain ends in the same content.

`make test-all` runs more there: what Makefile names under `seaweedfs`, with the option ``--s3 seaweedfs``.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import racer
import seaweedfs
import tiny
from fault_proxy import Fault, FaultProxy

from jobs.run.job import run_all
from storage_schemas import open_catalog
from storage_schemas.backend import conditions
from storage_schemas.backend.location import Location


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with seaweedfs.serve("galaxies") as url:
            yield url


def test_storage_keeps_its_promises_there(server):
    place = Location.parse("s3://galaxies/promises", server)
    assert conditions.examine(place).endswith("of 16 at once one wins; an upload in parts is whole")
    assert not list(place.list())


def test_four_runs_at_once_become_four_releases_there_on_a_bad_day(server):
    proxy = FaultProxy(server)
    try:
        place = Location.parse("s3://galaxies/four", proxy.url, tries=5, timeout=10)
        proxy.faults = [Fault("slow down", rate=0.1, in_a_row=2)]
        with ThreadPoolExecutor(4) as pool:
            results = dict(zip(range(1, 5), pool.map(lambda seed: racer.race(place, seed), range(1, 5)), strict=True))
    finally:
        proxy.close()
    assert sorted(release for release, _ in results.values()) == [f"release-{n}" for n in range(1, 5)]
    for seed, (release, _) in results.items():
        assert (open_catalog(Location.parse("s3://galaxies/four", server), release)["chi2"].values == seed).all()


@pytest.mark.slow
def test_a_whole_chain_there_makes_what_one_machine_makes(server, source, local):
    run = tiny.settings("s3://galaxies/whole-chain", source, storage={"endpoint": server})
    run_all(run)
    tiny.assert_same(tiny.contents(local), tiny.contents(run))
