"""Rows to qp ensembles, which RAIL reads: one file for each parameter, its quantiles and, beside them, everything asked for.

Of a redshift that is inferred it is p(z) on a grid, where the catalog keeps draws.

A qp ensemble cannot hold a galaxy without an answer; ``row`` of the ancillary table says which rows of the export are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import numpy as np

from jobs.export.hdf5_file import hdf5_file
from jobs.export.rows import DRAW_REDSHIFT, Column, Rows
from jobs.export.whole import Destination, destination, whole_file
from sedflow_dist.inference import redshift_density
from sedflow_dist.inference.summary import QUANTILE_NAMES, QUANTILES

_ENDING = ".qp.hdf5"
_POINTS = 301


def write(rows: Rows, out: Destination) -> list[str]:
    """Write ``OUT_{parameter}.qp.hdf5`` for each parameter of the rows, or ``out`` itself where there is one only.

    Return the files' names.

    Raises:
        ValueError: no parameter's quantiles are among the columns, or the ``qp`` package is not installed.
    """
    names = {column.name for column in rows.columns}
    stems = [column.name.removesuffix("_p50") for column in rows.columns if column.name.endswith("_p50")]
    params = [stem for stem in stems if all(f"{stem}_{quantile}" in names for quantile in QUANTILE_NAMES)]
    if not params:
        raise ValueError("qp ensembles are made of the quantiles of parameters; none are among the columns")
    where = destination(out)
    stem = where.url[: -len(_ENDING)]
    names_of = {param: where.url if len(params) == 1 else f"{stem}_{param}{_ENDING}" for param in params}
    with ExitStack() as files:  # they get their names when all are written
        for param, name in names_of.items():
            _write(rows, param, files.enter_context(whole_file(where.at(name))))
    return list(names_of.values())


def _write(rows: Rows, param: str, file: IO[bytes]) -> None:
    """Write the ensemble of one parameter."""
    try:
        import qp
    except ImportError as error:
        raise ValueError("qp ensembles need the qp package: pip install 'sedflow-dist[export]'") from error
    n_answered = sum(int(np.isfinite(block[f"{param}_p50"]).sum()) for block in rows.blocks([f"{param}_p50"]))
    if not n_answered:
        raise ValueError(f"none of {rows.n_rows:,} rows has an answer: a qp ensemble cannot hold them")
    groups: dict[str, Any] = {}
    start = 0
    with hdf5_file(file) as (content, check):
        kind, common, name, blocks = (
            _densities(rows) if rows.farthest and param == "redshift" else _quantiles(rows, param)
        )
        for values, beside in blocks:
            ensemble = qp.Ensemble(getattr(qp, kind), {**common, name: values}, beside)
            if not groups:
                groups = _allocate(content, ensemble, n_answered)
            ensemble.writeHdf5Chunk(groups, start, start + len(values))
            start += len(values)
            check()
        ensemble.finalizeHdf5Write(content)


def _allocate(content: Any, ensemble: Any, n_rows: int) -> dict[str, Any]:
    """Make the arrays of an ensemble with so many rows; `initializeHdf5Write` of qp does so in a file of its own."""
    tables = {name: table for name, table in ensemble.build_tables().items() if name != "meta"}
    groups = {name: content.create_group(name) for name in tables}
    for name, table in tables.items():
        for key, values in table.items():
            groups[name].create_dataset(key, (n_rows, *values.shape[1:]), values.dtype)
    return groups


class _Kind(NamedTuple):
    """What a qp ensemble is made of: its class, what all rows share, the name of what each has, and blocks of that."""

    name: str
    common: dict[str, np.ndarray]
    own: str
    blocks: Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]


def _densities(rows: Rows) -> _Kind:
    """p(z) at as many points as RAIL's stages have, from 0 to where the model ends (rows that have a redshift may lie beyond)."""
    assert rows.farthest is not None
    grid = np.linspace(0, rows.farthest, _POINTS)
    edges = redshift_density.around(grid)

    def densities(block: dict[str, np.ndarray]) -> np.ndarray:
        return redshift_density.in_bins(block[DRAW_REDSHIFT.name], edges)

    return _Kind("interp", {"xvals": grid}, "yvals", _blocks(rows, [DRAW_REDSHIFT], densities))


def _quantiles(rows: Rows, param: str) -> _Kind:
    """Quantiles of a parameter."""
    names = [f"{param}_{quantile}" for quantile in QUANTILE_NAMES]

    def quantiles(block: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([block[name] for name in names], axis=1).astype(np.float64)

    own = [column for column in rows.columns if column.name in names]
    return _Kind("quant", {"quants": np.array(QUANTILES)}, "locs", _blocks(rows, own, quantiles))


def _blocks(
    rows: Rows, columns: Sequence[Column], of: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """What ``of`` makes of some columns, and all columns with one number a row, of the rows for which it is finite."""
    beside = [column.name for column in rows.columns if not column.entry]
    widths, start = rows.text_widths(), 0
    for block in rows.source([*columns, *(column for column in rows.columns if not column.entry)]):
        locations = of(block)
        answered = np.flatnonzero(np.isfinite(locations).all(1))
        ancillary = {"row": start + answered}
        for name in beside:
            values = np.ma.filled(block[name][answered], "" if name in widths else 0)  # HDF5 knows no missing ones
            ancillary[name] = values.astype(f"S{widths[name]}") if name in widths else values
        start += len(locations)
        if len(answered):
            yield locations[answered], ancillary
