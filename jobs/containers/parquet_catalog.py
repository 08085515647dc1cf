"""Parquet: only the row groups and columns that are asked for are decoded; units are read from wherever writers put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jobs.containers import arrow_columns, astropy_meta, conventions, exact, units, votable_catalog
from jobs.containers.exact import Exact
from jobs.containers.formats import MOST_PIECE_BYTES, MOST_VALUE_BYTES, TWICE, Catalog, open_file
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened

_ASTROPY, _VOTABLE = b"table_meta_yaml", b"IVOA.VOTable-Parquet.content"
_MOST_METADATA_BYTES = 8 << 20
#: Runs of equal values take few bytes, but no catalog is made of nothing else.
_MOST_ROWS_PER_BYTE = 100_000
_MOST_ENTRIES = 4096  # of a vector, in the mean
_BATCH_ENTRIES = 65_536


class Parquet(Catalog):
    """A Parquet file."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._file = open_file(location)
        size = self._file.seek(0, 2)
        self._file.seek(0)
        schema = pa.schema([])
        try:
            self._parquet = pa.parquet.ParquetFile(self._file, pre_buffer=not location.is_local)
            schema = self._parquet.schema_arrow
            texts = [field.name for field in schema if exact.is_text(field.type)]
            if texts:  # repeated text is held once until its length is known
                self._parquet = pa.parquet.ParquetFile(
                    self._file, metadata=self._parquet.metadata, read_dictionary=texts, pre_buffer=not location.is_local
                )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.title} is not a parquet file: {shortened(error)}") from error
        metadata = self._parquet.metadata
        self.n_rows = metadata.num_rows
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) != self.n_rows or self.n_rows > size * _MOST_ROWS_PER_BYTE:
            raise ValueError(
                f"{self.title} announces {self.n_rows:,} rows in {len(groups):,} row groups of {sum(groups):,} rows: no "
                f"file of {size:,} bytes holds them"
            )
        self._ends = np.cumsum(groups, dtype=np.int64)
        self.names = tuple(dict.fromkeys(schema.names))
        stated = schema.metadata or {}
        self._masks: dict[str, str] = {}
        self._nulls: dict[str, list[Any]] = {}
        self._read_units(schema, stated)
        for field in schema:
            if len(schema.get_all_field_indices(field.name)) > 1:
                self.unreadable[field.name] = TWICE
            elif pa.types.is_nested(field.type) and not arrow_columns.is_vector(field.type):
                self.unreadable[field.name] = f"is nested ({shortened(field.type)}), which is not read"

    def _read_units(self, schema: pa.Schema, stated: Mapping[bytes, bytes]) -> None:
        """Units from the fields' own metadata, and from those of astropy and of the VOParquet convention, and masks."""
        said: list[tuple[str, str]] = [
            (field.name, text) for field in schema for text in units.said(field.metadata or {})
        ]
        for key in (_ASTROPY, _VOTABLE):
            if len(stated.get(key, b"")) > _MOST_METADATA_BYTES:
                raise ValueError(
                    f"{self.title}: its metadata {key.decode()} have more than {_MOST_METADATA_BYTES:,} bytes"
                )
        if _ASTROPY in stated:
            found, self._masks = astropy_meta.read(stated[_ASTROPY], self.title, _ASTROPY.decode())
            said += found.items()
        for field in self._votable(stated[_VOTABLE]) if _VOTABLE in stated else ():
            if field.unit is not None:
                said.append((field.name, str(field.unit)))
            if field.values.null is not None and field.datatype != "boolean":  # of which ? is null, and astropy's False
                self._nulls.setdefault(field.name, []).append(field.values.null)
        for name in self.names:
            self.units[name], reason = units.agreed(text for column, text in said if column == name)
            if reason:
                self.unreadable[name] = reason

    def _votable(self, text: bytes) -> list[Any]:
        """The fields that a VOTable describes."""
        try:
            tables = votable_catalog.parse(text, f"its metadata {_VOTABLE.decode()}")
        except ValueError as error:
            raise ValueError(
                f"{self.title}: its metadata {_VOTABLE.decode()}, which say what its columns are, cannot be read: "
                f"{shortened(error)}"
            ) from error
        return [field for table in tables for field in table.fields]

    def borders(self, rows: int) -> list[int]:
        """Cut between row groups, and within one only where it alone is larger than a piece."""
        cuts = [0]
        for start, end in pairwise([0, *self._ends.tolist()]):
            if end - cuts[-1] > rows and start > cuts[-1]:
                cuts.append(start)
            cuts += range(cuts[-1] + rows, end, rows)
        return [*cuts, self.n_rows] if self.n_rows else cuts

    def places(self, number: int) -> list[int]:
        """The first rows of row groups: what lies before a row in its group has to be decoded too."""
        starts = [0, *self._ends[:-1].tolist()] if self.n_rows else []
        return sorted({starts[len(starts) * i // number] for i in range(number)}) if starts else []

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        masks = {name: self._masks[name] for name in names if self._masks.get(name) in self.names}
        parts = self._parts(start, stop, list(dict.fromkeys([*names, *masks.values()])))
        found = {name: self._numpy(name, column) for name, column in parts.items()}
        for name in self._nulls.keys() & found.keys():
            with exact.naming(self.title, name):
                found[name] = self._without_nulls(name, found[name], start)
        for name, mask in masks.items():
            found[name] = np.ma.masked_where(astropy_meta.over(found[mask], found[name]), found[name])
        return {name: found[name] for name in names}

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        masks = {name: self._masks[name] for name in names if self._masks.get(name) in self.names}
        wanted = list(dict.fromkeys([*names, *masks.values()]))
        parts = self._parts(start, stop, wanted) if names and start < stop else {name: [] for name in wanted}
        found = {}
        for name in names:
            kind = parts[name][0].type if parts[name] else self._parquet.schema_arrow.field(name).type
            with exact.naming(self.title, name):
                values, missing = exact.from_arrow(pa.chunked_array(parts[name], kind).combine_chunks())
                if name in self._nulls and values.dtype.kind != "V":
                    values = values if values.dtype.kind == "T" else np.ma.masked_array(values, missing)
                    values, missing = exact.from_numpy(self._without_nulls(name, values, start), start)
                found[name] = exact.Exact(values, missing)
            if name in masks and parts[name]:
                values, missing = found[name]
                found[name] = exact.Exact(
                    values, missing | astropy_meta.over(self._numpy(masks[name], parts[masks[name]]), values)
                )
        return found

    def _without_nulls(self, name: str, values: np.ndarray, start: int) -> np.ndarray:
        """Rows in which what VOParquet's description calls none is missing."""
        return conventions.unscaled(values, {"missing_value": self._nulls[name]}, start)

    def _parts(self, start: int, stop: int, wanted: Sequence[str]) -> dict[str, list[Any]]:
        """Arrow arrays that are, one after the other, the rows ``start`` to ``stop`` of each column."""
        parts: dict[str, list[Any]] = {name: [] for name in wanted}
        n_rows = n_bytes = 0
        try:
            for part in self._batches(start, stop, wanted):
                n_rows, n_bytes = n_rows + len(part), n_bytes + part.nbytes
                if n_bytes > MOST_PIECE_BYTES:
                    raise ValueError(
                        f"{self.title}: rows from {start} take more than {MOST_PIECE_BYTES:,} bytes: set `rows_per_piece` of "
                        f"`ingest` below {n_rows:,}"
                    )
                for name in wanted:
                    parts[name].append(part.column(part.schema.get_field_index(name)))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.title}: rows {start} to {stop - 1} cannot be read: {shortened(error)}") from error
        if n_rows < stop - start:
            raise ValueError(
                f"{self.title} is damaged: {self.n_rows:,} rows are announced, row {start + n_rows} is not there"
            )
        return parts

    def _batches(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Any]:
        """Rows in batches, cut to those that are asked for, after a look at how large their values are."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        at = int(self._ends[first - 1]) if first else 0
        entries = max((self._entries(group, names) for group in range(first, last + 1)), default=1)
        size = max(_BATCH_ENTRIES // entries, 1)
        for batch in self._parquet.iter_batches(size, row_groups=range(first, last + 1), columns=list(names)):
            part = batch.slice(max(start - at, 0), max(min(stop - at, len(batch)) - max(start - at, 0), 0))
            at += len(batch)
            if len(part):
                yield part
            if at >= stop:
                return

    def _entries(self, group: int, names: Sequence[str]) -> int:
        """Most entries that a row of the columns has in the mean, refused where these, or their bytes, are too many."""
        about, most = self._parquet.metadata.row_group(group), 1
        for i in range(about.num_columns):
            column = about.column(i)
            name = column.path_in_schema
            if not any(name == wanted or name.startswith(f"{wanted}.") for wanted in names):
                continue
            rows = max(about.num_rows, 1)
            entries, size = -(-column.num_values // rows), column.total_uncompressed_size // rows
            if entries > _MOST_ENTRIES or size > MOST_VALUE_BYTES:
                raise ValueError(
                    f"{self.title}: column {shortened(name)} has {entries:,} entries and {size:,} bytes a row in the mean; "
                    f"at most {_MOST_ENTRIES:,} and {MOST_VALUE_BYTES:,} are read"
                )
            most = max(most, entries)
        return most

    def _numpy(self, name: str, parts: Sequence[Any]) -> np.ndarray:
        try:
            return arrow_columns.to_numpy(pa.chunked_array(parts))
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{self.title}: column {shortened(name)} {shortened(error)}") from error
