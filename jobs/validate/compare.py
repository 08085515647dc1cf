"""compare: chains of galaxies and a model in, how far its flow, plain and weighted, is from the exact posteriors out.

Chains of mock galaxies have ranks of the truth, too: those of the exact posterior, beside the flow's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from jobs.config.sections import MCMC
from jobs.mcmc import Galaxies, digest, draws_of, of_mocks
from jobs.telemetry.progress import bar, say
from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.validation import coverage
from sedflow_dist.validation.mock_galaxies import mock_galaxies, truth
from storage_schemas import chains
from storage_schemas import model as model_store
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

_OVERSAMPLE = 20  # the flow's draws a compared one, so that resampling by weight hardly repeats any


def compare(data: Galaxies, out: Location, model: Location, seed: int, n_draws: int = 1000) -> dict[str, np.ndarray]:
    """Compare the chains in ``out`` of galaxies (``data`` as for `mcmc.sample`) with a model's flow; print and return.

    Galaxies without a chain (flag FAILED) are left out.

    Returns:
        ``flow``, ``weighted``: C2ST against the chain, (galaxy,), in probit space of all coordinates; ``rhat`` and
        ``effective_draws`` of the chain; ``pull``: of the flow's ln evidence against nested sampling's, in standard errors
    """
    segments, summary = chains.open(out)
    settings = _settings(segments)
    posterior = Posterior(TrainedModel.from_bytes(*model_store.read(model)), seed, _OVERSAMPLE * n_draws)
    found: dict[str, list[float]] = {"flow": [], "weighted": [], "pull": []}
    if missing := summary.missing():
        raise ValueError(f"{out} lacks {len(missing)} of {summary.n_rows} chains: run the same sedflow mcmc again")
    names = ("log_evidence", "log_evidence_error", "flags", "rhat", "effective_draws")
    nested = summary.read_rows(slice(0, summary.n_rows), names)
    kept = nested["flags"] == 0
    with bar("compare", int(kept.sum()), "galaxies") as progress:
        for i in np.flatnonzero(kept).tolist():
            row = data.row[i : i + 1]
            generator = np.random.default_rng(keyed_random.key(seed, "compare", row[0]))
            chain = draws_of(segments, i, settings).reshape(-1, len(posterior.flow.space.coordinates))
            exact = _probit(chain[generator.choice(len(chain), n_draws, replace=False)])
            draws = posterior.draw(data.photometry[i], row, posterior.n_draws)
            u = draws.unit[0].numpy()
            plain = u[generator.choice(len(u), n_draws, replace=False)]
            weighted = u[posterior.resample(draws.weight, row, n_draws)[0]]
            found["flow"].append(coverage.c2st(exact, _probit(plain), seed))
            found["weighted"].append(coverage.c2st(exact, _probit(weighted), seed))
            error = float(np.hypot(draws.log_evidence_error[0], nested["log_evidence_error"][i]))
            found["pull"].append((float(draws.log_evidence[0]) - nested["log_evidence"][i]) / error)
            progress.update(1)
    result = {name: np.array(values) for name, values in found.items()}
    result |= {name: nested[name][kept] for name in ("rhat", "effective_draws")}
    worst = result["rhat"].reshape(kept.sum(), -1).max(1)
    say("compare", f"C2ST against {settings.sampler}: flow {np.median(result['flow']):.3f}, weighted flow "
        f"{np.median(result['weighted']):.3f} (medians of {len(result['flow'])} galaxies; 0.5: alike); worst R-hat of a chain "
        f"{worst.max():.3f}; above 1.05: rows {data.row[kept][worst > 1.05].tolist()}")  # fmt: skip
    if np.isfinite(result["pull"]).all():
        say("compare", f"ln evidence against {settings.sampler}: pulls {np.round(result['pull'], 1).tolist()}")
    return result


def chain_ranks(flow: TrainedModel, out: Location, seed: int) -> Float[np.ndarray, "galaxy param"] | None:
    """Return the ranks of true parameters among the draws of finished chains of mock galaxies; None: no chains there.

    Raises:
        ValueError: they are not chains of the first mock galaxies of this model and seed.
    """
    try:
        segments, summary = chains.open(out)
    except FileNotFoundError:
        return None
    settings, n = _settings(segments), summary.n_rows
    mocks = mock_galaxies(flow, n, seed)
    if segments.group.attrs["settings"]["galaxies"] != digest(of_mocks(mocks)):  # type: ignore[index, call-overload]
        raise ValueError(f"{out} has chains of other galaxies than mocks:{n} of this model with --seed {seed}")
    true, found = truth(flow, mocks), []
    for i in sorted(set(range(n)) - set(summary.missing())):
        if summary.read(i, ["flags"])["flags"][0]:
            continue
        u = torch.as_tensor(draws_of(segments, i, settings)).flatten(0, 1)
        found.append((flow.space.from_unit(u) < true[i]).float().mean(0).numpy())
    return np.stack(found) if found else None


def _settings(segments: ChunkedStore) -> MCMC:
    there: Mapping[str, Any] = segments.group.attrs["settings"]  # type: ignore[assignment]
    return MCMC.model_validate({name: there[name] for name in MCMC.model_fields})


def _probit(u: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.as_tensor(u).double().clamp(2.0**-17, 1 - 2.0**-17)).numpy()
