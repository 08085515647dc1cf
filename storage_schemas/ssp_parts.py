"""SSPs as FSPS has them, one metallicity a chunk: what `build_ssp` keeps until all of a table's are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

KIND = "ssp_parts"
_Z = "metallicity"
ARRAYS = (
    ArraySpec("value", (_Z,), "float64", "1", "metallicity (mass fraction)"),
    ArraySpec("provenance", (_Z,), "str", "", "what made this row, as JSON", fill=""),
    ArraySpec("wavelength", (_Z, "wavelength"), "float64", "Angstrom", "FSPS's own"),
    ArraySpec("age", (_Z, "age"), "float64", "Gyr", "age of the population"),
    ArraySpec("spectra", (_Z, "age", "wavelength"), "float64", "Lsun Angstrom-1 Msun-1", "luminosity density"),
    ArraySpec("surviving", (_Z, "age"), "float64", "1", "mass in stars per mass formed"),
)
NAMES = tuple(spec.name for spec in ARRAYS)


def create(location: Location, shape: tuple[int, int, int], settings: Mapping[str, Any]) -> ChunkedStore:
    """Create or reopen a store of SSPs of ``shape`` (metallicity, age, wavelength)."""
    sizes = dict(zip((_Z, "age", "wavelength"), shape, strict=True))
    return ChunkedStore.create(location, KIND, ARRAYS, sizes, 1, settings, {})


def open(location: Location) -> ChunkedStore:  # noqa: A001
    """Open a store of SSPs for filling."""
    return ChunkedStore(location, KIND, "r+")
