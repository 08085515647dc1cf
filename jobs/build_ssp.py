"""build_ssp: an SSP library in, an SSP table store out."""

from __future__ import annotations

from jobs.progress import say
from sedflow_dist import ssp
from sedflow_dist.ssp import SSPTable
from storage_schemas import ssp_table
from storage_schemas.storage import Location

_MAKERS = {"bc03": ssp.bc03_miles}


def build_ssp(source: str, out: Location) -> SSPTable:
    """Return the table at ``out``; make it from ``source`` (a library's name or a stored table's URL) if it is missing."""
    try:
        return load(out)
    except FileNotFoundError:
        pass
    table = _MAKERS[source]() if source in _MAKERS else load(Location.parse(source, out.endpoint, out.region))
    arrays = {spec.name: getattr(table, spec.name) for spec in ssp_table.ARRAYS}
    ssp_table.write(out, arrays, table.provenance, table.checksum)
    say("build-ssp", f"{table.provenance.get('code', source)}, {table.spectra.nbytes / 1e6:.1f} MB in {out}")
    return table


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
