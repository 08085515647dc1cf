"""Components of a galaxy model: sources of light and screens before them, each a class that brings its own parameters.

A component is known by its name. Those of this package are listed in `KNOWN`; an installed package adds its own under the
entry point ``sedflow.components``, so that a run file names them and every worker finds them: docs/how-to-add.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from sedflow_dist.quantities import Block, Parameter
from sedflow_dist.sps.compiled_light import Dimming, OpticalDepth, dim

if TYPE_CHECKING:
    from sedflow_dist.sps.populations import Epoch, Populations
    from sedflow_dist.sps.ssp import SSPTable
    from sedflow_dist.sps.stars import Stars

#: What a screen's transmission depends on besides its parameters: tensors over wavelength, zero where it transmits all.
Curves = tuple[Tensor, ...]

#: Components of this package, by name: module and class.
KNOWN = {
    "stars": "sedflow_dist.sps.stars:Stars",
    "nebular": "sedflow_dist.sps.nebular:Nebular",
    "birth_cloud": "sedflow_dist.sps.dust:BirthCloud",
    "kriek_conroy": "sedflow_dist.sps.dust:KriekConroy",
    "smc": "sedflow_dist.sps.dust:SmallMagellanicCloud",
    "dust_emission": "sedflow_dist.sps.dust_emission:DustEmission",
    "igm": "sedflow_dist.sps.igm:Inoue",
    "torus": "sedflow_dist.sps.torus:Torus",
}
#: The galaxy model of PROVABGS (Hahn et al. 2022).
PROVABGS = ("stars", "birth_cloud", "kriek_conroy")
ENTRY_POINTS = "sedflow.components"


class Component:
    """A source or a screen.

    Attributes:
        name: in run files and models
        parameters: what it needs to know of a galaxy, in the order in which the model has them
        needs: libraries that the SSP table must have for it
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[Block, ...]]
    needs: ClassVar[tuple[str, ...]] = ()


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

    def optical_depth(self, values: Values) -> OpticalDepth | None:
        """Return minus ln of `transmission`, if it is of a form that compiled functions know: they serve without, more slowly."""
        return None

    def dim(self, light: Float[Tensor, "*batch wavelength"], values: Values, curves: Curves) -> None:
        """Multiply light by the transmitted fraction, in place."""
        depth = self.optical_depth(values)
        if depth is None or not dim(light, Dimming(depth, curves, of_clouds=False)):
            light.mul_(self.transmission(values, curves))


@dataclass(frozen=True)
class Light:
    """What a source adds: ``templates`` (row, column) times ``weights`` (..., row).

    ``weights``: of parameters, populations, their masses by metallicity (..., population, metallicity), and epoch;
    ``numbers``: how many numbers it needs for that of each galaxy, beside the weights.
    """

    templates: Tensor
    weights: Callable[[Values, Populations, Float[Tensor, "*batch population metallicity"], Epoch], Tensor]
    numbers: int = 0


class Source(Component):
    """Adds light that is linear in the formed mass: templates times weights. (Stars, with their ages, are `Stars`.)

    Attributes:
        inside: whether it shines inside the birth clouds, or from outside them
    """

    inside: ClassVar[bool] = False

    def table(self, ssp: SSPTable, fixed: Mapping[str, float]) -> SSPTable:
        """Return an SSP table with as much of this source's library as a model needs in which some parameters are fixed."""
        return ssp

    def templates(self, wavelength: Float[np.ndarray, " wavelength"]) -> Float[np.ndarray, "row wavelength"]:
        """Return spectra [Lsun/A per solar mass formed] at rest wavelengths [A]."""
        raise NotImplementedError

    def weights(self, values: Values, populations: Populations, epoch: Epoch) -> Float[Tensor, "*batch row"]:
        """Return how much of each template the galaxies have."""
        raise NotImplementedError

    def of_stars(self, spectra: Float[np.ndarray, "metallicity age column"], stars: Stars) -> np.ndarray:
        """Return what is seen of all stars of ``spectra``, in birth clouds or not: the same, if this leaves them alone."""
        return spectra

    def of_clouds(self, spectra: Float[np.ndarray, "metallicity age column"], stars: Stars) -> np.ndarray:
        """Return what comes out of birth clouds where stars of ``spectra`` lie in them: the same, if this leaves it alone.

        ``stars``: not finished yet; its table, columns and parameters that are fixed are there.
        """
        return spectra

    def lights(self, stars: Stars) -> list[tuple[bool, Light]]:
        """Return whether each part of it shines inside birth clouds, and its templates and weights for a model's stars.

        Of a source that shines there and outside there are two; of one of which `of_clouds` and `of_stars` say all, none.
        """
        return [(self.inside, self.light(stars))]

    def light(self, stars: Stars) -> Light:
        """Return templates and weights for a model's stars."""
        templates = self.templates(stars.ssp.wavelength)
        if (whole := stars.ssp.bolometric) is not None:
            templates = np.concatenate([templates, self.templates(whole.wavelength) * whole.width], -1)
        return Light(
            stars.tensor(templates), lambda values, populations, _, epoch: self.weights(values, populations, epoch)
        )


class Reemission(Component):
    """Emits, from outside all screens, the energy that these took: rows of a table, each for a luminosity of one."""

    def templates(self, ssp: SSPTable) -> Float[np.ndarray, "row pixel"]:
        """Return spectra on the table's pixels [1/A]."""
        raise NotImplementedError

    def mixture(self, ssp: SSPTable, values: Values) -> tuple[Int[Tensor, "*batch part"], Float[Tensor, "*batch part"]]:
        """Return which rows each galaxy has, and how much of each; these sum to one."""
        raise NotImplementedError


class Foreground(Component):
    """Absorbs light between the galaxy and the observer, of known redshift: a transmission without parameters."""

    parameters: ClassVar[tuple[Block, ...]] = ()

    def transmission(
        self, edges: Float[np.ndarray, " edge"], redshift: Float[np.ndarray, " redshift"]
    ) -> Float[np.ndarray, "redshift edge-1"]:
        """Return the mean transmitted fraction of each pixel of the rest frame, between ``edges`` [A]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Composition:
    """What a galaxy is made of: names of its components, and the parameter space that they make up together.

    ``sources``: those besides the stars; ``reemission``: at most one; ``needs``: libraries of the SSP table.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    screens: tuple[Screen, ...]
    foregrounds: tuple[Foreground, ...]
    reemission: Reemission | None
    needs: tuple[str, ...]
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
        reemission = [c for c in made if isinstance(c, Reemission)]
        if len(reemission) > 1:
            raise ValueError(f"components: {' and '.join(c.name for c in reemission)} both emit what the dust absorbs")
        return cls(
            tuple(names), tuple(c for c in made if isinstance(c, Source)), tuple(c for c in made if isinstance(c, Screen)),
            tuple(c for c in made if isinstance(c, Foreground)), next(iter(reemission), None),
            tuple(dict.fromkeys(chain.from_iterable(found.needs for found in classes))),
            space.with_priors(prior or {}),
        )  # fmt: skip

    def table(self, ssp: SSPTable) -> SSPTable:
        """Return an SSP table with what the components need of it: all light of its populations, if dust emits what it takes.

        Raises:
            ValueError: it lacks a library, or one does not have all values that a parameter can take; says which and for what.
        """
        ssp.require(self.needs)
        for library in self.needs:
            for name, (low, high) in getattr(ssp, library).ranges.items():
                for lowest, highest in self._values_of(name):
                    if lowest < low - 1e-6 or highest > high + 1e-6:
                        raise ValueError(
                            f"{name} can be {lowest:g} to {highest:g}, and the SSP table ({ssp.provenance.get('code')}) has it "
                            f"from {low:g} to {high:g}: give it a prior inside (model: {{prior: {{{name}: [{low:g}, {high:g}]}}}})"
                        )
        for source in self.sources:
            ssp = source.table(ssp, self.space.fixed)
        return ssp.with_bolometric() if self.reemission else ssp.without_bolometric()

    def _values_of(self, name: str) -> list[tuple[float, float]]:
        """The range that a parameter can take; empty where the model has none of that name."""
        free = [block.prior.range for block in self.space.blocks if isinstance(block, Parameter) and block.name == name]
        return free + [(value, value) for fixed, value in self.space.fixed.items() if fixed == name]

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
