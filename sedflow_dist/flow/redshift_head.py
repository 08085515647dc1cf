"""The redshift head: photometry in, the density of its redshift out, which may have several peaks.

The first factor of q(z, phi | x) = q(z | x) q(phi | x, z), whose second one is the flow (SEDflow: Hahn & Melchior 2022, section
6.3): what a masked autoregressive flow would smear between two peaks. A softmax over bins of ln(1 + z), within each of which the
density of ln(1 + z) is flat. It sees the brightness, which the flow's colours leave out.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sedflow_dist.flow import features
from sedflow_dist.flow.features import Features
from sedflow_dist.photometry.photometry import Photometry

#: Encoders that see no redshift.
FEATURES = ("log_fluxes", "log_colours", "uncertainties", "measured")


class HeadSpec(BaseModel):
    """What a redshift head looks like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[int, ...] = Field((512, 512), description="SiLU units in each layer", max_length=20)
    width: float = Field(0.005, ge=1e-4, le=0.1, description="of its bins in ln(1 + z), about")
    features: tuple[str, ...] = Field(FEATURES, description="encoders, in the order of their columns")
    training: dict[str, Any] = Field(default_factory=dict, description="settings and result of the training")

    def edges(self, redshift: tuple[float, float]) -> Float[Tensor, " edge"]:
        """Return the edges of the bins in ln(1 + z), of equal width over a range of redshifts."""
        lo, hi = (math.log1p(z) for z in redshift)
        return torch.linspace(lo, hi, max(round((hi - lo) / self.width), 2) + 1, dtype=torch.float64)

    def n_features(self, n_bands: int) -> int:
        """Return the number of features of so many bands."""
        return features.size(self.features, n_bands)

    def n_weights(self, redshift: tuple[float, float], n_bands: int) -> int:
        """Return the number of its weights, without building it."""
        sizes = [self.n_features(n_bands), *self.hidden, len(self.edges(redshift)) - 1]
        return sum((n + 1) * m for n, m in pairwise(sizes))

    def network(self, redshift: tuple[float, float], n_bands: int, seed: int) -> BinnedDensity:
        """Return an untrained network."""
        return BinnedDensity(self.hidden, self.n_features(n_bands), self.edges(redshift), seed)


class BinnedDensity(nn.Module):
    """A density of one number that is flat in bins, conditioned on features."""

    edges: Float[Tensor, " edge"]

    def __init__(self, hidden: tuple[int, ...], n_features: int, edges: Float[Tensor, " edge"], seed: int) -> None:
        super().__init__()
        self.register_buffer("edges", edges.float())
        sizes = [n_features, *hidden, len(edges) - 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        parts = [part for layer in layers for part in (layer, nn.SiLU())][:-1]
        self.layers = nn.Sequential(*parts)

    def log_bins(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row bin"]:
        """Return ln of the probability of each bin."""
        return torch.log_softmax(self.layers(x).float(), -1)

    def forward(self, value: Float[Tensor, "row 1"], x: Float[Tensor, "row feature"]) -> Float[Tensor, " row"]:
        """Return ln of the density of each row's ``value``, which must lie inside the bins: beyond them it counts in the last."""
        at, widths = self.bin_of(value), self.edges.diff()
        return self.log_bins(x).gather(1, at).squeeze(1) - widths[at.squeeze(1)].log()

    def bin_of(self, value: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """Return the bin of each value."""
        return torch.searchsorted(self.edges, value.contiguous(), right=True).sub_(1).clamp_(0, len(self.edges) - 2)


class RedshiftHead(nn.Module):
    """A trained head: `spec`, the network, and the features that it sees."""

    def __init__(self, spec: HeadSpec, network: BinnedDensity, features: Features) -> None:
        super().__init__()
        self.spec, self.network, self.features = spec, network, features
        self.eval()

    @property
    def edges(self) -> Float[Tensor, " edge"]:
        """Edges of the bins in ln(1 + z)."""
        return self.network.edges

    @torch.no_grad()
    def log_bins(self, photometry: Photometry) -> Float[Tensor, "galaxy bin"]:
        """Return ln of the probability of each bin, whatever redshifts the photometry has."""
        return self.network.log_bins(self.features(photometry))

    @classmethod
    def empty(cls, spec: HeadSpec, redshift: tuple[float, float], n_bands: int) -> Self:
        """Return a head whose tensors are to be loaded."""
        n = spec.n_features(n_bands)
        return cls(spec, spec.network(redshift, n_bands, 0), Features(spec.features, torch.zeros(n), torch.ones(n)))
