"""The sections of a run file that say what is trained, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from jobs.config.sections import Section
from sedflow_dist.flow import features
from sedflow_dist.flow.model_spec import FlowSpec


class FlowSettings(Section):
    """The density estimator. ``paper``: eleven dimensions, magnitudes, 15 blocks of 2 x 500 units."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="default: the flow draws all but the mass, which is drawn exactly; paper: it draws all, from magnitudes",
    )
    family: str = Field("maf", description="kind of flow: maf, sbi's masked autoregressive flow")
    transforms: int | None = Field(None, ge=1, description="of maf: blocks; none: the preset's")
    hidden: int | None = Field(None, ge=10, description="of maf: tanh units in each of two layers; none: the preset's")
    embedding: tuple[int, ...] | None = Field(
        None,
        description="of maf: SiLU units in each layer of a network that looks at the features once a galaxy, as [256, 256, 64], "
        "for surveys with many sets of bands; none: the blocks see the features alone",
    )
    settings: dict[str, Any] = Field({}, description="of another family: its own, by name")
    features: tuple[str, ...] | None = Field(
        None,
        description="encoders of what it is conditioned on; none: colours, relative_uncertainties, measured and redshift, of the "
        "preset paper magnitudes and uncertainties; log_colours serves bands whose fluxes differ by orders of magnitude",
    )

    @property
    def encoders(self) -> tuple[str, ...]:
        """The features, by their encoders."""
        return self.features or features.preset(self.amplitude)

    @property
    def amplitude(self) -> Literal["exact", "learnt"]:
        """Whether the amplitude is drawn exactly or learnt by the flow."""
        return "learnt" if self.preset == "paper" else "exact"

    def spec(self) -> FlowSpec:
        """Return which flow that is, all its settings resolved."""
        if self.family != "maf":
            return FlowSpec(family=self.family, settings=self.settings)
        transforms, hidden = (15, 500) if self.preset == "paper" else (5, 128)
        settings: dict[str, Any] = {"transforms": self.transforms or transforms, "hidden": self.hidden or hidden}
        if self.embedding:
            settings["embedding"] = list(self.embedding)
        return FlowSpec(family=self.family, settings=settings)

    @model_validator(mode="after")
    def _check(self) -> FlowSettings:
        self.spec()
        features.encoders(self.encoders)
        of_maf = {"transforms": self.transforms, "hidden": self.hidden, "embedding": self.embedding}
        own = of_maf if self.family != "maf" else self.settings
        if unused := [name for name, value in own.items() if value is not None]:
            raise ValueError(f"flow: {', '.join(unused)} cannot be set for the family {self.family}")
        return self


class Training(Section):
    """The optimisation: Adam, warm-up, half a cosine."""

    steps: int = Field(
        10_000,
        ge=0,
        description="of the optimiser, at most; 0: the model of `start` as it is, to give it a redshift head",
    )
    batch: int = Field(1024, ge=2, description="mock galaxies a step, over all workers")
    learning_rate: float | None = Field(None, gt=0, description="its peak; none: 0.008, and 0.001 for the preset paper")
    warm_up: int = Field(100, ge=1, description="steps")
    drop_out: float = Field(0.15, ge=0, le=1, description="fraction of mock galaxies with missing bands")
    instruments: tuple[tuple[str, ...], ...] = Field(
        (),
        description="labels of bands that one instrument observes, as [[fuv, nuv], [j, h, ks]]: half of the galaxies with missing "
        "bands then lack whole instruments; none: any bands alike",
    )
    depth: dict[str, float] = Field(
        default_factory=dict,
        description="AB magnitude of 5 sigma, by label, of bands whose noise is not that of the input, which may lack them",
    )
    selection: tuple[float, float] | None = Field(
        None,
        description="brightest and faintest observed magnitude, in the survey's selection_band, of galaxies to train on; with the "
        "depth of all bands training needs no input; none: as the input's",
    )
    shallower: float = Field(
        0.0,
        ge=0,
        le=10,
        description="by how many magnitudes galaxies may be observed less deeply than `depth`, all bands of one alike",
    )
    start: str | None = Field(
        None,
        description="a model, by name or location, whose weights are the first: of the same flow, features, bands and prior, whose "
        "noise or redshifts differ, or that is to be trained for longer",
    )
    held_out: float = Field(0.02, gt=0, lt=1, description="fraction of the training set kept for validation")
    validation_galaxies: int = Field(8192, ge=16, description="held-out mock galaxies of each validation")
    validate_every: int = Field(500, ge=1, description="steps between validations, each with a checkpoint")
    patience: int = Field(20, ge=1, description="stop after as many validations without a better one")
    workers: int = Field(1, ge=1, description="data-parallel workers of Ray Train")
    threads: int = Field(2, ge=1, description="cores a worker")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products in the training step; auto: bfloat16 where the processor has it"
    )

    @model_validator(mode="after")
    def _check(self) -> Training:
        if self.steps == 0 and self.start is None:
            raise ValueError("steps: 0 is the model of `start` as it is, and there is none")
        if self.shallower and not self.selection:
            raise ValueError("shallower belongs to a noise that is told: depth and selection")
        if self.selection and self.selection[0] >= self.selection[1]:
            raise ValueError(f"selection {self.selection}: the brightest magnitude comes first")
        return self
