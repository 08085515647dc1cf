"""Photometry as stores and catalogs keep it in, as the science takes it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sedflow_dist.photometry.photometry import Photometry
from storage_schemas.photometry import OBSERVED, REDSHIFT_SIGMA

#: Bands of a catalog's rows that their answers do not use; not in every catalog.
LEFT_OUT = "left_out"
SIGMA = REDSHIFT_SIGMA.name


def observed(arrays: Mapping[Any, Any]) -> Photometry:
    """Return the photometry among arrays by name: rows of a photometry store, or of a catalog (an xarray Dataset).

    Of a catalog it is what the answers used, without bands that were left out.
    """
    found = {name: np.asarray(arrays[name]) for name in OBSERVED}
    if SIGMA in arrays:
        sigma = np.asarray(arrays[SIGMA])
        found[SIGMA] = np.where(np.isnan(sigma) & np.isfinite(found["redshift"]), np.float32(0), sigma)
    if LEFT_OUT in arrays:
        found["mask"] = found["mask"] & ~np.asarray(arrays[LEFT_OUT])
    return Photometry.of(**found)


def names_of(arrays: Mapping[Any, Any]) -> list[str]:
    """Return the names of the arrays of a catalog that `observed` takes."""
    return [*OBSERVED, *(name for name in (SIGMA, LEFT_OUT) if name in arrays)]
