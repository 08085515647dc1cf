"""doctor: what is installed, what the machine has, and whether storage and engines can be reached."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator

from sedflow_dist import compiled
from sedflow_dist.sps import fsps_home
from storage_schemas.backend import conditions
from storage_schemas.backend.faults import explain
from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import shown

_PACKAGES = ("sedflow-dist", "torch", "sbi", "ray", "dask", "distributed", "zarr", "icechunk", "obstore", "speclite",
             "bagpipes", "kcorrect", "fsps")  # fmt: skip


def doctor(root: str | None, ray_address: str | None, dask_address: str | None) -> Iterator[tuple[str, bool, str]]:
    """Yield (what, good, message) of every check."""
    import torch

    yield "python", True, f"{platform.python_version()} on {platform.platform()}"
    for name in _PACKAGES:
        try:
            yield name, True, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            extra = {"bagpipes": "bc03", "kcorrect": "demo", "fsps": "fsps"}.get(name)
            yield (
                name,
                extra is not None,
                f"not installed (pip install 'sedflow-dist[{extra}]')" if extra else "missing",
            )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield "machine", True, f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"
    instructions = compiled.instructions()
    yield (
        "compiled",
        True,
        f"for {instructions}" if instructions else "nothing (no compiler at installation): half as fast",
    )
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (everything works without)"
    yield "gpu", True, gpu
    if "SPS_HOME" in os.environ or importlib.util.find_spec("fsps"):
        yield ("SPS_HOME", *_fsps(os.environ.get("SPS_HOME")))
    if root:
        yield ("storage", *_storage(root))
    if ray_address:
        yield ("ray", *_ray(ray_address))
    if dask_address:
        yield ("dask", *_dask(dask_address))


def _fsps(home: str | None) -> tuple[bool, str]:
    """Check the files that FSPS reads, then let a subprocess compute a spectrum; without SPS_HOME nothing needs FSPS."""
    problems = fsps_home.check_home(home)
    if problems:
        return home is None, " ".join(problems)
    result = fsps_home.probe(home)
    return result.ok, result.message


def _storage(root: str) -> tuple[bool, str]:
    """Write and remove probes, and see whether storage keeps the promises that catalogs rest on."""
    try:
        found = conditions.examine(Location.parse(root))
    except Exception as error:
        return False, shown(f"{root}: {explain(error)}")
    return True, f"{root}: reads and writes; {found}"


def _ray(address: str) -> tuple[bool, str]:
    from cluster import ray_engine
    from cluster.settings import RaySettings

    try:
        with ray_engine.session(RaySettings(address=address)):
            return True, f"{address}: {ray_engine.ray.cluster_resources().get('CPU', 0):.0f} cores"
    except (OSError, RuntimeError, ValueError) as error:
        return False, shown(f"{address}: {explain(error)}")


def _dask(address: str) -> tuple[bool, str]:
    from cluster import dask_engine
    from cluster.settings import DaskSettings

    try:
        with dask_engine.client(DaskSettings(address=address)) as client:
            return True, f"{address}: {len(client.scheduler_info()['workers'])} workers"
    except (OSError, TimeoutError) as error:
        return False, shown(f"{address}: {explain(error)}")
