"""The command ``sedflow inspect``: what a file is, and the survey that makes photometry of it."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.options import AccessText, access_of

inspect_app = typer.Typer()


@inspect_app.command("inspect")
def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE", help="anything that sedflow ingest takes")],
    out: Annotated[str | None, typer.Option(help="also write it to this file, which --survey takes")] = None,
    access: AccessText = None,
) -> None:
    """Say what a table is, and which survey fits it or might: as YAML to edit, everything else in comments."""
    from jobs.export.whole import whole_file
    from jobs.inspect.job import inspection

    text = "\n".join(inspection(source, out, access_of(access))) + "\n"
    print(text, end="")
    if out is not None:
        with whole_file(out) as file:
            file.write(text.encode())
