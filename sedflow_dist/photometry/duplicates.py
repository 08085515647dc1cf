"""Duplicates: a 64-bit key of each row, equal where rows have the same identifiers, or the same position and fluxes.

In: columns of a catalog. Out: keys (galaxy,). One integer identifier gives keys without collisions; otherwise two different
rows share a key with a probability of 5e-20 a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.coordinates import angular_separation
from jaxtyping import Bool, Integer, Shaped, UInt64

_FAR = 2.0  # arcsec
_OTHER = 5.0  # standard deviations


def keys(columns: Sequence[Shaped[np.ndarray, " galaxy"]]) -> UInt64[np.ndarray, " galaxy"]:
    """Return the keys of rows that agree in all columns: integers, floats or text.

    >>> a, b, c = keys([np.array([1, 2, 1]), np.array(["x", "x", "x"])]).tolist()
    >>> a == c != b
    True
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        text = column.dtype.kind not in "iubf"
        for word in _words(column):
            mixed = _mix(found * np.uint64(31) ^ word)
            found = np.where(word == 0, found, mixed) if text else mixed  # a longer text elsewhere changes nothing here
    return found


def unlike(row: Integer[np.ndarray, " galaxy"], source: str) -> UInt64[np.ndarray, " galaxy"]:
    """Return keys of rows of a source (a hash, in hexadecimal) that equal no other row's."""
    return _mix(row.astype(np.uint64) ^ np.uint64(int(source[:16], 16)))


def later(
    key: UInt64[np.ndarray, " galaxy"], order: tuple[Integer[np.ndarray, " galaxy"], ...]
) -> Bool[np.ndarray, " galaxy"]:
    """Return whether a row has the key of another that comes before it; ``order`` as of `numpy.lexsort`."""
    by_key = np.lexsort((*order, key))
    again = np.zeros(len(key), bool)
    again[by_key[1:]] = key[by_key[1:]] == key[by_key[:-1]]
    return again


def are_unlike(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Return whether two rows of one identifier are two galaxies: on other parts of the sky, or else of other fluxes.

    Rows (1,) as the photometry store has them: ``ra`` and ``dec`` [deg], ``flux``, ``sigma`` and ``mask`` (1, band). Far apart is
    more than two arcseconds; other are fluxes of which more than half differ by more than five standard deviations.
    """
    ra, dec = (np.radians(np.array([float(row[name][0]) for row in (one, other)])) for name in ("ra", "dec"))
    if np.isfinite([*ra, *dec]).all():
        return bool(np.degrees(angular_separation(ra[0], dec[0], ra[1], dec[1])) * 3600 > _FAR)
    both = one["mask"] & other["mask"]
    differ = np.abs(one["flux"] - other["flux"]) > _OTHER * np.hypot(one["sigma"], other["sigma"])
    return bool(both.any() and np.mean(differ[both]) > 0.5)


def _words(column: Shaped[np.ndarray, " galaxy"]) -> list[UInt64[np.ndarray, " galaxy"]]:
    if column.dtype.kind in "iub":  # uint64 keeps its bits
        return [column.astype(np.int64).view(np.uint64)]
    if column.dtype.kind == "f":
        return [(column.astype(np.float64) + 0.0).view(np.uint64)]  # + 0.0: -0 is 0
    text = column.astype(np.dtypes.StringDType())
    longest = max(int(np.strings.str_len(text).max(initial=1)), 1)
    return list(text.astype(f"U{longest + longest % 2}").view(np.uint64).reshape(len(column), -1).T)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
