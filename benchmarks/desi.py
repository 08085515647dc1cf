"""The model desi: effective fractions, a mass that is continuous in redshift, north and south alike, real galaxies.

Argument: a model's location (desi). Galaxies are mocks of its own prior and noise, but in `real`: kcorrect's sample of SDSS, whose
g r z, as they are and with the colour terms between SDSS's and DECam's filters, are compared with the model sdss on all of ugriz.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch
from astropy.table import Table
from common import report
from scipy.stats import median_abs_deviation

from jobs.containers.tables import resolve
from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference import importance
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.photometry.surveys import SURVEYS
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.simulation.shapes import draw_shapes
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.validation.mock_galaxies import mock_galaxies

N_DRAWS, SEED = 2048, 1
GALAXIES, KIND, REAL = 1000, 64, 400
REDSHIFTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.27, 0.29, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
GRZ = [1, 2, 4]  # of ugriz
SETS = {"all": None, "g r z": ("g", "r", "z"), "g r z W1": ("g", "r", "z", "w1")}


def masses(posterior: Posterior, photometry: Photometry) -> tuple[np.ndarray, np.ndarray]:
    """Return medians of the mass formed and effective fractions, (galaxy,)."""
    at, median, fraction = posterior.columns.index("log_mstar"), [], []
    for start in range(0, len(photometry), 16):
        rows = np.arange(start, min(start + 16, len(photometry)))
        draws = posterior.draw(photometry[rows], rows, N_DRAWS)
        middle = importance.quantiles(draws.values[..., at : at + 1], draws.weight.float(), (0.5,))
        median.append(middle[:, 0, 0])
        fraction.append(draws.effective_fraction)
    return torch.cat(median).numpy(), torch.cat(fraction).numpy()


def effective(model: TrainedModel) -> None:
    """Print effective fractions of mock galaxies by bands and by redshift, and the rate."""
    posterior, mocks = Posterior(model, SEED, N_DRAWS), mock_galaxies(model, GALAXIES, SEED)
    for name, bands in SETS.items():
        kept = [bands is None or label.removesuffix("_north") in bands for label in model.spec.labels]
        start = time.process_time()
        _, found = masses(posterior, mocks.photometry.with_bands(torch.tensor(kept)))
        rate = GALAXIES / (time.process_time() - start)
        low, middle = np.quantile(found, (0.05, 0.5))
        by_z = [np.median(part) for part in np.array_split(found[np.argsort(mocks.photometry.redshift.numpy())], 4)]
        report(f"{name}: effective fraction, median; 5 %", f"{middle:.3f}; {low:.3f}")
        report(
            f"{name}: below 0.01; in quarters of redshift",
            f"{np.mean(found < 0.01):.2%}; " + " ".join(f"{x:.2f}" for x in by_z),
        )
        report(f"{name}: galaxies a CPU second", f"{rate:.1f}")


def moved(model: TrainedModel, redshift: float, log_mstar: float) -> Mocks:
    """Return the same `KIND` galaxies of one kind at a redshift, each observed in both footprints: half and half."""
    shapes = draw_shapes(model.redshift_model.model, (redshift - 1e-6, redshift), SEED, "kind", 0, KIND)
    middle = (
        torch.zeros_like(shapes.phi) + 0.3 * shapes.phi
    )  # of one kind: near the middle of the prior in all that is a shape
    cube = model.space.join(torch.full((KIND,), 0.5), torch.special.ndtr(middle))
    theta = model.space.from_unit(cube)
    model.space.values(theta)["log_mstar"].zero_()
    z = torch.full((KIND,), redshift)
    flux = model.redshift_model.model.fluxes(theta, z) * 10**log_mstar
    noisy, sigma, _ = model.noise.observe(flux, torch.Generator().manual_seed(SEED))  # the same noise in all redshifts
    whole = Photometry(noisy, sigma, torch.ones_like(noisy, dtype=torch.bool), z, torch.zeros_like(z))
    return Mocks(middle, torch.full((KIND,), log_mstar), whole, torch.arange(KIND))


def continuity(model: TrainedModel) -> None:
    """Print the median bias of the mass of galaxies of one kind by redshift, and north minus south."""
    posterior = Posterior(model, SEED, N_DRAWS)
    for z in REDSHIFTS:
        mocks = moved(model, z, 11.5)
        bias, halves = [], []
        for bands in model.spec.band_sets:
            kept = torch.tensor([i in bands for i in range(len(model.spec.labels))])
            found, _ = masses(posterior, mocks.photometry.with_bands(kept))
            bias.append(np.median(found) - 11.5)
            halves.append(found)
        report(f"z = {z:.2f}: bias north, south; north - south [dex]",
               f"{bias[0]:+.3f}, {bias[1]:+.3f}; {np.median(halves[0] - halves[1]):+.4f}")  # fmt: skip


def real(model: TrainedModel) -> None:
    """Print masses of real galaxies from g r z as DECam's against ugriz's own."""
    rows = Table.read(resolve("kcorrect-sample"))
    z = np.asarray(rows["Z"], float)
    rows = rows[(z > 0.01) & (z < 0.2)][:REAL]
    columns = (np.asarray(rows[name], float) for name in ("MODELFLUX", "MODELFLUX_IVAR", "EXTINCTION", "Z"))
    seen = calibrate(SURVEYS["sdss"], *columns).photometry
    sdss = Posterior(load_model("sdss"), SEED, N_DRAWS)
    own, _ = masses(sdss, seen)
    told, _ = masses(sdss, seen.with_bands(torch.tensor([i in GRZ for i in range(5)])))
    against("the model sdss on g r z", told - own)
    places = [model.spec.labels.index(label) for label in "grz"]
    good, terms = seen.mask.all(1), colour_terms(sdss.flow, model, seen)
    for name, term in (("as they are", torch.ones_like(terms)), ("with colour terms", terms)):
        wide = torch.zeros(len(seen), len(model.spec.labels))
        flux, sigma, mask = wide.clone(), wide.clone(), wide.bool()
        flux[:, places], sigma[:, places] = seen.flux[:, GRZ] * term, seen.sigma[:, GRZ] * term
        mask[:, places] = True
        found, fraction = masses(
            Posterior(model, SEED, N_DRAWS), replace(seen, flux=flux, sigma=sigma, mask=mask)[good]
        )
        against(f"real g r z {name}", found - own[good.numpy()])
        report("their effective fraction, median", f"{np.median(fraction):.3f}")


def against(what: str, difference: np.ndarray) -> None:
    """Print by how much masses (galaxy,) differ from those of ugriz."""
    scatter = median_abs_deviation(difference, scale="normal")
    report(f"{what}, minus sdss on ugriz: median, scatter [dex]", f"{np.median(difference):+.3f}, {scatter:.3f}")


def colour_terms(sdss: TrainedModel, model: TrainedModel, seen: Photometry) -> torch.Tensor:
    """Return flux in DECam's g r z over that in SDSS's (galaxy, band), of each galaxy's most likely draw of the model sdss."""
    bands = [*(sdss.spec.bands[i] for i in GRZ), *(f"decam2014-{band}" for band in "grz")]
    both = GalaxyModel(sdss.ssp_table, bands, sdss.spec.redshift[1], sdss.composition, sdss.spec.birth_cloud_age)
    posterior, theta = Posterior(sdss, SEED, N_DRAWS), []
    for start in range(0, len(seen), 16):
        rows = np.arange(start, min(start + 16, len(seen)))
        draws = posterior.draw(seen[rows], rows, N_DRAWS)
        theta.append(draws.values[torch.arange(len(rows)), draws.chi2.argmin(1), : len(sdss.space.names)])
    flux = both.fluxes(torch.cat(theta), seen.redshift)
    return flux[:, 3:] / flux[:, :3]


def main() -> None:
    torch.set_num_threads(1)
    model = load_model(sys.argv[1] if len(sys.argv) > 1 else "desi")
    for part in (effective, continuity, real):
        part(model)


if __name__ == "__main__":
    main()
