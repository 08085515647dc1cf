"""Rows without a redshift: photometry in, draws of redshift and shape together out.

q(z, phi | x) = q(z | x) q(phi | x, z): the redshift head and the flow (SEDflow: Hahn & Melchior 2022, section 6.3). Redshifts of a
galaxy are points of equal probability of the head's density, a few draws of the flow at each; weights are those of the posterior
of both, under the prior of the training, p(z) flat. A peak that the head has missed is invisible to weights of its own draws: a
share of the redshifts comes from the head's density flattened, and all are weighed by the mixture (balance heuristic: Veach &
Guibas 1995; Owen & Zhou 2000).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.inference.draws import Candidates, Draws
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps.fixed_redshift import FixedRedshifts

if TYPE_CHECKING:
    from sedflow_dist.inference.posterior import Posterior

#: Draws of the flow at each redshift: an eighth of a posterior's draws are redshifts of their own.
AT_ONE = 8
#: Share of the redshifts that come from the head's density to this power, which is flatter.
DEFENSIVE, POWER = 0.1, 0.5
#: Spacing in ln(1 + z) of the redshifts that draws are at, of which what light needs is worked out once: a hundredth of what six
#: bands tell, and fluxes between two of them differ by less than 0.2 %.
SPACING = 0.0005


class UnknownRedshifts:
    """Draws of galaxies without a redshift, for a ``posterior`` whose model has a redshift head."""

    def __init__(self, posterior: Posterior) -> None:
        flow = posterior.flow
        assert flow.head is not None
        self._posterior, self._head, self._range = posterior, flow.head, flow.spec.redshift
        edges = flow.head.edges
        self._first = max(round(float(edges[0]) / SPACING), 1)
        last = max(round(float(edges[-1]) / SPACING), self._first)
        self._redshift = torch.expm1(SPACING * torch.arange(self._first, last + 1, dtype=torch.float64)).float()

    @cached_property
    def _at(self) -> FixedRedshifts:
        """What all redshifts decide, once a galaxy lacks one."""
        return self._posterior.flow.redshift_model.at(self._redshift, own_tables=False)

    def draw(self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], n_draws: int) -> Draws:
        """Draw as `Posterior.draw` does."""
        posterior, n = self._posterior, len(photometry)
        number = -(-n_draws // AT_ONE)
        place, log_factor = self.redshifts(photometry, rows, number)
        one_by_one = torch.arange(n).repeat_interleave(number)
        z = self._redshift[place]
        spread = replace(photometry[one_by_one], redshift=z.flatten(), redshift_sigma=torch.zeros(n * number))
        # Points that follow each other fill the cube evenly: each redshift has a stretch of them.
        base = posterior.base_points(rows, number * AT_ONE).view(n * number, AT_ONE, -1)
        found = posterior.candidates(spread, base, learns=False, at=self._at[place.flatten()])
        found = replace(found, log_weight=found.log_weight + log_factor.view(-1, 1))
        if posterior.target is not None and found.log_factor is not None:
            of_redshifts = posterior.target.log_factor_of_redshifts(z).view(-1, 1)
            found = replace(found, log_factor=found.log_factor + of_redshifts)
        return Draws.certified(Candidates.in_turn([found], n, n_draws), photometry.n_bands)

    def redshifts(
        self, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], number: int
    ) -> tuple[Int[Tensor, "galaxy number"], Float[Tensor, "galaxy number"]]:
        """Return places of redshifts of each galaxy, and ln of the prior's density there over the proposal's."""
        edges, probability = self._head.edges.double(), self.proposal(photometry)
        shift = [keyed_random.uniforms(self._posterior.seed, "unknown redshift", int(row), 1, 1)[0] for row in rows]
        level = (torch.arange(number) + torch.as_tensor(np.array(shift))) / number
        above = probability.cumsum(-1)
        bins = torch.searchsorted(above, level.contiguous()).clamp(max=probability.shape[1] - 1)
        share = probability.gather(1, bins)
        within = 1 - ((above.gather(1, bins) - level) / share).clamp(0, 1)
        width = edges.diff()[bins]
        x = edges[bins] + within * width
        place = (torch.round(x / SPACING).long() - self._first).clamp(0, len(self._redshift) - 1)
        lo, hi = self._range
        log_prior = torch.log1p(self._redshift[place].double()) - np.log(hi - lo)  # flat in z, of ln(1 + z)
        return place, log_prior - (share / width).log()

    def proposal(self, photometry: Photometry) -> Float[Tensor, "galaxy bin"]:
        """Return the probability of each of the head's bins in the mixture that redshifts are drawn from."""
        log_bins = self._head.log_bins(photometry).double()
        return (1 - DEFENSIVE) * log_bins.exp() + DEFENSIVE * torch.softmax(POWER * log_bins, -1)
