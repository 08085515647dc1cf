"""Bayesian model averaging of one row under several models: evidences and weighted draws in, one mixture out.

A model here is a whole trained model: its SSP table, IMF, components and priors. p(model | data) is proportional to its prior
odds times its evidence (Hoeting et al. 1999, Statistical Science 14, 382), and the posterior of whatever all of them have is
the mixture of theirs with these probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sedflow_dist.inference import importance

#: An evidence is trusted whose logarithm is known to this, and whose weights have a tail that serves.
LARGEST_ERROR = 0.5
#: A model that is less probable takes no part in quantiles: less than what 10,000 draws resolve.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class Evidences:
    """What each model's row says: whether it has an answer, ln of its evidence and that one's error, and the weights' tail."""

    answered: Bool[np.ndarray, "galaxy model"]
    log_evidence: Float[np.ndarray, "galaxy model"]
    error: Float[np.ndarray, "galaxy model"]
    pareto_k: Float[np.ndarray, "galaxy model"]

    @property
    def there(self) -> Bool[np.ndarray, "galaxy model"]:
        """Which models take part: those with an answer and a finite evidence."""
        return self.answered & np.isfinite(self.log_evidence)

    @property
    def trusted(self) -> Bool[np.ndarray, "galaxy model"]:
        """Which of these evidences are known well enough."""
        return self.there & (self.error <= LARGEST_ERROR) & (self.pareto_k <= importance.LARGEST_K)


@dataclass(frozen=True)
class Probabilities:
    """Probability of each model and its standard error, and ln of the evidence averaged over models, and its error.

    NaN, and 0 for each model, where none takes part.
    """

    probability: Float[np.ndarray, "galaxy model"]
    error: Float[np.ndarray, "galaxy model"]
    log_evidence: Float[np.ndarray, " galaxy"]
    log_evidence_error: Float[np.ndarray, " galaxy"]


def probabilities(evidences: Evidences, odds: Float[np.ndarray, " model"]) -> Probabilities:
    """Return the models' probabilities; ``odds`` are those before the data, up to a factor.

    A model that lacks an evidence is left out: the others share its probability. Errors are to first order in those of ln of
    the evidences, which are independent.
    """
    there = evidences.there
    prior = np.log(odds / odds.sum())
    log_joint = np.where(there, np.where(there, evidences.log_evidence, 0.0) + prior, -np.inf)
    top = np.where(there.any(1), log_joint.max(1), 0.0)[:, None]
    share = np.exp(log_joint - top)
    total = share.sum(1, keepdims=True)
    p = share / np.where(total > 0, total, 1.0)
    variance = np.where(there, evidences.error, 0.0) ** 2
    of_all = (p**2 * variance).sum(1, keepdims=True)
    error = p * np.sqrt(np.maximum((1 - 2 * p) * variance + of_all, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):  # the odds of those that take part count, and add up to one
        log_total = np.log(total[:, 0]) + top[:, 0] - np.log((there * np.exp(prior)).sum(1))
    known = there.any(1)
    return Probabilities(p, error, np.where(known, log_total, np.nan), np.where(known, np.sqrt(of_all[:, 0]), np.nan))


def moments(
    probability: Float[np.ndarray, "galaxy model"],
    mean: Float[np.ndarray, "galaxy model column"],
    std: Float[np.ndarray, "galaxy model column"],
) -> tuple[Float[np.ndarray, "galaxy column"], Float[np.ndarray, "galaxy column"], Float[np.ndarray, "galaxy column"]]:
    """Return mean and standard deviation of the mixture, exact, and the share of its variance that lies between models."""
    p = probability[..., None]
    used = p > 0  # what is NaN does not count with nothing
    mean, std = np.where(used, mean, 0.0), np.where(used, std, 0.0)
    centre = (p * mean).sum(1)
    between = (p * (mean - centre[:, None]) ** 2).sum(1)
    variance = (p * std**2).sum(1) + between
    none = ~used.any(1)
    share = between / np.where(variance > 0, variance, 1.0)
    return tuple(np.where(none, np.nan, x) for x in (centre, np.sqrt(variance), share))  # type: ignore[return-value]


def quantiles(
    probability: Float[np.ndarray, " model"],
    draws: list[tuple[Float[Tensor, "_draw column"], Float[Tensor, " _draw"]]],
    wanted: tuple[float, ...],
) -> Float[np.ndarray, "column quantile"]:
    """Return quantiles of one galaxy's mixture: of all models' weighted draws together, each model's worth its probability."""
    values = torch.cat([x for x, _ in draws]).unsqueeze(0)
    weight = torch.cat([float(p) * w.double() / w.double().sum() for p, (_, w) in zip(probability, draws, strict=True)])
    return importance.quantiles(values, weight.unsqueeze(0).to(values.dtype), wanted)[0].numpy()
