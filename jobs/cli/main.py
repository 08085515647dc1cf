"""The command line ``sedflow``: arguments in, jobs run, exit code out (0 done, 1 failed, 2 wrong use)."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster import versions
from cluster.settings import Engines
from jobs.cli import ending
from jobs.cli.catalog import catalog_app, rows_in, summary
from jobs.cli.inspect import inspect_app
from jobs.cli.jobs import jobs_app, submit_app
from jobs.cli.mcmc import mcmc_app
from jobs.cli.options import (
    DEFAULT_COMPONENTS,
    AccessText,
    BandTension,
    CatalogPath,
    Components,
    Cone,
    JoinText,
    Learned,
    LeaveOut,
    Profile,
    Release,
    access_of,
    composition_of,
    engines,
    join_of,
    read_from_options,
    refuse_unread,
)
from jobs.cli.report import report_app
from jobs.cli.run import run_app
from jobs.config import run_file, shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import SSP, Inference, Ingest
from jobs.telemetry.progress import say
from sedflow_dist.photometry import surveys
from sedflow_dist.sps.fsps_engine import PRESETS
from storage_schemas.backend.location import Location
from storage_schemas.backend.remote import Remote

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Bayesian posteriors of galaxies' stellar masses, star-formation histories, metallicities and dust, from "
    "photometry, at survey scale.",
)  # fmt: skip
app.add_typer(run_app)
app.add_typer(inspect_app)
app.add_typer(catalog_app, name="catalog")
app.add_typer(submit_app)
app.add_typer(jobs_app, name="jobs")
app.add_typer(mcmc_app)
app.add_typer(report_app)


@app.callback()
def everywhere(
    metrics: Annotated[
        str | None, typer.Option(envvar="SEDFLOW_METRICS", help="host:port to serve counters for Prometheus at")
    ] = None,
    log: Annotated[
        Literal["text", "json"],
        typer.Option(envvar="SEDFLOW_LOG", help="bars and sentences, or a line of JSON an event"),
    ] = "text",
) -> None:
    """Say what jobs do as asked, and serve metrics; where another job of this machine has the port, work without."""
    os.environ["SEDFLOW_LOG"] = log  # of the processes that this one starts, too
    if metrics:
        from jobs.telemetry.events import emit
        from jobs.telemetry.metrics import serve

        try:
            emit("serving", metrics=f"{metrics.rpartition(':')[0]}:{serve(metrics)}")
        except OSError as error:
            say("metrics", f"not served at {metrics}: {error}")


Workers = Annotated[int | None, typer.Option(min=1, help="Dask workers; replaces the profile's  [default: 2]")]
Redshift = Annotated[str | None, typer.Option(help="redshift column; replaces the survey's; none: no row has one")]
RA = Annotated[str | None, typer.Option("--ra", help="right ascension column; replaces the survey's")]
Dec = Annotated[str | None, typer.Option("--dec", help="declination column; replaces the survey's")]
SurveyName = Annotated[
    str, typer.Option("--survey", help=f"{', '.join(surveys.SURVEYS)}, or a run file that declares another")
]
MassFunction = Annotated[
    str,
    typer.Option(
        help="prior of masses, and with the volume of redshifts that are inferred, as leja2020(min=8); auto: leja2020(min=7) for "
        "models that infer redshifts, none for others; none: flat, as in the training"
    ),
]
#: Parameters that say how a table is read, and those that a run file says instead.
_OF_A_TABLE = ("survey", "redshift", "ra", "dec", "join")
_OF_A_RUN = (*_OF_A_TABLE, "order", "rows_per_chunk", "keep_runs", "workers", "access")


@app.command()
def demo(
    root: Annotated[str, typer.Option(help="where the stores and figures go")] = "demo",
    n: Annotated[int | None, typer.Option("--train-steps", help="training steps (fewer: faster, worse)")] = None,
) -> None:
    """Run the whole chain on 10,000 real SDSS galaxies, with figures at the end (about five minutes on two cores)."""
    from jobs.run.job import run_all
    from jobs.validate.figures import figures as draw

    run = RunFile.load("demo", root=root)
    if n is not None:
        run = run.model_copy(update={"training": run.training.model_copy(update={"steps": n})})
    run_all(run)
    summary(run.store("catalog"))
    print("\nFigures:")
    for name in draw(run):
        print(f"  {name}")
    print(f"\nThe catalog: {run.store('catalog')}   (sedflow catalog show {run.store('catalog')})")


@app.command()
def doctor(
    root: Annotated[str | None, typer.Option(help="storage to probe")] = None,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster to reach")] = None,
    dask: Annotated[str | None, typer.Option(help="address of a Dask scheduler to reach")] = None,
) -> None:
    """Show versions, cores, GPU, and whether storage and clusters can be reached; exit code 1 if anything is wrong."""
    from jobs.run.doctor import doctor as checks

    good = True
    for what, fine, message in checks(root, ray, dask):
        good &= fine
        print(f"{'ok  ' if fine else 'BAD '} {what:<13} {message}")
    raise typer.Exit(0 if good else 1)


@app.command("build-ssp")
def build_ssp(
    out: Annotated[str, typer.Option(help="where the SSP table goes")],
    source: Annotated[str, typer.Option(help="bc03, fsps (needs SPS_HOME), or the URL of a stored table")] = "bc03",
    preset: Annotated[str, typer.Option(help=f"settings of FSPS: {', '.join(PRESETS)}")] = "provabgs",
    z_solar: Annotated[
        float | None, typer.Option(help="mass fraction that is FSPS's logzsol = 0; replaces the preset's")
    ] = None,
    nebular: Annotated[bool, typer.Option(help="let FSPS add the emission of gas around young stars")] = False,
    log_u: Annotated[float, typer.Option(help="log10 of that gas's ionisation parameter, -4 to -1")] = -2.0,
    imf: Annotated[
        Literal["Salpeter", "Chabrier", "Kroupa"], typer.Option(help="of FSPS: its stars' masses")
    ] = "Chabrier",
    actors: Annotated[int, typer.Option(min=1, help="FSPS actors on this machine, or on the cluster of --ray")] = 2,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster")] = None,
    components: Components = DEFAULT_COMPONENTS,
) -> None:
    """Make an SSP table store; with FSPS what was interrupted goes on where it stopped."""
    from jobs.simulate.ssp import build_ssp as build

    with read_from_options():
        settings = SSP(source=source, preset=preset, z_solar=z_solar, nebular=nebular, log_u=log_u, imf=imf)
    engine, libraries = Engines().ray.replace(address=ray, actors=actors), composition_of(components).needs
    build(source, Location.parse(out), settings.fsps_settings(), engine, libraries)


@app.command()
def ingest(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="tables, patterns, HATS catalogs and collections, Zarr groups, here or at a URL; "
            "kcorrect-sample: real galaxies; "
            "or, without --out, a run file: its own input, into its root",
        ),
    ],
    out: Annotated[str | None, typer.Option(help="where the photometry store goes")] = None,
    survey: SurveyName = "sdss",
    redshift: Redshift = None,
    ra: RA = None,
    dec: Dec = None,
    order: Annotated[str, typer.Option(help="of the rows: auto, input or healpix")] = Ingest().order,
    profile: Profile = None,
    rows_per_chunk: Annotated[int, typer.Option(min=1)] = 4096,
    keep_runs: Annotated[
        bool, typer.Option(help="keep the sorted pieces, so that a new file costs only itself")
    ] = False,
    workers: Workers = None,
    join: JoinText = None,
    access: AccessText = None,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Turn catalogs into a photometry store, or bring it up to date: every row kept, calibrated, flagged, counted."""
    from jobs.ingest.job import ingest as fill
    from jobs.ingest.job import ingest_of

    if out is None:
        if len(source) != 1 or not run_file.is_named(source[0]):
            raise typer.BadParameter("needed, as INPUT is no run file *.yaml, which says it itself", param_hint="--out")
        refuse_unread(context, _OF_A_RUN, f"the run file {source[0]} says it (docs/run-file.md)")
        ingest_of(RunFile.load(source[0], engines=profile))
        return
    with read_from_options():
        settings = Ingest.model_validate(
            {"order": order, "redshift": redshift, "ra": ra, "dec": dec, "keep_runs": keep_runs}
        )
    dask = engines(profile).dask.replace(workers=workers)
    (of, joined), joining, reach = run_file.reading(survey), join_of(join), access_of(access)
    fill(source, of, Location.parse(out), rows_per_chunk, settings, dask, None, joining or joined, reach)


@app.command()
def infer(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="photometry store, or anything that sedflow ingest takes")
    ],
    model: Annotated[
        str, typer.Option(help=f"where the trained model is, or one that comes along: {', '.join(shipped.names())}")
    ],
    out: Annotated[str, typer.Option(help="where the posterior catalog goes")],
    survey: SurveyName = "sdss",
    profile: Profile = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    draws: Annotated[int, typer.Option(min=16, help="draws per galaxy")] = Inference().n_draws,
    keep_draws: Annotated[int, typer.Option(min=0, help="draws stored per galaxy")] = 0,
    certificate: Annotated[
        bool,
        typer.Option(help="weigh draws by the exact likelihood; without: quantiles alone, of flows with preset: paper"),
    ] = True,
    mass_function: MassFunction = "auto",
    learned_likelihood: Learned = False,
    band_tension: BandTension = False,
    leave_out: LeaveOut = None,
    rows_per_shard: Annotated[int, typer.Option(min=1)] = Inference().rows_per_shard,
    workers: Workers = None,
    redshift: Redshift = None,
    ra: RA = None,
    dec: Dec = None,
    join: JoinText = None,
    access: AccessText = None,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Answer every galaxy of INPUT and publish the catalog as a release."""
    from jobs.infer import infer as fill
    from jobs.ingest import job as ingesting
    from jobs.serving import check_survey, of_redshifts
    from storage_schemas.catalog import schema as catalog

    with read_from_options():
        settings = Inference(
            n_draws=draws, keep_draws=keep_draws, certificate=certificate, rows_per_shard=rows_per_shard,
            learned_likelihood=learned_likelihood, band_tension=band_tension, leave_out=leave_out,
            **of_redshifts(shipped.model(model), mass_function),
        )  # fmt: skip
    dask = engines(profile).dask.replace(workers=workers)
    where, joining, reach = Location.parse(out), join_of(join), access_of(access)
    place, trained = reach.place(source), shipped.model(model)
    ours = not (access or (isinstance(place, Remote) and place.scheme != "s3"))  # no store is read so
    if (store := _photometry(source) if ours else None) is not None:
        refuse_unread(context, _OF_A_TABLE, f"{source} is a photometry store, which was made with what it says")
        fill(store, trained, where, settings, seed, dask)
    else:
        of, joined = run_file.reading(survey)
        asked = Ingest(redshift=redshift, ra=ra, dec=dec)
        check_survey(asked.named(of), trained, settings)
        catalog.repository(where, create=True)  # which refuses a place that holds something else
        location = where / "photometry"
        with ingesting.holding(location) as lease:
            ingesting.ingest(source, of, location, rows_per_shard, asked, dask, lease, joining or joined, reach)
            fill(location, trained, where, settings, seed, dask)
    summary(where)


def _photometry(source: str) -> Location | None:
    """Where the photometry store is that an input names; None where it is something else."""
    from storage_schemas import photometry

    try:
        return photometry.open(Location.parse(source)).location
    except (FileNotFoundError, NotADirectoryError):
        return None


@app.command()
def flux(
    parameters: Annotated[Path, typer.Argument(metavar="PARAMS.csv", help="log_mstar,beta1,..,n_dust,z")],
    out: Annotated[str, typer.Option(help="CSV of f_u,f_g,... in nanomaggies, here or s3://")],
    survey: SurveyName = "sdss",
    ssp: Annotated[str, typer.Option(help="bc03, or the URL of a stored SSP table")] = "bc03",
    birth_cloud_age: Annotated[float, typer.Option(help="Gyr")] = 0.01,
    components: Components = DEFAULT_COMPONENTS,
) -> None:
    """Model fluxes of galaxies with given parameters, one row per row."""
    from jobs.flux import flux as evaluate

    rows = evaluate(parameters, run_file.survey(survey), ssp, out, birth_cloud_age, composition_of(components))
    print(f"{rows:,} rows: {out}")


@app.command()
def export(
    source: CatalogPath,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="OUT.fits, .parquet or .csv; OUT.zarr for xarray; OUT_hats for LSDB; OUT.qp.hdf5 for RAIL; a name that "
            "ends in provabgs.hdf5 for scripts that read PROVABGS's catalog; here or at a URL",
        ),
    ],
    columns: Annotated[
        str, typer.Option(help="columns, or parameters and properties, as log_mstar,flags; none: all")
    ] = "",
    cone: Cone = None,
    release: Release = "main",
) -> None:
    """Write a catalog, or the rows in a cone, for other programs, in the catalog's order."""
    from jobs.export import export_files as write

    names = [name.strip() for name in columns.split(",") if name.strip()]
    n_rows, files = write(rows_in(Location.parse(source), release, cone), out, names)
    others = f" to {files[-1]} ({len(files)} files)" if len(files) > 1 else ""
    print(f"{n_rows:,} rows: {files[0]}{others}")


def main() -> None:
    """Entry point: an error the user can mend is one clear message and exit code 1."""
    warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
    logging.getLogger("distributed").setLevel(logging.ERROR)
    ending.end_on_signals()
    try:
        ending.check_limits()
        versions.refuse_other_submitter()
        app()
    except Exception as error:
        ending.fail(error)
