"""The specification of a trained model: what it was trained for, as JSON beside its weights."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sedflow_dist.curves import Curve
from sedflow_dist.flow import conditional_flow, features
from sedflow_dist.flow.conditional_flow import ConditionalFlow
from sedflow_dist.flow.redshift_head import HeadSpec
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.sps.components import PROVABGS, Composition

FORMAT = 2
#: Beyond, nothing was ever seen that a model could be of.
FARTHEST = 30.0


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
    bands: tuple[str | Curve, ...] = Field(
        max_length=1000, description="speclite names, or curves as they were, in the order of the features"
    )
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
    shallower: float = Field(
        0.0,
        ge=0,
        le=10,
        exclude_if=lambda none: none == 0,
        description="by how much galaxies may be observed less deeply than the noise's tables say [mag]",
    )
    band_sets: tuple[tuple[int, ...], ...] = Field(
        (),
        exclude_if=lambda sets: not sets,
        description="bands that a galaxy may have together, one set for each footprint; none: all of them",
    )
    components: tuple[str, ...] = Field(PROVABGS, description="sources and screens of the galaxy model")
    head: HeadSpec | None = Field(
        None, exclude_if=lambda head: head is None, description="the redshift head of a model that infers redshifts"
    )
    prior: dict[str, float | tuple[float, float] | dict[str, Any]]
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
        if wrong := [i for bands in self.band_sets for i in bands if not 0 <= i < len(self.bands)]:
            raise ValueError(f"band_sets: {wrong[0]} is none of {len(self.bands)} bands")
        if not 0 <= self.redshift[0] < self.redshift[1]:
            raise ValueError(f"redshift range {self.redshift} is not increasing")
        if self.redshift[1] > FARTHEST or not 0 < self.birth_cloud_age < math.inf:
            raise ValueError(f"redshift up to {FARTHEST}, and birth_cloud_age above 0, are possible")
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


def dimensions(amplitude: Literal["exact", "learnt"], space: ParameterSpace) -> int:
    """Dimensions of a flow: the shapes' coordinates, or all."""
    return len(space.shapes if amplitude == "exact" else space.coordinates)


def parse(spec: bytes) -> ModelSpec:
    """Return a specification.

    Raises:
        ValueError: it is none, or of another format; says what is wrong, and quotes nothing that could be a secret.
    """
    try:
        content = json.loads(spec)
        found = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
        if found == FORMAT:
            return ModelSpec.model_validate_json(spec)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not the specification of a flow (format {FORMAT}): {_without_content(error)}") from None
    raise ValueError(f"the flow has format {str(found)[:20]}; this version reads format {FORMAT}")


def _without_content(error: Exception) -> str:
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
