"""Charts of sums over a catalog's rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jobs.report.charts import Axis, Bars, Chart, Density, Lines, SkyMap
from jobs.report.plans import Plan
from jobs.report.sums import Sums
from sedflow_dist.inference.summary import METHODS
from sedflow_dist.photometry.flags import Flag

#: Bins of a plane's axis that are one where methods and flags are counted.
_TOGETHER = 4
_TITLES = {
    "mass_redshift": "Stellar mass against redshift", "main_sequence": "Star-formation rate against stellar mass",
    "mass_metallicity": "Metallicity against stellar mass", "colour_colour": "Rest-frame colours",
    "colour_magnitude": "Rest-frame colour against magnitude",
    "fraction_magnitude": "Effective fraction by magnitude", "fraction_redshift": "Effective fraction by redshift",
    "k_magnitude": "Pareto k by magnitude", "k_redshift": "Pareto k by redshift",
    "chi2_magnitude": "Goodness of fit by magnitude", "chi2_redshift": "Goodness of fit by redshift",
}  # fmt: skip
_LABELS = {
    "redshift": "redshift", "effective_fraction": "effective fraction of the draws",
    "log_mstar_surviving": "log surviving stellar mass [Msun]", "log_sfr_1gyr": "log SFR of the last 1 Gyr [Msun/yr]",
    "log_z_mw": "log mass-weighted metallicity", "pareto_k": "Pareto k of the weights",
    "log_chi2": "log10 of the best draw's chi^2",
}  # fmt: skip
RESULTS = ("mass_redshift", "main_sequence", "mass_metallicity", "colour_magnitude", "colour_colour")
CERTIFICATE = tuple(name for name in _TITLES if name not in RESULTS)


def labels(names: Mapping[str, tuple[str, str]], band: str) -> dict[str, str]:
    """Return what an axis is called by its quantity; ``names``: meaning and unit of parameters; ``band``: of magnitudes."""
    of_params = {name: f"{meaning}{'' if unit == '1' else f' [{unit}]'}" for name, (meaning, unit) in names.items()}
    return {**of_params, **_LABELS, "magnitude": f"magnitude in {band} [mag]"}


def densities(sums: Sums, plan: Plan, named: Mapping[str, str], wanted: tuple[str, ...]) -> list[Chart]:
    """Return the planes among ``wanted`` that were counted; ``named``: what the axes are called."""
    axes = {name: Axis(named[name], edges) for name, edges in plan.edges.items()}
    found: list[Chart] = []
    for name in wanted:
        if name in plan.densities:
            x, y = (axes[one] for one in plan.densities[name])
            found.append(Density(name, _TITLES[name], x, y, sums.counts[name], sums.outside[name]))
    return found


def redshifts(sums: Sums, plan: Plan, named: Mapping[str, str]) -> Bars:
    """Return galaxies by redshift."""
    axis = Axis(named["redshift"], plan.edges["redshift"][::_TOGETHER])
    return Bars("redshifts", "Galaxies by redshift", axis, _coarser(sums.methods_by["redshift"]).sum(1))


def shares(sums: Sums, plan: Plan, named: Mapping[str, str], by: str) -> list[Chart]:
    """Return the share of rows by method, and with each flag, in bins of a quantity."""
    axis = Axis(named[by], plan.edges[by][::_TOGETHER])
    rows = _coarser(sums.methods_by[by]).sum(1)
    shown = rows > 0

    def share(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return axis.centres[shown], counts[shown] / rows[shown]

    methods, flags = _coarser(sums.methods_by[by]), _coarser(sums.flags_by[by])
    answered = {
        text: share(methods[:, int(method)]) for method, text in METHODS.items() if methods[:, int(method)].any()
    }
    flagged = {
        str(flag.name): share(flags[:, bit])
        for bit, flag in ((int(flag).bit_length() - 1, flag) for flag in Flag) if flags[:, bit].any()
    }  # fmt: skip
    return [
        Lines(f"methods_{by}", f"How rows were answered, by {by}", axis.label, "share of rows", answered),
        Lines(f"flags_{by}", f"Flags, by {by}", axis.label, "share of rows", flagged),
    ]


def _coarser(counts: np.ndarray) -> np.ndarray:
    return counts.reshape(-1, _TOGETHER, counts.shape[-1]).sum(1)


def sky(sums: Sums, plan: Plan) -> list[Chart]:
    """Return maps of galaxies, of the flagged share and of the mean effective fraction; none without positions."""
    if plan.order is None or not len(sums.sky):
        return []
    table = sums.sky.sort_index()
    pixels, rows = table.index.to_numpy(np.int64), table["rows"].to_numpy()
    known = (table["with_fraction"] > 0).to_numpy()
    fraction = (table["fraction"] / table["with_fraction"]).to_numpy()[known]
    order = plan.order
    return [
        SkyMap("sky_counts", "Galaxies", "galaxies", order, pixels, rows, log=True),
        SkyMap("sky_flagged", "Share of galaxies with a doubtful answer", "flagged share", order, pixels,
               (table["flagged"] / table["rows"]).to_numpy()),
        SkyMap("sky_fraction", "Mean effective fraction of the draws", "effective fraction", order, pixels[known], fraction),
    ]  # fmt: skip
