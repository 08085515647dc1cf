"""Importance weights: their logarithms in, effective fraction, evidence, smoothed weights and a diagnostic of their tail out.

Sources: evidence and effective fraction as in Dax et al. 2023 (arXiv 2210.05686); Pareto smoothing, Vehtari et al. 2024
(arXiv 1507.02646), whose k above 0.7 says that the proposal lacks part of the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Above, a mean of weights cannot be trusted (Vehtari et al. 2024).
LARGEST_K = 0.7
_FEWEST = 5  # weights of the tail, to fit it at all


@dataclass(frozen=True)
class Certificate:
    """What log-weights of a galaxy's draws say; ``weight`` adds up to one.

    ``effective_fraction``: (sum w)^2 / (N sum w^2); ``log_evidence``: ln of the mean weight, and its standard error;
    ``pareto_k``: shape of the weights' tail, infinite where it cannot be told.
    """

    weight: Float[Tensor, "galaxy draw"]
    effective_fraction: Float[Tensor, " galaxy"]
    log_evidence: Float[Tensor, " galaxy"]
    log_evidence_error: Float[Tensor, " galaxy"]
    pareto_k: Float[Tensor, " galaxy"]


def certify(log_weight: Float[Tensor, "galaxy draw"], smooth: bool = True) -> Certificate:
    """Weigh draws; a draw whose log-weight is NaN does not count. ``weight`` is Pareto-smoothed where k allows.

    Smoothing takes variance off what one galaxy's weights say, and adds a bias that is small beside it; for sums over thousands of
    galaxies, whose variances average out and whose biases do not, it is not for (``smooth``).
    Where no draw counts, weights and effective fraction are 0, and the evidence is 0 with an infinite error of its logarithm.
    """
    log_weight = log_weight.double().nan_to_num(nan=-math.inf, neginf=-math.inf)
    n = log_weight.shape[1]
    total = torch.logsumexp(log_weight, -1)
    weight = (log_weight - total.unsqueeze(-1)).exp().nan_to_num(nan=0.0)
    fraction = (1 / (n * (weight**2).sum(-1))).nan_to_num(posinf=0.0)  # no draw has any weight: none is effective
    smoothed, k = pareto_smooth(weight)
    told = (k <= LARGEST_K).unsqueeze(-1)  # a tail that cannot be told is left alone
    smoothed = torch.where(told, smoothed, weight) if smooth else weight
    error = ((1 / fraction - 1).clamp(min=0) / n).sqrt()
    return Certificate(smoothed, fraction, total - math.log(n), error, k)


def log_bayes_factor(
    log_weight: Float[Tensor, "galaxy draw"], log_ratio: Float[Tensor, "galaxy draw"]
) -> tuple[Float[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
    """Return ln of another likelihood's evidence over that of the likelihood in the weights, and its standard error.

    The same draws serve both: Z' / Z = sum w r / sum w. The error is that of a ratio of means over independent draws.

    Args:
        log_ratio: ln of the other likelihood over the one in the weights, at each draw
    """
    one = log_weight.double().nan_to_num(nan=-math.inf, neginf=-math.inf)
    other = torch.where(one == -math.inf, one, one + log_ratio.double())
    value = torch.logsumexp(other, -1) - torch.logsumexp(one, -1)
    error = (torch.softmax(other, -1) - torch.softmax(one, -1)).square().sum(-1).sqrt()
    return value, error


def pareto_smooth(
    weight: Float[Tensor, "galaxy draw"],
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, " galaxy"]]:
    """Replace each galaxy's largest weights by quantiles of a generalised Pareto distribution; return them and its k.

    Beside the weights left as they are, none is larger than the largest that came in; then all add up to one again, as they
    do in ArviZ's ``psislw``.
    """
    n = weight.shape[1]
    n_tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    k = torch.full_like(weight[:, 0], math.inf)
    if n_tail < _FEWEST:
        return weight, k
    top, index = weight.topk(n_tail + 1, dim=-1)
    tail, cutoff = top[:, :-1].flip(-1), top[:, -1:]  # ascending
    excess = tail - cutoff
    # Without enough different weights there is no tail to fit: one draw has all the weight, or all are alike.
    fit = (excess > 0).sum(-1) == n_tail
    if not bool(fit.any()):
        return weight, k
    k[fit], scale = _fit_pareto(excess[fit])
    p = (torch.arange(n_tail, dtype=weight.dtype) + 0.5) / n_tail
    shape = k[fit].unsqueeze(-1)
    quantile = scale.unsqueeze(-1) * torch.expm1(-shape * torch.log1p(-p)) / shape
    smooth = torch.minimum(quantile + cutoff[fit], tail[fit][:, -1:])
    out = weight.clone()
    out[fit] = out[fit].scatter(-1, index[fit][:, :-1].flip(-1), smooth)
    return out / out.sum(-1, keepdim=True).clamp(min=1e-300), k


def _fit_pareto(x: Float[Tensor, "galaxy tail"]) -> tuple[Float[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
    """Fit shape and scale to ascending positive values (Zhang & Stephens 2009), k drawn to 1/2 by ten values' worth."""
    n = x.shape[1]
    n_grid = 30 + math.isqrt(n)
    grid = torch.arange(1, n_grid + 1, dtype=x.dtype)
    quartile = x[:, int(n / 4 + 0.5) - 1 : int(n / 4 + 0.5)]
    b = (1 - torch.sqrt(n_grid / (grid - 0.5))) / (3 * quartile) + 1 / x[:, -1:]
    k = torch.log1p(-b.unsqueeze(-1) * x.unsqueeze(1)).mean(-1)
    likelihood = n * (torch.log(-b / k) - k - 1)
    b = (b * torch.softmax(likelihood, -1)).sum(-1)
    k = torch.log1p(-b.unsqueeze(-1) * x).mean(-1)
    return (n * k + 10 * 0.5) / (n + 10), -k / b


def summarise(
    values: Float[Tensor, "galaxy draw column"],
    weight: Float[Tensor, "galaxy draw"] | None,
    probabilities: Sequence[float],
) -> tuple[Float[Tensor, "galaxy column quantile"], Float[Tensor, "galaxy column"], Float[Tensor, "galaxy column"]]:
    """Return quantiles, mean and standard deviation of weighted draws, or of draws alike where ``weight`` is None."""
    if weight is None:
        std, mean = torch.std_mean(values, dim=1, correction=0)
        ordered = torch.from_numpy(np.sort(values.transpose(1, 2).contiguous().numpy()))
        position = (torch.as_tensor(probabilities, dtype=values.dtype) * ordered.shape[-1] - 0.5).clamp(
            0, ordered.shape[-1] - 1
        )
        left = position.floor().long()
        right = (left + 1).clamp(max=ordered.shape[-1] - 1)
        return torch.lerp(ordered[..., left], ordered[..., right], position - left), mean, std
    mean = (weight.unsqueeze(-1) * values).sum(1)
    std = (weight.unsqueeze(-1) * (values - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
    return quantiles(values, weight.float(), probabilities), mean, std


def resample(weight: Float[Tensor, "galaxy draw"], start: Float[Tensor, "galaxy 1"], n: int) -> Int[Tensor, "galaxy n"]:
    """Return ``n`` draws a galaxy, as indices: systematic resampling from ``start``, a number in [0, 1) of each."""
    targets = (start + torch.arange(n)) / n
    cumulative = weight.double().cumsum(-1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], targets).clamp(max=weight.shape[1] - 1)


def quantiles(
    values: Float[Tensor, "galaxy draw column"], weight: Float[Tensor, "galaxy draw"], probabilities: Sequence[float]
) -> Float[Tensor, "galaxy column quantile"]:
    """Return quantiles of weighted draws: draw j stands at its cumulative weight less half its own, linear between.

    With equal weights that is numpy's ``method="hazen"``.
    """
    columns = values.transpose(1, 2).contiguous()
    index = torch.from_numpy(np.argsort(columns.numpy()))  # a quarter of torch.sort's time
    ordered = columns.gather(-1, index)
    w = weight.unsqueeze(1).expand(-1, values.shape[2], -1).gather(-1, index)
    position = (w.cumsum(-1) - 0.5 * w) / w.sum(-1, keepdim=True)
    targets = torch.as_tensor(probabilities, dtype=w.dtype).expand(*w.shape[:2], -1).contiguous()
    right = torch.searchsorted(position, targets).clamp(1, w.shape[-1] - 1)
    p0, p1 = position.gather(-1, right - 1), position.gather(-1, right)
    t = ((targets - p0) / (p1 - p0).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(ordered.gather(-1, right - 1), ordered.gather(-1, right), t)
