"""The target prior of a run, looked at before any row is inferred: a model and settings in, what it is said or refused."""

from __future__ import annotations

from jobs.telemetry.progress import say
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.reweight import LEAST_EFFECTIVE_DRAWS, NewPrior
from sedflow_dist.inference.settings import InferenceSettings


def check(flow: TrainedModel, settings: InferenceSettings, seed: int) -> None:
    """Say what the target prior is, where there is one, and what it has in common with the model's.

    Raises:
        ValueError: it names columns that there are not, or that cannot be replaced together, or lies where the interim prior
            has next to no draws: every row would be without an answer.
    """
    prior = NewPrior.of(settings.prior, flow, seed)
    if prior is None:
        return
    low, high = flow.spec.redshift
    middle = 0.5 * (low + high)
    effective, total = prior.overlap(middle), prior.steps.n
    for line in prior.describe():
        say("infer", f"target prior: {line}")
    if effective < LEAST_EFFECTIVE_DRAWS:
        raise ValueError(
            f"inference.prior: of {total:,} draws of the model's own prior at redshift {middle:.2g} the target prior leaves "
            f"{effective:.1f} effective ones; it needs {LEAST_EFFECTIVE_DRAWS:.0f}. It lies where the model's prior is not: "
            "train under a prior that covers it (docs/priors.md)"
        )
    say("infer", f"target prior: {effective:,.0f} of {total:,} draws of the model's own prior are effective under it")
