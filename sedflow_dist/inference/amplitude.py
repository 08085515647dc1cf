"""The stellar mass given everything else, exactly: fluxes per solar mass and data in, evidence and mass draws out.

Flux is proportional to a = 10^log_mstar and the prior is flat in log a, so given the shape s (fluxes per solar mass) the
conditional of a is known: p(a | s, d) ~ a^-1 exp(-A (a - a_hat)^2 / 2), A = sum s^2/sigma^2, a_hat = sum s d/sigma^2 / A,
on the range of the prior. One dimension, quadrature in ln a.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.compiled import call, library_for
from sedflow_dist.inference import likelihood
from sedflow_dist.photometry.photometry import Photometry

_NODES = 65
_REACH = 6.0  # standard deviations


@dataclass(frozen=True)
class AmplitudeFit:
    """What the data say of the amplitude of each draw.

    ``log_evidence``: ln p(d | shape), amplitude integrated out under its prior, constants of the Gaussian included;
    ``chi2``: at the best amplitude inside the prior; ``log_mstar``: one exact draw of log10(a).
    """

    log_evidence: Float[Tensor, "galaxy draw"]
    chi2: Float[Tensor, "galaxy draw"]
    log_mstar: Float[Tensor, "galaxy draw"]


def fit(
    per_mass: Float[Tensor, "galaxy draw band"],
    photometry: Photometry,
    uniform: Float[Tensor, "galaxy draw"],
    log_mstar_range: tuple[float, float],
) -> AmplitudeFit:
    """Integrate the amplitude out and draw it: ``uniform`` in (0, 1) goes through the inverse cumulative distribution.

    Args:
        per_mass: model fluxes of a galaxy of one solar mass formed [nanomaggies]
        photometry: the data; bands that are not measured do not count
    """
    found = library_for(per_mass)
    if found and per_mass.shape[-1] <= found.amplitude_most_bands():
        log_evidence, chi2, log_a = _compiled(found, per_mass, photometry, uniform, log_mstar_range)
    else:
        log_evidence, chi2, log_a = _by_operators(per_mass, photometry, uniform, log_mstar_range)
    log_evidence = log_evidence + likelihood.log_norm(photometry).unsqueeze(-1)
    return AmplitudeFit(log_evidence, chi2, (log_a / math.log(10)).clamp(*log_mstar_range))


class _Amplitudes(ctypes.Structure):
    """What `native/amplitude.cpp` has to know of all galaxies, in its order."""

    _fields_ = (
        ("bands", ctypes.c_int64), ("nodes", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("reach", "lowest", "highest")),
    )  # fmt: skip


def _compiled(
    found: ctypes.CDLL, per_mass: Tensor, photometry: Photometry, uniform: Tensor, log_mstar_range: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `_by_operators` returns, without going through memory for each node of the quadrature."""
    galaxies, draws, bands = per_mass.shape
    given = _Amplitudes(bands, _NODES, _REACH, *(x * math.log(10) for x in log_mstar_range))
    inverse_sigma = photometry.inverse_sigma
    log_evidence, chi2, log_a = (per_mass.new_empty(galaxies, draws) for _ in range(3))
    data = (photometry.flux * inverse_sigma).expand(galaxies, bands)
    arrays = (per_mass, data, inverse_sigma.expand(galaxies, bands), uniform.to(per_mass).expand(galaxies, draws))
    call(found.amplitude, given, *(x.contiguous() for x in arrays), galaxies, draws, log_evidence, chi2, log_a)
    return log_evidence, chi2, log_a


def _by_operators(
    per_mass: Tensor, photometry: Photometry, uniform: Tensor, log_mstar_range: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ln of the evidence without the Gaussian's constants, chi^2 at the best amplitude, and ln of the amplitudes drawn."""
    inverse_sigma = photometry.inverse_sigma
    data = (photometry.flux * inverse_sigma).unsqueeze(1)
    shape = per_mass * inverse_sigma.unsqueeze(1)
    # In units of the largest allowed amplitude, so that float32 holds A.
    lo, hi = (x * math.log(10) for x in log_mstar_range)
    shape = shape * math.exp(hi)
    precision = (shape**2).sum(-1).clamp(min=1e-30)
    a_hat = (shape * data).sum(-1) / precision
    width = precision.rsqrt()
    best = a_hat.clamp(math.exp(lo - hi), 1.0)
    residual = data - best.unsqueeze(-1) * shape
    chi2 = (residual**2).sum(-1)

    peak = ((best - a_hat) / width) ** 2
    # As far as the density has fallen by exp(-_REACH^2 / 2) from where it peaks inside the prior.
    reach = width * (peak + _REACH**2).sqrt()
    log_range = torch.stack([a_hat - reach, a_hat + reach]).clamp(math.exp(lo - hi), 1.0).log()
    start, length = log_range[0], (log_range[1] - log_range[0]).clamp(min=1e-6)
    start = torch.minimum(start, -length)  # keeps the last node inside the prior
    step = length / (_NODES - 1)
    nodes = start.unsqueeze(-1) + step.unsqueeze(-1) * torch.arange(_NODES, dtype=step.dtype)
    # Exponent relative to its value at the best amplitude: 0 at the peak, negative elsewhere.
    distance = (nodes.exp() - a_hat.unsqueeze(-1)) / width.unsqueeze(-1)
    density = torch.exp(-0.5 * (distance**2 - peak.unsqueeze(-1)))
    cumulative = torch.cumsum(0.5 * (density[..., 1:] + density[..., :-1]), dim=-1)
    total = cumulative[..., -1].clamp(min=1e-30)
    log_evidence = -0.5 * chi2 + torch.log(total * step) - math.log(hi - lo)
    return log_evidence, chi2, start + step * _inverse(cumulative, uniform * total) + hi


def _inverse(
    cumulative: Float[Tensor, "galaxy draw cell"], target: Float[Tensor, "galaxy draw"]
) -> Float[Tensor, "galaxy draw"]:
    """Return where a cumulative sum over cells reaches ``target``, in cells from the first node, linear inside one."""
    target = target.unsqueeze(-1)
    right = torch.searchsorted(cumulative, target).clamp(max=_NODES - 2)
    below = torch.where(right > 0, cumulative.gather(-1, (right - 1).clamp(min=0)), 0.0)
    inside = (target - below) / (cumulative.gather(-1, right) - below).clamp(min=1e-30)
    return (right + inside.clamp(0, 1)).squeeze(-1)
