"""Dust attenuation: wavelengths [A] and optical depths in, transmitted fractions out.

FSPS's ``dust_type=4``: Kriek & Conroy 2013 (arXiv 1308.1099, equations 1-4) on Calzetti et al. 2000 for all stars;
a power law of slope -1 for stars still in their birth clouds (Charlot & Fall 2000). Another law for all stars: the Small
Magellanic Cloud's (Pei 1992, ApJ 395, 130).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.parameters import Values
from sedflow_dist.priors import Uniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps.compiled_light import OpticalDepth
from sedflow_dist.sps.components import Curves, Screen

#: Where Calzetti's blue formula ends and the red one begins, and where that falls to zero and stays there [A].
CALZETTI_BREAKS_A = (6300.0, 1.04e4 / (1.857 - 1.78 / 1.17))
_REFERENCE_A = 5500.0
_R_V = 4.05
#: Pei 1992, table 4: a, lambda [micron], b and n of the six terms of the Small Magellanic Cloud's extinction.
_SMC_TERMS = (
    (185.0, 0.042, 90.0, 2.0), (27.0, 0.08, 5.5, 4.0), (0.005, 0.22, -1.95, 2.0),
    (0.010, 9.7, -1.95, 2.0), (0.012, 18.0, -1.80, 2.0), (0.030, 25.0, 0.0, 2.0),
)  # fmt: skip
_OPTICAL_DEPTH = "phys.absorption.opticalDepth"


class BirthCloud(Screen):
    """Birth clouds around young stars: a power law of slope -1 (Charlot & Fall 2000)."""

    name = "birth_cloud"
    parameters = (
        Parameter(
            "tau_bc", "1", "birth-cloud optical depth at 5500 A", r"$\tau_{\rm BC}$", _OPTICAL_DEPTH,
            prior=Uniform(low=0, high=3), domain=(0.0, math.inf),
        ),
    )  # fmt: skip
    covers = "birth clouds"

    def curves(
        self, wavelength: Float[Tensor, "*batch wavelength"], piece: Int[Tensor, "*#batch wavelength"]
    ) -> Curves:
        """Return (lambda / 5500 A)^-1."""
        return (_REFERENCE_A / wavelength,)

    def transmission(self, values: Values, curves: Curves) -> Float[Tensor, "*batch wavelength"]:
        """Return exp(-tau_bc (lambda / 5500 A)^-1), the extra factor of stars in their birth clouds."""
        return torch.mul(-values["tau_bc"].unsqueeze(-1), curves[0]).exp_()

    def optical_depth(self, values: Values) -> OpticalDepth:
        """Return tau_bc, of a curve that all galaxies share."""
        return OpticalDepth(values["tau_bc"])


class KriekConroy(Screen):
    """Diffuse dust in front of all stars: Calzetti's curve with a slope and a bump tied to it (Kriek & Conroy 2013)."""

    name = "kriek_conroy"
    parameters = (
        Parameter(
            "tau_ism", "1", "diffuse optical depth at 5500 A", r"$\tau_{\rm ISM}$", _OPTICAL_DEPTH,
            prior=Uniform(low=0, high=3), domain=(0.0, math.inf),
        ),
        Parameter(
            "n_dust", "1", "slope offset of the diffuse attenuation curve", r"$n_{\rm dust}$",
            prior=Uniform(low=-2, high=1), domain=(-10.0, 10.0),
        ),
    )  # fmt: skip
    covers = "all stars"
    breaks_a = CALZETTI_BREAKS_A

    def curves(
        self, wavelength: Float[Tensor, "*batch wavelength"], piece: Int[Tensor, "*#batch wavelength"]
    ) -> Curves:
        """Return k_C00 / (0.44 R_V), the bump (a Drude profile of unit amplitude / R_V) and ln(lambda / 5500 A).

        Calzetti's two formulas do not quite meet at 6300 A. ``piece`` says where to use the blue one (0), the red one (1)
        or zero (2), on either side of the breaks.
        """
        lam = wavelength
        um = lam / 1e4
        blue_formula = 1.17 * (-2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3) + 1.78
        red_formula = 1.17 * (-1.857 + 1.04 / um) + 1.78
        calzetti = torch.where(piece == 0, blue_formula, torch.where(piece == 1, red_formula, 0.0)) / (0.44 * _R_V)
        return calzetti, drude(lam) / _R_V, torch.log(lam / _REFERENCE_A)

    def transmission(self, values: Values, curves: Curves) -> Float[Tensor, "*batch wavelength"]:
        """Return exp(-tau_ism k(lambda; n_dust)), what every star's light is multiplied with."""
        calzetti, bump, log_wavelength = curves
        n_dust = values["n_dust"]
        bump_strength = _bump_strength(n_dust).unsqueeze(-1)
        curve = torch.exp(n_dust.unsqueeze(-1) * log_wavelength)
        curve.mul_(torch.addcmul(calzetti, bump_strength, bump))
        return curve.mul_(-values["tau_ism"].unsqueeze(-1)).exp_()

    def optical_depth(self, values: Values) -> OpticalDepth:
        """Return tau_ism, slope and strength of the bump."""
        return OpticalDepth(values["tau_ism"], values["n_dust"], _bump_strength(values["n_dust"]))


class SmallMagellanicCloud(Screen):
    """Diffuse dust in front of all stars with the Small Magellanic Cloud's extinction: steep, without a bump (Pei 1992)."""

    name = "smc"
    parameters = tuple(parameter for parameter in KriekConroy.parameters if parameter.name == "tau_ism")
    covers = "all stars"

    def curves(
        self, wavelength: Float[Tensor, "*batch wavelength"], piece: Int[Tensor, "*#batch wavelength"]
    ) -> Curves:
        """Return A(lambda) / A(5500 A), equation 20: smooth, so there are no pieces."""
        reference = wavelength.new_tensor([_REFERENCE_A])
        return (_smc(wavelength) / _smc(reference),)

    def transmission(self, values: Values, curves: Curves) -> Float[Tensor, "*batch wavelength"]:
        """Return exp(-tau_ism A(lambda) / A(5500 A)), what every star's light is multiplied with."""
        return torch.mul(-values["tau_ism"].unsqueeze(-1), curves[0]).exp_()

    def optical_depth(self, values: Values) -> OpticalDepth:
        """Return tau_ism, of a curve that all galaxies share."""
        return OpticalDepth(values["tau_ism"])


def _bump_strength(n_dust: Tensor) -> Tensor:
    """Return the amplitude of the 2175 A bump, which is tied to the slope (Kriek & Conroy 2013)."""
    return 0.85 - 1.9 * n_dust


def _smc(wavelength: Float[Tensor, "*batch wavelength"]) -> Float[Tensor, "*batch wavelength"]:
    um = wavelength / 1e4
    terms = [a / ((um / at) ** n + (at / um) ** n + b) for a, at, b, n in _SMC_TERMS]
    return torch.stack(terms).sum(0)


def drude(wavelength: Float[Tensor, "*batch wavelength"]) -> Float[Tensor, "*batch wavelength"]:
    """Return the profile of the 2175 A bump, unit amplitude, width 350 A (Fitzpatrick & Massa 1990)."""
    width2 = (350.0 * wavelength) ** 2
    return width2 / ((wavelength**2 - 2175.0**2) ** 2 + width2)
