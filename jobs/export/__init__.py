"""export: a posterior catalog in; a FITS, Parquet or CSV table, a Zarr group, a HATS catalog, qp ensembles or PROVABGS's columns
out, block by block.

Whatever the container, memory holds a block of rows (of HATS, a partition), however large the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import xarray as xr

from jobs.export import arrow, ensembles, fits_table, hats_catalog, zarr_group
from jobs.export.rows import Rows, of_catalog
from jobs.export.whole import Destination

#: By ending: what writes that container, and returns the names of what it wrote where they are not the one it was given.
CONTAINERS: dict[str, Callable[[Rows, Destination], Sequence[str] | None]] = {
    ".fits": fits_table.write, ".parquet": arrow.write_parquet, ".csv": arrow.write_csv,
    ".zarr": zarr_group.write, ".hats": hats_catalog.write, "_hats": hats_catalog.write, ".qp.hdf5": ensembles.write,
}  # fmt: skip
TABLES = (".fits", ".parquet", ".csv")
#: Ends the name of a table with PROVABGS's own columns, which are made of draws: `jobs.catalog.provabgs`.
PROVABGS = "provabgs.hdf5"


def export(catalog: xr.Dataset, out: Destination, columns: Sequence[str] = ()) -> int:
    """Write rows of a catalog to ``out``, here or in a bucket, as `export_files`; return the number of rows."""
    return export_files(catalog, out, columns)[0]


def export_files(catalog: xr.Dataset, out: Destination, columns: Sequence[str] = ()) -> tuple[int, Sequence[str]]:
    """Write rows of a catalog to ``out``, here or in a bucket; the ending says how. Return their number, and what is written.

    Args:
        columns: columns of `rows.of_catalog`, or the parameters and properties whose columns are wanted; all if empty.
            Identifiers, position and row of the input always come along. PROVABGS's table has its own, and no others.

    Raises:
        ValueError: no such ending or column; says what is allowed.
    """
    if check_ending(out, (*CONTAINERS, PROVABGS)) == PROVABGS:
        from jobs.catalog import provabgs  # it replays draws, and whoever does so writes tables by this package

        if columns:
            raise ValueError(f"{out} has PROVABGS's own columns: --columns chooses for {', '.join(CONTAINERS)}")
        return provabgs.write(catalog, out), [str(out)]
    rows = of_catalog(catalog, columns)
    return rows.n_rows, write(rows, out)


def check_ending(out: Destination, allowed: Iterable[str]) -> str:
    """Return which of the allowed endings a path or URL has.

    Raises:
        ValueError: it has none of them.
    """
    for ending in allowed:
        if str(out).rstrip("/").lower().endswith(ending):
            return ending
    raise ValueError(f"cannot export to {out}: the ending must be one of {', '.join(allowed)}")


def write(rows: Rows, out: Destination) -> Sequence[str]:
    """Write rows; the ending says how. Until all is written there is nothing under that name. Return what is written."""
    return CONTAINERS[check_ending(out, CONTAINERS)](rows, out) or [str(out)]
