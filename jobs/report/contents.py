"""What each page of a report says: sums over a catalog's rows, its attributes, a run's records in; pages out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jobs.report import counted
from jobs.report.calibration import judged
from jobs.report.pages import Number, Page, Section, Table
from jobs.report.plans import Plan
from jobs.report.sums import REASONS, Sums
from jobs.telemetry.events import Record
from sedflow_dist.inference.summary import METHODS, Method
from sedflow_dist.photometry.flags import DESCRIPTIONS, Flag, names
from storage_schemas.catalog.query import id_variables

if TYPE_CHECKING:
    import xarray as xr

_WHY = {
    "chi2": "Greatest chi^2 of the best draw", "effective_fraction": "Lowest effective fraction",
    "pareto_k": "Greatest Pareto k", "none": "No answer",
}  # fmt: skip
_LONGEST = 10_000  # characters of a setting that are shown
_COMMITS = 50


def what_was_run(
    about: Mapping[str, str], catalog: xr.Dataset, spec: Mapping[str, Any], history: Sequence[Sequence[str]],
    stages: Mapping[str, Record], run_file: Mapping[str, Any] | None,
) -> Page:  # fmt: skip
    """Return the page of versions, identities, settings, releases and, of a run, its stages."""
    run = dict(catalog.attrs["run"])
    photometry = run.pop("photometry", {})
    sections = [Section("What this is", table=Table(("", ""), list(about.items())))]
    if stages:
        rows = [
            (record.stage, record.state, f"{record.started:%Y-%m-%d %H:%M:%S}", round(record.seconds, 1), record.rows,
             record.chunks, record.retries, record.version, record.error or "")
            for record in sorted(stages.values(), key=lambda record: record.started)
        ]  # fmt: skip
        head = ("stage", "state", "began (UTC)", "seconds", "rows", "chunks", "retries", "version", "error")
        sections.append(Section("Stages, as they were last run", table=Table(head, _with_commas(rows))))
    sections.append(
        Section(
            "Releases and commits, newest first",
            table=Table(("snapshot", "when", "release", "what"), history[:_COMMITS]),
        )
    )
    parts = {"Settings of the inference": run, "Photometry": photometry, "Model": spec, "Run file": run_file or {}}
    for title, content in parts.items():
        if content:
            sections.append(Section(title, table=Table(("setting", "value"), list(_flat(content)))))
    return Page("index", "What was run", sections)


def _flat(content: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings of nested dictionaries by their names with dots between; lists as JSON."""
    if isinstance(content, Mapping) and content:
        for key, inner in content.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
        yield name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


def input_and_flags(sums: Sums, plan: Plan, named: Mapping[str, str]) -> Page:
    """Return the page of rows by flag."""
    rows = [
        (str(flag.name), DESCRIPTIONS[flag], int(sums.flags[bit]), sums.flags[bit] / max(sums.rows, 1))
        for bit, flag in ((int(flag).bit_length() - 1, flag) for flag in Flag) if sums.flags[bit]
    ]  # fmt: skip
    table = Table(("flag", "what it says", "rows", "share"), _with_commas(rows))
    charts = [counted.shares(sums, plan, named, by)[1] for by in plan.by]
    text = f"{sums.rows:,} rows came in, and each has a row in the catalog. A row may bear several flags."
    return Page(
        "flags",
        "Input and flags",
        [Section("What each flag says", text, table), Section("Where they are", charts=charts)],
    )


def certificate(sums: Sums, plan: Plan, named: Mapping[str, str]) -> Page:
    """Return the page of how rows were answered, and how well."""
    rows = [(METHODS[method], int(sums.methods[method]), sums.methods[method] / max(sums.rows, 1)) for method in Method]
    table = Table(("answered by", "rows", "share"), _with_commas([row for row in rows if row[1]]))
    text = (
        "The effective fraction says how much of its draws a row's answer is worth; above a Pareto k of 0.7 the weights are not "
        "to be trusted; the best draw's chi^2 says whether any model fits."
    )
    return Page("certificate", "Certificate", [
        Section("Methods", table=table, charts=[counted.shares(sums, plan, named, by)[0] for by in plan.by]),
        Section("Weights and fits", text, charts=counted.densities(sums, plan, named, counted.CERTIFICATE)),
    ])  # fmt: skip


def results(sums: Sums, plan: Plan, named: Mapping[str, str]) -> Page:
    """Return the page of what the galaxies are like."""
    charts = [*counted.densities(sums, plan, named, counted.RESULTS), counted.redshifts(sums, plan, named)]
    return Page("results", "Results", [Section("Medians of the posteriors", charts=charts)])


def sky(sums: Sums, plan: Plan) -> Page | None:
    """Return the page of maps; None where no row has a position."""
    charts = counted.sky(sums, plan)
    if not charts:
        return None
    lost = sums.rows - int(sums.sky["rows"].sum())
    text = f"HEALPix pixels of order {plan.order} (nested, ICRS), right ascension growing to the left."
    text += f" {lost:,} rows have no position." if lost else ""
    return Page("sky", "The sky", [Section("Maps", text, charts=charts)])


def calibration(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Page:
    """Return the page of a validation store."""
    found = judged(arrays)
    rows = [(what, n, p) for what, n, p in found.tests]
    text = (
        f"Simulated galaxies of known truth, answered by the model {about.get('model', 'unknown')}. Grey: where 99 % of calibrated "
        "posteriors stay. A p-value below 0.01 in more than one of a hundred tests says that they are not."
    )
    return Page("calibration", "Calibration", [
        Section("Coverage of the truth", text, charts=found.charts),
        Section("Tests of uniform ranks", table=Table(("test", "galaxies", "p-value"), _with_commas(rows))),
    ])  # fmt: skip


def worst(sums: Sums, catalog: xr.Dataset) -> Page:
    """Return the page of rows to look at."""
    sections = []
    variables = id_variables(catalog)
    for reason in (*REASONS, "none"):
        table_of = sums.worst.get(reason, pd.DataFrame())
        if not len(table_of):
            continue
        ids = {
            name: catalog[variable].isel(galaxy=table_of.index.to_numpy()).values
            for name, variable in variables.items()
        }
        head = (
            "row",
            *ids,
            "redshift",
            "magnitude",
            "effective fraction",
            "Pareto k",
            "chi^2",
            "p-value",
            "answered by",
            "flags",
        )
        rows = [
            (Number(row), *(str(values[i]) for values in ids.values()), *(float(v) for v in told[1:7]),
             METHODS[Method(told.method)], ", ".join(names(int(told.flags))))
            for i, (row, told) in enumerate(zip(table_of.index, table_of.itertuples(), strict=True))
        ]  # fmt: skip
        sections.append(Section(_WHY[reason], table=Table(head, _with_commas(rows))))
    return Page("worst", "Worst rows", sections)


def _with_commas(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Cells as they are shown: whole numbers with commas, others with four digits."""
    return [[_cell(cell) for cell in row] for row in rows]


def _cell(cell: object) -> object:
    if isinstance(cell, float | np.floating):
        return Number(f"{cell:.4g}" if np.isfinite(cell) else "")
    return Number(f"{cell:,}") if isinstance(cell, int | np.integer) else cell
