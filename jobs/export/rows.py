"""Rows of a table as they are exported: what each column is called and means, and its values, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from jobs.telemetry.progress import say
from sedflow_dist.flow.trained_model import BEYOND
from sedflow_dist.inference.summary import COLUMNS, QUANTILE_NAMES, QUANTILES
from storage_schemas.catalog.query import id_variables
from storage_schemas.catalog.schema import free_names
from storage_schemas.photometry import ID_MISSING, REDSHIFT_SIGMA

#: Rows read, converted and written at once: some 15 MB of a whole catalog's columns.
BLOCK = 16_384
HEALPIX = "_healpix_29"
#: Columns that always come along, and all others of a row; the catalog's array first, where its name differs.
_PLACE = ("ra", "dec", "healpix_29", "input_file", "input_row")
CERTIFICATE = ("redshift", *(column.name for column in COLUMNS if not column.dims), "flags")
ROW_COLUMNS = (*_PLACE, *CERTIFICATE)
BAND_COLUMNS = tuple(column.name for column in COLUMNS if column.dims == ("band",))
_REWEIGHTED = ("row", "weighted", "reason")  # columns that only a table of `reweight`, or an ensemble, has


class Summary(NamedTuple):
    """What is told of each parameter and property: ending of the column, meaning, UCD (in which {} is the parameter's) and
    where in the catalog it stands."""

    ending: str
    meaning: str
    ucd: str
    array: str
    entry: tuple[int, ...]


SUMMARIES = (
    *(
        Summary(
            ending,
            f"{100 * probability:g} % quantile",
            "{};stat.median" if probability == 0.5 else "{}",
            "quantiles",
            (i,),
        )
        for i, (ending, probability) in enumerate(zip(QUANTILE_NAMES, QUANTILES, strict=True))
    ),
    Summary("mean", "posterior mean", "{};stat.mean", "mean", ()),
    Summary("std", "posterior standard deviation", "stat.stdev;{}", "std", ()),
)


@dataclass(frozen=True)
class Column:
    """One column: name, numpy dtype (``str`` for text), unit and UCD as the catalog has them, meaning.

    Its values are ``array[:, *entry]`` of the catalog, masked where the identifier number ``identifier`` is missing.
    """

    name: str
    dtype: np.dtype[Any] | type[str]
    unit: str = ""
    ucd: str = ""
    description: str = ""
    array: str = ""
    entry: tuple[int, ...] = ()
    identifier: int | None = None

    def of(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the column's values (row,) from arrays of the catalog."""
        where: tuple[Any, ...] = (..., *self.entry)
        values = arrays[self.array][where]
        missing = arrays.get(ID_MISSING) if self.identifier is not None else None
        if missing is None or not missing[:, self.identifier].any():
            return values
        return np.ma.masked_array(values.astype(object) if self.is_text else values, missing[:, self.identifier])

    @property
    def is_text(self) -> bool:
        """Whether values are text."""
        return self.dtype is str


#: Redshifts of kept draws, (row, draw): of them p(z) is made.
DRAW_REDSHIFT = Column("draw_redshift", np.dtype(np.float32), array="draw_redshift")


@dataclass(frozen=True)
class Rows:
    """Columns, the number of rows, what made them, and ``source``: blocks of some columns' values, anew at each call.

    ``farthest``: where they are of a catalog that keeps draws of inferred redshifts, the greatest that these can be.
    """

    columns: tuple[Column, ...]
    n_rows: int
    metadata: dict[str, str]
    source: Callable[[Sequence[Column]], Iterator[dict[str, np.ndarray]]]
    farthest: float | None = None

    @classmethod
    def of_arrays(cls, columns: Sequence[Column], values: dict[str, np.ndarray], metadata: dict[str, str]) -> Rows:
        """Rows that are in memory."""
        return cls(tuple(columns), len(next(iter(values.values()))), metadata, lambda _: iter([values]))

    def blocks(self, names: Sequence[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yield values (row,) of all columns, or of some, by name; there is one block at least, of no rows if need be."""
        return self.source(self.columns if names is None else [c for c in self.columns if c.name in names])

    def text_widths(self) -> dict[str, int]:
        """Return the length of the longest text in each column of text, for containers that must know it beforehand."""
        widths = {column.name: 1 for column in self.columns if column.is_text}
        for block in self.blocks(list(widths)) if widths else ():
            widths = {n: max(width, *map(len, [*np.ma.filled(block[n], ""), ""])) for n, width in widths.items()}
        return widths


def of_catalog(catalog: xr.Dataset, names: Sequence[str] = ()) -> Rows:
    """Return a catalog's rows: identifiers, position, quality, ``{name}_p025 .. _p975, _mean, _std``.

    Args:
        names: columns, or names of parameters and properties; all if empty. Identifiers and position always come along.

    Raises:
        ValueError: there is no such column; names those there are.
    """
    every = (*row_columns(catalog), *summary_columns(catalog))
    columns = every
    if names:
        chosen = set(names)
        known = {column.name for column in every} | {str(name) for name in catalog["param"].values}
        if unknown := sorted(chosen - known):
            raise ValueError(f"no column {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        always = {*(column.name for column in id_columns(catalog)), *map(exported, _PLACE)}
        columns = tuple(c for c in every if c.name in always | chosen or c.name.rpartition("_")[0] in chosen)
    for column, name in zip(id_columns(catalog), catalog.attrs["ids"], strict=True):
        if column.name != name:
            say("export", f"the identifier {name} is the column {column.name}: an export has another column {name}")
    metadata = {"MODEL": str(catalog.attrs["run"]["model"]), "SEED": str(catalog.attrs["run"]["seed"])}
    return Rows(columns, catalog.sizes["galaxy"], metadata, lambda some: read(catalog, some), _farthest(catalog))


def _farthest(catalog: xr.Dataset) -> float | None:
    """The greatest redshift of draws that a catalog keeps, where it infers redshifts."""
    if DRAW_REDSHIFT.array not in catalog or "redshift" not in catalog["param"].values:
        return None
    return float(catalog["model_weights"].attrs["spec"]["redshift"][1]) + BEYOND


def read(catalog: xr.Dataset, columns: Sequence[Column]) -> Iterator[dict[str, np.ndarray]]:
    """Yield blocks of a catalog's columns; a block is whole shards where these are not larger.

    A column in which identifiers are missing is masked there.
    """
    shard = int(catalog.attrs.get("rows_per_shard", BLOCK))
    size = max(BLOCK // shard * shard, 1) if shard < BLOCK else BLOCK
    n_rows = catalog.sizes["galaxy"]
    names = list(dict.fromkeys(column.array for column in columns))
    if ID_MISSING in catalog and any(column.identifier is not None for column in columns):
        names.append(ID_MISSING)
    for start in range(0, max(n_rows, 1), size):
        part = catalog[names].isel(galaxy=slice(start, start + size))
        values = {str(name): part[name].values for name in names}
        yield {column.name: column.of(values) for column in columns}


def row_columns(catalog: xr.Dataset) -> list[Column]:
    """Return the columns with one number a row: identifiers, position, quality."""
    more = catalog.attrs["run"].get("columns", ())  # of an average over models
    single = [_column(catalog, name) for name in (*ROW_COLUMNS, REDSHIFT_SIGMA.name, *more) if name in catalog]
    return [*id_columns(catalog), *single, *band_columns(catalog)]


def band_columns(catalog: xr.Dataset) -> list[Column]:
    """Return ``{name}_{band}`` of what is inferred of each band."""
    return [
        replace(_column(catalog, name), name=f"{name}_{label}", entry=(i,))
        for name in BAND_COLUMNS if name in catalog
        for i, label in enumerate(catalog["band"].values)
    ]  # fmt: skip


def id_columns(catalog: xr.Dataset) -> list[Column]:
    """Return the columns of identifiers, under their own names, or with ``id_`` before it where an export has another such."""
    variables = id_variables(catalog)
    taken = {HEALPIX, *_REWEIGHTED, *(column.name for column in (*summary_columns(catalog), *band_columns(catalog)))}
    names = free_names(list(variables.values()), taken)
    return [
        replace(
            _column(catalog, variable), name=names[variable], identifier=number,
            description="identifier" if names[variable] == name else f"identifier: column {name} of the input",
        )
        for number, (name, variable) in enumerate(variables.items())
    ]  # fmt: skip


def exported(array: str) -> str:
    """Return the name of an array's column: the pixel bears the one that HATS gives it."""
    return HEALPIX if array == "healpix_29" else array


def _column(catalog: xr.Dataset, array: str) -> Column:
    about, dtype = catalog[array].attrs, catalog[array].dtype
    return Column(
        exported(array), str if dtype.kind in "TOU" else dtype, about.get("units", ""),
        about.get("ucd", ""), about.get("long_name", ""), array,
    )  # fmt: skip


def summary_columns(catalog: xr.Dataset) -> list[Column]:
    """Return ``{name}_p025 .. _p975, _mean, _std`` of every parameter and property."""
    names, units = catalog["param"].values, catalog.attrs["param_units"]
    meanings = catalog.attrs.get("param_meanings") or [""] * len(names)
    ucds = catalog.attrs.get("param_ucds") or [""] * len(names)
    return [
        Column(
            f"{name}_{summary.ending}", np.dtype(np.float32), unit, summary.ucd.format(ucd) if ucd else "",
            f"{summary.meaning}: {meaning}" if meaning else "", summary.array, (i, *summary.entry),
        )
        for i, (name, unit, meaning, ucd) in enumerate(zip(names, units, meanings, ucds, strict=True))
        for summary in SUMMARIES
    ]  # fmt: skip


def null_of(dtype: np.dtype[Any]) -> int:
    """Return the number that stands for a missing identifier in containers without nulls: -2^63, of unsigned ones 2^64 - 1."""
    about = np.iinfo(dtype)
    return int(about.max if dtype.kind == "u" else about.min)


def with_null(name: str, values: np.ndarray, container: str) -> np.ndarray:
    """Return identifiers in which that number stands where they are missing.

    Raises:
        ValueError: it is an identifier, too.
    """
    null = null_of(values.dtype)
    if np.ma.filled(values == null, False).any():
        raise ValueError(
            f"identifier {name} is {null} somewhere, which in {container} stands for a missing one: export to Parquet"
        )
    return np.ma.filled(values, null)
