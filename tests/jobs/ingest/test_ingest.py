"""Catalog files in: one content whatever the container, clear errors for what cannot be read."""

import gzip
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tiny
from astropy.table import Table

from jobs.config.sections import Ingest
from jobs.containers.formats import open_catalog
from jobs.containers.tables import Table as Catalog
from jobs.containers.tables import resolve
from jobs.ingest.job import ingest
from sedflow_dist.photometry import duplicates, surveys
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
    np.testing.assert_array_equal(store.group["ids/NSAID"][:], np.arange(50) + 7)


def test_a_missing_column_is_named_with_what_there_is(rows, tmp_path):
    rows["RA", "DEC", "Z", "MODELFLUX"].write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"lacks MODELFLUX_IVAR\[0\].*its columns are RA, DEC, Z, MODELFLUX"):
        ingest(tmp_path / "a.fits", surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)


def test_a_wrong_unit_is_named(rows, tmp_path):
    changed = rows.copy()
    changed["MODELFLUX"].unit = "mag"
    changed.write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"MODELFLUX\[0\] is in mag; .* expects nanomaggy"):
        ingest(tmp_path / "a.fits", surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.fits", b"", "is empty"),
        ("a.fits", b"no FITS at all", "is not a FITS file"),
        ("a.parquet", b"no Parquet at all", "is not a parquet file"),
        ("a.csv", b"RA,DEC,Z\n", "holds no rows"),
        ("a.doc", b"RA", "its format is not one of FITS"),
        ("a.txt", b"RA", "holds no rows"),
    ],
)
def test_what_is_no_catalog_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Catalog(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no catalog .*nothing\.fits"):
        Catalog(tmp_path / "nothing.fits")


@pytest.mark.parametrize("text", ["abc", "1_5", "0x10"])
def test_text_among_numbers_is_named(text, tmp_path):
    (tmp_path / "a.csv").write_text(f"x,y\n--,-- b\n1.0,2\n{text},3\n")
    with pytest.raises(ValueError, match=f"column x holds '{text}'"):
        Catalog(tmp_path / "a.csv").numbers(["x"])


@pytest.mark.parametrize("column", ["RA", "Z", "MODELFLUX[2]", "EXTINCTION[0]"])
def test_true_and_false_are_no_fluxes_and_no_redshifts(column, rows, tmp_path):
    Table({**flat(rows), column: np.arange(50) < 9}).write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=rf"a\.csv: column {re.escape(column)} holds true and false \(booleans\)"):
        ingest(tmp_path / "a.csv", surveys.get("sdss"), tiny.location(tmp_path / "store"), 20)


def test_a_name_matches_exactly_or_in_any_case_if_only_one_does(tmp_path):
    (tmp_path / "a.csv").write_text("Z,z,Flux,Vector[0]\n1,2,3,4\n")
    table = Catalog(tmp_path / "a.csv")
    assert [float(table.column(name)[0]) for name in ("Z", "z", "FLUX", "VECTOR[0]")] == [1, 2, 3, 4]
    (tmp_path / "b.csv").write_text("Zed,ZED\n1,2\n")
    with pytest.raises(ValueError, match="column zed may be Zed or ZED"):
        Catalog(tmp_path / "b.csv").column("zed")


def test_a_part_of_a_table_is_that_part_of_the_whole(files):
    for name in ("a.fits", "a.parquet", "a.csv"):
        whole, part = Catalog(files / name), Catalog(files / name, slice(13, 29), ["MODELFLUX[1]", "nothing", "z"])
        for column in ("MODELFLUX[1]", "Z"):
            np.testing.assert_array_equal(part.column(column), whole.column(column)[13:29])
        assert part.n_rows == 16
        with pytest.raises(ValueError, match="lacks nothing"):
            part.require(["nothing"])


@pytest.mark.parametrize(
    ("groups", "rows", "expected"),
    [
        ([50, 50, 50, 10], 60, [0, 50, 100, 160]), ([50, 50], 100, [0, 100]), ([10, 250, 10], 100, [0, 10, 110, 210, 270]),
        ([7], 3, [0, 3, 6, 7]),
    ],
)  # fmt: skip
def test_parquet_is_cut_between_row_groups_where_they_are_small(tmp_path, groups, rows, expected):
    schema = pa.schema([("x", pa.int64())])
    with pa.parquet.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        at = 0
        for n in groups:
            writer.write_table(pa.table({"x": np.arange(at, at + n)}, schema), row_group_size=n)
            at += n
    location = tiny.location(tmp_path / "a.parquet")
    with open_catalog(location) as catalog:
        cuts = catalog.borders(rows)
        found = [catalog.read(a, b, ["x"])["x"] for a, b in pairwise(cuts)]
    assert cuts == expected
    np.testing.assert_array_equal(np.concatenate(found), np.arange(at))


def test_gzipped_fits_is_read_and_a_cut_off_one_is_named(rows, files, tmp_path):
    content = (files / "a.fits").read_bytes()
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(Catalog(tmp_path / "a.fits.gz").column("MODELFLUX[2]"), rows["MODELFLUX"][:, 2])
    (tmp_path / "b.fits").write_bytes(content[:-4000])
    with pytest.raises(ValueError, match=r"b\.fits is cut off: 50 rows are announced, row 49 is not there"):
        Catalog(tmp_path / "b.fits")


def test_a_survey_without_redshifts_says_how_to_name_some(tmp_path):
    survey = surveys.get("rubin").model_copy(update={"without_redshifts": False})
    columns = {name: np.ones(30) for name in survey.required} | {"objectId": np.arange(30), "z_phot": np.full(30, 0.3)}
    Table(columns).write(tmp_path / "object.fits")
    with pytest.raises(
        ValueError, match=r"rubin has no redshifts of its own.*--redshift, or `ingest: \{redshift: NAME\}`"
    ):
        ingest(tmp_path / "object.fits", survey, tiny.location(tmp_path / "store"), 20)
    store = ingest(tmp_path / "object.fits", survey, tiny.location(tmp_path / "s"), 20, Ingest(redshift="z_phot"))
    np.testing.assert_allclose(store.group["redshift"][:], 0.3, rtol=1e-6)
    store = ingest(tmp_path / "object.fits", surveys.get("rubin"), tiny.location(tmp_path / "none"), 20)
    assert np.isnan(store.group["redshift"][:]).all()  # which a model may infer
    assert not store.group["mask"][:].any()  # all bands are flagged


def test_keys_of_duplicates_see_every_column_and_no_padding():
    number, text = np.array([1, 1, 2, 1]), np.array(["ab", "abc", "ab", "ab"])
    one, other, third, same = duplicates.keys([number, text]).tolist()
    assert one == same
    assert len({one, other, third}) == 3
    assert duplicates.keys([number[:1], text[:1]]).tolist() == [one]  # though the longest text is shorter here
    assert duplicates.keys([np.array([0.0, -0.0])]).tolist() == [0, 0]
    many = np.arange(100_000) - 50_000
    assert len(np.unique(duplicates.keys([many]))) == len(many)
