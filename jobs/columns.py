"""The columns that are inferred, as the catalog's store takes them: declared in `sedflow_dist.inference.summary`."""

from __future__ import annotations

from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.inference.summary import COLUMNS, unasked
from storage_schemas.backend.arrays import ArraySpec

INFERRED = tuple(ArraySpec(c.name, ("galaxy", *c.dims), c.dtype, c.unit, c.meaning, c.missing, c.ucd) for c in COLUMNS)


def asked(settings: InferenceSettings) -> tuple[ArraySpec, ...]:
    """Return the arrays that a catalog with these settings has."""
    return tuple(spec for spec in INFERRED if spec.name not in unasked(settings))
