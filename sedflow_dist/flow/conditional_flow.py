"""The density estimator, whatever its family: all that a training, a trained model and an inference ask of it.

In: parameters in probit space (row, dimension) and their context, the features of a galaxy. Out: log-probabilities and draws.
A family is a class registered by its name; nothing outside its own modules knows what it is made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor, nn


class ConditionalFlow(nn.Module, ABC):
    """A density q(phi | context) that maps standard-normal base points to its draws.

    A module, so that its parameters are what is trained, its `state_dict` what is stored, and `to` moves it to a device.
    Everything random in a new one comes from ``seed``.

    Attributes:
        dimensions: of phi
    """

    #: What decides its size: a pydantic model with bounds, that refuses unknown keys.
    Settings: ClassVar[type[BaseModel]]
    dimensions: int

    @abstractmethod
    def __init__(self, dimensions: int, features: int, settings: Any, seed: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    @abstractmethod
    def log_prob(
        self, phi: Float[Tensor, "row dimension"], context: Float[Tensor, "row feature"]
    ) -> Float[Tensor, " row"]:
        """Return ln q(phi | context), differentiable with respect to the parameters."""

    @abstractmethod
    def sample_with_log_prob(
        self, base: Float[Tensor, "galaxy draw dimension"], context: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map standard-normal base points to as many draws of each galaxy, without gradients.

        The numbers do not depend on the number of threads, nor a galaxy's, to float32 rounding, on who stands beside it.

        Returns:
            draws, and ln q of each.
        """

    @abstractmethod
    def memory(self, n_rows: int) -> int:
        """Return the most bytes that `sample_with_log_prob` needs for so many draws, beside its arguments."""

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Look at weights, of the shapes of `state_dict`, before they are taken over.

        Raises:
            ValueError: one is of another type than this flow's, or is none that training makes; names it.
        """
        for name, ours in self.state_dict().items():
            if (found := tensors[name].dtype) != ours.dtype:
                raise ValueError(f"weights do not fit the specification: {name} is of type {found}, not {ours.dtype}")

    def to_sbi(self) -> Any:
        """Return the same density as sbi's estimator; ValueError: the family has no such form."""
        raise ValueError(f"{type(self).__name__} has no form that sbi knows")

    @classmethod
    @abstractmethod
    def n_weights(cls, dimensions: int, features: int, settings: Any) -> int:
        """Return the number of its parameters without building it: for plans, and so that a lie costs no memory."""

    def forward(
        self, phi: Float[Tensor, "row dimension"], context: Float[Tensor, "row feature"]
    ) -> Float[Tensor, " row"]:
        """Return `log_prob`: what data-parallel wrappers call."""
        return self.log_prob(phi, context)


_families: dict[str, type[ConditionalFlow]] = {}
Family = TypeVar("Family", bound=type[ConditionalFlow])


def register(name: str) -> Callable[[Family], Family]:
    """Decorate a class: run files and stored models call it by ``name``.

    Raises:
        ValueError: another class has that name.
    """

    def decorate(family: Family) -> Family:
        if name in _families:
            raise ValueError(f"a family of flows {name!r} exists already: {_families[name].__qualname__}")
        _families[name] = family
        return family

    return decorate


def names() -> tuple[str, ...]:
    """Return the names of all families."""
    return tuple(sorted(_families))


def family(name: str) -> type[ConditionalFlow]:
    """Return the family of this name.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in _families:
        raise ValueError(f"no family of flows is called {name!r}; there are {', '.join(names())}")
    return _families[name]


def build(name: str, settings: Mapping[str, Any], dimensions: int, features: int, seed: int) -> ConditionalFlow:
    """Return a new flow of a family, its weights drawn from ``seed``.

    Raises:
        ValueError: the family does not exist or refuses the settings.
    """
    made = family(name)
    return made(dimensions, features, made.Settings.model_validate(dict(settings)), seed)
