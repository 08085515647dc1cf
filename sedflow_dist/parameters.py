"""The parameter space: all parameters of a galaxy model in their order, and the exact maps that follow from their priors.

Every prior is a monotone map of a uniform, so the unit cube carries it exactly, and phi = Phi^-1(u) makes it N(0, I).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import priors
from sedflow_dist.quantities import Block, Parameter, Quantity, Simplex

_TINY = 2.0**-24


class Values:
    """Parameters of galaxies by name: one (...), or a block of several (..., size); views of ``theta``, tensor or array.

    One that is fixed has its value everywhere.
    """

    def __init__(self, space: ParameterSpace, theta: Any) -> None:
        self._places, self._fixed, self._theta = space.places, space.fixed, theta

    def __getitem__(self, name: str) -> Any:
        if name in self._fixed:
            return 0 * self._theta[..., 0] + self._fixed[name]
        return self._theta[..., self._places[name]]


@dataclass(frozen=True)
class ParameterSpace:
    """Parameters in their order, in blocks that share a prior; ``names`` (param) and ``coordinates`` of the unit cube.

    ``fixed``: values of those that a run file fixes; they are no columns and have no coordinates.
    """

    blocks: tuple[Block, ...]
    fixed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in (self.names, self.coordinates, [block.name for block in self.blocks]):
            if twice := sorted({name for name in what if list(what).count(name) > 1}):
                raise ValueError(f"parameters: {', '.join(twice)} is declared twice")
        if len(amplitudes := [block.name for block in self.blocks if block.role == "amplitude"]) != 1:
            raise ValueError(
                f"parameters: one is the amplitude, not {len(amplitudes)} ({', '.join(amplitudes) or 'none'})"
            )

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """All parameters, in order."""
        return tuple(quantity for block in self.blocks for quantity in block.quantities)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters: the columns of ``theta``."""
        return tuple(quantity.name for quantity in self.quantities)

    @cached_property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates of the unit cube: the columns of ``u``."""
        return tuple(name for block in self.blocks for name in block.coordinates)

    @cached_property
    def amplitude(self) -> Parameter:
        """The parameter that the flux is proportional to (10 to its power)."""
        return next(block for block in self.blocks if isinstance(block, Parameter) and block.role == "amplitude")

    @cached_property
    def shapes(self) -> tuple[str, ...]:
        """Names of the coordinates but the amplitude's: what a flow that takes the amplitude out learns."""
        return tuple(name for name in self.coordinates if name != self.amplitude.name)

    @cached_property
    def places(self) -> dict[str, int | slice]:
        """Where each parameter and each block of several stands in ``theta``."""
        found: dict[str, int | slice] = {}
        for block, parameters, _ in self._layout():
            if len(block.quantities) > 1:
                found[block.name] = parameters
            found |= {quantity.name: parameters.start + i for i, quantity in enumerate(block.quantities)}
        return found

    def values(self, theta: Float[Tensor | np.ndarray, "*batch param"]) -> Values:
        """Return parameters by name."""
        return Values(self, theta)

    def block_of(self, name: str) -> Block:
        """Return the block that a parameter belongs to."""
        return next(block for block in self.blocks if name in [quantity.name for quantity in block.quantities])

    def source(self, name: str) -> str:
        """Return the independent part of the prior that decides a parameter; weights that sum to one are one part."""
        return self.block_of(name).source(name)

    # -- maps -----------------------------------------------------------------------------------------------------------

    def from_unit(self, u: Float[Tensor, "*batch coordinate"]) -> Float[Tensor, "*batch param"]:
        """Map the unit cube to parameters. The result lies inside the prior, always."""
        theta = u.new_empty(*u.shape[:-1], len(self.names))
        for block, parameters, coordinates in self._layout():
            block.from_unit(u[..., coordinates], theta[..., parameters])
        return theta

    def to_unit(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch coordinate"]:
        """Map parameters to the unit cube: the inverse of `from_unit`."""
        u = theta.new_empty(*theta.shape[:-1], len(self.coordinates))
        for block, parameters, coordinates in self._layout():
            block.to_unit(theta[..., parameters], u[..., coordinates])
        return u.clamp(0.0, 1.0)

    def log_prob(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch"]:
        """Return ln of the prior's density, float64; of a simplex, with respect to all its weights but one."""
        return torch.stack([block.log_prob(theta[..., where]) for block, where, _ in self._layout()]).sum(0)

    def scale(self, theta: Float[Tensor, "*batch param"]) -> Float[Tensor, "*batch 1"]:
        """Return what fluxes of a unit amplitude are multiplied with: 10 to the amplitude's power."""
        return 10 ** self.values(theta)[self.amplitude.name].unsqueeze(-1)

    def split(
        self, u: Float[Tensor, "*batch coordinate"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch shape"]]:
        """Return the amplitude's coordinate and the shapes'."""
        at = self.coordinates.index(self.amplitude.name)
        return u[..., at], torch.cat([u[..., :at], u[..., at + 1 :]], -1) if at else u[..., at + 1 :]

    def join(
        self, amplitude: Float[Tensor, "*batch"], shapes: Float[Tensor, "*batch shape"]
    ) -> Float[Tensor, "*batch coordinate"]:
        """Return coordinates from the amplitude's and the shapes': the inverse of `split`."""
        at = self.coordinates.index(self.amplitude.name)
        return torch.cat([shapes[..., :at], amplitude.unsqueeze(-1), shapes[..., at:]], -1)

    def join_any(self, shapes: Float[Tensor, "*batch shape"]) -> Float[Tensor, "*batch coordinate"]:
        """Return coordinates from the shapes', with any amplitude: where it is not used, or is filled in later."""
        return self.join(torch.full_like(shapes[..., 0], 0.5), shapes)

    def check(self, theta: Float[Tensor, "galaxy param"]) -> None:
        """Raise ValueError, naming row, parameter and what is allowed, unless every parameter lies in its domain."""
        if theta.ndim != 2 or theta.shape[1] != len(self.names):
            raise ValueError(
                f"parameters have shape {tuple(theta.shape)}; expected (galaxy, {len(self.names)}); the parameters are "
                f"{', '.join(self.names)}"
            )
        for block, where, _ in self._layout():
            for quantity, column in zip(block.quantities, theta[:, where].unbind(1), strict=True):
                require(quantity.name, column, block.domain)
            if isinstance(block, Simplex):
                name = " + ".join(quantity.name for quantity in block.quantities)
                require(name, theta[:, where].sum(1), (0.999, 1.001))

    # -- to and from plain values ---------------------------------------------------------------------------------------

    def with_priors(self, wanted: Mapping[str, Any]) -> ParameterSpace:
        """Return the same with some priors replaced, by block, as a run file or a model's specification has them.

        Raises:
            ValueError: there is no such parameter, or the prior is none; names it.
        """
        known = [*(block.name for block in self.blocks), *self.fixed]
        if unknown := sorted(set(wanted) - set(known)):
            raise ValueError(f"prior: unknown parameters {', '.join(unknown)}; known are {', '.join(known)}")
        blocks, fixed = [], dict(self.fixed)
        for block in self.blocks:
            prior = wanted.get(block.name)
            try:
                if isinstance(prior, int | float):
                    fixed[block.name] = _fixed(block, prior)
                else:
                    blocks.append(block if prior is None else block.with_prior(prior))
            except ValueError as error:
                raise ValueError(f"prior of {block.name}: {error}") from None
        return ParameterSpace(tuple(blocks), fixed)

    def to_dict(self) -> dict[str, Any]:
        """Return the priors as plain values, which `with_priors` takes."""
        free = {block.name: priors.plain(block.prior) for block in self.blocks if isinstance(block, Parameter)}
        return free | dict(self.fixed)

    def _layout(self) -> Iterator[tuple[Block, slice, slice]]:
        """Blocks, and where their parameters and coordinates stand."""
        first = first_coordinate = 0
        for block in self.blocks:
            end, end_coordinate = first + len(block.quantities), first_coordinate + len(block.coordinates)
            yield block, slice(first, end), slice(first_coordinate, end_coordinate)
            first, first_coordinate = end, end_coordinate


def _fixed(block: Block, value: float) -> float:
    """Return the value at which a run file fixes a parameter."""
    if len(block.quantities) > 1 or block.role != "shape":
        raise ValueError(f"it cannot be fixed: it is {'several' if len(block.quantities) > 1 else 'the ' + block.role}")
    lo, hi = block.domain
    if not lo <= value <= hi:
        raise ValueError(f"{value:g} is not what {block.name} can be: {lo:g} to {hi:g}")
    return float(value)


def require(name: str, values: Float[Tensor, " galaxy"], domain: tuple[float, float], above: bool = False) -> None:
    """Raise ValueError, naming the first row, unless all values are finite and in a domain; ``above``: above its low end."""
    lo, hi = domain
    good = ((values > lo) if above else (values >= lo)) & (values <= hi) & torch.isfinite(values)
    if not bool(good.all()):
        row = int(torch.nonzero(~good)[0])
        raise ValueError(
            f"row {row}: {name} = {values[row].item():g} is outside [{lo:g}, {hi:g}] "
            f"({int((~good).sum())} of {len(good)} rows are bad)"
        )


def probit(u: Tensor) -> Tensor:
    """Map the unit cube to probit space; u is kept half a float32 step from 0 and 1, so the result is finite."""
    return torch.special.ndtri(u.clamp(_TINY, 1 - _TINY))


def unit(phi: Tensor) -> Tensor:
    """Map probit space to the unit cube, strictly inside it."""
    return torch.special.ndtr(phi).clamp(_TINY, 1 - _TINY)


def to_16_bits(u: Float[Tensor, "*batch coordinate"]) -> np.ndarray:
    """Return the unit cube as 16-bit integers, u times 2^16: how draws are stored; read as (integer + 1/2) / 2^16."""
    return np.floor(u.numpy() * 2.0**16).clip(0, 2**16 - 1).astype(np.uint16)


def from_16_bits(stored: np.ndarray) -> Float[Tensor, "*batch coordinate"]:
    """Return the unit cube of draws that `to_16_bits` made, float32: the middle of what each integer stands for.

    >>> from_16_bits(to_16_bits(torch.tensor([0.25, 0.5]))).tolist()
    [0.2500076293945312, 0.5000076293945312]
    """
    return (torch.as_tensor(stored.astype(np.float32)) + 0.5) / 2.0**16
