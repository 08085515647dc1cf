"""Counter-based random numbers: row i gets the same numbers in any order, on any worker, however rows are split.

Philox 4x64 (Salmon et al. 2011), keyed by a seed and the name of a stream, counted by row.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float64

_PER_COUNT = 4  # one Philox counter gives four 64-bit words


def key(seed: int, *names: object) -> int:
    """Return a 128-bit key for the stream that ``names`` name under ``seed``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def uniforms(
    seed: int, stream: str, first_row: int, n_rows: int, n_columns: int
) -> Float64[np.ndarray, "{n_rows} {n_columns}"]:
    """Return uniforms in (0, 1) that depend on seed, stream and row only.

    >>> bool(np.array_equal(uniforms(1, "a", 0, 5, 3)[2:], uniforms(1, "a", 2, 3, 3)))
    True
    """
    counts = -(-n_columns // _PER_COUNT)
    generator = np.random.Philox(key=key(seed, stream))
    generator.advance(first_row * counts)
    words = generator.random_raw(n_rows * counts * _PER_COUNT).reshape(n_rows, counts * _PER_COUNT)[:, :n_columns]
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def torch_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for a `torch.Generator` of the stream that ``names`` name."""
    return key(seed, *names) & (2**63 - 1)
