"""The posterior catalog: an Icechunk repository whose branch ``main`` always shows a whole release.

Here: what is in it, and how it is read. How a run fills it and becomes a release: `storage_schemas.catalog.releases`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr

from storage_schemas import photometry
from storage_schemas.backend.arrays import ArraySpec, all_arrays, array, check_version, dimensions, refuse_absurd
from storage_schemas.backend.chunked import Chunks
from storage_schemas.backend.location import Location
from storage_schemas.catalog import query

KIND = "posterior_catalog"
icechunk.set_logs_filter("error")  # its warning on local folders is in our docs: one writer at a time there

MAIN = "main"
BYTES_PER_READ = 40_000  # at most, of a sub-chunk before compression: what reading one galaxy costs
_SHARDS_PER_MANIFEST = 4096
_BYTES_CACHED = 32 << 20
#: What Icechunk says where two processes create a catalog; the last is a server's 409, which it does not take for a lost race.
_RACED = ("clean prefixes", "updated by other session", "update conflict", "ConditionalRequestConflict")
_MAGIC = "ICE🧊CHUNK".encode()  # the first bytes of Icechunk's files
_CREATION_TRIES = 25  # for five seconds; creating takes less than one

#: What the IVOA calls (UCD1+) the arrays of the photometry.
_UCDS = {
    "flux": "phot.flux", "sigma": "stat.error;phot.flux", "mask": "meta.code",
    "redshift": "src.redshift", "redshift_sigma": "stat.error;src.redshift",
    "flags": "meta.code.qual", "ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main",
    "healpix_29": "pos.healpix", "input_file": "meta.id;meta.file", "input_row": "meta.record",
}  # fmt: skip


def arrays(
    inferred: Sequence[ArraySpec], ids: Mapping[str, str], redshift_errors: bool = False
) -> tuple[ArraySpec, ...]:
    """Return all arrays of a catalog of what is inferred, whose rows carry these identifiers (name -> dtype)."""
    ucds = {**_UCDS, **dict.fromkeys(photometry.id_arrays(ids), "meta.id"), photometry.ID_MISSING: "meta.code"}
    observed = (*photometry.observations(redshift_errors), *photometry.identifiers(ids))
    return (*inferred, *(replace(spec, ucd=ucds.get(spec.name, "")) for spec in observed))


#: What is kept of a shard beside its rows.
SHARD_ARRAYS = (
    ArraySpec("shard_key", ("shard",), "uint64", "1", "hash of all that the shard depends on; 0: not written"),
    ArraySpec(
        "shard_range", ("shard", "indexed", "bound"), "int64", "1",
        "least and greatest pixel (-1 aside) and integer identifier (uint64: less 2^63) in the shard: the index of searches",
    ),
)  # fmt: skip
WEIGHTS = ArraySpec("model_weights", ("byte",), "uint8", "1", "the model's weights (safetensors); `spec` is the rest")
#: Coordinates: dimension and meaning.
COORDINATES = {
    "param": "parameter or derived property", "quantile": "probability",
    "coordinate": "coordinate of the prior's unit cube", "band": "band", "indexed": "column that the index of shards knows",
}  # fmt: skip


_OF_DRAWS = ("draws", "draw_redshift", "draw")  # names that are the catalog's also where it keeps none


def free_names(names: Sequence[str], taken: Iterable[str]) -> dict[str, str]:
    """Return each name, or ``id_NAME``, so that none is among ``taken`` or equals another, in whatever case."""
    used, found = {name.lower() for name in taken}, dict[str, str]()
    for name in sorted(names, key=lambda name: name.lower() in used):  # names that may stay as they are come first
        free = name
        while free.lower() in used:
            free = f"id_{free}"
        used.add(free.lower())
        found[name] = free
    return {name: found[name] for name in names}


ATTRIBUTES = {
    "run": "all that the content depends on: model, seed, settings, software, what the photometry was made from",
    "run_id": "hash of the run: the same run has it again",
    "ids": "names of the identifying columns", "rows_per_shard": "rows that are one task and one object of each array",
    "param_units": "unit of each parameter and property", "param_meanings": "and its meaning", "param_ucds": "and its UCD",
    "sedflow_kind": f"{KIND!r}", "sedflow_version": "version of this schema",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Sizes and coordinates of a catalog; ``meanings`` and ``ucds`` are those of ``params``.

    ``inferred``: the arrays of what is inferred of each galaxy; those of the photometry are added.
    """

    n_galaxies: int
    rows_per_shard: int
    params: Sequence[str]
    units: Sequence[str]
    quantiles: Sequence[float]
    coordinates: Sequence[str]
    labels: Sequence[str]
    n_draws: int
    ids: Mapping[str, str]
    meanings: Sequence[str] = ()
    ucds: Sequence[str] = ()
    inferred: Sequence[ArraySpec] = field(kw_only=True)
    redshift_errors: bool = field(default=False, kw_only=True)

    @property
    def shards(self) -> Chunks:
        """How rows fall into shards: one shard is one task."""
        return Chunks(self.n_galaxies, self.rows_per_shard)


def repository(location: Location, create: bool = False) -> icechunk.Repository:
    """Open (or create) the repository of a catalog.

    Raises:
        FileNotFoundError: there is none.
    """
    if create:
        return _create(location)
    if (location.is_local and not location.exists()) or not icechunk.Repository.exists(location.icechunk()):
        raise FileNotFoundError(f"no posterior catalog at {location}")
    return icechunk.Repository.open(location.icechunk(), _settings(location))


def _create(location: Location) -> icechunk.Repository:
    """Open or create a repository, also where another process is creating it, or died when it did.

    Raises:
        FileExistsError: something else is stored there.
    """
    for _ in range(_CREATION_TRIES):
        try:
            return icechunk.Repository.open_or_create(location.icechunk(), _settings(location))
        except icechunk.IcechunkError as error:
            if not any(text in str(error) for text in _RACED):
                raise
        time.sleep(0.2)
    if icechunk.Repository.exists(location.icechunk()):  # somebody's, who was there first each time
        return icechunk.Repository.open(location.icechunk(), _settings(location))
    if others := [name for name in location.list() if not _is_icechunks(location, name)]:
        raise FileExistsError(
            f"{location} holds no catalog but other things, such as {others[0]}; choose another place"
        )
    location.remove()  # a first commit that nothing refers to
    return icechunk.Repository.open_or_create(location.icechunk(), _settings(location))


def _is_icechunks(location: Location, name: str) -> bool:
    """Whether an object is what Icechunk leaves that died when it created a repository, not somebody's of a like name."""
    if name == "config.yaml":
        return any(_is_icechunks(location, other) for other in location.list("snapshots"))
    return name.startswith(("snapshots/", "transactions/")) and location.get(name).startswith(_MAGIC)


def _settings(location: Location) -> icechunk.RepositoryConfig:
    """Manifests that a reader of one galaxy can afford however large the catalog, and a cache for galaxies read together."""
    rows = ((icechunk.ManifestSplitDimCondition.Axis(0), _SHARDS_PER_MANIFEST),)
    splitting = icechunk.ManifestSplittingConfig(((icechunk.ManifestSplitCondition.AnyArray(), rows),))
    config = location.icechunk_config()
    config.manifest = icechunk.ManifestConfig(splitting=splitting)
    config.caching = icechunk.CachingConfig(num_bytes_chunks=_BYTES_CACHED)
    return config


def write_shard(session: Any, rows: slice, shard: int, key: int, values: Mapping[str, np.ndarray]) -> None:
    """Write a whole shard through a fork of a session."""
    group = zarr.open_group(session.store, mode="r+")
    for name, value in values.items():
        if len(value) != rows.stop - rows.start:
            raise ValueError(f"shard {shard}: {name} has {len(value)} rows, expected {rows.stop - rows.start}")
        array(group, name)[rows] = value
    names = [str(name) for name in np.asarray(array(group, "indexed")[:])]
    present = dict(values)
    if photometry.ID_MISSING in values:
        for i, name in enumerate(map(photometry.id_array, cast("list[str]", group.attrs["ids"]))):
            present[name] = values[name][~values[photometry.ID_MISSING][:, i]]
    array(group, "shard_range")[shard] = query.shard_range(present, names)
    array(group, "shard_key")[shard] = np.uint64(key)


def store(location: Location, ref: str = MAIN) -> Any:
    """Return the read-only Zarr store of a release: a tag, or ``main``."""
    repo = repository(location)
    releases = sorted(repo.list_tags())
    if not releases:
        raise ValueError(f"{location} holds no release yet; a run may be filling it: see sedflow status")
    if ref not in (MAIN, *releases):
        raise ValueError(f"{location} has no release {ref!r}; there are {', '.join(releases)}")
    session = repo.readonly_session(MAIN) if ref == MAIN else repo.readonly_session(tag=ref)
    check_release(session, f"{location} ({ref})")
    return session.store


def check_release(session: icechunk.Session, what: str) -> None:
    """Raise ValueError, saying what was found, unless a session shows nothing yet, or a catalog of the version read here."""
    try:
        attributes = zarr.open_group(session.store, mode="r").attrs
    except FileNotFoundError:
        return
    if attributes.get("sedflow_kind") != KIND:
        raise ValueError(f"{what} holds no posterior catalog of ours")
    check_version(attributes.get("sedflow_version"), f"the posterior catalog {what}")


def open_catalog(url: str | Location, ref: str = MAIN) -> xr.Dataset:
    """Open a release of a posterior catalog lazily as an xarray Dataset; ``galaxy`` numbers its rows.

    Identifiers are variables under their own names, or ``id_NAME`` where the catalog has something else of that name: the
    attribute ``id_variables`` tells.

    Its accessor ``.sedflow`` selects rows by position and identifier: `storage_schemas.catalog.query.Query`.

    Args:
        url: local path or ``s3://bucket/prefix``
        ref: ``main`` (the newest release) or the name of a release
    """
    location = url if isinstance(url, Location) else Location.parse(url)
    stored = store(location, ref)
    for values in all_arrays(zarr.open_group(stored, mode="r")).values():
        refuse_absurd(values)
    dataset = xr.open_zarr(stored, consolidated=False, chunks=None)
    return _with_ids(dataset, stored).assign_coords(galaxy=pd.RangeIndex(dataset.sizes["galaxy"]))


def _with_ids(dataset: xr.Dataset, stored: Any) -> xr.Dataset:
    """The Dataset with the identifiers, which are in a group of their own."""
    names = free_names(dataset.attrs["ids"], {*map(str, dataset.variables), *map(str, dataset.dims), *_OF_DRAWS})
    if not names:
        return dataset
    group = xr.open_zarr(
        stored, group=photometry.IDS, consolidated=False, chunks=None, create_default_indexes=False
    )  # an identifier called galaxy is no index of that dimension
    paths = {variable: photometry.id_array(name).removeprefix(f"{photometry.IDS}/") for name, variable in names.items()}
    found = {variable: group.variables[path] for variable, path in paths.items()}
    return dataset.assign(found).assign_coords(identifier=list(names)).assign_attrs(id_variables=names)


def sizes(location: Location, ref: str = MAIN) -> dict[str, float]:
    """Return bytes stored per galaxy of every array that has galaxies (one request a shard and array)."""
    group = zarr.open_group(store(location, ref), mode="r")
    found = {}
    for name, stored in ((name, array(group, name)) for name in sorted(all_arrays(group))):
        if dimensions(stored)[0] == "galaxy":
            found[name] = stored.nbytes_stored() / stored.shape[0]
    return found


def model_bytes(dataset: xr.Dataset) -> tuple[bytes, bytes]:
    """Return weights and specification of the model that a catalog was made with."""
    weights = dataset["model_weights"]
    return weights.values.tobytes(), json.dumps(weights.attrs["spec"], indent=1, sort_keys=True).encode()


def diff(location: Location, old: str, new: str, n_rows: int = 0) -> Iterator[tuple[str, int, int, list[int]]]:
    """Yield (array, rows that differ, rows, the first ``n_rows`` that differ) between two releases; NaN equals NaN.

    Shards of the same key are the same and not read; others are compared one at a time.
    """
    before, after = open_catalog(location, old), open_catalog(location, new)
    total = after.sizes["galaxy"]
    shards = Chunks(total, after.attrs["rows_per_shard"])
    changed = np.ones(len(shards), bool)
    if before.sizes["galaxy"] == total and before.attrs["rows_per_shard"] == shards.size:
        changed = before["shard_key"].values != after["shard_key"].values
    for name in map(str, after.data_vars):
        if "galaxy" not in after[name].dims:
            continue
        if name not in before or before[name].shape != after[name].shape:
            yield name, total, total, list(range(min(n_rows, total)))
            continue
        count, first = 0, list[int]()
        for rows in map(shards.rows, np.flatnonzero(changed).tolist()):
            one, other = (data[name].isel(galaxy=rows).values for data in (before, after))
            same = one == other
            if other.dtype.kind == "f":
                same |= np.isnan(one) & np.isnan(other)
            found = rows.start + np.flatnonzero(~same.reshape(len(same), -1).all(axis=1))
            count += len(found)
            first += found[: n_rows - len(first)].tolist()
        yield name, count, total, first
