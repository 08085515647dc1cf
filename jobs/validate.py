"""validate: a model in, its calibration on simulated galaxies out: ranks, p-p curves, held-out log-probability."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch

from cluster import dask_engine
from jobs.infer import load_on_worker
from jobs.progress import bar, say
from jobs.runfile import RunFile
from jobs.simulate import draw_shapes
from sedflow_dist import calibration, keyed_random, network
from sedflow_dist.calibration import Calibration
from sedflow_dist.flow import Flow
from sedflow_dist.posterior import Posterior, log_likelihood
from sedflow_dist.prior import PARAMETERS
from sedflow_dist.training import Mocks, MockSurvey, target
from storage_schemas import model as model_store
from storage_schemas import validation
from storage_schemas.chunked import Chunks
from storage_schemas.storage import Location

_BLOCK = 25


def mock_galaxies(flow: Flow, n: int, seed: int) -> Mocks:
    """Simulate and observe galaxies that no training saw, with all bands, as the survey selects them."""
    shapes = draw_shapes(flow.redshift_model.model, flow.prior, flow.spec.redshift, seed, "validate", 0, 30 * n)
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(seed, "validate"))
    return MockSurvey(flow.noise, flow.prior.log_mstar, 0.0).observe(shapes, n, generator)


def truth(flow: Flow, mocks: Mocks) -> torch.Tensor:
    """True parameters of mock galaxies: (galaxy, param)."""
    lo, hi = flow.prior.log_mstar
    u = torch.cat([((mocks.log_mstar - lo) / (hi - lo)).unsqueeze(1), torch.special.ndtr(mocks.phi)], dim=1)
    return flow.prior.from_unit(u)


def joint_log_prob(flow: Flow, mocks: Mocks) -> np.ndarray:
    """ln q(truth | data) over all eleven coordinates in probit space; with an exact amplitude its own density counts."""
    x = flow.features(mocks.flux, mocks.sigma, mocks.mask, mocks.redshift)
    phi = target(mocks, flow.spec.amplitude, flow.prior)
    with torch.no_grad():
        log_q = network.log_prob(network.blocks(flow.network), phi, x)
    if flow.spec.amplitude == "exact":
        log_q = log_q + amplitude_log_prob(flow, mocks)
    return log_q.numpy()


def amplitude_log_prob(flow: Flow, mocks: Mocks) -> torch.Tensor:
    """ln p(true amplitude | true shape, data) in probit space, exact: of ``flow``, its galaxy model and prior count only."""
    likelihood, evidence = log_likelihood(flow, mocks, truth(flow, mocks))
    phi_a = target(mocks, "learnt", flow.prior)[:, 0]
    return likelihood - evidence - 0.5 * phi_a**2 - 0.5 * math.log(2 * math.pi)


def ranks(
    block: int, model: Location, model_id: str, n_galaxies: int, n_draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Answer one block of mock galaxies; return truth, ranks and scores of its rows."""
    posterior, mocks = _posterior(model, model_id, n_galaxies, n_draws, seed)
    rows = Chunks(n_galaxies, _BLOCK).rows(block)
    part = mocks[rows]
    theta = truth(posterior.flow, part)
    draws = posterior.draw(part.flux, part.sigma, part.mask, part.redshift, np.arange(rows.start, rows.stop), n_draws)
    below = draws.values[..., : len(PARAMETERS)] < theta.unsqueeze(1)
    return {
        "block": np.array(block), "truth": theta.numpy(), "rank": below.float().mean(1).numpy(),
        "weighted_rank": (below * draws.weight.unsqueeze(-1)).sum(1).numpy(),
        "log_prob": joint_log_prob(posterior.flow, part), "effective_fraction": draws.effective_fraction.numpy(),
    }  # fmt: skip


@cache
def _posterior(model: Location, model_id: str, n_galaxies: int, n_draws: int, seed: int) -> tuple[Posterior, Mocks]:
    """The posterior engine and the mock galaxies of this worker."""
    flow = load_on_worker(model, model_id)
    return Posterior(flow, seed, n_draws), mock_galaxies(flow, n_galaxies, seed)


def validate(run: RunFile) -> dict[str, Calibration]:
    """Fill the run's validation store if it is missing; print and return the calibration, plain and weighted."""
    out, model = run.store("validation"), run.store("model")
    flow = Flow.from_bytes(*model_store.read(model))
    settings: dict[str, Any] = {"model": flow.id, "seed": run.seed, **run.validation.model_dump()}
    try:
        arrays, attributes = validation.read(out)
        stale = any(attributes.get(name) != value for name, value in settings.items())
    except (FileNotFoundError, ValueError):
        stale = True
    if stale:
        n = run.validation.n_galaxies
        blocks = list(range(len(Chunks(n, _BLOCK))))
        parts: list[dict[str, np.ndarray]] = []
        with dask_engine.client(run.engines.dask) as client, bar("validate", n, "galaxies") as progress:

            def done(part: dict[str, np.ndarray]) -> None:
                parts.append(part)
                progress.update(len(part["truth"]))

            dask_engine.map_tasks(
                client, ranks, blocks, done, model=model, model_id=flow.id, n_galaxies=n,
                n_draws=run.validation.n_draws, seed=run.seed,
            )  # fmt: skip
        parts.sort(key=lambda part: int(part["block"]))
        arrays = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in validation.ARRAYS}
        validation.write(out, arrays, PARAMETERS, settings)
    result = {
        kind: calibration.check(arrays[name]) for kind, name in (("plain", "rank"), ("weighted", "weighted_rank"))
    }
    for kind, found in result.items():
        worst = int(np.argmin(found.p_values))
        say("validate", f"{kind} draws: pooled KS p {found.pooled:.3f}; {int(found.inside.sum())} of {len(PARAMETERS)} p-p "
            f"curves inside the 99 % band; lowest p {found.p_values[worst]:.3f} ({PARAMETERS[worst]})")  # fmt: skip
    say("validate", f"held-out log-probability {arrays['log_prob'].mean():.3f}, median effective fraction "
        f"{np.median(arrays['effective_fraction']):.2f}: {out}")  # fmt: skip
    return result
