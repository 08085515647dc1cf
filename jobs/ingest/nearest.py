"""The nearest of other positions within a radius: HEALPix cells with their neighbours first, then a tree of unit vectors."""

from __future__ import annotations

from dataclasses import dataclass

import cdshealpix
import numpy as np
from astropy.coordinates import angular_separation
from scipy.spatial import cKDTree

from sedflow_dist.photometry.surveys import healpix

_ORDER = 29
_FINEST = 10  # order of the cells that are looked at: 3.4 arcmin
#: What lies within this / nside [rad] of a point of a cell lies in the cell or a neighbour; the closest that opposite edges of a
#: cell come is 0.69 / nside.
_REACH = 0.5
_ROUNDING = 1e-14  # of chords of unit vectors


@dataclass(frozen=True)
class Sky:
    """Positions (row,) [deg] that look for others within ``radius`` [deg]; ``rows`` of them are positions at all.

    ``cells`` are the HEALPix cells, of ``order``, where a match can lie, sorted.
    """

    ra: np.ndarray
    dec: np.ndarray
    radius: float
    rows: np.ndarray
    order: int
    cells: np.ndarray

    @classmethod
    def of(cls, ra: np.ndarray, dec: np.ndarray, radius: float) -> Sky:
        """Look from these positions."""
        order = int(np.clip(np.floor(np.log2(_REACH / np.radians(radius))), 0, _FINEST))
        pixel = healpix(ra, dec)
        rows = np.flatnonzero(pixel >= 0)
        own = np.unique(pixel[rows] >> 2 * (_ORDER - order))
        around = cdshealpix.nested.neighbours(own.astype(np.uint64), order) if len(own) else np.zeros((0, 9), np.int64)
        cells = np.unique(around.astype(np.int64))
        return cls(ra, dec, radius, rows, order, cells[cells >= 0])

    def may_hold(self, low: int, high: int) -> bool:
        """Whether a match can lie among pixels of order 29 from ``low`` to ``high``."""
        shift = 2 * (_ORDER - self.order)
        first, stop = np.searchsorted(self.cells, [max(low, 0) >> shift, (high >> shift) + 1])
        return high >= 0 and stop > first

    def nearest_in(
        self, pixel: np.ndarray, ra: np.ndarray, dec: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return of the positions that have a match: which, the place of the nearest, its distance (chord of unit vectors),
        whether several are within the radius, and whether several are equally near, of which it is the one of the least ``row``.
        """
        if not len(self.cells):
            return None
        cell = pixel >> 2 * (_ORDER - self.order)
        place = np.minimum(np.searchsorted(self.cells, cell), len(self.cells) - 1)
        near = np.flatnonzero((pixel >= 0) & (self.cells[place] == cell))
        if not len(near):
            return None
        tree, here = cKDTree(_vectors(ra[near], dec[near])), _vectors(self.ra[self.rows], self.dec[self.rows])
        chord = 2 * np.sin(np.radians(self.radius) / 2) * (1 + 1e-9) + _ROUNDING
        distance, place = tree.query(here, k=2, distance_upper_bound=chord)
        mine = np.flatnonzero(np.isfinite(distance[:, 0]))
        distance, place = distance[mine], place[mine]
        second = np.isfinite(distance[:, 1])
        equal = second & (distance[:, 1] == distance[:, 0])
        first = near[place[:, 0]]
        for i in np.flatnonzero(equal).tolist():
            others = near[tree.query_ball_point(here[mine[i]], distance[i, 0] * (1 + 1e-12))]
            apart = np.linalg.norm(_vectors(ra[others], dec[others]) - here[mine[i]], axis=1)
            nearest = others[apart == apart.min()]
            first[i] = nearest[np.argmin(row[nearest])]
        rows = self.rows[mine]
        several = np.zeros(len(rows), bool)
        several[second] = self._within(rows[second], ra[near[place[second, 1]]], dec[near[place[second, 1]]])
        good = self._within(rows, ra[first], dec[first])
        return rows[good], first[good], distance[good, 0], several[good], equal[good]

    def _within(self, rows: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        apart = angular_separation(*map(np.radians, (self.ra[rows], self.dec[rows], ra, dec)))
        return np.degrees(apart) <= self.radius


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (row, 3) of positions [deg]."""
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
