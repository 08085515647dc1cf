"""Write the pages that follow from the code: run file, flags and data model. A test compares them with the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from cluster.settings import Engines, Sizes
from jobs.columns import INFERRED
from jobs.config.joining import Join
from jobs.config.run_file import RunFile
from jobs.export.rows import BAND_COLUMNS, ROW_COLUMNS, SUMMARIES, exported
from sedflow_dist.flow.head_training import HeadSettings
from sedflow_dist.inference.redshift_prior import RedshiftTable
from sedflow_dist.inference.summary import COLUMNS, METHODS
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.photometry import flags
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.survey import Footprint, Survey
from sedflow_dist.photometry.surveys import SURVEYS
from sedflow_dist.sps import derived
from sedflow_dist.sps.components import Composition
from storage_schemas import photometry
from storage_schemas.backend.arrays import VERSION
from storage_schemas.catalog import schema as catalog

#: Bytes stored per galaxy: `sedflow catalog show --sizes` of 600 galaxies of the SDSS sample in one shard.
SIZES = {
    "quantiles": 489.4, "mean": 98.9, "std": 97.8, "effective_fraction": 4.8, "log_evidence": 4.9,
    "log_evidence_error": 4.8, "pareto_k": 5.0, "effective_draws": 4.8, "chi2": 5.0, "p_value": 4.9, "rhat": 1.5,
    "n_bands": 1.3, "method": 1.6, "flux": 19.6, "sigma": 19.6, "mask": 1.3, "redshift": 5.0, "flags": 1.6, "ra":
    8.3, "dec": 9.0, "healpix_29": 9.4, "input_file": 1.3, "input_row": 2.9,
}  # fmt: skip


def run_file_page() -> str:
    """Return a table of every key of a run file."""
    about = "YAML 1.2 (`on`, `no` and `12:30` are words); unknown keys are refused."
    lines = ["# The run file", "", f"{about} Generated from the code by `docs/generate.py`."]
    sections: list[tuple[str, type[BaseModel]]] = [("Top level", RunFile)]
    sections += [one for one in _sections(RunFile, "") if not one[0].startswith("engines")]
    sections += [("engines", Sizes), *_sections(Sizes, "engines.")]
    sections.append(("photo_z, where redshifts are inferred (docs/photo-z.md)", HeadSettings))
    sections.append(("inference.prior.redshift, where it is a table (docs/priors.md)", RedshiftTable))
    sections.append(("join, where a table is joined (docs/remote.md)", Join))
    sections.append(("survey, where it is declared in the run file", Survey))
    sections += [("survey.footprints, each", Footprint), ("survey.cuts, each", Cut)]
    sections += [(f"profile: {name}", model) for name, model in _sections(Engines, "")]
    for title, model in sections:
        lines += ["", f"## {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, field in model.model_fields.items():
            if isinstance(field.default, BaseModel):
                about = field.description or (type(field.default).__doc__ or "").partition("\n")[0]
                lines.append(f"| `{key}` | section | | {about} |")
                continue
            if not field.description:
                raise ValueError(f"{title}: {key} is not explained")
            plain = _plain(field.annotation)
            parts = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
            lines.append(f"| `{key}` | {' or '.join(map(_kind, parts))} | {_default(field)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _kind(plain: Any) -> str:
    """Return a type in words."""
    text = "None" if plain is NoneType else str(plain if get_args(plain) else plain.__name__)
    text = re.sub(r"\b(?:typing|sedflow_dist)\.(?:\w+\.)*", "", text).replace("|", "or")
    return re.sub(r"Literal\[(.*?)\]", r"one of \1", text)


def _plain(annotation: Any) -> Any:
    """Return a type without what its text must look like."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain(arguments[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(_plain, arguments))
    return origin[tuple(map(_plain, arguments))] if origin in (tuple, dict) else annotation


def _sections(model: type[BaseModel], prefix: str) -> list[tuple[str, type[BaseModel]]]:
    """Return the sections of a model, and theirs, each after the one that it is part of."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            found += [(prefix + name, type(field.default)), *_sections(type(field.default), f"{prefix}{name}.")]
    return found


def flags_page() -> str:
    """Return the table of flags."""
    lines = ["# Flags", "", "Bits of a row's `flags`. Generated from the code by `docs/generate.py`.", ""]
    return "\n".join([*lines, *_flags()]) + "\n"


def _flags() -> list[str]:
    return _table(("bit", "name", "meaning"), [(int(f), f.name, flags.DESCRIPTIONS[f]) for f in flags.Flag])


def data_model_page() -> str:
    """Return every array of a posterior catalog, and every column of its exports."""
    specs = catalog.arrays(INFERRED, {"ID": "int64, uint64 or string"})
    lines = [
        "# The posterior catalog",
        "",
        f"Version {VERSION} of the schema (attribute `sedflow_version`). Generated from the code by `docs/generate.py`; a test",
        "compares it with the code and with a catalog. How to open, query and export one: [querying](query.md).",
        "",
        "An Icechunk repository, that is a Zarr v3 group with history. One row a galaxy; a row without an answer is NaN and",
        "flagged. `ID` stands for the survey's own identifiers under their own names, in the group `ids` (characters other",
        "than letters, digits and `_.-` as `=` and their bytes in hexadecimal). `open_catalog` and exports use these names,",
        "or `id_NAME` where NAME, in upper or lower case, is already something of the catalog's; the Dataset's attribute",
        "`id_variables` tells. A missing identifier is 0 or empty, bears the flag `NO_ID`, and `id_missing` says which it is.",
        "",
        "## Arrays",
        "",
    ]
    lines += _table(
        ("name", "dimensions", "type", "unit", "UCD", "bytes a galaxy on disk", "meaning"),
        [
            (f"`{s.name}`", ", ".join(s.dims), s.dtype, "" if s.units == "1" else s.units, s.ucd,
             SIZES.get(s.name, ""), s.long_name.partition(": {")[0])
            for s in specs
        ],
    )  # fmt: skip
    optional = [f"`{column.name}` where `inference.{column.asked}` asks for it" for column in COLUMNS if column.asked]
    sigma = photometry.REDSHIFT_SIGMA
    optional.append(
        f"`{sigma.name}` (galaxy, {sigma.dtype}: {sigma.long_name}) where the input has errors of redshifts; exports have it, too"
    )
    lines += ["", f"Not in every catalog: {', '.join(optional)}."]
    lines += [
        "",
        f"Altogether {sum(SIZES.values()):.0f} bytes a galaxy, without identifiers: `sedflow catalog show --sizes` of 600",
        "galaxies of the SDSS sample answered by the shipped model. Kept draws (`keep_draws`, none by default) add 22",
        "bytes each before compression; any number can be replayed without them (`sedflow catalog draws`).",
        "",
        "## Beside the rows",
        "",
    ]
    specs = (*catalog.SHARD_ARRAYS, catalog.WEIGHTS)
    beside = [(f"`{s.name}`", ", ".join(s.dims), s.dtype, s.long_name) for s in specs]
    beside += [(f"`{name}`", name, "", meaning) for name, meaning in catalog.COORDINATES.items()]
    beside += [
        ("`model_weights`", "byte", "uint8", "the model's weights (safetensors); its attribute `spec` is the rest")
    ]
    lines += _table(("name", "dimensions", "type", "meaning"), beside)
    lines += ["", "Attributes:", ""]
    lines += _table(
        ("attribute", "meaning"), [(f"`{name}`", text) for name, text in sorted(catalog.ATTRIBUTES.items())]
    )
    lines += ["", "## Parameters and properties", "", "The coordinate `param`, for the bands u, g, r, i, z:", ""]
    lines += quantities(Composition.of().space, "ugriz")
    lines += ["", "After them those that the run file chooses: [columns of one's choice](columns.md)."]
    lines += ["", "## How a row was answered (`method`)", ""]
    lines += _table(("method", "meaning"), [(int(method), name) for method, name in METHODS.items()])
    lines += ["", "## Bits of `flags`", "", *_flags(), "", "## Columns of an export", ""]
    lines += [
        "In Parquet, CSV and HATS under these names, in FITS in upper case. First the identifiers (missing ones are null: in",
        "FITS -2^63, of unsigned numbers 2^64 - 1, as `TNULLn` says, or empty), then",
        "",
        ", ".join(f"`{exported(name)}`" for name in ROW_COLUMNS) + ",",
        "",
        "as the arrays above, of each band "
        + ", ".join(f"`{name}_{{band}}`" for name in BAND_COLUMNS)
        + " where the catalog has them, and of each parameter and property:",
        "",
    ]
    lines += _table(
        ("column", "array", "UCD", "meaning"),
        [(f"`{{param}}_{s.ending}`", f"`{s.array}`", s.ucd.format("{ucd}"), s.meaning) for s in SUMMARIES],
    )
    return "\n".join(lines) + "\n"


def quantities(space: ParameterSpace, labels: Sequence[str]) -> list[str]:
    """Return a table of all parameters and derived properties for bands with these labels."""
    return _table(
        ("name", "unit", "UCD", "meaning"),
        [(f"`{q.name}`", "" if q.unit == "1" else q.unit, q.ucd, q.meaning) for q in derived.columns(space, labels)],
    )


def your_table_page() -> str:
    """Return the page as it is written, with the columns of the built-in surveys at its end."""
    written = (Path(__file__).parent / "your-table.md").read_text().partition(_COLUMNS)[0].rstrip()
    lines = ["", _COLUMNS, "", "Generated from the code by `docs/generate.py`; a column's name may be in another case."]
    for survey in SURVEYS.values():
        lines += ["", f"### {survey.name}", ""]
        rows: list[tuple[str, Sequence[object]]] = [
            ("bands", survey.bands), (f"flux [{survey.unit}]", survey.flux),
            ("inverse variance" if survey.error_kind == "ivar" else "uncertainty", survey.error),
            (f"Galactic extinction ({survey.extinction_kind})", survey.extinction or ()),
            ("band unusable where set", survey.band_flags or ()),
            ("footprint", [rule.column for part in survey.footprints.values() for rule in part.rows]),
            ("quality cuts", [cut.column for cut in survey.cuts.values()]),
            ("redshift", [survey.redshift] if survey.redshift else [_no_redshift(survey)]),
            ("position", [name for name in (survey.ra, survey.dec) if name]), ("identifiers", survey.ids),
        ]  # fmt: skip
        lines += _table(
            ("", "columns"),
            [(what, ", ".join(f"`{name}`" for name in dict.fromkeys(names))) for what, names in rows if names],
        )
    return written + "\n" + "\n".join(lines) + "\n"


def _no_redshift(survey: Survey) -> str:
    return "none: inferred, or named with --redshift" if survey.without_redshifts else "none: name one with --redshift"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default_factory is None else field.default_factory()
    return f"`{value!r}`"


_COLUMNS = "## Columns of the built-in surveys"
PAGES = {
    "run-file.md": run_file_page, "flags.md": flags_page, "data-model.md": data_model_page, "your-table.md": your_table_page,
}  # fmt: skip

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page())
