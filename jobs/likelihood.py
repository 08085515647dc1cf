"""learn-likelihood: a trained model in, its learned likelihood of imperfect data out, beside the model. One process, minutes."""

from __future__ import annotations

import torch

from jobs.config.run_file import RunFile, fingerprint
from jobs.on_worker import read_likelihood
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist.flow import likelihood_training
from sedflow_dist.flow.trained_model import TrainedModel
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location


@events.job("learn-likelihood")
def learn_likelihood(run: RunFile, model: Location | None = None) -> Location:
    """Train the learned likelihood of the run's model, or of another one, as the run file says; return where it is.

    Raises:
        FileNotFoundError: there is no finished model.
        ValueError: another likelihood is there, of other settings or for another model.
    """
    where = model or run.store("model")
    out = model_store.likelihood_of(where)
    flow = TrainedModel.from_bytes(*model_store.read(where))
    key = fingerprint(run.likelihood, run.seed, flow.id)
    if model_store.is_finished(out):
        if read_likelihood(where).spec.training.get("key") != key:
            raise ValueError(f"{out} was trained with other settings or for another model; remove it to train anew")
        say("learn-likelihood", f"the learned likelihood is there already: {out}")
        return out
    torch.set_num_threads(run.training.threads)
    clock, settings = Clock(), run.likelihood
    with model_store.writing(out) as lease:
        with bar("learn-likelihood", settings.steps, "steps") as progress:
            made = likelihood_training.train(flow, settings, run.seed, progress.update)
        made = made.noting(key=key)
        lease.check()
        model_store.write(out, *made.to_bytes())
    best = made.spec.training["best"]
    say("learn-likelihood", f"validation log-probability {best:.3f} after {settings.steps:,} steps, {clock.seconds:.0f} s; "
        f"likelihood {made.id}: {out}")  # fmt: skip
    return out
