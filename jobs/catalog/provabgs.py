"""provabgs: a posterior catalog in; the table that PROVABGS publishes of its own out, in HDF5, so that scripts for it read ours.

What its columns are: `jobs.export.provabgs`. Here: the draws, and the file, an astropy table that is written block by block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from astropy.io.misc.hdf5 import meta_path
from astropy.table import Table, meta

from jobs.catalog.draws import engine
from jobs.export import provabgs
from jobs.export.hdf5_file import hdf5_file
from jobs.export.provabgs import N_DRAWS, NO_ANSWER, PARAMETERS, Arrays, Made
from jobs.export.units import unit_of
from jobs.export.whole import Destination, whole_file
from jobs.observed import names_of, observed
from jobs.telemetry.progress import bar, say
from sedflow_dist.inference.best_fit import look_at
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.summary import Method
from sedflow_dist.parameters import ParameterSpace, from_16_bits

_PATH = "__astropy_table__"  # where astropy has the table of a file that has one
_ROWS = 128  # at once: of draws 1.5 MB


def write(catalog: xr.Dataset, out: Destination) -> int:
    """Write a catalog, or selected rows of it, as PROVABGS's table; return the number of rows.

    Draws are those that the catalog keeps where these are enough, at even steps if they are more; else they are replayed.

    Raises:
        ValueError: the catalog is an average, or its model lacks a parameter; an identifier is no part of a TARGETID.
    """
    router = engine(catalog)
    spec, n_rows = router.posterior.flow.spec, catalog.sizes["galaxy"]
    columns = provabgs.columns(catalog, spec)
    provabgs.tell(columns, spec)
    names = [*names_of(catalog), "method", *provabgs.needed(catalog)]
    if "draws" in catalog and catalog.sizes["draw"] >= N_DRAWS:
        names.append("draws")
    else:
        say(
            "export", "draws are replayed, which takes as long as inferring took; a catalog made with inference.keep_draws: "
            f"{N_DRAWS} or more has them",
        )  # fmt: skip
    dtype = np.dtype([(one.column.name, one.column.dtype, one.shape) for one in columns])
    with whole_file(out) as file, bar("export", n_rows, "galaxies") as progress, hdf5_file(file) as (content, check):
        table = content.create_dataset(_PATH, (n_rows,), dtype)
        content.create_dataset(meta_path(_PATH), data=_about(catalog, columns, dtype))
        for start in range(0, n_rows, _ROWS):
            part = catalog.isel(galaxy=slice(start, start + _ROWS))
            arrays = {name: part[name].values for name in dict.fromkeys(names)}
            arrays |= _answers(arrays, part["galaxy"].values, router)
            rows = np.empty(part.sizes["galaxy"], dtype)
            for one in columns:
                rows[one.column.name] = one.of(arrays)
            table[start : start + len(rows)] = rows
            check()
            progress.update(len(rows))
    return n_rows


def _about(catalog: xr.Dataset, columns: list[Made], dtype: np.dtype[Any]) -> np.ndarray:
    """Units, meanings and what made the table, as astropy keeps them beside it."""
    run = catalog.attrs["run"]
    table = Table(np.empty(0, dtype), meta={"MODEL": str(run["model"]), "SEED": str(run["seed"])})
    for one in columns:
        table[one.column.name].unit = unit_of(one.column)
        table[one.column.name].description = one.column.description
    return np.array([line.encode() for line in meta.get_yaml_from_table(table)])


def _answers(arrays: Arrays, rows: np.ndarray, router: Router) -> dict[str, np.ndarray]:
    """Draws (row, draw, parameter), the best one, and their surviving masses; ``rows`` as the catalog numbers them."""
    posterior, photometry = router.posterior, observed(arrays)
    n, space, at = len(rows), posterior.flow.space, np.flatnonzero(arrays["method"] != Method.NONE)
    theta = np.full((n, N_DRAWS, len(PARAMETERS) + 1), float(NO_ANSWER))
    surviving, best = np.full((n, N_DRAWS), float(NO_ANSWER)), np.zeros(n, np.int64)
    size = max(posterior.batch * posterior.n_draws // N_DRAWS, 1)  # whose draws fit into the posterior's memory
    for start in range(0, len(at), size):
        some = at[start : start + size]
        if "draws" in arrays:
            steps = np.arange(N_DRAWS) * arrays["draws"].shape[1] // N_DRAWS
            found = space.from_unit(from_16_bits(arrays["draws"][some][:, steps]))
        else:
            replayed = router.draws(photometry[some], rows[some], arrays["method"][some], N_DRAWS, posterior.n_draws)
            found = torch.as_tensor(replayed[..., : len(space.names)])
        looked = look_at(posterior.flow, found, photometry[some])
        theta[some], surviving[some], best[some] = _thirteen(space, found), looked.surviving, looked.best
    row = np.arange(n)
    return {"theta": theta, "theta_best": theta[row, best],
            "surviving": surviving, "surviving_best": surviving[row, best]}  # fmt: skip


def _thirteen(space: ParameterSpace, theta: torch.Tensor) -> np.ndarray:
    """PROVABGS's parameters (..., 13) from a model's (..., param)."""
    values = space.values(theta)
    return np.stack([*(values[name].numpy() for name in PARAMETERS), np.full(theta.shape[:-1], np.nan)], -1)
