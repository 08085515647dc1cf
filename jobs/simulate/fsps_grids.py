"""build_ssp from FSPS: settings in, an SSP table out. Actors fan out over metallicities, each a chunk of a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from cluster.settings import RaySettings
from jobs.simulate.fsps_actor import FSPSActor, map_fsps
from jobs.telemetry.progress import bar
from sedflow_dist.sps import fsps_tables
from sedflow_dist.sps.fsps_engine import FSPSSettings
from sedflow_dist.sps.ssp import GAS_TWICE, SSPTable
from storage_schemas import ssp_parts
from storage_schemas.backend.location import WORKING, Location
from storage_schemas.backend.ours import working_folder

#: Arrays that are the same at every metallicity.
_OF_ALL = ("provenance", "wavelength", "age", "dust", "tau", "torus")


class SSPMaker(FSPSActor):
    """Computes SSPs of one metallicity after another, and what libraries have of it, and writes them."""

    def __init__(
        self, settings: FSPSSettings, home: str | None, logs: str, parts: Location, libraries: Sequence[str] = ()
    ) -> None:
        super().__init__(settings, home, logs)
        self.store, self.libraries = ssp_parts.open(parts), libraries

    def make(self, chunk: int) -> int:
        """Write what there is of a metallicity of FSPS; return its number."""
        fsps = self.fsps
        value = fsps.metallicity[chunk]
        spectra, surviving = fsps.ssp_grid(value)
        one_row = {
            "value": np.array(value), "provenance": np.array(json.dumps(fsps.provenance), np.dtypes.StringDType()),
            "wavelength": fsps.wavelength, "age": fsps.age, "spectra": spectra, "surviving": surviving,
        }  # fmt: skip
        if "torus" in self.libraries:
            one_row |= {"luminosity": fsps.ssp_luminosity(value), "tau": self._torus[0], "torus": self._torus[1]}
        if "dust" in self.libraries:
            one_row["dust"] = self._dust
        if "nebular" in self.libraries:
            one_row["gas"] = fsps_tables.gas(fsps, value, spectra)
        self.store.write(chunk, {name: values[None] for name, values in one_row.items()})
        return chunk

    # Every metallicity has its own copy of what this process' home has, and the copies are compared in the end.
    @cached_property
    def _torus(self) -> tuple[np.ndarray, np.ndarray]:
        return fsps_tables.torus_spectra(self.fsps.home, self.fsps.wavelength)

    @cached_property
    def _dust(self) -> np.ndarray:
        return fsps_tables.dust_spectra(self.fsps.home, self.fsps.wavelength)


def build_fsps(out: Location, settings: FSPSSettings, ray: RaySettings, libraries: Sequence[str] = ()) -> SSPTable:
    """Let FSPS fill what is missing of the SSPs, among the working files of ``out``, and return them as a table.

    Raises:
        ValueError: the nodes' FSPS differ, SPS_HOME is not fit for use, or gas would be counted twice
        RuntimeError: FSPS died on a metallicity on every try
    """
    if settings.nebula is not None and "nebular" in libraries:
        raise ValueError(GAS_TWICE)
    working_folder(out)
    parts = parts_of(out)
    store = ssp_parts.create(parts, fsps_tables.SIZES, {"fsps": asdict(settings)}, libraries)
    missing = store.missing()

    def give_up(chunk: int, words: str) -> None:
        raise RuntimeError(f"metallicity {chunk} of {store.n_chunks} failed {ray.tries} times; {words}")

    with bar("build-ssp", store.n_chunks, "metallicities", store.n_chunks - len(missing)) as progress:
        if missing:
            map_fsps(
                SSPMaker, settings, (parts, tuple(libraries)), "make", missing, ray, lambda _: progress.update(1), _itself,
                give_up,
            )  # fmt: skip
    names = ssp_parts.names(libraries)
    rows = [store.read(chunk, names) for chunk in range(store.n_chunks)]
    for name in names:
        for chunk, row in enumerate(rows if name in _OF_ALL else ()):
            if not np.array_equal(row[name], rows[0][name]):
                raise ValueError(
                    f"{parts}: metallicity {chunk} was made with another {name} than the first: the nodes have different "
                    "versions of FSPS; remove the store once they are the same"
                )
    return put_together([{name: values[0] for name, values in row.items()} for row in rows], libraries)


def put_together(rows: Sequence[dict[str, Any]], libraries: Sequence[str]) -> SSPTable:
    """Return the table of all metallicities, with its libraries."""
    first = rows[0]
    wavelength, spectra = first["wavelength"], [row["spectra"] for row in rows]
    table = fsps_tables.table(
        wavelength, first["age"], [float(row["value"]) for row in rows],
        [(row["spectra"], row["surviving"]) for row in rows], json.loads(str(first["provenance"])),
    )  # fmt: skip
    if "nebular" in libraries:
        table = fsps_tables.with_gas(table, wavelength, spectra, [row["gas"] for row in rows])
    if "dust" in libraries:
        table = fsps_tables.with_dust(table, wavelength, first["dust"].astype(float))
    if "torus" in libraries:
        luminosity = [row["luminosity"] for row in rows]
        table = fsps_tables.with_torus(table, wavelength, first["tau"], first["torus"], luminosity)
    return table


def parts_of(out: Location) -> Location:
    """Where the SSPs are kept until the table is written."""
    return out / WORKING / "parts"


def check_same(table: SSPTable, out: Location, settings: FSPSSettings) -> None:
    """Raise ValueError unless FSPS made a table that is there with these settings."""
    nebula = settings.nebula
    wanted = {
        "code": "FSPS", "z_solar": settings.z_solar, "imf": settings.imf,
        "nebular_emission": False if nebula is None else asdict(nebula),
    }  # fmt: skip
    for name, value in wanted.items():
        if table.provenance.get(name) != value:
            raise ValueError(
                f"the SSP table {out} was made with {name} = {table.provenance.get(name)!r}, now {value!r} is asked for; "
                "choose another place or remove the store"
            )


def _itself(chunk: int) -> Sequence[int]:
    return [chunk]
