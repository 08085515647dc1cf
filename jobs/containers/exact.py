"""Columns exactly as a container holds them: integers and text without a float in between, and which rows hold nothing.

Identifiers and bit masks are read so. In: columns as pyarrow and numpy have them. Out: `Exact`, in the column's own
type, which follows from the container's schema and not from the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Of an identifier: more is no name but content, and comparing rows by it costs as much for each of them.
MOST_CHARACTERS = 1024
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_UNKNOWN = np.dtype("V1")  # a column that says of no value what it would be


class Exact(NamedTuple):
    """Values (row,) or (row, entry) in the column's own type, text as numpy's variable-length strings; and which are missing.

    Where a value is missing stands 0 or an empty text.
    """

    values: np.ndarray
    missing: np.ndarray

    def entry(self, i: int) -> Exact:
        """Return one entry of a column of vectors."""
        return Exact(self.values[:, i], self.missing[:, i])

    @property
    def kind(self) -> str | None:
        """The dtype that holds these values as identifiers: int64, uint64 or str; None where every dtype does.

        Raises:
            ValueError: they are no identifiers; says what they are.
        """
        dtype = self.values.dtype
        if dtype == _UNKNOWN:
            return None
        if dtype.kind in "iu":
            return "uint64" if dtype.kind == "u" and dtype.itemsize == 8 else "int64"
        if dtype.kind == "T":
            return "str"
        raise ValueError(
            f"{'boolean' if dtype.kind == 'b' else dtype}, which does not tell galaxies apart exactly; identifiers are "
            "integers or text"
        )

    def as_kind(self, kind: str) -> np.ndarray:
        """Return the values as identifiers of that dtype.

        Raises:
            ValueError: they are of another.
        """
        dtype = np.dtypes.StringDType() if kind == "str" else np.dtype(kind)
        if self.kind is None:
            return np.zeros(len(self.values), dtype)
        if self.kind != kind:
            raise ValueError(f"{self.kind}, and {kind} in other files")
        return self.values.astype(dtype)


def concatenate(parts: Sequence[Exact]) -> Exact:
    """Return parts of a column as one."""
    values, missing = zip(*parts, strict=True)
    return Exact(np.concatenate(values), np.concatenate(missing))


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are text, or bytes that should be."""
    return any(f(kind) for f in (*_STRINGS, *_BYTES))


def from_arrow(column: Any) -> Exact:
    """Return an Arrow array; lists of one length become (row, entry).

    Raises:
        ValueError: lists of several lengths, bytes that are no text, or a type that is neither a number nor text.
    """
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _from_lists(column)
    if pa.types.is_dictionary(kind):
        from_arrow(column.dictionary)  # its text may be too long to be repeated in every row
        return from_arrow(column.dictionary_decode())
    if isinstance(kind, pa.UuidType):
        return from_arrow(pa.array([None if x is None else str(x) for x in column.to_pylist()], pa.string()))
    if isinstance(kind, pa.BaseExtensionType):
        return from_arrow(column.storage)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_null(kind):
        return Exact(np.zeros(len(column), _UNKNOWN), missing)
    if pa.types.is_decimal(kind) and kind.scale == 0:  # how data bases write integers
        return from_arrow(column.cast(pa.int64() if kind.precision <= 18 else pa.string()))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Exact(
            column.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False), missing
        )
    if pa.types.is_fixed_size_binary(kind):
        column = column.cast(pa.binary())
    if not is_text(kind):
        raise ValueError(f"{kind}, which is neither a number nor text")
    _check_length((pc.max(pc.binary_length(column.cast(pa.large_binary()))).as_py() or 0) // 4)
    try:
        text = column.cast(pa.large_string()).fill_null("")
    except pa.ArrowInvalid:
        raise ValueError("bytes that are no text (UTF-8)") from None
    text = text if any(f(kind) for f in _STRINGS) else pc.utf8_rtrim(text, "\0")
    return _text(text.to_numpy(zero_copy_only=False), missing)


def from_numpy(values: np.ndarray, start: int = 0) -> Exact:
    """Return rows from ``start`` of a column in numpy, of which masked values, and None among text, are missing.

    Raises:
        ValueError: it holds neither numbers nor text.
    """
    missing, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.dtype.kind in "biuf":
        plain = plain.astype(plain.dtype.newbyteorder("="))
        return Exact(np.where(missing, plain.dtype.type(0), plain), missing)
    if plain.dtype.kind not in "SUTO":
        raise ValueError(f"{plain.dtype}, which is neither a number nor text")
    words = texts(values, start)
    missing = np.fromiter((word is None for word in words.flat), bool, words.size).reshape(words.shape)
    return _text(np.where(missing, "", words), missing)


def texts(values: np.ndarray, start: int = 0) -> np.ndarray:
    """Return rows from ``start`` of text, or of bytes that are text, as objects; what is masked is None.

    Raises:
        ValueError: bytes are no text, in UTF-8: to replace them would make different texts one; or it is neither.
    """
    absent, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    found = plain.astype(object)
    try:
        if plain.dtype.kind in "SO":
            decoded = (x.decode() if isinstance(x, bytes) else x for x in found.ravel().tolist())
            found = np.fromiter(decoded, object, found.size).reshape(found.shape)
    except UnicodeDecodeError as error:
        row = start + int(np.argwhere(plain == error.object)[0][0])
        raise ValueError(f"bytes that are no text (UTF-8): {error.object[:40]!r} in row {row}") from None
    found[absent] = None
    if plain.dtype.kind == "O" and (odd := [x for x in found.flat if not isinstance(x, str | NoneType)]):
        raise ValueError(f"{type(odd[0]).__name__}, which is neither a number nor text")
    return found


def plain_text(value: Any) -> str:
    """Return what an attribute says, for messages and comparisons: bytes that are no text are replaced."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def integers(text: Exact) -> Exact | None:
    """Return text that is integers, all of it, as int64 or else uint64; None where it is not."""
    column = pa.array(text.values.astype(object), pa.string(), mask=text.missing)
    for kind in (pa.int64(), pa.uint64()):
        try:
            return from_arrow(column.cast(kind))
        except pa.ArrowInvalid:
            continue
    return None


@contextmanager
def naming(location: object, name: str) -> Iterator[None]:
    """Name a column, and where it is, in errors about what it holds."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{location}: column {name} holds {error}") from error


def _from_lists(column: Any) -> Exact:
    there = column.is_valid().to_numpy(zero_copy_only=False)
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)[there]
    width = int(lengths[0]) if len(lengths) else 0
    if not np.all(lengths == width):
        raise ValueError(f"lists of {lengths.min()} to {lengths.max()} values")
    inner = from_arrow(column.flatten())
    values = np.zeros((len(column), width), inner.values.dtype)
    missing = np.ones(values.shape, bool)
    values[there] = inner.values.reshape(-1, width) if width else values[there]
    missing[there] = inner.missing.reshape(-1, width) if width else missing[there]
    return Exact(values, missing)


def _text(values: np.ndarray, missing: np.ndarray) -> Exact:
    """Text; where it is nothing but blanks, there is none."""
    text = values.astype(np.dtypes.StringDType())
    _check_length(int(np.strings.str_len(text).max(initial=0)))
    missing = missing | (np.strings.strip(text) == "")
    return Exact(np.where(missing, np.array("", np.dtypes.StringDType()), text), missing)


def _check_length(longest: int) -> None:
    if longest > MOST_CHARACTERS:
        raise ValueError(f"text of {longest:,} characters; at most {MOST_CHARACTERS:,} are taken")
