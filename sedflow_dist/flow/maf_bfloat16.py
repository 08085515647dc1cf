"""The sampler's inverse of a block in bfloat16, for processors that have its dot product (AVX-512): compiled by numba.

In: base points and the features' share of the first layer. Out: draws and the logarithms of their scales. PyTorch's operators
go through memory a dozen times between two products. Here a few rows stay in the second cache from base points to draws,
and sums become tanh while they are in the first: a third less time, and fewer numbers are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic
from torch import Tensor

from sedflow_dist.flow.maf import SCALE_FLOOR, Block

_TILE = 8  # units whose sums are held in registers at once,
_LANES, _VECTORS = 16, 3  # for as many rows
_COLUMNS = _LANES * _VECTORS
_ROWS = 4 * _COLUMNS  # rows that stay in the second cache
_FLOOR = np.float32(SCALE_FLOOR)


def available() -> bool:
    """Whether this processor multiplies pairs of bfloat16 (vdpbf16ps)."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))


@dataclass(frozen=True)
class RoundedBlock:
    """A masked MADE, its hidden units degree by degree, those of each padded to a multiple of eight.

    Hidden layers hold sigmoid - 1/2 of a unit, which is tanh / 2; half of every weight's sum is in the bias. Two units of a row
    lie side by side in 32 bits, as the processor takes them.

    Attributes:
        bias, context, context_bias: of the first layer, as in `network.Block`
        weights: ``ends``, where the units of each degree end (dimension,); ``inputs`` (dimension, unit); pairs of bfloat16
            between the hidden layers (layer, unit // 8, unit // 2, 8) and biases (layer, unit); ``output``
            (2 dimensions, unit), scale and shift paired, and its bias
        inverse_permutation: of the dimensions, before the block
    """

    bias: Tensor
    context: Tensor
    context_bias: Tensor
    weights: tuple[np.ndarray, ...]
    inverse_permutation: Tensor

    def buffers(self) -> list[Tensor]:
        """Return what `invert` works in."""
        (layers, units), dimensions = self.weights[3].shape, len(self.weights[1])
        pairs = torch.empty((layers, units // 2, _ROWS), dtype=torch.uint32)
        return [pairs, torch.empty((units + 3 * dimensions, _ROWS))]

    def invert(
        self, values: Float[Tensor, "dimension row"], x: Float[Tensor, "galaxy feature"], galaxy: Int[Tensor, " row"],
        buffers: list[Tensor], log_scale: Float[Tensor, " row"],
    ) -> Float[Tensor, "dimension row"]:  # fmt: skip
        """Return draws for base points ``values`` of each row's ``galaxy``; add the logarithms of their scales."""
        context = torch.sigmoid(torch.addmm(self.context_bias, x, self.context.T))
        context = (4 * context + self.bias).T.contiguous()
        values = values[self.inverse_permutation]
        out = torch.empty_like(values)
        arrays = (each.numpy() for each in (values, context, galaxy, *buffers, out, log_scale))
        _invert(*arrays, *self.weights)
        return out


def prepare(block: Block) -> RoundedBlock:
    """Sort, pad, round and pair the weights of a block."""
    dimensions = block.inputs.shape[1]
    counts = torch.bincount(block.degrees, minlength=dimensions + 1)[1:]
    padded = -(-counts // _TILE) * _TILE
    ends = padded.cumsum(0)
    place = torch.cat([start + torch.arange(int(n)) for start, n in zip(ends - padded, counts, strict=True)])
    order, units = torch.argsort(block.degrees, stable=True), int(ends[-1])

    def by_degree(weight: Tensor) -> Tensor:
        """Sort and pad the first axis."""
        out = weight.new_zeros((units, *weight.shape[1:]))
        out[place] = weight.detach()[order]
        return out

    def pairs(weight: Tensor) -> Tensor:
        both = by_degree(by_degree(weight).T).T.to(torch.bfloat16).view(torch.int16).contiguous()
        return both.view(torch.int32).view(units // _TILE, _TILE, units // 2).mT.contiguous()

    weight, bias = block.output
    tensors = (
        ends,
        by_degree(block.inputs).T.contiguous(),
        torch.stack([pairs(w) for w, _ in block.hidden]),
        torch.stack([by_degree(b + 0.5 * w.sum(1)) for w, b in block.hidden]),
        by_degree(weight.T).T.contiguous(),
        (bias + 0.5 * weight.sum(1)).detach(),
    )
    return RoundedBlock(
        bias=by_degree(block.bias),
        context=by_degree(block.context),
        context_bias=by_degree(block.context_bias),
        weights=tuple(tensor.numpy() for tensor in tensors),
        inverse_permutation=torch.argsort(block.permutation),
    )


class _BFloat(ir.types._BaseFloatType):
    """LLVM's type, for which llvmlite has no name."""

    null, intrinsic_name = "0.0", "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloat._create_instance()
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_WORDS = ir.VectorType(ir.IntType(32), _LANES)
_PAIRS = ir.VectorType(_BFloat(), 2 * _LANES)


@intrinsic
def _dot(typing: Any, weights: Any, layer: Any, n_pairs: Any, bias: Any, sums: Any) -> Any:
    """Write sums (_TILE, _COLUMNS) = bias (_TILE,) + weights (pair, _TILE) times layer (pair, _ROWS); all but one addresses.

    The sums stay in 24 of the 32 vector registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, layer, n_pairs, bias, sums = arguments
        i64, i32, vectors = ir.IntType(64), ir.IntType(32), range(_VECTORS)
        dot_product = builder.module.declare_intrinsic(
            "llvm.x86.avx512bf16.dpbf16ps.512", (), ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
        )

        def at(address: Any, index: int, kind: Any) -> Any:
            return builder.inttoptr(builder.add(address, ir.Constant(i64, 4 * index)), kind.as_pointer())

        def everywhere(value: Any, kind: Any) -> Any:
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(i32, 0))
            return builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * _LANES))

        first = [everywhere(builder.load(at(bias, unit, ir.FloatType())), _FLOATS) for unit in range(_TILE)]
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)

        builder.position_at_end(loop)
        pair, weight, row = (builder.phi(i64) for _ in range(3))
        held = [[builder.phi(_FLOATS) for _ in vectors] for _ in range(_TILE)]
        units = [builder.bitcast(builder.load(at(row, _LANES * v, _WORDS), align=4), _PAIRS) for v in vectors]
        added = []
        for unit in range(_TILE):
            both = builder.bitcast(everywhere(builder.load(at(weight, unit, i32)), _WORDS), _PAIRS)
            added.append([builder.call(dot_product, [held[unit][v], both, units[v]]) for v in vectors])
        steps = [(pair, ir.Constant(i64, 0), 1), (weight, weights, 4 * _TILE), (row, layer, 4 * _ROWS)]
        following = [builder.add(phi, ir.Constant(i64, step)) for phi, _, step in steps]
        for (phi, start, _), value in zip(steps, following, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, loop)
        for unit in range(_TILE):
            for v in vectors:
                held[unit][v].add_incoming(first[unit], before)
                held[unit][v].add_incoming(added[unit][v], loop)
        builder.cbranch(builder.icmp_signed("<", following[0], n_pairs), loop, after)

        builder.position_at_end(after)
        for unit in range(_TILE):
            for v in vectors:
                builder.store(added[unit][v], at(sums, unit * _COLUMNS + v * _LANES, _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


_compiled = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
_inlined = numba.njit(inline="always")


@_inlined
def _half_tanh(x):
    """Return tanh(x / 2) / 2, which is sigmoid(x) - 1/2, within 5e-5: Lambert's continued fraction, seven terms."""
    x = min(max(x, np.float32(-9.9)), np.float32(9.9))
    z = x * x
    above = ((z * np.float32(1 / 64) + np.float32(378 / 16)) * z + np.float32(17325 / 4)) * z + np.float32(135135)
    below = ((z * np.float32(28 / 64) + np.float32(3150 / 16)) * z + np.float32(62370 / 4)) * z + np.float32(135135)
    return np.float32(0.25) * x * above / below


@_inlined
def _rounded(x):
    """Return the bits of the nearest bfloat16, ties to even."""
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) >> np.uint32(16))


@_inlined
def _pair(one, other):
    return np.uint32(_rounded(one) | np.uint32(_rounded(other) << np.uint32(16)))


@_compiled
def _first_layer(context, galaxy, inputs, draws, begin, end, layer):
    """Fill units ``begin`` to ``end`` of the first layer from the draws so far (dimension, row), two units at a time."""
    one, other = np.empty(_ROWS, np.float32), np.empty(_ROWS, np.float32)
    for unit in range(begin, end, 2):
        i = 0
        while i < len(galaxy):
            present = galaxy[i]
            while i < len(galaxy) and galaxy[i] == present:
                one[i], other[i] = context[unit, present], context[unit + 1, present]
                i += 1
        for d in range(len(draws)):
            a, b, draw = inputs[d, unit], inputs[d, unit + 1], draws[d]
            for i in range(_ROWS):
                one[i] += a * draw[i]
                other[i] += b * draw[i]
        pairs = layer[unit // 2]
        for i in range(_ROWS):
            pairs[i] = _pair(_half_tanh(one[i]), _half_tanh(other[i]))


@_compiled
def _next_layer(weights, bias, layer, begin, end, n_rows, units, following):
    """Fill the next layer: the last one's ``units`` in float32, of another (``units`` None) pairs in ``following``."""
    # Made here, nothing else can be the same memory, which the compiler then need not check: a quarter of the time.
    sums = np.empty((_TILE, _COLUMNS), np.float32)
    for tile in range(begin // _TILE, end // _TILE):
        for column in range(0, n_rows, _COLUMNS):
            start, first = layer.ctypes.data + 4 * column, bias[tile * _TILE :]
            _dot(weights[tile].ctypes.data, start, end // 2, first.ctypes.data, sums.ctypes.data)  # type: ignore[call-arg]
            if units is None:
                for k in range(0, _TILE, 2):
                    pairs, one, other = following[(tile * _TILE + k) // 2], sums[k], sums[k + 1]
                    for i in range(_COLUMNS):
                        pairs[column + i] = _pair(_half_tanh(one[i]), _half_tanh(other[i]))
            else:
                for k in range(_TILE):
                    filled, one = units[tile * _TILE + k], sums[k]
                    for i in range(_COLUMNS):
                        filled[column + i] = _half_tanh(one[i])


@_compiled
def _outputs(weights, units, begin, end, raw):
    """Add to scales and shifts ``raw`` (output, row) what units of the last layer give them."""
    for o in range(len(raw)):
        total = raw[o]
        for unit in range(begin, end, 2):
            a, b, one, other = weights[o, unit], weights[o, unit + 1], units[unit], units[unit + 1]
            for i in range(_ROWS):
                total[i] += a * one[i] + b * other[i]


@_compiled
def _invert(values, context, galaxy, layers, floats, out, log_scale, ends, inputs, hidden, bias, output, output_bias):
    """Invert a block for all rows, as many at once as stay in the cache; see `RoundedBlock`."""
    dimensions, last = len(values), bias.shape[1]
    units, raw, draws = floats[:last], floats[last : last + 2 * dimensions], floats[last + 2 * dimensions :]
    scale = np.empty(_ROWS)
    for row in range(0, values.shape[1], _ROWS):
        n = min(_ROWS, values.shape[1] - row)
        scale[:], begin = 1.0, 0
        for o in range(2 * dimensions):
            raw[o, :] = output_bias[o]
        for d in range(dimensions):
            for i in range(n):
                x = raw[2 * d, i]
                one = max(x, np.float32(0)) + np.log1p(np.exp(-abs(x))) + _FLOOR  # softplus and the floor
                draws[d, i] = (values[d, row + i] - raw[2 * d + 1, i]) / one
                scale[i] *= one
            out[d, row : row + n] = draws[d, :n]
            end = ends[d]
            _first_layer(context, galaxy[row : row + n], inputs, draws[: d + 1], begin, end, layers[0])
            for k in range(len(hidden) - 1):
                _next_layer(hidden[k], bias[k], layers[k], begin, end, n, None, layers[k + 1])
            _next_layer(hidden[-1], bias[-1], layers[-1], begin, end, n, units, layers[-1])
            _outputs(output[2 * d + 2 :], units, begin, end, raw[2 * d + 2 :])
            begin = end
        for i in range(n):
            log_scale[row + i] += np.log(scale[i])
