"""A trained model: a flow with everything needed to use it alone: features, noise, support and galaxy model.

On disk: tensors (safetensors) and a JSON specification; never a pickle. The model's id is a hash of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from safetensors.torch import load, save
from torch import Tensor, nn

from sedflow_dist.flow import conditional_flow, features
from sedflow_dist.flow.conditional_flow import ConditionalFlow
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.support import Novelty
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.quantities import Quantity
from sedflow_dist.sps import derived, filters
from sedflow_dist.sps.components import PROVABGS, Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import SSPTable

if TYPE_CHECKING:
    from sbi.inference.posteriors import DirectPosterior

FORMAT = 2
#: Redshift up to which a model keeps the wavelengths of its SSP table, if that is beyond the trained range.
FAR = 0.6
_NOISE = ("magnitude", "mean", "scatter")
_NOVELTY = ("weight", "mean", "covariance", "limit")
_SSP = ("edges", "age", "metallicity", "spectra", "surviving")


class FlowSpec(BaseModel):
    """Which flow: a family's name and what that family needs to know to build it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> FlowSpec:
        self.parsed()
        return self

    def parsed(self) -> BaseModel:
        """Return the settings as the family's own."""
        return conditional_flow.family(self.family).Settings.model_validate(self.settings)

    def n_weights(self, dimensions: int, features: int) -> int:
        """Return the number of its parameters, without building it."""
        return conditional_flow.family(self.family).n_weights(dimensions, features, self.parsed())

    def build(self, dimensions: int, features: int, seed: int) -> ConditionalFlow:
        """Return a new flow, its weights drawn from ``seed``."""
        return conditional_flow.build(self.family, self.settings, dimensions, features, seed)


class ModelSpec(BaseModel):
    """What a model was trained for; stored as JSON beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    bands: tuple[str, ...] = Field(max_length=1000, description="speclite names, in the order of the features")
    labels: tuple[str, ...]
    amplitude: Literal["exact", "learnt"] = Field(
        description="exact: ten shape dimensions; learnt: eleven, as the paper"
    )
    flow: FlowSpec
    features: tuple[str, ...] = Field(description="encoders, in the order of their columns")
    redshift: tuple[float, float] = Field(description="trained range")
    birth_cloud_age: float = Field(description="Gyr")
    selection_band: int
    selection: tuple[float, float] = Field(description="observed magnitudes in the selection band")
    components: tuple[str, ...] = Field(PROVABGS, description="sources and screens of the galaxy model")
    prior: dict[str, tuple[float, float] | dict[str, Any]]
    ssp: dict[str, Any] = Field(description="provenance of the SSP table")
    training: dict[str, Any] = Field(default_factory=dict, description="settings and result of the training")

    @field_validator("features")
    @classmethod
    def _check_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        features.encoders(names)
        return names

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if len(self.labels) != len(self.bands):
            raise ValueError(f"labels: {len(self.labels)} for {len(self.bands)} bands")
        if not 0 <= self.selection_band < len(self.bands):
            raise ValueError(f"selection_band {self.selection_band} is none of {len(self.bands)} bands")
        if not 0 <= self.redshift[0] < self.redshift[1]:
            raise ValueError(f"redshift range {self.redshift} is not increasing")
        self.composition()
        return self

    def composition(self) -> Composition:
        """Return what a galaxy is made of, and its parameters with their priors."""
        return Composition.of(self.components, self.prior)

    @property
    def dimensions(self) -> int:
        """Dimensions of its flow."""
        return dimensions(self.amplitude, self.composition().space)

    @property
    def n_features(self) -> int:
        """Number of its features."""
        return features.size(self.features, len(self.bands))

    def build_flow(self, seed: int) -> ConditionalFlow:
        """Return an untrained flow of this specification."""
        return self.flow.build(self.dimensions, self.n_features, seed)


class TrainedModel(nn.Module):
    """A flow q(phi | photometry, redshift) in probit space, and all that its answers need.

    A module without parameters of its own: every tensor is in its `state_dict`, under the name it is stored by, and `to` moves
    all of them to a device. What follows from tensors (the galaxy model) is made anew there.

    Args:
        spec: what it was trained for
        network: the density estimator
        features, noise: as fitted to the training data
        colour_range: 0.05 and 99.95 % of the training data's colours of neighbouring bands, shape (band - 1, 2) [mag]
        novelty: how unlikely a galaxy is among the training data
        ssp: the SSP table of its galaxy model
    """

    colour_range: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        network: ConditionalFlow,
        features: Features,
        noise: NoiseModel,
        colour_range: Tensor,
        novelty: Novelty,
        ssp: SSPTable,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.network, self.features, self.noise, self.novelty = network, features, noise, novelty
        self.register_buffer("colour_range", colour_range)
        self.ssp = _Tensors({name: torch.as_tensor(getattr(ssp, name)) for name in _SSP})
        self.eval()

    @property
    def dimensions(self) -> int:
        """All shape coordinates, with an amplitude that is learnt one more."""
        return self.spec.dimensions

    @cached_property
    def composition(self) -> Composition:
        """What a galaxy is made of."""
        return self.spec.composition()

    @property
    def space(self) -> ParameterSpace:
        """Its parameters, with the priors that the flow was trained under."""
        return self.composition.space

    def columns(self, certificate: bool = True) -> tuple[Quantity, ...]:
        """Everything that is summarised of a galaxy: parameters, then (with the certificate) derived properties."""
        return derived.columns(self.space, self.spec.labels, certificate)

    @cached_property
    def ssp_table(self) -> SSPTable:
        """The SSP table of its galaxy model."""
        return SSPTable(**{name: _numpy(value) for name, value in self.ssp.named_buffers()}, provenance=self.spec.ssp)

    @cached_property
    def redshift_model(self) -> RedshiftModel:
        """The galaxy model for many draws at one redshift."""
        spec = self.spec
        model = GalaxyModel(self.ssp_table, spec.bands, self.reach, self.composition, spec.birth_cloud_age)
        return RedshiftModel(model)

    @cached_property
    def reach(self) -> float:
        """The redshift up to which its galaxy model serves, and with it the weights of draws: beyond the trained range."""
        return reach(self.spec.bands, self.spec.redshift, self.ssp_table)

    @cached_property
    def id(self) -> str:
        """Hash of weights and specification: the same id gives the same answers."""
        weights, spec = self.to_bytes()
        return hashlib.sha256(weights + spec).hexdigest()[:16]

    def to_sbi(self) -> DirectPosterior:
        """Return an sbi posterior over probit space, conditioned on `features`; prior N(0, I).

        Raises:
            ValueError: the flow's family has no form that sbi knows.
        """
        from sbi.inference.posteriors import DirectPosterior

        prior = torch.distributions.MultivariateNormal(torch.zeros(self.dimensions), torch.eye(self.dimensions))
        return DirectPosterior(self.network.to_sbi(), prior)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainedModel:
        """Forget what was made of the tensors before they move."""
        for name in ("ssp_table", "redshift_model"):
            self.__dict__.pop(name, None)
        return super()._apply(fn, recurse)

    # -- to and from bytes ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return safetensors and JSON: the same model gives the same bytes, wherever it is."""
        tensors = {name: value.cpu().contiguous() for name, value in sorted(self.state_dict().items())}
        return save(tensors), json.dumps(self.spec.model_dump(mode="json"), indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, weights: bytes, spec: bytes, device: torch.device | str = "cpu") -> Self:
        """Load a model, to a device.

        Raises:
            ValueError: the bytes are not a model of this format; says what was found.
        """
        parsed = _parse(spec)
        try:
            tensors = load(weights)
        except Exception as error:
            raise ValueError(f"not a safetensors file: {error}") from error
        least = 4 * parsed.flow.n_weights(parsed.dimensions, parsed.n_features)  # float32
        if least > len(weights):
            raise ValueError(
                f"weights do not fit the specification: a flow of {parsed.flow.settings} needs {least:,} bytes or more, "
                f"and there are {len(weights):,}"
            )
        network = parsed.build_flow(seed=0)
        _check(tensors, _shapes(parsed, network, tensors))
        network.load_state_dict(_part(tensors, "network"))
        ssp = SSPTable(**{name: _numpy(value) for name, value in _part(tensors, "ssp").items()}, provenance=parsed.ssp)
        model = cls(
            parsed, network, Features(parsed.features, **_part(tensors, "features")),
            NoiseModel(
                **_part(tensors, "noise"), selection_band=parsed.selection_band, selection=parsed.selection
            ),
            tensors["colour_range"], Novelty(**_part(tensors, "novelty")), ssp,
        )  # fmt: skip
        return model.to(device)


def dimensions(amplitude: Literal["exact", "learnt"], space: ParameterSpace) -> int:
    """Dimensions of a flow: the shapes' coordinates, or all."""
    return len(space.shapes if amplitude == "exact" else space.coordinates)


def reach(bands: Sequence[str], redshift: tuple[float, float], ssp: SSPTable) -> float:
    """Return the redshift up to which a model keeps and uses its SSP table: as far as bands and table let it, up to `FAR`."""
    return max(min(FAR, filters.reach(bands, ssp.edges)), redshift[1])


class _Tensors(nn.Module):
    """Some buffers by name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def _parse(spec: bytes) -> ModelSpec:
    """Return the specification; a ValueError says what is wrong with it."""
    try:
        content = json.loads(spec)
        found = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
        if found == FORMAT:
            return ModelSpec.model_validate_json(spec)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not the specification of a flow (format {FORMAT}): {error}") from error
    raise ValueError(f"the flow has format {found}; this version reads format {FORMAT}")


def _shapes(spec: ModelSpec, network: ConditionalFlow, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor but those of the SSP table, whose own class looks at them."""
    n_bands = len(spec.bands)
    n_bins = tensors["noise.mean"].shape[-1] if "noise.mean" in tensors and tensors["noise.mean"].ndim else 0
    n_components = (
        len(tensors["novelty.weight"]) if "novelty.weight" in tensors and tensors["novelty.weight"].ndim else 0
    )
    return {
        **{f"network.{name}": tuple(value.shape) for name, value in network.state_dict().items()},
        **{f"features.{name}": (spec.n_features,) for name in ("mean", "std")},
        **{f"noise.{name}": (n_bands, n_bins) for name in _NOISE},
        "colour_range": (n_bands - 1, 2),
        "novelty.weight": (n_components,), "novelty.mean": (n_components, 2 * n_bands),
        "novelty.covariance": (n_components, 2 * n_bands, 2 * n_bands),
        "novelty.limit": (n_bands - MINIMUM_BANDS + 1,),
    }  # fmt: skip


def _check(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a tensor is missing, is not known, has another shape or is not finite."""
    expected = {*shapes, *(f"ssp.{name}" for name in _SSP)}
    if missing := expected - set(tensors):
        raise ValueError(f"weights do not fit the specification: they lack {', '.join(sorted(missing)[:3])}")
    if extra := set(tensors) - expected:
        raise ValueError(f"weights do not fit the specification: {', '.join(sorted(extra)[:3])} are not in it")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"weights do not fit the specification: {name} has shape {tuple(tensors[name].shape)}, not {shape}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"weights: {name} is not finite")


def _part(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """Return the tensors of one module by their names in it."""
    return {name.removeprefix(f"{module}."): value for name, value in tensors.items() if name.startswith(f"{module}.")}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
