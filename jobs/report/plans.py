"""What the report counts, and in which bins: a few rows, evenly spread over a catalog, in; edges out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from jobs.report.sums import columns

if TYPE_CHECKING:
    import xarray as xr

_BINS = 80
_ONE = 1 + 1e-6  # the last bin has what is exactly 1
#: Runs of rows that are looked at beforehand, and rows of each.
_RUNS, _ROWS = 40, 512
#: Parts of a quantity's rows that its edges leave out at each end, and how far they are then moved out.
_TAIL, _MARGIN = 0.002, 0.08
_MOST_PIXELS, _LEAST_IN_A_PIXEL, _ORDERS = 3000, 5, range(2, 12)
_FINEST = 29

#: Two quantities whose plane is counted: chart -> (x, y). Those of which a catalog has no parameter are left out.
_RESULTS = {
    "mass_redshift": ("redshift", "log_mstar_surviving"),
    "main_sequence": ("log_mstar_surviving", "log_sfr_1gyr"),
    "mass_metallicity": ("log_mstar_surviving", "log_z_mw"),
}
_CERTIFICATE = {
    "fraction_magnitude": ("magnitude", "effective_fraction"), "fraction_redshift": ("redshift", "effective_fraction"),
    "k_magnitude": ("magnitude", "pareto_k"), "k_redshift": ("redshift", "pareto_k"),
    "chi2_magnitude": ("magnitude", "log_chi2"), "chi2_redshift": ("redshift", "log_chi2"),
}  # fmt: skip
#: Quantities by whose bins methods and flags are counted.
BY = ("magnitude", "redshift")


@dataclass(frozen=True)
class Plan:
    """What is counted.

    Attributes:
        band: number of the band whose magnitude is looked at
        order: of the sky's pixels; None: no row has a position
        params: parameters and properties whose medians are counted
        densities: quantities of each plane
        by: quantities in whose bins methods and flags are counted
        edges: of each quantity's bins
    """

    band: int
    params: tuple[str, ...]
    densities: Mapping[str, tuple[str, str]]
    by: tuple[str, ...] = BY
    order: int | None = None
    edges: Mapping[str, Float[np.ndarray, " edge"]] = field(default_factory=dict)


def plan(catalog: xr.Dataset, band: int) -> Plan:
    """Plan the sums over a catalog that is open, whose objects are selected in ``band``."""
    names = [str(name) for name in catalog["param"].values]
    densities = {**_RESULTS, **_colours(names)}
    known = {*names, "redshift"}
    densities = {name: pair for name, pair in densities.items() if known.issuperset(pair)} | _CERTIFICATE
    params = tuple(sorted({one for pair in densities.values() for one in pair} & set(names)))
    wanted = Plan(band, params, densities)
    sample = _sample(catalog)
    values = columns(sample, wanted)
    quantities = {one for pair in densities.values() for one in pair}.union(wanted.by)
    edges = {name: _edges(values[name]) for name in quantities} | {
        "effective_fraction": np.linspace(0, _ONE, _BINS + 1)
    }
    return replace(wanted, order=_order(sample, catalog.sizes["galaxy"]), edges=edges)


def _colours(names: list[str]) -> dict[str, tuple[str, str]]:
    """The first two colours of the rest frame against each other, and a colour against a magnitude."""
    colours = [name for name in names if name.startswith("rest_")]
    magnitudes = [name for name in names if name.startswith("absmag_")]
    found = {"colour_colour": (colours[1], colours[0])} if len(colours) > 1 else {}
    if colours and magnitudes:
        found["colour_magnitude"] = magnitudes[len(magnitudes) // 2], colours[min(1, len(colours) - 1)]
    return found


def _sample(catalog: xr.Dataset) -> xr.Dataset:
    """Some runs of rows, evenly spread over a catalog: a run costs little more than a row."""
    n_rows = catalog.sizes["galaxy"]
    if n_rows <= _RUNS * _ROWS:
        return catalog
    starts = np.linspace(0, n_rows - _ROWS, _RUNS).astype(int)
    return catalog.isel(galaxy=(starts[:, None] + np.arange(_ROWS)).ravel())


def _edges(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " edge"]:
    """Edges of bins that hold nearly all of some values."""
    finite = values[np.isfinite(values)].astype(float)
    if not len(finite):
        return np.linspace(0, 1, _BINS + 1)
    low, high = np.quantile(finite, [_TAIL, 1 - _TAIL])
    margin = _MARGIN * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _order(sample: xr.Dataset, n_rows: int) -> int | None:
    """The finest order of which the sample's pixels can be drawn, and have some galaxies each."""
    pixel = sample["healpix_29"].values
    pixel = pixel[pixel >= 0]
    if not len(pixel):
        return None
    most = min(_MOST_PIXELS, n_rows / _LEAST_IN_A_PIXEL)
    fitting = [order for order in _ORDERS if len(np.unique(pixel >> 2 * (_FINEST - order))) <= most]
    return max(fitting, default=_ORDERS[0])
