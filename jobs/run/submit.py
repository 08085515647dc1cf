"""submit: a run file in, a job on a Ray cluster out, through Ray's Jobs API; and what became of it, from any terminal."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import versions, yaml_files
from cluster.ray_engine import TOKEN
from jobs.config.run_file import RunFile
from jobs.telemetry.progress import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_POLL_SECONDS = 2.0
_PACKAGES = ("cluster", "jobs", "sedflow_dist", "storage_schemas")
COMMANDS = ("run", "simulate", "train", "validate", "reprocess")
#: Exit codes of a job's state; 2 is wrong use.
_EXIT = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 1, "RUNNING": 3, "PENDING": 3}


@contextmanager
def _jobs(dashboard: str) -> Iterator[JobSubmissionClient]:
    """Connect to the Jobs API behind the URL of a Ray dashboard.

    Raises:
        ConnectionError: nothing answers there.
        PermissionError: the cluster asks for a token, and it is not there or is another's; says where it is looked for.
        ValueError: not a URL; no such job.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient
    from requests.exceptions import RequestException

    if not dashboard.startswith(("http://", "https://")):
        raise ValueError(f"--ray: {dashboard!r} is not the URL of a Ray dashboard, http://head:8265")
    file = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if file and not os.environ.get("RAY_AUTH_TOKEN") and not Path(file).is_file():
        raise PermissionError(f"RAY_AUTH_TOKEN_PATH: there is no file {file}")  # Ray would end the process
    try:
        yield JobSubmissionClient(dashboard)
    except AuthenticationError as error:
        wrong = "failed" in error.message.partition(":")[0]
        raise PermissionError(
            f"{dashboard} asks for a token, and {'has another than ours' if wrong else 'got none'}: {TOKEN}"
        ) from None
    except (RequestException, ConnectionError) as error:
        raise ConnectionError(f"no Ray dashboard answers at {dashboard}: {error}") from None
    except RuntimeError as error:
        if "status code 404" in str(error):
            raise ValueError(f"{dashboard} knows no such job") from None
        raise


def submit(run: RunFile, dashboard: str, command: str = "run", code: Path | None = None, wait: bool = False) -> int:
    """Send a run to the cluster behind ``dashboard``; return an exit code. Progress is read from the stores: status.

    Args:
        run: its engines are those of the cluster; Ray's is the cluster itself
        command: what is run there, by name
        code: folder with our packages that travel along; none: those of the cluster's image
        wait: for the end

    Raises:
        ConnectionError, PermissionError, ValueError: see `_jobs`; no such command, or the code is not there.
    """
    if command not in COMMANDS:
        raise ValueError(f"--command: {command!r} is none of {', '.join(COMMANDS)}")
    if run.location.is_local:
        say("submit", f"{run.location} is a path: every node of the cluster must see it")
    ray = run.engines.ray.model_copy(update={"address": "auto", "spill_directory": None})
    profile = run.engines.model_copy(update={"ray": ray})
    environment: dict[str, Any] = {
        "env_vars": {versions.SUBMITTED_FROM: json.dumps(versions.here(versions.OF_SUBMITTER))}
    }
    if code:
        modules = [code / name for name in _PACKAGES]
        if absent := [str(path) for path in modules if not path.is_dir()]:
            raise ValueError(f"--code: {code} has no {', '.join(absent)}: it must be a checkout of sedflow-dist")
        environment["py_modules"] = [str(path.resolve()) for path in modules]
    with tempfile.TemporaryDirectory() as folder, _jobs(dashboard) as client:
        settings = run.model_dump(mode="json", exclude={"engines"})
        for name, content in (("run.yaml", settings), ("profile.yaml", profile.model_dump(mode="json"))):
            (Path(folder) / name).write_text(yaml_files.dump(content))
        job = client.submit_job(
            entrypoint=f"python -m jobs.cli {command} run.yaml --profile profile.yaml",
            runtime_env={**environment, "working_dir": folder},
            metadata={"name": f"sedflow {command} {run.name}", "root": run.location.url},
        )
        print(job)
        if not wait:
            return 0
        while not client.get_job_status(job).is_terminal():
            time.sleep(_POLL_SECONDS)
    return status(job, dashboard)


def status(job: str, dashboard: str) -> int:
    """Say how a job is; return 0 (succeeded), 1 (failed, stopped) or 3 (still going)."""
    with _jobs(dashboard) as client:
        info = client.get_job_info(job)
    code = "" if info.driver_exit_code is None else f", exit code {info.driver_exit_code}"
    say("job", f"{job}: {info.status.value}{code}. {(info.metadata or {}).get('name', '')}: {info.message or ''}")
    return _EXIT[info.status.value]


def logs(job: str, dashboard: str) -> str:
    """Return what a job has printed."""
    with _jobs(dashboard) as client:
        return client.get_job_logs(job)


def stop(job: str, dashboard: str) -> bool:
    """Tell a job to end (SIGTERM, then SIGKILL); return whether it was running. What it committed stays."""
    with _jobs(dashboard) as client:
        return client.stop_job(job)
