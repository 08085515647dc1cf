"""A learned likelihood of photometry given model fluxes: what data look like that are not the model plus Gaussian noise.

q(residuals | model fluxes, uncertainties, bands measured, redshift) is a flow of the architecture of the posterior's (SEDflow:
Hahn & Melchior 2022, section 6.1), trained on mock galaxies that are deliberately imperfect. A share of all galaxies is taken to
be so: p_A = (1 - share) N + share q, whose ratio to the Gaussian likelihood N is what inference compares evidences with.
On disk: tensors (safetensors) and a JSON specification; never a pickle.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from sedflow_dist.flow import on_disk
from sedflow_dist.flow.features import COLOURS, Features, encoders, size
from sedflow_dist.flow.maf_residuals import ResidualFlow, ResidualSettings
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.imperfections import Imperfections

FORMAT = 1
_ROW = 4 * 30  # bytes of a draw and band: fluxes, residuals and features on their way


class LikelihoodSpec(BaseModel):
    """What a learned likelihood was trained for; stored as JSON beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    model: str = Field(description="id of the trained model whose galaxies and noise it knows")
    labels: tuple[str, ...] = Field(max_length=1000, description="of the bands")
    flow: ResidualSettings
    features: tuple[str, ...] = Field(
        COLOURS, description="encoders of what the model says, in the order of their columns"
    )
    share: float = Field(gt=0, lt=1, description="share of galaxies taken to be imperfect")
    imperfections: Imperfections
    training: dict[str, Any] = Field(default_factory=dict, description="settings and result of the training")

    def build_flow(self, seed: int) -> ResidualFlow:
        """Return an untrained flow of this specification: the Gaussian likelihood."""
        return ResidualFlow(len(self.labels), size(self.features, len(self.labels)), self.flow, seed)


class LearnedLikelihood(nn.Module):
    """The likelihood of data that may be imperfect, relative to the Gaussian one.

    Args:
        spec: what it was trained for
        network: the flow of residuals
        features: of the model's photometry, as fitted to the training data
    """

    def __init__(self, spec: LikelihoodSpec, network: ResidualFlow, features: Features) -> None:
        super().__init__()
        self.spec, self.network, self.features = spec, network, features
        self.eval()

    @property
    def id(self) -> str:
        """Hash of weights and specification."""
        return on_disk.identity(*self.to_bytes())

    @torch.no_grad()
    def log_ratio(
        self, model: Float[Tensor, "galaxy draw band"], photometry: Photometry
    ) -> Float[Tensor, "galaxy draw"]:
        """Return ln of p_A(data | draw) over the Gaussian likelihood; never below ln(1 - share).

        Galaxy by galaxy: what is said of one does not depend, to the last bit, on who stands beside it.

        Args:
            model: fluxes of each draw [nanomaggies]
            photometry: the data; bands that are not measured do not count
        """
        return torch.stack([self._of_one(fluxes, photometry[i]) for i, fluxes in enumerate(model)])

    def _of_one(self, model: Float[Tensor, "draw band"], photometry: Photometry) -> Float[Tensor, " draw"]:
        n, mask = len(model), photometry.mask
        residual = ((photometry.flux - model) * photometry.inverse_sigma).where(mask, torch.nan)
        told = Photometry(**{name: x.expand(n, *x.shape[1:]) for name, x in vars(photometry).items()})
        context = self.features(replace(told, flux=model.where(mask, 0.0)))
        ratio = self.network.log_ratio(residual, context)
        return self._mixed(ratio)

    def _mixed(self, ratio: Float[Tensor, " draw"]) -> Float[Tensor, " draw"]:
        """Return ln of (1 - share) + share exp(ratio): exactly 0 where nothing was learnt."""
        share = self.spec.share
        small = torch.log1p(share * torch.expm1(ratio.clamp(max=1.0)))
        large = torch.logaddexp(torch.full_like(ratio, math.log1p(-share)), ratio + math.log(share))
        return torch.where(ratio < 1, small, large)

    def noting(self, **facts: Any) -> LearnedLikelihood:
        """Return the same with more said of its training."""
        spec = self.spec.model_copy(update={"training": {**self.spec.training, **facts}})
        return LearnedLikelihood(spec, self.network, self.features)

    def check(self, model_id: str) -> None:
        """Raise ValueError unless it was trained for the model of this id."""
        if self.spec.model != model_id:
            raise ValueError(
                f"the learned likelihood was trained for model {self.spec.model}, and this one is {model_id}: remove it and run "
                "sedflow learn-likelihood"
            )

    def memory(self, n_draws: int) -> int:
        """Return the most bytes that `log_ratio` needs for so many draws of each galaxy, beside its arguments."""
        return n_draws * _ROW * len(self.spec.labels) + self.network.memory(n_draws)

    # -- to and from bytes ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return safetensors and JSON: the same likelihood gives the same bytes."""
        return on_disk.to_bytes(self, self.spec)

    @classmethod
    def from_bytes(cls, weights: bytes, spec: bytes) -> Self:
        """Load a learned likelihood.

        Raises:
            ValueError: the bytes are none of this format; says what was found.
        """
        try:
            parsed = LikelihoodSpec.model_validate_json(spec)
            encoders(parsed.features)
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, e["loc"]))[:60] for e in error.errors()})[:5])
            raise ValueError(f"not the specification of a learned likelihood (format {FORMAT}): {wrong}") from None
        if parsed.format != FORMAT:
            raise ValueError(f"the learned likelihood has format {parsed.format}; this version reads format {FORMAT}")
        n_features = size(parsed.features, len(parsed.labels))
        least = 4 * ResidualFlow.n_weights(len(parsed.labels), n_features, parsed.flow)  # float32
        if least > len(weights):
            raise ValueError(f"weights of a learned likelihood: {len(weights):,} bytes, of {least:,} or more")
        try:
            tensors = on_disk.tensors_of(weights)
        except ValueError as error:
            raise ValueError(f"weights of a learned likelihood: {error}") from None
        empty = torch.zeros(n_features)
        made = cls(parsed, parsed.build_flow(seed=0), Features(parsed.features, empty, empty + 1))
        made._take(tensors)
        return made

    def _take(self, tensors: dict[str, Tensor]) -> None:
        """Take weights over, after a look at each."""
        wanted = self.state_dict()
        if differing := sorted(set(tensors) ^ set(wanted)):
            raise ValueError(f"weights of a learned likelihood: {', '.join(differing[:3])} are missing or not in it")
        for name, ours in wanted.items():
            found = tensors[name]
            if found.shape != ours.shape or not torch.isfinite(found).all():
                raise ValueError(
                    f"weights of a learned likelihood: {name} has shape {tuple(found.shape)}, not {tuple(ours.shape)}, or is "
                    "not finite"
                )
        self.network.check(on_disk.part_of(tensors, "network"))
        self.load_state_dict(tensors)
