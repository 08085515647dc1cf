"""The fast exact sampler of a masked autoregressive flow: base points and features in, draws and log-probabilities out.

The textbook inverse runs the whole network once per dimension. A MADE's hidden unit of degree d sees the inputs 1..d
only, so with units sorted by degree one pass fills the layers block by block: the same numbers, a triangular product's work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from sedflow_dist.network import SCALE_FLOOR, Block

#: Bytes of hidden units that are worked on at once: large enough for fast products, small enough for the last-level cache.
WORKING_SET = 16_000_000


@dataclass(frozen=True)
class _SortedBlock:
    """A masked MADE with hidden units sorted by degree; ``ends[d]`` units have degree <= d.

    Hidden layers hold sigmoid - 1/2 of a unit, which is tanh / 2, below a row of ones that the first column of ``hidden``,
    the bias, multiplies. ``output``: (2 dimensions, unit), ``output_bias``: (2 dimensions, 1); scale and shift, paired.
    """

    inputs: Tensor
    bias: Tensor
    context: Tensor
    context_bias: Tensor
    hidden: tuple[Tensor, ...]
    output: Tensor
    output_bias: Tensor
    ends: tuple[int, ...]
    inverse_permutation: Tensor


class Sampler:
    """Draw from a flow given its masked weights (`network.blocks`).

    Args:
        masked: the flow's blocks
        precision: of the products between hidden layers; everything else is float32
        working_set: bytes of hidden units worked on at once
    """

    def __init__(
        self, masked: list[Block], precision: torch.dtype = torch.float32, working_set: int = WORKING_SET
    ) -> None:
        self.dimensions = masked[0].inputs.shape[1]
        self.precision = precision
        self._blocks = [_sort(block, self.dimensions, precision) for block in masked]
        n_hidden, n_layers = len(masked[0].bias), 1 + len(masked[0].hidden)
        self.chunk = max(working_set // (4 * n_layers * (n_hidden + 1)), 64)

    def __call__(
        self, base: Float[Tensor, "galaxy draw dimension"], x: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map standard-normal base points to as many draws of each galaxy's posterior; see `rows`."""
        galaxy = torch.arange(len(base)).repeat_interleave(base.shape[1])
        phi, log_q = self.rows(base.flatten(0, 1), x, galaxy)
        return phi.view(base.shape), log_q.view(base.shape[:2])

    @torch.no_grad()
    def rows(
        self, base: Float[Tensor, "row dimension"], x: Float[Tensor, "galaxy feature"], galaxy: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, " row"]]:
        """Map standard-normal base points to draws in probit space from the posterior of each row's ``galaxy``.

        Returns:
            draws, and log q of each given its galaxy's features.
        """
        n_hidden = self._blocks[0].output.shape[1]
        widest = min(self.chunk, len(base))
        kinds = [*(self.precision for _ in self._blocks[0].hidden), torch.float32]
        layers = [torch.ones(1 + n_hidden, widest, dtype=kind) for kind in kinds]
        phi, log_q = torch.empty_like(base), base.new_empty(len(base))
        for start in range(0, len(base), self.chunk):
            rows = slice(start, start + self.chunk)
            present, index = galaxy[rows].unique(return_inverse=True)
            used = [layer[:, : len(index)] for layer in layers]
            values, log_scale = self._invert(base[rows].T.contiguous(), x[present], index, used)
            phi[rows] = values.T
            normal = -0.5 * (base[rows] ** 2).sum(-1) - 0.5 * self.dimensions * math.log(2 * math.pi)
            log_q[rows] = normal + log_scale
        return phi, log_q

    def _invert(self, values: Tensor, x: Tensor, galaxy: Tensor, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Invert all blocks for columns of ``values`` (dimension, row)."""
        log_scale = values.new_zeros(values.shape[1])
        for block in reversed(self._blocks):
            values = values[block.inverse_permutation]
            context = torch.sigmoid(torch.addmm(block.context_bias, x, block.context.T))
            context = (4 * context + block.bias).T.contiguous()  # (hidden, galaxy)
            out = torch.empty_like(values)
            raw = block.output_bias.repeat(1, values.shape[1])
            scales = torch.empty_like(values)
            done = 0
            for d in range(self.dimensions):
                # Scale and shift of input d come from hidden units of degree <= d, all filled by now.
                torch.add(softplus(raw[2 * d]), SCALE_FLOOR, out=scales[d])
                torch.div(values[d] - raw[2 * d + 1], scales[d], out=out[d])
                end = block.ends[d + 1] if d + 1 < len(block.ends) else len(context)
                if end > done:
                    self._fill(block, layers, context, galaxy, out[: d + 1], done, end)
                    later = slice(2 * d + 2, None)
                    raw[later].addmm_(block.output[later, done:end], layers[-1][1 + done : 1 + end])
                    done = end
            log_scale += torch.log(scales).sum(0)
            values = out
        return values, log_scale

    @staticmethod
    def _fill(
        block: _SortedBlock, layers: list[Tensor], context: Tensor, galaxy: Tensor, known: Tensor, start: int, end: int
    ) -> None:
        """Fill hidden units ``start`` to ``end`` of every layer: they see the known inputs and earlier units only."""
        units = slice(1 + start, 1 + end)
        first = torch.index_select(context[start:end], 1, galaxy)
        first.addmm_(block.inputs[start:end, : len(known)], known)
        layers[0][units] = first.sigmoid_().sub_(0.5)
        for i, weight in enumerate(block.hidden):
            target = layers[i + 1][units]
            if layers[i].dtype == target.dtype:
                torch.mm(weight[start:end, : 1 + end], layers[i][: 1 + end], out=target)
            else:
                target.copy_(torch.mm(weight[start:end, : 1 + end], layers[i][: 1 + end]))
            target.sigmoid_().sub_(0.5)


def _sort(block: Block, dimensions: int, precision: torch.dtype) -> _SortedBlock:
    order = torch.argsort(block.degrees, stable=True)
    counts = torch.bincount(block.degrees, minlength=dimensions)
    # Layers hold sigmoid - 1/2: half of every weight's sum moves into the bias.
    hidden = tuple(
        torch.cat([(b + 0.5 * w.sum(1))[order, None], w[order][:, order]], 1).detach().to(precision)
        for w, b in block.hidden
    )
    weight, bias = block.output
    return _SortedBlock(
        inputs=block.inputs[order].detach().contiguous(),
        bias=block.bias[order].detach(),
        context=block.context[order].detach().contiguous(),
        context_bias=block.context_bias[order].detach(),
        hidden=hidden,
        output=weight[:, order].detach().contiguous(),
        output_bias=(bias + 0.5 * weight.sum(1)).detach().unsqueeze(1),
        ends=tuple(int(n) for n in counts.cumsum(0)),
        inverse_permutation=torch.argsort(block.permutation),
    )
