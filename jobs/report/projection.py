"""HEALPix pixels as outlines on a map of the sky or of a part (Mollweide, equal areas), right ascension growing to the left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cdshealpix import nested
from jaxtyping import Float, Int
from matplotlib.projections.geo import MollweideAxes

#: Points along an edge of a pixel: edges of coarse pixels are curved.
_STEPS = {2: 8, 3: 4, 4: 2}
_GRID = 30  # degrees between lines of the whole sky
#: The same where only a part of the sky has pixels.
_STEPS_OF_GRID = (0.1, 0.2, 0.5, 1, 2, 5, 10)


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
    """Return the outlines of nested pixels of an order, the map turned so that most of them are in its middle.

    Where they all lie in a part of the sky, the grid, and so the map, is that of the part.
    """
    at = pixels.astype(np.uint64)
    ra, dec = (np.asarray(angle.deg) for angle in nested.healpix_to_lonlat(at, order))
    centre = float(np.degrees(np.angle(np.exp(1j * np.radians(ra)).mean()))) if len(ra) else 0.0
    half = float(np.abs(_wrapped(ra - centre)).max(initial=0))
    step = (
        next((step for step in _STEPS_OF_GRID if 6 * step >= max(2 * half, np.ptp(dec))), _GRID) if len(ra) else _GRID
    )
    centre = round(centre / step) * step % 360
    lon, lat = (np.asarray(angle.deg) for angle in nested.vertices(at, order, step=_STEPS.get(order, 1)))
    # A pixel across the edge of the map stays whole, beside its centre.
    from_centre = _wrapped(ra - centre)[:, None] + _wrapped(lon - ra[:, None])
    pole = np.abs(lat) > 90 - 1e-6  # which has any right ascension
    from_centre = np.where(pole, _wrapped(ra - centre)[:, None], from_centre)
    x, y = _plane(from_centre, lat)
    lons: np.ndarray
    lats: np.ndarray
    if step == _GRID:
        lons, lats, ends = np.arange(-180.0, 181, _GRID), np.arange(-60.0, 61, _GRID), (-90.0, 90.0)
        marked = [(lon, 0.0) for lon in lons[2:-2:2]], [(lons[0], lat) for lat in lats if lat]
    else:  # a part of the sky: the grid ends around it
        lons = step * np.arange(-np.ceil(half / step) - 1, np.ceil(half / step) + 2)
        lats = step * np.arange(np.floor(dec.min() / step), np.ceil(dec.max() / step) + 1)
        lats = lats[np.abs(lats) <= 90]
        ends = lats[0], lats[-1]
        marked = [(lon, lats[0]) for lon in lons], [(lons[0], lat) for lat in lats[1:]]
    grid = [_plane(np.full(91, float(lon)), np.linspace(*ends, 91)) for lon in lons]
    grid += [_plane(np.linspace(lons[0], lons[-1], 181), np.full(181, float(lat))) for lat in lats]
    marks = [(*_point(lon, lat), f"{round((centre + lon) % 360, 3):g}°") for lon, lat in marked[0]]
    marks += [(*_point(lon, lat), f"{round(float(lat), 3):+g}°") for lon, lat in marked[1]]
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
