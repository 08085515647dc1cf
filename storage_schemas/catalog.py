"""The posterior catalog: an Icechunk repository whose branch ``main`` always shows a whole release.

Here: what is in it, and how it is read. How a run fills it and becomes a release: `storage_schemas.releases`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr

from storage_schemas import photometry
from storage_schemas.chunked import Chunks
from storage_schemas.schema import ArraySpec, array
from storage_schemas.storage import Location

KIND = "posterior_catalog"
icechunk.set_logs_filter("error")  # its warning on local folders is in our docs: one writer at a time there

MAIN = "main"
_RACED = ("clean prefixes", "updated by other session", "update conflict")  # Icechunk: two processes create a catalog
_CREATION_TRIES = 25  # for five seconds; creating takes less than one
SUB_CHUNK = 64  # rows of a shard that are read at once: what one galaxy costs

METHODS = {
    0: "none", 1: "flow", 2: "importance-weighted flow", 3: "importance-weighted flow, more draws",
    4: "short MCMC from the flow's draws", 5: "MCMC",
}  # fmt: skip


def arrays(ids: Mapping[str, str]) -> tuple[ArraySpec, ...]:
    """Return all arrays of a catalog whose rows carry these identifiers (name -> dtype)."""
    return (
        ArraySpec("quantiles", ("galaxy", "param", "quantile"), "float32", "of the parameter", "posterior quantiles"),
        ArraySpec("mean", ("galaxy", "param"), "float32", "of the parameter", "posterior mean"),
        ArraySpec("std", ("galaxy", "param"), "float32", "of the parameter", "posterior standard deviation"),
        ArraySpec("effective_fraction", ("galaxy",), "float32", "1", "effective fraction of the importance weights"),
        ArraySpec("log_evidence", ("galaxy",), "float32", "1", "ln of the Bayesian evidence (fluxes in nanomaggies)"),
        ArraySpec("log_evidence_error", ("galaxy",), "float32", "1", "standard error of ln of the evidence"),
        ArraySpec(
            "pareto_k", ("galaxy",), "float32", "1", "shape of the weights' tail; above 0.7 they are not to be trusted"
        ),
        ArraySpec("effective_draws", ("galaxy",), "float32", "1", "independent draws that the answer is worth"),
        ArraySpec("chi2", ("galaxy",), "float32", "1", "chi^2 of the best draw"),
        ArraySpec("p_value", ("galaxy",), "float32", "1", "posterior-predictive: of a chi^2 as large as the draws'"),
        ArraySpec("rhat", ("galaxy",), "float32", "1", "split R-hat of the chain, where MCMC answered"),
        ArraySpec("n_bands", ("galaxy",), "uint8", "1", "number of bands used"),
        ArraySpec("method", ("galaxy",), "uint8", "1", f"how the row was answered: {METHODS}"),
        ArraySpec("draws", ("galaxy", "draw", "coordinate"), "uint16", "1", "kept draws: prior quantile times 2^16"),
        *photometry.ARRAYS,
        *photometry.identifiers(ids),
    )


@dataclass(frozen=True)
class Layout:
    """Sizes and coordinates of a catalog."""

    n_galaxies: int
    rows_per_shard: int
    params: Sequence[str]
    units: Sequence[str]
    quantiles: Sequence[float]
    coordinates: Sequence[str]
    labels: Sequence[str]
    n_draws: int
    ids: Mapping[str, str]

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
    if not location.exists() or not icechunk.Repository.exists(location.icechunk()):
        raise FileNotFoundError(f"no posterior catalog at {location}")
    return icechunk.Repository.open(location.icechunk(), location.icechunk_config())


def _create(location: Location) -> icechunk.Repository:
    """Open or create a repository, also where another process is creating it, or died when it did.

    Raises:
        FileExistsError: something else is stored there.
    """
    for _ in range(_CREATION_TRIES):
        try:
            return icechunk.Repository.open_or_create(location.icechunk(), location.icechunk_config())
        except icechunk.IcechunkError as error:
            if not any(text in str(error) for text in _RACED):
                raise
        time.sleep(0.2)
    if others := [
        name for name in location.list() if not name.startswith(("snapshots/", "transactions/", "config.yaml"))
    ]:
        raise FileExistsError(
            f"{location} holds no catalog but other things, such as {others[0]}; choose another place"
        )
    location.remove()  # a first commit that nothing refers to
    return icechunk.Repository.open_or_create(location.icechunk(), location.icechunk_config())


def write_shard(session: Any, rows: slice, shard: int, key: int, values: Mapping[str, np.ndarray]) -> None:
    """Write a whole shard through a fork of a session."""
    group = zarr.open_group(session.store, mode="r+")
    for name, value in values.items():
        if len(value) != rows.stop - rows.start:
            raise ValueError(f"shard {shard}: {name} has {len(value)} rows, expected {rows.stop - rows.start}")
        array(group, name)[rows] = value
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
    return session.store


def open_catalog(url: str | Location, ref: str = MAIN) -> xr.Dataset:
    """Open a release of a posterior catalog lazily as an xarray Dataset.

    Args:
        url: local path or ``s3://bucket/prefix``
        ref: ``main`` (the newest release) or the name of a release
    """
    location = url if isinstance(url, Location) else Location.parse(url)
    dataset = xr.open_zarr(store(location, ref), consolidated=False, chunks=None)
    if dataset.attrs.get("sedflow_kind") != KIND:
        raise ValueError(f"{location} ({ref}) holds no posterior catalog of ours")
    return dataset


def model_bytes(dataset: xr.Dataset) -> tuple[bytes, bytes]:
    """Return weights and specification of the model that a catalog was made with."""
    weights = dataset["model_weights"]
    return weights.values.tobytes(), json.dumps(weights.attrs["spec"], indent=1, sort_keys=True).encode()


def diff(location: Location, old: str, new: str) -> Iterator[tuple[str, int, int]]:
    """Yield (array, rows that differ, rows) between two releases; NaN equals NaN."""
    before, after = open_catalog(location, old), open_catalog(location, new)
    for name in after.data_vars:
        if "galaxy" not in after[name].dims:
            continue
        new_values = after[name].values
        n_rows = len(new_values)
        if name not in before or before[name].shape != new_values.shape:
            yield str(name), n_rows, n_rows
            continue
        old_values = before[name].values
        same = old_values == new_values
        if new_values.dtype.kind == "f":
            same |= np.isnan(old_values) & np.isnan(new_values)
        yield str(name), int((~same.reshape(n_rows, -1).all(axis=1)).sum()), n_rows
