"""What `sedflow doctor --root` says of storage that keeps its promises, and of storage that does not."""

import os
from concurrent.futures import ThreadPoolExecutor

import fault_proxy
import pytest
import racer
import tiny
from commands import sedflow
from fault_proxy import Fault, FaultProxy

from storage_schemas.backend import conditions
from storage_schemas.backend.location import Location


@pytest.fixture(scope="module")
def proxy(s3_server, request):
    proxy = FaultProxy(s3_server, in_turn=request.config.option.s3 == "moto")
    yield proxy
    proxy.close()


@pytest.fixture
def place(proxy, request):
    with fault_proxy.place(proxy, request.node.name, tries=3, timeout=5) as place:
        yield place


def test_a_server_that_keeps_its_promises_is_found_good_and_left_as_it_was(place):
    for _ in range(5):
        assert conditions.examine(place).endswith("of 16 at once one wins; an upload in parts is whole")
    assert not list(place.list())


def test_a_local_folder_is_found_good(tmp_path):
    found = conditions.examine(tiny.location(tmp_path))
    assert found == "conditional writes are accepted and refused as they must be"
    assert not os.listdir(tmp_path)


def test_a_lost_race_is_lost_by_either_answer(place, proxy):
    """Every second 412 is a 409, to which the storage library asks again."""
    proxy.faults = [fault := Fault("conflict", method="PUT", rate=0.5)]
    assert "of 16 at once one wins" in conditions.examine(place)
    assert fault.struck > 5


def test_runs_at_once_become_releases_by_either_answer(place, proxy):
    proxy.faults = [Fault("conflict", method="PUT")]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: racer.race(place, seed), range(1, 5)))
    assert sorted(release for release, _ in results) == [f"release-{number}" for number in range(1, 5)]
    assert sum(lost for _, lost in results) > 0, "they did not meet"


BROKEN = {
    "ignored": (Fault("ignore conditions"), "ignores If-None-Match: two runs at once could lose commits"),
    "If-Match ignored": (Fault("ignore conditions", method="PUT", after=2), "ignores If-Match: two runs at once"),
    "right refused": (Fault("refuse"), "refuses If-Match with the ETag that it gave itself: no second commit would ever"),
    "all win": (Fault("ignore conditions", method="PUT", after=4), "let 16 of 16 writers at once win on one condition"),
    "no parts": (Fault("expired", method="POST", path="uploadId="), "does not complete an upload in parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(place, proxy, name):
    fault, message = BROKEN[name]
    proxy.faults = [fault]
    with pytest.raises(RuntimeError, match=message) as error:
        conditions.examine(place)
    assert f"`sedflow doctor --root {place}`" in str(error.value)
    proxy.faults = []
    assert not list(place.list())


@pytest.mark.parametrize("name", ["ignored", "If-Match ignored", "right refused"])
def test_no_writer_begins_where_a_promise_is_broken(place, proxy, name):
    fault, message = BROKEN[name]
    fault.seen = 0
    proxy.faults = [fault]
    with pytest.raises(RuntimeError, match=message):
        conditions.require(place)


def test_doctor_ends_with_the_broken_promise(place, proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.faults = [Fault("refuse")]
    done = sedflow("doctor", "--root", place.url)
    assert done.returncode == 1
    assert "refuses If-Match with the ETag that it gave itself" in done.stdout
    proxy.faults = []
    done = sedflow("doctor", "--root", place.url)
    assert done.returncode == 0, done.stdout
    assert "conditional writes are accepted and refused as they must be; of 16 at once one wins" in done.stdout


def test_a_bucket_that_is_not_there_is_no_broken_promise(proxy):
    with pytest.raises(FileNotFoundError):
        conditions.require(Location.parse("s3://no-such-bucket/x", proxy.url))
