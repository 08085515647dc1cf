"""Other priors without new simulations: weighted posterior draws in, their weights under a new prior out.

The old prior, that of the training, is the interim one; the new one is the target (Hahn & Melchior 2022, section 6.2). What a
new density is relative to has two meanings:

- ``implied``: the interim prior with the density of a column *replaced*; a draw's weight is multiplied by new density / interim
  density. That of a parameter is analytic; that of a derived property, which the prior on parameters only implies, is
  estimated from prior draws (as PROVABGS does, Hahn et al. 2022, to flatten it).
- ``unity``: the interim prior *times* the new density; the interim prior stays in the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.densities import Density, mass_function
from sedflow_dist.inference.interim_prior import InducedPrior, ParameterPrior, Steps
from sedflow_dist.inference.mass_function import NumberDensity
from sedflow_dist.inference.redshift_prior import RedshiftTable
from sedflow_dist.inference.settings import RelativeTo, TargetPrior
from sedflow_dist.sps import derived

#: A row that keeps fewer effective draws has no answer: its 2.5 % quantile would be the place of half a draw.
LEAST_EFFECTIVE_DRAWS = 20.0


@dataclass(frozen=True)
class NewPrior:
    """The target prior: the interim one with the densities of some columns replaced, or times these densities.

    Attributes:
        columns: names of all columns of draws
        old: the interim densities that are replaced; none where densities multiply the interim prior
        number: p(z) of redshifts that are inferred; None: flat between ``redshifts``, as in the training
    """

    columns: tuple[str, ...]
    densities: tuple[Density, ...]
    relative_to: RelativeTo
    old: tuple[ParameterPrior | InducedPrior, ...]
    steps: Steps
    number: NumberDensity | RedshiftTable | None = None
    redshifts: tuple[float, float] = (0.0, 1.0)
    _log_norms: dict[int, float] = field(default_factory=dict)

    @classmethod
    def build(
        cls, texts: Sequence[str], flow: TrainedModel, seed: int, relative_to: RelativeTo = "implied"
    ) -> NewPrior:
        """Read new densities (`Density.parse`) for the draws of a flow; ``seed`` is that of estimates from prior draws.

        Raises:
            ValueError: a text cannot be read, names no column, or two columns depend on each other under the interim prior
                while densities are to be replaced.
        """
        names = tuple(quantity.name for quantity in derived.columns(flow.space, flow.spec.labels))
        densities = tuple(Density.parse(text) for text in texts)
        for density in densities:
            if density.name not in names:
                raise ValueError(f"{density.text!r}: there is no column {density.name!r}; there are {', '.join(names)}")
        for a, b in combinations(densities, 2):
            if a.name == b.name:
                raise ValueError(f"{a.name} has two new priors, {a.text!r} and {b.text!r}: give one")
        parameters = all(d.name in flow.space.names and not d.relation for d in densities)
        steps = Steps(flow, seed, light=not parameters)
        if relative_to == "unity":
            return cls(names, densities, relative_to, (), steps)
        _refuse_dependent(densities, flow)
        old = tuple(
            ParameterPrior(d.name, flow.space)
            if d.name in flow.space.names
            else InducedPrior(names.index(d.name), steps)
            for d in densities
        )
        return cls(names, densities, relative_to, old, steps)

    @classmethod
    def of(cls, wanted: TargetPrior, flow: TrainedModel, seed: int) -> NewPrior | None:
        """Return what settings say; None where they name no density.

        Raises:
            ValueError: as `build`; or there is a density of redshifts, which the model does not infer.
        """
        if wanted.is_empty:
            return None
        prior = cls.build(wanted.densities, flow, seed, wanted.relative_to)
        if wanted.redshift is None:
            return prior
        if flow.head is None:
            raise ValueError(
                f"prior.redshift: {wanted.redshift} is of redshifts that are inferred, and this model has no redshift head"
            )
        between, number = flow.spec.redshift, wanted.redshift
        told = NumberDensity(mass_function(number), *between) if isinstance(number, str) else number
        return replace(prior, number=told, redshifts=between)

    def describe(self) -> list[str]:
        """Return what was understood, a line for each density and one for what they are relative to."""
        meaning = "in place of" if self.old else "times, as it is,"
        of_redshifts = []
        if self.number:
            of_redshifts = [f"redshifts that are inferred: {self.number.describe()}"]
        of_columns = [f"the prior of the columns is that {meaning} the interim one"] if self.densities else []
        return [density.describe() for density in self.densities] + of_columns + of_redshifts

    def log_ratio(
        self, values: Float[Tensor, "galaxy draw column"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy draw"]:
        """Return ln of what the weights of draws are multiplied with, up to a constant of each redshift.

        -inf where the new density is zero or the interim one, which it is relative to, not known. Draws of a galaxy without a
        redshift are each at their own: their last column.
        """
        if bool((without := redshift.isnan()).any()):
            total = torch.empty(values.shape[:2], dtype=torch.float64)
            total[~without] = self.log_ratio(values[~without], redshift[~without])
            one_by_one = values[without].flatten(0, 1).unsqueeze(1)
            total[without] = self.log_ratio(one_by_one, one_by_one[:, 0, -1]).view(-1, values.shape[1])
            return total
        z = redshift.double().numpy()
        columns = self._columns(values)
        found = np.zeros(values.shape[:2])
        for number, density in enumerate(self.densities):
            x = columns[density.name]
            lo, hi = np.full((2, len(z), 1), np.inf) * [[[-1.0]], [[1.0]]]
            if self.old:
                lo, hi = (edge[:, None] for edge in self.old[number].range(z))
            ratio = density.log_pdf(columns, z[:, None], lo, hi)
            if self.old:
                ratio = ratio - self.old[number].log_pdf(x, z)
            ratio = np.nan_to_num(ratio, nan=-np.inf, posinf=1e300, neginf=-np.inf)
            found += np.where((x >= lo) & (x <= hi), ratio, -np.inf)
        return torch.as_tensor(found)

    def log_factor(
        self, values: Float[Tensor, "galaxy draw column"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy draw"]:
        """Return the same, normalised: its mean over the interim prior is one, so that evidences are those of the target.

        The mean is estimated from prior draws, to 1 / sqrt(of these, the effective ones). -inf where none has any weight.
        """
        if not self.densities:
            return torch.zeros(values.shape[:2], dtype=torch.float64)
        *norms, t = self.steps.beside(redshift.double().numpy(), self.log_norm)
        known = np.isfinite(norms[0]) & np.isfinite(norms[1])
        norm = np.where(known, (1 - t) * np.where(known, norms[0], 0) + t * np.where(known, norms[1], 0), np.inf)
        return self.log_ratio(values, redshift) - torch.as_tensor(norm).unsqueeze(-1)

    def log_factor_of_redshifts(self, redshift: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ln of the factor of redshifts that are inferred, over the training's flat one."""
        z = redshift.double()
        if self.number is None:
            return torch.zeros_like(z)
        low, high = self.redshifts
        return torch.as_tensor(self.number.log_pdf(z.numpy())) + math.log(high - low)

    def log_norm(self, step: int) -> float:
        """Return ln of the mean of the factor over draws of the interim prior at a step in redshift."""
        if step not in self._log_norms:
            ratio = self._of_prior_draws(step)
            self._log_norms[step] = float(torch.logsumexp(ratio, 0)) - math.log(len(ratio))
        return self._log_norms[step]

    def overlap(self, redshift: float) -> float:
        """Return how many of the ``steps.n`` draws of the interim prior are effective ones of the target, at a redshift."""
        weight = torch.softmax(self._of_prior_draws(int(self.steps.between(np.array([redshift]))[0][0])), 0)
        return float((1 / (weight**2).sum()).nan_to_num(nan=0.0))

    def _of_prior_draws(self, step: int) -> Float[Tensor, " draw"]:
        values = torch.as_tensor(self.steps.draws(step)).unsqueeze(0)
        return self.log_ratio(values, torch.as_tensor(self.steps.redshift[[step]]))[0]

    def _columns(self, values: Float[Tensor, "galaxy draw column"]) -> Mapping[str, Float[np.ndarray, "galaxy draw"]]:
        wanted = {name for density in self.densities for name in (density.name, *density.given)}
        return {name: values[..., self.columns.index(name)].double().numpy() for name in sorted(wanted)}


def _refuse_dependent(densities: Sequence[Density], flow: TrainedModel) -> None:
    """Raise ValueError if two densities cannot both be replaced, as their columns depend on each other.

    A relation may stand beside a density of what it is given: it is only of columns that are independent of it.
    """
    space, labels = flow.space, flow.spec.labels
    for a, b in combinations(densities, 2):
        if a.name in b.given or b.name in a.given:
            continue
        if shared := derived.sources(space, labels, a.name) & derived.sources(space, labels, b.name):
            raise ValueError(
                f"{a.name} and {b.name} depend on each other through {', '.join(sorted(shared))}: a product of their "
                "densities would be neither prior. Give one of them, multiply the prior by them as it is (relative to "
                "unity), or train under another prior (docs/priors.md)"
            )


def reweight(
    values: Float[Tensor, "galaxy draw column"],
    weight: Float[Tensor, "galaxy draw"],
    prior: NewPrior,
    redshift: Float[Tensor, " galaxy"],
) -> tuple[Float[Tensor, "galaxy draw"], Float[Tensor, " galaxy"]]:
    """Return normalised weights under the new prior, and the effective fraction (sum w)^2 / (n sum w^2) of all draws.

    Old weights count: the fraction certifies the row's answer, not only the last step. It is 0 where no draw has weight.
    """
    log_weight = weight.double().log() + prior.log_ratio(values, redshift)
    top = log_weight.amax(-1, keepdim=True).clamp(min=-1e300)
    new = (log_weight - top).exp()
    total = new.sum(-1, keepdim=True)
    new = torch.where(total > 0, new / total.clamp(min=1e-300), 0.0)
    square = (new**2).sum(-1)
    return new, torch.where(square > 0, 1 / (new.shape[1] * square.clamp(min=1e-300)), 0.0)
