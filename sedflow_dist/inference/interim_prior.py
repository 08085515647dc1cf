"""The interim prior, under which a model was trained, column by column: a redshift in, the density of a column out.

That of a parameter is analytic. That of a derived property, which the prior on parameters only implies, is estimated from
prior draws at steps in redshift, and linear between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.sps import derived

_STEP = 0.03  # in ln(1 + z), between estimates of what the interim prior implies
_LEAST_REDSHIFT = 1e-3  # of these estimates: nothing depends on the redshift as fast
_FEW = 32  # steps
_BINS, _BLOCK = 1000, 8192
_COVERED = (0.001, 0.999)  # quantiles of the induced prior between which its estimate is used


class ParameterPrior:
    """The density of a parameter under the interim prior, exact."""

    def __init__(self, name: str, space: ParameterSpace) -> None:
        self._range, self._distribution = space.block_of(name).marginal()
        self._inside = self._distribution.ppf([1e-9, 1 - 1e-9])  # a draw rounded onto an edge has a density, too

    def range(
        self, redshift: Float[np.ndarray, " galaxy"]
    ) -> tuple[Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return where the density is known."""
        lo, hi = self._range
        margin = 1e-6 * (abs(lo) + abs(hi)) if math.isfinite(hi - lo) else 0.0  # float32
        return np.full(len(redshift), lo - margin), np.full(len(redshift), hi + margin)

    def log_pdf(
        self, x: Float[np.ndarray, "galaxy draw"], redshift: Float[np.ndarray, " galaxy"]
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density at ``x``."""
        return np.asarray(self._distribution.logpdf(x.clip(*self._inside)))


class Steps:
    """Redshifts at which something is estimated from draws of the interim prior, once it is asked for between two of them.

    They do not depend on who asks: a galaxy's numbers are the same beside any others.

    Args:
        n: draws at each step; a quarter of them where there are many steps: what is estimated is smooth in redshift
        light: False: of parameters alone is asked, whose prior is the same at any redshift: one step, without any light
    """

    def __init__(self, flow: TrainedModel, seed: int, n: int = 65_536, light: bool = True) -> None:
        count = max(math.ceil(math.log1p(flow.reach) / _STEP), 1) + 1 if light else 1
        self._flow, self._seed, self.n, self._light = flow, seed, n if count <= _FEW else n // 4, light
        self.redshift = np.clip(np.expm1(_STEP * np.arange(count)), _LEAST_REDSHIFT, flow.reach)
        self._kept: dict[int, Float[np.ndarray, "draw column"]] = {}

    def between(
        self, redshift: Float[np.ndarray, " galaxy"]
    ) -> tuple[Int[np.ndarray, " galaxy"], Int[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return the step before and the one after each redshift, the same one where it is at one, and how far it is."""
        position = np.interp(redshift, self.redshift, np.arange(len(self.redshift)))
        left = np.floor(position).astype(int)
        return left, np.ceil(position).astype(int), position - left

    def beside(
        self, redshift: Float[np.ndarray, " galaxy"], of: Callable[[int], float]
    ) -> tuple[Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return a number of the steps before and after each redshift, asked for once a step, and how far it is between them."""
        left, right, t = self.between(redshift)
        numbers = np.zeros(len(self.redshift))
        for step in np.union1d(left, right).tolist():
            numbers[step] = of(step)
        return numbers[left], numbers[right], t

    def draws(self, step: int) -> Float[np.ndarray, "draw column"]:
        """Return parameters, and with light derived properties, of interim draws; those of two steps are kept."""
        if step not in self._kept:
            self._kept = dict([*self._kept.items()][-1:])
            self._kept[step] = prior_draws(self._flow, float(self.redshift[step]), self._seed, self.n, self._light)
        return self._kept[step]


@dataclass(frozen=True)
class _Estimate:
    """A density at a redshift: values on ``centres``, and the range in which it is known."""

    lo: float
    hi: float
    centres: Float[np.ndarray, " bin"]
    density: Float[np.ndarray, " bin"]

    @classmethod
    def of(cls, x: Float[np.ndarray, " draw"]) -> _Estimate:
        """Estimate it from draws."""
        n = len(x)
        lo, hi = np.quantile(x, _COVERED)
        least, most = np.quantile(x, [0.0005, 0.9995])
        edges = np.linspace(least, most, _BINS + 1)
        bin_width = edges[1] - edges[0]
        spread = min(x.std(), np.subtract(*np.quantile(x, [0.75, 0.25])) / 1.34)
        width = 0.9 * spread * n**-0.2
        counts = np.histogram(x, edges)[0].astype(float)
        density = gaussian_filter1d(counts, width / bin_width, mode="reflect") / (n * bin_width)
        density = density.clip(min=1 / (n * width))  # one draw: below that nothing is known
        return cls(float(lo), float(hi), 0.5 * (edges[1:] + edges[:-1]), density)

    def __call__(self, x: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        return np.interp(x, self.centres, self.density)


class InducedPrior:
    """The density of a derived property that the interim prior implies, estimated from prior draws at steps in redshift.

    A Gaussian kernel of Silverman's width on a fine histogram. Known between the 0.1 and 99.9 % quantiles of the draws.

    Args:
        column: of the property, among all columns of draws
    """

    def __init__(self, column: int, steps: Steps) -> None:
        self._column, self._steps = column, steps
        self._estimates: dict[int, _Estimate] = {}

    def _at(self, step: int) -> _Estimate:
        if step not in self._estimates:
            x = self._steps.draws(step).T[self._column].astype(float)
            self._estimates[step] = _Estimate.of(x)
        return self._estimates[step]

    def range(
        self, redshift: Float[np.ndarray, " galaxy"]
    ) -> tuple[Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return where the density is known."""
        ends: tuple[Callable[[int], float], ...] = (lambda step: self._at(step).lo, lambda step: self._at(step).hi)
        lo, hi = (
            (1 - t) * before + t * after for before, after, t in (self._steps.beside(redshift, end) for end in ends)
        )
        return lo, hi

    def log_pdf(
        self, x: Float[np.ndarray, "galaxy draw"], redshift: Float[np.ndarray, " galaxy"]
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density at ``x``, linear between steps in redshift."""
        left, right, t = self._steps.between(redshift)
        found = np.zeros(x.shape)
        for at, share in ((left, 1 - t), (right, t)):
            for step in np.unique(at).tolist():  # draws of galaxies without a redshift are each at their own
                rows = at == step
                found[rows] += share[rows, None] * self._at(step)(x[rows])
        return np.log(found)


def prior_draws(
    flow: TrainedModel, redshift: float, seed: int, n: int, light: bool = True
) -> Float[np.ndarray, "draw column"]:
    """Return parameters, and with ``light`` derived properties, of ``n`` draws of the interim prior at a redshift, float32."""
    model, parts = flow.redshift_model, []
    z = torch.full((1,), redshift)
    for first in range(0, n, _BLOCK):
        u = keyed_random.uniforms(seed, "induced prior", first, min(_BLOCK, n - first), len(flow.space.coordinates))
        theta = flow.space.from_unit(torch.as_tensor(u).float()).unsqueeze(0)
        more = [derived.derive(model.model, theta, model(theta, z))] if light else []
        parts.append(torch.cat([theta, *more], -1)[0].numpy())
    return np.concatenate(parts)
