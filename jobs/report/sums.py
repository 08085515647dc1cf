"""Sums over the rows of a catalog: a block of rows in, counts out, which add up over blocks. Nothing grows with the rows.

Which quantities are counted, in which bins, is planned before (`plans`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from sedflow_dist.inference.summary import Method
from sedflow_dist.magnitudes import magnitude
from sedflow_dist.photometry.flags import Flag

if TYPE_CHECKING:
    import xarray as xr

    from jobs.report.plans import Plan

#: Rows that are kept as the worst by each reason.
WORST = 25
#: Columns that the worst rows are told with.
TOLD = ("redshift", "magnitude", "effective_fraction", "pareto_k", "chi2", "p_value", "method", "flags")
_READ = ("redshift", "effective_fraction", "pareto_k", "chi2", "p_value", "method", "flags")
_SKY = ("rows", "flagged", "with_fraction", "fraction")
_PIXEL, _FINEST = "healpix_29", 29


def columns(block: xr.Dataset, plan: Plan) -> dict[str, np.ndarray]:
    """Return what is counted of a block of rows, (row,) each; medians of ``plan.params`` under their own names.

    ``magnitude`` [mag] is that of the plan's band; NaN where it is not measured, or not positive.
    """
    found = {name: block[name].values for name in _READ}
    names = [str(name) for name in block["param"].values]
    middle = int(np.argmin(np.abs(block["quantile"].values - 0.5)))
    medians = block["quantiles"].isel(quantile=middle).values
    found |= {name: medians[:, names.index(name)] for name in plan.params}
    flux, mask = (block[name].isel(band=plan.band).values for name in ("flux", "mask"))
    with np.errstate(invalid="ignore"):
        found["magnitude"] = magnitude(np.where(mask & (flux > 0), flux, np.nan))
        found["log_chi2"] = np.log10(np.maximum(found["chi2"], 1e-3))
    return found


@dataclass
class Sums:
    """What is known of some rows.

    Attributes:
        rows: their number
        methods, flags: rows by method, and by the number of a flag's bit
        counts: by the name of a density, (x, y)
        outside: rows beyond the edges of each density
        methods_by, flags_by: by the name of a quantity, (bin, method) and (bin, bit)
        sky: by pixel: rows, flagged ones, those with an effective fraction, and its sum
        worst: by reason, the worst rows
    """

    rows: int = 0
    methods: np.ndarray = field(default_factory=lambda: np.zeros(len(Method), np.int64))
    flags: np.ndarray = field(default_factory=lambda: np.zeros(32, np.int64))
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    methods_by: dict[str, np.ndarray] = field(default_factory=dict)
    flags_by: dict[str, np.ndarray] = field(default_factory=dict)
    sky: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(_SKY), index=np.empty(0, np.int64), dtype=np.float64)
    )
    worst: dict[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(cls, block: xr.Dataset, first_row: int, plan: Plan) -> Sums:
        """Count a block of rows."""
        values = columns(block, plan)
        bits = (values["flags"][:, None] >> np.arange(32, dtype=np.uint32)) & 1
        found = cls(len(bits), np.bincount(values["method"], minlength=len(Method)), bits.sum(0).astype(np.int64))
        for name, (x, y) in plan.densities.items():
            at, inside = _cells((plan.edges[x], values[x]), (plan.edges[y], values[y]))
            shape = len(plan.edges[x]) - 1, len(plan.edges[y]) - 1
            found.counts[name] = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape)
            found.outside[name] = int(np.sum(np.isfinite(values[x]) & np.isfinite(values[y])) - inside.sum())
        for name in plan.by:
            at, inside = _cells((plan.edges[name], values[name]))
            size = len(plan.edges[name]) - 1
            table = pd.DataFrame(bits[inside]).groupby(at).sum().reindex(range(size), fill_value=0)
            found.flags_by[name] = table.to_numpy(np.int64)
            both = at * len(Method) + values["method"][inside]
            found.methods_by[name] = np.bincount(both, minlength=size * len(Method)).reshape(size, -1)
        if plan.order is not None:
            found.sky = _sky(block[_PIXEL].values, values, plan.order)
        found.worst = _worst(values, first_row)
        return found

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.rows + other.rows, self.methods + other.methods, self.flags + other.flags,
            _added(self.counts, other.counts), _added(self.outside, other.outside),
            _added(self.methods_by, other.methods_by), _added(self.flags_by, other.flags_by),
            self.sky.add(other.sky, fill_value=0),
            {name: _first(pd.concat([part[name] for part in (self.worst, other.worst) if name in part]), name)
             for name in {**self.worst, **other.worst}},
        )  # fmt: skip


def added(parts: Iterable[Sums]) -> Sums:
    """Return the sum of sums."""
    return reduce(Sums.__add__, parts, Sums())


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _cells(
    *of: tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " row"]],
) -> tuple[np.ndarray, Bool[np.ndarray, " row"]]:
    """Return the cells of those rows that are within the edges, numbered row by row, and which rows these are."""
    inside = np.all([(values >= edges[0]) & (values < edges[-1]) for edges, values in of], axis=0)
    at = np.zeros(int(inside.sum()), np.int64)
    for edges, values in of:
        at = at * (len(edges) - 1) + np.searchsorted(edges, values[inside], side="right") - 1
    return at, inside


def _sky(pixel: np.ndarray, values: Mapping[str, np.ndarray], order: int) -> pd.DataFrame:
    """Return sums by pixel of an order; rows without a position do not count."""
    here = pixel >= 0
    fraction = values["effective_fraction"][here]
    table = pd.DataFrame({
        "rows": 1, "flagged": doubtful(values["flags"][here]), "with_fraction": np.isfinite(fraction),
        "fraction": np.nan_to_num(fraction).astype(np.float64),
    }, dtype=np.float64)  # fmt: skip
    return table.groupby(pixel[here] >> 2 * (_FINEST - order)).sum()


#: Flags of rows whose answers are as good as others'.
_HARMLESS = Flag.BAND_MISSING | Flag.NEGATIVE_FLUX | Flag.DUPLICATE | Flag.NO_ID | Flag.NO_MATCH


def doubtful(flags: np.ndarray) -> Bool[np.ndarray, " row"]:
    """Whether rows bear a flag that says more than that a band or an identifier is missing."""
    return (flags & ~np.uint32(int(_HARMLESS))) != 0


#: Reasons to look at a row: the column that says so, and whether its greatest values do.
REASONS = {"chi2": True, "effective_fraction": False, "pareto_k": True}


def _worst(values: Mapping[str, np.ndarray], first_row: int) -> dict[str, pd.DataFrame]:
    table = pd.DataFrame({name: values[name] for name in TOLD})
    table.index = pd.RangeIndex(first_row, first_row + len(table), name="row")
    found = {name: _first(table, name) for name in REASONS}
    return found | {"none": _first(table[table["method"] == int(Method.NONE)], "none")}


def _first(table: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return the worst rows of a table; without an answer, the first ones. Among equals the first rows stay."""
    if reason in REASONS:
        table = table[np.isfinite(table[reason])].sort_values(reason, ascending=not REASONS[reason], kind="stable")
    return table[:WORST]
