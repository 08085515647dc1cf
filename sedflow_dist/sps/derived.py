"""Derived properties of posterior draws: parameters and their photometry in, named columns out.

Source: PROVABGS (Hahn et al. 2022, section 4.1) for star-formation rate, metallicity and age averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import parameters
from sedflow_dist.sps.fixed_redshift import DrawPhotometry
from sedflow_dist.sps.populations import BURST, CUT, FIXED_AGES_GYR, N_FIXED, PopulationModel

#: (unit, meaning) of each property but the rest-frame magnitudes.
DESCRIPTIONS = {
    "log_mstar_surviving": ("log10(Msun)", "stellar mass that survives in stars"),
    "log_sfr_1gyr": ("log10(Msun/yr)", "star-formation rate averaged over the last 1 Gyr"),
    "log_sfr_100myr": ("log10(Msun/yr)", "star-formation rate averaged over the last 100 Myr"),
    "log_z_mw": ("log10(1)", "log10 of the mass-weighted metallicity (mass fraction)"),
    "t_age_mw": ("Gyr", "mass-weighted age"),
}
#: What the IVOA calls (UCD1+) parameters and properties, by the beginning of their names; others are parameters of a fit.
_UCDS = {
    "log_mstar": "phys.mass", "log_sfr": "phys.SFR", "log_z": "phys.abund.Z", "t_age": "time.age", "t_burst": "time",
    "tau_": "phys.absorption.opticalDepth", "absmag_": "phys.magAbs", "rest_": "phot.color",
}  # fmt: skip
_LEAST_FRACTION = 1e-12  # of the mass, so that no logarithm is infinite


def names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all properties for bands with these labels, in the order of `derive`'s columns."""
    magnitudes = [f"absmag_{b}" for b in labels]
    colours = [f"rest_{a}_{b}" for a, b in pairwise(labels)]
    return (*DESCRIPTIONS, *magnitudes, *colours)


def describe(name: str) -> tuple[str, str]:
    """Return unit and meaning of a parameter or property."""
    if name.startswith("absmag_"):
        return "mag", f"rest-frame absolute AB magnitude in {name.removeprefix('absmag_')}"
    if name.startswith("rest_"):
        a, b = name.removeprefix("rest_").split("_")
        return "mag", f"rest-frame colour {a} - {b}"
    return parameters.DESCRIPTIONS.get(name) or DESCRIPTIONS[name]


def ucd(name: str) -> str:
    """Return the UCD of a parameter or property.

    >>> ucd("log_mstar_surviving")
    'phys.mass'
    """
    return next((word for start, word in _UCDS.items() if name.startswith(start)), "stat.fit.param")


def derive(
    model: PopulationModel, theta: Float[Tensor, "galaxy draw param"], photometry: DrawPhotometry
) -> Float[Tensor, "galaxy draw property"]:
    """Return the properties of draws, columns as in `names`."""
    populations, epoch = photometry.populations, photometry.epoch
    log_mstar = theta[..., 0]
    mass = populations.mass
    ages = torch.as_tensor(FIXED_AGES_GYR, dtype=mass.dtype)
    age = mass[..., :N_FIXED] @ ages + (mass[..., [CUT, BURST]] * populations.age).sum(-1)
    columns = [log_mstar + torch.log10(photometry.surviving.clamp(min=_LEAST_FRACTION))]
    for window_gyr in (1.0, 0.1):
        fraction = model.mass_formed_within(theta, epoch, window_gyr)
        columns.append(log_mstar + torch.log10(fraction.clamp(min=_LEAST_FRACTION) / (window_gyr * 1e9)))
    columns.append(torch.log10((mass * populations.metallicity).sum(-1)))
    columns.append(age)
    absolute = 22.5 - 2.5 * (torch.log10(photometry.absolute.clamp(min=1e-37)) + log_mstar.unsqueeze(-1))
    return torch.cat([torch.stack(columns, -1), absolute, absolute[..., :-1] - absolute[..., 1:]], dim=-1)
