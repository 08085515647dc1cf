"""Posterior draws of galaxies on their way through the galaxy model: what is known of them, and of the light that they may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.parameters import ParameterSpace, Values
from sedflow_dist.sps.components import Curves
from sedflow_dist.sps.ladder import BetweenRungs, Cells
from sedflow_dist.sps.populations import Epoch, Populations


@dataclass(frozen=True)
class Emission:
    """What dust emits: which rows of its table, and the luminosity of each per solar mass [Lsun]: what dust takes, shared out."""

    row: Int[Tensor, "galaxy draw part"]
    luminosity: Float[Tensor, "galaxy draw part"]


@dataclass(frozen=True)
class Drawn:
    """Draws of galaxies: parameters, what the redshifts decide, populations, and their masses at each metallicity.

    The same whatever the bands: light through other bands begins here. ``epoch``: each field (galaxy, 1); ``weights``: None where
    nobody needs them; ``emission``: None where dust does not emit what it takes.
    """

    theta: Float[Tensor, "galaxy draw param"]
    values: Values
    epoch: Epoch
    populations: Populations
    weights: Float[Tensor, "galaxy draw population metallicity"] | None
    emission: Emission | None = None


@dataclass(frozen=True)
class DrawPhotometry:
    """What the galaxy model says of draws, per solar mass formed.

    ``flux``: observed [nanomaggies]; ``absolute``: rest frame at 10 pc [nanomaggies]; ``surviving``: mass fraction.
    """

    drawn: Drawn
    flux: Float[Tensor, "galaxy draw band"]
    absolute: Float[Tensor, "galaxy draw band"]
    surviving: Float[Tensor, "galaxy draw"]

    def split(self, space: ParameterSpace, n: int) -> Iterator[DrawPhotometry]:
        """Yield the same of at most ``n`` draws a galaxy at a time, which bounds the memory of what is computed of them."""
        drawn = self.drawn
        for start in range(0, drawn.theta.shape[1], n):
            part = slice(start, start + n)
            theta, emission = drawn.theta[:, part], drawn.emission
            populations = Populations(**{name: x[:, part] for name, x in vars(drawn.populations).items()})
            if emission is not None:
                emission = Emission(emission.row[:, part], emission.luminosity[:, part])
            weights = None if drawn.weights is None else drawn.weights[:, part]
            some = Drawn(theta, space.values(theta), drawn.epoch, populations, weights, emission)
            yield DrawPhotometry(some, self.flux[:, part], self.absolute[:, part], self.surviving[:, part])


@dataclass(frozen=True)
class Tables:
    """Light in cells of wavelength for the rows of the fixed bins (bin, metallicity), the nodes (age, metallicity), of which a draw
    needs four for each of two populations, and the templates of each source besides the stars.

    Leading axis: of each galaxy, or 1 where all share the table; ``galaxy`` says whose a row of draws has. ``curves`` are those of
    each screen, None before any, with a leading axis (galaxy, 1) or none. Cells of a band lie side by side, up to the one before
    ``end``; ``dust``: what dust emits per luminosity.
    """

    bins: Cells
    nodes: BetweenRungs
    sources: tuple[Cells, ...]
    curves: tuple[Curves, ...] | None
    galaxy: Int[Tensor, " row"]
    end: Int[Tensor, " band"]
    dust: Float[Tensor, "_galaxy _part _band"] | None

    @property
    def n_cells(self) -> int:
        """Number of cells of a row."""
        return int(self.nodes.runs[:, 1].sum())

    @property
    def are_shared(self) -> bool:
        """Whether all galaxies have the same; ``galaxy`` is then one number for all."""
        return len(self.nodes.ladder) == 1
