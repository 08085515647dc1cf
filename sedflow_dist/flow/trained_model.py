"""A trained flow, with everything needed to use it alone: network, features, noise and galaxy model.

On disk: tensors (safetensors) and a JSON specification; never a pickle. The model's id is a hash of both.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load, save
from torch import Tensor, nn

from sedflow_dist.flow import features, maf
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.maf_inverse import Sampler
from sedflow_dist.flow.support import Novelty
from sedflow_dist.parameters import COORDINATES, N_SHAPE, Prior
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.sps import filters
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.forward_model import ForwardModel
from sedflow_dist.sps.ssp import SSPTable

if TYPE_CHECKING:
    from sbi.inference.posteriors import DirectPosterior

FORMAT = 1
#: Redshift up to which a model keeps the wavelengths of its SSP table, if that is beyond the trained range.
FAR = 0.6
#: Beyond, nothing was ever seen that a model could be of.
FARTHEST = 30.0


class FlowSpec(BaseModel):
    """What a flow was trained for; stored as JSON beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    bands: tuple[str, ...] = Field(max_length=1000, description="speclite names, in the order of the features")
    labels: tuple[str, ...]
    amplitude: Literal["exact", "learnt"] = Field(
        description="exact: ten shape dimensions; learnt: eleven, as the paper"
    )
    transforms: int = Field(ge=1, le=100)
    hidden: int = Field(ge=2, le=4096)
    redshift: tuple[float, float] = Field(description="trained range")
    birth_cloud_age: float = Field(description="Gyr")
    selection_band: int
    selection: tuple[float, float] = Field(description="observed magnitudes in the selection band")
    prior: dict[str, tuple[float, float]]
    ssp: dict[str, Any] = Field(description="provenance of the SSP table")
    training: dict[str, Any] = Field(default_factory=dict, description="settings and result of the training")

    @model_validator(mode="after")
    def _check(self) -> FlowSpec:
        if len(self.labels) != len(self.bands):
            raise ValueError(f"labels: {len(self.labels)} for {len(self.bands)} bands")
        if not 0 <= self.selection_band < len(self.bands):
            raise ValueError(f"selection_band {self.selection_band} is none of {len(self.bands)} bands")
        if not 0 <= self.redshift[0] < self.redshift[1]:
            raise ValueError(f"redshift range {self.redshift} is not increasing")
        if self.redshift[1] > FARTHEST or not 0 < self.birth_cloud_age < math.inf:
            raise ValueError(f"redshift up to {FARTHEST}, and birth_cloud_age above 0, are possible")
        if unknown := set(self.prior) - set(Prior().to_dict()):
            raise ValueError(f"prior: unknown parameters {', '.join(sorted(unknown))}")
        return self


@dataclass(frozen=True)
class Flow:
    """A flow q(phi | photometry, redshift) in probit space.

    Attributes:
        spec: what it was trained for
        network: sbi's MAF
        features, noise: as fitted to the training data
        colour_range: 0.05 and 99.95 % of the training data's colours of neighbouring bands, shape (band - 1, 2) [mag]
        novelty: how unlikely a galaxy is among the training data
        ssp: the SSP table of its galaxy model
    """

    spec: FlowSpec
    network: nn.Module
    features: Features
    noise: NoiseModel
    colour_range: Tensor
    novelty: Novelty
    ssp: SSPTable

    @property
    def dimensions(self) -> int:
        """Ten shape dimensions, or eleven with the amplitude."""
        return dimensions(self.spec.amplitude)

    @cached_property
    def prior(self) -> Prior:
        """The prior that the flow was trained under."""
        return Prior.from_dict({name: list(values) for name, values in self.spec.prior.items()})

    @cached_property
    def sampler(self) -> Sampler:
        """The fast exact sampler of `network`."""
        with torch.no_grad():
            return Sampler(maf.blocks(self.network))

    @cached_property
    def redshift_model(self) -> RedshiftModel:
        """The galaxy model for many draws at one redshift."""
        model = ForwardModel(self.ssp, self.spec.bands, self.reach, self.spec.birth_cloud_age)
        return RedshiftModel(model)

    @cached_property
    def reach(self) -> float:
        """The redshift up to which its galaxy model serves, and with it the weights of draws: beyond the trained range."""
        return max(min(FAR, filters.reach(self.spec.bands, self.ssp.edges)), self.spec.redshift[1])

    @cached_property
    def id(self) -> str:
        """Hash of weights and specification: the same id gives the same answers."""
        weights, spec = self.to_bytes()
        return hashlib.sha256(weights + spec).hexdigest()[:16]

    def to_sbi(self) -> DirectPosterior:
        """Return an sbi posterior over probit space, conditioned on `features`; prior N(0, I)."""
        from sbi.inference.posteriors import DirectPosterior

        prior = torch.distributions.MultivariateNormal(torch.zeros(self.dimensions), torch.eye(self.dimensions))
        return DirectPosterior(self.network, prior)

    # -- to and from bytes ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return safetensors and JSON: the same flow gives the same bytes."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {"features.mean": self.features.mean, "features.std": self.features.std}
        tensors |= {f"noise.{name}": getattr(self.noise, name) for name in ("magnitude", "mean", "scatter")}
        tensors |= {f"ssp.{name}": torch.as_tensor(getattr(self.ssp, name)) for name in _SSP_ARRAYS}
        tensors["colour_range"] = self.colour_range
        tensors |= {f"novelty.{name}": getattr(self.novelty, name) for name in _NOVELTY}
        tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
        return save(tensors), json.dumps(self.spec.model_dump(mode="json"), indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, weights: bytes, spec: bytes) -> Flow:
        """Load a flow.

        Raises:
            ValueError: the bytes are not a flow of this format; says what was found.
        """
        try:
            parsed = FlowSpec.model_validate_json(spec)
        except ValueError as error:
            raise ValueError(f"not the specification of a flow (format {FORMAT}): {_without_content(error)}") from None
        if parsed.format != FORMAT:
            raise ValueError(f"the flow has format {parsed.format}; this version reads format {FORMAT}")
        try:
            tensors = load(weights)
        except Exception as error:
            said = re.sub(r"[^ -~]|[0-9A-Za-z/+=]{25,}", ".", str(error))[:200]
            raise ValueError(f"not a safetensors file: {said}") from None
        least = 8 * parsed.transforms * parsed.hidden**2  # two square matrices of float32 a transform
        if least > len(weights):
            raise ValueError(
                f"weights do not fit the specification: {parsed.transforms} transforms of {parsed.hidden} units need "
                f"{least:,} bytes or more, and there are {len(weights):,}"
            )
        net = maf.build(
            dimensions(parsed.amplitude), features.size(len(parsed.bands)), parsed.transforms, parsed.hidden, seed=0
        )
        expected = {f"network.{name}": tuple(value.shape) for name, value in net.state_dict().items()}
        n_bands, n_features = len(parsed.bands), features.size(len(parsed.bands))
        n_bins = tensors["noise.mean"].shape[-1] if "noise.mean" in tensors else 0
        shapes = expected | {f"features.{name}": (n_features,) for name in ("mean", "std")}
        shapes |= {f"noise.{name}": (n_bands, n_bins) for name in ("magnitude", "mean", "scatter")}
        shapes["colour_range"] = (n_bands - 1, 2)
        n_components = len(tensors["novelty.weight"]) if "novelty.weight" in tensors else 0
        shapes |= {"novelty.weight": (n_components,), "novelty.mean": (n_components, 2 * n_bands)}
        shapes["novelty.covariance"] = (n_components, 2 * n_bands, 2 * n_bands)
        shapes["novelty.limit"] = (n_bands - MINIMUM_BANDS + 1,)
        if missing := {*shapes, *(f"ssp.{n}" for n in _SSP_ARRAYS)} - set(tensors):
            raise ValueError(f"weights do not fit the specification: they lack {', '.join(sorted(missing)[:3])}")
        if extra := {name for name in tensors if name.startswith("network.")} - set(expected):
            raise ValueError(f"weights do not fit the specification: {', '.join(sorted(extra)[:3])} are not in it")
        for name, shape in shapes.items():
            if tuple(tensors[name].shape) != shape:
                raise ValueError(
                    f"weights do not fit the specification: {name} has shape {tuple(tensors[name].shape)}, not {shape}"
                )
            if not torch.isfinite(tensors[name]).all():
                raise ValueError(f"weights: {name} is not finite")
        _check_network(net, {name.removeprefix("network."): tensors[name] for name in expected})
        net.load_state_dict({name.removeprefix("network."): v for name, v in tensors.items() if name in expected})
        net.eval()
        mode: Literal["colours", "magnitudes"] = "colours" if parsed.amplitude == "exact" else "magnitudes"
        ssp = SSPTable(**{n: _numpy(tensors[f"ssp.{n}"]) for n in _SSP_ARRAYS}, provenance=parsed.ssp)
        return cls(
            parsed, net, Features(mode, tensors["features.mean"], tensors["features.std"]),
            NoiseModel(
                tensors["noise.magnitude"], tensors["noise.mean"], tensors["noise.scatter"],
                parsed.selection_band, parsed.selection,
            ),
            tensors["colour_range"], Novelty(*(tensors[f"novelty.{name}"] for name in _NOVELTY)), ssp,
        )  # fmt: skip


_NOVELTY = ("weight", "mean", "covariance", "limit")
_SSP_ARRAYS = ("edges", "age", "metallicity", "spectra", "surviving")


def dimensions(amplitude: Literal["exact", "learnt"]) -> int:
    """Dimensions of a flow: ten shapes, or all eleven coordinates."""
    return N_SHAPE if amplitude == "exact" else len(COORDINATES)


def _check_network(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Compare what a network's architecture fixes, and the types of its weights, with those of one of our making.

    Raises:
        ValueError: a mask, the degrees of units or the order of dimensions is none that training makes: used as sizes and
            indices, they could ask for any amount of memory.
    """
    fixed = {name for name, _ in net.named_buffers()}
    for name, ours in net.state_dict().items():
        found = tensors[name]
        if found.dtype != ours.dtype:
            raise ValueError(f"weights do not fit the specification: {name} is of type {found.dtype}, not {ours.dtype}")
        if name.endswith("_permutation"):
            found, ours = found.sort().values, torch.arange(len(ours))
        if name in fixed and not torch.equal(found, ours):
            raise ValueError(f"weights do not fit the specification: {name} is not that of a network of these sizes")


def _without_content(error: ValueError) -> str:
    """Say what is wrong with a specification without quoting it: the file may not be one, and hold anything."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    told = [(".".join(map(str, e["loc"])), e) for e in error.errors(include_url=False, include_context=False)]
    return "; ".join(
        f"{re.sub(r'[^a-z0-9_.]', '?', where)[:60]}: {_message(e)}".removeprefix(": ") for where, e in told[:5]
    )


def _message(error: Any) -> str:
    # Pydantic's own words hold no content but where a check of ours, which repeats numbers and names, raised the error.
    return re.sub(r"[0-9A-Za-z/+=]{25,}", "...", error["msg"])[:200]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()
