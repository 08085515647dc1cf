"""The validation store: truth, ranks and scores of simulated galaxies answered by a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from storage_schemas.backend.arrays import ArraySpec, array, seal, whole, write_coordinate
from storage_schemas.backend.chunked import digest
from storage_schemas.backend.location import Location, open_group
from storage_schemas.backend.ours import begin

KIND = "validation"
ARRAYS = (
    ArraySpec("truth", ("galaxy", "param"), "float32", "1", "true parameters"),
    ArraySpec("rank", ("galaxy", "param"), "float32", "1", "fraction of the flow's draws below the truth"),
    ArraySpec("weighted_rank", ("galaxy", "param"), "float32", "1", "weight of the draws below the truth"),
    ArraySpec(
        "tarp", ("galaxy",), "float32", "1", "fraction of the flow's draws nearer to a random point than the truth"
    ),
    ArraySpec(
        "weighted_tarp", ("galaxy",), "float32", "1", "weight of the draws nearer to a random point than the truth"
    ),
    ArraySpec("hpd", ("galaxy",), "float32", "1", "fraction of the flow's draws of higher density than the truth"),
    ArraySpec("weighted_hpd", ("galaxy",), "float32", "1", "weight of the draws of higher density than the truth"),
    ArraySpec("mask", ("galaxy", "band"), "bool", "1", "band was measured", False),
    ArraySpec(
        "complete",
        ("galaxy",),
        "bool",
        "1",
        "all bands of the survey (of a footprint, if it has some) were measured",
        False,
    ),
    ArraySpec("redshift", ("galaxy",), "float32", "1", "redshift"),
    ArraySpec("inferred", ("galaxy",), "bool", "1", "the redshift was hidden, and inferred", False),
    ArraySpec(
        "redshift_rank", ("galaxy",), "float32", "1", "weight of the draws of lower redshift; NaN where it was known"
    ),
    ArraySpec("magnitude", ("galaxy",), "float32", "mag", "observed, in the band in which the survey selects"),
    ArraySpec("signal_to_noise", ("galaxy",), "float32", "1", "flux over uncertainty, median of the measured bands"),
    ArraySpec("log_prob", ("galaxy",), "float32", "1", "ln q(truth | data), joint over all eleven coordinates"),
    ArraySpec("effective_fraction", ("galaxy",), "float32", "1", "effective fraction of the importance weights"),
)


def write(
    location: Location, arrays: Mapping[str, np.ndarray], params: Sequence[str], labels: Sequence[str],
    attributes: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a validation store; it counts as written when its attributes are."""
    group = begin(location, KIND)
    sizes = {"galaxy": len(arrays["truth"]), "param": len(params), "band": len(labels)}
    for spec in ARRAYS:
        spec.create(group, sizes, None)
        array(group, spec.name)[...] = arrays[spec.name]
    write_coordinate(group, "param", params, "parameter")
    write_coordinate(group, "band", labels, "name of the band")
    seal(group, KIND, {**attributes, "digest": f"{digest(_stored(group)):016x}"})


def read(location: Location) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays (with the coordinates ``param`` and ``band``) and attributes.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: it lacks some of the arrays, which are named, or something else is stored than was written.
    """
    group = open_group(location, KIND)
    if missing := sorted({spec.name for spec in ARRAYS} - set(group.array_keys())):
        raise ValueError(f"{location} lacks {', '.join(missing)}: run sedflow validate again")
    arrays, attributes = _stored(group), dict(group.attrs)
    if attributes.pop("digest", None) != f"{digest(arrays):016x}":
        raise ValueError(
            f"validation store {location} is damaged: an object is gone, or holds something else than was written: run "
            "sedflow validate again"
        )
    return arrays, attributes


def _stored(group: zarr.Group) -> dict[str, np.ndarray]:
    return {name: whole(group, name) for name in (*(spec.name for spec in ARRAYS), "param", "band")}
