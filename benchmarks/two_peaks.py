"""Redshifts with two peaks: weighted draws of the redshift head and the flow against nested sampling (nautilus), galaxy by galaxy.

Arguments: a model with a redshift head (rubin), how many galaxies (50). They are the first mock galaxies of the model whose head
has two peaks, with a tenth of the probability or more on either side of a valley. Nested sampling has the redshift as a
coordinate, flat, and never sees head or flow. What was found: benchmarks/RESULTS.md.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from common import report

from sedflow_dist import Photometry, TrainedModel, load_model
from sedflow_dist.inference import amplitude, importance, mcmc
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.parameters import probit, unit
from sedflow_dist.validation import coverage
from sedflow_dist.validation.mock_galaxies import mock_galaxies

SEED, MOCKS, N_DRAWS, COMPARED = 1, 6000, 8192, 1000
LEAST, DEEP, APART = 0.1, 0.1, 0.15  # probability beside the valley; its density over the lower peak's; in ln(1 + z)


def valley(probability: np.ndarray, edges: np.ndarray) -> float | None:
    """Return the redshift between two peaks of a density in bins, if there are two."""
    smooth = np.convolve(probability, np.ones(5) / 5, "same")
    below = np.cumsum(probability)
    inside = np.flatnonzero((below > LEAST) & (below < 1 - LEAST))
    if not len(inside):
        return None
    at = inside[smooth[inside].argmin()]
    peaks = smooth[:at].argmax(), at + smooth[at:].argmax()
    deep = smooth[at] < DEEP * min(smooth[peak] for peak in peaks)
    return float(np.expm1(edges[at + 1])) if deep and edges[peaks[1]] - edges[peaks[0]] > APART else None


def nested(model: TrainedModel, one: Photometry) -> mcmc.Segment:
    """Sample shapes and redshift of a galaxy, the amplitude integrated out; the redshift is the last coordinate."""
    space, n = model.space, len(model.space.shapes) + 1
    low, high = model.spec.redshift

    def ask(phi: np.ndarray) -> np.ndarray:
        u = unit(torch.as_tensor(phi, dtype=torch.float32))
        theta = space.from_unit(space.join_any(u[:, :-1])).unsqueeze(1)
        at = model.redshift_model.at(low + (high - low) * u[:, -1], own_tables=False)
        per_mass = model.redshift_model.flux(theta, at)
        galaxies = one[[0] * len(u)]
        fit = amplitude.fit(per_mass, galaxies, torch.full((len(u), 1), 0.5), space.amplitude.prior.range)
        prior = -0.5 * (phi**2).sum(-1) - 0.5 * n * np.log(2 * np.pi)
        return fit.log_evidence[:, 0].double().nan_to_num(nan=-np.inf).numpy() + prior

    return mcmc.nested(ask, n, N_DRAWS // 2 // 32, 32, SEED)


def main() -> None:
    torch.set_num_threads(1)
    model, wanted = load_model(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    assert model.head is not None
    mocks = mock_galaxies(model, MOCKS, SEED)
    seen = mocks.photometry.without_redshifts()
    probability = model.head.log_bins(seen).exp().double().numpy()
    edges = model.head.edges.double().numpy()
    found = [(i, at) for i in range(MOCKS) if (at := valley(probability[i], edges))]
    report(f"of {MOCKS:,} mock galaxies with two peaks", f"{len(found):,}")
    posterior, rows = Posterior(model, SEED, N_DRAWS), []
    low, high = model.spec.redshift
    for i, at in found[:wanted]:
        draws, start = posterior.draw(seen[[i]], np.array([i]), N_DRAWS), time.process_time()
        told = nested(model, seen[[i]])
        seconds = time.process_time() - start
        phi = told.phi.reshape(-1, told.phi.shape[-1])
        theirs = low + (high - low) * unit(torch.as_tensor(phi[:, -1])).numpy()
        weight, z = draws.weight[0].numpy(), draws.redshift[0].numpy()
        ours, other = float(weight[z < at].sum()), float(np.mean(theirs < at))
        effective = float(draws.effective_fraction[0]) * N_DRAWS
        sigma = np.hypot(np.sqrt(ours * (1 - ours) / effective), np.sqrt(other * (1 - other)) * told.log_evidence_error)
        pick = importance.resample(draws.weight, torch.tensor([[0.5]], dtype=torch.float64), COMPARED)[0].numpy()
        shapes = posterior.flow.space.split(draws.unit)[1][0]
        mine = torch.cat([probit(shapes), probit(((draws.redshift[0] - low) / (high - low)).unsqueeze(1))], 1)[
            pick
        ].numpy()
        score = coverage.c2st(mine.astype(float), phi[:COMPARED].astype(float), SEED)
        evidence = float(draws.log_evidence[0]) - told.log_evidence
        rows.append((ours, other, (ours - other) / max(sigma, 1e-3), score, evidence, effective / N_DRAWS, seconds))
        report(f"galaxy {i}, valley at {at:.2f}: below it ours, nautilus; sigmas; C2ST",
               f"{ours:.3f}, {other:.3f}; {rows[-1][2]:+.1f}; {score:.3f} (ln Z {evidence:+.2f}, {seconds:.0f} s)")  # fmt: skip
    table = np.array(rows)
    apart, sigmas = np.abs(table[:, 0] - table[:, 1]), np.abs(table[:, 2])
    report("difference of the lower peak's weight, median, largest", f"{np.median(apart):.3f}, {apart.max():.3f}")
    report("within 2 of its standard errors, within 3", f"{np.mean(sigmas < 2):.0%}, {np.mean(sigmas < 3):.0%}")
    report("C2ST, median; largest", f"{np.median(table[:, 3]):.3f}; {table[:, 3].max():.3f}")
    report("ln Z ours less nautilus's, median, scatter", f"{np.median(table[:, 4]):+.3f}, {table[:, 4].std():.3f}")
    report(
        "effective fraction, median; CPU s of nautilus", f"{np.median(table[:, 5]):.2f}; {np.median(table[:, 6]):.0f}"
    )


if __name__ == "__main__":
    main()
