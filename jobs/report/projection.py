"""HEALPix pixels as outlines on a map of the whole sky (Mollweide, equal areas), right ascension growing to the left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cdshealpix import nested
from jaxtyping import Float, Int
from matplotlib.projections.geo import MollweideAxes

#: Points along an edge of a pixel: edges of coarse pixels are curved.
_STEPS = {2: 8, 3: 4, 4: 2}
_GRID = 30  # degrees


@dataclass(frozen=True)
class Outlines:
    """Outlines of pixels and the grid around them, on the plane.

    Attributes:
        x, y: of each pixel's outline, (pixel, point)
        ra, dec: of each pixel's centre [deg]
        grid: lines, (x, y) each
        marks: x, y and text of the grid's labels
        centre: right ascension in the middle of the map [deg]
    """

    x: Float[np.ndarray, "pixel point"]
    y: Float[np.ndarray, "pixel point"]
    ra: Float[np.ndarray, " pixel"]
    dec: Float[np.ndarray, " pixel"]
    grid: list[tuple[np.ndarray, np.ndarray]]
    marks: list[tuple[float, float, str]]
    centre: float


def outlines(order: int, pixels: Int[np.ndarray, " pixel"]) -> Outlines:
    """Return the outlines of nested pixels of an order, the map turned so that most of them are in its middle."""
    at = pixels.astype(np.uint64)
    ra, dec = (np.asarray(angle.deg) for angle in nested.healpix_to_lonlat(at, order))
    centre = float(np.round(np.degrees(np.angle(np.exp(1j * np.radians(ra)).mean())) / _GRID) * _GRID) % 360
    lon, lat = (np.asarray(angle.deg) for angle in nested.vertices(at, order, step=_STEPS.get(order, 1)))
    # A pixel across the edge of the map stays whole, beside its centre.
    from_centre = _wrapped(ra - centre)[:, None] + _wrapped(lon - ra[:, None])
    pole = np.abs(lat) > 90 - 1e-6  # which has any right ascension
    from_centre = np.where(pole, _wrapped(ra - centre)[:, None], from_centre)
    x, y = _plane(from_centre, lat)
    grid = [_plane(np.full(91, float(lon)), np.linspace(-90, 90, 91)) for lon in range(-180, 181, _GRID)]
    grid += [_plane(np.linspace(-180, 180, 181), np.full(181, float(lat))) for lat in range(-60, 61, _GRID)]
    marks = [(*_point(lon, 0), f"{(centre + lon) % 360:.0f}°") for lon in range(-120, 121, 60)]
    marks += [(*_point(-180, lat), f"{lat:+d}°") for lat in (-60, -30, 30, 60)]
    return Outlines(x, y, ra, dec, grid, marks, centre)


def _wrapped(degrees: np.ndarray) -> np.ndarray:
    """Angles between -180 and 180."""
    return (degrees + 180) % 360 - 180


def _plane(from_centre: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.radians(np.stack([np.ravel(from_centre), np.ravel(lat)], axis=1))
    x, y = np.asarray(MollweideAxes.MollweideTransform(1).transform_non_affine(points)).T
    return -x.reshape(np.shape(lat)), y.reshape(np.shape(lat))


def _point(from_centre: float, lat: float) -> tuple[float, float]:
    x, y = _plane(np.array([float(from_centre)]), np.array([float(lat)]))
    return float(x[0]), float(y[0])
