"""The flow of residuals: a masked autoregressive flow over bands that begins as the Gaussian likelihood itself.

In: residuals in units of their uncertainties, (row, band), NaN where a band is not measured, and a context (row, feature).
Out: ln q of the measured ones, or how much more likely they are than under N(0, I).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sedflow_dist.flow import maf
from sedflow_dist.flow.maf_flow import MAFSettings, MaskedAutoregressiveFlow

#: The one float32 whose softplus and the floor of scales add up to 1, to the last bit.
_UNIT_SCALE = 0.5397424697875977
_HIDDEN_BYTES = 4 * 8  # a row and hidden unit: layers, their sums and what PyTorch keeps of them


class ResidualSettings(MAFSettings):
    """Size of the flow of residuals."""


class ResidualFlow(MaskedAutoregressiveFlow):
    """A density of normalised residuals given a context: N(0, I) as long as nothing was learnt, exactly.

    A band that is not measured passes all blocks as 0 with scale 1, so what is left is a normalised density of the others:
    each depends on measured bands before it alone.
    """

    Settings = ResidualSettings

    def __init__(self, bands: int, features: int, settings: ResidualSettings, seed: int) -> None:
        super().__init__(bands, features, settings, seed)
        with torch.no_grad():
            net: Any = self.net
            for transform in list(net._transform._transforms)[::2]:
                last = transform.autoregressive_net.final_layer
                nn.init.zeros_(last.weight)
                last.bias.copy_(torch.tensor([_UNIT_SCALE, 0.0]).repeat(bands))

    def log_prob(
        self, phi: Float[Tensor, "row dimension"], context: Float[Tensor, "row feature"]
    ) -> Float[Tensor, " row"]:
        """Return ln q of the measured residuals ``phi``."""
        squares = phi.nan_to_num(nan=0.0).square().sum(1)
        constants = (~torch.isnan(phi)).sum(1) * (0.5 * math.log(2 * math.pi))
        return self.log_ratio(phi, context) - 0.5 * squares - constants

    def log_ratio(
        self, residual: Float[Tensor, "row band"], context: Float[Tensor, "row feature"]
    ) -> Float[Tensor, " row"]:
        """Return ln of q(residual | context) over N(residual; 0, I), of measured bands."""
        measured = ~torch.isnan(residual)
        start = phi = residual.where(measured, 0.0)
        log_det = phi.new_zeros(len(phi))
        for block in maf.blocks(self):
            scale, shift = maf.scale_and_shift(block, phi, context)
            scale, shift = scale.where(measured, 1.0), shift.where(measured, 0.0)
            log_det = log_det + torch.log(scale).sum(1)
            # What the residuals were goes along, so that squares cancel band by band.
            phi, start, measured = (x[:, block.permutation] for x in (scale * phi + shift, start, measured))
        return log_det + 0.5 * (start**2 - phi**2).sum(1)

    def memory(self, n_rows: int) -> int:
        """Return the most bytes that so many rows need, beside the arguments."""
        return n_rows * (_HIDDEN_BYTES * self.settings.hidden + 4 * (12 * self.dimensions + 6 * self.features))
