"""Proposals that learn from weights: adaptive importance sampling in the flow's base space.

Where the flow is right, base points of posterior draws are N(0, I); where it is off for a galaxy, it is mostly by a shift. Draws
are therefore made in rounds: the first is the flow's own, each later one takes base points of N(m, C), moments by the weights so
far. A draw's weight has the density of the mixture of all rounds' proposals (deterministic mixture: Veach & Guibas 1995; Cornuet et
al. 2012, arXiv 0907.1254). A proposal fitted to the very draws that it weighs makes them too light (the evidence of ten
coordinates comes out two percent low), so there are two halves, and each learns from the other's weights alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

#: Draws of a round, both halves together. Fewer tell too little of ten coordinates, more are spent before anything is learnt.
ROUND = 256
_MOST = 8 * ROUND  # draws after which a round has as many as all before it
#: Effective draws that count as much as the flow's own word that means are 0, and that covariances are I: means of trained flows
#: are off by a third of a standard deviation, correlations by less than a tenth.
_MEAN, _COVARIANCE = 10.0, 200.0


def rounds(n_draws: int) -> list[slice]:
    """Cut draws into rounds."""
    ends = [0]
    while ends[-1] < n_draws:
        ends.append(min(ends[-1] + (ROUND if ends[-1] < _MOST else ends[-1]), n_draws))
    return [slice(start, stop) for start, stop in pairwise(ends)]


@dataclass(frozen=True)
class _Normal:
    """N(mean, factor factor^T) of ``n`` draws, and the inverse of the factor."""

    n: int
    mean: Float[Tensor, "galaxy 1 dimension"]
    factor: Float[Tensor, "galaxy dimension dimension"]
    inverse: Float[Tensor, "galaxy dimension dimension"]

    def density(self, base: Float[Tensor, "galaxy draw dimension"]) -> Float[Tensor, "galaxy draw"]:
        """Return n times its density over that of N(0, I)."""
        z = (base - self.mean) @ self.inverse.mT
        log_det = self.inverse.diagonal(dim1=1, dim2=2).log().sum(-1, keepdim=True)
        return self.n * (0.5 * (base.square().sum(-1) - z.square().sum(-1)) + log_det).double().exp()


@dataclass
class _Half:
    """One half of the draws: base points, log-weights without the mixture of those that have some, and each round's proposal.

    ``density``: sum over rounds of their draws times their densities over N(0, I).
    """

    base: Float[Tensor, "galaxy draw dimension"]
    log_weight: Float[Tensor, "galaxy draw"]
    density: Float[Tensor, "galaxy draw"]
    proposals: list[_Normal] = field(default_factory=list)

    @property
    def log_mixture(self) -> Float[Tensor, "galaxy draw"]:
        """ln of the mixture's density over N(0, I)."""
        return (self.density / max(self.density.shape[1], 1)).log()

    def go_on(
        self, normal: Float[Tensor, "galaxy draw dimension"], added: _Normal
    ) -> Float[Tensor, "galaxy draw dimension"]:
        """Move the points of a round to a proposal, which joins the mixture."""
        moved = added.mean + normal @ added.factor.mT
        density = torch.zeros_like(moved[..., 0], dtype=torch.float64)
        for one in self.proposals:
            density += one.density(moved)
        self.base = torch.cat([self.base, moved], 1)
        self.density = torch.cat([self.density, density], 1) + added.density(self.base)
        self.proposals.append(added)
        return moved

    def fit(self, n: int) -> _Normal:
        """Return what ``n`` draws may be drawn from: moments of weighted draws, as far as these are worth, or N(0, I)."""
        known = self.log_weight.shape[1]
        base = self.base[:, :known].double()
        log_weight = self.log_weight.double().nan_to_num(nan=-math.inf, neginf=-math.inf) - self.log_mixture[:, :known]
        weight = torch.softmax(log_weight, 1).nan_to_num(nan=0.0).unsqueeze(-1)
        effective = (1 / weight.square().sum(1, keepdim=True)).nan_to_num(posinf=0.0)  # 0 where no draw counts
        mean = (weight * base).sum(1, keepdim=True)
        spread = base - mean
        identity = torch.eye(base.shape[-1], dtype=base.dtype, device=base.device)
        covariance = (weight * spread).mT @ spread
        worth = effective / (effective + _COVARIANCE)
        factor = torch.linalg.cholesky(identity + worth * (covariance - identity))
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        return _Normal(n, (mean * effective / (effective + _MEAN)).float(), factor.float(), inverse.float())


class Adaptation:
    """The proposals of some galaxies, round by round: `move` a round's points, then `learn` from the weights of its draws."""

    def __init__(self, n_galaxies: int, dimensions: int) -> None:
        none = torch.empty(n_galaxies, 0, dimensions)
        self._halves = [_Half(none, none[..., 0], none[..., 0].double()) for _ in range(2)]

    def move(self, normal: Float[Tensor, "galaxy draw dimension"]) -> Float[Tensor, "galaxy draw dimension"]:
        """Map standard-normal points to the base points of the next round; as long as nothing was learnt, they stay."""
        parts = normal.tensor_split(2, 1)  # stretches of a quasi-random sequence, each of which is even
        learnt = [half.fit(part.shape[1]) for half, part in zip(reversed(self._halves), parts, strict=True)]
        moved = [half.go_on(part, to) for half, part, to in zip(self._halves, parts, learnt, strict=True)]
        return torch.cat(moved, 1)

    def learn(self, log_weight: Float[Tensor, "galaxy draw"]) -> None:
        """Take in ln (posterior's density, up to a factor, over the flow's) of the draws of the last round."""
        parts = log_weight.split([half.proposals[-1].n for half in self._halves], 1)
        for half, part in zip(self._halves, parts, strict=True):
            half.log_weight = torch.cat([half.log_weight, part], 1)

    @property
    def log_mixture(self) -> Float[Tensor, "galaxy draw"]:
        """ln of the density that all draws so far came from, over the flow's: what their log-weights are still to be reduced by."""
        first, second = (half.log_mixture.split([one.n for one in half.proposals], 1) for half in self._halves)
        return torch.cat([part for both in zip(first, second, strict=True) for part in both], 1)
