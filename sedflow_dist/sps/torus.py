"""Emission of the dusty torus around an active nucleus: a fraction of the stars' luminosity, as FSPS has it.

Source: Nenkova et al. 2008 (arXiv 0806.0511, 0806.0512); FSPS's `agn_dust.f90` and Leja et al. 2018 (arXiv 1709.04469), whose
priors these are.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.parameters import Values
from sedflow_dist.priors import LogUniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps.components import Light, Source
from sedflow_dist.sps.libraries import hat
from sedflow_dist.sps.populations import Epoch, Populations
from sedflow_dist.sps.stars import Stars


class Torus(Source):
    """The torus' infrared light, outside birth clouds and behind the diffuse dust.

    As in FSPS, what that dust takes of it does not heat the dust: it is in no cell of energy.
    """

    name = "torus"
    parameters = (
        Parameter(
            "f_agn", "1", "luminosity of the active nucleus' torus, of the stars' bolometric luminosity",
            r"$f_{\rm AGN}$", "arith.ratio;phys.luminosity", prior=LogUniform(low=1e-5, high=3), domain=(0.0, math.inf),
        ),
        Parameter(
            "tau_agn", "1", "optical depth at 5500 A of one of the clouds in the torus", r"$\tau_{\rm AGN}$",
            "phys.absorption.opticalDepth", prior=LogUniform(low=5, high=150), domain=(5.0, 150.0),
        ),
    )  # fmt: skip
    needs = ("torus",)

    def light(self, stars: Stars) -> Light:
        """Return the library's spectra, and how much of each the galaxies have: linear between optical depths."""
        library = stars.ssp.torus
        assert library is not None
        cells = 0 if stars.ssp.bolometric is None else len(stars.ssp.bolometric.wavelength)
        table = stars.rows_of_nodes(library.luminosity[..., None])
        inside, outside = stars.bins_in_clouds(table), stars.bins_outside(table)
        tau = library.tau

        def weights(
            values: Values, populations: Populations, shares: Float[Tensor, "*batch population metallicity"], _: Epoch
        ) -> Tensor:
            of_stars = stars.sum(True, inside, table, populations, shares)
            of_stars = of_stars + stars.sum(False, outside, table, populations, shares)
            return values["f_agn"].unsqueeze(-1) * of_stars * hat(tau, values["tau_agn"])

        return Light(stars.tensor(np.pad(library.spectra, ((0, 0), (0, cells)))), weights, numbers=4 + 2 * len(tau))
