"""Tables of text: CSV and other separators, blanks, comments above, gzipped too. Such a table is read whole: not a large one.

A table of text has no types: numbers are what looks like them, and identifiers the text that is written, but for words that say
that none is there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from jobs.containers import exact, text_head
from jobs.containers.addresses import Entry, addresses, choose, with_table
from jobs.containers.arrow_columns import to_numpy
from jobs.containers.exact import Exact
from jobs.containers.formats import TWICE, Catalog, TableInfo, content_of, each_of
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened

MOST_BYTES = 512 << 20
_BLOCK_BYTES = 4 << 20
_TABLE = re.compile(rb"^#(Table(\d+))[ \t,]*\r?$", re.MULTILINE)  # as SkyServer heads each result of a query


_COMMENT = re.compile(rb"^#", re.MULTILINE)


class Text(Catalog):
    """A table of text, each row a line; of SkyServer's files with several results, one of them."""

    holds_several = True

    def __init__(self, location: Location, table: str | None = None) -> None:
        super().__init__(with_table(location, table))
        entries, parts = _parts(content_of(location, MOST_BYTES))
        content = parts[choose(entries, table, self.title)]
        self._head = head = text_head.read(content, location.url, self.title)
        try:
            rows = self._rows(content)
        except csv.Error as error:
            raise ValueError(f"{self.title} is no table of text that can be read: {shortened(error)}") from error
        self._content = pa.py_buffer(rows) if rows.strip() else None
        del content, rows
        self.names = tuple(dict.fromkeys(head.names))
        self.unreadable = {name: TWICE for name in self.names if head.names.count(name) > 1}
        self.units.update({name: head.units.get(name) for name in self.names})
        parsed: Any = self._parsed(pyarrow.csv.ConvertOptions(null_values=text_head.NULLS))
        self._table = pa.Table.from_arrays(
            [self._numbers(column) for column in parsed.columns], names=parsed.column_names
        )
        self.n_rows = self._table.num_rows

    @classmethod
    def tables(cls, location: Location) -> list[TableInfo]:
        """Return the results that a file of SkyServer holds; other files are one table."""
        entries, _ = _parts(content_of(location, MOST_BYTES))
        return each_of(cls, location, addresses(entries) if len(entries) > 1 else [None])

    def _rows(self, content: bytes) -> bytes:
        """The rows as a parser of separated values takes them: runs of blanks become tabs."""
        head = self._head
        body = content[head.start :]
        if head.separator == text_head.BLANKS:
            return _tabbed(body)
        if head.commented and (found := _COMMENT.search(body)):
            line = content[: head.start + found.start()].count(b"\n") + 1
            raise ValueError(
                f"{self.title}: line {line:,} begins with #, and may be a comment or a row: comments are taken above the rows "
                "only. Remove it, or the sign"
            )
        return body

    def _parsed(self, convert: pyarrow.csv.ConvertOptions) -> Any:
        if self._content is None:
            names = convert.include_columns or self._head.names
            return pa.Table.from_arrays([pa.nulls(0, pa.string())] * len(names), names=names)
        blanks = self._head.separator == text_head.BLANKS
        parse = pyarrow.csv.ParseOptions(delimiter="\t" if blanks else self._head.separator)
        reading = pyarrow.csv.ReadOptions(column_names=self._head.names)
        try:
            return pyarrow.csv.read_csv(self._content, reading, parse, convert)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise ValueError(f"{self.title} is no table of text that can be read: {shortened(error)}") from error

    def _read(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        part = self._table.slice(start, stop - start)
        found = {}
        for name in names:
            try:
                found[name] = to_numpy(part.column(name))
            except ValueError as error:
                raise ValueError(f"{self.title}: column {shortened(name)} {shortened(error)}") from error
        return found

    def _exact(self, start: int, stop: int, names: Sequence[str]) -> dict[str, Exact]:
        """What is written there, whatever it looks like: 00012 is not 12, and 1e5 no number."""
        if start == stop or not names:
            return {name: exact.from_arrow(pa.array([], pa.string())) for name in names}
        as_text = pyarrow.csv.ConvertOptions(
            include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        table = self._parsed(as_text).slice(start, stop - start)
        found = {}
        for name in names:
            with exact.naming(self.title, name):
                found[name] = exact.from_arrow(self._words(table.column(name).combine_chunks()))
        return found

    def _numbers(self, column: Any) -> Any:
        """A column of the table, in which blanks beside numbers, or where there is none, make no text of the others."""
        if not pa.types.is_string(column.type):
            return column
        words = self._words(column)
        try:
            return pc.utf8_trim_whitespace(words).cast(pa.float64())
        except pa.ArrowInvalid:
            return words

    def _words(self, column: Any) -> Any:
        """Text, without blanks about it where they are padding; null where it says that nothing is there."""
        plain = pc.utf8_trim_whitespace(column)
        absent = pc.is_in(plain, pa.array(text_head.NULLS, pa.string()))
        return pc.if_else(absent, None, plain if self._head.padded else column)


def _parts(content: bytes) -> tuple[list[Entry], list[bytes]]:
    """The tables that stand one below the other in a text, each under a line ``#Table1``; a text without is one."""
    heads = list(_TABLE.finditer(content)) if _TABLE.match(content) else []
    if not heads:
        return [Entry((), 1)], [content]
    ends = [*(head.start() for head in heads[1:]), len(content)]
    entries = [Entry((head[1].decode(),), number) for number, head in enumerate(heads, 1)]
    return entries, [content[head.end() : end] for head, end in zip(heads, ends, strict=True)]


def _tabbed(body: bytes) -> bytes:
    """Rows whose values are parted by blanks, parted by tabs; a block at a time, as lines take more memory than their bytes."""
    made, at = bytearray(), 0
    while at < len(body):
        end = body.rfind(b"\n", at, at + _BLOCK_BYTES) + 1 or body.find(b"\n", at) + 1 or len(body)
        rows = (line for line in body[at:end].splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
        made += b"".join(_tabbed_row(line) + b"\n" for line in rows)
        at = end
    return bytes(made)


def _tabbed_row(line: bytes) -> bytes:
    """What is quoted stays in one piece."""
    if b'"' not in line:
        return b"\t".join(line.split())
    row = next(
        csv.reader([line.decode("latin-1").replace("\t", " ").strip()], delimiter=" ", skipinitialspace=True), []
    )
    made = io.StringIO()
    csv.writer(made, delimiter="\t", lineterminator="").writerow(row)
    return made.getvalue().encode("latin-1")
