"""Sampling: our exact sampler against sbi's own, same weights, same number of draws, same run."""

from __future__ import annotations

import torch
from common import best_of, report

from sedflow_dist import network
from sedflow_dist.sampler import Sampler

FEATURES = 16


def compare(name: str, transforms: int, hidden: int, galaxies: int, draws: int) -> None:
    net = network.build(10, FEATURES, transforms, hidden, seed=0)
    with torch.no_grad():
        sampler = Sampler(network.blocks(net))
        x = torch.randn(galaxies, FEATURES)
        base = torch.randn(galaxies, draws, 10)
        ours = best_of(3, lambda: sampler(base, x))
        rounded = Sampler(network.blocks(net), torch.bfloat16)
        bfloat16 = best_of(3, lambda: rounded(base, x))
        theirs = best_of(1, lambda: net.sample((draws,), condition=x))
    useful = transforms * (2 * hidden**2 + 2 * hidden * (10 + 20)) * galaxies * draws
    report(
        f"{name}, {galaxies} galaxies x {draws} draws: ours", f"{ours:.2f} s, {useful / ours / 1e9:.0f} GFLOP/s useful"
    )
    report(f"{name}, {galaxies} galaxies x {draws} draws: sbi", f"{theirs:.2f} s")
    report("ratio, float32 and bfloat16", f"{theirs / ours:.1f} and {theirs / bfloat16:.1f}")


def main() -> None:
    matrix = torch.randn(2048, 2048)
    peak = 2 * 2048**3 / best_of(3, lambda: matrix @ matrix) / 1e9
    report(f"matrix product, float32, {torch.get_num_threads()} threads", f"{peak:.0f} GFLOP/s")
    compare("default 8 x 2 x 128", 8, 128, 10, 1000)
    compare("paper 15 x 2 x 500", 15, 500, 1, 10_000)
    compare("paper 15 x 2 x 500", 15, 500, 100, 100)


if __name__ == "__main__":
    main()
