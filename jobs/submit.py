"""submit: a run file in, a job on a Ray cluster out, through Ray's Jobs API (with its token, if the cluster asks for one)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import yaml

from jobs.progress import say
from jobs.runfile import RunFile

_POLL_SECONDS = 2.0


def submit(path: Path, run: RunFile, dashboard: str, wait: bool) -> int:
    """Send a run to the cluster behind ``dashboard``; return an exit code. Progress is read from the stores: status."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    if run.location.is_local:
        say("submit", f"{run.location} is a path: every node of the cluster must see it")
    on_cluster = run.model_copy(
        update={
            "engines": run.engines.model_copy(update={"ray": run.engines.ray.model_copy(update={"address": "auto"})})
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(yaml.safe_dump(on_cluster.model_dump(mode="json")))
        client = JobSubmissionClient(dashboard)
        job = client.submit_job(entrypoint="sedflow run run.yaml", runtime_env={"working_dir": folder})
    print(job)
    if not wait:
        return 0
    while not (state := client.get_job_status(job)).is_terminal():
        time.sleep(_POLL_SECONDS)
    say("submit", f"{job}: {state}")
    return 0 if state == JobStatus.SUCCEEDED else 1
