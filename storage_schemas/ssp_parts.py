"""SSPs as FSPS has them, one metallicity a chunk: what `build_ssp` keeps until all of a table's are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
#: What a library of the table needs besides.
LIBRARIES = {
    "nebular": (
        ArraySpec("gas", (_Z, "log_u", "gas_age", "wavelength"), "float64", "Lsun Angstrom-1 Msun-1", "light of gas"),
    ),
    "dust": (
        ArraySpec("dust", (_Z, "kind", "q_pah", "u_min", "wavelength"), "float32", "1", "emission per frequency and dust mass"),
    ),
    "torus": (
        ArraySpec("tau", (_Z, "tau"), "float64", "1", "optical depth of a torus' cloud"),
        ArraySpec("torus", (_Z, "tau", "wavelength"), "float64", "Hz-1", "emission of a torus per luminosity"),
        ArraySpec("luminosity", (_Z, "age"), "float64", "Lsun Msun-1", "bolometric luminosity of the stars"),
    ),
}  # fmt: skip


def names(libraries: Collection[str]) -> tuple[str, ...]:
    """Return the arrays of a store that serves some libraries."""
    return tuple(spec.name for spec in _arrays(libraries))


def create(
    location: Location, sizes: Mapping[str, int], settings: Mapping[str, Any], libraries: Collection[str] = ()
) -> ChunkedStore:
    """Create or reopen a store of SSPs: ``sizes`` of metallicity, age, wavelength and what libraries have."""
    if libraries:
        settings = {**settings, "libraries": sorted(libraries)}
    return ChunkedStore.create(location, KIND, _arrays(libraries), sizes, 1, settings, {})


def _arrays(libraries: Collection[str]) -> tuple[ArraySpec, ...]:
    return (*ARRAYS, *(spec for name in LIBRARIES if name in libraries for spec in LIBRARIES[name]))


def open(location: Location) -> ChunkedStore:  # noqa: A001
    """Open a store of SSPs for filling."""
    return ChunkedStore(location, KIND, "r+")
