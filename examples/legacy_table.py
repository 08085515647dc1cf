"""Mock galaxies as DESI's Bright Galaxy Survey and the Legacy Surveys would list them, for the run file desi.

Arguments: the table to write, the number of galaxies, a seed (1). In: the galaxy model of jobs/runs/desi.yaml, its prior, uniform
in redshift. Out: columns of sweeps (fluxes [nanomaggies], not corrected for extinction; FLUX_IVAR_*: of the sky's noise alone),
of DESI's redshifts (Z, ZERR, ZWARN, DELTACHI2, SPECTYPE, TARGETID), PHOTSYS, and the truth as LOGMSTAR_TRUE.

What the fluxes' scatter has beside the sky's: errors of calibration and models as the survey declares them. Half of the galaxies
lie in each footprint.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table

from jobs.config.run_file import RunFile
from sedflow_dist.magnitudes import flux as flux_of
from sedflow_dist.photometry.calibrate import relative_errors
from sedflow_dist.simulation.shapes import Shapes, draw_shapes
from sedflow_dist.sps import bagpipes_libraries, ssp
from sedflow_dist.sps.galaxy_model import GalaxyModel

RUN = Path(__file__).parents[1] / "jobs" / "runs" / "desi.yaml"
FAINTEST = 20.175  # in r: BGS Faint (Hahn et al. 2023)
#: A / E(B-V) of Schlegel et al. 1998 (legacysurvey.org/dr9/catalogs, Galactic extinction coefficients), for both footprints.
EXTINCTION_PER_EBV = {"g": 3.214, "r": 2.165, "z": 1.211, "w1": 0.184, "w2": 0.113}
#: Scatter of the sky's noise between fields and sizes of galaxies [dex].
UNEVEN = 0.1


def galaxies(run: RunFile, n: int, seed: int) -> tuple[Shapes, np.ndarray]:
    """Return shapes and log masses of ``n`` galaxies that are bright enough, drawn from the prior."""
    composition = run.model.composition()
    table = composition.table(bagpipes_libraries.add(ssp.bc03_miles(), composition.needs))
    model = GalaxyModel(table, run.survey_definition.bands, run.model.redshift[1], composition)
    rng, found = np.random.default_rng(seed), list[tuple[Shapes, np.ndarray]]()
    low, high = composition.space.amplitude.prior.range
    r = run.survey_definition.labels.index(run.survey_definition.selection_band)
    while sum(len(mass) for _, mass in found) < n:
        shapes = draw_shapes(model, run.model.redshift, seed, "legacy-table", 4 * n * len(found), 4 * n)
        mass = rng.uniform(low, high, 4 * n)
        bright = shapes.per_mass[:, r].numpy() * 10**mass > flux_of(FAINTEST)
        found.append(
            (Shapes(*(value[bright] for value in (shapes.phi, shapes.per_mass, shapes.redshift))), mass[bright])
        )
    parts, masses = zip(*found, strict=True)
    whole = Shapes(*(torch.cat([getattr(p, name) for p in parts])[:n] for name in ("phi", "per_mass", "redshift")))
    return whole, np.concatenate(masses)[:n]


def table(n: int, seed: int = 1) -> Table:
    """Return the table of ``n`` galaxies."""
    run = RunFile.load(RUN)
    survey, rng = run.survey_definition, np.random.default_rng(seed + 1)
    shapes, mass = galaxies(run, n, seed)
    true = shapes.per_mass.numpy().astype(float) * 10 ** mass[:, None]
    depth = np.array([flux_of(run.training.depth[label]) for label in survey.labels])
    sky = 0.2 * depth * 10 ** rng.normal(0, UNEVEN, true.shape)
    seen = true + np.hypot(sky, relative_errors(survey) * true) * rng.standard_normal(true.shape)
    north = rng.random(n) < 0.5
    ebv = rng.gamma(2, 0.02, n)
    found = Table()
    found["RELEASE"] = np.where(north, 9011, 9010).astype(np.int16)
    found["BRICKID"], found["OBJID"] = np.arange(n, dtype=np.int32) // 1000 + 1, np.arange(n, dtype=np.int32) % 1000
    found["RA"], found["DEC"] = rng.uniform(120, 240, n), np.where(north, rng.uniform(33, 60, n), rng.uniform(0, 32, n))
    found["MASKBITS"] = np.zeros(n, np.int16)
    for band, per_ebv in EXTINCTION_PER_EBV.items():
        here = survey.labels.index(band)
        there = survey.labels.index(f"{band}_north") if f"{band}_north" in survey.labels else here
        transmission = 10 ** (-0.4 * per_ebv * ebv)
        found[f"FLUX_{band.upper()}"] = (np.where(north, seen[:, there], seen[:, here]) * transmission).astype(
            np.float32
        )
        error = np.where(north, sky[:, there], sky[:, here]) * transmission
        found[f"FLUX_IVAR_{band.upper()}"] = (error**-2).astype(np.float32)
        found[f"MW_TRANSMISSION_{band.upper()}"] = transmission.astype(np.float32)
    found["PHOTSYS"] = np.where(north, "N", "S")
    found["TARGETID"] = 39_627_000_000_000_000 + np.arange(n, dtype=np.int64)
    redshift = shapes.redshift.numpy().astype(float)
    found["Z"], found["ZERR"] = redshift, 2e-5 * (1 + redshift)
    found["ZWARN"], found["DELTACHI2"] = np.zeros(n, np.int64), np.full(n, 1000.0)
    found["SPECTYPE"] = np.full(n, "GALAXY")
    found["LOGMSTAR_TRUE"] = mass
    return found


if __name__ == "__main__":
    table(int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1).write(sys.argv[1], overwrite=True)
