"""Dask workers as Slurm jobs: settings in, a cluster of dask-jobqueue out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
from dask.utils import format_bytes, parse_bytes
from distributed.security import Security

from cluster.settings import WORKER_ENVIRONMENT, DaskSettings

_END = timedelta(minutes=5)  # before Slurm kills a job, its workers hand on what they hold and end


def cluster(settings: DaskSettings) -> Any:
    """Start a scheduler here and ask Slurm for workers, one thread each; their traffic is encrypted.

    Certificates are Dask's configured ones where ``distributed.comm.require-encryption`` is set, else made for this cluster:
    a scheduler without would run anybody's code who reaches this node.

    Raises:
        ModuleNotFoundError: dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Slurm needs dask-jobqueue: pip install 'sedflow-dist[slurm]'") from error
    slurm = settings.slurm
    lifetime = max(_walltime(slurm.walltime) - _END, timedelta(minutes=1))
    started = SLURMCluster(
        queue=slurm.queue, account=slurm.account, walltime=slurm.walltime, interface=slurm.interface,
        cores=slurm.cores, processes=slurm.cores, memory=format_bytes(slurm.cores * parse_bytes(settings.memory_limit)),
        job_extra_directives=list(slurm.extra),
        job_script_prologue=[f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()],
        worker_extra_args=["--lifetime", f"{lifetime.total_seconds():.0f}s", "--lifetime-stagger", "60s"],
        shared_temp_directory=str(Path.home()),
        security=Security() if dask.config.get("distributed.comm.require-encryption") else True,
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip
    started.scale(n=settings.workers)
    return started


def _walltime(text: str) -> timedelta:
    """Read Slurm's days-hours:minutes:seconds; a number alone is minutes."""
    days, _, clock = text.rpartition("-")
    try:
        numbers = [int(part) for part in clock.split(":")]
        if days:
            hours, minutes, seconds = [*numbers, 0, 0][:3]
        else:
            hours, minutes, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
        return timedelta(days=int(days or 0), hours=hours, minutes=minutes, seconds=seconds)
    except (KeyError, ValueError) as error:
        raise ValueError(f"engines.dask.slurm.walltime: {text!r} is not [days-]hours:minutes:seconds") from error
