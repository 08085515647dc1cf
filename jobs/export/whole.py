"""Files and folders that bear their name only once they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yield a path to write to; it replaces ``out`` if the block ends without an error, and goes otherwise."""
    part = out.with_name(f"{out.name}.part")
    try:
        yield part
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``out`` if the block ends without an error, and goes otherwise.

    Raises:
        ValueError: ``out`` exists already.
    """
    if out.exists():
        raise ValueError(f"{out} exists already; remove it, or choose another name")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
