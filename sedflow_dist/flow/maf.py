"""The density estimator: sbi's masked autoregressive flow (MAF), built, folded and evaluated.

In: probit-space parameters (row, dimension) and features (row, feature). Out: log-probabilities. The weights are always
sbi's own (`posterior_nn("maf")`); what is ours is the arithmetic: masks multiplied once per step.
Source: Papamakarios et al. 2017 (arXiv 1705.07057).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

SCALE_FLOOR = 1e-3  # nflows adds it to every scale


class Embedding(nn.Module):
    """Features with what a network of SiLU layers makes of them beside them, (row, feature + the last width).

    A MADE sees its context through one layer of bounded units; which bands are there, and where they lie in the rest frame,
    takes more. This is done once a galaxy, however many draws follow. Without gradients, as for draws, products are float64: a
    galaxy's context then does not depend, but for its last bit, on who stands beside it.
    """

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = [features, *widths]
        self.linear = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer."""
        return [(layer.weight, layer.bias) for layer in self.linear if isinstance(layer, nn.Linear)]

    def forward(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row embedded"]:
        """Return what blocks are conditioned on."""
        kind = x.dtype if torch.is_grad_enabled() else torch.float64
        h = x.to(kind)
        for weight, bias in self.layers:
            h = silu(linear(h, weight.to(kind), bias.to(kind)))
        return torch.cat([x, h.to(x.dtype)], dim=1)


def build(
    dimensions: int, features: int, transforms: int, hidden: int, seed: int, embedding: Sequence[int] = ()
) -> nn.Module:
    """Return sbi's MAF for ``dimensions`` given ``features``, with weights drawn from ``seed``.

    ``transforms`` MADE blocks of two hidden layers of ``hidden`` tanh units, each followed by a fixed permutation. Nothing
    is z-scored: features are standardised already and probit space is N(0, 1) under the prior. ``embedding``: widths of the
    layers of an `Embedding`, if there is to be one.
    """
    from sbi.neural_nets import posterior_nn

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore")
        make = posterior_nn(
            "maf", z_score_theta="none", z_score_x="none", hidden_features=hidden, num_transforms=transforms,
            **({"embedding_net": Embedding(features, embedding)} if embedding else {}),
        )  # fmt: skip
        return make(torch.randn(8, dimensions), torch.randn(8, features))


@dataclass(frozen=True)
class Block:
    """One MADE with its masks applied and its tanh units written as sigmoids, tanh(a) = 2 sigmoid(2a) - 1.

    The factors are folded into the weights, so the numbers are those of the tanh network; PyTorch's sigmoid is four times
    as fast as its tanh on a CPU (benchmarks/RESULTS.md). With s the sigmoid:
    ``s0 = s(inputs phi + bias + 4 s(context x + context_bias))``, ``s1 = s(W s0 + b)`` for (W, b) in ``hidden``, and
    ``output`` gives scale and shift of each dimension, paired. ``degrees``: (hidden,), a unit of degree d sees the
    inputs 1..d. ``permutation`` follows the block.
    """

    inputs: Tensor
    bias: Tensor
    context: Tensor
    context_bias: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...]
    output: tuple[Tensor, Tensor]
    degrees: Tensor
    permutation: Tensor


def blocks(network: Any) -> list[Block]:
    """Return the blocks of sbi's MAF; differentiable with respect to the network's parameters."""
    transforms = list(network.net._transform._transforms)
    masked = []
    for transform, permutation in zip(transforms[::2], transforms[1::2], strict=True):
        made = transform.autoregressive_net
        first, last = made.initial_layer, made.final_layer
        hidden = []
        for layer in (block.linear for block in made.blocks):
            weight = layer.weight * layer.mask
            hidden.append((4 * weight, 2 * (layer.bias - weight.sum(1))))
        weight = last.weight * last.mask
        masked.append(
            Block(
                inputs=2 * first.weight * first.mask,
                bias=2 * (first.bias - 1),
                context=2 * made.context_layer.weight,
                context_bias=2 * made.context_layer.bias,
                hidden=tuple(hidden),
                output=(2 * weight, last.bias - weight.sum(1)),
                degrees=first.degrees,
                permutation=permutation._permutation,
            )
        )
    return masked


def log_prob(
    masked: list[Block], phi: Float[Tensor, "row dimension"], x: Float[Tensor, "row feature"]
) -> Float[Tensor, " row"]:
    """Return log q(phi | x): equal to sbi's ``network.log_prob`` to float32 rounding."""
    log_det = phi.new_zeros(len(phi))
    for block in masked:
        scale, shift = scale_and_shift(block, phi, x)
        log_det = log_det + torch.log(scale).sum(1)
        phi = (scale * phi + shift)[:, block.permutation]
    return log_det - 0.5 * (phi**2).sum(1) - 0.5 * phi.shape[1] * math.log(2 * math.pi)


def scale_and_shift(
    block: Block, phi: Float[Tensor, "row dimension"], x: Float[Tensor, "row feature"]
) -> tuple[Float[Tensor, "row dimension"], Float[Tensor, "row dimension"]]:
    """Return by what a block multiplies each dimension, and what it adds then; of the dimensions before it and of x."""
    s = torch.sigmoid(torch.addmm(block.context_bias, x, block.context.T))
    s = torch.sigmoid(torch.addmm(block.bias, phi, block.inputs.T).add(s, alpha=4))
    for weight, bias in block.hidden:
        s = torch.sigmoid(torch.addmm(bias, s, weight.T))
    out = torch.addmm(block.output[1], s, block.output[0].T).to(phi.dtype)  # under autocast: back to float32
    raw, shift = out.unflatten(1, (-1, 2)).unbind(-1)
    return softplus(raw) + SCALE_FLOOR, shift
