"""A property: whatever a catalog is and whoever wrote it, the photometry store holds what that library itself reads back.

Random catalogs (dtypes, vectors, units, nulls, flags, packing, identifiers, columns that nobody wants) are written by astropy,
pyarrow, xarray and LSDB, ingested, and every value is compared.
"""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import xarray as xr
from astropy.table import MaskedColumn, QTable, Table

from cluster.settings import DaskSettings
from jobs.config.sections import Ingest
from jobs.ingest.job import ingest
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry
from storage_schemas.backend.arrays import all_arrays

BANDS = "gri"
FLUX_UNITS = ("nJy", "uJy", "mJy", "1e-29 erg / (s cm2 Hz)", None)
ANGLES = ("deg", "rad", "hourangle", "arcmin", None)
SEEDS = range(6)


def survey(vectors, kind="int"):
    flux, error = ([f"F[{i}]" if vectors else f"F_{b}" for i, b in enumerate(BANDS)] for _ in range(2))
    error = [name.replace("F", "E") for name in error]
    return Survey(
        name="random", bands=tuple(f"sdss2010-{b}" for b in BANDS), labels=tuple(BANDS), flux=tuple(flux), error=tuple(error),
        error_kind="sigma", unit="nJy", model_error=0.0, band_flags=tuple(f"BAD_{b}" for b in BANDS), redshift="Z",
        ids=("ID",),
    )  # fmt: skip


def catalog(seed):
    """Columns as masked arrays in the units that they state, those units, and whether fluxes are vectors."""
    rng = np.random.default_rng(seed)
    n, vectors = int(rng.integers(1, 40)), bool(seed % 2)
    units, columns = {}, {}

    def masked(values, share=0.2):
        return np.ma.masked_array(values, rng.random(values.shape) < share if seed else np.zeros(values.shape, bool))

    def number(values):
        """Some dtype; integers lose what is behind the point, which is then not in the catalog."""
        return values.astype(rng.choice(["f4", "f8", "i2", "i4", "i8"]))

    shape = (n, 3) if vectors else (n,)
    flux_unit, error_unit = rng.choice(np.array(FLUX_UNITS, object)), rng.choice(np.array(FLUX_UNITS[:-1], object))
    for name in ("F",) if vectors else [f"F_{b}" for b in BANDS]:
        columns[name] = masked(number(rng.uniform(-50, 900, shape)))
        columns[name.replace("F", "E")] = masked(number(rng.uniform(1, 50, shape)))
        units |= {name: flux_unit, name.replace("F", "E"): error_unit if flux_unit else None}
    columns["Z"] = masked(rng.uniform(0.01, 2, n).astype(rng.choice(["f4", "f8"])))
    angle = rng.choice(np.array(ANGLES, object))
    columns["RA"] = masked((rng.uniform(0, 359, n) * u.deg).to_value(angle or "deg"))
    columns["DEC"] = masked((rng.uniform(-89, 89, n) * u.deg).to_value(angle or "deg"))
    units |= {"RA": angle, "DEC": angle}
    columns |= {f"BAD_{b}": masked(rng.random(n) < 0.2) for b in BANDS}
    ids = (1 << 60) + rng.permutation(n)
    columns["ID"] = np.ma.array(ids if seed % 3 else np.array([f"galaxy {i}  {'x' * (i % 4)}" for i in ids]))
    columns["UNUSED"] = masked(rng.integers(0, 9, n))
    return columns, units, vectors


def as_numbers(values, unit=None, expected=None):
    """float64, NaN where missing, in the expected unit."""
    values = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    return values if unit is None else (values * u.Unit(unit)).to_value(expected)


def assert_store_is(store, read, units, vectors):
    """Every value of the store is what ``read`` (a library's own reading, by column) says, in the survey's units."""
    found = {name.removeprefix("ids/"): np.asarray(value[...]) for name, value in all_arrays(store.group).items()}
    order = np.argsort(found["input_row"]) if len(np.unique(found["input_file"])) == 1 else np.argsort(found["ID"])

    def bands(letter, kind):
        if vectors:
            return as_numbers(read[letter], units.get(letter), kind)
        return np.stack([as_numbers(read[f"{letter}_{b}"], units.get(f"{letter}_{b}"), kind) for b in BANDS], 1)

    flux, sigma = bands("F", "nJy") / 3631, bands("E", "nJy") / 3631
    bad = np.stack([np.nan_to_num(as_numbers(read[f"BAD_{b}"]), nan=1) != 0 for b in BANDS], 1)
    mask = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0) & ~bad
    np.testing.assert_array_equal(found["mask"][order], mask)
    np.testing.assert_allclose(found["flux"][order], np.where(mask, flux, 0), rtol=2e-7)
    np.testing.assert_allclose(found["sigma"][order], np.where(mask, sigma, 0), rtol=2e-7)
    flags = found["flags"][order]
    np.testing.assert_array_equal((flags & int(Flag.BAND_MISSING)) != 0, ~mask.all(1))
    redshift = as_numbers(read["Z"])
    np.testing.assert_allclose(found["redshift"][order], redshift, rtol=2e-7)
    np.testing.assert_array_equal((flags & int(Flag.BAD_REDSHIFT)) != 0, ~(redshift > 0))
    for name in ("RA", "DEC"):
        np.testing.assert_allclose(
            found[name.lower()][order], as_numbers(read[name], units.get(name), "deg"), rtol=1e-13
        )
    assert found["ID"][order].tolist() == [i if isinstance(i, str) else int(i) for i in read["ID"]]


def run(source, tmp_path, vectors, order="input"):
    where = tiny.location(tmp_path / "store")
    return ingest(source, survey(vectors), where, 4096, Ingest(order=order), DaskSettings(workers=1))


def as_astropy(columns, units):
    """A table of plain and masked columns and quantities."""
    table = QTable()
    for name, values in columns.items():
        if values.mask.any():
            table[name] = MaskedColumn(values, unit=units.get(name))
        else:
            table[name] = values.data * u.Unit(units[name]) if units.get(name) else values.data
    return table


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ending", ["fits", "fits.gz", "parquet", "ecsv", "vot", "hdf5"])
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_what_astropy_writes(seed, ending, tmp_path):
    columns, units, vectors = catalog(seed)
    if ending == "vot" and "hourangle" in units.values():  # which VOTable has no word for
        units = {name: "deg" if unit == "hourangle" else unit for name, unit in units.items()}
    path = tmp_path / f"a.{ending}"
    options = {"hdf5": {"path": "deep/table", "serialize_meta": True}, "vot": {"format": "votable"}}.get(ending, {})
    as_astropy(columns, units).write(path, **options)
    read = Table.read(path, path="deep/table") if ending == "hdf5" else Table.read(path)
    read["ID"] = read["ID"].astype(str) if read["ID"].dtype.kind == "S" else read["ID"]
    assert str(read["RA"].unit) == str(u.Unit(units["RA"]) if units["RA"] else None)
    assert_store_is(run(path, tmp_path, vectors), read, units, vectors)


def arrow_array(values, rng):
    """One of the ways in which Arrow holds a column."""
    if values.ndim == 2:
        whole = values.mask.any(1) & (rng.random(len(values)) < 0.5)
        rows = [None if gone else [None if m else v for v, m in zip(row.data.tolist(), row.mask, strict=True)]
                for row, gone in zip(values, whole, strict=True)]  # fmt: skip
        inner = pa.from_numpy_dtype(values.dtype)
        return pa.array(rows, rng.choice(np.array([pa.list_(inner), pa.list_(inner, 3), pa.large_list(inner)], object)))
    array = pa.array([None if m else v for v, m in zip(values.data.tolist(), np.ma.getmaskarray(values), strict=True)],
                     pa.string() if values.dtype.kind == "U" else pa.from_numpy_dtype(values.dtype))  # fmt: skip
    if rng.random() < 0.3:
        return array.dictionary_encode()
    if values.dtype.kind == "i" and rng.random() < 0.3 and values.dtype.itemsize < 8:
        return array.cast(pa.decimal128(12, 2))
    return array


def numpy_of(column):
    """What pyarrow says of a column, value by value."""
    if pa.types.is_string(column.type) or (
        pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    ):
        return column.to_pylist()
    rows = [[None] * 3 if pa.types.is_list(column.type) and v is None else v for v in column.to_pylist()]
    width = next((len(row) for row in rows if isinstance(row, list)), None)
    if width is None and not pa.types.is_nested(column.type):
        return (
            rows
            if column.type == pa.int64() and None not in rows
            else np.array([np.nan if v is None else float(v) for v in rows])
        )
    full = [[np.nan] * 3 if row is None else [np.nan if v is None else v for v in row] for row in rows]
    return np.array(full, float)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_pyarrow_writes(seed, tmp_path):
    columns, units, vectors = catalog(seed)
    rng = np.random.default_rng(seed)
    key = rng.choice(["unit", "units", "Unit"])
    arrays = {name: arrow_array(values, rng) for name, values in columns.items()}
    if seed % 3:
        arrays["ID"] = pa.array(columns["ID"].data)
    arrays["NESTED"] = pa.array([{"a": [1, 2]}] * len(columns["Z"]))
    fields = [
        pa.field(name, array.type, metadata={key: units[name]} if units.get(name) else None)
        for name, array in arrays.items()
    ]
    pa.parquet.write_table(pa.table(list(arrays.values()), pa.schema(fields)), tmp_path / "a.parquet", row_group_size=7)
    table = pa.parquet.read_table(tmp_path / "a.parquet")
    read = {name: numpy_of(table[name]) for name in table.column_names if name != "NESTED"}
    assert_store_is(run(tmp_path / "a.parquet", tmp_path, vectors), read, units, vectors)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore")
def test_what_xarray_writes(seed, zarr_format, tmp_path):
    columns, units, vectors = catalog(seed)
    rng = np.random.default_rng(seed)
    content, encoding = {}, {}
    for name, values in columns.items():
        dims = ("galaxy", "band")[: values.ndim]
        about = {rng.choice(["units", "unit"]): units[name]} if units.get(name) else {}
        if values.dtype.kind == "f":
            content[name] = (dims, np.ma.filled(values, np.nan), about)
            if rng.random() < 0.5 and not name.startswith(("RA", "DEC")):
                encoding[name] = {"dtype": "i4", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -(2**31)}
            else:
                encoding[name] = {"_FillValue": float(rng.choice([-99.0, np.nan]))}
        elif values.dtype.kind == "i" and values.mask.any():
            content[name] = (dims, np.ma.filled(values.astype(float), np.nan), about)
            encoding[name] = {"dtype": values.dtype, "_FillValue": -999}
        elif values.dtype.kind == "U":
            content[name] = (dims, values.data.astype(object), about)
        else:
            content[name] = (dims, values.data, about)
    data = xr.Dataset(content).set_coords(["RA", "DEC"])
    data.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, encoding=encoding)
    read = xr.open_zarr(tmp_path / "a.zarr", chunks=None).load()
    found = {name: read[name].values for name in columns}
    assert_store_is(run(tmp_path / "a.zarr", tmp_path, vectors), found, units, vectors)


@pytest.mark.filterwarnings("ignore")
def test_what_lsdb_writes(tmp_path):
    """A collection, LSDB's default: its primary table is read, and its margin, which repeats rows, is not."""
    lsdb = pytest.importorskip("lsdb")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(5)
    n = 60
    frame = {
        name: np.where(rng.random(n) < 0.1, np.nan, rng.uniform(1, 90, n))
        for b in BANDS
        for name in (f"F_{b}", f"E_{b}")
    }
    frame |= {
        f"BAD_{b}": pandas.array([None if x < 0.1 else bool(x > 0.8) for x in rng.random(n)], "boolean[pyarrow]")
        for b in BANDS
    }
    frame |= {
        "RA": rng.uniform(0, 359, n),
        "DEC": rng.uniform(-89, 89, n),
        "Z": rng.uniform(0.1, 1, n),
        "ID": np.arange(n) + (1 << 60),
    }
    made = lsdb.from_dataframe(
        pandas.DataFrame(frame),
        ra_column="RA",
        dec_column="DEC",
        margin_threshold=20_000,
        partition_rows=30,
        catalog_name="made",
    )
    made.write_catalog(tmp_path / "collection", as_collection=True)
    assert (
        len(list((tmp_path / "collection").rglob("Npix=*")))
        > len(list((tmp_path / "collection/made").rglob("Npix=*")))
        > 1
    )
    read = lsdb.open_catalog(tmp_path / "collection").compute().sort_values("ID")
    read = {name: read[name].to_numpy(float, na_value=np.nan) if name != "ID" else read[name] for name in frame}
    store = run(tmp_path / "collection", tmp_path, False, "healpix")
    assert store.n_rows == n
    assert len(photometry.files(store)) > 1
    assert_store_is(store, read, {}, False)
