"""What a worker loads once and keeps: the model of a job, its learned likelihood, and what infers rows with them."""

from __future__ import annotations

from functools import lru_cache

import torch

from jobs.config.sections import Inference
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.cascade import Router
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

#: Models that a worker keeps: one is in use, and one comes when a release changes it. A cluster that runs for months sees many,
#: and each has tables of a hundred megabytes.
KEPT = 2


@lru_cache(KEPT)
def load_on_worker(model: Location, model_id: str) -> TrainedModel:
    """Load the model of a job, once, on a worker, which computes with one thread and may outlive the model at a location.

    Raises:
        ValueError: the model at ``model`` is not the one that the job started with.
    """
    torch.set_num_threads(1)
    flow = TrainedModel.from_bytes(*model_store.read(model))
    if flow.id != model_id:
        raise ValueError(f"{model} holds model {flow.id}; the job started with {model_id}: it was replaced meanwhile")
    return flow


@lru_cache(KEPT)
def router(model: Location, model_id: str, seed: int, settings: Inference, likelihood_id: str = "") -> Router:
    """Return what infers rows on this worker; ``likelihood_id``: of the learned likelihood, where evidences are compared.

    Raises:
        ValueError: model or likelihood are not those that the job started with.
    """
    flow, likelihood = load_on_worker(model, model_id), None
    if settings.learned_likelihood:
        likelihood = read_likelihood(model)
        if likelihood.id != likelihood_id:
            raise ValueError(
                f"{model} has the learned likelihood {likelihood.id}; the job started with {likelihood_id}: it was replaced "
                "meanwhile"
            )
    return Router.of(flow, seed, settings, likelihood)


def read_likelihood(model: Location) -> LearnedLikelihood:
    """Load the learned likelihood of the model at a location.

    Raises:
        FileNotFoundError: it has none; says how to make it.
        ValueError: what is there is none of this version.
    """
    where = model_store.likelihood_of(model)
    if not model_store.is_finished(where):
        raise FileNotFoundError(
            f"inference.learned_likelihood: the model {model} has no learned likelihood; `sedflow learn-likelihood RUN` makes it"
        )
    try:
        return LearnedLikelihood.from_bytes(*model_store.read(where))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
