"""What a posterior's draws are: of the flow before they are weighed, weighed, and through the bands."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.inference.importance import Certificate


@dataclass(frozen=True)
class Draws:
    """Posterior draws of a block: ``unit`` cube, ``values`` (columns as in `columns`), the flow's density ``log_q``,
    ``chi2``, bands measured, and the rest as in `Certificate`, under the target prior;
    ``interim``: under the interim prior.

    ``plain``: what draws count where their importance weights do not serve, all alike or by the target prior's factor.
    """

    unit: Float[Tensor, "galaxy draw coordinate"]
    values: Float[Tensor, "galaxy draw column"]
    log_q: Float[Tensor, "galaxy draw"]
    chi2: Float[Tensor, "galaxy draw"]
    n_bands: Int[Tensor, " galaxy"]
    weight: Float[Tensor, "galaxy draw"]
    effective_fraction: Float[Tensor, " galaxy"]
    log_evidence: Float[Tensor, " galaxy"]
    log_evidence_error: Float[Tensor, " galaxy"]
    pareto_k: Float[Tensor, " galaxy"]
    interim: Certificate = field(kw_only=True)
    plain: Float[Tensor, "galaxy draw"] = field(kw_only=True)


@dataclass(frozen=True)
class Candidates:
    """Draws of a block before their weights are normalised: ``log_weight`` of the interim posterior; ``log_factor`` of the target
    prior, None without one; the rest as in `Draws`."""

    unit: Float[Tensor, "galaxy draw coordinate"]
    values: Float[Tensor, "galaxy draw column"]
    log_q: Float[Tensor, "galaxy draw"]
    chi2: Float[Tensor, "galaxy draw"]
    log_weight: Float[Tensor, "galaxy draw"]
    log_factor: Float[Tensor, "galaxy draw"] | None


@dataclass(frozen=True)
class Predicted:
    """What weighted draws of a block say of its photometry: model fluxes [nanomaggies], their chi^2, and the weights."""

    flux: Float[Tensor, "galaxy draw band"]
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
