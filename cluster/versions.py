"""The software of submitter, driver and workers: where it differs, content would depend on who computed it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

#: Where `submit` leaves the versions of the submitting side for the driver.
SUBMITTED_FROM = "SEDFLOW_SUBMITTED_FROM"
OF_SUBMITTER = ("sedflow-dist", "ray", "python")
OF_WORKERS = ("sedflow-dist", "torch", "numpy", "emcee", "python")


def here(names: Iterable[str]) -> dict[str, str]:
    """Return versions of packages, and of ``python``, in this process; it needs nothing of ours, so that it runs anywhere."""
    import importlib.metadata
    import platform

    found = {}
    for name in names:
        if name == "python":
            found[name] = ".".join(platform.python_version_tuple()[:2])
            continue
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def refuse_difference(ours: Mapping[str, str], theirs: Mapping[str, str], we: str, they: str) -> None:
    """Compare versions.

    Raises:
        RuntimeError: they differ; names both versions of everything that does.
    """
    differing = [name for name in ours if ours[name] != theirs.get(name)]
    if differing:
        lines = [f"{name}: {ours[name]} {we}, {theirs.get(name)} {they}" for name in differing]
        raise RuntimeError(
            f"versions differ: {'; '.join(lines)}. Use the same image, or the same constraints.txt, for both"
        )


def refuse_other_submitter() -> None:
    """Compare this process with the one that submitted it, if one did.

    Raises:
        RuntimeError: versions differ.
    """
    if submitted := os.environ.get(SUBMITTED_FROM):
        refuse_difference(json.loads(submitted), here(OF_SUBMITTER), "where it was submitted", "on the cluster")
