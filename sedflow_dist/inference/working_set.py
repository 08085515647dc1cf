"""How many galaxies are worked on together: a model and a number of draws in, bytes and galaxies out."""

from __future__ import annotations

from dataclasses import dataclass

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import adaptation
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.sps.chosen_columns import ChosenColumns

#: Bytes that the draws of one batch of galaxies may take, beside the sampler's layers: about the last-level cache. Half as much
#: costs the model desi a quarter more time, twice as much gains nothing.
MEMORY = 64_000_000


@dataclass(frozen=True)
class WorkingSet:
    """What the draws of galaxies take, beside their photometry.

    Attributes:
        flow: the trained flow
        n_draws: of each galaxy
        n_columns: of a draw
        chosen, target: what computes more columns, and another prior
    """

    flow: TrainedModel
    n_draws: int
    n_columns: int
    chosen: ChosenColumns | None
    target: NewPrior | None

    def galaxies(self, memory: int, together: int | None = None) -> int:
        """Return how many galaxies fit into so many bytes, one at least, with so many draws of each ``together``; None: a round."""
        return max(memory // self._bytes(1, together or self._round), 1)

    def memory(self, galaxies: int, together: int | None = None) -> int:
        """Return the most bytes that so many galaxies need, with the sampler's."""
        together = together or self._round
        return self._bytes(galaxies, together) + self.flow.network.memory(galaxies * together)

    @property
    def _round(self) -> int:
        """Draws of the largest round."""
        return max(part.stop - part.start for part in adaptation.rounds(self.n_draws))

    def _bytes(self, galaxies: int, together: int) -> int:
        """What stays of each draw until its galaxy is done (base points, values, weights), and the light of some of them."""
        space, bands = self.flow.space, self.flow.spec.bands
        own = 4 * (8 * len(space.coordinates) + 3 * self.n_columns + 6 * len(bands) + 40)
        own += 8 * 12 * len(self.target.densities) if self.target else 0
        light = self.flow.redshift_model.memory(galaxies, together)
        more = self.chosen.memory(galaxies, together) if self.chosen else 0
        return galaxies * self.n_draws * own + max(light, more)  # one after the other
