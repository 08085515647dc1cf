"""Emission of dust: it radiates, in the infrared, the energy that screens took from starlight and from the gas's light.

Source: Draine & Li 2007 (astro-ph/0608003): a share gamma of the dust's mass is heated by a power law of intensities of
starlight from U_min to 10^6, the rest by U_min alone; q_PAH is the percentage of its mass in PAHs.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.parameters import Values
from sedflow_dist.priors import LogUniform, Uniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps.components import Reemission
from sedflow_dist.sps.ssp import SSPTable


class DustEmission(Reemission):
    """Dust of Draine & Li 2007, with Prospector's priors (Leja et al. 2017); no emission beyond what was absorbed."""

    name = "dust_emission"
    parameters = (
        Parameter(
            "u_min", "1", "lowest intensity of starlight that heats the dust, of the solar neighbourhood's",
            r"$U_{\rm min}$", "phys.radiation", prior=Uniform(low=0.1, high=25), domain=(0.1, 25.0),
        ),
        Parameter(
            "q_pah", "%", "percentage of the dust's mass in PAHs", r"$q_{\rm PAH}$", "phys.abund",
            prior=Uniform(low=0.5, high=4.58), domain=(0.47, 4.58),
        ),
        Parameter(
            "gamma_dust", "1", "fraction of the dust's mass heated by more than the lowest intensity",
            r"$\gamma_{\rm dust}$", "arith.ratio", prior=LogUniform(low=1e-3, high=0.15), domain=(0.0, 1.0),
        ),
    )  # fmt: skip
    needs = ("dust",)

    def templates(self, ssp: SSPTable) -> Float[np.ndarray, "row pixel"]:
        """Return the library's spectra on the table's pixels [1/A]: rows are (kind, q_PAH, U_min)."""
        assert ssp.dust is not None
        return ssp.dust.spectra.reshape(-1, len(ssp.wavelength))

    def mixture(self, ssp: SSPTable, values: Values) -> tuple[Int[Tensor, "*batch part"], Float[Tensor, "*batch part"]]:
        """Return the eight rows around (q_PAH, U_min) of both kinds, and the share of the energy that each radiates.

        Emission per hydrogen is interpolated, linearly in both, so the shares are weights times power.
        """
        library = ssp.dust
        assert library is not None
        u_row, u_share = _between(library.u_min, values["u_min"])
        q_row, q_share = _between(library.q_pah, values["q_pah"])
        gamma = values["gamma_dust"]
        kind_share = torch.stack([1 - gamma, gamma], -1)
        n_q, n_u = len(library.q_pah), len(library.u_min)
        kinds = torch.arange(2)[:, None, None] * (n_q * n_u)
        rows = (kinds + q_row[..., None, :, None] * n_u + u_row[..., None, None, :]).flatten(-3)
        mass = (kind_share[..., :, None, None] * q_share[..., None, :, None] * u_share[..., None, None, :]).flatten(-3)
        power = torch.as_tensor(library.power.reshape(-1), dtype=mass.dtype)[rows] * mass
        return rows, power / power.sum(-1, keepdim=True)


def _between(
    nodes: np.ndarray, value: Float[Tensor, "*batch"]
) -> tuple[Int[Tensor, "*batch 2"], Float[Tensor, "*batch 2"]]:
    """Return the nodes around values and their shares, of linear interpolation."""
    x = torch.as_tensor(nodes, dtype=value.dtype)
    right = torch.searchsorted(x, value.contiguous()).clamp_(1, len(nodes) - 1)
    t = ((value - x[right - 1]) / (x[right] - x[right - 1])).clamp_(0, 1)
    return torch.stack([right - 1, right], -1), torch.stack([1 - t, t], -1)
