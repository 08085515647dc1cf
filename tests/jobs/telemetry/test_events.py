"""What a job tells: lines of JSON, a record beside the stores, what was begun again; and that telling fails no job."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny

from cluster import dask_engine, retries
from cluster.settings import DaskSettings
from jobs.run import status
from jobs.telemetry import events, metrics, progress
from jobs.telemetry.events import Chunk, Record
from jobs.telemetry.metrics import REGISTRY
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import Flag
from storage_schemas.catalog import schema as catalog


@pytest.fixture
def run(tmp_path):
    return tiny.settings(tmp_path / "root", tmp_path / "input.fits")


@pytest.fixture(autouse=True)
def for_programs(monkeypatch):
    monkeypatch.setenv("SEDFLOW_LOG", "json")


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@events.job("work")
def work(run, error=None):
    with progress.bar("work", 30, "rows", 10) as bar:
        bar.wrote(Chunk(3, 20, 4096, 0.5))
        retries.observer()("chunk 4", "its worker died")
        if error:
            raise error


def test_every_event_is_one_line_that_says_whose_it_is(run, capsys):
    work(run)
    said = lines(capsys)
    assert [line["event"] for line in said] == ["started", "part", "chunk", "retry", "done"]
    assert all(line["run"] == "tiny" and line["stage"] == "work" for line in said)
    assert all(datetime.fromisoformat(line["time"]).tzinfo is not None for line in said)
    chunk, retry, done = said[2:]
    assert (chunk["chunk"], chunk["rows"], chunk["bytes"], chunk["seconds"], chunk["rate"]) == (3, 20, 4096, 0.5, 40.0)
    assert chunk["outcome"] == "written"
    assert (retry["what"], retry["why"], retry["retries"]) == ("chunk 4", "its worker died", 1)
    assert (done["rows"], done["done"], done["total"], done["chunks"], done["retries"]) == (20, 30, 30, 1, 1)


def test_the_last_record_is_that_of_the_end(run):
    work(run)
    record = events.records(run.location)["work"]
    assert (record.state, record.done, record.total, record.rows, record.retries) == ("done", 30, 30, 20, 1)
    assert (record.run, record.pid, record.error) == ("tiny", os.getpid(), None)
    assert [path.name for path in Path(run.root).iterdir()] == [events.FOLDER]


def test_what_failed_is_told_and_recorded(run, capsys):
    with pytest.raises(RuntimeError, match="no more memory"):
        work(run, RuntimeError("no more memory"))
    last = lines(capsys)[-1]
    assert (last["event"], last["error"]) == ("failed", "no more memory")
    record = events.records(run.location)["work"]
    assert (record.state, record.error) == ("failed", "no more memory")
    assert "failed" in status.describe(record) and "no more memory" in status.describe(record)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(143), "SystemExit 143"),
        (MemoryError(), "MemoryError"),
        (OSError(f"https://key:{'secret'}@host/x failed"), "https://***@host/x failed"),
    ],
)
def test_every_end_has_words(run, error, words):
    with pytest.raises(type(error)):
        work(run, error)
    assert events.records(run.location)["work"].error == words


def test_a_job_within_a_job_is_of_the_same_run(run):
    @events.job("outer")
    def outer(run):
        work(None)

    outer(run)
    assert set(events.records(run.location)) == {"outer", "work"}
    assert events.current() is None


def test_a_job_of_no_run_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work(None)
    assert list(tmp_path.iterdir()) == []


def test_storage_that_is_gone_fails_no_job(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    work(tiny.settings(tmp_path / "file" / "root", tmp_path / "input.fits"))
    said = lines(capsys)
    assert sum(line["event"] == "warning" and "no progress record" in line["message"] for line in said) == 1
    assert said[-1]["event"] in ("done", "warning")


def test_a_job_that_is_silent_still_has_a_heartbeat(run, monkeypatch):
    monkeypatch.setattr(events, "BEAT", 0.05)
    with events.under_way("quiet", run):
        deadline, seen = time.monotonic() + 20, set()
        while len(seen) < 3:
            assert time.monotonic() < deadline
            if record := events.records(run.location).get("quiet"):
                assert record.state == "running"
                seen.add(record.heartbeat)
            time.sleep(0.02)
    assert events.records(run.location)["quiet"].state == "done"


def test_status_tells_running_from_stalled(run):
    now = datetime.now(UTC)
    record = Record(stage="infer", run="tiny", doing="infer", done=5, total=9, unit="galaxies", started=now, advanced=now,
                    heartbeat=now, host="node-7", pid=12, version="1")  # fmt: skip
    assert "running, infer at 5 of 9 galaxies" in status.describe(record, now)
    later = now + status.SILENCE + timedelta(seconds=1)
    assert f"stalled since {now:%Y-%m-%d %H:%M:%S} UTC, infer at 5 of 9 galaxies (node-7" in status.describe(
        record, later
    )


def test_a_record_that_cannot_be_read_is_left_out(run):
    work(run)
    for name, content in (("broken", b"{"), ("foreign", b"[1]"), ("ours", b'{"stage": "ours"}')):
        (run.location / events.FOLDER).put(f"{name}.json", content)
    assert set(events.records(run.location)) == {"work"}


def test_people_get_sentences(run, capsys, monkeypatch):
    """In a file or a pipe too, where a bar is a line each time it is shown."""
    monkeypatch.delenv("SEDFLOW_LOG")
    progress.say("work", "hello")
    work(run)
    said = capsys.readouterr().err
    bars = [line for line in said.splitlines() if line.startswith("work      :") and "rows/s" in line]
    assert len(bars) >= 2 and "30.0/30.0" in bars[-1] and "\r" not in said
    assert "work      : hello\n" in said
    assert "summary   : work: done, 20 rows in " in said and "1 chunks, 4.00 kiB, 1 retries" in said
    assert "{" not in said


def test_only_json_and_text_are_ways_to_tell(monkeypatch):
    monkeypatch.setenv("SEDFLOW_LOG", "yaml")
    with pytest.raises(ValueError, match="SEDFLOW_LOG is 'yaml'; allowed are json and text"):
        events.emit("x")


def fails_once(item, folder):
    if item == 1 and not (Path(folder) / "failed").exists():
        (Path(folder) / "failed").touch()
        raise OSError("storage hiccup")
    if item == 2 and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os._exit(1)
    return item


def test_tasks_of_dask_that_are_begun_again_are_counted(dask, run, tmp_path, capsys):
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    found = []
    with events.under_way("retried", run) as job, dask_engine.client(DaskSettings(address=dask)) as client:
        dask_engine.map_tasks(client, fails_once, range(4), found.append, folder=str(tmp_path))
    assert sorted(found) == [0, 1, 2, 3]
    whys = [line["why"] for line in lines(capsys) if line["event"] == "retry"]
    assert "OSError: storage hiccup" in whys
    assert any("died" in why for why in whys)
    assert job.record.retries == len(whys)
    assert REGISTRY.get_sample_value("sedflow_retries_total", {"stage": "retried"}) == len(whys)


def test_fractions_are_counted_up_to_their_bounds():
    import numpy as np

    found = metrics.Fractions.of(np.array([0.0005, 0.001, 0.0011, 0.9, 0.91, 1.0, np.nan], np.float64))
    assert found.counts == (2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2)
    assert found.total == pytest.approx(2.8126)


@pytest.mark.parametrize("address", ["9464", "host:", ":9464", "127.0.0.1:port", "127.0.0.1:99999"])
def test_metrics_are_served_at_addresses_only(address):
    with pytest.raises(ValueError, match="it takes host:port"):
        metrics.serve(address)


# -- metrics ------------------------------------------------------------------------------------------------------------


def test_what_is_served_after_a_run_is_what_its_catalog_holds(filled_run, tmp_path):
    import urllib.request

    import numpy as np
    from prometheus_client.parser import text_string_to_metric_families

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}

    port = metrics.serve("127.0.0.1:0")
    run = filled_run(tiny.location(tmp_path / "run"), 60)
    before = scrape()
    run.infer()
    after = scrape()
    counted = {name: value - before.get(name, 0) for name, value in after.items()}
    data = catalog.open_catalog(run.catalog)
    for method in Method:
        assert counted["sedflow_galaxies_total", method.name] == np.sum(data["method"].values == method)
    for flag in Flag:
        assert counted["sedflow_flags_total", flag.name] == np.sum((data["flags"].values & int(flag)) != 0)
    fraction = data["effective_fraction"].values.astype(float)
    assert counted["sedflow_effective_fraction_count",] == np.isfinite(fraction).sum() > 0
    assert counted["sedflow_effective_fraction_sum",] == pytest.approx(np.nansum(fraction))
    assert counted["sedflow_effective_fraction_bucket", "0.1"] == np.sum(fraction <= 0.1)
    assert counted["sedflow_chunks_total", "infer"] == counted["sedflow_chunk_seconds_count", "infer"] == 3
    assert counted["sedflow_work_total", "galaxies", "infer"] == 60
    assert after["sedflow_job_running", "infer"] == 0
    assert after["sedflow_job_done", "infer"] == after["sedflow_job_total", "infer"] == 60
