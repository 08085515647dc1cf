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
#: Arrays that a table has where components of a galaxy model need them.
LIBRARIES = (
    ArraySpec("nebular_age", ("gas_age",), "float64", "Gyr", "age of the stars around which the gas is"),
    ArraySpec("nebular_log_u", ("log_u",), "float64", "1", "log10 of the ionisation parameter of the gas"),
    ArraySpec("nebular_spectra", ("log_u", "metallicity", "gas_age", "wavelength"), "float32", "Lsun Angstrom-1 Msun-1",
              "lines and continuum of gas: mean luminosity density in the pixel, per mass formed"),
    ArraySpec("nebular_stars", ("metallicity", "gas_age", "wavelength"), "float32", "Lsun Angstrom-1 Msun-1",
              "what gas leaves of the light of stars of these ages, all of which have it around them"),
    ArraySpec("dust_u_min", ("u_min",), "float64", "1", "lowest intensity of starlight on dust"),
    ArraySpec("dust_q_pah", ("q_pah",), "float64", "%", "percentage of the dust's mass in PAHs"),
    ArraySpec("dust_power", ("kind", "q_pah", "u_min"), "float64", "1", "luminosity per hydrogen atom, of the largest"),
    ArraySpec("dust_spectra", ("kind", "q_pah", "u_min", "wavelength"), "float32", "Angstrom-1",
              "emission of dust per luminosity; kinds: one intensity of starlight, and many"),
    ArraySpec("torus_tau", ("tau",), "float64", "1", "optical depth at 5500 A of a cloud in an active nucleus' torus"),
    ArraySpec("torus_spectra", ("tau", "wavelength"), "float32", "Angstrom-1", "emission of a torus per luminosity"),
    ArraySpec("torus_luminosity", ("metallicity", "age"), "float32", "Lsun Msun-1",
              "bolometric luminosity of the stars, of which a torus' is a fraction"),
)  # fmt: skip


def write(location: Location, arrays: dict[str, np.ndarray], provenance: dict[str, Any], checksum: str) -> None:
    """Write an SSP table (arrays of `sedflow_dist.sps.ssp.SSPTable`); it counts as written when its attributes are."""
    group = begin(location, KIND)
    for spec in (*ARRAYS, *LIBRARIES):
        if spec.name in arrays:
            spec.create(group, dict(zip(spec.dims, arrays[spec.name].shape, strict=True)), None)
            array(group, spec.name)[...] = arrays[spec.name]
    seal(group, KIND, {"provenance": provenance, "checksum": checksum})


def read(location: Location) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Return arrays, provenance and checksum of a stored SSP table."""
    group = open_group(location, KIND)
    there = [*ARRAYS, *(spec for spec in LIBRARIES if spec.name in group)]
    arrays = {spec.name: whole(group, spec.name) for spec in there}
    return arrays, dict(group.attrs["provenance"]), str(group.attrs["checksum"])  # type: ignore[arg-type]
