"""What a spectroscopic sample can teach a template code: zero points, the models' error and n(z) of one half of a RAIL file, used
on the other half, beside the same half as it comes. Arguments: the file, a model with a redshift head (rubin).

Odd rows teach. The models' error is that of `ERRORS` under which the evidence of their photometry at their true redshifts is
greatest; zero points are those of `sedflow zeropoints`; the number of galaxies at each redshift, over the share that would be
selected under the mass function there, is the prior of redshifts. Even rows are judged. What was found: benchmarks/RESULTS.md.
"""

from __future__ import annotations

import sys

import h5py
import numpy as np
import torch
from common import report
from photo_z_rail import EDGES, GRID, judged
from scipy.ndimage import gaussian_filter1d

from sedflow_dist import Photometry, Survey, TrainedModel, load_model
from sedflow_dist.inference import redshift_density, zero_points
from sedflow_dist.inference.mass_function import Leja2020
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.redshift_prior import RedshiftTable
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import MASS_FUNCTION, TargetPrior
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.surveys import SURVEYS
from sedflow_dist.simulation.shapes import draw_shapes

SEED, N_DRAWS, TOGETHER, TEACHING = 1, 512, 16, 800
ERRORS = (0.025, 0.04, 0.06, 0.08, 0.12)
BINS, SURVIVING = np.linspace(0, 3.2, 65), 0.2  # dex that stars of a galaxy have lost


def observed(survey: Survey, table: dict[str, np.ndarray], redshift: np.ndarray) -> Photometry:
    magnitude, error = (np.stack([table[n].astype(float) for n in names], 1) for names in (survey.flux, survey.errors))
    return calibrate(survey, magnitude, error, None, redshift).photometry


def evidence(posterior: Posterior, photometry: Photometry) -> float:
    """Mean ln evidence of galaxies at known redshifts."""
    found = [
        posterior.draw(photometry[rows], rows, N_DRAWS).log_evidence
        for rows in np.array_split(np.arange(len(photometry)), len(photometry) // TOGETHER)
    ]
    return float(torch.cat(found).clamp(min=-60).mean())


def taught(model: TrainedModel, table: dict[str, np.ndarray]) -> Survey:
    """The survey with the models' error and zero points of galaxies whose redshifts are known."""
    survey, z = SURVEYS["rail"], table["redshift"].astype(float)
    posterior = Posterior(model, SEED, N_DRAWS)
    trials = {e: evidence(posterior, observed(survey.model_copy(update={"model_error": e}), table, z)) for e in ERRORS}
    report("ln evidence by the models' error", ", ".join(f"{e}: {value:.2f}" for e, value in trials.items()))
    survey = survey.model_copy(update={"model_error": max(trials, key=lambda e: trials[e])})
    offset, assumptions = np.zeros(6), zero_points.Assumptions()
    photometry = observed(survey, table, z)
    for _ in range(4):
        told = zero_points.equation(
            posterior, photometry, np.zeros(len(z), np.uint32), np.arange(len(z)), offset, assumptions
        )
        offset = zero_points.solve(told, offset, survey.labels, assumptions).offset
    report("zero points [mag]; rows", " ".join(f"{x:+.3f}" for x in offset) + f"; {told.rows}")
    return survey.model_copy(update={"ab_offset": tuple(offset.tolist())})


def numbers(model: TrainedModel, table: dict[str, np.ndarray]) -> RedshiftTable:
    """The prior of redshifts of which the selection makes what is counted."""
    rng, n = np.random.default_rng(SEED), 200_000
    shapes = draw_shapes(model.redshift_model.model, model.spec.redshift, SEED, "selection", 0, n)
    z, grid, mass = shapes.redshift.double().numpy(), np.linspace(7, 12.5, 551), Leja2020(min=7.0)
    at = np.linspace(*model.spec.redshift, 321)
    below = np.cumsum(np.exp([mass.log_phi(grid, x) for x in np.maximum(at, 1e-3)]), 1)
    below /= below[:, -1:]
    row = np.searchsorted(at, z).clip(0, len(at) - 1)
    log_mass = np.array([np.interp(u, below[i], grid) for u, i in zip(rng.random(n), row, strict=True)]) + SURVIVING
    flux = shapes.per_mass[:, 3].double().numpy() * 10**log_mass
    selected = flux > 10 ** (0.4 * (22.5 - 25.3))
    bins = np.digitize(z, BINS) - 1
    share = np.array([selected[bins == i].mean() for i in range(len(BINS) - 1)])
    counted = gaussian_filter1d(np.histogram(table["redshift"], BINS)[0].astype(float), 1.0, mode="constant")
    report(
        "share selected at z 0.3, 1, 2, 3", " ".join(f"{share[np.digitize(x, BINS) - 1]:.4f}" for x in (0.3, 1, 2, 3))
    )
    number = (counted + 0.1) / np.maximum(share, 1e-4)
    return RedshiftTable(edges=tuple(BINS.tolist()), number=tuple(number.tolist()))


def inferred(model: TrainedModel, survey: Survey, table: dict[str, np.ndarray], prior: TargetPrior) -> np.ndarray:
    """p(z) in the bins of `EDGES`, (galaxy, bin)."""
    posterior = Posterior(model, SEED, N_DRAWS, target=NewPrior.of(prior, model, SEED))
    photometry, parts = observed(survey, table, np.full(len(table["redshift"]), np.nan)), []
    for rows in np.array_split(np.arange(len(photometry)), len(photometry) // TOGETHER):
        draws = posterior.draw(photometry[rows], rows, N_DRAWS)
        weight = np.where(posterior.serves(draws).numpy()[:, None], draws.weight.numpy(), draws.plain.numpy())
        parts.append(redshift_density.in_bins(draws.redshift.numpy(), EDGES, weight))
    return np.concatenate(parts)


def main() -> None:
    torch.set_num_threads(1)
    file, model = sys.argv[1], load_model(sys.argv[2])
    with h5py.File(file) as content:
        table = {name: values[:] for name, values in content["photometry"].items()}
    odd, even = ({name: values[start::2] for name, values in table.items()} for start in (1, 0))
    some = {name: values[:TEACHING] for name, values in odd.items()}
    survey = taught(model, some)
    galaxies = TargetPrior.of_galaxies()
    counted = galaxies.model_copy(update={"redshift": numbers(model, odd)})
    truth, everyone = even["redshift"].astype(float), np.full(len(even["redshift"]), True)
    for name, of, prior in (
        ("as it comes", SURVEYS["rail"], galaxies),
        ("models' error, zero points", survey, galaxies),
        ("and n(z)", survey, counted),
    ):
        density = inferred(model, of, even, prior)
        judged(f"{name} ({MASS_FUNCTION})", density, truth, everyone)
        assert density.shape[1] == len(GRID)


if __name__ == "__main__":
    main()
