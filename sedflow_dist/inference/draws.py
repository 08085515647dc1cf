"""What a posterior's draws are: of the flow before they are weighed, weighed, and through the bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sedflow_dist.inference import importance
from sedflow_dist.inference.importance import Certificate


@dataclass(frozen=True)
class Draws:
    """Posterior draws of a block: ``unit`` cube, ``values`` (columns as in `columns`), the flow's density ``log_q``,
    ``chi2``, bands measured, whether a draw is the flow's ``own``, not moved by the weights of others, its ``redshift``, and the
    rest as in `Certificate`, under the target prior; ``interim``: under the interim prior.

    ``plain``: what draws count where their importance weights do not serve: the flow's own, all alike or by the target prior's
    factor.
    """

    unit: Float[Tensor, "galaxy draw coordinate"]
    values: Float[Tensor, "galaxy draw column"]
    log_q: Float[Tensor, "galaxy draw"]
    chi2: Float[Tensor, "galaxy draw"]
    n_bands: Int[Tensor, " galaxy"]
    own: Bool[Tensor, "galaxy draw"]
    redshift: Float[Tensor, "galaxy draw"]
    weight: Float[Tensor, "galaxy draw"]
    effective_fraction: Float[Tensor, " galaxy"]
    log_evidence: Float[Tensor, " galaxy"]
    log_evidence_error: Float[Tensor, " galaxy"]
    pareto_k: Float[Tensor, " galaxy"]
    interim: Certificate = field(kw_only=True)
    plain: Float[Tensor, "galaxy draw"] = field(kw_only=True)

    @classmethod
    def certified(cls, found: Candidates, n_bands: Int[Tensor, " galaxy"]) -> Draws:
        """Weigh the draws of galaxies that have so many bands."""
        certificate = interim = importance.certify(found.log_weight)
        if found.log_factor is not None:
            certificate = importance.certify(found.log_weight + found.log_factor)
        return cls(
            unit=found.unit, values=found.values, log_q=found.log_q, chi2=found.chi2, n_bands=n_bands, own=found.own,
            redshift=found.redshift, **vars(certificate), interim=interim, plain=alike(found.own, found.log_factor),
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[Draws], order: Int[Tensor, " galaxy"]) -> Draws:
        """Return some galaxies of several blocks, as they are numbered one block after the other."""

        def joined(name: str, of: Sequence[Draws] | Sequence[Certificate]) -> Tensor:
            return torch.cat([getattr(one, name) for one in of])[order]

        interim = Certificate(**{f.name: joined(f.name, [part.interim for part in parts]) for f in fields(Certificate)})
        own = {f.name: joined(f.name, parts) for f in fields(cls) if f.name != "interim"}
        return cls(**own, interim=interim)


@dataclass(frozen=True)
class Candidates:
    """Draws of a block before their weights are normalised: ``log_weight`` of the interim posterior; ``log_factor`` of the target
    prior, None without one; the rest as in `Draws`."""

    unit: Float[Tensor, "galaxy draw coordinate"]
    values: Float[Tensor, "galaxy draw column"]
    log_q: Float[Tensor, "galaxy draw"]
    chi2: Float[Tensor, "galaxy draw"]
    log_weight: Float[Tensor, "galaxy draw"]
    own: Bool[Tensor, "galaxy draw"]
    redshift: Float[Tensor, "galaxy draw"]
    log_factor: Float[Tensor, "galaxy draw"] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return the draws of several rounds, one after the other, of which none has a factor yet."""
        names = [one.name for one in fields(cls) if one.name != "log_factor"]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts], 1) for name in names})

    @classmethod
    def in_turn(cls, parts: Sequence[Candidates], galaxies: int, n_draws: int) -> Candidates:
        """Return the draws of galaxies of which each has several rows, at redshifts of its own; blocks one after the other.

        A draw from each row in turn, so that what is cut off where the rows do not divide ``n_draws`` is a draw of some.
        """
        found = {one.name: [getattr(part, one.name) for part in parts] for one in fields(cls)}
        return cls(**{
            name: torch.cat(values).unflatten(0, (galaxies, -1)).transpose(1, 2).flatten(1, 2)[:, :n_draws]
            for name, values in found.items() if values[0] is not None
        })  # fmt: skip


@dataclass(frozen=True)
class Predicted:
    """What weighted draws of a block say of its photometry: model fluxes [nanomaggies], 1 over the noise that they were weighed
    by (0 in masked bands), chi^2 by the noise that is stated, and the weights."""

    flux: Float[Tensor, "galaxy draw band"]
    inverse_sigma: Float[Tensor, "galaxy one_or_draw band"]
    chi2: Float[Tensor, "galaxy draw"]
    certificate: Certificate


@dataclass(frozen=True)
class Weighed:
    """Draws that have been weighed: ln of the weights, and log_mstar, drawn where that is exact."""

    log_weight: Float[Tensor, "galaxy draw"]
    log_mstar: Float[Tensor, "galaxy draw"]


@dataclass(frozen=True)
class Proposal:
    """Draws of the flow before they are weighed: base points, unit cube and parameters, prior and flow's density."""

    base: Float[Tensor, "galaxy draw coordinate"]
    unit: Float[Tensor, "galaxy draw coordinate"]
    theta: Float[Tensor, "galaxy draw param"]
    log_prior: Float[Tensor, "galaxy draw"]
    log_q: Float[Tensor, "galaxy draw"]


def alike(
    counts: Bool[Tensor, "galaxy draw"], log_factor: Float[Tensor, "galaxy draw"] | None
) -> Float[Tensor, "galaxy draw"]:
    """Return weights of draws that count: all alike, or by the target prior's factor."""
    if log_factor is None:
        return counts.double() / counts.sum(-1, keepdim=True)
    return torch.softmax(log_factor.where(counts, -math.inf), -1).nan_to_num(nan=0.0)
