"""Sampling: our exact sampler against sbi's own, same weights, same number of draws, turn by turn in one run.

Every rival has processes of its own, as its users do: what one leaves in the allocator would change another's page faults.
Several, since sbi's time is not one number: its 20 MB temporaries go back to the system at each step or stay with the
process, as the allocator happens to arrange them.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import torch
from common import report

from sedflow_dist.flow import maf
from sedflow_dist.flow.maf import SCALE_FLOOR, Block
from sedflow_dist.flow.maf_inverse import Sampler

FEATURES, PROCESSES = 16, 5


def useful_flops(blocks: list[Block]) -> int:
    """Floating-point operations of a draw: a multiplication and an addition for each weight that its mask lets through."""
    weights = [w for block in blocks for w in (block.inputs, block.output[0], *(w for w, _ in block.hidden))]
    return sum(2 * int((w != 0).sum()) for w in weights)


def textbook(blocks: list[Block], base: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The plain inverse in our own arithmetic: the whole network once per dimension."""
    context, values = x.repeat_interleave(base.shape[1], 0), base.flatten(0, 1)
    for block in reversed(blocks):
        values = values[:, torch.argsort(block.permutation)]
        out = torch.zeros_like(values)
        first = block.bias + 4 * torch.sigmoid(torch.addmm(block.context_bias, context, block.context.T))
        for d in range(values.shape[1]):
            units = torch.sigmoid(torch.addmm(first, out, block.inputs.T))
            for weight, bias in block.hidden:
                units = torch.sigmoid(torch.addmm(bias, units, weight.T))
            raw = torch.addmm(block.output[1][2 * d : 2 * d + 2], units, block.output[0][2 * d : 2 * d + 2].T)
            out[:, d] = (values[:, d] - raw[:, 1]) / (torch.nn.functional.softplus(raw[:, 0]) + SCALE_FLOOR)
        values = out
    return values.view(base.shape)


def rivals(transforms: int, hidden: int, galaxies: int, draws: int) -> dict[str, Callable[[], object]]:
    """What there is to time, by name, for a flow with the same random weights in every process."""
    torch.manual_seed(0)
    net = maf.build(10, FEATURES, transforms, hidden, seed=0)
    blocks = maf.blocks(net)
    compiled, operators = Sampler(blocks), Sampler(blocks, compiled=False)
    x, base, matrix = torch.randn(galaxies, FEATURES), torch.randn(galaxies, draws, 10), torch.randn(2048, 2048)
    return {
        "compiled": lambda: compiled(base, x),
        "operators": lambda: operators(base, x),
        "sbi": lambda: net.sample((draws,), condition=x),
        "plain": lambda: textbook(blocks, base, x),
        "product": lambda: matrix @ matrix,
    }


@torch.no_grad()
def seconds(name: str, case: tuple[int, int, int, int]) -> float:
    """Time a rival's second call, here."""
    work = rivals(*case)[name]
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(title: str, *case: int) -> None:
    names, spawn = ("compiled", "operators", "sbi", "plain", "product"), multiprocessing.get_context("spawn")
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(PROCESSES):
        for name in names:
            with ProcessPoolExecutor(1, spawn) as pool:
                taken[name].append(pool.submit(seconds, name, case).result())
    ours, operators, theirs, plain, product = (median(taken[name]) for name in names)
    flops = useful_flops(maf.blocks(maf.build(10, FEATURES, *case[:2], seed=0))) * case[2] * case[3]
    rate, peak = flops / ours / 1e9, 2 * 2048**3 / product / 1e9
    print(
        f"{title}, {case[2]} galaxies x {case[3]} draws, medians of {PROCESSES} processes, {torch.get_num_threads()} threads"
    )
    report("  ours, compiled", f"{ours:.3f} s, {rate:.0f} of {peak:.0f} GFLOP/s: {rate / peak:.0%}")
    report("  ours, by PyTorch's operators; sbi", f"{operators:.3f} s; {theirs:.2f} s")
    report("  sbi in each process", " ".join(f"{found:.1f}" for found in taken["sbi"]))
    report("  the plain inverse in our arithmetic", f"{plain:.2f} s, ratio {plain / ours:.1f}")
    report("  ratio to sbi, compiled and by operators", f"{theirs / ours:.1f} and {theirs / operators:.1f}")


def main() -> None:
    compare("default 5 x 2 x 128", 5, 128, 10, 1024)
    compare("that comes along 8 x 2 x 128", 8, 128, 10, 1024)
    compare("paper 15 x 2 x 500", 15, 500, 1, 10_000)
    compare("paper 15 x 2 x 500", 15, 500, 100, 100)


if __name__ == "__main__":
    main()
