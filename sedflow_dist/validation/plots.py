"""Figures from arrays: each function draws one figure and returns it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.quantities import Quantity
from sedflow_dist.validation.coverage import (
    Calibration,
    band_half_width,
    check,
    histogram_band,
    pp_curve,
    prior_predictive,
)

if "matplotlib.pyplot" not in sys.modules and "MPLBACKEND" not in os.environ:  # a notebook has chosen its own
    matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt

#: Star-formation rates below this share of the greatest are not drawn.
_LEAST_SHARE = 1e-4
_BINS_OF_CHAINS, _WORDS_WIDTH = 10, 120
_OPTICAL_TICKS = (3000, 4000, 5000, 6000, 7000, 8000, 9000, 12_000, 20_000)  # A
BLUE, ORANGE, GREY = "#1f4e79", "#d95f02", "#8a8a8a"


@dataclass(frozen=True)
class Sed:
    """What the panel of a galaxy's spectral energy distribution shows.

    Attributes:
        bands: of each band its response: wavelength [A], response, whose peak is 1
        centres: wavelengths of all bands [A]
        photometry: of the galaxy; bands that are not measured are left out
        wavelength, flux: model spectra of some draws [A, nanomaggies]
    """

    bands: Sequence[tuple[Float[np.ndarray, " _sample"], Float[np.ndarray, " _sample"]]]
    centres: Float[np.ndarray, " band"]
    photometry: Photometry
    wavelength: Float[np.ndarray, "some wavelength"]
    flux: Float[np.ndarray, "some wavelength"]


@dataclass(frozen=True)
class History:
    """Star-formation rates [Msun/yr] of draws between ``edges`` in lookback time [Gyr]."""

    edges: Float[np.ndarray, " edge"]
    rates: Float[np.ndarray, "draw bin"]


def posterior_and_sed(
    draws: Float[np.ndarray, "draw column"],
    quantities: Sequence[Quantity],
    title: str,
    seen: Sed,
    history: History | None = None,
    words: Sequence[str] = (),
) -> Figure:
    """Corner plot of one galaxy; in its free corner its SED, its history where it is given, and lines of ``words``.

    The columns of ``draws`` are ``quantities``.
    """
    import corner  # which loads arviz where that is installed: seconds

    size = 1.5 * len(quantities)
    figure = plt.figure(figsize=(size, size))
    corner.corner(
        draws, labels=[quantity.latex for quantity in quantities], fig=figure, color=BLUE, smooth=0.8, bins=24,
        quantiles=[0.16, 0.5, 0.84], label_kwargs={"fontsize": 13}, plot_datapoints=False, fill_contours=True,
        levels=(0.68, 0.95),
    )  # fmt: skip
    _sed(figure.add_axes((0.56, 0.68, 0.41, 0.27)), seen, title)
    if history is not None:
        _history(figure.add_axes((0.73, 0.455, 0.24, 0.16)), history)
    lines = [line for text in words for line in wrap(text, _WORDS_WIDTH)]
    # Below the plots; who saves the figure has it, too, with bbox_inches="tight", as notebooks do.
    figure.text(0.06, -0.02, "\n".join(lines), fontsize=11, va="top", parse_math=False)
    return figure


def _sed(axes: Axes, seen: Sed, title: str) -> None:
    """Draw data, bands and the spectra of draws."""
    measured = seen.photometry.mask[0]
    photometry, centres = seen.photometry.bands(measured), seen.centres[measured.numpy()]
    flux, sigma = photometry.flux[0].numpy(), photometry.sigma[0].numpy()
    lo, hi = np.percentile(seen.flux, [2.5, 97.5], axis=0)
    x = seen.wavelength[0]
    axes.fill_between(x, lo, hi, color=BLUE, alpha=0.25, lw=0, label="95 % of the posterior")
    axes.plot(x, np.median(seen.flux, axis=0), color=BLUE, lw=0.8, label="median model")
    axes.errorbar(centres, flux, sigma, fmt="o", color=ORANGE, ms=6, capsize=3, label="data", zorder=5)
    axes.set(xscale="log", yscale="log", xlabel="observed wavelength [Å]", ylabel="flux [nanomaggies]", xlim=(
        0.85 * centres.min(), 1.15 * centres.max()), ylim=(0.4 * np.min(flux[flux > 0]), 2.2 * flux.max()))  # fmt: skip
    axes.set_title(title, parse_math=False)
    for wavelength, response in seen.bands:  # in the lowest seventh of the panel
        axes.fill_between(wavelength, response / 7, color=GREY, alpha=0.35, lw=0, transform=axes.get_xaxis_transform())
    first, last = axes.get_xlim()
    places = _OPTICAL_TICKS if last < 4 * first else [step * 10**power for power in (3, 4, 5) for step in (1, 2, 5)]
    ticks = [tick for tick in places if first < tick < last]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")


def _history(axes: Axes, history: History) -> None:
    """Draw the star-formation history with its intervals; bins before the Big Bang, in which all rates are 0, are left out."""
    n = int((history.rates > 0).any(0).sum())
    edges, found = history.edges[: n + 1], np.percentile(history.rates[:, :n], [2.5, 16, 50, 84, 97.5], axis=0)
    for low, high, alpha, label in ((0, 4, 0.2, "95 %"), (1, 3, 0.35, "68 %")):
        axes.stairs(found[high], edges, baseline=found[low], fill=True, color=BLUE, alpha=alpha, lw=0, label=label)
    axes.stairs(found[2], edges, baseline=None, color=BLUE, lw=1.2, label="median")
    axes.set(xlabel="lookback time [Gyr]", ylabel=r"SFR [$M_\odot$/yr]", xlim=(0, edges[-1]), yscale="log",
             ylim=(_LEAST_SHARE * found[4].max(), 2 * found[4].max()))  # fmt: skip
    axes.legend(frameon=False, fontsize=8)


def pp(
    ranks: Float[np.ndarray, "galaxy param"], quantities: Sequence[Quantity], found: Calibration, title: str
) -> Figure:
    """p-p plot of all parameters with the 99 % band of a calibrated posterior."""
    figure, axes = plt.subplots(figsize=(6.2, 6))
    grid, curve = pp_curve(ranks)
    half = band_half_width(len(ranks))
    axes.fill_between(grid, grid - half, grid + half, color=GREY, alpha=0.25, lw=0, label="99 % band")
    colors = plt.get_cmap("tab20")(np.linspace(0, 1, len(quantities)))
    for i, quantity in enumerate(quantities):
        label = f"{quantity.latex} (p = {found.p_values[i]:.2f})"
        axes.plot(grid, curve[:, i], color=colors[i], lw=1.3, label=label)
    axes.plot([0, 1], [0, 1], "k--", lw=0.8)
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="credible level", ylabel="fraction of galaxies below",
        title=f"{title}: {len(ranks):,} galaxies, pooled KS p = {found.pooled:.2f}",
    )  # fmt: skip
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    figure.tight_layout()
    return figure


def sbc(
    ranks: Float[np.ndarray, "galaxy param"],
    quantities: Sequence[Quantity],
    chains: Float[np.ndarray, "chain param"] | None = None,
    bins: int = 20,
) -> Figure:
    """Rank histograms of simulation-based calibration with the 99 % range of a uniform rank (SEDflow, figure 4).

    Args:
        ranks, chains: of the flow and, for some galaxies, of MCMC; MCMC's counts are scaled to the flow's
    """
    columns = 4
    rows = -(-len(quantities) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(11, 2.3 * rows), sharex=True, sharey=True)
    lo, hi = histogram_band(len(ranks), bins)
    for i, (axes, quantity) in enumerate(zip(grid.flat, quantities, strict=False)):
        axes.axhspan(lo, hi, color=GREY, alpha=0.25, lw=0)
        axes.hist(ranks[:, i], bins=bins, range=(0, 1), histtype="stepfilled", color=BLUE, alpha=0.75)
        if chains is not None:
            few = _BINS_OF_CHAINS
            scale = len(ranks) / bins * few / len(chains)
            axes.hist(
                chains[:, i], few, (0, 1), weights=np.full(len(chains), scale), histtype="step", color=ORANGE, lw=1.3
            )
            for count in histogram_band(len(chains), few):
                axes.axhline(scale * count, color=ORANGE, lw=0.8, ls=":")
        axes.text(0.04, 0.06, quantity.latex, transform=axes.transAxes, fontsize=13, color="white",
                  bbox={"facecolor": BLUE, "edgecolor": "none", "alpha": 0.9})  # fmt: skip
    for axes in grid[-1]:
        axes.set_xlabel("rank of the truth")
    beside = "" if chains is None else f"; orange: MCMC of {len(chains):,}, dotted: the same for it"
    figure.suptitle(f"Simulation-based calibration, {len(ranks):,} galaxies (band: 99 % of uniform ranks{beside})")
    figure.tight_layout()
    return figure


def coverage(panels: Mapping[str, Mapping[str, Float[np.ndarray, " _galaxy"]]]) -> Figure:
    """Curves of ranks that concern all dimensions together, with the 99 % band: title -> label -> ranks."""
    figure, grid = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 5), squeeze=False)
    for axes, (title, curves) in zip(grid[0], panels.items(), strict=True):
        for i, (label, ranks) in enumerate(curves.items()):
            p, curve = pp_curve(ranks[:, None])
            if i == 0:
                half = band_half_width(len(ranks))
                axes.fill_between(p, p - half, p + half, color=GREY, alpha=0.25, lw=0, label="99 % band")
            found = check(ranks[:, None])
            axes.plot(p, curve, color=(BLUE, ORANGE)[i % 2], lw=1.4, label=f"{label} (p = {found.pooled:.2f})")
        axes.plot([0, 1], [0, 1], "k--", lw=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="credible level", ylabel="fraction of galaxies below", title=title)
        axes.legend(frameon=False, loc="upper left")
    figure.tight_layout()
    return figure


def training_data(
    labels: Sequence[str],
    selection_band: int,
    training: tuple[Float[np.ndarray, "mock band"], Float[np.ndarray, "mock band"]],
    catalog: tuple[Float[np.ndarray, "galaxy band"], Float[np.ndarray, "galaxy band"]],
) -> Figure:
    """Training data beside the catalog: magnitudes in the selection band, colours, uncertainties (SEDflow, figure 1).

    Args:
        training, catalog: magnitudes and their errors [mag]; NaN where not measured
    """
    n = len(labels)
    figure, grid = plt.subplots(2, n, figsize=(2.9 * n, 5.8), squeeze=False)
    both = (("training data", training, GREY, "stepfilled"), ("catalog", catalog, ORANGE, "step"))
    names = [labels[selection_band], *(f"{a} − {b}" for a, b in pairwise(labels))]
    columns = [np.column_stack([m[:, selection_band], m[:, :-1] - m[:, 1:]]) for m in (training[0], catalog[0])]
    distance = prior_predictive(*columns)
    for i, axes in enumerate(grid[0]):
        seen = [column[np.isfinite(column[:, i]), i] for column in columns]
        limits = np.percentile(np.concatenate(seen), [0.2, 99.8])
        for values, (title, _, color, kind) in zip(seen, both, strict=True):
            axes.hist(values, 40, limits, density=True, histtype=kind, color=color, lw=1.3, label=title)
        axes.set(xlabel=f"{names[i]} [mag]", yticks=[], title=f"KS distance {distance[i]:.2f}")
    grid[0, 0].legend(frameon=False, fontsize=9)
    for band, axes in enumerate(grid[1]):
        for _, (magnitude, error), color, kind in both:
            ok = np.isfinite(magnitude[:, band]) & np.isfinite(error[:, band])
            x, y = magnitude[ok, band], np.log10(error[ok, band])
            if kind == "step":
                axes.plot(x[:5000], y[:5000], ".", color=color, ms=1.5, alpha=0.5, zorder=3, rasterized=True)
            else:
                axes.set(xlim=np.percentile(x, [0.2, 99.8]), ylim=np.percentile(y, [0.2, 99.8]) + np.array([-0.2, 0.2]))
                axes.hist2d(x, y, 50, (axes.get_xlim(), axes.get_ylim()), cmap="Greys")
        axes.set(xlabel=f"{labels[band]} [mag]", ylabel="log uncertainty [mag]" if band == 0 else "")
    figure.tight_layout()
    return figure


def mass_redshift(
    redshift: Float[np.ndarray, " galaxy"],
    quantiles: Float[np.ndarray, "galaxy 3"],
    flagged: Bool[np.ndarray, " galaxy"],
) -> Figure:
    """Stellar mass against redshift: quantiles are 16, 50, 84 % of log surviving mass."""
    figure, axes = plt.subplots(figsize=(8, 5.5))
    middle = quantiles[:, 1]
    width = 0.5 * (quantiles[:, 2] - quantiles[:, 0])
    shown = np.isfinite(middle)
    good = shown & ~flagged
    points = axes.scatter(redshift[good], middle[good], c=width[good], s=5, cmap="viridis", vmin=0.05, vmax=0.3, lw=0)
    rest = shown & flagged
    axes.scatter(redshift[rest], middle[rest], s=14, facecolors="none", edgecolors=ORANGE, lw=0.8,
                 label=f"{rest.sum():,} flagged")  # fmt: skip
    figure.colorbar(points, label="half width of the 68 % interval [dex]")
    axes.set(xlabel="redshift", ylabel=r"$\log M_*$ (surviving) [$M_\odot$]",
             title=f"{shown.sum():,} of {len(redshift):,} galaxies answered")  # fmt: skip
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure
