"""draws: rows of a catalog in, their posterior samples out, an array or a table: the same numbers every time, anywhere.

Everything needed stands in the catalog itself: photometry, model, seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from jobs import export
from jobs.export.rows import Column, Rows
from jobs.export.whole import Destination
from jobs.observed import names_of, observed
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.settings import InferenceSettings, TargetPrior
from sedflow_dist.inference.summary import Method
from sedflow_dist.photometry.flags import names
from sedflow_dist.sps.chosen import Chosen
from storage_schemas.backend.location import Location
from storage_schemas.catalog.schema import model_bytes, open_catalog

#: What an average over models is made of: an attribute of its run.
AVERAGED = "averaged"


def replay(catalog: xr.Dataset, rows: Sequence[int], n_draws: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return equally weighted draws (row, draw, column) of catalog rows, and the columns' names.

    Raises:
        ValueError: a row does not exist or has no answer; says why.
    """
    router = engine(catalog)
    return drawn(catalog, router, rows, n_draws), router.posterior.columns


def drawn(catalog: xr.Dataset, router: Router, rows: Sequence[int], n_draws: int) -> np.ndarray:
    """Return what `replay` does, of an `engine` that is there."""
    check_rows(catalog, rows)
    at = np.asarray(rows)
    part = catalog[[*names_of(catalog), "method"]].isel(galaxy=at).load()
    return router.draws(observed(part), at, part["method"].values, n_draws)


def write(source: Location, out: Destination, rows: Sequence[int], n_draws: int, release: str) -> int:
    """Write replayed draws to ``out``, a table of row, draw and columns; the ending says how. Return their number.

    Raises:
        ValueError: a row or the ending of ``out`` is not what it can be; says what is allowed.
    """
    export.check_ending(out, export.TABLES)
    catalog = open_catalog(source, release)
    router = engine(catalog)
    draws = drawn(catalog, router, rows, n_draws)
    values = {"row": np.repeat(rows, n_draws), "draw": np.tile(np.arange(n_draws), len(rows))}
    columns = [Column("row", values["row"].dtype, description="row in the catalog"),
               Column("draw", values["draw"].dtype, description="number of the draw")]  # fmt: skip
    known = {quantity.name: quantity for quantity in router.posterior.quantities}
    for number, name in enumerate(router.posterior.columns):
        values[name] = draws[..., number].reshape(-1).astype(np.float32)
        columns.append(Column(name, values[name].dtype, known[name].unit, known[name].ucd, known[name].meaning))
    export.write(Rows.of_arrays(columns, values, {"MODEL": str(catalog.attrs["run"]["model"])}), out)
    return len(values["row"])


def check_rows(catalog: xr.Dataset, rows: Sequence[int]) -> None:
    """Raise ValueError, saying why, if a row does not exist or has no answer."""
    n_rows = catalog.sizes["galaxy"]
    for row in rows:
        if not 0 <= row < n_rows:
            raise ValueError(f"row {row} does not exist; the catalog has rows 0 to {n_rows - 1}")
    part = catalog[["flags", "method"]].isel(galaxy=np.asarray(rows))
    for row, flags, method in zip(rows, part["flags"].values, part["method"].values, strict=True):
        if method == Method.NONE:
            raise ValueError(f"row {row} has no posterior: {', '.join(names(int(flags)))}")


def engine(catalog: xr.Dataset, target: bool = True, more: Chosen | None = None) -> Router:
    """Return what answered a catalog: its model, seed and settings; ``target``: under its target prior, not the interim one.

    ``more``: columns that it computes of the same draws, in the place of those that the catalog chose.
    """
    run = catalog.attrs["run"]
    if AVERAGED in run:
        raise ValueError(
            "this catalog is an average over models and has no draws of its own; ask the catalogs that it was made of: "
            + ", ".join(str(one["catalog"]) for one in run[AVERAGED])
        )
    settings = InferenceSettings.model_validate(
        {name: run[name] for name in InferenceSettings.model_fields if name in run}
    )
    if more:
        settings = settings.model_copy(update={name: getattr(more, name) for name in Chosen.model_fields})
    if not target:
        settings = settings.model_copy(update={"prior": TargetPrior()})
    return Router.of(TrainedModel.from_bytes(*model_bytes(catalog)), run["seed"], settings)
