"""Arguments and options that several commands share, and what their values are read as."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError

from cluster.messages import problems
from cluster.settings import Engines
from jobs.config import run_file
from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.config.sections import Inputs
from sedflow_dist.sps.components import KNOWN, PROVABGS, Composition
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import shown

Run = Annotated[str, typer.Argument(metavar="RUN", help="run file, or the name of one that comes along: demo, nsa")]
Root = Annotated[str | None, typer.Option(help="storage root; replaces the run file's")]
CatalogPath = Annotated[str, typer.Argument(metavar="CATALOG", help="path or s3:// URL of a posterior catalog")]
Cone = Annotated[
    str | None, typer.Option(metavar="RA,DEC,RADIUS", help="only rows within RADIUS of a position; all in degrees")
]
Release = Annotated[str, typer.Option("--release", help="a release's name; main is the newest")]
BandTension = Annotated[
    bool, typer.Option("--band-tension", help="predict each band from the others; flag rows where one disagrees")
]
Learned = Annotated[
    bool, typer.Option("--learned-likelihood", help="columns that say what points beyond Gaussian noise and the model")
]
LeaveOut = Annotated[
    str | None, typer.Option(metavar="tension", help="leave such bands out of the answers; needs --band-tension")
]
Profile = Annotated[
    str | None,
    typer.Option(help="where Ray and Dask are: local, slurm, kubernetes, or a file; a run file cannot say it"),
]

JoinText = Annotated[
    str | None,
    typer.Option(
        "--join",
        metavar="FILE,on=COLUMN|within=ANGLE[,columns=A+B]",
        help="columns of another table, such as redshifts, by identifiers or position: z.fits,on=TARGETID,columns=Z+ZWARN; "
        "z.csv,within=1 arcsec,positions=ra+dec (docs/remote.md)",
    ),
]
AccessText = Annotated[
    str | None,
    typer.Option(
        "--access",
        metavar="anon,requester_pays,profile=NAME,endpoint=URL,region=NAME",
        help="how inputs in buckets are reached: any of these; none: with the credentials of AWS's tools",
    ),
]

Components = Annotated[
    str, typer.Option(metavar="NAMES", help=f"what a galaxy is made of, separated by commas: {', '.join(KNOWN)}")
]
#: Components of a galaxy model where a command names none.
DEFAULT_COMPONENTS = ",".join(PROVABGS)


def engines(profile: str | None) -> Engines:
    """Return the engines of a profile, or those of this machine."""
    return Engines.load(profile) if profile else Engines()


def numbers(text: str, option: str) -> list[int]:
    """Read a list of numbers and ranges: 0,5,7-20."""
    try:
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
        parts = [range(first, (last or [first])[0] + 1) for first, *last in ends]
        if not all(parts):  # a range that ends before it starts
            raise ValueError
        return [number for part in parts for number in part]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of row numbers such as 0,5,7-20", param_hint=option) from None


@contextmanager
def read_from_options(option: str | None = None) -> Iterator[None]:
    """Say what is wrong with settings by the option that they were read from: ``option``, or the one of the setting's name.

    Raises:
        typer.BadParameter: the settings are not valid.
    """
    try:
        yield
    except ValidationError as error:
        lines = problems(error)
        if option is None:  # a setting `burn_in` is the option --burn-in
            lines = re.sub(r"^  (\w+):", lambda key: f"--{key[1].replace('_', '-')}:", lines, flags=re.MULTILINE)
        raise typer.BadParameter(shown("; ".join(map(str.strip, lines.splitlines()))), param_hint=option) from None
    except ValueError as error:
        raise typer.BadParameter(shown(str(error)), param_hint=option) from None


def refuse_unread(context: typer.Context | None, unread: Collection[str], why: str) -> None:
    """Refuse options that were given and are not read with this input; ``why`` says what is instead.

    Args:
        context: the command's; None where no command line calls it
        unread: their parameters

    Raises:
        typer.BadParameter: there are such options; names them.
    """
    if context is None:
        return
    names = [name for name in unread if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"]
    given = [option.opts[0] for option in context.command.params if option.name in names]
    if given:
        raise typer.BadParameter(f"not read here: {shown(why)}", param_hint=", ".join(given))


def catalog_of(source: str, root: str | None) -> tuple[Location, RunFile | None]:
    """Return the catalog that is named by its place, or by the run file that makes it, which comes along.

    Raises:
        typer.BadParameter: --root was given, and there is no run file whose root it would replace.
    """
    if run_file.is_named(source):
        run = RunFile.load(source, root=root)
        return run.store("catalog"), run
    if root:
        raise typer.BadParameter("it replaces the root of a run file; the source is a catalog", param_hint="--root")
    return Location.parse(source), None


def join_of(text: str | None) -> Join | None:
    """Return what --join says."""
    with read_from_options("--join"):
        return Join.parse(text)


def access_of(text: str | None) -> Access:
    """Return what --access says."""
    with read_from_options("--access"):
        return Inputs.parse(text).access


def composition_of(text: str) -> Composition:
    """Return the galaxy model of which --components has the names."""
    with read_from_options("--components"):
        return Composition.of([name.strip() for name in text.split(",") if name.strip()])
