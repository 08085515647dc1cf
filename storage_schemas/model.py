"""A trained model: two objects, ``weights.safetensors`` and ``spec.json``. The specification is written last."""

from __future__ import annotations

from storage_schemas.backend.location import Location

WEIGHTS, SPEC = "weights.safetensors", "spec.json"
#: Bytes: what is larger is no model of ours, and is not read.
_LARGEST = {WEIGHTS: 4 << 30, SPEC: 64 << 20}


def write(location: Location, weights: bytes, spec: bytes) -> None:
    """Write a model; it is there when its specification is."""
    location.put(WEIGHTS, weights)
    location.put(SPEC, spec)


def read(location: Location) -> tuple[bytes, bytes]:
    """Return weights and specification of a model.

    Raises:
        FileNotFoundError: no finished model here.
        ValueError: what is there is too large to be one.
    """
    return location.get(WEIGHTS, _LARGEST[WEIGHTS]), location.get(SPEC, _LARGEST[SPEC])


def is_finished(location: Location) -> bool:
    """Whether a finished model is stored here."""
    return SPEC in set(location.list())
