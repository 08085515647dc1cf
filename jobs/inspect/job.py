"""What `sedflow inspect` says of a file: its tables, the survey that fits or is proposed, and what its photometry looks like.

Everything is a comment but the survey, so that what is said is a file that ``--survey`` takes, and a section of a run file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError

from cluster import yaml_files
from cluster.messages import problems
from jobs.ingest import calibrated, column_names, hints, plausibility
from jobs.ingest.inputs import expand
from jobs.inspect import table_facts
from jobs.inspect.proposal import Proposal, propose, redshifts_of
from jobs.inspect.table_facts import Column, Facts
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.photometry.surveys import SURVEYS
from storage_schemas.backend.access import Access
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import listed, printable, shortened

_WIDTH = 116
_PLACES = 3  # of which photometry is calibrated
_NEARLY = 0.5  # of a survey's columns, below which it does not fit even nearly


def inspection(source: str, out: str | None = None, access: Access | None = None) -> list[str]:
    """Return what there is to say of an input, line by line; it is YAML. ``out``: the file that it will stand in.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or no catalog. Says what was found.
    """
    files = expand(source, Location(""), access)
    found = table_facts.tables(files[0])
    lines = [f"{printable(source)}: {len(files):,} files; this is the first of them"] if len(files) > 1 else []
    for facts in found:
        lines += _facts(facts)
    ranked = sorted(found, key=_richness, reverse=True)
    said = [f"# {line}".rstrip() for line in lines]
    if ranked and ranked[0].name:
        source = str(ranked[0].location)
    if ranked:
        said += ["#", *_survey(ranked[0], shlex.quote(source), shlex.quote(out or "THIS.yaml"))]
    else:
        said.append("# it holds no table that can be read")
    # Names come from the file: none may end a comment, and YAML's own lines are escaped by whoever wrote them.
    return [printable(line) if line.lstrip().startswith("#") else line for line in said]


def _richness(facts: Facts) -> tuple[int, int]:
    """A table that a survey fits, or with much photometry, before others."""
    fits = bool(hints.fitting(facts.names))
    proposal = propose(facts, "any") if facts.n_rows else None
    return (2 if fits else 1 if proposal else 0, len(proposal.keys["bands"]) if proposal else 0)


def _facts(facts: Facts) -> Iterator[str]:
    """A table: a line for itself, one for each column."""
    named = f" (table {shortened(facts.name)})" if facts.name else ""
    yield ""
    yield (
        f"{printable(facts.location)}{named}: {facts.n_rows:,} rows, {len(facts.columns):,} columns; looked at "
        f"{facts.n_sampled:,} rows in {len(facts.sampled)} places"
    )
    width = min(max([6, *(len(shortened(column.name)) for column in facts.columns)]), 40)
    yield f"  {'column':<{width}}  {'type':<12} {'unit':<14} {'missing':>8}  values"
    for column in facts.columns:
        kind = column.kind + (f"[{column.width}]" if column.width else "")
        lost = f"{column.missing + column.nan:.1%}" if column.missing + column.nan else ""
        unit = shortened(column.unit or "")
        yield f"  {shortened(column.name):<{width}}  {kind:<12} {unit:<14} {lost:>8}  {_values(column)}"


def _values(column: Column) -> str:
    if column.texts:
        return ", ".join(column.texts)[:_WIDTH]
    values = column.of(None).ravel() if column.values is not None else np.zeros(0)
    values = values[np.isfinite(values)]
    said = []
    if len(values):
        said.append(f"{values.min():.6g} to {values.max():.6g}, median {np.median(values):.6g}")
    if column.sentinels:
        codes = ", ".join(f"{value:g} ({share:.1%})" for value, share in column.sentinels)
        said.append(f"codes for no value: {codes}")
    return "; ".join(said)


def _survey(facts: Facts, source: str, out: str) -> Iterator[str]:
    """The survey that fits, or the one that is proposed, with the medians of what it would make.

    ``source`` and ``out`` are as a shell takes them.
    """
    fits = hints.fitting(facts.names) if facts.n_rows else []
    for survey in SURVEYS.values():
        lacking = [name for name in hints.lacking(survey, facts.names) if name != survey.redshift]
        if survey not in fits and len(lacking) < _NEARLY * len(survey.required):
            yield f"# the built-in survey {survey.name} nearly fits; the table lacks {listed(lacking)}"
    if fits:
        yield from _built_in(fits[0], facts, source)
        return
    name = PurePosixPath(str(facts.location.url)).name.partition(".")[0]
    proposal = propose(facts, name) if facts.n_rows else None
    if proposal is None:
        yield "# no photometry is recognised by the names of the columns: declare a survey by hand (docs/your-table.md)"
        return
    yield from _proposed(proposal, facts, source, out)


def _built_in(survey: Survey, facts: Facts, source: str) -> Iterator[str]:
    named, asks = dict[str, str](), []
    if hints.lacking(survey, facts.names, [survey.redshift or ""]):
        if redshifts := redshifts_of(facts):
            named["redshift"] = redshifts[0]
            asks += [] if column_names.says_redshift(redshifts[0]) else [f"is {shortened(redshifts[0])} the redshift?"]
        else:
            asks.append(hints.of_redshift(survey, facts.names))
        survey = survey.model_copy(update={"redshift": named.get("redshift")})
    if hints.of_positions(survey, facts.names):
        named |= zip(("ra", "dec"), column_names.positions(facts.names)[0], strict=True)
    options = "".join(f" --{option} {shlex.quote(column)}" for option, column in named.items())
    yield f"# the built-in survey {survey.name} fits:"
    yield f"#   sedflow ingest {source} --survey {survey.name}{options} --out photometry"
    yield from _light(facts, survey)
    yield from (f"# ASK: {ask}" for ask in asks)
    yield yaml_files.dump({"survey": survey.name, **({"ingest": named} if named else {})}).rstrip()


def _proposed(proposal: Proposal, facts: Facts, source: str, out: str) -> Iterator[str]:
    yield "# no built-in survey fits. A proposal, to be edited: put it into a run file, or into a file of its own,"
    yield f"#   sedflow ingest {source} --survey {out} --out photometry"
    try:
        yield from _light(facts, Survey.model_validate(proposal.keys))
    except ValidationError as error:
        yield "# it is not valid yet:"
        yield from (f"# {line}" for line in problems(error).splitlines())
    if proposal.asks:
        yield "# What only you can know:"
        yield from (f"#   - {ask}" for ask in proposal.asks)
    yield "survey:"
    for key, value in proposal.keys.items():
        for said in filter(None, proposal.said.get(key, [])):
            yield f"  # {printable(said)}"
        flow = None if isinstance(value, list | dict) else False
        plain = yaml_files.dump({key: value}, default_flow_style=flow, width=_WIDTH)
        yield from (f"  {line}" for line in plain.rstrip().splitlines())


def _light(facts: Facts, survey: Survey) -> Iterator[str]:
    """The medians of what a survey makes of the table's rows, as comments."""
    try:
        sample = _calibrated(facts, survey)
    except ValueError as error:
        yield f"# its photometry cannot be read so: {shortened(error)}"
        return
    lines = plausibility.judge(survey, sample)
    yield from (f"# {line}" for line in plausibility.table(lines))
    yield from (f"# WARNING: {warning}" for warning in plausibility.warnings(lines))


def _calibrated(facts: Facts, survey: Survey) -> Mapping[str, np.ndarray]:
    """Calibrated photometry of sampled rows, as ingest would make it."""
    redshift = survey.redshift
    if redshift is None:  # any numbers will do: fluxes do not depend on them
        taken = {name.partition("[")[0] for name in survey.required}
        redshift = next((c.name for c in facts.columns if _is_pure_number(c) and c.name not in taken), None)
    if redshift is None:
        raise ValueError("there is no column that could be a redshift")
    changes: dict[str, Any] = {"ids": (), "cuts": {}, "ra": None, "dec": None, "redshift": redshift}
    chosen: Sequence[slice] = facts.sampled[:: max(len(facts.sampled) // _PLACES, 1)]
    parts = [calibrated.read(facts.location, rows, survey.model_copy(update=changes), {})[0] for rows in chosen]
    sample = {name: np.concatenate([part[name] for part in parts]) for name in ("flux", "sigma", "mask", "redshift")}
    return sample if survey.redshift else {**sample, "redshift": np.full(len(sample["flux"]), np.nan)}


def _is_pure_number(column: Column) -> bool:
    return column.is_number and not column.width and column.unit is None
