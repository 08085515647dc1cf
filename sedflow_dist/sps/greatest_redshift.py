"""The greatest redshift at which a galaxy would still be selected, and the volume up to there: draws in, z_max and V_max out.

The spectrum of each draw, as it is at the galaxy's own redshift, is moved: no evolution, and no other dust. V_max: Schmidt 1968.
Light through the band is a smooth function of ln(1 + z): it is computed at some rungs of the ladder of redshifts, which all
galaxies share, and interpolated; the distance, which is not, is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sedflow_dist import magnitudes
from sedflow_dist.sps import cosmology
from sedflow_dist.sps.chosen import Selection
from sedflow_dist.sps.drawn import Drawn
from sedflow_dist.sps.fixed_redshift import RedshiftModel

#: Steps between the redshifts at which the light is computed, in ln(1 + z).
SPACING = 0.05
#: Least ln(1 + z) that is looked at, nearer than any galaxy.
_NEAREST = 1e-5
_HALVINGS = 7
_DISTANCES = 513
_TEN_PC = 1e-5  # Mpc


class GreatestRedshift:
    """z_max, V_max per steradian [Mpc^3/sr] and its reciprocal for draws.

    Args:
        selection: limit and redshifts of the survey
        model: the galaxy model in the band of the selection alone; it reaches as far as z_max can be
    """

    def __init__(self, selection: Selection, model: RedshiftModel) -> None:
        assert selection.magnitude is not None
        own = model.model
        self._model, self._reach = model, own.z_max
        step = own.weights.step
        last = math.ceil(math.log1p(own.z_max) / step)
        rungs = np.unique(np.linspace(0, last, math.ceil(last * step / SPACING) + 1).round().astype(int))
        self._shared, self._x = model.shared(rungs.tolist()), own.tensor(rungs * step)
        self._log_limit = math.log(magnitudes.flux(selection.magnitude))
        #: ln of the comoving distance [Mpc] over ln(1 + z), which is smooth, on a uniform grid of ln(1 + z).
        x = np.linspace(0, last * step, _DISTANCES)
        far = np.maximum(x, _NEAREST)
        self._distance = own.tensor(np.log(np.asarray(cosmology.comoving_distance_mpc(np.expm1(far))) / far))
        self._per_step = (_DISTANCES - 1) / float(x[-1])
        self._limits = self._comoving(torch.log1p(own.tensor(np.array(selection.redshift or (0.0, own.z_max)))))

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments and result."""
        cells = self._shared.n_cells
        tables = 4 * n_galaxies * self._model.model.stars.n_metallicities * cells
        return tables + n_galaxies * n_draws * self._model.memory_of_draw(cells)

    def __call__(self, drawn: Drawn) -> Float[Tensor, "galaxy draw 3"]:
        """Return z_max, V_max and 1 / V_max, 0 where that volume is 0."""
        x = self._greatest(drawn)
        near, far = self._limits
        reached = self._comoving(x).clamp(max=float(far))
        volume = ((reached**3 - near**3) / 3).clamp(min=0)  # of a flat universe
        weight = torch.where(volume > 0, 1 / volume, 0.0)
        return torch.stack([torch.expm1(x).clamp(max=self._reach), volume, weight], -1)

    def _greatest(self, drawn: Drawn) -> Float[Tensor, "galaxy draw"]:
        """ln(1 + z_max): the last redshift of the grid with enough light, and between it and the next by bisection."""
        mass = drawn.values[self._model.model.space.amplitude.name]
        light = torch.log(self._model.absolute(drawn, self._shared).clamp(min=1e-37))
        light += math.log(10) * mass.unsqueeze(-1) - self._log_limit
        slope = torch.gradient(light, spacing=(self._x,), dim=-1, edge_order=2)[0]
        rungs = torch.arange(len(self._x))
        bright = light + self._dimming(self._x.clamp(min=_NEAREST)) >= 0
        last = (bright * rungs).amax(-1)
        left = last.clamp(max=len(self._x) - 2)
        at = _Piece.of(self._x, light, slope, left)

        def excess(log_x: Float[Tensor, "galaxy draw"]) -> Float[Tensor, "galaxy draw"]:
            x = log_x.exp()
            return at(x) + self._dimming(x)

        low, high = torch.log(at.start.clamp(min=_NEAREST)), torch.log(at.start + at.width)
        of_low, of_high = excess(low), excess(high)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            found = excess(middle)
            low, of_low, high, of_high = _halved(found >= 0, middle, found, (low, of_low, high, of_high))
        share = (of_low / (of_low - of_high)).nan_to_num(nan=0.0).clamp(0, 1)
        top = torch.where(last == len(self._x) - 1, math.log1p(self._reach), (low + share * (high - low)).exp())
        return top.clamp(max=math.log1p(self._reach))

    def _comoving(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Comoving distance [Mpc] at x = ln(1 + z)."""
        position = (x * self._per_step).clamp(0, _DISTANCES - 1.001)
        left = position.long()
        return torch.lerp(self._distance[left], self._distance[left + 1], position - left).exp() * x

    def _dimming(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """ln of (10 pc / d_L)^2 / (1 + z), d_L = (1 + z) times the comoving distance."""
        return 2 * torch.log(_TEN_PC / self._comoving(x)) - 3 * x


@dataclass(frozen=True)
class _Piece:
    """The cubics of draws between two points of a grid, by values and slopes (times the width) there (Hermite)."""

    start: Float[Tensor, "galaxy draw"]
    width: Float[Tensor, "galaxy draw"]
    values: tuple[Tensor, Tensor]
    slopes: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls,
        x: Float[Tensor, " point"],
        values: Float[Tensor, "galaxy draw point"],
        slopes: Float[Tensor, "galaxy draw point"],
        left: Int[Tensor, "galaxy draw"],
    ) -> _Piece:
        def ends(of: Tensor) -> tuple[Tensor, Tensor]:
            first, second = (of.gather(-1, (left + i).unsqueeze(-1)).squeeze(-1) for i in (0, 1))
            return first, second

        start, width = x[left], x[left + 1] - x[left]
        first, second = ends(slopes)
        return cls(start, width, ends(values), (first * width, second * width))

    def __call__(self, x: Float[Tensor, "galaxy draw"]) -> Float[Tensor, "galaxy draw"]:
        t = (x - self.start) / self.width
        (p0, p1), (m0, m1) = self.values, self.slopes
        rise = p1 - p0
        return p0 + t * (m0 + t * (3 * rise - 2 * m0 - m1 + t * (m0 + m1 - 2 * rise)))


_Bracket = tuple[Tensor, Tensor, Tensor, Tensor]


def _halved(bright: Bool[Tensor, "galaxy draw"], x: Tensor, value: Tensor, bracket: _Bracket) -> _Bracket:
    """The half of a bracket (low, value there, high, value there) in which the sign changes."""
    low, of_low, high, of_high = bracket
    return (
        torch.where(bright, x, low), torch.where(bright, value, of_low), torch.where(bright, high, x),
        torch.where(bright, of_high, value),
    )  # fmt: skip
