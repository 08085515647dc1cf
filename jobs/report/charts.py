"""What the report draws, as numbers: each chart is drawn twice, for paper (`printed`) and for the browser (`interactive`).

A chart has a ``name``, which its files have too, a ``title`` and a ``table`` of its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit, and the edges of its bins."""

    label: str
    edges: Float[np.ndarray, " edge"]

    @property
    def centres(self) -> Float[np.ndarray, " bin"]:
        """The middle of each bin."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def ends(self) -> tuple[float, float]:
        """The first and the last edge."""
        return float(self.edges[0]), float(self.edges[-1])


@dataclass(frozen=True)
class Density:
    """Galaxies in bins of two quantities: ``counts`` (x, y). ``outside``: galaxies beyond the edges."""

    name: str
    title: str
    x: Axis
    y: Axis
    counts: Int[np.ndarray, "x y"]
    outside: int = 0

    def table(self) -> pd.DataFrame:
        """Return a row for each bin that has galaxies."""
        i, j = np.nonzero(self.counts)
        columns = {
            f"{name}_{end}": axis.edges[at + step]
            for name, axis, at in (("x", self.x, i), ("y", self.y, j))
            for end, step in (("from", 0), ("to", 1))
        }
        return pd.DataFrame({**columns, "galaxies": self.counts[i, j]})


@dataclass(frozen=True)
class Bars:
    """Galaxies in bins of one quantity. ``band``: counts that a bin keeps to if all is well."""

    name: str
    title: str
    x: Axis
    counts: Int[np.ndarray, " bin"]
    band: tuple[float, float] | None = None

    def table(self) -> pd.DataFrame:
        """Return a row for each bin."""
        return pd.DataFrame({"from": self.x.edges[:-1], "to": self.x.edges[1:], "galaxies": self.counts})


@dataclass(frozen=True)
class Panels:
    """Charts of one kind beside each other."""

    name: str
    title: str
    parts: tuple[Bars, ...]

    def table(self) -> pd.DataFrame:
        """Return the rows of all parts; the column ``part`` says whose."""
        return pd.concat([part.table().assign(part=part.title) for part in self.parts], ignore_index=True)


@dataclass(frozen=True)
class Lines:
    """Curves by their labels, (x, y) each. ``half``: half width of the band around the diagonal that they keep to; none: no
    diagonal is meant."""

    name: str
    title: str
    x: str
    y: str
    curves: Mapping[str, tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]]
    half: float | None = None

    def table(self) -> pd.DataFrame:
        """Return a row for each point of each curve."""
        parts = [pd.DataFrame({"curve": label, "x": x, "y": y}) for label, (x, y) in self.curves.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["curve", "x", "y"])


@dataclass(frozen=True)
class SkyMap:
    """A value of each HEALPix pixel (nested) that has galaxies, of one order. ``log``: coloured by its logarithm."""

    name: str
    title: str
    value: str
    order: int
    pixels: Int[np.ndarray, " pixel"]
    values: Float[np.ndarray, " pixel"]
    log: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the colours' scale."""
        top = float(self.values.max(initial=0))
        return (max(float(self.values.min(initial=np.inf)), 1.0), max(top, 2.0)) if self.log else (0.0, top or 1.0)

    def table(self) -> pd.DataFrame:
        """Return a row for each pixel."""
        return pd.DataFrame({"order": self.order, "pixel_nested": self.pixels, self.value: self.values})


Chart = Density | Bars | Panels | Lines | SkyMap
