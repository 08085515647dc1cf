"""Models and run files that come with the package: a name in, a location out; and which of them serve which bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.config.run_file import SHIPPED_RUNS, RunFile
from sedflow_dist.flow import model_spec, shipped
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

names = shipped.names


def model(name_or_url: str) -> Location:
    """Return where a model is: one that comes with the package by its name, any other by its path or URL.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    where = Location.parse(shipped.resolve(name_or_url))
    if where.is_local and not Path(where.url).is_dir():
        raise FileNotFoundError(
            f"no model {name_or_url}: it is a folder, an s3:// URL, or one that comes along: {', '.join(names())}"
        )
    return where


def serving(bands: Sequence[str]) -> str:
    """Say which model that comes along, or which run file, serves photometry in these bands."""
    wanted = list(map(str, bands))
    for name in names():
        if list(map(str, model_spec.parse(model_store.read(model(name))[1]).bands)) == wanted:
            return f"The model {name}, which comes along, has these bands: --model {name}"
    for path in sorted(SHIPPED_RUNS.glob("*.yaml")):
        if list(map(str, RunFile.load(path).survey_definition.bands)) == wanted:
            return (
                f"The run file {path.stem}, which comes along, trains a model for these bands: copy {path}, put your input into "
                "it, and `sedflow run` it"
            )
    return "No model that comes along has these bands: write a run file with this survey, and `sedflow run` trains one"
