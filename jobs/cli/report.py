"""The commands that show: ``sedflow report`` and ``sedflow show``."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.options import CatalogPath, Profile, Release, Root, catalog_of, engines
from storage_schemas.backend.location import Location

report_app = typer.Typer()


@report_app.command()
def report(
    source: Annotated[
        str, typer.Argument(metavar="CATALOG|RUN.yaml", help="path or s3:// URL of a catalog, or the run file of one")
    ],
    out: Annotated[str, typer.Option(help="new folder, here or s3://, for the pages")],
    root: Root = None,
    release: Release = "main",
    profile: Profile = None,
) -> None:
    """Write pages on a catalog that open in a browser without a server: what was run, flags, certificate, results, sky."""
    from jobs.report.job import report as write

    catalog, run = catalog_of(source, root)
    names = write(catalog, out, release, run, engines(profile).dask if profile else None)
    print(f"{len(names)} pages: {out.rstrip('/')}/{names[0]}")


@report_app.command()
def show(
    source: CatalogPath,
    row: Annotated[int | None, typer.Option(min=0, help="number of the row")] = None,
    identifier: Annotated[
        str | None,
        typer.Option("--id", help="its identifier; where several columns are one: brickid=1,objid=7"),
    ] = None,
    out: Annotated[str, typer.Option(help="OUT.png, .pdf or .html, here or s3://")] = "galaxy.png",
    release: Release = "main",
) -> None:
    """Draw one galaxy: corner plot, spectral energy distribution with the data, star-formation history, flags in words."""
    from jobs.report.galaxy import show as draw

    if (row is None) == (identifier is None):
        raise typer.BadParameter("name the galaxy by one of them", param_hint="--row, --id")
    print(f"row {draw(Location.parse(source), out, row, identifier, release)}: {out}")
