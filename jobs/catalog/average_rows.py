"""Rows of one shard under several models in, their average out: every column of a catalog, and what each model is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.columns import asked
from jobs.observed import observed
from sedflow_dist.inference import model_average
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.model_average import NEGLIGIBLE, Evidences
from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.inference.summary import QUANTILES, Method
from sedflow_dist.photometry.flags import Flag, bits
from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.catalog.schema import Layout

_MASS = "log_mstar_surviving"
#: What an average has of what is inferred: the columns of a catalog that asks for no others.
INFERRED = asked(InferenceSettings())


@dataclass(frozen=True)
class Rows:
    """Rows of a catalog, its arrays by name, and what replays their draws."""

    arrays: Mapping[str, np.ndarray]
    router: Router

    def places(self, names: Sequence[str]) -> list[int]:
        """Where columns stand among the catalog's own."""
        return [self.router.posterior.columns.index(name) for name in names]


def columns() -> list[str]:
    """Return the arrays of what is inferred that an average is made from."""
    return [spec.name for spec in INFERRED if spec.name != "flags" and "draw" not in spec.dims]


def extra(n_models: int) -> tuple[ArraySpec, ...]:
    """Return the arrays that an average has and no other catalog."""
    number = range(1, n_models + 1)
    each = [
        ArraySpec(
            f"model_probability_{i}",
            ("galaxy",),
            "float32",
            "1",
            f"probability of model {i} (attribute run: averaged) given the data and the odds",
            ucd="stat.probability",
        )
        for i in number
    ]
    error = ArraySpec(
        "model_probability_error",
        ("galaxy",),
        "float32",
        "1",
        "standard error of the models' probabilities, the largest",
        ucd="stat.error",
    )
    return (*each, error)


def average(rows: Sequence[Rows], start: int, odds: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """Return all columns of the average of rows that begin at row ``start`` of their catalogs."""

    def stacked(name: str) -> np.ndarray:
        return np.stack([one.arrays[name] for one in rows], 1)

    method = stacked("method")
    evidences = Evidences(
        method != Method.NONE, *(stacked(n) for n in ("log_evidence", "log_evidence_error", "pareto_k"))
    )
    found = model_average.probabilities(evidences, odds)
    p, used = found.probability, found.probability > 0
    known = evidences.there.any(1)
    names = list(layout.params)
    each = {n: np.stack([one.arrays[n][:, one.places(names)] for one in rows], 1) for n in ("mean", "std")}
    mean, std, between = model_average.moments(p, each["mean"].astype(float), each["std"].astype(float))

    def mixed(name: str) -> np.ndarray:
        return np.where(known, np.where(used, p * np.nan_to_num(stacked(name)), 0).sum(1), np.nan)

    with np.errstate(divide="ignore", invalid="ignore"):
        effective = 1 / np.where(used, p**2 / stacked("effective_draws"), 0).sum(1)
        best = np.take_along_axis(stacked("chi2"), p.argmax(1)[:, None], 1)[:, 0]
    apart = between[:, names.index(_MASS)] > 0.5 if _MASS in names else np.zeros(len(p), bool)
    values = {
        "quantiles": _quantiles(rows, p, start, names),
        "mean": mean, "std": std, "method": np.where(known, Method.AVERAGE, Method.NONE),
        "n_bands": rows[0].arrays["n_bands"], "effective_draws": np.where(known, effective, np.nan),
        "log_evidence": found.log_evidence, "log_evidence_error": found.log_evidence_error,
        "chi2": np.where(known, best, np.nan), "p_value": mixed("p_value"), "flags": _flags(rows, evidences, used, apart),
        "model_probability_error": np.where(known, found.error.max(1), np.nan),
        **{f"model_probability_{i + 1}": np.where(known, p[:, i], np.nan) for i in range(p.shape[1])},
    }  # fmt: skip
    dtypes = {spec.name: spec.dtype for spec in (*INFERRED, *extra(len(rows)))} | {"flags": "uint32"}
    values = {name: np.asarray(x).astype(dtypes[name]) for name, x in values.items()}
    nothing = np.full(len(p), np.nan, np.float32)
    return {**{name: nothing for name in columns() if name not in values}, **values}


def _flags(rows: Sequence[Rows], evidences: Evidences, used: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Flags of the models that take part, or of all where none does, and what the average itself says."""
    own, known = np.stack([one.arrays["flags"] for one in rows], 1), np.asarray(evidences.there.any(1))
    merged = np.bitwise_or.reduce(np.where(used | ~known[:, None], own, 0).astype(np.uint32), axis=1)
    said = {
        Flag.MODEL_MISSING: known & ~evidences.there.all(1),
        Flag.MODEL_UNRELIABLE: known & (evidences.there & ~evidences.trusted).any(1),
        Flag.MODELS_DISAGREE: known & apart,
    }
    return merged | bits(len(merged), said)


def _quantiles(rows: Sequence[Rows], p: np.ndarray, start: int, names: Sequence[str]) -> np.ndarray:
    """Quantiles of the mixtures: stored ones where one model is all there is, else of the replayed draws of all."""
    found = np.full((len(p), len(names), len(QUANTILES)), np.nan, np.float32)
    photometry = observed(rows[0].arrays)
    for i, one in enumerate(rows):
        alone = p[:, i] > 1 - NEGLIGIBLE
        found[alone] = one.arrays["quantiles"][alone][:, one.places(names)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # replayed draws are those of `catalog draws`
    try:
        for row in np.flatnonzero((p.max(1) > 0) & (p.max(1) <= 1 - NEGLIGIBLE)).tolist():
            part, at = photometry[np.array([row])], np.array([start + row])
            draws, worth = [], []
            for probability, one in zip(p[row], rows, strict=True):
                if probability > NEGLIGIBLE:
                    posterior = one.router.posterior
                    method = one.arrays["method"][row : row + 1]
                    values, weight = one.router.weighted(part, at, method, posterior.n_draws)
                    draws.append((values[0][:, one.places(names)], weight[0]))
                    worth.append(probability)
            found[row] = model_average.quantiles(np.asarray(worth), draws, QUANTILES)
    finally:
        torch.set_num_threads(threads)
    return found
