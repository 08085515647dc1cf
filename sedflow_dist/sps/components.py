"""Components of a galaxy model: sources of light and screens before them, each a class that brings its own parameters.

A component is known by its name. Those of this package are listed in `KNOWN`; an installed package adds its own under the
entry point ``sedflow.components``, so that a run file names them and every worker finds them: docs/how-to-add.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.parameters import ParameterSpace, Values
from sedflow_dist.quantities import Block

if TYPE_CHECKING:
    from sedflow_dist.sps.populations import Epoch, Populations
    from sedflow_dist.sps.ssp import SSPTable

#: What a screen's transmission depends on besides its parameters: tensors over wavelength, zero where it transmits all.
Curves = tuple[Tensor, ...]

#: Components of this package, by name: module and class.
KNOWN = {
    "stars": "sedflow_dist.sps.stars:Stars",
    "birth_cloud": "sedflow_dist.sps.dust:BirthCloud",
    "kriek_conroy": "sedflow_dist.sps.dust:KriekConroy",
    "smc": "sedflow_dist.sps.dust:SmallMagellanicCloud",
}
#: The galaxy model of PROVABGS (Hahn et al. 2022).
PROVABGS = ("stars", "birth_cloud", "kriek_conroy")
ENTRY_POINTS = "sedflow.components"


class Component:
    """A source or a screen.

    Attributes:
        name: in run files and models
        parameters: what it needs to know of a galaxy, in the order in which the model has them
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[Block, ...]]


class Screen(Component):
    """Takes a part of the light away.

    Attributes:
        covers: "birth clouds", the light of stars in them (before it joins the rest); or "all stars"
        breaks_a: rest wavelengths [A] at which the transmission is not smooth; what a posterior's draws are evaluated with
            interpolates it in between
    """

    covers: ClassVar[Literal["birth clouds", "all stars"]]
    breaks_a: ClassVar[tuple[float, ...]] = ()

    def curves(
        self, wavelength: Float[Tensor, "*batch wavelength"], piece: Int[Tensor, "*#batch wavelength"]
    ) -> Curves:
        """Return what depends on the rest wavelength [A] alone, float64 in and out, each of ``wavelength``'s shape.

        ``piece``: how many of `breaks_a` lie below the side of a break from which a wavelength is looked at. Where all
        curves are zero, everything is transmitted.
        """
        raise NotImplementedError

    def transmission(self, values: Values, curves: Curves) -> Float[Tensor, "*batch wavelength"]:
        """Return the transmitted fraction for parameters (...) and curves (..., wavelength)."""
        raise NotImplementedError


class Source(Component):
    """Adds light that is linear in the formed mass: templates times weights. (Stars, with their ages, are `Stars`.)

    Attributes:
        inside: whether it shines inside the birth clouds, or from outside them
    """

    inside: ClassVar[bool] = False

    def templates(self, ssp: SSPTable) -> Float[np.ndarray, "row pixel"]:
        """Return spectra on the table's pixels [Lsun/A per solar mass formed]."""
        raise NotImplementedError

    def weights(self, values: Values, populations: Populations, epoch: Epoch) -> Float[Tensor, "*batch row"]:
        """Return how much of each template the galaxies have."""
        raise NotImplementedError


@dataclass(frozen=True)
class Composition:
    """What a galaxy is made of: names of its components, and the parameter space that they make up together.

    ``sources``: those besides the stars.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    screens: tuple[Screen, ...]
    space: ParameterSpace

    @classmethod
    def of(cls, names: Sequence[str] = PROVABGS, prior: Mapping[str, Any] | None = None) -> Composition:
        """Return the composition of named components, with some of their priors replaced.

        Raises:
            ValueError: a component is not known, or the stars are not the first; says which are known.
        """
        classes = [load(name) for name in names]
        if not names or names[0] != "stars" or len(set(names)) < len(names):
            raise ValueError(f"components are {', '.join(names) or 'none'}: the first is stars, and each is named once")
        space = ParameterSpace(tuple(chain.from_iterable(found.parameters for found in classes)))
        made = [found() for found in classes[1:]]
        return cls(
            tuple(names), tuple(c for c in made if isinstance(c, Source)), tuple(c for c in made if isinstance(c, Screen)),
            space.with_priors(prior or {}),
        )  # fmt: skip

    @cached_property
    def breaks_a(self) -> tuple[float, ...]:
        """Rest wavelengths [A] at which any screen is not smooth."""
        return tuple(sorted({at for screen in self.screens for at in screen.breaks_a}))


def load(name: str) -> type[Component]:
    """Return the class of a component, of this package or of an installed one.

    Raises:
        ValueError: none is known by that name; says which are.
    """
    if name in KNOWN:
        module, _, attribute = KNOWN[name].partition(":")
        found: type[Component] = getattr(import_module(module), attribute)
        return found
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        raise ValueError(
            f"no component {name!r} of a galaxy model; known are {', '.join([*KNOWN, *sorted(installed)])}"
        )
    found = installed[name].load()
    if not issubclass(found, Component) or found.name != name:
        raise ValueError(f"the entry point {name!r} of {ENTRY_POINTS} is no component of that name")
    return found
