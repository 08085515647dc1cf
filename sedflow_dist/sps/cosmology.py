"""Ages and distances: Planck13 (Planck Collaboration 2014, arXiv 1303.5076), as PROVABGS uses it."""

from __future__ import annotations

import numpy as np
from astropy.cosmology import Planck13
from jaxtyping import Float

_MPC_CM = 3.0856775814913673e24
#: Solar luminosity [erg/s] in which the SSP spectra are expressed.
LSUN_ERG_S = 3.839e33


def age_gyr(z: Float[np.ndarray, "*batch"] | float) -> Float[np.ndarray, "*batch"] | float:
    """Return the age of the Universe [Gyr] at redshift ``z``."""
    return Planck13.age(z).value


def comoving_distance_mpc(z: Float[np.ndarray, "*batch"] | float) -> Float[np.ndarray, "*batch"] | float:
    """Return the comoving distance [Mpc] at redshift ``z``; d_L = (1 + z) times this."""
    return Planck13.comoving_distance(z).value


def comoving_volume_mpc3(z: Float[np.ndarray, "*batch"] | float) -> Float[np.ndarray, "*batch"] | float:
    """Return the comoving volume of the whole sky per unit of redshift, dV/dz [Mpc^3], at redshift ``z``."""
    return 4 * np.pi * Planck13.differential_comoving_volume(z).value


def flux_factor(
    z: Float[np.ndarray, "*batch"] | float, comoving_mpc: Float[np.ndarray, "*batch"] | float
) -> Float[np.ndarray, "*batch"] | float:
    """Return Lsun / (4 pi d_L^2 (1+z)) in nanomaggies' unit: from Lsun/A to 1e9 erg/s/cm2/A at the observer."""
    d_l = (1 + z) * comoving_mpc * _MPC_CM
    return 1e9 * LSUN_ERG_S / (4 * np.pi * d_l**2 * (1 + z))


#: The same factor for a source at 10 pc and z = 0: absolute magnitudes.
ABSOLUTE_FACTOR = 1e9 * LSUN_ERG_S / (4 * np.pi * (1e-5 * _MPC_CM) ** 2)
