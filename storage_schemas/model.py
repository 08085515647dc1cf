"""A trained model: two objects, ``weights.safetensors`` and ``spec.json``. The specification is written last.

Its learned likelihood, where it has one, is two objects of the same names in the folder ``likelihood`` below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage_schemas.backend.lease import Lease, hold
from storage_schemas.backend.location import LOCK, Location

WEIGHTS, SPEC = "weights.safetensors", "spec.json"
LIKELIHOOD = "likelihood"
#: Bytes: what is larger is no model of ours, and is not read.
_LARGEST = {WEIGHTS: 4 << 30, SPEC: 64 << 20}


def likelihood_of(location: Location) -> Location:
    """Return where the learned likelihood of the model at ``location`` is."""
    return location / LIKELIHOOD


@contextmanager
def writing(location: Location) -> Iterator[Lease]:
    """Be the only process that makes the model at a place.

    Raises:
        FileExistsError: something other than a model is there.
        RuntimeError: another process makes it.
    """
    ours = {WEIGHTS, SPEC, LOCK}
    names = (name for name in location.list() if not name.startswith(f"{LIKELIHOOD}/"))
    if (other := next((name for name in names if name not in ours), None)) is not None:
        raise FileExistsError(f"{location} holds no model but other things, such as {other}; choose another place")
    with hold(location, "model") as mine:
        yield mine


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
    return location.get(WEIGHTS, _LARGEST[WEIGHTS]), read_spec(location)


def read_spec(location: Location) -> bytes:
    """Return the specification of a model, and leave its weights where they are.

    Raises:
        FileNotFoundError: no finished model here.
        ValueError: what is there is too large to be one.
    """
    return location.get(SPEC, _LARGEST[SPEC])


def read_url(url: str) -> tuple[bytes, bytes]:
    """Return weights and specification of the model at a path or URL: the entry point by which `load_model` finds storage.

    Raises:
        FileNotFoundError: no finished model there; names the place.
        ValueError: what is there is too large to be one.
    """
    location = Location.parse(url)
    try:
        return read(location)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no model at {location}") from error


def is_finished(location: Location) -> bool:
    """Whether a finished model is stored here."""
    return SPEC in set(location.list())
