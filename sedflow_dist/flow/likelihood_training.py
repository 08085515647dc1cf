"""Training a learned likelihood: a trained model in, mock galaxies of it gone wrong, a learned likelihood out.

Only imperfect galaxies are learnt from: the clean ones' density is known, N(0, I), and so is the share. Everything random is
keyed by (seed, step), so the same settings give the same weights on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow import training
from sedflow_dist.flow.features import COLOURS, Features
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood, LikelihoodSpec
from sedflow_dist.flow.maf_residuals import ResidualSettings
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.imperfections import ImperfectGalaxies, Imperfections, Kind, other_dust
from sedflow_dist.simulation.shapes import Shapes

_FIRST = 20_000  # mock galaxies, on which features are standardised
_FARTHEST = 50.0  # sigma: data beyond need no likelihood to be found, and would be all that is learnt from


class LikelihoodSettings(BaseModel):
    """The learned likelihood of data that may be imperfect, where `inference.learned_likelihood` asks for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(0.05, gt=0, lt=1, description="share of galaxies taken to be imperfect")
    imperfections: Imperfections = Imperfections()
    transforms: int = Field(4, ge=1, le=100, description="blocks of its flow, a masked autoregressive one")
    hidden: int = Field(32, ge=2, le=4096, description="tanh units in each of two layers")
    n_galaxies: int = Field(100_000, ge=1000, description="simulated galaxies")
    steps: int = Field(4000, ge=1, description="of the optimiser")
    batch: int = Field(1024, ge=2, description="mock galaxies a step")
    learning_rate: float = Field(0.004, gt=0, description="its peak")
    warm_up: int = Field(100, ge=1, description="steps")
    drop_out: float = Field(0.25, ge=0, le=1, description="fraction of mock galaxies with missing bands")


class Examples:
    """Imperfect mock galaxies of a trained model, as many as are asked for."""

    def __init__(self, model: TrainedModel, settings: LikelihoodSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        galaxies = model.redshift_model.model
        other = other_dust(galaxies, settings.imperfections.dust)
        n, redshift = settings.n_galaxies, model.spec.redshift
        self._galaxies = ImperfectGalaxies.draw(galaxies, other, redshift, seed, "imperfect", n)
        self._survey = model.survey(settings.drop_out)

    @property
    def shapes(self) -> Shapes:
        """The galaxies as the model has them."""
        return self._galaxies.shapes

    def draw(self, n: int, *names: object) -> tuple[Photometry, Float[Tensor, "galaxy band"]]:
        """Return what the model says of ``n`` galaxies, and residuals of the data; ``names`` key the random numbers.

        Galaxies with a residual beyond 50 sigma are left out, so that there are a few less.
        """
        generator = torch.Generator().manual_seed(keyed_random.torch_seed(self.seed, "imperfect", *names))
        mocks = self._survey.observe(self.shapes, n, generator)
        kind = torch.randint(len(Kind), (n,), generator=generator)
        residual = self._galaxies.residuals(mocks, kind, self.settings.imperfections, generator)
        near = (residual.nan_to_num(nan=0.0).abs() <= _FARTHEST).all(1)
        return self._galaxies.truth(mocks)[near], residual[near]


@dataclass(frozen=True)
class _Batches:
    """Examples as the flow of residuals sees them."""

    examples: Examples
    features: Features

    def draw(
        self, shapes: Shapes, n: int, *names: object
    ) -> tuple[Float[Tensor, "galaxy band"], Float[Tensor, "galaxy feature"]]:
        """Return residuals and features of the examples' own galaxies; of ``names`` the first two count: there is one worker."""
        truth, residual = self.examples.draw(n, *names[:2])
        return residual, self.features(truth)


def train(
    model: TrainedModel, settings: LikelihoodSettings, seed: int, told: Callable[[int], None] = lambda _: None
) -> LearnedLikelihood:
    """Return the learned likelihood of a model; ``told`` hears of steps done.

    Raises:
        ValueError: the model has no one dust screen to replace by another; see `imperfections.other_dust`.
    """
    examples = Examples(model, settings, seed)
    features = Features.fit(COLOURS, examples.draw(_FIRST, "features")[0])
    spec = LikelihoodSpec(
        model=model.id, labels=model.spec.labels, share=settings.share, imperfections=settings.imperfections,
        flow=ResidualSettings(transforms=settings.transforms, hidden=settings.hidden),
    )  # fmt: skip
    flow, batches, shapes = spec.build_flow(seed), _Batches(examples, features), (examples.shapes, examples.shapes)
    schedule = training.Schedule.short(
        settings.steps, settings.batch, settings.learning_rate, settings.warm_up, 4 * settings.batch
    )
    found = training.train_here(flow, batches, shapes, schedule, told)
    made = {**settings.model_dump(mode="json"), "seed": seed, **found}
    return LearnedLikelihood(spec.model_copy(update={"training": made}), flow, features)
