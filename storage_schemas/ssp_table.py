"""The SSP table store: a small Zarr group, one object an array, with provenance and checksum."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage_schemas.backend.arrays import ArraySpec, array, seal, whole
from storage_schemas.backend.location import Location, open_group
from storage_schemas.backend.ours import begin

KIND = "ssp_table"
ARRAYS = (
    ArraySpec("edges", ("edge",), "float64", "Angstrom", "pixel edges, equally spaced in ln(wavelength)"),
    ArraySpec("age", ("age",), "float64", "Gyr", "age of the population"),
    ArraySpec("metallicity", ("metallicity",), "float64", "1", "metallicity (mass fraction)"),
    ArraySpec("spectra", ("metallicity", "age", "wavelength"), "float32", "Lsun Angstrom-1 Msun-1",
              "photon-weighted mean luminosity density in the pixel, per mass formed"),
    ArraySpec("surviving", ("metallicity", "age"), "float32", "1", "mass in stars per mass formed"),
)  # fmt: skip


def write(location: Location, arrays: dict[str, np.ndarray], provenance: dict[str, Any], checksum: str) -> None:
    """Write an SSP table (fields of `sedflow_dist.sps.ssp.SSPTable`); it counts as written when its attributes are."""
    n_z, n_age, n_pixel = arrays["spectra"].shape
    sizes = {"edge": n_pixel + 1, "age": n_age, "metallicity": n_z, "wavelength": n_pixel}
    group = begin(location, KIND)
    for spec in ARRAYS:
        spec.create(group, sizes, None)
        array(group, spec.name)[...] = arrays[spec.name]
    seal(group, KIND, {"provenance": provenance, "checksum": checksum})


def read(location: Location) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Return arrays, provenance and checksum of a stored SSP table."""
    group = open_group(location, KIND)
    arrays = {spec.name: whole(group, spec.name) for spec in ARRAYS}
    return arrays, dict(group.attrs["provenance"]), str(group.attrs["checksum"])  # type: ignore[arg-type]
