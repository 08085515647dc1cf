"""Catalogs out: identifiers of any kind come through every container."""

import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr
from astropy.table import Table

from jobs.export import _ROW_COLUMNS, _write_fits, _write_parquet, to_table


@pytest.fixture
def catalog():
    """Two rows of one parameter whose identifiers are text, as Zarr's variable-length strings come back."""
    columns = {name: ("galaxy", np.zeros(2)) for name in _ROW_COLUMNS}
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
