"""One-dimensional priors: each an exact, monotone map of a uniform, with its density.

In: u in (0, 1). Out: values of a parameter; and back. In a run file a prior is a range, which keeps the kind that the
parameter was declared with, or ``{kind: normal, mean: 0.3, sigma: 0.1}`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import scipy
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class _Prior(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Range(_Prior):
    """A prior on a range ``low`` to ``high``."""

    low: float
    high: float

    @model_validator(mode="after")
    def _check(self) -> _Range:
        if not self.low < self.high:
            raise ValueError(f"the range {self.low:g} to {self.high:g} is not increasing")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Where the density is not zero."""
        return self.low, self.high


class Uniform(_Range):
    """Uniform between ``low`` and ``high``."""

    kind: Literal["uniform"] = "uniform"

    def from_unit(self, u: Tensor) -> Tensor:
        """Map (0, 1) to values, of any shape; the result lies inside the range, always."""
        return (self.low + (self.high - self.low) * u).clamp(self.low, self.high)

    def to_unit(self, value: Tensor) -> Tensor:
        """Map values to (0, 1): the inverse of `from_unit`."""
        return (value - self.low) / (self.high - self.low)

    @property
    def distribution(self) -> Any:
        """The same as `scipy.stats` has it."""
        return scipy.stats.uniform(self.low, self.high - self.low)


class LogUniform(_Range):
    """Uniform in the logarithm between ``low`` and ``high``."""

    kind: Literal["log_uniform"] = "log_uniform"

    @model_validator(mode="after")
    def _positive(self) -> LogUniform:
        if self.low <= 0:
            raise ValueError(f"a log-uniform prior begins above 0, not at {self.low:g}")
        return self

    def from_unit(self, u: Tensor) -> Tensor:
        """Map (0, 1) to values, of any shape; the result lies inside the range, always."""
        return (self.low * torch.exp(u * math.log(self.high / self.low))).clamp(self.low, self.high)

    def to_unit(self, value: Tensor) -> Tensor:
        """Map values to (0, 1): the inverse of `from_unit`."""
        return torch.log(value / self.low) / math.log(self.high / self.low)

    @property
    def distribution(self) -> Any:
        """The same as `scipy.stats` has it."""
        return scipy.stats.loguniform(self.low, self.high)


class Normal(_Prior):
    """Normal with ``mean`` and standard deviation ``sigma``."""

    kind: Literal["normal"] = "normal"
    mean: float
    sigma: float = Field(gt=0)

    def from_unit(self, u: Tensor) -> Tensor:
        """Map (0, 1) to values, of any shape."""
        return self.mean + self.sigma * torch.special.ndtri(u)

    def to_unit(self, value: Tensor) -> Tensor:
        """Map values to (0, 1): the inverse of `from_unit`."""
        return torch.special.ndtr((value - self.mean) / self.sigma)

    @property
    def range(self) -> tuple[float, float]:
        """Where the density is not zero."""
        return -math.inf, math.inf

    @property
    def distribution(self) -> Any:
        """The same as `scipy.stats` has it."""
        return scipy.stats.norm(self.mean, self.sigma)


class TruncatedNormal(_Range):
    """Normal with ``mean`` and ``sigma`` (before it is cut), cut to ``low`` to ``high``."""

    kind: Literal["truncated_normal"] = "truncated_normal"
    mean: float
    sigma: float = Field(gt=0)

    @model_validator(mode="after")
    def _reachable(self) -> TruncatedNormal:
        if self._ends[1] - self._ends[0] < 1e-6:
            raise ValueError(
                f"normal({self.mean:g}, {self.sigma:g}) has next to nothing between {self.low:g} and {self.high:g}"
            )
        return self

    @property
    def _ends(self) -> tuple[float, float]:
        whole = scipy.stats.norm(self.mean, self.sigma)
        return float(whole.cdf(self.low)), float(whole.cdf(self.high))

    def from_unit(self, u: Tensor) -> Tensor:
        """Map (0, 1) to values, of any shape; the result lies inside the range, always."""
        first, last = self._ends
        normal = torch.special.ndtri((first + (last - first) * u.double()).clamp(1e-300, 1 - 2.0**-53)).to(u.dtype)
        return (self.mean + self.sigma * normal).clamp(self.low, self.high)

    def to_unit(self, value: Tensor) -> Tensor:
        """Map values to (0, 1): the inverse of `from_unit`."""
        first, last = self._ends
        whole = torch.special.ndtr((value.double() - self.mean) / self.sigma)
        return ((whole - first) / (last - first)).to(value.dtype)

    @property
    def distribution(self) -> Any:
        """The same as `scipy.stats` has it."""
        a, b = (self.low - self.mean) / self.sigma, (self.high - self.mean) / self.sigma
        return scipy.stats.truncnorm(a, b, self.mean, self.sigma)


Prior = Annotated[Uniform | LogUniform | Normal | TruncatedNormal, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[Prior] = TypeAdapter(Prior)


def replaced(declared: Prior, wanted: Sequence[float] | dict[str, Any]) -> Prior:
    """Return the prior that a run file asks for: a range of the declared kind, or another kind with its numbers.

    Raises:
        ValueError: it is neither; says what is allowed.

    >>> replaced(Uniform(low=0, high=1), [0, 3]).range
    (0.0, 3.0)
    """
    if isinstance(wanted, dict):
        return _ADAPTER.validate_python(wanted)
    if len(wanted) != 2:
        raise ValueError(f"{list(wanted)} is no range: two numbers are, or a mapping with kind")
    if not isinstance(declared, _Range):
        raise ValueError(f"the prior is {declared.kind}, which has no range; give a mapping with kind")
    low, high = wanted
    return type(declared).model_validate({**declared.model_dump(), "low": low, "high": high})


def plain(prior: Prior) -> list[float] | dict[str, Any]:
    """Return a prior as a run file has it: the inverse of `replaced` for a prior of the declared kind."""
    if isinstance(prior, Uniform | LogUniform):
        return [prior.low, prior.high]
    return prior.model_dump()
