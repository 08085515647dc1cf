"""validate: a model in, its calibration on simulated galaxies out: ranks, coverage, held-out log-probability.

Galaxies with all bands come first; as many again follow for each pattern of missing bands that is asked for. Where the model
infers redshifts the first ones come again with theirs hidden, which are inferred and ranked too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from cluster import dask_engine
from jobs.config.run_file import RunFile
from jobs.on_worker import load_on_worker
from jobs.run.plan import refuse_what_cannot_fit
from jobs.telemetry import events
from jobs.telemetry.progress import bar, say
from sedflow_dist import keyed_random
from sedflow_dist.flow.model_spec import ModelSpec
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.magnitudes import magnitude
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.validation import coverage
from sedflow_dist.validation.coverage import Calibration
from sedflow_dist.validation.mock_galaxies import (
    Pattern,
    flow_log_prob,
    joint_log_prob,
    mock_galaxies,
    truth,
    unit_truth,
)
from storage_schemas import model as model_store
from storage_schemas import photometry, validation
from storage_schemas.backend.chunked import ChunkedStore, Chunks
from storage_schemas.backend.location import Location

_BLOCK = 25
_PATTERN_ROWS = 10_000_000  # in which patterns of missing bands are counted
_BINS = 4  # of signal-to-noise


def missing_patterns(store: ChunkedStore, n: int, band_sets: Sequence[Sequence[int]] = ()) -> list[Pattern]:
    """Return the ``n`` most common patterns of missing bands in a photometry store that can be answered.

    Where it has fewer, single missing bands make up for them, the first band first. ``band_sets``: see `MockSurvey`.
    """
    found = np.unique(photometry.sample(store, ["mask"], _PATTERN_ROWS)["mask"], axis=0, return_counts=True)
    counts = Counter({tuple(map(bool, row)): int(k) for row, k in zip(*found, strict=True)})
    n_bands = len(next(iter(counts)))
    whole = [tuple(band in bands for band in range(n_bands)) for bands in band_sets or [range(n_bands)]]
    single = (
        (*pattern[:gone], False, *pattern[gone + 1 :]) for gone in range(n_bands) for pattern in whole if pattern[gone]
    )
    counts.update(dict.fromkeys(single, 0))
    return list(islice((p for p, _ in counts.most_common() if sum(p) >= MINIMUM_BANDS and p not in whole), n))


def _patterns(run: RunFile, flow: TrainedModel) -> tuple[Pattern, ...]:
    """The sets of measured bands that the run names, or the most common ones of its photometry."""
    wanted = run.validation.patterns
    if not wanted:
        return ()
    if isinstance(wanted, int):
        return tuple(missing_patterns(photometry.open(run.store("photometry")), wanted, flow.spec.band_sets))
    return tuple(tuple(label in labels for label in flow.spec.labels) for labels in wanted)


def ranks(
    block: int, model: Location, model_id: str, n_galaxies: int, n_draws: int, seed: int, patterns: tuple[Pattern, ...]
) -> dict[str, np.ndarray]:
    """Answer one block of mock galaxies; return truth, ranks and scores of its rows."""
    posterior, mocks = _posterior(model, model_id, n_galaxies, n_draws, seed, patterns)
    rows = Chunks(len(mocks), _BLOCK).rows(block)
    part = mocks[rows]
    theta, numbers = truth(posterior.flow, part), np.arange(rows.start, rows.stop)
    inferred = numbers >= _known(n_galaxies, patterns)
    draws = posterior.draw(part.photometry.without_redshifts(inferred), numbers, n_draws)
    below = draws.values[..., : len(posterior.flow.space.names)] < theta.unsqueeze(1)
    cube, true = draws.unit.numpy(), unit_truth(posterior.flow, part).numpy()
    log_q, log_q_truth = draws.log_q.numpy(), flow_log_prob(posterior.flow, part).numpy()
    weight, own, points = draws.weight.numpy(), draws.plain.numpy(), keyed_random.torch_seed(seed, "tarp", block)
    redshift, spec = part.photometry.redshift, posterior.flow.spec
    if posterior.unknown:
        cube, true = (_with_redshift(*pair, spec) for pair in ((cube, draws.redshift), (true, redshift)))
    lower = (draws.weight * (draws.redshift < redshift.unsqueeze(1))).sum(1).numpy()
    flux = part.photometry.flux[:, spec.selection_band].double().clamp(min=1e-30)
    return {
        "block": np.array(block), "truth": theta.numpy(), "rank": (below * draws.plain.unsqueeze(-1)).sum(1).float().numpy(),
        "weighted_rank": (below * draws.weight.unsqueeze(-1)).sum(1).numpy(),
        "tarp": coverage.tarp(cube, own, true, points), "weighted_tarp": coverage.tarp(cube, weight, true, points),
        "hpd": coverage.expected_coverage(log_q, own, log_q_truth),
        "weighted_hpd": coverage.expected_coverage(log_q, weight, log_q_truth),
        "mask": part.photometry.mask.numpy(), "complete": numbers < n_galaxies,
        "redshift": redshift.numpy(), "inferred": inferred, "magnitude": magnitude(flux.numpy()),
        "redshift_rank": np.where(inferred, lower, np.nan),
        "signal_to_noise": np.nanmedian(part.photometry.signal_to_noise.numpy(), axis=1),
        "log_prob": joint_log_prob(posterior.flow, part), "effective_fraction": draws.effective_fraction.numpy(),
    }  # fmt: skip


def _known(n_galaxies: int, patterns: Sequence[Pattern]) -> int:
    """Number of mock galaxies whose redshifts are known."""
    return n_galaxies * (1 + len(patterns))


def _with_redshift(cube: np.ndarray, redshift: Tensor, spec: ModelSpec) -> np.ndarray:
    """Points of the unit cube (..., coordinate) with one more coordinate: the redshift's, flat over the model's range."""
    low, high = spec.redshift
    return np.concatenate([cube, ((redshift.numpy() - low) / (high - low))[..., None]], -1)


@cache
def _posterior(
    model: Location, model_id: str, n_galaxies: int, n_draws: int, seed: int, patterns: tuple[Pattern, ...]
) -> tuple[Posterior, Mocks]:
    """The posterior engine and the mock galaxies of this worker."""
    flow = load_on_worker(model, model_id)
    mocks = mock_galaxies(flow, n_galaxies, seed, patterns)
    again = [mocks[:n_galaxies]] if flow.head else []
    return Posterior(flow, seed, n_draws), Mocks.concatenate([mocks, *again])


@events.job("validate")
def validate(run: RunFile) -> dict[str, Calibration]:
    """Fill the run's validation store if it is missing; print and return the calibration, as `report` does."""
    out, model = run.store("validation"), run.store("model")
    flow = TrainedModel.from_bytes(*model_store.read(model))
    patterns = _patterns(run, flow)
    settings: dict[str, Any] = {
        "model": flow.id, "seed": run.seed, **run.validation.model_dump(mode="json"), "measured": [list(p) for p in patterns],
    }  # fmt: skip
    try:
        arrays, attributes = validation.read(out)
        stale = any(attributes.get(name) != value for name, value in settings.items())
    except (FileNotFoundError, ValueError):
        stale = True
    if stale:
        refuse_what_cannot_fit(run)
        known = _known(run.validation.n_galaxies, patterns)
        n = known + (run.validation.n_galaxies if flow.head else 0)
        blocks = list(range(len(Chunks(n, _BLOCK))))
        parts: list[dict[str, np.ndarray]] = []
        with dask_engine.client(run.engines.dask) as client, bar("validate", n, "galaxies") as progress:

            def done(part: dict[str, np.ndarray]) -> None:
                parts.append(part)
                progress.update(len(part["truth"]))

            dask_engine.map_tasks(
                client, ranks, blocks, done, run.engines.dask.retries, model=model, model_id=flow.id,
                n_galaxies=run.validation.n_galaxies, n_draws=run.validation.n_draws, seed=run.seed, patterns=patterns,
            )  # fmt: skip
        parts.sort(key=lambda part: int(part["block"]))
        arrays = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in validation.ARRAYS}
        validation.write(out, arrays, flow.space.names, flow.spec.labels, settings)
    result = report(arrays, flow.space.names, flow.spec.labels)
    complete = arrays["complete"]
    say("validate", f"held-out log-probability {arrays['log_prob'][complete].mean():.3f}, median effective fraction "
        f"{np.median(arrays['effective_fraction'][complete]):.2f}: {out}")  # fmt: skip
    return result


def report(arrays: dict[str, np.ndarray], names: Sequence[str], labels: Sequence[str]) -> dict[str, Calibration]:
    """Print and return the calibration of galaxies with all bands, from the draws as they are and as they are weighted.

    Keys: ``plain`` and ``weighted``, of the parameters, and both with ``tarp`` and ``hpd``, of all dimensions together.
    Galaxies that miss bands count in the line of the worst pattern only.
    """
    complete = arrays["complete"]
    groups = [
        np.char.add(title, coverage.quantile_bins(arrays[name][complete], _BINS))
        for title, name in (("S/N ", "signal_to_noise"), ("redshift ", "redshift"))
    ]
    inferred = arrays["inferred"]
    lacking = ~(complete | inferred)
    without = np.array(["without " + ", ".join(np.array(labels)[~row]) for row in arrays["mask"]])[lacking]
    result = {}
    for kind, prefix in (("plain", ""), ("weighted", "weighted_")):
        rank = arrays[f"{prefix}rank"]
        found = result[kind] = coverage.check(rank[complete])
        say("validate", f"{kind} draws: {_in_words(found, names)}")
        lines = []
        for name, title in (("tarp", "TARP"), ("hpd", "expected coverage")):
            joint = result[f"{kind} {name}"] = coverage.check(arrays[prefix + name][complete, None])
            lines.append(_jointly(title, joint))
        lines += [_worst(coverage.by_group(rank[complete], bins)) for bins in groups]
        if len(without):
            lines.append(_worst(coverage.by_group(rank[lacking], without)))
        say("validate", f"{kind} draws: " + "; ".join(lines))
    if inferred.any():
        result |= _of_inferred(
            {name: values[inferred] for name, values in arrays.items() if len(values) == len(inferred)}, names
        )
    return result


def _of_inferred(arrays: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, Calibration]:
    """Print and return the calibration of galaxies whose redshifts were inferred, these among the parameters."""
    rank = np.column_stack([arrays["weighted_rank"], arrays["redshift_rank"]])
    found, joint = coverage.check(rank), coverage.check(arrays["weighted_tarp"][:, None])
    # By what is observed: in bins of the truth the ranks of a right posterior are not uniform.
    by_magnitude = np.char.add("magnitude ", coverage.quantile_bins(arrays["magnitude"], _BINS))
    low, middle = np.quantile(arrays["effective_fraction"], (0.05, 0.5))
    say("validate", f"redshifts inferred: {_in_words(found, [*names, 'redshift'])}; {_jointly('TARP', joint)}; "
        f"{_worst(coverage.by_group(rank, by_magnitude))}; "
        f"median effective fraction {middle:.2f}, 5 % below {low:.2f}")  # fmt: skip
    return {"inferred": found, "inferred tarp": joint}


def _in_words(found: Calibration, names: Sequence[str]) -> str:
    """The calibration of parameters of these names."""
    worst = int(np.argmin(found.p_values))
    return (
        f"pooled KS p {found.pooled:.3f}; {int(found.inside.sum())} of {len(names)} p-p curves inside the 99 % band; lowest p "
        f"{found.p_values[worst]:.3f} ({names[worst]})"
    )


def _jointly(title: str, found: Calibration) -> str:
    """The calibration of all dimensions together, by a test of this title."""
    return f"{title} inside its 99 % band: {'yes' if found.inside[0] else 'no'} (KS p {found.pooled:.3f})"


def _worst(groups: dict[str, Calibration]) -> str:
    """The group with the lowest pooled p-value, in words."""
    name, found = min(groups.items(), key=lambda item: item[1].pooled)
    return (
        f"worst of {len(groups)}: {name}, {int(found.inside.sum())} of {len(found.inside)} inside, p {found.pooled:.3f}"
    )
