"""Base points of draws: catalog rows in, points of the unit cube out, the same for a row in any block and on any worker."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist import keyed_random


class BasePoints:
    """Scrambled Sobol points of ``n_coordinates``, one set for all rows of a ``seed``, shifted by numbers keyed to each row."""

    def __init__(self, seed: int, n_coordinates: int) -> None:
        self._seed, self._n = seed, n_coordinates
        self._sobol: dict[int, Tensor] = {}

    def __call__(self, rows: Int[np.ndarray, " galaxy"], n_draws: int) -> Float[Tensor, "galaxy draw coordinate"]:
        """Return as many points of each row, shifted modulo 1."""
        if n_draws not in self._sobol:
            seed = keyed_random.torch_seed(self._seed, "sobol")
            engine = torch.quasirandom.SobolEngine(self._n, scramble=True, seed=seed)
            self._sobol[n_draws] = engine.draw(n_draws, dtype=torch.float64)
        shifts = np.concatenate([keyed_random.uniforms(self._seed, "shift", int(row), 1, self._n) for row in rows])
        points = self._sobol[n_draws] + torch.as_tensor(shifts).unsqueeze(1)
        return (points - points.floor()).float()
