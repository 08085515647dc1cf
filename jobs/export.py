"""export: a posterior catalog in, a FITS, Parquet or CSV table out: one row per galaxy, in the input's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.table import Column, Table

from sedflow_dist.posterior import QUANTILE_NAMES
from storage_schemas.catalog import open_catalog
from storage_schemas.storage import Location

_UNITS = {"log10(Msun)": "dex(solMass)", "log10(Msun/yr)": "dex(solMass/yr)", "log10(1)": "dex", "Gyr": "Gyr",
          "mag": "mag", "deg": "deg", "nanomaggy": "nmgy"}  # fmt: skip
_ROW_COLUMNS = (
    "ra", "dec", "redshift", "method", "n_bands", "effective_draws", "effective_fraction", "pareto_k", "log_evidence",
    "log_evidence_error", "chi2", "p_value", "rhat", "flags",
)  # fmt: skip


def to_table(catalog: xr.Dataset) -> Table:
    """Return the catalog as an astropy table: identifiers, position, ``{name}_p025 .. _p975, _mean, _std``, quality."""
    table = Table()
    for name in (*catalog.attrs["ids"], *_ROW_COLUMNS):
        add(table, name, catalog[name].values, catalog[name].attrs.get("units"), catalog[name].attrs.get("long_name"))
    add_summary(table, catalog, *(catalog[name].values for name in ("quantiles", "mean", "std")))
    table.meta["MODEL"] = catalog.attrs["run"]["model"]
    table.meta["SEED"] = catalog.attrs["run"]["seed"]
    return table


def export(source: Location, out: Path, ref: str) -> int:
    """Write the catalog to ``out``; the ending says how. Return the number of rows.

    Raises:
        ValueError: the ending is not .fits, .parquet or .csv.
    """
    check_ending(out)
    table = to_table(open_catalog(source, ref))
    write(table, out)
    return len(table)


def check_ending(out: Path) -> None:
    """Raise ValueError unless `write` knows the ending."""
    if out.suffix.lower() not in (".fits", ".parquet", ".csv"):
        raise ValueError(f"cannot export to {out}: the ending must be .fits, .parquet or .csv")


def write(table: Table, out: Path) -> None:
    """Write a table; the ending says how."""
    suffix = out.suffix.lower()
    if suffix == ".fits":
        _write_fits(table, out)
    elif suffix == ".parquet":
        _write_parquet(table, out)
    else:
        table.write(out, format="ascii.csv", overwrite=True)


def add_summary(table: Table, catalog: xr.Dataset, quantiles: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
    """Add ``{name}_p025 .. _p975, _mean, _std`` of every parameter and property; arrays as in `posterior.Summary`."""
    for i, (name, unit) in enumerate(zip(catalog["param"].values, catalog.attrs["param_units"], strict=True)):
        for j, quantile in enumerate(QUANTILE_NAMES):
            add(table, f"{name}_{quantile}", quantiles[:, i, j], unit)
        add(table, f"{name}_mean", mean[:, i], unit)
        add(table, f"{name}_std", std[:, i], unit)


def add(table: Table, name: str, values: np.ndarray, unit: str | None = None, description: str | None = None) -> None:
    """Add a column; unit and description are written as a catalog's arrays have them."""
    if values.dtype.kind in "TO":
        values = np.array(values.tolist(), dtype=str)
    table[name] = Column(values, unit=_UNITS.get(unit or ""), description=description)


def _write_fits(table: Table, out: Path) -> None:
    from astropy.io import fits

    upper = table.copy()
    upper.rename_columns(table.colnames, [name.upper() for name in table.colnames])
    units = {name: str(column.unit) for name, column in upper.columns.items() if str(column.unit).startswith("dex")}
    for name in units:
        upper[name].unit = None
    hdu = fits.BinTableHDU(upper, name="POSTERIOR")
    for name, unit in units.items():  # the FITS standard writes a logarithm as log(unit)
        hdu.columns.change_unit(name, unit.replace("dex(", "log(").replace(" ", "") if "(" in unit else "log(1)")
    for number, name in enumerate(upper.colnames, 1):
        if description := upper[name].description:
            hdu.header[f"TCOMM{number}"] = description
    hdu.writeto(out, overwrite=True, checksum=True)


def _write_parquet(table: Table, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    fields: list[Any] = []
    arrays = []
    for name in table.colnames:
        values = pa.array(table[name].tolist() if table[name].dtype.kind == "U" else np.asarray(table[name]))
        about = {"unit": str(table[name].unit or ""), "description": table[name].description or ""}
        fields.append(pa.field(name, values.type, metadata={key: text for key, text in about.items() if text} or None))
        arrays.append(values)
    metadata = {key: str(value) for key, value in table.meta.items()}
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata)), out)
