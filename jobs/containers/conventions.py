"""The conventions of netCDF, as xarray reads them: attributes that say which value is none, and how numbers are packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.containers import exact
from jobs.containers.formats import MOST_TEXT_BYTES
from storage_schemas.backend.printable import shortened

SCALES = ("scale_factor", "add_offset")
NULLS = ("_FillValue", "missing_value")
ATTRIBUTES = (*SCALES, *NULLS, "_Unsigned", "dtype")
_TIMES = ("datetime64", "timedelta64")


def reason(attributes: Mapping[str, Any]) -> str | None:
    """Why a column is not read, by what its attributes say: they make its numbers a time."""
    unit, kind = (exact.plain_text(attributes.get(key, "")) for key in ("units", "dtype"))
    if " since " in unit or kind.startswith(_TIMES):
        return f"is a time ({shortened(unit or kind)}), which is not read"
    return None


def decoded(name: str, raw: np.ndarray, attributes: Mapping[str, Any], title: str, start: int = 0) -> np.ndarray:
    """Return an array's rows from ``start`` by what its attributes say; what is missing is masked, of text None.

    Raises:
        ValueError: the attributes are none that xarray understands, or a text is no text, or too long.
    """
    scales = {key: attributes[key] for key in SCALES if key in attributes}
    with exact.naming(title, name):
        values = unscaled(raw, attributes, start)
    if raw.dtype.kind in "TO" and (longest := max(map(len, filter(None, values.flat)), default=0)) > MOST_TEXT_BYTES:
        raise ValueError(
            f"{title}: array {shortened(name)} holds a text of {longest:,} characters; at most {MOST_TEXT_BYTES:,} are read"
        )
    if not scales:
        return values
    import xarray as xr  # slow to load, and most columns are not packed

    try:
        variable = xr.Variable(("row", "entry")[: raw.ndim], np.ma.getdata(values), scales)
        numbers = np.asarray(
            xr.conventions.decode_cf_variable(name, variable, decode_times=False, decode_timedelta=False).values
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{title}: array {shortened(name)} cannot be decoded: {shortened(error)}") from error
    return np.ma.masked_array(numbers, values.mask) if np.ma.isMaskedArray(values) else numbers


def exactly(raw: np.ndarray, attributes: Mapping[str, Any], start: int = 0) -> np.ndarray:
    """Return rows from ``start`` as `unscaled` does, of columns that hold their values themselves.

    Raises:
        ValueError: as `unscaled`; or integers stand for other numbers.
    """
    if packed := [key for key in SCALES if key in attributes]:
        raise ValueError(f"integers packed with {' and '.join(packed)}, which stand for other numbers")
    return unscaled(raw, attributes, start)


def unscaled(raw: np.ndarray, attributes: Mapping[str, Any], start: int = 0) -> np.ndarray:
    """Return rows from ``start`` in the type that attributes give them, every digit kept, before any scale and offset.

    What is missing is masked; text is of objects, and None where it is missing.

    Raises:
        ValueError: text is none, or an attribute cannot be understood. The message is to follow ``column NAME holds``.
    """
    if raw.dtype.kind in "SUTO":
        text = exact.texts(raw, start)
        for null in _said(attributes):
            if not isinstance(null, str | bytes):
                raise ValueError(f"text, and its attributes say that {shortened(null)} is none, which is no text")
            text[text == exact.plain_text(null).rstrip("\0")] = None
        return text
    values = _signed(raw, attributes)
    if nulls := [null for one in _said(attributes) if (null := _number(one, raw.dtype, values.dtype)) is not None]:
        absent = np.any([np.ma.getdata(values) == null for null in nulls], 0)
        values = np.ma.masked_where(absent, values) if absent.any() else values
    return values.astype(bool) if exact.plain_text(attributes.get("dtype", "")) == "bool" else values


def _said(attributes: Mapping[str, Any]) -> list[Any]:
    """Values that attributes call none, one or a list of them each."""
    return [null for key in NULLS if key in attributes for null in np.ravel(np.array(attributes[key], object)).tolist()]


def _signed(raw: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """Integers whose bits are, by ``_Unsigned``, to be read with or without a sign."""
    said = exact.plain_text(attributes.get("_Unsigned", "")).lower()
    if said not in ("", "true", "false"):
        raise ValueError(f"numbers of which _Unsigned says {shortened(said)!r}; it may be true or false")
    if (said, raw.dtype.kind) in (("true", "i"), ("false", "u")):
        return raw.view(raw.dtype.str.replace(*("iu" if said == "true" else "ui")))
    return raw


def _number(null: Any, stored: np.dtype[Any], dtype: np.dtype[Any]) -> Any:
    """A value that is none, in the column's type; None if no value of that type is it.

    Raises:
        ValueError: it is no number.
    """
    if isinstance(null, str | bytes):
        text = exact.plain_text(null).strip("\0 ")
        try:
            null = int(text)
        except ValueError:
            try:
                null = float(text)
            except ValueError:
                raise ValueError(
                    f"{dtype}, and its attributes say that {shortened(text)!r} is none, which is no number"
                ) from None
    if not isinstance(null, int | float | np.number | np.bool_):
        raise ValueError(f"{dtype}, and its attributes say that {shortened(null)} is none, which is no number")
    if dtype.kind == "f":
        return _float(null, dtype)
    if isinstance(null, float | np.floating) and (not np.isfinite(null) or null != int(null)):
        return None
    null = int(null)
    if dtype.kind == "b":
        return bool(null) if null in (0, 1) else None
    for kind in (dtype, stored):  # that of the bits, with or without a sign
        if np.iinfo(kind).min <= null <= np.iinfo(kind).max:
            return np.array(null, kind.newbyteorder("=")).view(dtype.newbyteorder("="))[()]
    return None


def _float(null: Any, dtype: np.dtype[Any]) -> Any:
    """A number in a type of floats; None if it is too large for it."""
    try:
        wide = float(null)
    except OverflowError:
        return None
    with np.errstate(over="ignore"):
        found = dtype.type(wide)
    return found if np.isfinite(found) or not np.isfinite(wide) else None
