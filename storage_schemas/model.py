"""A trained model: two objects, ``weights.safetensors`` and ``spec.json``. The specification is written last."""

from __future__ import annotations

from storage_schemas.storage import Location

WEIGHTS, SPEC = "weights.safetensors", "spec.json"


def write(location: Location, weights: bytes, spec: bytes) -> None:
    """Write a model; it is there when its specification is."""
    location.put(WEIGHTS, weights)
    location.put(SPEC, spec)


def read(location: Location) -> tuple[bytes, bytes]:
    """Return weights and specification of a model.

    Raises:
        FileNotFoundError: no finished model here.
    """
    return location.get(WEIGHTS), location.get(SPEC)


def is_finished(location: Location) -> bool:
    """Whether a finished model is stored here."""
    return SPEC in set(location.list())
