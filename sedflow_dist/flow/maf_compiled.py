"""The compiled inverse of a masked autoregressive flow: its blocks in, a function of base points and context out.

Source: `native/flow_inverse.cpp`; what it computes is what `maf_inverse` does by PyTorch's operators.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.compiled import call, library_for
from sedflow_dist.flow.maf import Block


@dataclass(frozen=True)
class CompiledInverse:
    """The weights of a flow in the order in which they are used, and the library that uses them.

    A row's numbers follow from its own base point and its galaxy's context alone, whatever stands beside it.
    """

    library: ctypes.CDLL
    context: Float[Tensor, "block row unit"]
    weights: Float[Tensor, " weight"]
    order: Int[Tensor, "block dimension"]
    ends: Int[Tensor, " dimension"]
    layers: int
    units: int

    def memory(self, galaxies: int) -> int:
        """Return the bytes that a call works in."""
        own = self.library.flow_inverse_memory(self.order.shape[1], self.layers, self.units)
        return own + 4 * galaxies * len(self.order) * self.units

    def __call__(
        self,
        base: Float[Tensor, "row dimension"],
        x: Float[Tensor, "galaxy feature"],
        galaxy: Int[Tensor, " row"],
        draws: Float[Tensor, "row dimension"],
        log_scale: Float[Tensor, " row"],
    ) -> None:
        """Fill ``draws`` and the logarithms of their scales.

        Raises:
            ValueError: base points or features are not as many as the flow's
        """
        (blocks, dimensions), units = self.order.shape, self.units
        n_features = self.context.shape[1] - 2
        if base.shape[1] != dimensions or x.shape[1] != n_features or draws.shape != base.shape:
            raise ValueError(
                f"a flow of {dimensions} dimensions and {n_features} features was given base points of {base.shape[1]} and "
                f"features of {x.shape[1]}"
            )
        memory = torch.empty(self.memory(0), dtype=torch.uint8, device=x.device)
        context = x.new_empty(len(x), blocks, units)
        call(self.library.flow_context, self.context, blocks, units, x, *x.shape, context)
        call(
            self.library.flow_inverse, self.weights, self.order, self.ends, dimensions, blocks, self.layers, units, context,
            base, galaxy, len(base), memory, draws, log_scale,
        )  # fmt: skip


def prepare(masked: list[Block], order: Int[Tensor, " unit"], ends: list[int]) -> CompiledInverse | None:
    """Put the weights of blocks in order; None: there is no library for where they are.

    Args:
        order: hidden units by degree
        ends: how many units have a degree of at most 1, 2, ...: as many as dimensions
    """
    found = library_for(masked[0].inputs.detach())
    if found is None:
        return None
    found.flow_inverse_memory.restype = ctypes.c_int64
    tile = found.flow_inverse_tile()
    parts = [part for block in reversed(masked) for part in _in_turn(block, order, ends, tile)]
    context = [
        torch.cat([b.context_bias[order, None], b.context[order], b.bias[order, None]], 1).T for b in reversed(masked)
    ]
    return CompiledInverse(
        found,
        torch.stack(context).detach().contiguous(),
        torch.cat([part.flatten() for part in parts]).contiguous(),
        torch.stack([torch.argsort(block.permutation) for block in reversed(masked)]),
        torch.tensor(ends, device=order.device),
        1 + len(masked[0].hidden),
        len(order),
    )


def _in_turn(block: Block, order: Tensor, ends: list[int], tile: int) -> list[Tensor]:
    """Weights of a block as they are used: dimension by dimension its output, then the units that its value fills, by tiles.

    Hidden layers hold sigmoid - 1/2 of a unit; half of every weight's sum moves into the bias.
    """
    weight, bias = block.output
    inputs, output, output_bias = block.inputs[order], weight[:, order], bias + 0.5 * weight.sum(1)
    hidden = [(w[order][:, order], (b + 0.5 * w.sum(1))[order]) for w, b in block.hidden]
    parts, begin = [], 0
    for d, end in enumerate(ends):
        pair = slice(2 * d, 2 * d + 2)
        parts += [output_bias[pair], output[pair, :begin].T]
        tiles = torch.arange(begin, end).tensor_split(max(-(-(end - begin) // tile), 1))
        parts += [inputs[units, : d + 1].T for units in tiles]
        for w, b in hidden:
            parts += [part for units in tiles for part in (b[units], w[units, :end].T)]
        begin = end
    return [part.detach() for part in parts]
