"""The commands ``sedflow submit`` and ``sedflow jobs``: a run on a Ray cluster, through its Jobs API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import Profile
from jobs.config.run_file import RunFile
from jobs.run import submit as job

submit_app = typer.Typer()
jobs_app = typer.Typer(
    no_args_is_help=True, help="Jobs on a Ray cluster: how they are, what they print, and to stop them."
)

Dashboard = Annotated[str, typer.Option("--ray", help="URL of a Ray head's dashboard, http://head:8265")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="what sedflow submit printed")]


@submit_app.command()
def submit(
    path: Annotated[str, typer.Argument(metavar="RUN", help="run file, or the name of one that comes along")],
    ray: Dashboard,
    root: Annotated[str | None, typer.Option(help="storage root, seen by every node")] = None,
    profile: Profile = None,
    command: Annotated[str, typer.Option(help=f"what to run there: {', '.join(job.COMMANDS)}")] = "run",
    code: Annotated[
        Path | None,
        typer.Option(help="checkout of sedflow-dist that travels along; none: what the cluster's image has"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the end and exit with its state")] = False,
) -> None:
    """Submit a run to a Ray cluster through its Jobs API and print the job's id."""
    raise typer.Exit(job.submit(RunFile.load(path, root=root, engines=profile), ray, command, code, wait))


@jobs_app.command()
def status(name: Job, ray: Dashboard) -> None:
    """Say how a job is; exit code 0 when it succeeded, 1 when it failed or was stopped, 3 while it goes on."""
    raise typer.Exit(job.status(name, ray))


@jobs_app.command()
def logs(name: Job, ray: Dashboard) -> None:
    """Print what a job has printed so far."""
    print(job.logs(name, ray), end="")


@jobs_app.command()
def stop(name: Job, ray: Dashboard) -> None:
    """Tell a job to end; what it has committed stays, and submitting the run again goes on from there."""
    print("stopped" if job.stop(name, ray) else "it had ended already")
