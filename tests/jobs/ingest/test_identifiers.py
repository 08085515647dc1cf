"""Identifiers are in the store what they are in the input: type, every digit, every letter, and whether there is one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import xarray as xr
import zarr
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from cluster.settings import DaskSettings
from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry

N = 24
BANDS = "GRI"
CLASHING = ("ra", "redshift", "flux", "flags", "key", "key_place", "param", "galaxy", "band", "healpix_29", "id_missing",
            "chunk_digest", "ids", "zarr.json", "a/b", "..", "__x", "Größe", "x[0]y")  # fmt: skip


def survey(*ids, **changes):
    return Survey(
        name="test", bands=("sdss2010-g", "sdss2010-r", "sdss2010-i"), labels=("g", "r", "i"), flux=("F_G", "F_R", "F_I"),
        error=("E_G", "E_R", "E_I"), error_kind="sigma", model_error=0.0, ids=ids, **changes,
    )  # fmt: skip


def numbers(n=N):
    """Columns that every catalog here has; no two rows are alike."""
    columns = {f"F_{b}": 10.0 + np.arange(n) + i for i, b in enumerate(BANDS)} | {f"E_{b}": np.ones(n) for b in BANDS}
    return columns | {"Z": np.full(n, 0.1), "RA": np.linspace(1, 300, n), "DEC": np.linspace(-60, 60, n)}


def parquet(path, n=N, **columns):
    pa.parquet.write_table(pa.table({**numbers(n), **columns}), path, row_group_size=10)
    return path


def csv(path, rows, header="ID"):
    """Text of the identifying columns in front of the numbers, as it stands."""
    data = numbers(len(rows))
    lines = [
        ",".join((header, *data)),
        *(",".join((r, *(str(v[i]) for v in data.values()))) for i, r in enumerate(rows)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def dask(dask):
    """The workers of all tests, as settings, for what takes several pieces or files."""
    return DaskSettings(address=dask)


def stored(source, tmp_path, *ids, name="out", dask=None, **changes):
    """What the store holds after an ingest, by array; with workers, in small pieces."""
    settings = Ingest(rows_per_piece=7 if dask else 1000)
    store = ingest(source, survey(*ids, **changes), tiny.location(tmp_path / name), 8, settings, dask)
    assert photometry.ids(photometry.open(store.location)).keys() == set(ids)
    assert not list(store.damaged())
    names = (*photometry.DATA, *photometry.PASSED, *photometry.id_arrays(photometry.ids(store)))
    return {name: np.asarray(store.group[name][:]) for name in names}


def has(found, flag):
    return (found["flags"] & int(flag)) != 0


BIG = 2**63


@pytest.mark.parametrize("container", ["a.fits", "a.parquet", "zarr"])
@pytest.mark.parametrize("kind", ["uint64", "int64", "int32", "uint8"])
def test_integers_keep_every_digit(container, kind, tmp_path):
    limits = np.iinfo(kind)
    values = np.linspace(limits.min, limits.max, N, dtype=object)
    values = np.array([int(v) for v in values[:-2]] + [limits.max - 1, limits.max], kind)
    values[:3] = limits.min, limits.min + 1, limits.min + 2
    table = Table({**numbers(), "ID": values})
    path = tmp_path / container
    if container == "a.fits":
        table.write(path)
    elif container == "a.parquet":
        parquet(path, ID=values)
    else:
        group = zarr.open_group(str(path), mode="w")
        for name in table.colnames:
            group.create_array(name, data=np.asarray(table[name]))
    found = stored(path, tmp_path, "ID")
    assert found["ids/ID"].dtype == ("uint64" if kind == "uint64" else "int64")
    assert found["ids/ID"].tolist() == values.tolist()
    assert not found["id_missing"].any() and not has(found, Flag.DUPLICATE | Flag.NO_ID).any()


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
@pytest.mark.parametrize("where", [0, 11, N - 1])
def test_a_null_is_no_identifier_and_changes_no_other(where, kind, dask, tmp_path):
    """Above 2^53 a float would round them to one."""
    values = [2**60 + i for i in range(N)]
    values[where] = values[(where + 5) % N] = None
    values[(where + 7) % N] = values[(where + 8) % N]
    found = stored(parquet(tmp_path / "a.parquet", ID=pa.array(values, kind)), tmp_path, "ID", dask=dask)
    lost = np.array([v is None for v in values])
    assert found["ids/ID"].dtype == str(kind)
    assert found["ids/ID"].tolist() == [v or 0 for v in values]
    np.testing.assert_array_equal(found["id_missing"][:, 0], lost)
    np.testing.assert_array_equal(has(found, Flag.NO_ID), lost)
    assert np.flatnonzero(has(found, Flag.DUPLICATE)).tolist() == [max((where + 7) % N, (where + 8) % N)]
    assert found["mask"].all()  # answered like others


def test_a_row_that_lacks_one_of_several_identifiers_is_no_duplicate(tmp_path):
    one, two = [7] * N, [f"n{i // 2}" if i > 3 else None for i in range(N)]
    found = stored(parquet(tmp_path / "a.parquet", A=one, B=pa.array(two)), tmp_path, "A", "B")
    assert found["id_missing"].sum(0).tolist() == [0, 4]
    assert np.flatnonzero(has(found, Flag.DUPLICATE)).tolist() == list(range(5, N, 2))
    assert np.flatnonzero(has(found, Flag.NO_ID)).tolist() == [0, 1, 2, 3]
    assert found["ids/B"].tolist() == [b or "" for b in two]


def test_csv_identifiers_are_the_text_that_is_written(tmp_path):
    text = ["00012", "12", "1e5", "100000", "+5", str(2**63 + 1), str(2**63), str(2**64 + 3), "0x10", "1.0", "nan", "NULL",
            "true", "None", "", '"a, b"', '"00012"', "-0", "2020-01-01"]  # fmt: skip
    found = stored(csv(tmp_path / "a.csv", text), tmp_path, "ID")
    none = [text.index(word) for word in ("nan", "NULL", "None", "")]
    assert found["ids/ID"].tolist() == ["" if i in none else t.strip('"') for i, t in enumerate(text)]
    assert np.flatnonzero(has(found, Flag.NO_ID)).tolist() == none
    assert np.flatnonzero(has(found, Flag.DUPLICATE)).tolist() == [text.index('"00012"')]


def test_missing_text_is_not_the_word_none(tmp_path):
    names = ["None", None, "", "  ", "nan", "x"] + [f"n{i}" for i in range(N - 6)]
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))):
        path = parquet(tmp_path / f"{number}.parquet", NAME=pa.array(names, pa.string()).cast(kind))
        found = stored(path, tmp_path, "NAME", name=f"out{number}")
        assert found["ids/NAME"].tolist()[:6] == ["None", "", "", "", "nan", "x"]
        assert np.flatnonzero(found["id_missing"][:, 0]).tolist() == [1, 2, 3]
        assert not has(found, Flag.DUPLICATE).any()


@pytest.mark.parametrize("kind", ["fits", pa.binary(), pa.binary(8), "S", "U"])
def test_bytes_and_fixed_widths_are_the_text_without_padding(kind, tmp_path):
    names = [f"M {i}" for i in range(N)]
    if kind == "fits":
        data = numbers()
        columns = [fits.Column("ID", "12A", array=np.array([n.ljust(12) for n in names]))]
        columns += [fits.Column(name, "D", array=values) for name, values in data.items()]
        path = tmp_path / "a.fits"
        fits.BinTableHDU.from_columns(columns).writeto(path)
    elif isinstance(kind, str):
        path = tmp_path / "zarr"
        group = zarr.open_group(str(path), mode="w")
        for name, values in {**numbers(), "ID": np.array(names).astype(kind)}.items():
            group.create_array(name, data=values)
    else:
        content = [n.encode() for n in names]
        width = getattr(kind, "byte_width", 0) if pa.types.is_fixed_size_binary(kind) else 0
        path = parquet(tmp_path / "a.parquet", ID=pa.array([c.ljust(width, b"\0") for c in content], kind))
    found = stored(path, tmp_path, "ID")
    assert found["ids/ID"].tolist() == names


def test_what_fits_and_xarray_call_missing_is_missing(tmp_path):
    values = np.arange(N, dtype=np.int64) + 2**60
    columns = [fits.Column("ID", "K", null=-99, array=np.where(np.arange(N) == 3, -99, values))]
    columns += [fits.Column("U", "K", null=5 - BIG, bzero=BIG, array=np.arange(N, dtype=np.uint64))]
    columns += [fits.Column(name, "D", array=data) for name, data in numbers().items()]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    found = stored(tmp_path / "a.fits", tmp_path, "ID", "U")
    assert [np.flatnonzero(lost).tolist() for lost in found["id_missing"].T] == [[3], [5]]
    assert np.delete(found["ids/ID"], 3).tolist() == np.delete(values, 3).tolist()
    for zarr_format in (2, 3):
        data = {name: ("row", array) for name, array in numbers().items()}
        data["ID"] = ("row", np.where(np.arange(N) == 3, -1, values), {}, {"_FillValue": -1})
        path = tmp_path / f"zarr{zarr_format}"
        xr.Dataset(data).to_zarr(path, zarr_format=zarr_format, consolidated=False)
        found = stored(path, tmp_path, "ID", name=f"out{zarr_format}")
        assert np.flatnonzero(found["id_missing"]).tolist() == [3]
        assert np.delete(found["ids/ID"], 3).tolist() == np.delete(values, 3).tolist()


def test_a_column_masked_by_astropy_is_missing_there(tmp_path):
    table = Table({**numbers(), "ID": MaskedColumn(np.arange(N) + 2**60, mask=np.arange(N) == 4, fill_value=-7)})
    table.write(tmp_path / "a.fits")
    found = stored(tmp_path / "a.fits", tmp_path, "ID")
    assert np.flatnonzero(found["id_missing"]).tolist() == [4]


def test_an_entry_of_a_vector_and_a_decimal_are_exact(tmp_path):
    pairs = [[i, 2**62 + i] if i != 2 else None for i in range(N)]
    many = pa.array([2**64 - 1 - i for i in range(N)], pa.decimal128(20, 0))
    path = parquet(tmp_path / "a.parquet", IDS=pa.array(pairs), D=many)
    found = stored(path, tmp_path, "IDS[1]", "D")
    assert found[photometry.id_array("IDS[1]")].tolist() == [p[1] if p else 0 for p in pairs]
    assert found["ids/D"].tolist() == [str(2**64 - 1 - i) for i in range(N)]
    assert np.flatnonzero(found["id_missing"][:, 0]).tolist() == [2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.arange(N, dtype=float), r"a\.parquet: identifier ID is float64, which does not tell galaxies apart exactly"),
        (np.arange(N) > 3, "identifier ID is boolean"), (pa.array([{"a": 1}] * N), "column ID is nested .struct<a: int64>."),
        (pa.array([b"\xff\xfe"] * N), "column ID holds bytes that are no text"),
        (pa.array(["x" * 2000] * N), "text of 2,000 characters"),
        (pa.array([1.5] * N).cast(pa.decimal128(5, 2)), "holds decimal128"),
        (np.arange(N).astype("datetime64[s]"), r"holds timestamp\[\w+\], which is neither a number nor text"),
    ],
)  # fmt: skip
def test_what_is_no_identifier_is_refused(column, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        stored(parquet(tmp_path / "a.parquet", ID=column), tmp_path, "ID")


def test_files_must_agree_on_the_type_and_a_file_of_nulls_agrees_with_all(dask, tmp_path):
    for name, column in {
        "a": np.arange(N),
        "b": [f"{i}" for i in range(N)],
        "c": np.arange(N, dtype=np.uint64),
    }.items():
        parquet(tmp_path / f"{name}.parquet", ID=column)
    parquet(tmp_path / "none.parquet", ID=pa.nulls(N))
    parquet(tmp_path / "small.parquet", ID=np.arange(N, dtype=np.uint16) + N)
    for other, kind in (("b", "str"), ("c", "uint64")):
        with pytest.raises(ValueError, match=rf"identifier ID is int64 in .*a\.parquet, {kind} in .*{other}\.parquet"):
            stored([tmp_path / "a.parquet", tmp_path / f"{other}.parquet"], tmp_path, "ID", dask=dask)
    paths = [tmp_path / f"{name}.parquet" for name in ("none", "a", "small")]
    found = stored(paths, tmp_path, "ID", dask=dask)
    assert sorted(found["ids/ID"][~found["id_missing"][:, 0]].tolist()) == list(range(2 * N))
    assert has(found, Flag.NO_ID).sum() == N and not has(found, Flag.DUPLICATE).any()
    with pytest.raises(ValueError, match=r"was made with identifiers ID \(int64\), now they are ID \(uint64\)"):
        stored([tmp_path / "c.parquet", tmp_path / "none.parquet"], tmp_path, "ID", dask=dask)


def test_identifiers_named_like_the_stores_arrays_replace_none(tmp_path):
    plain = stored(parquet(tmp_path / "plain.parquet"), tmp_path, name="plain")
    ids = {name: [f"{name} {i}" for i in range(N)] for name in CLASHING}
    found = stored(parquet(tmp_path / "a.parquet", **ids), tmp_path, *CLASHING)
    for name, values in plain.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    for name, values in ids.items():
        assert found[photometry.id_array(name)].tolist() == values
    assert len({photometry.id_array(name) for name in CLASHING}) == len(CLASHING)


# -- cuts ---------------------------------------------------------------------------------------------------------------


def test_bits_of_every_container_are_those_of_its_integers(tmp_path):
    """(1 << 58) | 4 is 1 << 58 as a float."""
    values = [(1 << 58) | 4, 1 << 58, 4, (1 << 63) | 4, 1 << 63, None] + [0] * (N - 6)
    expected = [0, 2, 3]
    as_array = np.array([v or 0 for v in values], np.uint64)
    Table({**numbers(), "BITS": as_array}).write(tmp_path / "a.fits")
    parquet(tmp_path / "a.parquet", BITS=pa.array(values, pa.uint64()))
    csv(tmp_path / "a.csv", ["" if v is None else str(v) for v in values], "BITS")
    for number, name in enumerate(("a.fits", "a.parquet", "a.csv")):
        found = stored(tmp_path / name, tmp_path, name=f"out{number}", cuts={"four": Cut(column="BITS", bits=4)})
        assert np.flatnonzero(has(found, Flag.QUALITY_CUT)).tolist() == expected, name
    high = stored(tmp_path / "a.parquet", tmp_path, name="high", cuts={"high": Cut(column="BITS", bits=1 << 63)})
    assert np.flatnonzero(has(high, Flag.QUALITY_CUT)).tolist() == [3, 4]


def test_bits_of_floats_are_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", BITS=np.r_[0.5, np.zeros(N - 1)])
    with pytest.raises(ValueError, match=r"a\.parquet: cut on bits 0x4 of BITS, which is float64 and holds 0\.5"):
        stored(path, tmp_path, cuts={"four": Cut(column="BITS", bits=4)})


@pytest.mark.parametrize(("values", "wanted"), [([6.0, 3.0, None], 6), ([True, False, None], 1)])
def test_classes_of_every_container_are_numbers(values, wanted, tmp_path):
    """pandas writes integers with nulls as 6.0, and truth values as True."""
    values = [*values] + [values[1]] * (N - 3)
    parquet(tmp_path / "a.parquet", T=pa.array(values))
    csv(tmp_path / "a.csv", ["" if v is None else str(v) for v in values], "T")
    for number, name in enumerate(("a.parquet", "a.csv")):
        found = stored(tmp_path / name, tmp_path, name=f"out{number}", cuts={"c": Cut(column="T", classes=(wanted,))})
        assert np.flatnonzero(has(found, Flag.QUALITY_CUT)).tolist() == [0], name
