"""One writer at a time: who comes second is told who is first, and who died is followed at once or when its time is over."""

import json
import os
import signal
import subprocess
import sys
import time

import obstore
import pytest
import tiny
from fault_proxy import Fault, FaultProxy
from paths import ROOT

from storage_schemas.backend import lease
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import LOCK, Location


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path, s3_server):
    if request.param == "local":
        return tiny.location(tmp_path / "store")
    return Location.parse(f"s3://galaxies/lease-{request.node.name}", s3_server, tries=3, timeout=5)


_HOLDER = """
import sys, time
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import Location
with hold(Location.parse(sys.argv[1], sys.argv[2] or None), "photometry store"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(place):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, place.url, place.endpoint or ""], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_is_first_and_follows_the_dead_at_once(place):
    process = holder(place)
    try:
        words = f"another process is writing the photometry store .*process {process.pid} on "
        with pytest.raises(RuntimeError, match=words), hold(place, "photometry store"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with hold(place, "photometry store") as mine:
            mine.check()
            with pytest.raises(RuntimeError, match="another process"), hold(place, "photometry store"):
                pass  # another thread of this process is another writer
        with hold(place, "photometry store"):
            pass  # it was let go
    finally:
        process.kill()
        process.wait()


def test_a_task_of_a_writer_that_ended_may_write_no_more(place):
    with hold(place, "photometry store") as first:
        fence = first.fence
        fence.check()
    with pytest.raises(RuntimeError, match="this task belongs to one that ended"):
        fence.check()
    with hold(place, "photometry store"), pytest.raises(RuntimeError, match="this task belongs to one that ended"):
        fence.check()


@pytest.fixture
def remote(s3_server, request, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.1)
    return Location.parse(f"s3://galaxies/lease-{request.node.name}", s3_server, tries=3, timeout=5)


def elsewhere(place, **changes):
    """A lease that a process on another machine holds, or held."""
    record = {
        "token": "theirs",
        "host": "node-7",
        "pid": 1,
        "place": "another machine",
        "command": "sedflow run r.yaml",
    }
    obstore.put(place.objects(), LOCK, json.dumps({**record, "since": "yesterday", **changes}).encode())


def test_a_writer_elsewhere_counts_as_dead_when_it_was_not_heard_of_for_long(remote, monkeypatch):
    elsewhere(remote)
    with pytest.raises(
        RuntimeError, match=r"`sedflow run r.yaml`, process 1 on node-7.*the store is free \d+ s from now"
    ):
        hold(remote, "catalog").__enter__()
    monkeypatch.setattr(lease, "EXPIRES", 1.0)
    time.sleep(2.1)  # the server's times are whole seconds
    with hold(remote, "catalog") as mine:
        mine.check()
        time.sleep(2.5)  # it is renewed, so nobody takes it
        with pytest.raises(RuntimeError, match="another process"), hold(remote, "catalog"):
            pass


def test_a_clock_that_is_years_off_changes_nothing(remote, monkeypatch):
    with hold(remote, "catalog"):
        monkeypatch.setattr(time, "time", lambda: 4e9)
        with pytest.raises(RuntimeError, match="another process"), hold(remote, "catalog"):
            pass


def test_a_writer_that_was_held_up_learns_that_another_has_taken_over(remote):
    words = "was lost: another process has taken it over"
    with pytest.raises(RuntimeError, match=words), hold(remote, "catalog") as mine:
        elsewhere(remote)
        time.sleep(1)
        mine.check()
    assert json.loads(remote.get(LOCK))["token"] == "theirs"  # nor does it let go of what is not its own


def test_a_writer_cut_off_from_storage_stops_before_another_may_begin(remote, monkeypatch):
    monkeypatch.setattr(lease, "_UNSURE", 0.3)
    proxy = FaultProxy(remote.endpoint)
    try:
        through = Location.parse(remote.url, proxy.url, tries=1, timeout=1)
        words = "storage has not taken its renewal"
        with pytest.raises(RuntimeError, match=words), hold(through, "catalog") as mine:
            proxy.faults = [Fault("error")]
            time.sleep(1.5)
            mine.check()
    finally:
        proxy.close()


@pytest.mark.parametrize("kind", ["lost", "reset"])
def test_an_answer_that_gets_lost_costs_nobody_the_lease(remote, kind):
    proxy = FaultProxy(remote.endpoint)
    try:
        through = Location.parse(remote.url, proxy.url, tries=3, timeout=5)
        proxy.faults = [Fault(kind, method="PUT", path=LOCK, times=2)]
        with hold(through, "catalog") as mine:
            time.sleep(0.5)
            mine.check()
        assert proxy.faults[0].struck == 2
    finally:
        proxy.close()


def test_a_link_in_place_of_the_lock_is_not_written_through(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LOCK).symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(OSError), hold(tiny.location(tmp_path / "store"), "catalog"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
