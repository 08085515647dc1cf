"""What is ours: stores are made where nothing is, or where we have begun one; everything else is refused, never overwritten.

The first object of a store is a Zarr group that says which kind is being made in it; the last write says that it is made
(`arrays.seal`). Working files lie below the store's own place, in a folder that bears a mark, and only what is in such a
folder, under names that we give, is ever deleted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import zarr

from storage_schemas.backend.arrays import MAKING, check_version
from storage_schemas.backend.location import LOCK, WORKING, Location

_MARK = "sedflow.json"
_NAME = re.compile(r"[0-9a-f]{16}|duplicates|parts")  # of what lies in a working folder
_LEASE = re.compile(rf"{re.escape(LOCK)}(\.[0-9a-f]{{32}})?")


def require_free(location: Location, kind: str) -> None:
    """Check that a store of a kind may be made here: nothing is here, or such a store, finished or not.

    Raises:
        FileExistsError: something else is; names it.
    """
    other = "choose another place"
    if location.is_local and Path(location.url).exists() and not Path(location.url).is_dir():
        raise FileExistsError(f"{location} is a file; {other}")
    names = (name for name in location.list() if not _is_by_us(name))
    if (first := next(names, None)) is None:
        return
    try:
        attributes = zarr.open_group(location.zarr(read_only=True), mode="r", zarr_format=3).attrs
        found = attributes.get("sedflow_kind", attributes.get(MAKING))
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # no group, one of format 2, an array, no JSON
        raise FileExistsError(f"{location} holds no {kind} store but other things, such as {first}; {other}") from None
    if found is None:
        raise FileExistsError(f"{location} holds a Zarr group that is not ours, with {first}; {other}")
    if found != kind:
        raise FileExistsError(f"{location} holds a {found} store; expected a {kind} store, or nothing: {other}")
    if "sedflow_version" in attributes:
        check_version(attributes["sedflow_version"], f"the {kind} store {location}")


def begin(location: Location, kind: str) -> zarr.Group:
    """Return an empty group in which a store of a kind can be made; until it is sealed it counts as not there.

    Raises:
        FileExistsError: something else is here (`require_free`); it is left as it is.
    """
    require_free(location, kind)
    if not location.has("zarr.json"):
        return zarr.create_group(location.zarr(), attributes={MAKING: kind}, zarr_format=3)
    group = zarr.open_group(location.zarr(), mode="r+", zarr_format=3)
    unseal(group, kind)
    for name in list(group.keys()):
        del group[name]
    return group


def unseal(group: zarr.Group, kind: str) -> None:
    """Make a store count as not there, and as ours still: who needs it makes it anew."""
    group.attrs.put({MAKING: kind})


def working_folder(store: Location) -> Location:
    """Return the folder for the working files of a store, which lies in it; it is made and marked where it is not there.

    Raises:
        FileExistsError: there is one without our mark; it is left as it is.
    """
    folder = store / WORKING
    path = Path(folder.url)
    if folder.is_local and (path.is_symlink() or (path.exists() and not path.is_dir())):
        raise FileExistsError(f"{folder} is no folder of ours: remove it, or choose another place for the store")
    if not _is_marked(folder):
        if (name := next(folder.list(), None)) is not None:
            raise FileExistsError(
                f"{folder} is not ours: it holds {name}, and no mark; move it, or choose another place"
            )
        folder.put(_MARK, json.dumps({MAKING: "working files of sedflow-dist; they may be deleted"}).encode())
    return folder


def remove_working(store: Location, keep: set[str] | None = None) -> None:
    """Delete the working files of a store but those of the names in ``keep``; nothing without our mark, or a name of ours."""
    folder = store / WORKING
    if (folder.is_local and Path(folder.url).is_symlink()) or not _is_marked(folder):
        return
    names = {name.split("/")[0] for name in folder.list()} - {_MARK}
    for name in names - (keep or set()):
        if _NAME.fullmatch(name):
            (folder / name).remove()
    if not keep:
        folder.remove_object(_MARK)
        path = Path(folder.url)
        if folder.is_local and not any(path.iterdir()):
            path.rmdir()


def _is_marked(folder: Location) -> bool:
    try:
        return MAKING in json.loads(folder.get(_MARK, 1 << 16))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return False


def _is_by_us(name: str) -> bool:
    """Whether an object is none of a store but lies beside its arrays: a lease, working files."""
    return bool(_LEASE.fullmatch(name)) or name.startswith(f"{WORKING}/")
