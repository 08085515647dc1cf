"""show: one row of a catalog in; its posterior, spectral energy distribution, star-formation history and flags out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from jobs.catalog.draws import drawn, engine
from jobs.export.whole import whole_file
from jobs.observed import names_of, observed
from jobs.report import pages
from jobs.report.pages import Number, Section, Table
from sedflow_dist.inference.summary import METHODS, Method
from sedflow_dist.photometry.flags import DESCRIPTIONS, Flag
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.validation import plots
from sedflow_dist.validation.galaxy import CORNER
from sedflow_dist.validation.galaxy import figure as galaxy_figure
from storage_schemas.backend.location import Location
from storage_schemas.backend.printable import shortened
from storage_schemas.catalog.query import id_variables
from storage_schemas.catalog.schema import open_catalog

if TYPE_CHECKING:
    import xarray as xr

_DRAWS = 4000
#: Edges of the bins of lookback time whose star-formation rates are drawn [Gyr].
HISTORY = (0.0, 0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.8)
ENDINGS = (".png", ".pdf", ".html")


@dataclass(frozen=True)
class Shown:
    """One galaxy: its figure, the rows of a table of its answer, and what each flag says."""

    title: str
    figure: Figure
    answer: Table
    flags: list[tuple[str, str]]


def row_of(catalog: xr.Dataset, text: str) -> int:
    """Return the row of an identifier; where several columns are one, ``NAME=VALUE,NAME=VALUE``.

    Raises:
        ValueError: the catalog has no identifiers, others, or no or several rows with this one.
    """
    variables = id_variables(catalog)
    if not variables:
        raise ValueError("this catalog has no identifiers; name a row by its number")
    parts = [text] if len(variables) == 1 else text.split(",")
    pairs = [part.partition("=")[::2] for part in parts if part.partition("=")[0] in variables]
    if len(pairs) != len(parts):
        if len(variables) > 1:
            example = ",".join(f"{name}=VALUE" for name in variables)
            raise ValueError(f"several columns are the identifier of this catalog; name them, as {shortened(example)}")
        pairs = [(next(iter(variables)), text)]
    wanted: dict[str, list[int] | list[str]] = {}
    for name, value in pairs:
        is_number = catalog[variables[name]].dtype.kind in "iu"
        if is_number and not value.removeprefix("-").isdecimal():
            raise ValueError(f"identifier {shortened(name)} is a whole number, not {shortened(value)!r}")
        wanted[name] = [int(value)] if is_number else [value]
    rows = catalog.sedflow.with_ids(**wanted)["galaxy"].values
    if len(rows) > 1:
        raise ValueError(f"{len(rows):,} rows have this identifier, the first ones {rows[:5].tolist()}: name a row")
    return int(rows[0])


def of_row(catalog: xr.Dataset, row: int) -> Shown:
    """Replay a row of a catalog that is open, and draw it.

    Raises:
        ValueError: the row does not exist or has no answer; says why.
    """
    has_properties = catalog.attrs["run"].get("certificate", True)
    history = HISTORY if has_properties else ()
    router = engine(catalog, more=Chosen(star_formation_history=history))
    (draws,) = drawn(catalog, router, [row], _DRAWS)
    part = catalog[[*names_of(catalog), *_TOLD]].isel(galaxy=slice(row, row + 1)).load()
    flags = [(str(flag.name), DESCRIPTIONS[flag]) for flag in Flag if int(part["flags"].values[0]) & flag]
    columns = router.posterior.columns
    corner = CORNER if has_properties else columns[: len(CORNER)]
    method = METHODS[Method(int(part["method"].values[0]))]
    words = [f"answered by: {method}", *(f"{name}: {meaning}" for name, meaning in flags)]
    title = f"galaxy {row}"
    figure = galaxy_figure(
        router.posterior.flow, draws, columns, observed(part), title, corner, history, words
    )  # fmt: skip
    return Shown(title, figure, _answer(catalog, part, row, method), flags)


_TOLD = ("method", "flags", "effective_fraction", "pareto_k", "chi2", "p_value")


def _answer(catalog: xr.Dataset, part: xr.Dataset, row: int, method: str) -> Table:
    """Identifiers, quality, and the interval of each parameter and property as it stands in the catalog."""
    ids = {name: str(catalog[variable].isel(galaxy=row).values) for name, variable in id_variables(catalog).items()}
    rows: list[tuple[object, ...]] = [("row", Number(row)), *ids.items(), ("answered by", method)]
    numbers = {name: float(part[name].values[0]) for name in ("redshift", *_TOLD[2:])}
    rows += [(name, Number(f"{value:.4g}" if math.isfinite(value) else "none")) for name, value in numbers.items()]
    quantiles = catalog["quantiles"].isel(galaxy=row).sel(quantile=[0.16, 0.5, 0.84], method="nearest").values
    units = catalog.attrs["param_units"]
    for name, unit, (low, middle, high) in zip(catalog["param"].values, units, quantiles, strict=True):
        interval = Number(f"{middle:.4g} (68 %: {low:.4g} to {high:.4g})")
        rows.append((f"{name}{'' if unit == '1' else f' [{unit}]'}", interval))
    return Table(("", ""), rows)


def show(
    source: Location, out: str, row: int | None = None, identifier: str | None = None, release: str = "main"
) -> int:
    """Write one galaxy of a catalog, named by its row or identifier, as a figure or a page; return its row.

    Raises:
        ValueError: there is no such row, it has no answer, or ``out`` ends otherwise than `ENDINGS`; says so.
    """
    ending = Path(out).suffix
    if ending not in ENDINGS:
        raise ValueError(f"{out} ends in {ending or 'nothing'}; allowed are {', '.join(ENDINGS)}")
    catalog = open_catalog(source, release)
    at = row if row is not None else row_of(catalog, identifier or "")
    found = of_row(catalog, at)
    with whole_file(out) as file:
        if ending == ".html":
            file.write(_page(found).encode())
        else:
            found.figure.savefig(file, format=ending[1:], dpi=120, bbox_inches="tight")
    plots.plt.close(found.figure)
    return at


def _page(found: Shown) -> str:
    """One page that needs no other file."""
    picture = io.BytesIO()
    found.figure.savefig(picture, format="png", dpi=100, bbox_inches="tight")
    sections: Sequence[Section] = (
        Section("Flags", "" if found.flags else "None.", Table(("flag", "what it says"), found.flags) if found.flags else None),
        Section("Answer", "Medians of the catalog, with their 68 % intervals.", found.answer),
    )  # fmt: skip
    return pages.one_file(found.title, base64.b64encode(picture.getvalue()).decode(), sections)
