"""The input of ingest: a catalog, patterns, a HATS catalog or a list of these in; files with rows, content and cuts out."""

from __future__ import annotations

import csv
import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import obstore

from jobs.containers import addresses
from jobs.containers.formats import Catalog, is_zarr, open_catalog, open_file, parent
from jobs.containers.tables import entry_of, find, resolve
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable, shortened
from storage_schemas.backend.remote import Remote, is_pattern

_HATS = ("hats.properties", "properties")
_COLLECTION = "collection.properties"
_PRIMARY, _KIND, _ROWS = "hats_primary_table_url", "dataproduct_type", "hats_nrows"
#: Kinds of HATS catalogs whose rows are galaxies, each once; a margin repeats rows, an index or association has others.
_KINDS = ("object", "source")
_PIXELS = "partition_info.csv"
_PIXEL = re.compile(r"Norder=(\d+)/(?:Dir=\d+/)?Npix=(\d+)[./]")
_MOST_PIXELS_BYTES = 64 << 20
_LEAVES = (".parquet", ".pq", ".parq")
_MOST_PROPERTIES_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class InputFile:
    """A catalog file: its number of rows, the hash of its content, what tells that it was changed, where it is cut into pieces,
    and what its identifiers are.

    ``id_types`` are the dtypes of those that it has: int64, uint64 or str; None where a column holds nothing.
    """

    location: Location
    n_rows: int
    content: str
    stamp: str
    borders: tuple[int, ...]
    id_types: dict[str, str | None] = field(default_factory=dict)


def expand(
    source: str | Path | Sequence[str | Path], storage: Location, access: Access | None = None
) -> list[Location]:
    """Return the files that an input stands for; those on S3 are at the endpoint of ``storage``, unless ``access`` says another.

    An entry is a table (or ``kcorrect-sample``), a pattern such as ``sweeps/*.fits``, or a folder: a HATS catalog, whose
    leaves count, a collection of HATS catalogs, whose primary table counts, or a Zarr group.

    Raises:
        FileNotFoundError, ValueError: a pattern matches nothing, a folder is neither, a file is named twice.
    """
    entries = [source] if isinstance(source, str | Path) else list(source)
    files = [file for entry in entries for file in _files((access or Access()).place(resolve(entry), storage))]
    if not files:
        raise ValueError("no input is named")
    if twice := sorted({file.url for file in files if files.count(file) > 1}):
        raise ValueError(f"{printable(twice[0])} is named twice in the input")
    return files


def inspect(location: Location, rows_per_piece: int, ids: Sequence[str] = ()) -> InputFile:
    """Read a file once for the hash of its content, and find out how many rows it has and where to cut it.

    Raises:
        ValueError: one of the columns ``ids`` holds no identifiers; says what.
    """
    before, content = stamp(location), _checksum(location)
    with open_catalog(location) as catalog:
        borders = tuple(catalog.borders(rows_per_piece))
        return InputFile(location, catalog.n_rows, content, before, borders, _id_types(catalog, ids))


def inspect_all(
    places: Sequence[Location], rows_per_piece: int, ids: Sequence[str], workers: Callable[..., None]
) -> list[InputFile]:
    """Inspect files; ``workers`` maps a function over items."""
    read: dict[str, InputFile] = {}
    workers(inspect, places, lambda f: read.update({f.location.url: f}), rows_per_piece=rows_per_piece, ids=ids)
    return [read[place.url] for place in places]


def _id_types(catalog: Catalog, ids: Sequence[str]) -> dict[str, str | None]:
    """From the container's schema, not from values."""
    found = {name: column for name in ids if (column := find(name, catalog.names)) is not None}
    columns = catalog.exact(0, 0, list(dict.fromkeys(found.values())))
    types = {}
    for name, column in found.items():
        values = entry_of(columns[column], name, column, catalog.title)
        try:
            types[name] = values.kind
        except ValueError as error:
            raise ValueError(f"{catalog.title}: identifier {shortened(name)} is {error}") from None
    return types


def require_unchanged(location: Location, before: str) -> None:
    """Raise ValueError if a file is not what it was when its content was hashed."""
    if stamp(location) != before:
        raise ValueError(f"{location} was changed while it was read; run the same command again when it is whole")


def stamp(location: Location) -> str:
    """Return what tells that a file, or an object of a Zarr group, was written: tags, sizes and times as storage has them."""
    location, _ = addresses.split(location)
    if not location.is_local:
        lines = [*Remote.of(location).state()]
    else:
        if is_zarr(location):
            found = [meta for page in location.objects().list() for meta in page]
        else:
            folder, name = parent(location)
            try:
                found = [obstore.head(folder.objects(), name)]
            except (FileNotFoundError, NotADirectoryError):
                return "not there"
        lines = sorted(f"{meta['path']} {meta['e_tag']} {meta['size']} {meta['last_modified']}" for meta in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_single_table(source: str | Path | Sequence[str | Path], files: Sequence[Location]) -> bool:
    """Whether the input names one table and nothing that could ever stand for several."""
    if isinstance(source, str | Path):
        return len(files) == 1 and files[0].url == Access().place(resolve(source)).url
    return len(source) == 1 and is_single_table(source[0], files)


def _files(where: Location) -> Iterator[Location]:
    file, table = addresses.split(where)
    if table is not None and not (where.is_local and glob.glob(where.url)):
        for one in _files(file):
            if is_zarr(one):
                raise ValueError(f"{printable(where)}: {printable(one)} is a folder: give the path of its group")
            yield addresses.with_table(one, table)
    elif is_pattern(where) and not (where.is_local and Path(where.url).exists()):
        yield from _matching(where)
    elif where.is_file() if isinstance(where, Remote) else not Path(where.url).is_dir():
        yield where
    elif (hats := _hats(where)) is not None:
        yield from _leaves(hats)
    elif where.is_local and not is_zarr(where):
        raise ValueError(
            f"{printable(where)} is a folder, but neither a HATS catalog (with {' or '.join(_HATS)}), a collection of such "
            f"(with {_COLLECTION}) nor a Zarr group; "
            "for the tables in it give a pattern, such as folder/*.parquet"
        )
    else:
        yield where


def _matching(pattern: Location) -> Iterator[Location]:
    """Files that a pattern matches, sorted; ``*`` and ``?`` stand for no ``/``."""
    if isinstance(pattern, Remote):
        found: list[Location] = [pattern.at(url) for url in pattern.matching()]
    else:
        found = [Location(path) for path in sorted(glob.glob(pattern.url)) if Path(path).is_file()]
    if not found:
        raise FileNotFoundError(f"nothing matches {printable(pattern)}")
    yield from found


def _primary(collection: Location) -> Location:
    """The catalog that a HATS collection is of; beside it are margins and indexes of the same rows."""
    name = _properties(collection, _COLLECTION).get(_PRIMARY, "").strip("/")
    if not name or "://" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(
            f"{printable(collection)}: {_COLLECTION} names {shortened(repr(name))} as {_PRIMARY}, and a folder of the "
            "collection is needed: give the catalog itself"
        )
    if not any(map((collection / name).has, _HATS)):
        raise FileNotFoundError(
            f"{printable(collection / name)}, the primary table of a collection, is no HATS catalog"
        )
    return collection / name


def _leaves(hats: Location) -> Iterator[Location]:
    about = _about(hats)
    if (kind := about.get(_KIND, "object")) not in _KINDS:
        raise ValueError(
            f"{printable(hats)} is a HATS catalog of the kind {shortened(repr(kind))}; rows are taken of "
            f"{' and '.join(_KINDS)} catalogs"
        )
    names = list(hats.list())
    others = tuple(name.removesuffix(part) for name in names for part in _HATS if name.endswith(f"/{part}"))
    leaves = [name for name in sorted(names) if "Norder=" in name and name.endswith(_LEAVES)]
    found = [name for name in leaves if not name.startswith(others)]  # a margin, say, is a catalog of its own
    if not found:
        raise FileNotFoundError(f"the HATS catalog {printable(hats)} holds no Parquet files below Norder=...")
    if len(roots := sorted({name[: name.index("Norder=")] for name in found})) > 1:
        raise ValueError(
            f"the HATS catalog {printable(hats)} holds Parquet files below {roots[0] or '.'} and {roots[1]}: rows may be there "
            "twice; give the files that are meant as a pattern"
        )
    if _PIXELS in names:
        _require_listed(hats, found)
    yield from (hats / name for name in found)


def _require_listed(hats: Location, found: Sequence[str]) -> None:
    """Refuse a HATS catalog that lacks a pixel which it lists, or holds one that it does not: left by another, it repeats rows."""
    there = {(part[1], part[2]): name for name in found if (part := _PIXEL.search(name))}
    text = hats.get(_PIXELS, _MOST_PIXELS_BYTES).decode("utf-8", "replace")
    rows = (
        [str(row.get(key) or "").strip() for key in ("Norder", "Npix")] for row in csv.DictReader(text.splitlines())
    )
    listed = {(order, pixel) for order, pixel in rows if order and pixel}
    if lost := sorted(listed - there.keys()):
        pixel = shortened(f"Norder={lost[0][0]}, Npix={lost[0][1]}")
        raise FileNotFoundError(f"the HATS catalog {printable(hats)} lacks {pixel}, which its {_PIXELS} lists")
    if more := sorted(there.keys() - listed) if listed else []:
        raise ValueError(
            f"the HATS catalog {printable(hats)} holds {shortened(there[more[0]])}, which its {_PIXELS} does not list"
        )


def require_all_rows(
    source: str | Path | Sequence[str | Path], files: Sequence[InputFile], storage: Location, access: Access | None = None
) -> None:  # fmt: skip
    """Raise ValueError where a HATS catalog of an input says that it has another number of rows than its files hold."""
    for entry in [source] if isinstance(source, str | Path) else source:
        where = (access or Access()).place(resolve(entry), storage)
        hats = None if addresses.split(where)[1] or is_pattern(where) else _hats(where)
        said = _about(hats).get(_ROWS, "") if hats else ""
        n_rows = sum(file.n_rows for file in files if hats and file.location.url.startswith(f"{hats.url.rstrip('/')}/"))
        if hats and said and said != str(n_rows):
            raise ValueError(
                f"the HATS catalog {printable(hats)} holds {n_rows:,} rows, and {shortened(said)} by the {_ROWS} of its "
                "properties: it is not whole, or has files of another"
            )


def _hats(where: Location) -> Location | None:
    """The HATS catalog that a folder is, or that is the primary one of a collection."""
    if where.is_file() if isinstance(where, Remote) else not Path(where.url).is_dir():
        return None
    if where.has(_COLLECTION):
        return _primary(where)
    return where if any(map(where.has, _HATS)) else None


def _about(hats: Location) -> dict[str, str]:
    return _properties(hats, next(name for name in _HATS if hats.has(name)))


def _properties(hats: Location, name: str) -> dict[str, str]:
    """The lines ``key=value`` of a file of properties."""
    lines = hats.get(name, _MOST_PROPERTIES_BYTES).decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith(("#", "!")))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _checksum(location: Location) -> str:
    """Hash of a file's bytes, and of which table of it is meant; of a Zarr group's objects, in the order of their names."""
    location, table = addresses.split(location)
    digest = hashlib.sha256((table or "").encode())
    names = sorted(location.list()) if is_zarr(location) else [""]
    for name in names:
        digest.update(name.encode())
        with open_file(location / name if name else location, may_be_empty=bool(name)) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()[:32]
