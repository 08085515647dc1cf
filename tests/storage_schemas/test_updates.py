"""A photometry store whose input changes, killed at each of the requests that change it: nothing is damaged, nothing mixed."""

import shutil
from unittest import mock

import numpy as np
import obstore
import pytest
import tiny

from storage_schemas import photometry
from storage_schemas.backend.arrays import all_arrays

#: Few arrays, so that many kills take little time: of one dimension, and of two.
FEW = tuple(spec for spec in photometry.ARRAYS if spec.name in ("flux", "input_row"))
CHUNK, LABELS, IDS = 4, ["g", "r"], {"ID": "str"}
#: Inputs by their files: name and what it holds, of which the number of rows is the first figure.
INPUTS = {
    "short": [("a", 2.0)], "less short": [("a", 3.0)], "other": [("a", 3.5)], "one chunk": [("a", 4.0)],
    "long": [("a", 10.0)], "more files": [("a", 4.0), ("b", 7.0)], "gone": [("b", 7.0)],
}  # fmt: skip


class Killed(Exception):  # noqa: N818
    """What ends a process, which does nothing afterwards."""


class Requests:
    """Counts what changes the storage; from request number ``last`` on none is made."""

    def __init__(self, last=None):
        self.n, self.last = 0, last
        self.patches = [
            mock.patch.object(obstore, name, self.counted(getattr(obstore, name), name.endswith("async")))
            for name in ("put", "put_async", "delete", "delete_async")
        ]

    def counted(self, request, is_async):
        def count():
            self.n += 1
            if self.last is not None and self.n > self.last:
                raise Killed

        async def later(*arguments, **options):
            count()
            return await request(*arguments, **options)

        def now(*arguments, **options):
            count()
            return request(*arguments, **options)

        return later if is_async else now

    def __enter__(self):
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in self.patches:
            patch.stop()


def plan(name, known):
    """The files of an input, numbered as the store knows them, and the values of its rows (row,): number of file and content."""
    listed, values = [photometry.File(file.url, 0, "") for file in known], []
    for url, content in INPUTS[name]:
        number = next((n for n, file in enumerate(listed) if file.url == url), len(listed))
        listed[number : number + 1] = [photometry.File(url, int(content), str(content))]
        values += [100 * number + content + row / 100 for row in range(int(content))]
    return listed, np.array(values)


def update(store, name):
    """Make the store that of an input; chunks that changed are missing."""
    listed, values = plan(name, photometry.files(store))
    keys = [hash(values[i : i + CHUNK].tobytes()) % 2**63 for i in range(0, len(values), CHUNK)]
    return photometry.update(store, len(values), listed, 1, keys, {"of": name})


def ingest(where, name):
    """What `jobs.ingest.job.ingest` does to a store."""
    n_rows = sum(int(content) for _, content in INPUTS[name])
    store = photometry.create(where, n_rows, CHUNK, LABELS, IDS, {"survey": "test"})
    listed, values = plan(name, photometry.files(store))
    if not photometry.is_made_of(store, listed) or store.missing():
        store = update(store, name)
        for chunk in store.missing():
            store.write(chunk, rows_of(values[store.rows(chunk)]))
    return store


def rows_of(values):
    """All arrays of some rows."""
    n_rows, specs = len(values), photometry.observations(redshift_errors=False)
    arrays = {spec.name: np.repeat(values[:, None], 2, axis=1) if len(spec.dims) == 2 else values for spec in specs}
    text = np.array([f"{value}" for value in values], np.dtypes.StringDType())
    return {**arrays, photometry.id_array("ID"): text, photometry.ID_MISSING: np.zeros((n_rows, 1), bool)}


def contents(store):
    """Everything that a store holds."""
    arrays = {
        name: (np.asarray(values[:]).tolist(), dict(values.attrs)) for name, values in all_arrays(store.group).items()
    }
    return arrays, dict(store.group.attrs), store.missing()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("less short", "other"), pytest.param("short", "less short", marks=SLOW),
        pytest.param("less short", "long", marks=SLOW), pytest.param("long", "short", marks=SLOW),
        pytest.param("more files", "one chunk", marks=SLOW), pytest.param("one chunk", "more files", marks=SLOW),
        pytest.param("more files", "gone", marks=SLOW),
    ],
)  # fmt: skip
def test_an_update_that_is_killed_anywhere_damages_nothing_and_any_ingest_may_come_next(
    tmp_path, monkeypatch, old, new
):
    monkeypatch.setattr(photometry, "ARRAYS", FEW)
    before = tiny.location(tmp_path / "before")
    ingest(before, old)
    shutil.copytree(before.url, tmp_path / "alone")
    alone = tiny.location(tmp_path / "alone")
    first, second, third = (contents(ingest(alone, name)) for name in (old, new, old))
    wanted = {old: (first, third), new: (second,)}  # files that are no longer there keep their numbers
    shutil.copytree(before.url, tmp_path / "counted")
    with Requests() as made:
        update(photometry.open(tiny.location(tmp_path / "counted"), "r+"), new)
    assert made.n > 10
    for last in range(made.n):
        name = (old, new)[last % 2]  # the next ingest is of either
        where = tiny.location(tmp_path / f"{last}")
        shutil.copytree(before.url, where.url)
        with pytest.raises(Killed), Requests(last):
            update(photometry.open(where, "r+"), new)
        assert list(photometry.open(where).damaged()) == [], f"killed after {last} of {made.n} requests"
        store = ingest(where, name)
        assert contents(store) in wanted[name], f"killed after {last} of {made.n} requests"
        assert list(store.damaged()) == []


def test_who_began_to_read_about_the_files_before_an_update_reads_what_was_so_then(tmp_path, monkeypatch):
    monkeypatch.setattr(photometry, "ARRAYS", FEW)
    before = ingest(tiny.location(tmp_path), "short").group["file_n_rows"]
    after = ingest(tiny.location(tmp_path), "other").group["file_n_rows"]
    assert (before[:].tolist(), after[:].tolist()) == ([2], [3])
