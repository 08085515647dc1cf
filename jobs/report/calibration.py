"""Charts of a validation store: whether the model's posteriors of simulated galaxies cover the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jobs.report.charts import Axis, Bars, Chart, Lines, Panels
from sedflow_dist.validation.coverage import band_half_width, check, histogram_band, pp_curve

_BINS = 20


class Judged(NamedTuple):
    """Charts, and a line for each test: what was tested, the galaxies, the p-value of uniform ranks."""

    charts: list[Chart]
    tests: list[tuple[str, int, float]]


def judged(arrays: Mapping[str, np.ndarray]) -> Judged:
    """Return p-p curves, rank histograms and TARP of galaxies in which all bands were measured."""
    complete = arrays["complete"]
    ranks, names = arrays["rank"][complete], [str(name) for name in arrays["param"]]
    tests = [(f"p-p, {name}", len(ranks), p) for name, p in zip(names, check(ranks).p_values, strict=True)]
    grid, curve = pp_curve(ranks)
    half = band_half_width(len(ranks))
    level, below = "credible level", "fraction of galaxies below"
    pp = Lines("pp", "p-p: ranks of the truth among the flow's draws", level, below,
               {name: (grid, curve[:, i]) for i, name in enumerate(names)}, half)  # fmt: skip
    axis, band = Axis("rank of the truth", np.linspace(0, 1, _BINS + 1)), histogram_band(len(ranks), _BINS)
    parts = [
        Bars(name, name, axis, np.histogram(ranks[:, i], axis.edges)[0], band) for i, name in enumerate(names)
    ]  # fmt: skip
    charts: list[Chart] = [pp]
    for name, title in (("tarp", "TARP"), ("hpd", "Expected coverage")):
        curves = {}
        for kind, prefix in (("plain draws", ""), ("weighted draws", "weighted_")):
            found = arrays[prefix + name][complete, None]
            x, y = pp_curve(found)
            curves[kind] = x, y[:, 0]
            tests.append((f"{title}, {kind}", len(found), check(found).pooled))
        charts.append(Lines(name, f"{title}: all parameters together", level, below, curves, half))
    charts.append(Panels("sbc", "Simulation-based calibration: ranks of the truth", tuple(parts)))
    return Judged(charts, tests)
