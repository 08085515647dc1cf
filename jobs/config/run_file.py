"""The run file: everything that a run depends on, typed; unknown keys are refused.

YAML in, `RunFile` out. Secrets never stand in a run file: storage libraries have their own credential chains.
"""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from cluster import yaml_files
from cluster.messages import problems
from cluster.settings import Engines, refuse_control_characters
from jobs.config.joining import Join
from jobs.config.learning import FlowSettings, Training
from jobs.config.sections import (
    SSP,
    Inference,
    Ingest,
    Model,
    Section,
    Simulation,
    Storage,
    Validation,
)
from sedflow_dist.flow.head_training import HeadSettings
from sedflow_dist.flow.likelihood_training import LikelihoodSettings
from sedflow_dist.inference.settings import refuse_amplitude
from sedflow_dist.photometry import surveys
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps import chosen_columns
from sedflow_dist.sps.filters import rest_range
from sedflow_dist.sps.ssp import GAS_TWICE, pixel_edges
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import without_secrets

#: Run files that come with the package.
SHIPPED_RUNS = Path(__file__).parents[1] / "runs"


class RunFile(Section):
    """A run."""

    name: str = Field(description="of the run, in its events, metrics and the name of a submitted job")
    root: str = Field(description="where its stores live: a path or s3://bucket/prefix")
    input: str | tuple[str, ...] = Field(
        description="one or several of: tables (docs/ingest.md), patterns such as sweeps/*.fits, HATS catalogs, "
        "Zarr groups, here or at a URL (docs/remote.md); kcorrect-sample is the demonstration's"
    )
    join: Join | None = Field(
        None, description="a table with columns that the input lacks, such as redshifts; keys below"
    )
    survey: surveys.NameOrSurvey = Field(
        "sdss", description=f"one of {', '.join(surveys.SURVEYS)}, or a survey declared here, with the keys below"
    )
    seed: int = Field(1, ge=0, description="of all random numbers: the same run file gives the same bits")
    storage: Storage = Storage()
    ingest: Ingest = Ingest()
    ssp: SSP = SSP()
    model: Model = Model()
    simulation: Simulation = Simulation()
    flow: FlowSettings = FlowSettings()
    training: Training = Training()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    photo_z: HeadSettings | None = Field(
        None,
        exclude_if=lambda head: head is None,
        description="what draws the redshifts of rows that have none, keys below; none: such rows have no answer",
    )
    inference: Inference = Inference()
    validation: Validation = Validation()
    engines: Engines = Field(Engines(), description="how much of them a run takes; where they are: docs/engines.md")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, content: Any) -> Any:
        refuse_control_characters(content)
        return content

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        """Workers have other working directories: a local root is made absolute where the run file is read."""
        return Location.parse(root).url

    @field_validator("input")
    @classmethod
    def _places(cls, source: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for entry in (source,) if isinstance(source, str) else source:
            Access().place(entry)
        return source

    @model_validator(mode="after")
    def _check_bands(self) -> RunFile:
        """Look at the bands where the run file is read, and not when workers have started."""
        edges = pixel_edges() if self.ssp.source in ("bc03", "fsps") else np.array([0.0, np.inf])
        survey = self.survey_definition
        rest_range(survey.bands, self.model.redshift[1], edges)
        try:
            chosen_columns.refuse_bands(
                self.inference, chosen_columns.OwnBands(survey.labels, survey.bands), self.model.redshift[1], edges
            )
        except ValueError as error:
            raise ValueError(f"inference.{error}") from None
        return self

    @model_validator(mode="after")
    def _check_gas(self) -> RunFile:
        if self.ssp.source == "fsps" and self.ssp.nebular and "nebular" in self.model.components:
            raise ValueError(GAS_TWICE)
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> RunFile:
        """Labels that the training names are the survey's, each once."""
        labels, training = self.survey_definition.labels, self.training
        told = {"training.instruments": [*chain(*training.instruments)], "training.depth": [*training.depth]}
        if training.selection and (untold := [label for label in labels if label not in training.depth]):
            raise ValueError(f"training.selection: of a noise that is told, training.depth lacks {', '.join(untold)}")
        if not isinstance(self.validation.patterns, int):
            told |= {f"validation.patterns[{i}]": [*one] for i, one in enumerate(self.validation.patterns)}
        for key, named in told.items():
            if wrong := [name for name in named if name not in labels or named.count(name) > 1]:
                raise ValueError(f"{key}: {wrong[0]!r} is none of the bands {', '.join(labels)}, or named twice")
            if key.startswith("validation") and len(named) < MINIMUM_BANDS:
                raise ValueError(f"{key}: {len(named)} bands; at least {MINIMUM_BANDS} are needed")
        return self

    @model_validator(mode="after")
    def _check_redshifts(self) -> RunFile:
        """Redshifts are given, or there is a head that infers them: said before days of training, not after."""
        without = self.ingest.named(self.survey_definition).without_redshifts
        if without and self.training.steps and not self.photo_z:
            raise ValueError(
                "no row has a redshift: infer them (photo_z: {}, docs/photo-z.md), or name a column of them, "
                "ingest: {redshift: NAME}"
            )
        return self

    @model_validator(mode="after")
    def _check_certificate(self) -> RunFile:
        refuse_amplitude(self.inference.certificate, self.flow.amplitude)
        return self

    @property
    def location(self) -> Location:
        """The run's root."""
        return Location.parse(self.root, **self.storage.model_dump(exclude={"inputs"}))

    def store(self, name: str) -> Location:
        """Return the place of one of the run's stores."""
        return self.location / name

    @property
    def learning_rate(self) -> float:
        """The training's peak learning rate: small flows bear, and need, a large one."""
        return self.training.learning_rate or (1e-3 if self.flow.preset == "paper" else 8e-3)

    @property
    def survey_definition(self) -> Survey:
        """The survey, by name or as declared in the run file."""
        return surveys.get(self.survey)

    @classmethod
    def load(cls, path: str | Path, engines: str | Path | None = None, **changes: Any) -> RunFile:
        """Read a run file (a path, or the name of one that comes with the package); ``changes`` replace top-level keys.

        ``engines`` is the profile that says where they are, chosen by who runs: a run file cannot (`Engines.of_run`). What
        it has of Ray and of Dask replaces the run file's sizes.

        Raises:
            ValueError: the file is not a run file; says which key is wrong and what is allowed.
        """
        file = Path(path)
        if not file.is_file():
            shipped = SHIPPED_RUNS / f"{path}.yaml"
            if not shipped.exists():
                names = ", ".join(sorted(p.stem for p in SHIPPED_RUNS.glob("*.yaml")))
                raise ValueError(f"no run file {path}; those that come with the package are {names}")
            file = shipped
        content = yaml_files.read(file)
        if not isinstance(content, dict):
            raise ValueError(f"{file} holds no keys; a run file needs at least name, root and input")
        profile = Engines.load(engines) if engines else None
        content |= {k: v for k, v in changes.items() if v is not None}
        try:
            refuse_control_characters(content)
            engines_of_run = Engines.of_run(content.get("engines")).replaced(profile)
            return cls.model_validate({**content, "engines": engines_of_run}, context={"folder": file.parent})
        except ValidationError as error:
            raise ValueError(
                f"{file} is not a valid run file:\n{without_secrets(problems(error, model=cls))}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{file} is not a valid run file:\n{without_secrets(str(error))}") from None


def is_named(text: str) -> bool:
    """Whether what a command was given is the name of a run file, by its ending."""
    return text.endswith((".yaml", ".yml"))


def survey(name_or_file: str) -> Survey:
    """Return a survey by its name, or as a file says it: the first of `reading`."""
    return reading(name_or_file)[0]


def reading(name_or_file: str) -> tuple[Survey, Join | None]:
    """Return a survey by its name, or as a file (``*.yaml``) says it, and what that file joins to the input.

    The file is a run file, or has nothing but a run file's sections that say how a table is read: survey, ingest and join.
    """
    if not is_named(name_or_file):
        return surveys.get(name_or_file), None
    file = Path(name_or_file)
    if not file.is_file():
        raise ValueError(f"--survey: there is no file {name_or_file}; surveys by name are {', '.join(surveys.SURVEYS)}")
    content = yaml_files.read(file)
    is_part = isinstance(content, dict) and "survey" in content and set(content) <= {"survey", "ingest", "join"}
    run = RunFile.load(file, **dict.fromkeys(("name", "root", "input") if is_part else (), "."))
    return run.ingest.named(run.survey_definition), run.join


def fingerprint(*parts: Any) -> str:
    """Return a hash of settings: plain values, pydantic models and strings."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
