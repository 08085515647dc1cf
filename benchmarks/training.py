"""Training: mock galaxies per second of one step, float32 and bfloat16, against sbi's log-probability in the same run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import best_of, peak_memory_mb, report

from sedflow_dist.flow import maf
from sedflow_dist.flow.training import use_bfloat16

BATCH, FEATURES, STEPS = 2048, 16, 10


def rate(net: torch.nn.Module, log_prob: Callable[..., torch.Tensor], bfloat16: bool) -> float:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    phi, x = torch.randn(BATCH, 10), torch.randn(BATCH, FEATURES)

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = -log_prob(phi, x).mean()
            loss.backward()
            optimizer.step()

    return STEPS * BATCH / best_of(3, steps)


def main() -> None:
    net = maf.build(10, FEATURES, 5, 128, seed=0)
    sbi = rate(net, lambda phi, x: net.log_prob(phi[None], x)[0], False)
    report(f"sbi's log_prob, {torch.get_num_threads()} threads", f"{sbi:,.0f} galaxies/s")
    for bfloat16 in (False, True) if use_bfloat16("auto") else (False,):
        ours = rate(net, lambda phi, x: maf.log_prob(maf.blocks(net), phi, x), bfloat16)
        report(f"ours, {'bfloat16' if bfloat16 else 'float32'}", f"{ours:,.0f} galaxies/s, ratio {ours / sbi:.2f}")
    report("peak memory", f"{peak_memory_mb():,.0f} MB")


if __name__ == "__main__":
    main()
