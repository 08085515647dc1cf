"""FSPS itself against the SSP table made from it, one core, in one run; FSPS actors, one and two; memory of an actor.

Runs on SPS_HOME, or on a miniature that it writes: a call of FSPS costs the same on both.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import best_of, peak_memory_mb, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import mini_sps_home

from cluster import ray_engine
from cluster.settings import RaySettings
from sedflow_dist.simulation.shapes import draw_parameters
from sedflow_dist.sps import fsps_tables
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.filters import Band
from sedflow_dist.sps.fsps_engine import FSPS, band_fluxes
from sedflow_dist.sps.galaxy_model import GalaxyModel

SPACE = Composition.of().space

BANDS = tuple(f"sdss2010-{b}" for b in "ugriz")
N_DIRECT, N_TABLE = 100, 20_000


class Worker:
    """An actor that owns an FSPS."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.fsps, self.bands = FSPS(), [Band.load(name) for name in BANDS]
        self.theta, self.redshift = galaxies(N_DIRECT)
        self.galaxies()  # which has FSPS make all its SSPs

    def galaxies(self) -> float:
        """Evaluate galaxies; return peak memory [MB]."""
        for theta, z in zip(self.theta.numpy(), self.redshift.tolist(), strict=True):
            band_fluxes(*self.fsps.galaxy_spectrum(theta, z), z, self.bands)
        return peak_memory_mb()


def galaxies(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    _, theta, redshift = draw_parameters(SPACE, (0.001, 0.2), 1, "benchmark", 0, n)
    return theta, redshift


def throughput(n_actors: int, rounds: int = 4) -> tuple[float, float]:
    """Galaxies per second of FSPS actors, and the peak memory of one [MB]."""
    import ray

    with ray_engine.session(RaySettings(actors=n_actors)):
        actors = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(n_actors)]
        memory = max(ray.get([actor.galaxies.remote() for actor in actors]))
        start = time.perf_counter()
        ray.get([actor.galaxies.remote() for actor in actors for _ in range(rounds)])
        return n_actors * rounds * N_DIRECT / (time.perf_counter() - start), memory


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("SPS_HOME", str(mini_sps_home.write(Path(folder) / "home")))
        one, memory = throughput(1)
        two, _ = throughput(2)
        torch.set_num_threads(1)
        worker = Worker()
        fsps = worker.fsps
        grids = [fsps.ssp_grid(z) for z in fsps.metallicity]
        table = fsps_tables.table(fsps.wavelength, fsps.age, fsps.metallicity, grids, fsps.provenance)
        model = GalaxyModel(table, BANDS, 0.2)
        theta, redshift = galaxies(N_TABLE)
        direct = best_of(3, worker.galaxies) / N_DIRECT
        by_table = best_of(3, lambda: model.fluxes(theta, redshift)) / N_TABLE
    report("FSPS itself, ugriz, one core", f"{1e3 * direct:.1f} ms a galaxy")
    report("table made from it, one core", f"{1e6 * by_table:.1f} us a galaxy")
    report("ratio", f"{direct / by_table:,.0f}")
    report("FSPS actors: 1", f"{one:.0f} galaxies/s")
    report("FSPS actors: 2", f"{two:.0f} galaxies/s, {two / one:.2f} times as many")
    report("peak memory of an actor", f"{memory:,.0f} MB")


if __name__ == "__main__":
    main()
