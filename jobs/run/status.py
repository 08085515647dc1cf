"""status: what the stores of a run say, stage by stage, and what was last heard of the job that fills each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs.config.run_file import RunFile
from jobs.run.plan import plan
from jobs.telemetry import events
from jobs.telemetry.events import Record
from storage_schemas.backend.redaction import shown

#: Without a heartbeat for so long, a job is taken for dead, or cut off.
SILENCE = timedelta(seconds=6 * events.BEAT)


def status(run: RunFile) -> tuple[bool, list[str]]:
    """Return whether every store of a run is whole, and a line or two for each stage; stages that fill no store come last."""
    heard, lines, complete = events.records(run.location), [], True
    for stage in plan(run):
        complete &= stage.missing == 0
        lines.append(
            f"{stage.name:<10} {stage.chunks - stage.missing:>8,} of {stage.chunks:,} chunks  {stage.location}"
        )
        if record := heard.pop(stage.name, None):
            lines.append(f"{'':<10} {describe(record)}")
    return complete, lines + [f"{name:<10} {describe(record)}" for name, record in sorted(heard.items())]


def describe(record: Record, now: datetime | None = None) -> str:
    """Say in a line how the last attempt at a stage goes, or went."""
    where = f"{record.host}, process {record.pid}, version {record.version}"
    if record.state == "done":
        return f"done {record.heartbeat:%Y-%m-%d %H:%M:%S} UTC: {record.summary()}"
    if record.state == "failed":
        return f"failed {record.heartbeat:%Y-%m-%d %H:%M:%S} UTC: {shown(record.error or 'unknown')} ({where})"
    at = f"{record.doing} at {record.done:,} of {record.total:,} {record.unit}" if record.total else "starting"
    at += f" ({record.sampling})" if record.sampling else ""
    if (now or datetime.now(UTC)) - record.heartbeat > SILENCE:
        return f"stalled since {record.heartbeat:%Y-%m-%d %H:%M:%S} UTC, {at} ({where}): run it again, it goes on"
    return f"running, {at}, {record.retries:,} retries, last advanced {record.advanced:%H:%M:%S} UTC ({where})"
