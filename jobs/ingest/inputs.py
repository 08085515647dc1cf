"""The input of ingest: a catalog, patterns, a HATS catalog or a list of these in; files with rows, content and cuts out."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.ingest.formats import Catalog, is_zarr, open_catalog, open_file
from jobs.ingest.tables import entry_of, find, resolve
from storage_schemas.backend.location import Location

_HATS = ("hats.properties", "properties")
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class InputFile:
    """A catalog file: its number of rows, the hash of its content, where it is cut into pieces, and what its identifiers are.

    ``id_types`` are the dtypes of those that it has: int64, uint64 or str; None where a column holds nothing.
    """

    location: Location
    n_rows: int
    content: str
    borders: tuple[int, ...]
    id_types: dict[str, str | None] = field(default_factory=dict)


def expand(source: str | Path | Sequence[str | Path], storage: Location) -> list[Location]:
    """Return the files that an input stands for; those on S3 are at the endpoint of ``storage``.

    An entry is a table (or ``kcorrect-sample``), a pattern such as ``sweeps/*.fits``, or a folder: a HATS catalog, whose
    leaves count, or a Zarr group.

    Raises:
        FileNotFoundError, ValueError: a pattern matches nothing, a folder is neither, a file is named twice.
    """
    entries = [source] if isinstance(source, str | Path) else list(source)
    files = [file for entry in entries for file in _files(entry, storage)]
    if not files:
        raise ValueError("no input is named")
    if twice := sorted({file.url for file in files if files.count(file) > 1}):
        raise ValueError(f"{twice[0]} is named twice in the input")
    return files


def inspect(location: Location, rows_per_piece: int, ids: Sequence[str] = ()) -> InputFile:
    """Read a file once for the hash of its content, and find out how many rows it has and where to cut it.

    Raises:
        ValueError: one of the columns ``ids`` holds no identifiers; says what.
    """
    content = _checksum(location)
    with open_catalog(location) as catalog:
        borders = tuple(catalog.borders(rows_per_piece))
        return InputFile(location, catalog.n_rows, content, borders, _id_types(catalog, location, ids))


def _id_types(catalog: Catalog, location: Location, ids: Sequence[str]) -> dict[str, str | None]:
    """From the container's schema, not from values."""
    found = {name: column for name in ids if (column := find(name, catalog.names)) is not None}
    columns = catalog.exact(0, 0, list(dict.fromkeys(found.values())))
    types = {}
    for name, column in found.items():
        try:
            types[name] = entry_of(columns[column], name, column, location).kind
        except ValueError as error:
            text = str(error)
            raise ValueError(
                text if text.startswith(str(location)) else f"{location}: identifier {name} is {text}"
            ) from None
    return types


def is_single_table(source: str | Path | Sequence[str | Path], files: Sequence[Location]) -> bool:
    """Whether the input names one table and nothing that could ever stand for several."""
    if isinstance(source, str | Path):
        return len(files) == 1 and files[0].url == Location.parse(resolve(source)).url
    return len(source) == 1 and is_single_table(source[0], files)


def _files(entry: str | Path, storage: Location) -> Iterator[Location]:
    where = Location.parse(resolve(entry), storage.endpoint, storage.region, storage.tries, storage.timeout)
    if glob.has_magic(where.url) and not (where.is_local and Path(where.url).exists()):
        yield from _matching(where)
    elif where.is_local and not Path(where.url).is_dir():
        yield where
    elif any(map(where.has, _HATS)):
        yield from _leaves(where)
    elif where.is_local and not is_zarr(where):
        raise ValueError(
            f"{where} is a folder, but neither a HATS catalog (with {' or '.join(_HATS)}) nor a Zarr group; "
            "for the tables in it give a pattern, such as folder/*.parquet"
        )
    else:
        yield where


def _matching(pattern: Location) -> Iterator[Location]:
    """Files that a pattern matches, sorted; ``*`` and ``?`` stand for no ``/``."""
    if pattern.is_local:
        found = [Location(path) for path in sorted(glob.glob(pattern.url)) if Path(path).is_file()]
    else:
        fixed = pattern.url[: min(at for at in map(pattern.url.find, "*?[") if at >= 0)].rpartition("/")[0]
        folder = pattern.at(fixed)
        wanted = pattern.url[len(fixed) + 1 :].split("/")
        found = [folder / name for name in sorted(folder.list()) if _matches(name.split("/"), wanted)]
    if not found:
        raise FileNotFoundError(f"nothing matches {pattern}")
    yield from found


def _matches(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _leaves(hats: Location) -> Iterator[Location]:
    found = [hats / name for name in sorted(hats.list()) if "Norder=" in name and name.endswith(".parquet")]
    if not found:
        raise FileNotFoundError(f"the HATS catalog {hats} holds no Parquet files below Norder=...")
    yield from found


def _checksum(location: Location) -> str:
    """Hash of a file's bytes; of a Zarr group's objects, in the order of their names."""
    digest = hashlib.sha256()
    names = sorted(location.list()) if is_zarr(location) else [""]
    for name in names:
        digest.update(name.encode())
        with open_file(location / name if name else location) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()[:32]
