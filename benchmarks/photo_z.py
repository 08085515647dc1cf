"""Redshifts inferred: a model with a redshift head on mock galaxies of its own, and on SDSS's whose redshifts are hidden.

Arguments: a model's location, and how many galaxies (1,000). Real galaxies (kcorrect's sample): r < 17.8, redshifts in the model's
range. Masses are compared with those of the same model with the redshifts given.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from astropy.table import Table
from common import report

from jobs.containers.tables import resolve
from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference import importance
from sedflow_dist.inference.draws import Draws
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import TargetPrior
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.photometry.surveys import SURVEYS
from sedflow_dist.validation import coverage, photo_z
from sedflow_dist.validation.mock_galaxies import mock_galaxies

N_DRAWS, SEED, GALAXIES, TOGETHER = 512, 1, 1000, 16
LIMIT, MASSES = 17.8, "leja2020(min=8)"


def draws(posterior: Posterior, photometry: Photometry) -> Draws:
    """Return the draws of all galaxies."""
    parts = []
    for start in range(0, len(photometry), TOGETHER):
        rows = np.arange(start, min(start + TOGETHER, len(photometry)))
        parts.append(posterior.draw(photometry[rows], rows, N_DRAWS))
    return Draws.joined(parts, torch.arange(len(photometry)))


def medians(found: Draws, name: str, columns: tuple[str, ...]) -> np.ndarray:
    at = columns.index(name)
    return importance.quantiles(found.values[..., at : at + 1], found.weight.float(), (0.5,))[:, 0, 0].numpy()


def judged(name: str, posterior: Posterior, photometry: Photometry) -> Draws:
    """Print how good inferred redshifts are."""
    start = time.process_time()
    found = draws(posterior, photometry.without_redshifts())
    rate = (time.process_time() - start) / len(photometry)
    truth, columns = photometry.redshift.double().numpy(), posterior.columns
    figures = photo_z.PointFigures.of(medians(found, "redshift", columns).astype(float), truth)
    pit = photo_z.pit(found.redshift.double().numpy(), found.weight.numpy(), truth)
    fraction = found.effective_fraction.numpy()
    report(f"{name}: CPU ms a galaxy", f"{1e3 * rate:.1f}")
    report(
        f"{name}: effective fraction, median; 5 %; below 0.01",
        f"{np.median(fraction):.3f}; {np.quantile(fraction, 0.05):.3f}; {np.mean(fraction < 0.01):.2%}",
    )
    report(f"{name}: sigma_IQR, bias, outliers, beyond 0.15",
           f"{figures.sigma_iqr:.4f}, {figures.bias:+.4f}, {figures.outliers:.2%}, {figures.far:.2%}")  # fmt: skip
    report(f"{name}: PIT, distance from uniform", f"{photo_z.pit_distance(pit):.3f}")
    return found


def mocks(model: TrainedModel, n: int) -> None:
    """Judge redshifts and ranks of all parameters of mock galaxies."""
    made, posterior = mock_galaxies(model, n, SEED), Posterior(model, SEED, N_DRAWS)
    found = judged("mocks", posterior, made.photometry)
    cube = torch.special.ndtr(made.phi)
    truth = model.space.from_unit(model.space.join(model.space.amplitude.prior.to_unit(made.log_mstar), cube))
    truth = torch.cat([truth, made.photometry.redshift.unsqueeze(1)], 1)
    kept = [*range(len(model.space.names)), posterior.columns.index("redshift")]
    below = (found.values[..., kept] < truth.unsqueeze(1)).double()
    ranks = (found.weight.unsqueeze(-1) * below).sum(1).numpy()
    checked = coverage.check(ranks)
    report("mocks: pooled KS p of ranks; curves inside", f"{checked.pooled:.3f}; {checked.inside.sum()} of {len(kept)}")
    lowest = int(checked.p_values.argmin())
    report("mocks: lowest p", f"{checked.p_values[lowest]:.4f} ({[posterior.columns[i] for i in kept][lowest]})")


def real(model: TrainedModel, n: int) -> None:
    """Judge redshifts of real galaxies, and what masses lose without those measured."""
    rows = Table.read(resolve("kcorrect-sample"))
    columns = [np.asarray(rows[name], float) for name in ("MODELFLUX", "MODELFLUX_IVAR", "EXTINCTION", "Z")]
    seen = calibrate(SURVEYS["sdss"], *columns).photometry
    lo, hi = model.spec.redshift
    bright = seen.flux[:, 2] > 10 ** (0.4 * (22.5 - LIMIT))
    kept = bright & (seen.redshift > max(lo, 0.003)) & (seen.redshift < hi) & seen.mask.all(1)
    seen = seen[torch.nonzero(kept).squeeze(1)[:n]]
    target = NewPrior.of(TargetPrior(densities=(f"log_mstar_surviving={MASSES}",), redshift=MASSES), model, SEED)
    for name, prior in (("real, flat priors", None), (f"real, {MASSES}", target)):
        posterior = Posterior(model, SEED, N_DRAWS, target=prior)
        found, told = judged(name, posterior, seen), draws(posterior, seen)
        mass = [medians(x, "log_mstar_surviving", posterior.columns) for x in (found, told)]
        difference = mass[0] - mass[1]
        report(f"{name}: mass without the redshift less with it, median, scatter [dex]",
               f"{np.median(difference):+.3f}, {np.diff(np.quantile(difference, (0.16, 0.84)))[0] / 2:.3f}")  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    model, n = load_model(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else GALAXIES
    mocks(model, n)
    real(model, n)


if __name__ == "__main__":
    main()
