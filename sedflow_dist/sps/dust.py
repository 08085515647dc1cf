"""Dust attenuation: wavelengths [A] and optical depths in, transmitted fractions out.

FSPS's ``dust_type=4``: Kriek & Conroy 2013 (arXiv 1308.1099, equations 1-4) on Calzetti et al. 2000 for all stars;
a power law of slope -1 for stars still in their birth clouds (Charlot & Fall 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: Where Calzetti's blue formula ends and the red one begins, and where that falls to zero and stays there [A].
CALZETTI_BREAKS_A = (6300.0, 1.04e4 / (1.857 - 1.78 / 1.17))
_REFERENCE_A = 5500.0
_R_V = 4.05


@dataclass(frozen=True)
class DustCurves:
    """The parts of the attenuation law that depend on the wavelength alone, each of shape (..., wavelength).

    ``calzetti``: k_C00 / (0.44 R_V); ``bump``: Drude profile of unit amplitude / R_V; ``log_wavelength``:
    ln(lambda / 5500 A); ``birth_cloud``: (lambda / 5500 A)^-1.
    """

    calzetti: Tensor
    bump: Tensor
    log_wavelength: Tensor
    birth_cloud: Tensor

    @classmethod
    def at(cls, wavelength: Tensor, piece: Tensor | None = None) -> DustCurves:
        """Evaluate the curves at ``wavelength`` [A]; computed in float64, returned in the dtype that came in.

        Calzetti's two formulas do not quite meet at 6300 A. ``piece`` says where to use the blue one (0), the red one (1)
        or zero (2), on either side of the breaks; without it, the wavelength decides.
        """
        lam = wavelength.double()
        if piece is None:
            piece = torch.bucketize(lam, torch.tensor(CALZETTI_BREAKS_A, dtype=torch.float64), right=True)
        um = lam / 1e4
        blue_formula = 1.17 * (-2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3) + 1.78
        red_formula = 1.17 * (-1.857 + 1.04 / um) + 1.78
        calzetti = torch.where(piece == 0, blue_formula, torch.where(piece == 1, red_formula, 0.0)) / (0.44 * _R_V)
        width2 = (350.0 * lam) ** 2
        bump = width2 / ((lam**2 - 2175.0**2) ** 2 + width2) / _R_V
        curves = (calzetti, bump, torch.log(lam / _REFERENCE_A), _REFERENCE_A / lam)
        return cls(*(c.to(wavelength.dtype) for c in curves))

    def diffuse(
        self, tau_ism: Float[Tensor, "*batch"], n_dust: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch wavelength"]:
        """Return exp(-tau_ism k(lambda; n_dust)), what every star's light is multiplied with."""
        bump_strength = (0.85 - 1.9 * n_dust).unsqueeze(-1)
        curve = torch.exp(n_dust.unsqueeze(-1) * self.log_wavelength)
        curve.mul_(torch.addcmul(self.calzetti, bump_strength, self.bump))
        return curve.mul_(-tau_ism.unsqueeze(-1)).exp_()

    def clouds(self, tau_bc: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch wavelength"]:
        """Return exp(-tau_bc (lambda / 5500 A)^-1), the extra factor of stars in their birth clouds."""
        return torch.mul(-tau_bc.unsqueeze(-1), self.birth_cloud).exp_()
