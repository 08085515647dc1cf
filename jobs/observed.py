"""Photometry as stores and catalogs keep it in, as the science takes it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sedflow_dist.photometry.photometry import Photometry
from storage_schemas.photometry import OBSERVED


def observed(arrays: Mapping[Any, Any]) -> Photometry:
    """Return the photometry among arrays by name: rows of a photometry store, or of a catalog (an xarray Dataset)."""
    return Photometry.of(**{name: np.asarray(arrays[name]) for name in OBSERVED})
