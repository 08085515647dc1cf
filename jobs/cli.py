"""The command line ``sedflow``: arguments in, jobs run, exit code out (0 done, 1 failed, 2 wrong use)."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import icechunk
import obstore
import typer

from cluster.settings import DaskSettings, RaySettings
from jobs import shipped
from jobs.runfile import MCMC, SSP, Inference, RunFile, Simulation
from sedflow_dist import surveys
from sedflow_dist.fsps_engine import PRESETS
from storage_schemas.storage import Location

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Bayesian posteriors of galaxies' stellar masses, star-formation histories, metallicities and dust, from "
    "photometry, at survey scale.",
)  # fmt: skip
catalog_app = typer.Typer(no_args_is_help=True, help="Look into a posterior catalog, its history and its draws.")
app.add_typer(catalog_app, name="catalog")

Run = Annotated[str, typer.Argument(metavar="RUN", help="run file, or the name of one that comes along: demo, nsa")]
SurveyName = Annotated[str, typer.Option("--survey", help=f"one of {', '.join(surveys.SURVEYS)}")]
CatalogPath = Annotated[str, typer.Argument(metavar="CATALOG", help="path or s3:// URL of a posterior catalog")]
Release = Annotated[str, typer.Option("--release", help="a release's name; main is the newest")]


@app.command()
def demo(
    root: Annotated[str, typer.Option(help="where the stores and figures go")] = "demo",
    n: Annotated[int | None, typer.Option("--train-steps", help="training steps (fewer: faster, worse)")] = None,
) -> None:
    """Run the whole chain on 10,000 real SDSS galaxies, with figures at the end (about ten minutes on two cores)."""
    from jobs.figures import figures
    from jobs.run import run_all

    run = RunFile.load("demo", root=root)
    if n is not None:
        run = run.model_copy(update={"training": run.training.model_copy(update={"steps": n})})
    run_all(run)
    _summary(run.store("catalog"))
    print("\nFigures:")
    for name in figures(run):
        print(f"  {name}")
    print(f"\nThe catalog: {run.store('catalog')}   (sedflow catalog show {run.store('catalog')})")


@app.command()
def run(
    path: Run, root: Annotated[str | None, typer.Option(help="storage root; replaces the run file's")] = None
) -> None:
    """Run every stage of a run file; what is there already is not made again."""
    from jobs.run import run_all

    settings = RunFile.load(path, root=root)
    run_all(settings)
    _summary(settings.store("catalog"))


@app.command()
def plan(path: Run, root: Annotated[str | None, typer.Option(help="storage root")] = None) -> None:
    """Show chunks, rows, bytes and hours of every stage of a run, and what exists already."""
    from jobs.plan import plan as stages

    planned = list(stages(RunFile.load(path, root=root)))
    print(f"{'stage':<10} {'chunks':>8} {'missing':>8} {'rows':>14} {'GB':>9} {'hours':>8}  store")
    for stage in planned:
        print(f"{stage.name:<10} {stage.chunks:>8,} {stage.missing:>8,} {stage.rows:>14,} {stage.gigabytes:>9.3f} "
              f"{stage.hours:>8.2f}  {stage.location}")  # fmt: skip


@app.command()
def status(path: Run, root: Annotated[str | None, typer.Option(help="storage root")] = None) -> None:
    """Show how much of every stage of a run is done; exit code 0 when all of it is, else 1."""
    from jobs.plan import plan as stages

    complete = True
    for stage in stages(RunFile.load(path, root=root)):
        complete &= stage.missing == 0
        print(f"{stage.name:<10} {stage.chunks - stage.missing:>8,} of {stage.chunks:,} chunks  {stage.location}")
    raise typer.Exit(0 if complete else 1)


@app.command()
def submit(
    path: Run,
    ray: Annotated[str, typer.Option("--ray", help="URL of a Ray head's dashboard, http://head:8265")],
    root: Annotated[str | None, typer.Option(help="storage root, seen by every node")] = None,
    wait: Annotated[bool, typer.Option(help="wait for the end and exit with its state")] = False,
) -> None:
    """Submit a run to a Ray cluster through its Jobs API and print the job's id."""
    from jobs.submit import submit as send

    raise typer.Exit(send(Path(path), RunFile.load(path, root=root), ray, wait))


@app.command()
def doctor(
    root: Annotated[str | None, typer.Option(help="storage to probe")] = None,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster to reach")] = None,
    dask: Annotated[str | None, typer.Option(help="address of a Dask scheduler to reach")] = None,
) -> None:
    """Show versions, cores, GPU, and whether storage and clusters can be reached; exit code 1 if anything is wrong."""
    from jobs.doctor import doctor as checks

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
    actors: Annotated[int, typer.Option(min=1, help="FSPS actors on this machine, or on the cluster of --ray")] = 2,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster")] = None,
) -> None:
    """Make an SSP table store; with FSPS what was interrupted goes on where it stopped."""
    from jobs.build_ssp import build_ssp as build

    settings = SSP(source=source, preset=preset, z_solar=z_solar, nebular=nebular, log_u=log_u)
    build(source, Location.parse(out), settings.fsps_settings(), RaySettings(address=ray, actors=actors))


@app.command()
def ingest(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="FITS, Parquet or CSV; kcorrect-sample: real galaxies")
    ],
    out: Annotated[str, typer.Option(help="where the photometry store goes")],
    survey: SurveyName = "sdss",
    rows_per_chunk: Annotated[int, typer.Option(min=1)] = 4096,
) -> None:
    """Turn a catalog file into a photometry store: every row kept, in order, calibrated, flagged."""
    from jobs.ingest import ingest as fill

    fill(source, surveys.get(survey), Location.parse(out), rows_per_chunk)


@app.command()
def simulate(
    path: Run,
    root: Annotated[str | None, typer.Option(help="storage root")] = None,
    engine: Annotated[str | None, typer.Option(help="table or fsps; replaces the run file's")] = None,
) -> None:
    """Fill the training set of a run with simulated galaxies (Ray actors)."""
    from jobs.simulate import simulate as fill

    run = RunFile.load(path, root=root)
    if engine is not None:
        simulation = Simulation.model_validate({**run.simulation.model_dump(), "engine": engine})
        run = run.model_copy(update={"simulation": simulation})
    fill(run)


@app.command()
def train(path: Run, root: Annotated[str | None, typer.Option(help="storage root")] = None) -> None:
    """Train the flow of a run (Ray Train), or go on where it stopped."""
    from jobs.train import train as fit

    fit(RunFile.load(path, root=root))


@app.command()
def validate(path: Run, root: Annotated[str | None, typer.Option(help="storage root")] = None) -> None:
    """Check the calibration of a run's model on simulated galaxies."""
    from jobs.validate import validate as check

    check(RunFile.load(path, root=root))


@app.command()
def infer(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="photometry store, or a FITS, Parquet or CSV table")],
    model: Annotated[
        str, typer.Option(help=f"where the trained model is, or one that comes along: {', '.join(shipped.names())}")
    ],
    out: Annotated[str, typer.Option(help="where the posterior catalog goes")],
    survey: SurveyName = "sdss",
    seed: Annotated[int, typer.Option(min=0)] = 1,
    draws: Annotated[int, typer.Option(min=16, help="draws per galaxy")] = Inference().n_draws,
    keep_draws: Annotated[int, typer.Option(min=0, help="draws stored per galaxy")] = 0,
    rows_per_shard: Annotated[int, typer.Option(min=1)] = Inference().rows_per_shard,
    workers: Annotated[int, typer.Option(min=1, help="Dask workers on this machine")] = 2,
) -> None:
    """Answer every galaxy of INPUT and publish the catalog as a release."""
    from jobs.infer import infer as fill
    from jobs.ingest import ingest as read
    from storage_schemas import photometry

    settings = Inference(n_draws=draws, keep_draws=keep_draws, rows_per_shard=rows_per_shard)
    location = Location.parse(source) if "://" in source or Path(source).is_dir() else None
    if location is None:
        location = Location.parse(f"{out.rstrip('/')}-photometry")
        read(source, surveys.get(survey), location, rows_per_shard)
    else:
        photometry.open(location)
    fill(location, shipped.model(model), Location.parse(out), settings, seed, DaskSettings(workers=workers))
    _summary(Location.parse(out))


@app.command()
def mcmc(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="photometry store, or mocks:100 for simulated galaxies of the model")
    ],
    model: Annotated[str, typer.Option(help="whose galaxy model and prior are sampled")],
    out: Annotated[str, typer.Option(help="where the chains go")],
    rows: Annotated[str, typer.Option(help="rows of the store, for example 0,5,7-20")] = "",
    sampler: Annotated[str, typer.Option(help="zeus, emcee or nautilus (nested)")] = "zeus",
    walkers: Annotated[int, typer.Option()] = MCMC().walkers,
    steps: Annotated[int, typer.Option()] = MCMC().steps,
    burn_in: Annotated[int, typer.Option(help="steps discarded")] = MCMC().burn_in,
    thin: Annotated[int, typer.Option(help="steps between kept ones")] = MCMC().thin,
    checkpoint_steps: Annotated[int, typer.Option(help="what a killed actor may lose")] = MCMC().checkpoint_steps,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    actors: Annotated[int, typer.Option(min=1, help="actors on this machine, or on the cluster of --ray")] = 2,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster")] = None,
) -> None:
    """Sample galaxies' exact posteriors by MCMC, the flow's reference; what was interrupted goes on where it stopped."""
    from jobs import mcmc as job

    settings = MCMC.model_validate({
        "sampler": sampler, "walkers": walkers, "steps": steps, "burn_in": burn_in, "thin": thin,
        "checkpoint_steps": checkpoint_steps,
    })  # fmt: skip
    data = _galaxies(source, model, rows, seed)
    job.sample(data, shipped.model(model), Location.parse(out), settings, seed, RaySettings(address=ray, actors=actors))


@app.command()
def compare(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="as for mcmc")],
    chains: Annotated[str, typer.Option(help="what sedflow mcmc wrote, for the same galaxies and seed")],
    model: Annotated[str, typer.Option(help="the model to compare with the chains")],
    rows: Annotated[str, typer.Option(help="rows of the store, as for mcmc")] = "",
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Tell a flow's posteriors, plain and weighted, from those of MCMC: C2ST and evidence."""
    from jobs.compare import compare as tell

    tell(_galaxies(source, model, rows, seed), Location.parse(chains), shipped.model(model), seed)


@app.command()
def flux(
    parameters: Annotated[Path, typer.Argument(metavar="PARAMS.csv", help="log_mstar,beta1,..,n_dust,z")],
    out: Annotated[Path, typer.Option(help="CSV of f_u,f_g,... in nanomaggies")],
    survey: SurveyName = "sdss",
    ssp: Annotated[str, typer.Option(help="bc03, or the URL of a stored SSP table")] = "bc03",
    birth_cloud_age: Annotated[float, typer.Option(help="Gyr")] = 0.01,
) -> None:
    """Model fluxes of galaxies with given parameters, one row per row."""
    from jobs.flux import flux as evaluate

    rows = evaluate(parameters, surveys.get(survey), ssp, out, birth_cloud_age)
    print(f"{rows:,} rows: {out}")


@app.command()
def export(
    source: CatalogPath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.fits, OUT.parquet or OUT.csv")],
    release: Release = "main",
) -> None:
    """Write a catalog as one table, in the input's order."""
    from jobs.export import export as write

    print(f"{write(Location.parse(source), out, release):,} rows: {out}")


@catalog_app.command("show")
def show(source: CatalogPath, release: Release = "main") -> None:
    """Show a catalog's size, methods, flags and medians."""
    _summary(Location.parse(source), release)


@catalog_app.command("draws")
def draws(
    source: CatalogPath,
    rows: Annotated[str, typer.Option(help="row numbers, for example 0,5,7")],
    out: Annotated[Path, typer.Option(help="CSV: row and draw, then parameters and derived properties")],
    n: Annotated[int, typer.Option("-n", min=1, help="draws a row")] = 10_000,
    release: Release = "main",
) -> None:
    """Replay posterior draws of some rows: the same numbers every time."""
    import numpy as np

    from jobs.draws import replay
    from storage_schemas import open_catalog

    numbers = _numbers(rows, "--rows")
    values, names = replay(open_catalog(Location.parse(source), release), numbers, n)
    index = np.stack(np.meshgrid(numbers, np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    table = np.concatenate([index, values.reshape(-1, values.shape[-1])], axis=1)
    formats = ["%d", "%d", *["%.7g"] * len(names)]
    np.savetxt(out, table, fmt=formats, delimiter=",", header=",".join(("row", "draw", *names)), comments="")
    print(f"{len(table):,} draws: {out}")


@catalog_app.command("reweight")
def reweight(
    source: CatalogPath,
    prior: Annotated[
        list[str],
        typer.Option(
            help="new prior of a column, as tau_ism=norm(0.3,0.2) or log_sfr_1gyr=flat; arguments are scipy's"
        ),
    ],
    out: Annotated[Path, typer.Option(help="OUT.fits, OUT.parquet or OUT.csv: one row per row")],
    rows: Annotated[str | None, typer.Option(help="row numbers, for example 0,5,7; none: all answered rows")] = None,
    n: Annotated[int | None, typer.Option("-n", min=100, help="draws a row; none: as many as the catalog's")] = None,
    release: Release = "main",
) -> None:
    """Answer rows under another prior, from the same draws (docs/priors.md)."""
    from jobs.reweight import reweight as answer

    numbers = None if rows is None else _numbers(rows, "--rows")
    done, failed = answer(Location.parse(source), out, prior, numbers, n, release)
    print(f"{done:,} rows, of which {failed:,} have no answer under the new prior (column reason): {out}")


@catalog_app.command("history")
def history(source: CatalogPath) -> None:
    """List the releases and commits of a catalog, newest first."""
    from storage_schemas import catalog

    for snapshot, when, message, tags in catalog.history(catalog.repository(Location.parse(source))):
        print(f"{snapshot}  {when}  {tags:<12} {message}")


@catalog_app.command("diff")
def diff(source: CatalogPath, old: str, new: str) -> None:
    """Count the rows that differ between two releases, column by column."""
    from storage_schemas import catalog

    for name, changed, total in catalog.diff(Location.parse(source), old, new):
        print(f"{name:<20} {changed:>12,} of {total:,} rows differ")


@catalog_app.command("rollback")
def rollback(source: CatalogPath, release: str) -> None:
    """Let readers see an earlier release again; nothing is deleted."""
    from storage_schemas import catalog

    print(f"main is {release}: {catalog.rollback(catalog.repository(Location.parse(source)), release)}")


def _galaxies(source: str, model: str, rows: str, seed: int) -> dict[str, Any]:
    """Galaxies of a photometry store, or simulated ones."""
    import numpy as np

    from jobs import mcmc as job
    from sedflow_dist.flow import Flow
    from storage_schemas import model as model_store

    if not source.startswith("mocks:"):
        return job.rows_of(Location.parse(source), np.array(_numbers(rows, "--rows")))
    flow = Flow.from_bytes(*model_store.read(shipped.model(model)))
    return job.mocks(flow, _numbers(source.removeprefix("mocks:"), "INPUT")[0], seed)[0]


def _numbers(text: str, option: str) -> list[int]:
    """Read a list of numbers and ranges: 0,5,7-20."""
    try:
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
        parts = [range(first, (last or [first])[0] + 1) for first, *last in ends]
        if not all(parts):  # a range that ends before it starts
            raise ValueError
        return [number for part in parts for number in part]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of row numbers such as 0,5,7-20", param_hint=option) from None


def _summary(location: Location, release: str = "main") -> None:
    """Print what a catalog holds."""
    import numpy as np

    from sedflow_dist.flags import DESCRIPTIONS, Flag
    from storage_schemas import catalog

    data = catalog.open_catalog(location, release)
    method, flags = data["method"].values, data["flags"].values
    print(f"\nPosterior catalog {location} ({release}), model {data.attrs['run']['model']}: {len(method):,} galaxies")
    for code, name in catalog.METHODS.items():
        print(f"  {int(np.sum(method == code)):>9,}  answered by: {name}")
    for flag in Flag:
        if count := int(np.sum((flags & int(flag)) != 0)):
            print(f"  {count:>9,}  {flag.name}: {DESCRIPTIONS[flag]}")
    fraction = data["effective_fraction"].values
    fraction = fraction[np.isfinite(fraction)]
    if len(fraction):
        low, middle = np.percentile(fraction, [5, 50])
        print(f"  effective fraction of the draws: median {middle:.2f}, 5 % below {low:.2f}")


def main() -> None:
    """Entry point: an error the user can mend is one clear message and exit code 1."""
    warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        app()
    except (ValueError, RuntimeError, OSError, icechunk.IcechunkError, obstore.exceptions.BaseError) as error:
        print(f"sedflow: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
