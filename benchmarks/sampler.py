"""Sampling: our exact sampler against sbi's own, same weights, same number of draws, turn by turn in one run."""

from __future__ import annotations

import torch
from common import report, turns

from sedflow_dist import network
from sedflow_dist.network import Block
from sedflow_dist.sampler import Sampler

FEATURES, ROUNDS = 16, 3


def useful_flops(blocks: list[Block]) -> int:
    """Floating-point operations of a draw: a multiplication and an addition for each weight that its mask lets through."""
    weights = [w for block in blocks for w in (block.inputs, block.output[0], *(w for w, _ in block.hidden))]
    return sum(2 * int((w != 0).sum()) for w in weights)


def compare(name: str, transforms: int, hidden: int, galaxies: int, draws: int) -> None:
    net = network.build(10, FEATURES, transforms, hidden, seed=0)
    with torch.no_grad():
        blocks = network.blocks(net)
        exact, rounded = Sampler(blocks), Sampler(blocks, torch.bfloat16)
        x = torch.randn(galaxies, FEATURES)
        base = torch.randn(galaxies, draws, 10)
        matrix = torch.randn(2048, 2048)
        ours, bfloat16, theirs, product = turns(
            ROUNDS,
            lambda: exact(base, x),
            lambda: rounded(base, x),
            lambda: net.sample((draws,), condition=x),
            lambda: matrix @ matrix,
        )
    rate, peak = useful_flops(blocks) * galaxies * draws / ours / 1e9, 2 * 2048**3 / product / 1e9
    print(f"{name}, {galaxies} galaxies x {draws} draws, medians of {ROUNDS}, {torch.get_num_threads()} threads")
    report("  ours, float32", f"{ours:.3f} s, {rate:.0f} of {peak:.0f} GFLOP/s: {rate / peak:.0%}")
    report("  ours, bfloat16; sbi", f"{bfloat16:.3f} s; {theirs:.2f} s")
    report("  ratio, float32 and bfloat16", f"{theirs / ours:.1f} and {theirs / bfloat16:.1f}")


def main() -> None:
    compare("default 5 x 2 x 128", 5, 128, 10, 1024)
    compare("paper 15 x 2 x 500", 15, 500, 1, 10_000)
    compare("paper 15 x 2 x 500", 15, 500, 100, 100)


if __name__ == "__main__":
    main()
