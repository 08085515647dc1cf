"""build_ssp from FSPS: settings in, an SSP table out. Actors fan out over metallicities, each a chunk of a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cluster.settings import RaySettings
from jobs.simulate.fsps_actor import FSPSActor, map_fsps
from jobs.telemetry.progress import bar
from sedflow_dist.sps import fsps_home
from sedflow_dist.sps.fsps_engine import FSPSSettings, ssp_table_from_grids
from sedflow_dist.sps.ssp import SSPTable
from storage_schemas import ssp_parts
from storage_schemas.backend.location import WORKING, Location
from storage_schemas.backend.ours import working_folder


class SSPMaker(FSPSActor):
    """Computes SSPs of one metallicity after another and writes them."""

    def __init__(self, settings: FSPSSettings, home: str | None, logs: str, parts: Location) -> None:
        super().__init__(settings, home, logs)
        self.store = ssp_parts.open(parts)

    def make(self, chunk: int) -> int:
        """Write the SSPs of a metallicity of FSPS; return its number."""
        fsps = self.fsps
        value = fsps.metallicity[chunk]
        spectra, surviving = fsps.ssp_grid(value)
        one_row = {
            "value": np.array(value), "provenance": np.array(json.dumps(fsps.provenance), np.dtypes.StringDType()),
            "wavelength": fsps.wavelength, "age": fsps.age, "spectra": spectra, "surviving": surviving,
        }  # fmt: skip
        self.store.write(chunk, {name: values[None] for name, values in one_row.items()})
        return chunk


def build_fsps(out: Location, settings: FSPSSettings, ray: RaySettings) -> SSPTable:
    """Let FSPS fill what is missing of the SSPs, among the working files of ``out``, and return them as a table.

    Raises:
        ValueError: the nodes' FSPS differ, or SPS_HOME is not fit for use
        RuntimeError: FSPS died on a metallicity on every try
    """
    working_folder(out)
    parts = parts_of(out)
    store = ssp_parts.create(parts, fsps_home.GRID_SHAPE, {"fsps": asdict(settings)})
    missing = store.missing()

    def give_up(chunk: int, words: str) -> None:
        raise RuntimeError(f"metallicity {chunk} of {store.n_chunks} failed {ray.tries} times; {words}")

    with bar("build-ssp", store.n_chunks, "metallicities", store.n_chunks - len(missing)) as progress:
        if missing:
            map_fsps(
                SSPMaker, settings, (parts,), "make", missing, ray, lambda _: progress.update(1), _itself, give_up
            )  # fmt: skip
    rows = [store.read(chunk, ssp_parts.NAMES) for chunk in range(store.n_chunks)]
    for name in ("provenance", "wavelength", "age"):
        for chunk, row in enumerate(rows):
            if not np.array_equal(row[name], rows[0][name]):
                raise ValueError(
                    f"{parts}: metallicity {chunk} was made with another {name} than the first: the nodes have different "
                    "versions of FSPS; remove the store once they are the same"
                )
    provenance: dict[str, Any] = json.loads(str(rows[0]["provenance"][0]))
    return ssp_table_from_grids(
        rows[0]["wavelength"][0], rows[0]["age"][0], [float(row["value"][0]) for row in rows],
        [(row["spectra"][0], row["surviving"][0]) for row in rows], provenance,
    )  # fmt: skip


def parts_of(out: Location) -> Location:
    """Where the SSPs are kept until the table is written."""
    return out / WORKING / "parts"


def check_same(table: SSPTable, out: Location, settings: FSPSSettings) -> None:
    """Raise ValueError unless FSPS made a table that is there with these settings."""
    nebula = settings.nebula
    wanted = {
        "code": "FSPS", "z_solar": settings.z_solar, "nebular_emission": False if nebula is None else asdict(nebula),
    }  # fmt: skip
    for name, value in wanted.items():
        if table.provenance.get(name) != value:
            raise ValueError(
                f"the SSP table {out} was made with {name} = {table.provenance.get(name)!r}, now {value!r} is asked for; "
                "choose another place or remove the store"
            )


def _itself(chunk: int) -> Sequence[int]:
    return [chunk]
