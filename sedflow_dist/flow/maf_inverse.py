"""The fast exact sampler of a masked autoregressive flow: base points and features in, draws and log-probabilities out.

The textbook inverse runs the whole network once per dimension. A MADE's hidden unit of degree d sees the inputs 1..d
only, so with units sorted by degree one pass fills the layers block by block: the same numbers, a triangular product's work.
It is compiled (`maf_compiled`); where there is no library for the processor, or on a GPU, PyTorch's operators do it.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, softplus

from sedflow_dist.flow import maf_compiled
from sedflow_dist.flow.maf import SCALE_FLOOR, Block

#: Bytes of hidden units that operators work on at once: large enough for fast products, small enough for the last-level cache.
WORKING_SET = 16_000_000

_PIECES, _LEAST = 4, 2048  # rows are split over threads in as many pieces or more, unless they would be shorter
#: Rows of a piece: more gain nothing, and processes side by side drive each other out of the last-level cache.
_MOST = 2560
_GALAXIES = 16  # the first layer is summed for as many or more: a product for one or two would round otherwise


class _Product(NamedTuple):
    """``weight`` times rows ``source`` of a layer is, or with ``adds`` is added to, rows ``target`` of the next."""

    weight: Tensor
    source: slice
    target: slice
    adds: bool


class _Step(NamedTuple):
    """Weights of the hidden units of one degree: rows ``units`` of the layers, which the inputs so far let us fill."""

    units: slice
    inputs: Tensor
    hidden: tuple[tuple[_Product, ...], ...]
    output: Tensor


@dataclass(frozen=True)
class _SortedBlock:
    """A masked MADE, hidden units sorted by degree; ``steps[d]`` follows input d, None where no unit has its degree.

    Hidden layers hold sigmoid - 1/2 of a unit, which is tanh / 2, below a row of ones that the first column of their
    weights, the bias, multiplies. ``output_bias``: (2 dimensions, 1); scale and shift, paired.
    """

    bias: Tensor
    context: Tensor
    context_bias: Tensor
    output_bias: Tensor
    steps: tuple[_Step | None, ...]
    inverse_permutation: Tensor


class Sampler:
    """Draw from a flow given its masked weights (`maf.blocks`).

    Args:
        masked: the flow's blocks
        working_set: bytes of hidden units that operators work on at once
        compiled: False: by operators, whatever there is
    """

    def __init__(self, masked: list[Block], working_set: int = WORKING_SET, compiled: bool = True) -> None:
        self.dimensions, self._device = masked[0].inputs.shape[1], masked[0].inputs.device
        if any(not torch.equal(block.degrees, masked[0].degrees) for block in masked):
            raise ValueError("the blocks' hidden units have different degrees; sbi's MAF gives all blocks the same")
        order = torch.argsort(masked[0].degrees, stable=True)
        ends = [int(n) for n in torch.bincount(masked[0].degrees, minlength=self.dimensions + 1)[1:].cumsum(0)]
        ends = [*ends[: self.dimensions - 1], len(order)]
        self._compiled = maf_compiled.prepare(masked, order, ends) if compiled else None
        self._blocks = [] if self._compiled else [_sort(block, order, ends) for block in masked]
        self._units, self._layers = 1 + len(order), 1 + len(masked[0].hidden)
        most = working_set // (4 * self._units * self._layers)
        self.chunk = max(min(most, _MOST) // 64 * 64, 64)
        self._spare: list[list[Tensor]] = []  # buffers that no thread uses now: fresh pages cost up to 8 % of a call

    def memory(self, n_rows: int) -> int:
        """Return the most bytes that a call needs beside its arguments: the layers of one chunk a thread, and the rows."""
        rows = self._piece(n_rows)
        if self._compiled:
            a_thread = self._compiled.memory(min(rows, n_rows)) + 32 * rows
        else:
            a_thread = 4 * self._units * _stride(rows) * self._layers + 4 * _stride(rows) * (
                self._units + 8 * self.dimensions
            )
        return torch.get_num_threads() * a_thread + 4 * n_rows * (2 * self.dimensions + 8)

    def __call__(
        self, base: Float[Tensor, "galaxy draw dimension"], x: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map standard-normal base points to as many draws of each galaxy's posterior; see `rows`."""
        galaxy = torch.arange(len(base), device=base.device).repeat_interleave(base.shape[1])
        phi, log_q = self.rows(base.flatten(0, 1), x, galaxy)
        return phi.view(base.shape), log_q.view(base.shape[:2])

    @torch.no_grad()
    def rows(
        self, base: Float[Tensor, "row dimension"], x: Float[Tensor, "galaxy feature"], galaxy: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, " row"]]:
        """Map standard-normal base points to draws in probit space from the posterior of each row's ``galaxy``.

        PyTorch's threads take chunks of rows. Chunks follow from the number of rows alone and each is the work of one
        thread, so the numbers do not depend on the number of threads.

        Returns:
            draws, and log q of each given its galaxy's features.
        """
        base = base.contiguous()
        phi, log_q = torch.empty_like(base), base.new_empty(len(base))
        size = self._piece(len(base))
        chunks = [slice(start, start + size) for start in range(0, len(base), size)]

        def work(rows: slice) -> None:
            self._chunk(base[rows], x, galaxy[rows], phi[rows], log_q[rows])

        threads = torch.get_num_threads()
        if threads == 1:
            for rows in chunks:
                work(rows)
            return phi, log_q
        # Threads share the chunks, not each small product, which would cost a third (benchmarks/RESULTS.md).
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, chunks))
        torch.set_num_threads(threads)  # what a thread sets for itself is also what those born later begin with
        return phi, log_q

    @torch.no_grad()
    def _chunk(self, base: Tensor, x: Tensor, galaxy: Tensor, phi: Tensor, log_q: Tensor) -> None:
        """Fill ``phi`` and ``log_q`` of some rows."""
        present, index = galaxy.unique(return_inverse=True)
        x = x[present]
        if self._compiled:
            self._compiled(base, x, index, phi, log_q)
        else:
            x = pad(x, (0, 0, 0, max(_GALAXIES - len(present), 0)))
            draws, buffers = len(base) // max(len(present), 1), self._buffers(len(base))
            in_turn = torch.arange(len(present), device=x.device).repeat_interleave(draws)
            draws = draws if torch.equal(index, in_turn) else 0
            values, log_scale = self._invert(base.T.contiguous(), x, index, draws, buffers)
            self._spare.append(buffers)
            phi.copy_(values.T)
            log_q.copy_(log_scale)
        log_q.sub_(0.5 * (base**2).sum(-1)).sub_(0.5 * self.dimensions * math.log(2 * math.pi))

    def _piece(self, n_rows: int) -> int:
        """Return how many of so many rows are worked on at once."""
        pieces = max(-(-n_rows // self.chunk), min(n_rows // _LEAST, _PIECES), 1)
        return max(-(-n_rows // pieces), 1)

    def _buffers(self, rows: int) -> list[Tensor]:
        """Return layers of as many rows or more, spare ones if there are any that are large enough."""
        size = self._units * _stride(rows)
        with suppress(IndexError):  # another thread may take the last
            spare = self._spare.pop()
            if spare[0].numel() >= size:
                return spare
        return [torch.empty(size, device=self._device) for _ in range(self._layers)]

    def _invert(
        self, values: Tensor, x: Tensor, galaxy: Tensor, draws: int, buffers: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Invert all blocks for columns of ``values`` (dimension, row): ``draws`` of each galaxy in turn, or 0: any."""
        rows, stride = values.shape[1], _stride(values.shape[1])
        layers = [buffer[: self._units * stride].view(-1, stride)[:, :rows] for buffer in buffers]
        for layer in layers:
            layer[0] = 1.0
        views = [step and _views(step, layers) for step in self._blocks[0].steps]
        log_scale = values.new_zeros(values.shape[1])
        for block in reversed(self._blocks):
            values = values[block.inverse_permutation]
            context = torch.sigmoid(torch.addmm(block.context_bias, x, block.context.T))
            context = (4 * context + block.bias).T.contiguous()  # (hidden, galaxy)
            out = torch.empty_like(values)
            raw = block.output_bias.repeat(1, values.shape[1])
            scales = torch.empty_like(values)
            for d, (step, view) in enumerate(zip(block.steps, views, strict=True)):
                # Scale and shift of input d come from hidden units of degree <= d, all filled by now.
                torch.add(softplus(raw[2 * d]), SCALE_FLOOR, out=scales[d])
                torch.div(values[d] - raw[2 * d + 1], scales[d], out=out[d])
                if step and view:
                    first = context[step.units.start - 1 : step.units.stop - 1]
                    if draws:  # the same numbers, in a third of the time
                        first = first[:, : len(galaxy) // draws].repeat_interleave(draws, 1)
                    else:
                        first = torch.index_select(first, 1, galaxy)
                    _fill(step, view, first.addmm_(step.inputs, out[: d + 1]))
                    raw[2 * d + 2 :].addmm_(step.output, view.filled[-1])
            log_scale += torch.log(scales).sum(0)
            values = out
        return values, log_scale


def _stride(rows: int) -> int:
    """Length of a buffer's row: rows begin on cache lines, and not all in the same set of the first cache."""
    return 16 * (-(-rows // 16) | 1)


class _Views(NamedTuple):
    """What a step reads and writes in the layers: ``filled`` are its units in each, ``products`` sources and targets."""

    filled: list[Tensor]
    products: list[list[tuple[Tensor, Tensor]]]


def _views(step: _Step, layers: list[Tensor]) -> _Views:
    pairs = zip(step.hidden, layers, layers[1:], strict=False)
    products = [[(layer[p.source], above[p.target]) for p in hidden] for hidden, layer, above in pairs]
    return _Views([layer[step.units] for layer in layers], products)


def _fill(step: _Step, views: _Views, first: Tensor) -> None:
    """Fill a step's units in every layer from earlier units and the sums of the first layer."""
    torch.sub(first.sigmoid_(), 0.5, out=views.filled[0])
    for hidden, pairs, filled in zip(step.hidden, views.products, views.filled[1:], strict=True):
        for product, (source, target) in zip(hidden, pairs, strict=True):
            if product.adds:
                target.addmm_(product.weight, source)
            else:
                torch.mm(product.weight, source, out=target)
        filled.sigmoid_().sub_(0.5)


def _sort(block: Block, order: Int[Tensor, " unit"], ends: list[int]) -> _SortedBlock:
    # Layers hold sigmoid - 1/2: half of every weight's sum moves into the bias.
    hidden = [torch.cat([(b + 0.5 * w.sum(1))[order, None], w[order][:, order]], 1).detach() for w, b in block.hidden]
    weight, bias = block.output
    inputs, output = block.inputs[order].detach(), weight[:, order].detach()
    # What the first half of the units gives to the second goes in one large product, which runs faster than small ones.
    middle = ends[len(ends) // 2 - 1]

    def step(d: int, start: int, end: int) -> _Step | None:
        if start == end:
            return None
        rows = slice(1 + start, 1 + end)
        products: list[tuple[_Product, ...]] = []
        for w in hidden:
            if start < middle:
                products.append((_Product(w[start:end, : 1 + end], slice(1 + end), rows, False),))
                continue
            late = _Product(w[start:end, 1 + middle : 1 + end], slice(1 + middle, 1 + end), rows, True)
            early = _Product(w[start:, : 1 + start], slice(1 + start), slice(1 + start, None), False)
            products.append((early, late) if start == middle else (late,))
        return _Step(rows, inputs[start:end, : d + 1], tuple(products), output[2 * d + 2 :, start:end])

    return _SortedBlock(
        bias=block.bias[order].detach(),
        context=block.context[order].detach().contiguous(),
        context_bias=block.context_bias[order].detach(),
        output_bias=(bias + 0.5 * weight.sum(1)).detach().unsqueeze(1),
        steps=tuple(step(d, start, end) for d, (start, end) in enumerate(pairwise([0, *ends]))),
        inverse_permutation=torch.argsort(block.permutation),
    )
