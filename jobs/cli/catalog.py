"""The commands ``sedflow catalog``: look into a posterior catalog, its history and its draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer

from jobs.cli.options import CatalogPath, Cone, Profile, Release, engines, numbers, read_from_options
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable

if TYPE_CHECKING:
    import xarray as xr

catalog_app = typer.Typer(no_args_is_help=True, help="Look into a posterior catalog, its history and its draws.")
_ROWS_READ = 1 << 20
_SHOWN = ["method", "flags", "effective_fraction", "effective_draws", "interim_effective_draws"]


@catalog_app.command("show")
def show(
    source: CatalogPath,
    cone: Cone = None,
    sizes: Annotated[bool, typer.Option("--sizes", help="also bytes stored per galaxy, array by array")] = False,
    release: Release = "main",
) -> None:
    """Show the size, methods, flags and medians of a catalog, or of the rows in a cone."""
    from storage_schemas.catalog import schema as catalog

    summary(Location.parse(source), release, cone)
    if sizes:
        found = catalog.sizes(Location.parse(source), release)
        for name, size in {**found, "all": sum(found.values())}.items():
            print(f"  {size:>9.1f}  bytes a galaxy: {printable(name)}")


@catalog_app.command("figures")
def figures(
    source: CatalogPath, out: Annotated[str, typer.Option(help="folder, here or s3://, for the figures")]
) -> None:
    """Draw a catalog: its masses and redshifts, and the posterior and spectral energy distribution of a typical galaxy."""
    from jobs.validate.figures import of_catalog

    for name in of_catalog(Location.parse(source), Location.parse(out)):
        print(name)


@catalog_app.command("draws")
def draws(
    source: CatalogPath,
    rows: Annotated[str, typer.Option(help="row numbers, for example 0,5,7")],
    out: Annotated[
        str,
        typer.Option(help="OUT.fits, .parquet or .csv, here or s3://: row, draw, parameters, properties"),
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="draws a row")] = 10_000,
    release: Release = "main",
) -> None:
    """Replay posterior draws of some rows: the same numbers every time."""
    from jobs.catalog.draws import write

    print(f"{write(Location.parse(source), out, numbers(rows, '--rows'), n, release):,} draws: {out}")


@catalog_app.command("reweight")
def reweight(
    source: CatalogPath,
    prior: Annotated[
        list[str],
        typer.Option(
            help="new prior of a column: tau_ism=norm(0.3,0.2), log_sfr_1gyr=flat, arguments as scipy's; "
            "log_mstar_surviving=leja2020(min=8), log_z_mw=gallazzi2005(widen=2)"
        ),
    ],
    out: Annotated[str, typer.Option(help="OUT.fits, OUT.parquet or OUT.csv, here or s3://: one row per row")],
    rows: Annotated[str | None, typer.Option(help="row numbers, for example 0,5,7; none: all answered rows")] = None,
    n: Annotated[int | None, typer.Option("-n", min=100, help="draws a row; none: as many as the catalog's")] = None,
    relative_to: Annotated[
        Literal["implied", "unity"],
        typer.Option(
            help="implied: columns get these priors instead of those they had; unity: what they had, times these"
        ),
    ] = "implied",
    release: Release = "main",
) -> None:
    """Answer rows under another prior, from the same draws (docs/priors.md)."""
    from jobs.catalog.reweight import reweight as answer
    from sedflow_dist.inference.settings import TargetPrior

    wanted = None if rows is None else numbers(rows, "--rows")
    with read_from_options("--prior"):
        target = TargetPrior(densities=tuple(prior), relative_to=relative_to)
    done, failed = answer(Location.parse(source), out, target, wanted, n, release)
    print(f"{done:,} rows, of which {failed:,} have no answer under the new prior (column reason): {out}")


@catalog_app.command("average")
def average(
    sources: Annotated[
        list[str], typer.Argument(metavar="CATALOG...", help="two or more, of the same photometry under other models")
    ],
    out: Annotated[str, typer.Option(help="the catalog of the average, a path or s3:// URL")],
    odds: Annotated[
        str | None, typer.Option(help="of the models before the data, in the catalogs' order, as 2,1; none: alike")
    ] = None,
    profile: Profile = None,
) -> None:
    """Average catalogs over their models, row by row, by their evidences (docs/query.md)."""
    from jobs.catalog.average import average_catalogs

    with read_from_options("--odds"):
        shares = None if odds is None else [float(part) for part in odds.split(",")]
    found = average_catalogs([Location.parse(s) for s in sources], Location.parse(out), shares, engines(profile).dask)
    counts = ", ".join(f"{name}: {number:,}" for name, number in found.items() if name not in ("release", "shards"))
    print(printable(f"{found['release']}: {counts}: {out}"))


@catalog_app.command("history")
def history(source: CatalogPath) -> None:
    """List the releases and commits of a catalog, newest first, and runs that are under way or died."""
    from storage_schemas.catalog import releases
    from storage_schemas.catalog import schema as catalog

    repo = catalog.repository(Location.parse(source))
    main = repo.lookup_branch(catalog.MAIN)
    for snapshot, when, message, tags in releases.history(repo):
        print(printable(f"{snapshot}  {when}  {tags:<12} {message}{'  <- main' if snapshot == main else ''}"))
    for branch, written, message in releases.unpublished(repo):
        print(printable(f"{branch}: not published, last commit {written:%Y-%m-%d %H:%M:%S}: {message}"))


@catalog_app.command("diff")
def diff(
    source: CatalogPath,
    old: str,
    new: str,
    rows: Annotated[int, typer.Option(min=0, help="also list so many of the rows that differ, of each column")] = 0,
) -> None:
    """Count the rows that differ between two releases, column by column."""
    from storage_schemas.catalog import schema as catalog

    for name, changed, total, first in catalog.diff(Location.parse(source), old, new, rows):
        listed = f": {', '.join(map(str, first))}{', ...' if changed > len(first) else ''}" if first else ""
        print(printable(f"{name:<20} {changed:>12,} of {total:,} rows differ{listed}"))


@catalog_app.command("rollback")
def rollback(source: CatalogPath, release: str) -> None:
    """Let readers see an earlier release again; nothing is deleted."""
    from storage_schemas.catalog import releases
    from storage_schemas.catalog import schema as catalog

    location = Location.parse(source)
    repo = catalog.repository(location)
    with releases.writing(location):
        print(f"main is {release}: {releases.rollback(repo, release)}")


@catalog_app.command("clean")
def clean(
    source: CatalogPath,
    days: Annotated[float, typer.Option(min=0, help="without a commit for as long, a run counts as dead")] = 7.0,
) -> None:
    """Remove the unpublished work of dead runs, and objects that no release needs; releases stay as they are."""
    from datetime import timedelta

    from storage_schemas.catalog import releases
    from storage_schemas.catalog import schema as catalog

    location = Location.parse(source)
    repo = catalog.repository(location)
    with releases.writing(location):
        removed, size = releases.clean(repo, timedelta(days=days))
    print(f"removed {', '.join(removed) or 'no branch'} and {size / 1e6:,.1f} MB")
    for branch, written, message in releases.unpublished(repo):
        print(f"kept {branch}, last commit {written:%Y-%m-%d %H:%M:%S}: {message}")


@catalog_app.command("verify")
def verify(source: CatalogPath) -> None:
    """Read a whole catalog; damaged shards count as missing, so that the next run computes them. Exit code 1 if any is."""
    from jobs.catalog.verify import verify_catalog

    report(verify_catalog(Location.parse(source)), "the command that made the catalog")


def report(damages: Iterable[str], command: str) -> None:
    """Print damages, and what mends them."""
    found = False
    for line in damages:
        found = True
        print(printable(f"damaged: {line}"))
    print(f"run {command} to fill these again" if found else "nothing is damaged")
    raise typer.Exit(1 if found else 0)


def rows_in(location: Location, release: str, cone: str | None) -> xr.Dataset:
    """Open a release of a catalog, whole or the rows in a cone RA,DEC,RADIUS."""
    from storage_schemas import open_catalog

    catalog = open_catalog(location, release)
    if cone is None:
        return catalog
    try:
        ra, dec, radius = map(float, cone.split(","))
    except ValueError:
        raise typer.BadParameter(f"{cone!r} is no RA,DEC,RADIUS such as 150.1,2.2,0.5", param_hint="--cone") from None
    return catalog.sedflow.cone(ra, dec, radius)


def summary(location: Location, release: str = "main", cone: str | None = None) -> None:
    """Print what a catalog, or a cone of it, holds."""
    from sedflow_dist.inference.summary import METHODS
    from sedflow_dist.photometry.flags import DESCRIPTIONS, Flag

    data = rows_in(location, release, cone)
    methods, flagged = np.zeros(256, int), Counter[Flag]()
    fractions, kept = np.zeros(1001, int), np.zeros(1001, int)
    for start in range(0, data.sizes["galaxy"], _ROWS_READ):
        part = data[_SHOWN].isel(galaxy=slice(start, start + _ROWS_READ)).load()
        methods += np.bincount(part["method"], minlength=256)
        flagged.update({flag: int(np.sum((part["flags"].values & int(flag)) != 0)) for flag in Flag})
        fractions += _thousandths(part["effective_fraction"].values)
        kept += _thousandths(part["effective_draws"].values / part["interim_effective_draws"].values)
    where = f" within {cone}" if cone else ""
    model, n_rows = data.attrs["run"]["model"], data.sizes["galaxy"]
    print(
        printable(f"\nPosterior catalog {location} ({release}){where}, model {model}: {n_rows:,} galaxies", keep="\n")
    )
    for code, name in METHODS.items():
        print(f"  {methods[code]:>9,}  answered by: {name}")
    for flag in Flag:
        if flagged[flag]:
            print(f"  {flagged[flag]:>9,}  {flag.name}: {DESCRIPTIONS[flag]}")
    if fractions.any():
        low, middle = _low_and_median(fractions)
        print(f"  effective fraction of the draws: median {middle:.2f}, 5 % below {low:.2f}")
    target = data.attrs["run"].get("prior", {})  # an average has none of its own
    if target.get("densities") and kept.any():
        low, middle = _low_and_median(kept)
        print(printable(f"  target prior, relative to {target['relative_to']}: {'; '.join(target['densities'])}"))
        print(f"  it leaves of the effective draws: median {middle:.2f}, 5 % of the rows below {low:.2f}")


def _thousandths(share: np.ndarray) -> np.ndarray:
    """Count shares, those that are finite, by thousandths from 0 to 1."""
    return np.bincount((1000 * share[np.isfinite(share)]).astype(int).clip(0, 1000), minlength=1001)


def _low_and_median(counts: np.ndarray) -> tuple[float, float]:
    """Return the 5 % and the 50 % quantile of shares that were counted."""
    low, middle = np.searchsorted(np.cumsum(counts), np.array([0.05, 0.5]) * counts.sum()) / 1000
    return float(low), float(middle)
