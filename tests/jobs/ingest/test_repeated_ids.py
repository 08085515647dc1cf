"""An identifier that is none, as a number that counts within each field, is told of, with what to write instead."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny

from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from sedflow_dist.photometry.duplicates import are_unlike
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey

BANDS = ("g", "r", "i")


def survey(*ids):
    return Survey(
        name="fields", bands=tuple(f"sdss2010-{b}" for b in BANDS), labels=BANDS, flux=tuple(f"F_{b}" for b in BANDS),
        error=tuple(f"E_{b}" for b in BANDS), error_kind="sigma", ids=ids,
    )  # fmt: skip


def fields(path, n_fields=3, n=20, **changes):
    """NUMBER counts from 1 in each FIELD."""
    rows = np.arange(n_fields * n)
    columns = {"NUMBER": rows % n + 1, "FIELD": np.char.add("f", (rows // n).astype(str)), "Z": np.full(len(rows), 0.1)}
    columns |= {"RA": 10.0 + rows // n, "DEC": (rows % n) / 60.0}
    columns |= {f"F_{b}": 10.0 + rows for b in BANDS} | {f"E_{b}": np.ones(len(rows)) for b in BANDS}
    pa.parquet.write_table(pa.table({**columns, **changes}), path, row_group_size=11)
    return path


def report(path, out, *ids):
    store = ingest(path, survey(*ids), tiny.location(out), 16, Ingest())
    flags = np.asarray(store.group["flags"][:])
    return store.group.attrs["report"], int(np.sum((flags & int(Flag.DUPLICATE)) != 0))


def test_a_number_that_counts_within_fields_is_told_of_and_with_its_field_it_is_none(tmp_path, capsys):
    path = fields(tmp_path / "a.parquet")
    found, n = report(path, tmp_path / "one", "NUMBER")
    assert n == 40  # flagged, as the survey asks
    assert found["repeated_ids"]["ids"] == ["NUMBER"]
    assert found["repeated_ids"]["pairs"] == found["repeated_ids"]["unlike"] > 10
    said = capsys.readouterr().err
    assert "NUMBER repeats in different galaxies" in said
    assert "ids: [FIELD, NUMBER]" in said
    assert re.search(r"\(NUMBER \d+: row \d+ of file 0 and row \d+ of file 0\)", said)
    found, n = report(path, tmp_path / "both", "FIELD", "NUMBER")
    assert (n, "repeated_ids" in found) == (0, False)
    assert "repeats" not in capsys.readouterr().err


def test_rows_that_are_one_galaxy_twice_are_duplicates_and_nothing_more(tmp_path, capsys):
    n = 20
    ra, dec = np.tile(10 + np.arange(n) / 10, 2), np.tile(np.arange(n) / 10, 2)
    path = fields(tmp_path / "a.parquet", 2, n, RA=ra + np.repeat([0, 1e-5], n), DEC=dec)
    found, n_duplicates = report(path, tmp_path / "out", "NUMBER")
    assert (n_duplicates, "repeated_ids" in found) == (n, False)
    assert "repeat" not in capsys.readouterr().err


def test_without_positions_the_fluxes_tell(tmp_path):
    nothing = np.full(60, np.nan)
    found, _ = report(fields(tmp_path / "a.parquet", RA=nothing, DEC=nothing), tmp_path / "one", "NUMBER")
    assert found["repeated_ids"]["unlike"] == found["repeated_ids"]["pairs"]
    same = {f"F_{b}": 10.0 + np.arange(60) % 20 for b in BANDS}
    found, n = report(fields(tmp_path / "b.parquet", RA=nothing, DEC=nothing, **same), tmp_path / "two", "NUMBER")
    assert (n, "repeated_ids" in found) == (40, False)


@pytest.mark.parametrize(
    ("moved", "unlike"),
    [({}, False), ({"ra": 360.0 - 1e-4}, False), ({"dec": 0.001}, True), ({"ra": np.nan}, False),
     ({"ra": np.nan, "flux": 99.0}, True), ({"ra": np.nan, "flux": 99.0, "mask": False}, False), ({"ra": 180.0}, True)],
)  # fmt: skip
def test_two_rows_are_unlike_on_another_part_of_the_sky_or_else_with_other_fluxes(moved, unlike):
    one = {
        "ra": np.zeros(1),
        "dec": np.zeros(1),
        "flux": np.ones((1, 3)),
        "sigma": np.ones((1, 3)),
        "mask": np.ones((1, 3), bool),
    }
    other = {name: np.full_like(values, moved[name]) if name in moved else values for name, values in one.items()}
    assert are_unlike(one, other) is unlike
