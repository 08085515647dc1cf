"""The fast exact sampler of a masked autoregressive flow: base points and features in, draws and log-probabilities out.

The textbook inverse runs the whole network once per dimension. A MADE's hidden unit of degree d sees the inputs 1..d
only, so with units sorted by degree one pass fills the layers block by block: the same numbers, a triangular product's work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from sedflow_dist.network import SCALE_FLOOR, Block

#: Draws worked on at once: the layers of one MADE (128 units) then fit a core's cache.
_CHUNK = 4096


@dataclass(frozen=True)
class _SortedBlock:
    """A masked MADE with hidden units sorted by degree; ``ends[d]`` units have degree <= d."""

    inputs: Tensor
    bias: Tensor
    context: Tensor
    context_bias: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...]
    output: tuple[Tensor, Tensor]
    ends: tuple[int, ...]
    inverse_permutation: Tensor


class Sampler:
    """Draw from a flow given its masked weights (`network.blocks`)."""

    def __init__(self, masked: list[Block]) -> None:
        self.dimensions = masked[0].inputs.shape[1]
        self._blocks = [_sort(block, self.dimensions) for block in masked]

    @torch.no_grad()
    def __call__(
        self, base: Float[Tensor, "galaxy draw dimension"], x: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map standard-normal base points to draws of each galaxy's posterior in probit space.

        Returns:
            draws, and log q of each given its galaxy's features.
        """
        n_galaxy, n_draw, n_dim = base.shape
        phi = torch.empty_like(base)
        log_q = base.new_empty(n_galaxy, n_draw)
        step = max(_CHUNK // n_draw, 1)
        for start in range(0, n_galaxy, step):
            rows = slice(start, start + step)
            values, log_scale = self._invert(base[rows].reshape(-1, n_dim).T.contiguous(), x[rows])
            phi[rows] = values.T.reshape(-1, n_draw, n_dim)
            normal = -0.5 * (base[rows] ** 2).sum(-1) - 0.5 * n_dim * math.log(2 * math.pi)
            log_q[rows] = normal + log_scale.view(-1, n_draw)
        return phi, log_q

    def _invert(self, values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Invert all blocks for columns of ``values`` (dimension, row); rows run over (galaxy, draw)."""
        n_rows = values.shape[1]
        log_scale = values.new_zeros(n_rows)
        for block in reversed(self._blocks):
            values = values[block.inverse_permutation]
            context = torch.sigmoid(torch.addmm(block.context_bias, x, block.context.T))
            context = (4 * context + block.bias).T.contiguous()  # (hidden, galaxy)
            n_hidden = len(block.bias)
            layers = [values.new_empty(n_hidden, n_rows) for _ in range(1 + len(block.hidden))]
            out = torch.empty_like(values)
            weight, bias = block.output
            done = 0
            for d in range(self.dimensions):
                # Scale and shift of input d come from hidden units of degree <= d, all filled by now.
                raw = torch.addmm(bias[2 * d : 2 * d + 2, None], weight[2 * d : 2 * d + 2, :done], layers[-1][:done])
                scale = softplus(raw[0]) + SCALE_FLOOR
                torch.div(values[d] - raw[1], scale, out=out[d])
                log_scale += torch.log(scale)
                end = block.ends[d + 1] if d + 1 < len(block.ends) else n_hidden
                if end > done:
                    self._fill(block, layers, context, out[: d + 1], done, end)
                    done = end
            values = out
        return values, log_scale

    @staticmethod
    def _fill(block: _SortedBlock, layers: list[Tensor], context: Tensor, known: Tensor, start: int, end: int) -> None:
        """Fill hidden units ``start`` to ``end`` of every layer: they see the known inputs and earlier units only."""
        n_galaxy = context.shape[1]
        first = layers[0][start:end]
        torch.mm(block.inputs[start:end, : len(known)], known, out=first)
        first.view(end - start, n_galaxy, -1).add_(context[start:end].unsqueeze(-1))
        first.sigmoid_()
        for i, (weight, bias) in enumerate(block.hidden):
            target = layers[i + 1][start:end]
            torch.addmm(bias[start:end, None], weight[start:end, :end], layers[i][:end], out=target)
            target.sigmoid_()


def _sort(block: Block, dimensions: int) -> _SortedBlock:
    order = torch.argsort(block.degrees, stable=True)
    counts = torch.bincount(block.degrees, minlength=dimensions)
    hidden = tuple((w[order][:, order].detach().contiguous(), b[order].detach()) for w, b in block.hidden)
    weight, bias = block.output
    return _SortedBlock(
        inputs=block.inputs[order].detach().contiguous(),
        bias=block.bias[order].detach(),
        context=block.context[order].detach().contiguous(),
        context_bias=block.context_bias[order].detach(),
        hidden=hidden,
        output=(weight[:, order].detach().contiguous(), bias.detach()),
        ends=tuple(int(n) for n in counts.cumsum(0)),
        inverse_permutation=torch.argsort(block.permutation),
    )
