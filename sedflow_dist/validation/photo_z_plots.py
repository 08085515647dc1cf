"""Figures of inferred redshifts against true ones: each function draws one and returns it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from sedflow_dist.validation.photo_z import FAR, Judged
from sedflow_dist.validation.plots import BLUE, GREY, ORANGE, plt

_BINS = 20


def against_truth(judged: Judged) -> Figure:
    """Inferred against true redshifts, and below the bias in bins with the middle 68 % of errors, over (1 + z)."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.5, 8.5), sharex=True, height_ratios=(3, 1.2))
    top = float(judged.edges[-1])
    line = np.array([0, top])
    above.hexbin(
        judged.truth, judged.redshift, gridsize=80, extent=(0, top, 0, top), bins="log", mincnt=1, cmap="viridis"
    )
    above.plot(line, line, color=ORANGE, lw=1)
    for sign in (-1, 1):
        above.plot(line, line + sign * FAR * (1 + line), color=GREY, lw=1, ls="--")
    above.set(xlim=(0, top), ylim=(0, top), ylabel="redshift inferred (median)")
    e = (judged.redshift - judged.truth) / (1 + judged.truth)
    edges = np.quantile(judged.truth, np.linspace(0, 1, min(_BINS, len(e) // 20 + 1) + 1))
    bins = np.clip(np.searchsorted(edges, judged.truth, side="right") - 1, 0, len(edges) - 2)
    there = [i for i in range(len(edges) - 1) if (bins == i).any()]
    middle = np.array([np.median(judged.truth[bins == i]) for i in there])
    low, mid, high = np.array([np.quantile(e[bins == i], (0.16, 0.5, 0.84)) for i in there]).T
    below.fill_between(middle, low, high, color=BLUE, alpha=0.2, lw=0)
    below.plot(middle, mid, color=BLUE)
    below.axhline(0, color=GREY, lw=1)
    below.set(xlabel="true redshift", ylabel=r"$(z - z_{\rm true}) / (1 + z_{\rm true})$", ylim=(-FAR, FAR))
    figure.tight_layout()
    return figure


def pit(values: Float[np.ndarray, " galaxy"]) -> Figure:
    """Histogram of PIT values: flat where densities are calibrated; the band has 99 % of what chance does in a bin."""
    figure, axes = plt.subplots(figsize=(6, 4))
    expected = len(values) / _BINS
    half = 2.576 * np.sqrt(expected * (1 - 1 / _BINS))
    axes.axhspan(expected - half, expected + half, color=GREY, alpha=0.3, lw=0)
    axes.hist(values, bins=_BINS, range=(0, 1), histtype="step", color=BLUE)
    axes.set(xlabel="probability below the true redshift (PIT)", ylabel="galaxies", xlim=(0, 1))
    figure.tight_layout()
    return figure


def numbers(judged: Judged) -> Figure:
    """n(z): the densities stacked, and the true redshifts."""
    figure, axes = plt.subplots(figsize=(6, 4))
    edges = judged.edges[:: max(len(judged.edges) // 50, 1)]
    axes.hist(
        judged.truth, bins=edges.tolist(), density=True, histtype="stepfilled", color=GREY, alpha=0.4, label="true"
    )
    axes.step(judged.edges[1:], judged.stacked, color=BLUE, label="densities, stacked")
    axes.set(xlabel="redshift", ylabel="n(z), normalised", xlim=(0, edges[-1]))
    axes.legend(frameon=False)
    figure.tight_layout()
    return figure
