"""Catalog files in: one content whatever the container, clear errors for what cannot be read."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tiny
from astropy.table import Table

from jobs.ingest import ingest
from jobs.tables import Table as Catalog
from jobs.tables import resolve
from sedflow_dist import surveys
from storage_schemas import photometry

NAMES = ("MODELFLUX", "MODELFLUX_IVAR", "EXTINCTION")


@pytest.fixture(scope="module")
def rows():
    return Table.read(resolve("kcorrect-sample"))[:50]


def flat(rows):
    """Columns of vectors as NAME[i], which is how CSV holds them."""
    columns = {name: np.asarray(rows[name]) for name in ("RA", "DEC", "Z")}
    return columns | {f"{name}[{i}]": np.asarray(rows[name][:, i]) for name in NAMES for i in range(5)}


@pytest.fixture(scope="module")
def files(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogs")
    rows.write(folder / "a.fits")
    lists = {name: pa.array(np.asarray(rows[name]).tolist()) for name in NAMES}
    singles = {name: pa.array(np.asarray(rows[name], float)) for name in ("RA", "DEC", "Z")}
    pa.parquet.write_table(pa.table(lists | singles), folder / "a.parquet")
    pa.csv.write_csv(
        pa.table({name: pa.array(np.asarray(values, float)) for name, values in flat(rows).items()}), folder / "a.csv"
    )
    return folder


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_the_container_does_not_matter(files, name, tmp_path):
    survey = surveys.get("sdss")
    stores = [ingest(files / n, survey, tiny.location(tmp_path / n), 20) for n in ("a.fits", name)]
    for array in (*photometry.DATA, "ra", "dec"):
        one, other = (np.asarray(store.group[array][:]) for store in stores)
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=array)
    assert [store.missing() for store in stores] == [[], []]


def test_identifiers_travel_under_their_own_names(rows, tmp_path):
    table = Table({"NSAID": np.arange(50) + 7, "Z": rows["Z"], "NMGY": np.ones((50, 7)), "NMGY_IVAR": np.ones((50, 7))})
    table.write(tmp_path / "nsa.fits")
    store = ingest(tmp_path / "nsa.fits", surveys.get("nsa"), tiny.location(tmp_path / "store"), 20)
    np.testing.assert_array_equal(store.group["NSAID"][:], np.arange(50) + 7)


def test_a_missing_column_is_named_with_what_there_is(rows, tmp_path):
    rows["RA", "DEC", "Z", "MODELFLUX"].write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"lacks MODELFLUX_IVAR\[0\].*its columns are RA, DEC, Z, MODELFLUX"):
        ingest(tmp_path / "a.fits", surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)


def test_a_wrong_unit_is_named(rows, tmp_path):
    changed = rows.copy()
    changed["MODELFLUX"].unit = "nJy"
    changed.write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"MODELFLUX\[0\] is in nJy; .* expects nanomaggy"):
        ingest(tmp_path / "a.fits", surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.fits", b"", "is empty"),
        ("a.fits", b"no FITS at all", "is not a FITS file"),
        ("a.parquet", b"no Parquet at all", "is not a parquet file"),
        ("a.csv", b"RA,DEC,Z\n", "holds no rows"),
        ("a.txt", b"RA", "is not one of .fits, .parquet, .csv"),
    ],
)
def test_what_is_no_catalog_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Catalog(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no catalog .*nothing\.fits"):
        Catalog(tmp_path / "nothing.fits")


def test_text_among_numbers_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1.0\nabc\n")
    with pytest.raises(ValueError, match="column x holds 'abc'"):
        Catalog(tmp_path / "a.csv").numbers(["x"])
