"""The training step as one CUDA graph: examples and a learning rate in, weights moved and the batch's log-probability out.

A step is some hundred small operations, and a GPU waits longer for each to be sent than it works on it. Compiled and
captured once, they are sent as one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

_WARM_UP = 3  # steps before a capture, as PyTorch asks for: libraries choose their kernels, gradients get their memory

#: A step of an optimizer: see `training.step`.
Step = Callable[
    [nn.Module, torch.optim.Optimizer, Float[Tensor, "row dimension"], Float[Tensor, "row feature"], Tensor, bool],
    Float[Tensor, ""],
]


class CapturedStep:
    """A step of batches of one size on a GPU, sent as a whole. Its matrix products are TF32, whose noise training does not see.

    Args:
        step: what is captured
        flow, optimizer: what moves; both stay where they are until the first call
        phi, x: a batch, as large as all that follow
    """

    def __init__(
        self,
        step: Step,
        flow: nn.Module,
        optimizer: torch.optim.Adam,
        phi: Float[Tensor, "row dimension"],
        x: Float[Tensor, "row feature"],
    ) -> None:
        self._phi, self._x, self._rate = phi.clone(), x.clone(), torch.zeros((), device=phi.device)
        compiled = cast(nn.Module, torch.compile(flow, dynamic=False))
        kept = {
            state: {name: value.clone() for name, value in moments.items()}
            for state, moments in optimizer.state.items()
        }
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):  # at a learning rate of zero: weights stay, Adam's moments are put back below
                    step(compiled, optimizer, self._phi, self._x, self._rate, False)
            torch.cuda.current_stream().wait_stream(stream)
            optimizer.zero_grad()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._log_prob = step(compiled, optimizer, self._phi, self._x, self._rate, False)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                value.copy_(kept[parameter][name]) if parameter in kept else value.zero_()

    def fits(self, phi: Float[Tensor, "row dimension"]) -> bool:
        """Whether a batch has the size that was captured."""
        return phi.shape == self._phi.shape

    def __call__(
        self, phi: Float[Tensor, "row dimension"], x: Float[Tensor, "row feature"], rate: float
    ) -> Float[Tensor, ""]:
        """Take a step; return the batch's log-probability."""
        self._phi.copy_(phi)
        self._x.copy_(x)
        self._rate.fill_(rate)
        self._graph.replay()
        return self._log_prob.clone()
