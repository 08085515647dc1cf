"""Whether a model can answer photometry as asked: refused before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.config import shipped
from jobs.config.sections import Inference
from jobs.on_worker import read_likelihood
from sedflow_dist import curves
from sedflow_dist.curves import Curve
from sedflow_dist.flow import model_spec
from sedflow_dist.flow.model_spec import ModelSpec
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.settings import MASS_FUNCTION, TargetPrior, refuse_amplitude
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps import chosen_columns
from storage_schemas import model as model_store
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

#: In the place of a mass function: the usual one where redshifts are inferred; the flat prior of the training.
AUTO, NONE = "auto", "none"


def check(store: ChunkedStore, flow: TrainedModel, model: Location) -> None:
    """Raise ValueError unless the photometry is finished and has the model's bands."""
    if missing := store.missing():
        raise ValueError(
            f"photometry {store.location} lacks {len(missing)} of {store.n_chunks} chunks: run ingest again"
        )
    survey: Mapping[str, Any] = store.group.attrs["settings"]["survey"]  # type: ignore[index, call-overload, assignment]
    what = f"photometry {store.location}"
    _check_bands(what, curves.of_json(survey["bands"]), flow.spec, model)
    _check_redshifts(what, survey.get("without_redshifts", False), flow.spec, model)


def check_survey(survey: Survey, model: Location, settings: Inference) -> None:
    """Raise ValueError unless a model can answer a survey's photometry as asked; by its specification, before any is read."""
    spec = model_spec.parse(model_store.read_spec(model))
    refuse_amplitude(settings.certificate, spec.amplitude)
    if settings.learned_likelihood:
        read_likelihood(model)
    _check_bands(f"survey {survey.name}", survey.bands, spec, model)
    _check_redshifts(f"survey {survey.name}", survey.without_redshifts, spec, model)


def of_redshifts(model: Location, mass_function: str) -> dict[str, Any]:
    """Return the settings of inference that concern redshifts which a model infers, under a mass function.

    `auto`: the usual one if it infers any; `none`: no other prior than the training's. Of a model that infers none, masses alone.
    """
    infers = model_spec.parse(model_store.read_spec(model)).head is not None
    if mass_function == NONE or (mass_function == AUTO and not infers):
        return {"redshift_peaks": infers}
    prior = TargetPrior.of_galaxies(MASS_FUNCTION if mass_function == AUTO else mass_function)
    return {"redshift_peaks": infers, "prior": prior if infers else prior.model_copy(update={"redshift": None})}


def check_columns(flow: TrainedModel, settings: Inference) -> None:
    """Raise ValueError, with the numbers, unless a model reaches as far as the columns that are chosen."""
    try:
        own = chosen_columns.OwnBands(flow.spec.labels, flow.spec.bands)
        chosen_columns.refuse(settings, own, flow.reach, flow.ssp_table.edges)
    except ValueError as error:
        raise ValueError(f"inference.{error}") from None


def _check_redshifts(what: str, without: bool, spec: ModelSpec, model: Location) -> None:
    if without and spec.head is None:
        raise ValueError(
            f"{what} has no redshifts, and model {model} infers none (it has no redshift head: photo_z in a run file): name a "
            "column of redshifts with --redshift, or `ingest: {redshift: NAME}` in a run file"
        )


def _check_bands(what: str, bands: Sequence[str | Curve], spec: ModelSpec, model: Location) -> None:
    seen, trained = curves.names(bands), curves.names(spec.bands)
    if seen != trained:
        raise ValueError(
            f"{what} has bands {', '.join(seen)}; model {model} was trained on {', '.join(trained)}. {shipped.serving(seen)}"
        )
