"""Zarr: the arrays of a group that have as many rows as the longest are a table by columns, decoded as xarray does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from jobs.containers import conventions, exact, units
from jobs.containers.exact import Exact
from jobs.containers.formats import FEW_ROWS, MOST_CHUNK_BYTES, MOST_VALUE_BYTES, Catalog, wrong_type
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened

_DIMENSIONS = "_ARRAY_DIMENSIONS"  # by which xarray knows its arrays of format 2


class Zarr(Catalog):
    """The arrays of a Zarr group, of format 2 or 3."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._location = location
        group = zarr.open_group(location.zarr(read_only=True), mode="r")
        if kind := group.attrs.get("sedflow_kind"):
            raise ValueError(
                f"{self.title} is a {shortened(str(kind))} store of sedflow and no table; `sedflow infer` takes photometry"
            )
        arrays = {name: value for name, value in sorted(group.arrays()) if value.ndim in (1, 2)}
        self.n_rows = max((value.shape[0] for value in arrays.values()), default=0)
        self._arrays = arrays
        self.names = tuple(arrays)
        for name, value in arrays.items():
            about = dict(value.attrs)
            self.units[name], reason = units.agreed(units.said(about))
            if reason := self._reason(value) or conventions.reason(about) or reason:
                self.unreadable[name] = reason
        self._check_rows()

    def _reason(self, value: Any) -> str | None:
        """Why an array is not read, from its metadata alone."""
        if any(getattr(codec, "codec_id", "") == "pickle" for codec in (*value.filters, *value.compressors)):
            return "is pickled: reading it could run any code, so it is not read"
        if value.shape[0] != self.n_rows:
            return f"has {value.shape[0]:,} rows, and the longest of the group {self.n_rows:,}"
        if value.dtype.kind not in "biufSUTO":
            return wrong_type(value.dtype)
        item = max(value.dtype.itemsize, 1)
        row, chunk = item * int(np.prod(value.shape[1:], dtype=object)), item * int(np.prod(value.chunks, dtype=object))
        if row > MOST_VALUE_BYTES or chunk > MOST_CHUNK_BYTES:
            most = f"{MOST_VALUE_BYTES:,} and {MOST_CHUNK_BYTES:,}"
            return f"takes {row:,} bytes a row and {chunk:,} a chunk; at most {most} are read"
        return None

    def _check_rows(self) -> None:
        """Refuse a shape of which nearly nothing is stored: its rows would all be fill values."""
        if self.n_rows <= FEW_ROWS:
            return
        stored = 0
        for name, value in self._arrays.items():
            if name not in self.unreadable and stored < self.n_rows // 2:
                objects = sum(1 for _ in self._location.list(f"{name}/"))  # zarr would count all that could be there
                shape = value.shards or value.chunks
                across = int(
                    np.prod([-(-n // c) for n, c in zip(value.shape[1:], shape[1:], strict=True)], dtype=object)
                )
                stored = max(stored, objects // max(across, 1) * shape[0])
        if stored < self.n_rows // 2:
            raise ValueError(
                f"{self.title} announces {self.n_rows:,} rows, and the chunks that are stored hold at most {stored:,}"
            )

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {
            name: conventions.decoded(
                name, np.asarray(self._arrays[name][start:stop]), self._attributes(name), self.title, start
            )
            for name in names
        }

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        found = {}
        for name in names:
            with exact.naming(self.title, name):
                raw = np.asarray(self._arrays[name][start:stop])
                found[name] = exact.from_numpy(conventions.exactly(raw, self._attributes(name), start), start)
        return found

    def _attributes(self, name: str) -> dict[str, Any]:
        """Attributes that say how an array is packed, the fill value among them, as xarray has it."""
        from xarray.backends.zarr import FillValueCoder

        value = self._arrays[name]
        about: dict[str, Any] = {key: text for key, text in value.attrs.items() if key in conventions.ATTRIBUTES}
        fill, kind = about.get("_FillValue"), value.dtype.kind
        if value.metadata.zarr_format == 3 and isinstance(fill, str) and kind in "fS":
            try:
                about["_FillValue"] = FillValueCoder.decode(fill, value.dtype if kind == "f" else "bytes")
            except (ValueError, TypeError, struct.error) as error:
                raise ValueError(
                    f"{self.title}: array {shortened(name)} has no valid _FillValue: {shortened(error)}"
                ) from error
        if value.metadata.zarr_format == 2 and _DIMENSIONS in value.attrs and value.fill_value is not None:
            about["_FillValue"] = [*np.ravel(np.array([] if fill is None else fill, object)), value.fill_value]
        return about
