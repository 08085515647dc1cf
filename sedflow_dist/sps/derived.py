"""Derived properties of posterior draws: parameters and their photometry in, named columns out.

Source: PROVABGS (Hahn et al. 2022, section 4.1) for star-formation rate, metallicity and age averages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.magnitudes import ZERO_POINT
from sedflow_dist.parameters import ParameterSpace, Values
from sedflow_dist.quantities import Quantity
from sedflow_dist.sps.drawn import DrawPhotometry
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.populations import BURST, CUT, FIXED_AGES_GYR, N_FIXED, Epoch, PopulationModel, Populations

#: Of models that infer it.
REDSHIFT = Quantity("redshift", "1", "redshift, as inferred or as given", r"$z$", "src.redshift")

_LEAST_FRACTION = 1e-12  # of the mass, so that no logarithm is infinite
_HISTORY, _METALS = ("beta", "f_burst", "t_burst"), ("gamma1", "gamma2")


@dataclass(frozen=True)
class Draws:
    """What a property is derived from: parameters by name, ``log_mstar`` among them, and what the galaxy model says of them."""

    values: Values
    photometry: DrawPhotometry
    model: PopulationModel

    @property
    def epoch(self) -> Epoch:
        """What the redshifts decide."""
        return self.photometry.drawn.epoch

    @property
    def populations(self) -> Populations:
        """Masses, ages and metallicities."""
        return self.photometry.drawn.populations

    @property
    def log_mstar(self) -> Float[Tensor, "galaxy draw"]:
        """log10 of the stellar mass formed [Msun]."""
        return self.values["log_mstar"]


@dataclass(frozen=True)
class Property(Quantity):
    """A derived property.

    Attributes:
        depends: the independent parts of the prior that decide it (`ParameterSpace` calls a simplex one part); None: all
        of: its values; None: a magnitude or colour, which `derive` makes in one piece
    """

    depends: tuple[str, ...] | None = None
    of: Callable[[Draws], Float[Tensor, "galaxy draw"]] | None = None


def _surviving(draws: Draws) -> Float[Tensor, "galaxy draw"]:
    return draws.log_mstar + torch.log10(draws.photometry.surviving.clamp(min=_LEAST_FRACTION))


def _star_formation_rate(draws: Draws, window_gyr: float) -> Float[Tensor, "galaxy draw"]:
    fraction = draws.model.mass_formed_within(draws.values, draws.epoch, window_gyr)
    return draws.log_mstar + torch.log10(fraction.clamp(min=_LEAST_FRACTION) / (window_gyr * 1e9))


def specific_rates(draws: Draws) -> list[Float[Tensor, "galaxy draw"]]:
    """Return log10 of star-formation rates over 1 Gyr and 100 Myr per surviving mass [1/yr]: `chosen.SPECIFIC_RATES`."""
    surviving = _surviving(draws)
    return [_star_formation_rate(draws, window) - surviving for window in (1.0, 0.1)]


def _metallicity(draws: Draws) -> Float[Tensor, "galaxy draw"]:
    return torch.log10((draws.populations.mass * draws.populations.metallicity).sum(-1))


def _age(draws: Draws) -> Float[Tensor, "galaxy draw"]:
    mass = draws.populations.mass
    ages = torch.as_tensor(FIXED_AGES_GYR, dtype=mass.dtype)
    return mass[..., :N_FIXED] @ ages + (mass[..., [CUT, BURST]] * draws.populations.age).sum(-1)


#: Properties of every galaxy; magnitudes and colours in its bands come after them.
PROPERTIES = (
    Property(
        "log_mstar_surviving", "log10(Msun)", "stellar mass that survives in stars", r"$\log M_*$", "phys.mass",
        ("log_mstar", *_HISTORY, *_METALS), _surviving,
    ),
    Property(
        "log_sfr_1gyr", "log10(Msun/yr)", "star-formation rate averaged over the last 1 Gyr",
        r"$\log {\rm SFR}_{1\,{\rm Gyr}}$", "phys.SFR", ("log_mstar", *_HISTORY),
        partial(_star_formation_rate, window_gyr=1.0),
    ),
    Property(
        "log_sfr_100myr", "log10(Msun/yr)", "star-formation rate averaged over the last 100 Myr",
        r"$\log {\rm SFR}_{100\,{\rm Myr}}$", "phys.SFR", ("log_mstar", *_HISTORY),
        partial(_star_formation_rate, window_gyr=0.1),
    ),
    Property(
        "log_z_mw", "log10(1)", "log10 of the mass-weighted metallicity (mass fraction)", r"$\log Z_{\rm MW}$",
        "phys.abund.Z", (*_HISTORY, *_METALS), _metallicity,
    ),
    Property("t_age_mw", "Gyr", "mass-weighted age", r"$t_{\rm age,MW}$", "time.age", _HISTORY, _age),
)  # fmt: skip


def properties(space: ParameterSpace, labels: Sequence[str]) -> tuple[Property, ...]:
    """Return all properties for bands with these labels, in the order of `derive`'s columns."""
    shape = tuple(part for part in map(space.source, space.names) if part != space.amplitude.name)
    magnitudes = [
        Property(f"absmag_{b}", "mag", f"rest-frame absolute AB magnitude in {b}", f"$M_{{{b}}}$", "phys.magAbs")
        for b in labels
    ]
    colours = [
        Property(f"rest_{a}_{b}", "mag", f"rest-frame colour {a} - {b}", f"$({a} - {b})_0$", "phot.color", shape)
        for a, b in pairwise(labels)
    ]
    return (*PROPERTIES, *magnitudes, *colours)


def columns(space: ParameterSpace, labels: Sequence[str], certificate: bool = True) -> tuple[Quantity, ...]:
    """Return everything that is summarised: parameters, then (with the certificate) derived properties."""
    return (*space.quantities, *properties(space, labels)) if certificate else space.quantities


def sources(space: ParameterSpace, labels: Sequence[str], name: str) -> set[str]:
    """Return the independent parts of the prior that decide a column; weights that sum to one are one part."""
    if name in space.names:
        return {space.source(name)}
    found = next(p for p in properties(space, labels) if p.name == name)
    return set(map(space.source, space.names)) if found.depends is None else set(found.depends) - set(space.fixed)


def derive(
    model: GalaxyModel, theta: Float[Tensor, "galaxy draw param"], photometry: DrawPhotometry
) -> Float[Tensor, "galaxy draw property"]:
    """Return the properties of draws, columns as in `properties`."""
    draws = Draws(model.space.values(theta), photometry, model.stars.populations)
    found = torch.stack([p.of(draws) for p in PROPERTIES if p.of], -1)
    absolute = ZERO_POINT - 2.5 * (torch.log10(photometry.absolute.clamp(min=1e-37)) + draws.log_mstar.unsqueeze(-1))
    return torch.cat([found, absolute, absolute[..., :-1] - absolute[..., 1:]], dim=-1)
