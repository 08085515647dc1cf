"""Catalogs out: identifiers of any kind and what a catalog says of its columns come through every container."""

import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from jobs.export import _ROW_COLUMNS, _write_fits, _write_parquet, to_table, write
from storage_schemas.catalog import arrays

#: Columns of a row's certificate: what tells a reader how far to trust it.
CERTIFICATE = ("method", "effective_draws", "effective_fraction", "pareto_k", "log_evidence", "log_evidence_error",
               "chi2", "p_value", "rhat")  # fmt: skip


@pytest.fixture
def catalog():
    """Two rows of one parameter whose identifiers are text, as Zarr's variable-length strings come back."""
    about = {spec.name: {"units": spec.units, "long_name": spec.long_name} for spec in arrays({})}
    columns = {name: ("galaxy", i + np.arange(2) / 4, about[name]) for i, name in enumerate(_ROW_COLUMNS)}
    columns |= {"quantiles": (("galaxy", "param", "quantile"), np.ones((2, 1, 5)))}
    columns |= {name: (("galaxy", "param"), np.ones((2, 1))) for name in ("mean", "std")}
    columns["NAME"] = ("galaxy", np.array(["M 31", "NGC 1"], np.dtypes.StringDType()))
    attributes = {"ids": ["NAME"], "param_units": ["Gyr"], "run": {"model": "m", "seed": 1}}
    return xr.Dataset(columns, {"param": ["t_burst"]}, attributes)


def test_text_identifiers_reach_fits_and_parquet(catalog, tmp_path):
    table = to_table(catalog)
    _write_fits(table, tmp_path / "c.fits")
    _write_parquet(table, tmp_path / "c.parquet")
    assert Table.read(tmp_path / "c.fits")["NAME"].tolist() == ["M 31", "NGC 1"]
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet")["NAME"].to_pylist() == ["M 31", "NGC 1"]


@pytest.mark.parametrize("name", ["c.fits", "c.parquet", "c.csv"])
def test_every_certificate_reaches_every_container(catalog, tmp_path, name):
    write(to_table(catalog), tmp_path / name)
    table = Table.read(tmp_path / name, format={"c.csv": "ascii.csv"}.get(name))
    for column in CERTIFICATE:
        found = table[column.upper() if name == "c.fits" else column]
        np.testing.assert_array_equal(np.asarray(found), catalog[column].values, err_msg=column)


def test_descriptions_are_the_stores(catalog, tmp_path):
    _write_fits(to_table(catalog), tmp_path / "c.fits")
    _write_parquet(to_table(catalog), tmp_path / "c.parquet")
    header = fits.getheader(tmp_path / "c.fits", 1)
    number = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
    schema = pyarrow.parquet.read_schema(tmp_path / "c.parquet")
    for column in (*CERTIFICATE, "redshift", "flags"):
        expected = catalog[column].attrs["long_name"]
        assert expected
        assert header[f"TCOMM{number[column.upper()]}"] == expected
        assert schema.field(column).metadata[b"description"].decode() == expected
    assert header[f"TUNIT{number['RA']}"] == "deg"
    assert f"TCOMM{number['T_BURST_MEAN']}" not in header
    assert schema.field("t_burst_mean").metadata == {b"unit": b"Gyr"}
