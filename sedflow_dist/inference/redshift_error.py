"""Redshifts with errors that matter: photometry with standard errors of its redshifts in, draws that integrate over them out.

p(theta | d) = integral p(theta | d, z) p(d | z) N(z; z_observed, sigma) dz, the prior of z flat. The row is taken at redshifts that
cut the Gaussian into equal parts, one at a point of each part that is keyed to the row, with as many draws at each: an importance
sample of shape and redshift together, in which distance, K-correction and colours of each draw are those of its own redshift, and
the likelihood says which redshifts the data prefer. Rows whose error does not matter (`photometry.EXACT`) are untouched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt32
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.inference.draws import Candidates, Draws
from sedflow_dist.photometry.flags import Flag, bits
from sedflow_dist.photometry.photometry import EXACT, Photometry

if TYPE_CHECKING:
    from sedflow_dist.inference.posterior import Posterior

#: Redshifts at which a row is taken.
NODES = 32
_AT_ONCE = 4  # of them: their tables take as much memory as the draws of an exact row
#: Standard errors that must lie between redshift zero and where the model ends.
_REACH = 3.0


def flagged(
    flags: UInt32[np.ndarray, " galaxy"], photometry: Photometry, reach: float, inferred: bool
) -> UInt32[np.ndarray, " galaxy"]:
    """Return flags with those that say which redshifts are uncertain, and which are so bad that there is no answer.

    Args:
        reach: the model's last redshift
        inferred: whether the model infers redshifts that are not known, which then are no reason
    """
    exact, z, sigma = photometry.has_exact_redshift, photometry.redshift, photometry.redshift_sigma
    inside = (sigma >= 0) & (z > _REACH * sigma) & (z + _REACH * sigma <= reach)  # False where one is NaN
    without = photometry.has_no_redshift & inferred
    told = {
        Flag.REDSHIFT_UNCERTAIN: ~exact & inside,
        Flag.BAD_REDSHIFT: ~exact & ~inside,
        Flag.REDSHIFT_INFERRED: without,
    }
    found = flags | bits(len(z), {flag: rows.numpy() for flag, rows in told.items()})
    return np.where(without.numpy(), found & ~np.uint32(int(Flag.BAD_REDSHIFT)), found)


def refuse(photometry: Photometry, what: str) -> None:
    """Raise ValueError where a redshift is unknown, or has an error that matters."""
    if not bool((exact := photometry.has_exact_redshift).all()):
        i = int((~exact).nonzero()[0, 0])
        raise ValueError(
            f"{what}: exact redshifts are needed, and that of galaxy {i} is {float(photometry.redshift[i]):g} +- "
            f"{float(photometry.redshift_sigma[i]):g}; errors up to {EXACT:.1%} of a redshift are allowed"
        )


def draw(posterior: Posterior, photometry: Photometry, rows: Int[np.ndarray, " galaxy"], n_draws: int) -> Draws:
    """Draw as `Posterior.draw` does for galaxies of which some have uncertain redshifts, these one by one, or none."""
    exact, without = photometry.has_exact_redshift.numpy(), photometry.has_no_redshift.numpy()
    places = [np.flatnonzero(exact)] if exact.any() else []
    parts = [posterior.draw(photometry[at], rows[at], n_draws) for at in places]
    if without.any():
        if posterior.unknown is None:
            raise ValueError(
                f"{without.sum()} of {len(rows)} galaxies have no redshift, and the model has no redshift head"
            )
        places.append(np.flatnonzero(without))
        parts.append(posterior.unknown.draw(photometry[without], rows[without], n_draws))
    for i in np.flatnonzero(~exact & ~without).tolist():
        places.append(np.array([i]))
        parts.append(_draw_one(posterior, photometry[i], rows[i : i + 1], n_draws))
    back = torch.as_tensor(np.argsort(np.concatenate(places)))
    return Draws.joined(parts, back)


def redshifts(one: Photometry, row: int, seed: int, reach: float, n: int = NODES) -> Float[Tensor, " node"]:
    """Return redshifts of equal probability of one galaxy, one in each of ``n`` equal parts of its Gaussian.

    What lies beyond zero or the model, a thousandth at most, counts at its edge.
    """
    shift = float(keyed_random.uniforms(seed, "redshift", row, 1, 1)[0, 0])
    probability = ((torch.arange(n, dtype=torch.float64) + shift) / n).clamp(1e-6, 1 - 1e-6)
    z, sigma = one.redshift.double(), one.redshift_sigma.double()
    return (z + sigma * torch.special.ndtri(probability)).clamp(0.1 * float(z), reach).float()


def _draw_one(posterior: Posterior, one: Photometry, row: Int[np.ndarray, " 1"], n_draws: int) -> Draws:
    """Draw for one galaxy, as many draws at each of its redshifts."""
    z = redshifts(one, int(row[0]), posterior.seed, posterior.flow.reach)
    spread = replace(one[[0] * NODES], redshift=z, redshift_sigma=torch.zeros_like(z))
    each = -(-n_draws // NODES)
    # Points that follow each other fill the cube evenly, those that are NODES apart do not: each redshift has a stretch of them.
    base = posterior.base_points(row, NODES * each).view(NODES, each, -1)
    few = [slice(start, start + _AT_ONCE) for start in range(0, NODES, _AT_ONCE)]
    parts = [posterior.candidates(spread[some], base[some]) for some in few]
    return Draws.certified(Candidates.in_turn(parts, 1, n_draws), one.n_bands)
