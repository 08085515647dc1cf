"""build_ssp: an SSP library in, an SSP table store out."""

from __future__ import annotations

from cluster.settings import RaySettings
from jobs.config.run_file import RunFile
from jobs.simulate import fsps_grids
from jobs.telemetry.progress import say
from sedflow_dist.sps import ssp
from sedflow_dist.sps.fsps_engine import PROVABGS, FSPSSettings
from sedflow_dist.sps.ssp import SSPTable
from storage_schemas import ssp_table
from storage_schemas.backend.location import Location


def build_ssp(source: str, out: Location, fsps: FSPSSettings = PROVABGS, ray: RaySettings | None = None) -> SSPTable:
    """Return the table at ``out``; make it if it is missing.

    Args:
        source: ``bc03``, ``fsps``, or a stored table's URL
        out: where it goes
        fsps, ray: what FSPS is run with, and where its actors are

    Raises:
        ValueError: FSPS is to make it and it is there, but made otherwise; names the setting
    """
    of_fsps = source == "fsps"
    try:
        found = load(out)
    except FileNotFoundError:
        pass
    else:
        if of_fsps:
            fsps_grids.check_same(found, out, fsps)
        return found
    if of_fsps:
        table = fsps_grids.build_fsps(out, fsps, ray or RaySettings())
    elif source == "bc03":
        table = ssp.bc03_miles()
    else:
        table = load(Location.parse(source, out.endpoint, out.region))
    arrays = {spec.name: getattr(table, spec.name) for spec in ssp_table.ARRAYS}
    ssp_table.write(out, arrays, table.provenance, table.checksum)
    if of_fsps:
        fsps_grids.parts_of(out).remove()
    say("build-ssp", f"{table.provenance.get('code', source)}, {table.spectra.nbytes / 1e6:.1f} MB in {out}")
    return table


def build_for(run: RunFile) -> SSPTable:
    """Return the table of a run; make it if it is missing."""
    return build_ssp(run.ssp.source, run.store("ssp"), run.ssp.fsps_settings(), run.engines.ray)


def load(location: Location) -> SSPTable:
    """Read a stored table and check its checksum.

    Raises:
        ValueError: the content is not what was written; names the store.
    """
    arrays, provenance, checksum = ssp_table.read(location)
    table = SSPTable(**arrays, provenance=provenance)
    if table.checksum != checksum:
        raise ValueError(f"SSP table {location}: checksum {table.checksum[:12]} is not the recorded {checksum[:12]}")
    return table
