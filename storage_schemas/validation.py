"""The validation store: truth, ranks and scores of simulated galaxies answered by a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from storage_schemas.schema import ArraySpec, array, seal, write_coordinate
from storage_schemas.storage import Location, open_group

KIND = "validation"
ARRAYS = (
    ArraySpec("truth", ("galaxy", "param"), "float32", "1", "true parameters"),
    ArraySpec("rank", ("galaxy", "param"), "float32", "1", "fraction of the flow's draws below the truth"),
    ArraySpec("weighted_rank", ("galaxy", "param"), "float32", "1", "weight of the draws below the truth"),
    ArraySpec("log_prob", ("galaxy",), "float32", "1", "ln q(truth | data), joint over all eleven coordinates"),
    ArraySpec("effective_fraction", ("galaxy",), "float32", "1", "effective fraction of the importance weights"),
)


def write(
    location: Location, arrays: Mapping[str, np.ndarray], params: Sequence[str], attributes: Mapping[str, Any]
) -> None:
    """Write a validation store; it counts as written when its attributes are."""
    group = zarr.open_group(location.zarr(), mode="w", zarr_format=3)
    sizes = dict(zip(("galaxy", "param"), arrays["truth"].shape, strict=True))
    for spec in ARRAYS:
        spec.create(group, sizes, None)
        array(group, spec.name)[...] = arrays[spec.name]
    write_coordinate(group, "param", params, "parameter")
    seal(group, KIND, attributes)


def read(location: Location) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays (with the coordinate ``param``) and attributes."""
    group = open_group(location, KIND)
    arrays = {spec.name: np.asarray(array(group, spec.name)[...]) for spec in ARRAYS}
    arrays["param"] = np.asarray(array(group, "param")[...])
    return arrays, dict(group.attrs)
