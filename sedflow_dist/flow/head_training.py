"""Training a redshift head: a trained model in, mock galaxies of it observed as its survey would, the same model with a head out.

Everything random is keyed by (seed, step), so the same settings give the same weights on the same machine.
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
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.redshift_head import HeadSpec, RedshiftHead
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes, draw_shapes

_FIRST = 20_000  # mock galaxies, on which features are standardised
_HELD_OUT = 0.05


class HeadSettings(BaseModel):
    """The redshift head of a model that is to infer redshifts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[int, ...] = Field((512, 512), description="SiLU units in each layer", max_length=20)
    width: float = Field(0.005, ge=1e-4, le=0.1, description="of its bins in ln(1 + z)")
    n_galaxies: int = Field(1_000_000, ge=1000, description="simulated galaxies")
    steps: int = Field(10_000, ge=1, description="of the optimiser")
    batch: int = Field(2048, ge=2, description="mock galaxies a step")
    learning_rate: float = Field(0.001, gt=0, description="its peak")
    warm_up: int = Field(200, ge=1, description="steps")
    drop_out: float = Field(0.25, ge=0, le=1, description="fraction of mock galaxies with missing bands")


@dataclass(frozen=True)
class _Batches:
    """Mock galaxies as the head sees them."""

    survey: MockSurvey
    features: Features
    seed: int

    def draw(
        self, shapes: Shapes, n: int, *names: object
    ) -> tuple[Float[Tensor, "galaxy 1"], Float[Tensor, "galaxy feature"]]:
        """Return ln(1 + z) and features of ``n`` mock galaxies; of ``names`` the first two count: there is one worker."""
        generator = torch.Generator().manual_seed(keyed_random.torch_seed(self.seed, "redshift head", *names[:2]))
        seen = self.survey.observe(shapes, n, generator).photometry
        return torch.log1p(seen.redshift).unsqueeze(1), self.features(seen)


def train(
    model: TrainedModel, settings: HeadSettings, seed: int, told: Callable[[int], None] = lambda _: None
) -> TrainedModel:
    """Return the model with a redshift head; ``told`` hears of steps done."""
    redshift, survey = model.spec.redshift, model.survey(settings.drop_out)
    shapes = draw_shapes(model.redshift_model.model, redshift, seed, "redshift head", 0, settings.n_galaxies)
    n = int(settings.n_galaxies * (1 - _HELD_OUT))
    known, held_out = (Shapes(*(x[part] for x in vars(shapes).values())) for part in (slice(n), slice(n, None)))
    spec = HeadSpec(hidden=settings.hidden, width=settings.width)
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(seed, "redshift head", "features"))
    features = Features.fit(spec.features, survey.observe(known, _FIRST, generator).photometry)
    network, batches = spec.network(redshift, len(model.spec.bands), seed), _Batches(survey, features, seed)
    schedule = training.Schedule.short(
        settings.steps, settings.batch, settings.learning_rate, settings.warm_up, 8 * settings.batch
    )
    found = training.train_here(network, batches, (known, held_out), schedule, told)
    made = {**settings.model_dump(mode="json"), "seed": seed, **found}
    return model.with_head(RedshiftHead(spec.model_copy(update={"training": made}), network, features))
