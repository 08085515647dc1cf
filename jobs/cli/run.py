"""The commands that take a run file: ``sedflow run``, its stages one by one, and what there is to know of them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobs.cli.catalog import report, summary
from jobs.cli.options import Profile, Root, Run, catalog_of, read_from_options
from jobs.config import shipped
from jobs.config.run_file import RunFile
from jobs.config.sections import Simulation
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import printable

run_app = typer.Typer()


@run_app.command()
def run(
    path: Run,
    root: Root = None,
    profile: Profile = None,
) -> None:
    """Run every stage of a run file; what is there already is not made again."""
    from jobs.run.job import run_all

    settings = RunFile.load(path, root=root, engines=profile)
    run_all(settings)
    summary(settings.store("catalog"))


@run_app.command()
def plan(
    path: Run,
    root: Root = None,
    profile: Profile = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="as if the input had so many rows, and nothing were there")
    ] = None,
) -> None:
    """Show what every stage of a run takes: chunks, bytes, requests, memory of a worker, hours; refuse what cannot fit."""
    from jobs.run import plan as job

    settings = RunFile.load(path, root=root, engines=profile)
    for line in job.lines(job.plan(settings, rows)):
        print(line)
    for line in job.left_out(settings):
        print(f"not in the model: {line}")
    job.refuse_what_cannot_fit(settings)


@run_app.command()
def status(path: Run, root: Root = None) -> None:
    """Show how much of every stage of a run is done, and what was last heard of it; exit code 0 when all is done, else 1."""
    from jobs.run.status import status as lines

    complete, table = lines(RunFile.load(path, root=root))
    for line in table:
        print(printable(line))
    raise typer.Exit(0 if complete else 1)


@run_app.command()
def simulate(
    path: Run,
    root: Root = None,
    profile: Profile = None,
    engine: Annotated[str | None, typer.Option(help="table or fsps; replaces the run file's")] = None,
) -> None:
    """Fill the training set of a run with simulated galaxies (Ray actors)."""
    from jobs.simulate.job import simulate as fill

    run = RunFile.load(path, root=root, engines=profile)
    if engine is not None:
        with read_from_options():
            simulation = Simulation.model_validate({**run.simulation.model_dump(), "engine": engine})
        run = run.model_copy(update={"simulation": simulation})
    fill(run)


@run_app.command()
def train(path: Run, root: Root = None, profile: Profile = None) -> None:
    """Train the flow of a run (Ray Train), or go on where it stopped."""
    from jobs.train import train as fit

    fit(RunFile.load(path, root=root, engines=profile))


@run_app.command("learn-likelihood")
def learn_likelihood(
    path: Run,
    root: Root = None,
    model: Annotated[
        str | None, typer.Option(help="a model to learn it for, by folder or URL, in the place of the run's own")
    ] = None,
) -> None:
    """Train the learned likelihood of a run's model, which `inference: {learned_likelihood: true}` asks for."""
    from jobs.likelihood import learn_likelihood as fit

    fit(RunFile.load(path, root=root), shipped.model(model) if model else None)


@run_app.command()
def validate(
    path: Annotated[str, typer.Argument(metavar="RUN", help="run file; with --truth a catalog will do")],
    root: Root = None,
    profile: Profile = None,
    truth: Annotated[
        str | None, typer.Option(help="table of true redshifts: judge those that the catalog inferred, not the model")
    ] = None,
    column: Annotated[str, typer.Option(help="with --truth: its column of redshifts")] = "redshift",
    on: Annotated[
        str | None,
        typer.Option(help="with --truth: identifier that both have; none: the table's rows are those of the input"),
    ] = None,
    out: Annotated[str, typer.Option(help="with --truth: folder for figures, here or s3://")] = "redshifts",
) -> None:
    """Check the calibration of a run's model on simulated galaxies, or inferred redshifts on galaxies whose true ones are known."""
    if truth is None:
        from jobs.validate.job import validate as check

        check(RunFile.load(path, root=root, engines=profile))
        return
    from jobs.validate.redshifts import judge

    catalog, _ = catalog_of(path, root)
    for name in judge(catalog, truth, Location.parse(out), column, on):
        print(name)


@run_app.command()
def figures(path: Run, root: Root = None) -> None:
    """Draw the figures of a finished run into ROOT/figures; with chains of its mock galaxies in ROOT/chains, theirs too."""
    from jobs.validate.figures import figures as draw

    for name in draw(RunFile.load(path, root=root)):
        print(name)


@run_app.command()
def zeropoints(
    path: Run,
    root: Root = None,
    profile: Profile = None,
    out: Annotated[
        str | None, typer.Option(help="OUT.json, here or s3://; none: zeropoints.json in the run's root")
    ] = None,
    fixed: Annotated[str, typer.Option(help="band whose offset is 0, or mean: that of all bands is")] = "mean",
    prior: Annotated[float, typer.Option(min=1e-6, help="standard deviation of offsets before any data [mag]")] = 0.1,
    population: Annotated[
        Literal["unknown", "prior"],
        typer.Option(help="of the galaxies; prior: they are distributed as the model's prior, as mocks are"),
    ] = "unknown",
    scatter: Annotated[
        float,
        typer.Option(min=0, help="unknown population: solve where single galaxies scatter by less [mag]"),
    ] = 0.1,
    rows: Annotated[int | None, typer.Option(min=1, help="rows to look at, evenly spread; none: all")] = None,
    n: Annotated[int, typer.Option("-n", min=64, help="draws a row")] = 512,
    iterations: Annotated[int, typer.Option(min=1, help="at most")] = 10,
) -> None:
    """Solve for the zero points of a run's survey from its catalog and print them; nothing is applied (docs/model.md)."""
    from jobs.catalog.zero_points import zero_points as solve
    from sedflow_dist.inference.zero_points import Assumptions

    run = RunFile.load(path, root=root, engines=profile)
    assumptions = Assumptions(fixed=fixed, prior=prior, population=population, scatter=scatter)
    solve(run, out or run.store("zeropoints.json"), assumptions, n, rows, iterations)


@run_app.command()
def reprocess(
    path: Run,
    root: Root = None,
    profile: Profile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what the photometry there is gives to do")
    ] = False,
) -> None:
    """Take in what changed in a run's input and publish the next release: only touched shards are computed."""
    from jobs.run.reprocess import reprocess as again

    again(RunFile.load(path, root=root, engines=profile), dry_run)


@run_app.command()
def verify(path: Run, root: Root = None) -> None:
    """Read all stores of a run; what is damaged counts as missing, so that the next run fills it. Exit code 1 if any is."""
    from jobs.catalog.verify import verify as check

    report(check(RunFile.load(path, root=root)), f"sedflow run {path}")
