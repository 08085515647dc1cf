"""The conventions of netCDF, as xarray reads them: attributes that say which value is none, and how numbers are packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.containers.formats import MOST_TEXT_BYTES
from storage_schemas.backend.printable import shortened

PACKED = ("scale_factor", "add_offset", "_Unsigned", "dtype")
NULLS = ("_FillValue", "missing_value")
ATTRIBUTES = (*PACKED, *NULLS)


def decoded(name: str, raw: np.ndarray, attributes: Mapping[str, Any], title: str) -> np.ndarray:
    """Return an array's values by what its attributes say; missing integers are masked, as floats could not hold all others.

    Raises:
        ValueError: the attributes are none that xarray understands, or a text is too long.
    """
    import xarray as xr

    fills = [attributes[key] for key in ("_FillValue", "missing_value") if key in attributes]
    if raw.dtype.kind in "iub" and fills and not any(key in attributes for key in PACKED):
        absent = np.zeros(raw.shape, bool)
        for fill in np.ravel(np.array(fills, dtype=object)):
            absent |= raw == (int(fill) if isinstance(fill, float) and fill.is_integer() else fill)
        return np.ma.masked_array(raw, absent) if absent.any() else raw
    dimensions = ("row", "entry")[: raw.ndim]
    try:
        variable = xr.conventions.decode_cf_variable(
            name, xr.Variable(dimensions, raw, dict(attributes)), decode_times=False, decode_timedelta=False
        )
        values = np.asarray(variable.values)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{title}: array {shortened(name)} cannot be decoded: {shortened(error)}") from error
    if (
        values.dtype.kind in "TO"
        and len(values)
        and (longest := max(len(str(value)) for value in values.flat)) > MOST_TEXT_BYTES
    ):
        raise ValueError(
            f"{title}: array {shortened(name)} holds a text of {longest:,} characters; at most "
            f"{MOST_TEXT_BYTES:,} are read"
        )
    return values
