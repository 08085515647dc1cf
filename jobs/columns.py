"""The columns that are inferred, as the catalog's store takes them: declared in `sedflow_dist.inference.summary`."""

from __future__ import annotations

from sedflow_dist.inference.summary import COLUMNS
from storage_schemas.backend.arrays import ArraySpec

INFERRED = tuple(ArraySpec(c.name, ("galaxy", *c.dims), c.dtype, c.unit, c.meaning, c.missing, c.ucd) for c in COLUMNS)
