"""Charts on paper: a chart in, a figure of matplotlib out."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from jobs.report.charts import Bars, Chart, Density, Lines, Panels, SkyMap
from jobs.report.projection import outlines

COLOURS = ("#1f4e79", "#d95f02", "#1b9e77", "#7570b3", "#a6761d", "#e7298a", "#66a61e", "#666666")
DASHES = ("solid", "dashed", "dotted")
GREY = "#8a8a8a"


@singledispatch
def figure(chart: Chart) -> Figure:
    """Draw a chart."""
    raise TypeError(f"no drawing of {type(chart).__name__}")


def _plain(chart: Chart, size: tuple[float, float] = (6.4, 4.4)) -> tuple[Figure, Axes]:
    found = Figure(figsize=size, layout="constrained")
    axes = found.subplots()
    axes.set_title(chart.title, parse_math=False)
    return found, axes


@figure.register
def _(chart: Density) -> Figure:
    found, axes = _plain(chart)
    shown = np.where(chart.counts > 0, chart.counts, np.nan).T
    norm = LogNorm(1, max(float(chart.counts.max(initial=1)), 2))
    drawn = axes.pcolormesh(chart.x.edges, chart.y.edges, shown, norm=norm, rasterized=True)
    found.colorbar(drawn, label="galaxies in a bin")
    axes.set_xlabel(chart.x.label, parse_math=False)
    axes.set_ylabel(chart.y.label, parse_math=False)
    return found


@figure.register
def _(chart: Bars) -> Figure:
    found, axes = _plain(chart)
    axes.stairs(chart.counts, chart.x.edges, fill=True, color=COLOURS[0])
    axes.set_xlabel(chart.x.label, parse_math=False)
    axes.set_ylabel("galaxies")
    if chart.band:
        axes.axhspan(*chart.band, color=GREY, alpha=0.3, lw=0)
    return found


@figure.register
def _(chart: Panels) -> Figure:
    columns = 4
    rows = -(-len(chart.parts) // columns)
    found = Figure(figsize=(11, 2.2 * rows + 0.4), layout="constrained")
    found.suptitle(chart.title, parse_math=False)
    for axes, part in zip(found.subplots(rows, columns, squeeze=False, sharey=True).flat, chart.parts, strict=False):
        axes.stairs(part.counts, part.x.edges, fill=True, color=COLOURS[0])
        axes.set_title(part.title, fontsize=10, parse_math=False)
        if part.band:
            axes.axhspan(*part.band, color=GREY, alpha=0.3, lw=0)
    return found


@figure.register
def _(chart: Lines) -> Figure:
    found, axes = _plain(chart)
    if chart.half is not None:
        ends = np.array([0.0, 1.0])
        axes.fill_between(ends, ends - chart.half, ends + chart.half, color=GREY, alpha=0.25, lw=0)
        axes.plot(ends, ends, "k--", lw=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    for i, (label, (x, y)) in enumerate(chart.curves.items()):
        axes.plot(
            x, y, color=COLOURS[i % len(COLOURS)], ls=DASHES[i // len(COLOURS) % len(DASHES)], lw=1.4, label=label
        )
    axes.set_xlabel(chart.x, parse_math=False)
    axes.set_ylabel(chart.y, parse_math=False)
    if chart.curves:
        for text in found.legend(loc="outside right upper", frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)
    return found


@figure.register
def _(chart: SkyMap) -> Figure:
    found, axes = _plain(chart, (8, 4.6))
    plane = outlines(chart.order, chart.pixels)
    for x, y in plane.grid:
        axes.plot(x, y, color=GREY, lw=0.4, alpha=0.6)
    norm = (LogNorm if chart.log else Normalize)(*chart.limits)
    drawn = PolyCollection(list(np.stack([plane.x, plane.y], -1)), array=chart.values, norm=norm, lw=0, rasterized=True)
    axes.add_collection(drawn)
    for mark in plane.marks:
        axes.text(*mark, fontsize=7, color="#444444", ha="center", va="center")
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()
    found.colorbar(drawn, label=chart.value, shrink=0.8)
    return found
