"""Selections of a catalog by sky position and by identifier: the accessor ``.sedflow`` of its Dataset.

What comes back is the Dataset of the selected rows, still lazy: of a column only the sub-chunks with selected rows are read,
when it is touched. A small index (``shard_range``: least and greatest pixel and identifier of every shard) says which
shards can hold what is asked for; only their pixels or identifiers are read, one shard at a time. In a catalog in HEALPix
order these are the few shards of that part of the sky.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
import pandas as pd
import xarray as xr
from astropy.coordinates import Latitude, Longitude, angular_separation
from cdshealpix import nested

from storage_schemas.photometry import ID_MISSING, id_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ORDER = 29
PIXEL = "healpix_29"
_ANYTHING = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
_NOTHING = _ANYTHING[::-1]
_BLOCK = 1 << 16  # rows looked at at once where no shard says more
_MARGIN_DEG = 1e-6  # of a cone's pixels around the cone; rows are told by their exact separation
_CELLS = 3  # orders by which a cone's cells are finer than the cone
_FINEST = 26  # of a cone's cells: the library goes two orders deeper
#: Of a cone with cells: beyond, they are a quarter of the sky or more, and the library's lack some of it.
_WIDEST_DEG = 60.0


def shard_range(values: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Return the index of one shard: least and greatest value of integer columns, shape (column, 2); of uint64 ones less 2^63.

    Rows without a position (pixel -1) do not count; a column that is not among ``values`` may hold anything.
    """
    ranges = np.empty((len(names), 2), np.int64)
    for i, name in enumerate(names):
        found = None if name not in values else _as_int64(values[name])
        if found is not None and name == PIXEL:
            found = found[found >= 0]
        ranges[i] = _ANYTHING if found is None else (found.min(), found.max()) if len(found) else _NOTHING
    return ranges


@xr.register_dataset_accessor("sedflow")
class Query:
    """Rows of a catalog by position or identifier; see the module's docstring."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def cone(self, ra: float, dec: float, radius: float) -> xr.Dataset:
        """Return the rows within ``radius`` of a position, all in degrees (ICRS), in the catalog's order.

        Raises:
            ValueError: a number is outside its range; says which.
        """
        for name, value, low, high in (("ra", ra, -360, 360), ("dec", dec, -90, 90), ("radius", radius, 0, 180)):
            if not low <= value <= high:
                raise ValueError(f"cone: {name} is {value}; allowed are {low} to {high} deg")
        wide = min(radius + _MARGIN_DEG, 180.0)
        if wide > _WIDEST_DEG:
            cells, orders = np.arange(12), np.zeros(12, int)
        else:
            order = int(np.clip(np.log2(60 / wide) + _CELLS, 0, _FINEST))
            cells, orders, _ = nested.cone_search(Longitude(ra, u.deg), Latitude(dec, u.deg), wide * u.deg, order)
        rows = self._rows_in(_at_order_29(cells.astype(np.int64), orders))
        near = self._dataset[["ra", "dec"]].isel(galaxy=rows).load()
        here = np.radians([near["ra"].values, near["dec"].values])
        distance = angular_separation(np.radians(ra), np.radians(dec), *here)
        return self._dataset.isel(galaxy=rows[np.degrees(distance) <= radius])

    def pixels(self, order: int, pixels: ArrayLike) -> xr.Dataset:
        """Return the rows within HEALPix pixels (nested) of an order, in the catalog's order.

        Raises:
            ValueError: there is no such order or pixel.
        """
        wanted = np.unique(np.atleast_1d(np.asarray(pixels, dtype=np.int64)))
        if not 0 <= order <= ORDER:
            raise ValueError(f"HEALPix order {order}; allowed are 0 to {ORDER}")
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < 12 << 2 * order:
            raise ValueError(f"pixels {wanted[0]} to {wanted[-1]}; order {order} has 0 to {(12 << 2 * order) - 1}")
        return self._dataset.isel(galaxy=self._rows_in(_at_order_29(wanted, np.full(len(wanted), order))))

    def with_ids(self, **ids: ArrayLike) -> xr.Dataset:
        """Return the rows with given identifiers, in the catalog's order: ``with_ids(objectId=[3, 5])``.

        Where several columns together are the identifier, give them all, entry by entry: ``brickid=[1, 1], objid=[7, 9]``.

        Raises:
            ValueError: a column is no identifier, or an identifier is nowhere in the catalog; names it.
        """
        known = id_variables(self._dataset)
        if not ids or set(ids) - set(known):
            raise ValueError(
                f"identifiers of this catalog are {', '.join(known) or 'none'}; asked for: {', '.join(ids)}"
            )
        names = list(ids)
        columns = self._dataset[[known[name] for name in names]]
        wanted = pd.MultiIndex.from_arrays(
            [_wanted(name, values, columns[known[name]].dtype) for name, values in ids.items()], names=names
        )
        levels = {id_array(name): level for name, level in zip(names, wanted.levels, strict=True)}
        numbers = {name: _as_int64(np.unique(level)) for name, level in levels.items() if level.dtype.kind in "iu"}
        limits = {name: np.stack([values, values], axis=1) for name, values in numbers.items()}
        found, rows = np.zeros(len(wanted), bool), [np.empty(0, np.int64)]
        for block in self._blocks(limits):
            part = columns.isel(galaxy=block)
            have = pd.MultiIndex.from_arrays([_plain(part[known[name]].values) for name in names], names=names)
            hit = have.isin(wanted) & ~self._missing(names, block)
            found |= wanted.isin(have[hit])
            rows.append(block.start + np.flatnonzero(hit))
        if not found.all():
            lost = wanted[~found]
            first = ", ".join(f"{name} = {value}" for name, value in zip(names, lost[0], strict=True))
            raise ValueError(f"no row with {first} ({len(lost):,} of {len(wanted):,} not found)")
        return self._dataset.isel(galaxy=np.concatenate(rows))

    def _missing(self, names: Sequence[str], block: slice) -> np.ndarray:
        """Whether rows lack one of these identifiers: what stands in its place is none."""
        if ID_MISSING not in self._dataset:
            return np.zeros(block.stop - block.start, bool)
        at = [self._dataset.attrs["ids"].index(name) for name in names]
        return np.asarray(self._dataset[ID_MISSING].isel(galaxy=block, identifier=at).values.any(axis=1))

    def _rows_in(self, ranges: np.ndarray) -> np.ndarray:
        """Rows whose pixel lies in one of these ranges, shape (range, 2)."""
        rows = [np.empty(0, np.int64)]
        for block in self._blocks({PIXEL: ranges}) if len(ranges) else ():
            pixel = self._dataset[PIXEL].isel(galaxy=block).values
            at = np.searchsorted(ranges[:, 0], pixel, side="right") - 1
            rows.append(block.start + np.flatnonzero((at >= 0) & (pixel <= ranges[at, 1])))
        return np.concatenate(rows)

    def _blocks(self, wanted: Mapping[str, np.ndarray]) -> Iterator[slice]:
        """Runs of rows that may hold what is wanted: ranges by column, (range, 2), both ends included, sorted and apart."""
        if not self._is_whole():
            n_rows = self._dataset.sizes["galaxy"]
            yield from (slice(start, min(start + _BLOCK, n_rows)) for start in range(0, n_rows, _BLOCK))
            return
        if not all(map(len, wanted.values())):
            return
        size, use = self._dataset.attrs["rows_per_shard"], np.ones(self._dataset.sizes["shard"], bool)
        held = self._dataset["shard_range"].load()
        for name in wanted.keys() & set(held["indexed"].values.tolist()):
            low, high = held.sel(indexed=name).values.T
            first, last = wanted[name].T
            at = np.searchsorted(last, low)  # the first range that ends in the shard's or behind it
            use &= (at < len(first)) & (first[np.minimum(at, len(first) - 1)] <= high)
        for shard in np.flatnonzero(use).tolist():
            yield slice(shard * size, min((shard + 1) * size, self._dataset.sizes["galaxy"]))

    def _is_whole(self) -> bool:
        """Whether rows are where the index says: a catalog as it was opened, not a selection or another order."""
        row: Any = self._dataset.indexes.get("galaxy")
        return "shard_range" in self._dataset and isinstance(row, pd.RangeIndex) and (row.start, row.step) == (0, 1)


def id_variables(dataset: xr.Dataset) -> dict[str, str]:
    """Return the variable of each identifier of a catalog that is open."""
    names: dict[str, str] = dataset.attrs.get("id_variables") or {str(n): str(n) for n in dataset.attrs.get("ids", [])}
    return names


def _wanted(name: str, values: ArrayLike, dtype: Any) -> np.ndarray:
    """Identifiers that are asked for, of a column's type: exact integers, or text as it is written."""
    given = np.atleast_1d(np.asarray(values, None if hasattr(values, "dtype") else object)).ravel()
    found = _plain(given).tolist()
    kinds = (int, np.integer) if dtype.kind in "iu" else (int, np.integer, str)
    for value in found:
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = f"integers ({dtype})" if dtype.kind in "iu" else "text"
            raise ValueError(f"identifier {name} is {value!r}; those of this catalog are {kind}")
    if dtype.kind not in "iu":
        return np.array([str(value) for value in found], object)
    limits = np.iinfo(dtype)
    if outside := [value for value in found if not limits.min <= value <= limits.max]:
        raise ValueError(f"no row with {name} = {outside[0]} ({len(outside):,} of {len(found):,} not found)")
    return np.array(found, dtype)


def _plain(values: np.ndarray) -> np.ndarray:
    """Text as Python's: pandas does not know all of numpy's kinds."""
    return values if values.dtype.kind in "iuf" else values.astype(object)


def _as_int64(values: Any) -> np.ndarray:
    """Integers as int64, in the same order: uint64 ones less 2^63."""
    values = np.asarray(values)
    return (values ^ np.uint64(1 << 63)).view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)


def _at_order_29(cells: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """First and last pixel of order 29 in cells (int64) of other orders, sorted: (cell, 2)."""
    shift = 2 * (ORDER - orders.astype(np.int64))
    return np.stack([np.sort(cells << shift), np.sort(((cells + 1) << shift) - 1)], axis=1)
