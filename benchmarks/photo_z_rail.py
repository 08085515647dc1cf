"""Redshifts of a RAIL file, by our stages in RAIL's own interfaces, judged as photo-z codes are; true redshifts are looked at last.

Arguments: the file (group `photometry`: RAIL's columns, and the true redshifts), a model with a redshift head, and how many
galaxies (all). Figures by magnitude and by redshift, and beside them those of any other estimator whose ensemble of the same rows
is named as NAME=FILE. What was found: benchmarks/RESULTS.md.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import qp
from common import report
from rail.core.data import DataHandle

from sedflow_dist.inference import redshift_density
from sedflow_dist.rail import SedflowEstimator, SedflowInformer
from sedflow_dist.validation.photo_z import Judged

GRID = np.linspace(0, 3.2, 321)
EDGES = redshift_density.around(GRID)
FEWEST = 20
MAGNITUDES, REDSHIFTS = (16, 22, 23, 24, 25.3), (0, 0.5, 1.0, 1.5, 3.2)


def estimated(table: dict[str, np.ndarray], model: str) -> tuple[Any, float]:
    """Return the ensemble, and the CPU seconds that a galaxy took."""
    informer = SedflowInformer.make_stage(name="inform", trained_model=model, hdf5_groupname="", output_mode="return")
    handed = informer.inform({name: values[:1] for name, values in table.items()})
    estimator = SedflowEstimator.make_stage(
        name="estimate", model=handed, hdf5_groupname="", zmax=GRID[-1], nzbins=len(GRID), output_mode="return"
    )
    start = time.process_time()
    found = estimator.estimate(table)
    seconds = (time.process_time() - start) / len(table["redshift"])
    return found.data if isinstance(found, DataHandle) else found, seconds


def judged(name: str, density: np.ndarray, truth: np.ndarray, kept: np.ndarray) -> None:
    """Print the figures of some galaxies: of the mode, as BPZ's published ones are, and of the median."""
    p, z = density[kept], truth[kept]
    below = np.concatenate([np.zeros((len(p), 1)), (p * np.diff(EDGES)).cumsum(1)], 1)
    median = np.array([np.interp(0.5, row, EDGES) for row in below])
    for what, point in (("mode", GRID[p.argmax(1)]), ("median", median)):
        one = Judged.of(point, p, EDGES, z).figures()
        report(f"{name}, {what}: sigma_IQR, bias, outliers, beyond 0.15",
               f"{one['sigma_iqr']:.4f}, {one['bias']:+.4f}, {one['outliers']:.2%}, {one['far']:.2%}")  # fmt: skip
    report(f"{name}: PIT KS, CDE loss", f"{one['pit_ks']:.4f}, {one['cde_loss']:.3f}")


def everywhere(name: str, density: np.ndarray, table: dict[str, np.ndarray]) -> None:
    """Print figures of all galaxies, by magnitude, and by redshift, and how well n(z) is met."""
    truth, i_band = table["redshift"].astype(float), table["mag_i_lsst"]
    judged(name, density, truth, np.full(len(truth), True))
    for what, values, edges in (("i", i_band, MAGNITUDES), ("z", truth, REDSHIFTS)):
        for low, high in pairwise(edges):
            kept = (values >= low) & (values < high)
            if kept.sum() >= FEWEST:
                judged(f"{name}, {what} {low}-{high} ({kept.sum()})", density, truth, kept)
    whole = Judged.of(truth, density, EDGES, truth)
    report(f"{name}: n(z), largest difference of cumulative distributions", f"{whole.number_distance:.4f}")


def main() -> None:
    file, model, *more = sys.argv[1:]
    n = next((int(word) for word in more if word.isdigit()), None)
    with h5py.File(file) as content:
        table = {name: values[:n] for name, values in content["photometry"].items()}
    ensemble, seconds = estimated(table, model)
    fraction = ensemble.ancil["effective_fraction"][:, 0]
    report("CPU ms a galaxy", f"{1e3 * seconds:.1f}")
    report(
        "effective fraction, median; 5 %; below 0.01; none",
        f"{np.nanmedian(fraction):.3f}; {np.nanquantile(fraction, 0.05):.3f}; {np.nanmean(fraction < 0.01):.2%}; "
        f"{np.isnan(fraction).sum()}",
    )
    bright = table["mag_i_lsst"] < 24
    report(
        "effective fraction at i < 24, median; 5 %",
        f"{np.nanmedian(fraction[bright]):.3f}; {np.nanquantile(fraction[bright], 0.05):.3f}",
    )
    everywhere("sedflow", ensemble.pdf(GRID), table)
    for name, place in (word.split("=", 1) for word in more if "=" in word):
        everywhere(name, qp.read(place)[: len(fraction)].pdf(GRID), table)


if __name__ == "__main__":
    main()
