"""The fast exact sampler of a masked autoregressive flow: base points and features in, draws and log-probabilities out.

The textbook inverse runs the whole network once per dimension. A MADE's hidden unit of degree d sees the inputs 1..d
only, so with units sorted by degree one pass fills the layers block by block: the same numbers, a triangular product's work.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
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
    middle: int
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
        self._spare: list[list[Tensor]] = []  # buffers that no thread uses now: fresh pages cost up to 8 % of a call

    def __call__(
        self, base: Float[Tensor, "galaxy draw dimension"], x: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map standard-normal base points to as many draws of each galaxy's posterior; see `rows`."""
        galaxy = torch.arange(len(base)).repeat_interleave(base.shape[1])
        phi, log_q = self.rows(base.flatten(0, 1), x, galaxy)
        return phi.view(base.shape), log_q.view(base.shape[:2])

    def rows(
        self, base: Float[Tensor, "row dimension"], x: Float[Tensor, "galaxy feature"], galaxy: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, " row"]]:
        """Map standard-normal base points to draws in probit space from the posterior of each row's ``galaxy``.

        Every one of PyTorch's threads takes its share of the rows.

        Returns:
            draws, and log q of each given its galaxy's features.
        """
        phi, log_q = torch.empty_like(base), base.new_empty(len(base))
        threads = torch.get_num_threads()
        size = -(-len(base) // threads)
        shares = [slice(start, min(start + size, len(base))) for start in range(0, len(base), max(size, 1))]

        def work(share: slice) -> None:
            self._share(base[share], x, galaxy[share], phi[share], log_q[share])

        if len(shares) < 2:
            for share in shares:
                work(share)
            return phi, log_q
        # A thread for a share of the rows, not for a share of each small product, which costs a third (RESULTS.md).
        with ThreadPoolExecutor(len(shares), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, shares))
        torch.set_num_threads(threads)  # the threads' own number is also what threads born later would begin with
        return phi, log_q

    @torch.no_grad()
    def _share(self, base: Tensor, x: Tensor, galaxy: Tensor, phi: Tensor, log_q: Tensor) -> None:
        """Fill ``phi`` and ``log_q``, a chunk of rows at a time in the same buffers."""
        if not len(base):
            return
        size = -(-len(base) // -(-len(base) // self.chunk))  # equal chunks
        try:
            buffers = self._spare.pop()
        except IndexError:
            buffers = self._allocate()
        units = 1 + self._blocks[0].output.shape[1]
        layers = [buffer[: units * _stride(size)].view(units, -1) for buffer in buffers]
        for start in range(0, len(base), size):
            rows = slice(start, start + size)
            present, index = galaxy[rows].unique(return_inverse=True)
            used = [layer[:, : len(index)] for layer in layers]
            for layer in used:
                layer[0] = 1.0
            values, log_scale = self._invert(base[rows].T.contiguous(), x[present], index, used)
            phi[rows] = values.T
            normal = -0.5 * (base[rows] ** 2).sum(-1) - 0.5 * self.dimensions * math.log(2 * math.pi)
            log_q[rows] = normal + log_scale
        self._spare.append(buffers)

    def _allocate(self) -> list[Tensor]:
        """Memory of the layers of one chunk."""
        n_hidden = self._blocks[0].output.shape[1]
        kinds = [*(self.precision for _ in self._blocks[0].hidden), torch.float32]
        return [torch.empty((1 + n_hidden) * _stride(self.chunk), dtype=kind) for kind in kinds]

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
                    first = torch.index_select(context[done:end], 1, galaxy)
                    first.addmm_(block.inputs[done:end, : d + 1], out[: d + 1])
                    _fill(block, layers, first, done, end)
                    later = slice(2 * d + 2, None)
                    raw[later].addmm_(block.output[later, done:end], layers[-1][1 + done : 1 + end])
                    done = end
            log_scale += torch.log(scales).sum(0)
            values = out
        return values, log_scale


def _stride(rows: int) -> int:
    """Length of a buffer's row: rows begin on cache lines, and not all in the same set of the first cache."""
    return 16 * (-(-rows // 16) | 1)


def _fill(block: _SortedBlock, layers: list[Tensor], first: Tensor, start: int, end: int) -> None:
    """Fill hidden units ``start`` to ``end`` of every layer from earlier units and the first layer's sums ``first``."""
    units = slice(1 + start, 1 + end)
    torch.sub(first.sigmoid_(), 0.5, out=layers[0][units])
    for weight, layer, above in zip(block.hidden, layers, layers[1:], strict=False):
        target = above[units]
        if layer.dtype != above.dtype:
            target.copy_(torch.mm(weight[start:end, : 1 + end], layer[: 1 + end]))
        elif start < block.middle or layer.dtype != torch.float32:
            torch.mm(weight[start:end, : 1 + end], layer[: 1 + end], out=target)
        else:
            if start == block.middle:  # what the first half gives to the second, in one large product
                torch.mm(weight[start:, : 1 + start], layer[: 1 + start], out=above[1 + start :])
            target.addmm_(weight[start:end, 1 + block.middle : 1 + end], layer[1 + block.middle : 1 + end])
        target.sigmoid_().sub_(0.5)


def _sort(block: Block, dimensions: int, precision: torch.dtype) -> _SortedBlock:
    order = torch.argsort(block.degrees, stable=True)
    ends = tuple(int(n) for n in torch.bincount(block.degrees, minlength=dimensions).cumsum(0))
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
        ends=ends,
        middle=ends[len(ends) // 2],
        inverse_permutation=torch.argsort(block.permutation),
    )
