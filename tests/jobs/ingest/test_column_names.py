"""Columns are found in any case, and two that differ in case only are never confused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny

from jobs.config.sections import Ingest
from jobs.containers.tables import Table
from jobs.ingest.job import ingest
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.survey import Survey

BANDS = "griz"
ERRORS = tuple(f"E_{b}" for b in BANDS)


def survey(flux=tuple(BANDS), redshift="Z", **changes):
    return Survey(
        name="letters", bands=tuple(f"sdss2010-{b}" for b in BANDS), labels=tuple(BANDS), flux=flux, error=ERRORS,
        error_kind="sigma", redshift=redshift, ra="ra", dec="dec", **changes,
    )  # fmt: skip


def table(path, *names, n=5):
    """Every column its own number: that of a flux is 100 and more, that of a redshift below 1."""
    columns = {
        name: np.full(n, 0.25 if "redshift" in name.lower() or name == "Z" else 100.0 + i)
        for i, name in enumerate(names)
    }
    columns |= {name: np.ones(n) for name in ERRORS} | {"ra": np.linspace(1, 9, n), "dec": np.linspace(-5, 5, n)}
    pa.parquet.write_table(pa.table(columns), path)
    return path


def redshifts(path, out, which):
    store = ingest(path, which, tiny.location(out), 64, Ingest())
    return np.asarray(store.group["redshift"][:])


def test_the_flux_z_and_the_redshift_that_differ_in_case_are_both_found(tmp_path):
    found = redshifts(table(tmp_path / "a.parquet", *BANDS, "Z"), tmp_path / "out", survey())
    assert found.tolist() == [0.25] * 5


@pytest.mark.parametrize(
    ("columns", "which", "message"),
    [
        ("griz", survey(), "its column z would be both z and Z of the survey"),
        ("griZ", survey(), "its column Z would be both z and Z of the survey"),
        # neighbours: the survey has no column of the other case, but the table's letters are bands
        (["F1", "F2", "F3", "F4", *"griz"], survey(("F1", "F2", "F3", "F4")), r"lacks Z, and its column z stands beside g, r, i"),
        ([*"griZ", "redshift"], survey(redshift="redshift"), "lacks z, and its column Z stands beside g, r, i"),
        ([*"gRIz", "V", "redshift"], survey(redshift="redshift"), "lacks r, and its column R stands beside g, z, V"),
        ([*"griz", "redshift"], survey(redshift="z"), "column z is a flux, or its uncertainty, of survey letters"),
        ([*"griz", "Redshift", "REDSHIFT"], survey(redshift="redshift"), "column redshift may be Redshift or REDSHIFT"),
        ("griz", survey(redshift="e_G"), "its column E_g would be both E_g and e_G"),
        ([*"griz", "redshift"], survey(redshift="redshift", cuts={"far": Cut(column="Z", above=1.0)}), "would be both z and Z"),
    ],
)  # fmt: skip
def test_what_differs_in_case_only_is_refused_with_what_to_write(columns, which, message, tmp_path):
    path = table(tmp_path / "a.parquet", *columns)
    with pytest.raises(ValueError, match=message):
        redshifts(path, tmp_path / "out", which)


def test_names_in_another_case_are_found_where_nothing_else_is_meant(tmp_path):
    renamed = {"RA": "ra", "DEC": "dec"}
    for i, (columns, which) in enumerate([
        ([*"GRIZ", "REDSHIFT"], survey(redshift="redshift")),  # all letters alike in another case
        (["f_g", "F_R", "f_I", "f_z", "z_redshift"], survey(tuple(f"F_{b}" for b in BANDS), redshift="Z_REDSHIFT")),
    ]):  # fmt: skip
        path = table(tmp_path / f"{i}.parquet", *columns)
        content = pa.parquet.read_table(path)
        pa.parquet.write_table(content.rename_columns([renamed.get(n.upper(), n) for n in content.column_names]), path)
        assert redshifts(path, tmp_path / f"out{i}", which).tolist() == [0.25] * 5


def test_a_cut_may_write_a_column_in_another_case_than_the_survey_does(tmp_path):
    path = table(tmp_path / "a.parquet", "F_g", "F_r", "F_i", "F_z", "redshift")
    cuts = {"bright": Cut(column="f_R", above=100.5)}
    which = survey(tuple(f"F_{b}" for b in BANDS), "redshift", cuts=cuts)
    store = ingest(path, which, tiny.location(tmp_path / "out"), 64, Ingest())
    assert store.group.attrs["report"]["cuts"] == {"bright": 5}


def test_a_redshift_of_one_letter_in_another_case_is_found_where_it_stands_alone(tmp_path):
    columns = (
        {f"F{i}": np.ones(3) for i in range(4)} | {name.lower(): np.ones(3) for name in ERRORS} | {"z": np.full(3, 0.5)}
    )
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = redshifts(tmp_path / "a.parquet", tmp_path / "out", survey(("F0", "F1", "F2", "F3")))
    assert found.tolist() == [0.5] * 3


def test_one_entry_of_vectors_is_told_apart_too(tmp_path):
    columns = {"f": pa.array([[1.0, 2.0]] * 3), "F": pa.array([[3.0, 4.0]] * 3)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = Table(tiny.location(tmp_path / "a.parquet"))
    rows.require_distinct(["f[0]", "F[0]", "f[1]"])
    np.testing.assert_array_equal(rows.numbers(["f[0]", "F[1]"]), [[1, 4]] * 3)
    pa.parquet.write_table(pa.table({"f": columns["f"]}), tmp_path / "b.parquet")
    rows = Table(tiny.location(tmp_path / "b.parquet"))
    rows.require_distinct(["F[0]", "f[1]"])
    with pytest.raises(ValueError, match=r"its column f\[0\] would be both f\[0\] and F\[0\]"):
        rows.require_distinct(["f[0]", "F[0]"])


@pytest.mark.parametrize("entry", ["-1", "+1", "x", "", "1.0", "0_1", "9"])
def test_an_entry_of_vectors_is_counted_from_its_first(entry, tmp_path):
    pa.parquet.write_table(pa.table({"f": pa.array([[1.0, 2.0]] * 3)}), tmp_path / "a.parquet")
    rows = Table(tiny.location(tmp_path / "a.parquet"), exact=["f"])
    message = r"f has shape \(2,\) per row" if entry == "9" else r"is no entry of a column of vectors: .* as f\[0\]"
    for read in (rows.column, rows.exact):
        with pytest.raises(ValueError, match=message):
            read(f"f[{entry}]")
