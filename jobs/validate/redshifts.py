"""redshifts: a catalog that infers them and a table of true ones in; the figures by which photometric redshifts are judged out.

Point estimates are medians; densities are made of the draws that the catalog keeps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from jobs.containers.tables import Table
from jobs.export.rows import BLOCK
from jobs.export.whole import whole_file
from jobs.telemetry.progress import bar, say
from jobs.validate.figures import save
from sedflow_dist.inference import redshift_density
from sedflow_dist.inference.summary import QUANTILES, Method
from sedflow_dist.magnitudes import magnitude
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation import coverage, photo_z_plots
from sedflow_dist.validation.photo_z import Judged
from storage_schemas.backend.location import Location
from storage_schemas.catalog.query import id_variables
from storage_schemas.catalog.schema import open_catalog

_BINS = 400  # of redshift, over the model's range
_GROUPS = 5  # of magnitude and of redshift, equally many galaxies in each
_FEWEST = 20


def judge(
    source: Location,
    table: str,
    folder: Location,
    column: str = "redshift",
    on: str | None = None,
    release: str = "main",
) -> list[str]:
    """Print and write figures of inferred redshifts against true ones, and draw them; return the files' names.

    Args:
        table, column: with the true redshifts
        on: an identifier that both have; None: the table has the rows of the catalog's input, in its order

    Raises:
        ValueError: the catalog infers no redshifts or keeps no draws; rows cannot be matched; too few have both.
    """
    catalog = open_catalog(source, release)
    _require_draws(catalog, source)
    truth = _truth(catalog, Table(table), column, on)
    inferred = (catalog["flags"].values & int(Flag.REDSHIFT_INFERRED)) != 0
    kept = np.flatnonzero(inferred & (catalog["method"].values != Method.NONE) & np.isfinite(truth) & (truth > 0))
    say("validate", f"{len(kept):,} of {len(truth):,} rows have an inferred redshift and a true one")
    if len(kept) < _FEWEST:
        raise ValueError(f"{len(kept)} rows of {source} have an inferred redshift and a true one; {_FEWEST} are needed")
    with bar("validate", len(kept), "galaxies") as progress:
        parts = []
        for part in _judged(catalog, kept, truth):
            parts.append(part)
            progress.update(len(part.truth))
    judged = Judged.joined(parts)
    band = int(catalog["model_weights"].attrs["spec"]["selection_band"])
    groups = {"all": np.full(len(kept), True)}
    groups |= _groups(f"{catalog['band'].values[band]} [mag]", _magnitudes(catalog, kept, band))
    groups |= _groups("z", judged.truth)
    figures = {name: judged.figures(rows) for name, rows in groups.items() if rows.sum() >= _FEWEST}
    for name, found in figures.items():
        say("validate", f"{name}: {int(found['n']):,} galaxies, sigma_IQR {found['sigma_iqr']:.4f}, bias {found['bias']:+.4f}, "
            f"outliers {found['outliers']:.2%}, beyond 0.15 {found['far']:.2%}, PIT KS {found['pit_ks']:.3f}, "
            f"CDE loss {found['cde_loss']:.3f}")  # fmt: skip
    say("validate", f"n(z): cumulative distributions differ by {judged.number_distance:.4f} at most")
    return _write(judged, figures, folder)


def _require_draws(catalog: xr.Dataset, source: Location) -> None:
    """Raise ValueError unless a catalog infers redshifts and keeps draws."""
    if "redshift" not in catalog["param"].values:
        raise ValueError(f"{source} infers no redshifts: its model has no redshift head (photo_z in the run file)")
    if "draw_redshift" not in catalog:
        raise ValueError(
            f"{source} keeps no draws, of which p(z) is made: infer with keep_draws (inference.keep_draws)"
        )


def _truth(catalog: xr.Dataset, table: Table, column: str, on: str | None) -> np.ndarray:
    """True redshifts of a catalog's rows (galaxy,); NaN where the table has none."""
    table.require((column,))
    values, n = table.numbers([column])[:, 0], catalog.sizes["galaxy"]
    if on is None:
        row = catalog["input_row"].values
        if table.n_rows != n or (catalog["input_file"].values != 0).any():
            raise ValueError(
                f"{table.title} has {table.n_rows:,} rows, which are those of the catalog's input ({n:,} rows) only if they are as "
                "many, in one file: name an identifier that both have with --on"
            )
        return values[row]
    variables = {name.lower(): variable for variable, name in id_variables(catalog).items()}
    if on.lower() not in variables:
        raise ValueError(f"--on {on}: the catalog has the identifiers {', '.join(variables) or 'none'}")
    table.require((on,))
    theirs = pd.Index(table.column(on))
    if not theirs.is_unique:
        raise ValueError(f"{table.title}: {on} has {theirs[theirs.duplicated()][0]} in several rows")
    at = theirs.get_indexer(pd.Index(catalog[variables[on.lower()]].values))
    return np.where(at >= 0, values[at], np.nan)


def _judged(catalog: xr.Dataset, kept: np.ndarray, truth: np.ndarray) -> Iterator[Judged]:
    """Galaxies, a block at a time."""
    column = list(catalog["param"].values).index("redshift")
    low, high = catalog["model_weights"].attrs["spec"]["redshift"]
    edges = np.linspace(low, high, _BINS + 1)
    for start in range(0, len(kept), BLOCK):
        rows = kept[start : start + BLOCK]
        part = catalog[["draw_redshift", "quantiles"]].isel(galaxy=rows).load()
        density = redshift_density.in_bins(part["draw_redshift"].values, edges)
        median = part["quantiles"].values[:, column, QUANTILES.index(0.5)].astype(float)
        yield Judged.of(median, density, edges, truth[rows])


def _magnitudes(catalog: xr.Dataset, kept: np.ndarray, band: int) -> np.ndarray:
    """Magnitudes (galaxy,) in a band; NaN where the flux is not positive."""
    flux = catalog["flux"].isel(band=band).values[kept].astype(float)
    return magnitude(np.where(flux > 0, flux, np.nan))


def _groups(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Galaxies in bins of a number, equally many in each."""
    known = np.isfinite(values)
    bins = np.full(len(values), "", dtype="U64")
    bins[known] = coverage.quantile_bins(values[known], _GROUPS)
    return {f"{name} {bin_}": bins == bin_ for bin_ in dict.fromkeys(bins[known][np.argsort(values[known])].tolist())}


def _write(judged: Judged, figures: dict[str, dict[str, float]], folder: Location) -> list[str]:
    """Write the table of figures and the pictures."""
    drawn = {
        "redshifts.png": photo_z_plots.against_truth(judged), "pit.png": photo_z_plots.pit(judged.pit),
        "n_of_z.png": photo_z_plots.numbers(judged),
    }  # fmt: skip
    names = [save(figure, folder, name) for name, figure in drawn.items()]
    with whole_file(folder / "redshifts.csv") as file:
        pd.DataFrame(figures).T.rename_axis("galaxies").to_csv(file)
    return [*names, f"{folder}/redshifts.csv"]
