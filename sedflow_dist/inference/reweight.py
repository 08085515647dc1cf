"""Other priors without new simulations: weighted posterior draws in, their weights under a new prior out.

A new prior is the old one with the density of some columns replaced: a draw's weight is multiplied by new density / old
density of each (Hahn & Melchior 2022, section 6.2). The old density of a parameter is analytic; that of a derived property,
which the prior on parameters only implies, is estimated from prior draws (as PROVABGS does, Hahn et al. 2022, to flatten it).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.sps import derived

#: Distributions of scipy.stats that a new prior can be; ``flat`` is uniform over all that the old prior covers.
DISTRIBUTIONS = (
    "beta", "cauchy", "expon", "gamma", "halfnorm", "laplace", "logistic", "lognorm", "loguniform", "norm", "skewnorm", "t",
    "triang", "truncnorm", "uniform",
)  # fmt: skip
FLAT = "flat"
#: A row that keeps fewer effective draws has no answer: its 2.5 % quantile would be the place of half a draw.
LEAST_EFFECTIVE_DRAWS = 20.0

_NO_PRIOR = "is no prior such as tau_ism=norm(0.3,0.2) or log_sfr_1gyr=flat"

_STEP = 0.02  # in redshift, between estimates of an induced prior
_BINS, _BLOCK = 1000, 8192
_COVERED = (0.001, 0.999)  # quantiles of the induced prior between which its estimate is used


# -- new densities ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Density:
    """A density that a column shall have: a frozen distribution of `scipy.stats`, or None for ``flat``."""

    name: str
    text: str
    distribution: Any

    @classmethod
    def parse(cls, text: str) -> Density:
        """Read ``column=distribution(numbers)``, arguments as `scipy.stats` has them; nothing is evaluated as code.

        >>> Density.parse("tau_ism = norm(0.3, scale=0.2)").distribution.mean()
        0.3

        Raises:
            ValueError: not of that form, or no such distribution or argument; says what is allowed.
        """
        name, _, right = (part.strip() for part in text.partition("="))
        try:
            said = ast.parse(right, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} {_NO_PRIOR} ({getattr(error, 'msg', error)})") from None
        call = said if isinstance(said, ast.Call) else ast.Call(said, [], [])
        if not name.isidentifier() or not isinstance(call.func, ast.Name):
            raise ValueError(f"{text!r} {_NO_PRIOR}")
        family = call.func.id
        if family == FLAT:
            if call.args or call.keywords:
                raise ValueError(f"{text!r}: flat takes no arguments; it covers what the old prior covers")
            return cls(name, text.strip(), None)
        if family not in DISTRIBUTIONS:
            raise ValueError(f"{text!r}: {family!r} is none of {', '.join((FLAT, *DISTRIBUTIONS))}")
        return cls(name, text.strip(), _freeze(text, call, family))

    def log_pdf(
        self, x: Float[np.ndarray, "galaxy draw"], lo: Float[np.ndarray, "galaxy 1"], hi: Float[np.ndarray, "galaxy 1"]
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density at ``x``; a flat one lies between ``lo`` and ``hi``."""
        if self.distribution is None:
            return np.broadcast_to(-np.log(hi - lo), x.shape)
        return np.asarray(self.distribution.logpdf(x))

    def describe(self) -> str:
        """Return what was understood, in words: scipy's loc and scale are not everybody's."""
        if self.distribution is None:
            return f"{self.name}: flat over the range that the old prior covers"
        low, middle, high = self.distribution.ppf([0.025, 0.5, 0.975])
        return (
            f"{self.name}: {self.text.partition('=')[2].strip()}, 95 % in {low:.4g} .. {high:.4g}, median {middle:.4g}"
        )


def _freeze(text: str, call: ast.Call, family: str) -> Any:
    """The distribution with its arguments: numbers in scipy's order, or by name."""
    distribution = getattr(stats, family)
    names = [*filter(None, (distribution.shapes or "").replace(" ", "").split(",")), "loc", "scale"]
    usage = f"{family}({', '.join(names)})"
    if len(call.args) > len(names):
        raise ValueError(f"{text!r}: too many numbers; the arguments are {usage}")
    values: dict[str, float] = {}
    given = [(names[i], value) for i, value in enumerate(call.args)] + [(k.arg or "**", k.value) for k in call.keywords]
    for key, value in given:
        if key not in names or key in values:
            raise ValueError(f"{text!r}: {key!r} is no argument, or given twice; the arguments are {usage}")
        try:
            values[key] = _number(value)
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r}: {ast.unparse(value)!r} is no number; the arguments are {usage}") from None
    if missing := [name for name in names[:-2] if name not in values]:
        raise ValueError(
            f"{text!r} lacks {', '.join(missing)}; the arguments are {usage}, loc 0 and scale 1 by default"
        )
    frozen = distribution(**values)
    if not np.isfinite(frozen.ppf(0.5)):
        raise ValueError(f"{text!r}: scipy.stats.{usage} is not defined for these numbers")
    return frozen


def _number(value: ast.expr) -> float:
    """A number as it is written, with its sign, or inf; nothing is computed."""
    sign = 1.0
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub | ast.UAdd):
        sign, value = -1.0 if isinstance(value.op, ast.USub) else 1.0, value.operand
    if isinstance(value, ast.Name) and value.id == "inf":
        return sign * math.inf
    if not isinstance(value, ast.Constant) or isinstance(value.value, bool) or not isinstance(value.value, int | float):
        raise ValueError
    return sign * float(value.value)


# -- old densities ------------------------------------------------------------------------------------------------------


class ParameterPrior:
    """The density of a parameter under the old prior, exact."""

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


class InducedPrior:
    """The density of a derived property that the old prior implies, estimated from prior draws at steps in redshift.

    A Gaussian kernel of Silverman's width on a fine histogram. Known between the 0.1 and 99.9 % quantiles of the draws.

    Args:
        redshift: the range in which it will be asked for
        n: prior draws at each step
    """

    def __init__(
        self, name: str, flow: TrainedModel, redshift: tuple[float, float], seed: int, n: int = 65_536
    ) -> None:
        lo, hi = redshift
        self._redshift = np.linspace(lo, hi, max(math.ceil((hi - lo) / _STEP), 1) + 1)
        values = np.stack([prior_draws(name, flow, z, seed, n) for z in self._redshift])
        self._lo, self._hi = np.quantile(values, _COVERED, axis=1)
        least, most = np.quantile(values, [0.0005, 0.9995])
        edges = np.linspace(least, most, _BINS + 1)
        self._centres, bin_width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
        densities = []
        for x in values:
            spread = min(x.std(), np.subtract(*np.quantile(x, [0.75, 0.25])) / 1.34)
            width = 0.9 * spread * n**-0.2
            counts = np.histogram(x, edges)[0].astype(float)
            density = gaussian_filter1d(counts, width / bin_width, mode="reflect") / (n * bin_width)
            densities.append(density.clip(min=1 / (n * width)))  # one draw: below that nothing is known
        self._density = np.stack(densities)

    def range(
        self, redshift: Float[np.ndarray, " galaxy"]
    ) -> tuple[Float[np.ndarray, " galaxy"], Float[np.ndarray, " galaxy"]]:
        """Return where the density is known."""
        return np.interp(redshift, self._redshift, self._lo), np.interp(redshift, self._redshift, self._hi)

    def log_pdf(
        self, x: Float[np.ndarray, "galaxy draw"], redshift: Float[np.ndarray, " galaxy"]
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density at ``x``, linear between steps in redshift."""
        position = np.interp(redshift, self._redshift, np.arange(len(self._redshift)))
        left = np.minimum(position.astype(int), len(self._redshift) - 2)
        t = (position - left)[:, None]
        density = (1 - t) * self._density[left] + t * self._density[left + 1]
        return np.log(np.stack([np.interp(*pair) for pair in zip(x, [self._centres] * len(x), density, strict=True)]))


def prior_draws(name: str, flow: TrainedModel, redshift: float, seed: int, n: int) -> Float[np.ndarray, " draw"]:
    """Return ``n`` draws of a derived property from the old prior at a redshift."""
    column = [p.name for p in derived.properties(flow.space, flow.spec.labels)].index(name)
    model, parts = flow.redshift_model, []
    z = torch.full((1,), redshift)
    for first in range(0, n, _BLOCK):
        u = keyed_random.uniforms(seed, "induced prior", first, min(_BLOCK, n - first), len(flow.space.coordinates))
        theta = flow.space.from_unit(torch.as_tensor(u).float()).unsqueeze(0)
        properties = derived.derive(model.model, theta, model(theta, z))
        parts.append(properties[0, :, column].double().numpy())
    return np.concatenate(parts)


# -- reweighting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewPrior:
    """The old prior with the densities of some columns replaced; these must be independent of each other under the old."""

    columns: tuple[str, ...]
    densities: tuple[Density, ...]
    old: tuple[ParameterPrior | InducedPrior, ...]

    @classmethod
    def build(cls, texts: Sequence[str], flow: TrainedModel, redshift: tuple[float, float], seed: int) -> NewPrior:
        """Read new densities (`Density.parse`) for the draws of a flow, whose galaxies have redshifts in a range.

        Raises:
            ValueError: a text cannot be read, names no column, or two columns depend on each other under the old prior.
        """
        space, labels = flow.space, flow.spec.labels
        names = tuple(quantity.name for quantity in derived.columns(space, labels))
        densities = tuple(Density.parse(text) for text in texts)
        for density in densities:
            if density.name not in names:
                raise ValueError(f"{density.text!r}: there is no column {density.name!r}; there are {', '.join(names)}")
        for a, b in combinations(densities, 2):
            if a.name == b.name:
                raise ValueError(f"{a.name} has two new priors, {a.text!r} and {b.text!r}: give one")
            if shared := derived.sources(space, labels, a.name) & derived.sources(space, labels, b.name):
                raise ValueError(
                    f"{a.name} and {b.name} depend on each other through {', '.join(sorted(shared))}: a product of their "
                    "densities would be neither prior. Give one of them, or train under another prior (docs/priors.md)"
                )
        old = tuple(
            ParameterPrior(d.name, space) if d.name in space.names else InducedPrior(d.name, flow, redshift, seed)
            for d in densities
        )
        return cls(names, densities, old)

    def log_ratio(
        self, values: Float[Tensor, "galaxy draw column"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy draw"]:
        """Return ln(new / old prior density) of draws; -inf where the new is zero or the old not known."""
        z = redshift.double().numpy()
        total = np.zeros(values.shape[:2])
        for density, old in zip(self.densities, self.old, strict=True):
            x = values[..., self.columns.index(density.name)].double().numpy()
            lo, hi = (edge[:, None] for edge in old.range(z))
            ratio = density.log_pdf(x, lo, hi) - old.log_pdf(x, z)
            total += np.where(
                (x >= lo) & (x <= hi), np.nan_to_num(ratio, nan=-np.inf, posinf=1e300, neginf=-np.inf), -np.inf
            )
        return torch.as_tensor(total)


def reweight(
    values: Float[Tensor, "galaxy draw column"],
    weight: Float[Tensor, "galaxy draw"],
    prior: NewPrior,
    redshift: Float[Tensor, " galaxy"],
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, " galaxy"]]:
    """Return normalised weights under the new prior, and the effective fraction (sum w)^2 / (n sum w^2) of all draws.

    Old weights count: the fraction certifies the row's answer, not only the last step. It is 0 where no draw has weight.
    """
    log_weight = weight.double().log() + prior.log_ratio(values, redshift)
    top = log_weight.amax(-1, keepdim=True).clamp(min=-1e300)
    new = (log_weight - top).exp()
    total = new.sum(-1, keepdim=True)
    new = torch.where(total > 0, new / total.clamp(min=1e-300), 0.0)
    square = (new**2).sum(-1)
    return new, torch.where(square > 0, 1 / (new.shape[1] * square.clamp(min=1e-300)), 0.0)
