"""A survey proposed for a table: facts in, the keys of a survey definition out, each with what only the user can know.

Nothing here is certain but that the columns are there: names are habits, units may be missing, filters are never stated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np

from jobs.containers import units
from jobs.ingest import column_names
from jobs.inspect import filter_names, photometry_columns
from jobs.inspect.photometry_columns import Family
from jobs.inspect.table_facts import Column, Facts
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from storage_schemas.backend.printable import shortened

#: Zero points of units of flux that tables have without saying so, likeliest first.
_ZERO_POINTS = {
    "nanomaggy": 22.5,
    "uJy": 23.9,
    "nJy": 31.4,
    "mJy": 16.4,
    "Jy": 8.9,
    "maggy": 0.0,
    "erg / (s cm2 Hz)": -48.6,
}
_FAINTEST, _BRIGHTEST = 29.0, 11.0  # medians of galaxies in a catalog [mag]
_DEFAULT_ERROR = 0.1
_SOFTENING = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10}
_CLASSES = ("star", "qso", "quasar", "agn", "s", "q")


@dataclass(frozen=True)
class Proposal:
    """Keys of a survey, in their order, and by key what is to be said of them; ``asks`` are what only the user can know."""

    keys: dict[str, Any]
    said: dict[str, list[str]] = field(default_factory=dict)
    asks: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, *said: str) -> None:
        """Add a key, with what is to be said of it."""
        self.keys[key] = value
        self.said[key] = list(said)


def propose(facts: Facts, name: str) -> Proposal | None:
    """Propose a survey for a table; None where no photometry is recognised."""
    widths = {column.name: column.width for column in facts.columns if column.width}
    readable = [column.name for column in facts.columns if column.is_number]
    found = [chosen for family in photometry_columns.families(readable, widths) if (chosen := _usable(family, facts))]
    if not found:
        return None
    family = min(
        found, key=lambda family: (len(family.columns) < MINIMUM_BANDS, _unit_rank(family, facts), *family.rank)
    )
    out = Proposal({})
    out.put("name", re.sub(r"\W+", "-", name).strip("-").lower() or "mine")
    _bands(out, family, facts)
    _unit(out, family, facts)
    _codes(out, family, facts)
    _extinction(out, family, readable, widths)
    _others(out, family, facts)
    if others := [one for one in found if one is not family]:
        names = [next(iter(one.columns.values())) for one in others[:6]]
        out.asks.append(
            f"the table has other photometry too: {', '.join(names)}, ... Which has all of a galaxy's light?"
        )
    return out


def _usable(family: Family, facts: Facts) -> Family | None:
    """The bands of a family whose filter is known and that hold numbers; those with errors, where enough have them."""
    filters = filter_names.of(family)
    columns = {band: name for band, name in family.columns.items() if filters.get(band) and len(_values(facts, name))}
    with_errors = {band: name for band, name in columns.items() if band in family.errors}
    if len(with_errors) >= MINIMUM_BANDS:
        columns = with_errors
    kind = family.kind or ("magnitude" if _are_magnitudes(columns.values(), facts) else "flux")
    lost = {band: name for band, name in family.columns.items() if band not in columns}
    if not columns:
        return None
    errors = {band: family.errors[band] for band in columns if band in family.errors}
    return Family(family.words, kind, columns, errors, family.error_kind, family.instruments, {**family.others, **lost})


def _values(facts: Facts, address: str) -> np.ndarray:
    """Finite sampled values of a column, or of an entry of a vector."""
    column, entry = _column(facts, address)
    return column.of(entry)


def _column(facts: Facts, address: str) -> tuple[Column, int | None]:
    if address in facts.names:
        return facts.column(address), None
    match = photometry_columns.INDEXED.fullmatch(address)
    if match is None:
        raise ValueError(f"{facts.location} has no column {address}")
    return facts.column(match[1]), int(match[2])


def _are_magnitudes(names: Any, facts: Facts) -> bool:
    medians = [float(np.median(values)) for name in names if len(values := _values(facts, name))]
    return bool(medians) and all(8 < median < 35 for median in medians)


def _stated(family: Family, facts: Facts) -> str | None:
    return _column(facts, next(iter(family.columns.values())))[0].unit


def _unit_rank(family: Family, facts: Facts) -> int:
    """Fluxes in a known unit before magnitudes before fluxes in an unknown one."""
    if family.kind == "magnitude":
        return 1
    return 0 if _stated(family, facts) or filter_names.unit(family) else 2


def _bands(out: Proposal, family: Family, facts: Facts) -> None:
    filters = filter_names.of(family)
    out.put("bands", [filters[band] for band in family.columns], filter_names.doubt(family))
    if len(family.columns) < MINIMUM_BANDS:
        out.asks.append(
            f"a survey needs {MINIMUM_BANDS} bands, and only these are known: add others by their response curves"
        )
    out.put("labels", list(family.columns))
    out.put("flux", list(family.columns.values()))
    if family.others:
        out.said["flux"].append(
            "not taken: "
            + ", ".join(family.others.values())
            + " (no error, no value, or a filter that speclite lacks: such bands "
            "are given by a response curve, docs/run-file.md)"
        )
    if family.errors:
        out.put("error", [family.errors.get(band) for band in family.columns])
        out.put("error_kind", family.error_kind)
    if len(family.errors) < len(family.columns):
        ask = "the table has no errors of some bands: a tenth of the flux is assumed. How good are they?"
        out.put("error_fraction", _DEFAULT_ERROR, f"ASK: {ask}")
        out.asks.append(ask)


def _unit(out: Proposal, family: Family, facts: Facts) -> None:
    stated = _stated(family, facts)
    if family.kind == "magnitude":
        system = "AB is assumed; of Vega magnitudes say `system: Vega`, and ab_offset: what is added in each band to make them AB"
        out.put("unit", "mag", system)
        if filter_names.is_sdss(family) and all(band in _SOFTENING for band in family.columns):
            said = "SDSS's own magnitudes are asinh magnitudes (luptitudes); leave it out where they are not"
            out.put("softening", [_SOFTENING[band] for band in family.columns], said)
        return
    kind = _kind_of_unit(stated)
    if kind == "flux":
        out.put("unit", "nanomaggy", f"the file states {stated}, which is converted")
        return
    if usual := filter_names.unit(family):
        out.put("unit", usual, "the file states none; it is the usual one of columns with these names")
        return
    if kind == "counts":
        ask = f"the file states {stated}: of which magnitude is one count? 25.0 stands for that"
        out.put("zero_point", 25.0, f"ASK: {ask}")
    else:
        guess = _guessed(family, facts)
        ask = (
            f"no unit is stated: {guess} is a guess. In which unit are these fluxes? Counts have a `zero_point` instead"
        )
        out.put("unit", guess, f"ASK: {ask}")
    out.asks.append(ask)


def _kind_of_unit(stated: str | None) -> str:
    """Whether a stated unit is one of fluxes, of counts, or none that is known."""
    try:
        unit = units.parse(stated)
    except ValueError:
        return ""
    if unit is None:
        return ""
    per_wavelength = u.spectral_density(5000 * u.AA)
    fluxes = any(unit.is_equivalent(one, per_wavelength) for one in (u.Jy, u.Unit("nmgy")))
    return (
        "flux" if fluxes else "counts" if any(unit.is_equivalent(one) for one in (u.count, u.adu, u.electron)) else ""
    )


def _guessed(family: Family, facts: Facts) -> str:
    """The first usual unit in which the medians of fluxes are those of galaxies."""
    values = [_values(facts, name) for name in family.columns.values()]
    medians = np.array([np.median(found[found > 0]) for found in values if (found > 0).any()])
    for unit, zero_point in _ZERO_POINTS.items():
        if (
            len(medians)
            and np.all((found := zero_point - 2.5 * np.log10(medians)) > _BRIGHTEST)
            and np.all(found < _FAINTEST)
        ):
            return unit
    return "nanomaggy"


def _codes(out: Proposal, family: Family, facts: Facts) -> None:
    """Numbers that stand for no value."""
    found: dict[str, list[float]] = {}
    for what, names in (("flux", family.columns.values()), ("error", family.errors.values())):
        codes = {code for name in names for code, _ in _column(facts, name)[0].sentinels}
        found[what] = sorted(codes)
    if found["flux"]:
        out.put(
            "not_observed", found["flux"],
            "of a magnitude 99 may also say: not detected; then `not_detected: [99.0]`, and `limits` of the bands",
        )  # fmt: skip
    zeros = family.error_kind == "ivar" and any((_values(facts, name) == 0).any() for name in family.errors.values())
    if zeros:
        out.put("no_data", 0.0, "an inverse variance of 0 says: not observed")
    elif found["error"] and not found["flux"]:
        out.put("no_data", found["error"][0])


def _extinction(out: Proposal, family: Family, names: Sequence[str], widths: Mapping[str, int]) -> None:
    for words, kind in (
        (("mw", "transmission"), "transmission"),
        (("extinction",), "magnitude"),
        (("a",), "magnitude"),
    ):
        columns = photometry_columns.of_band(names, words, widths)
        if all(band in columns for band in family.columns) and "dered" not in family.words:
            said = "fluxes are corrected by these: leave it out where they are corrected already"
            out.put("extinction", [columns[band] for band in family.columns], said)
            out.put("extinction_kind", kind)
            return
    ebv = [
        name for name in names if re.sub(r"[^a-z]", "", name.lower()) in ("ebv", "sfdebv", "ebvsfd", "mwebv", "ebvmw")
    ]
    said = (
        f"{ebv[0]} is there: `extinction` with extinction_kind ebv corrects by it"
        if ebv
        else "`extinction` names columns"
    )
    out.asks.append(f"are the fluxes corrected for Galactic extinction? They are taken as corrected ({said})")


def _others(out: Proposal, family: Family, facts: Facts) -> None:
    """Redshift, positions, identifiers, classes; the band of the selection."""
    numbers = {column.name: column for column in facts.columns if column.is_number and not column.width}
    redshifts = redshifts_of(facts, (*family.columns.values(), *family.errors.values()))
    more = f"also there: {', '.join(redshifts[1:6])}" if len(redshifts) > 1 else ""
    out.put("redshift", redshifts[0] if redshifts else None, *filter(None, [more]))
    if redshifts and not column_names.says_redshift(redshifts[0]):
        out.asks.append(f"is {shortened(redshifts[0])} the redshift?")
    if not redshifts:
        ask = "no column looks like a redshift: name it here or with --redshift; where it stands in another table, join that"
        out.said["redshift"] = [f"ASK: {ask}"]
        out.asks.append(ask)
    places = [pair for pair in column_names.positions(numbers) if _is_position(*(numbers[name] for name in pair))]
    said = [f"also there: {', '.join(map(' and '.join, places[1:4]))}"] if len(places) > 1 else []
    out.put("ra", places[0][0] if places else None, *said)
    out.put("dec", places[0][1] if places else None)
    if not places:
        out.asks.append(
            "no columns look like positions: without them rows cannot be found by a cone, nor ordered on the sky"
        )
    if ids := _ids(facts):
        out.put("ids", ids)
    else:
        out.asks.append("no column tells rows apart: duplicates are found by position and fluxes")
    if stars := _stars(facts):
        out.put("cuts", {"not_a_galaxy": stars}, "stars and QSOs are flagged, and take no place from galaxies in MCMC")
    labels = list(family.columns)
    out.put("selection_band", next((band for band in ("r", "i") if band in labels), labels[len(labels) // 2]))
    if set(labels) - set("ugriz"):
        out.put("colour_limits", [-2.0, 7.0], "of neighbouring bands, beyond which a row is flagged as absurd")


def redshifts_of(facts: Facts, taken: Collection[str] = ()) -> list[str]:
    """Return columns that look like redshifts, by name and by value, likeliest first; none of those ``taken``."""
    numbers = {column.name: column for column in facts.columns if column.is_number and not column.width}
    return [name for name in column_names.redshifts(facts.names) if name not in taken and name in numbers
            and _is_redshift(numbers[name])]  # fmt: skip


def _is_redshift(column: Column) -> bool:
    values = column.of(None)
    return (
        bool(len(values))
        and 0 < float(np.median(values)) < 12
        and float(np.abs(values).max()) < 50
        and "int" not in column.kind
    )


def _is_position(ra: Column, dec: Column) -> bool:
    one, other = ra.of(None), dec.of(None)
    return bool(len(one)) and bool(np.abs(one).max() <= 360.0 and np.abs(other).max(initial=0.0) <= 90.0)


def _ids(facts: Facts) -> list[str]:
    """The first column that tells sampled rows apart, or several that do together."""
    kinds = {column.name: column for column in facts.columns if not column.width}
    names = [name for name in (*column_names.identifiers(kinds), "RELEASE", "release") if name in kinds]
    names = [name for name in names if kinds[name].kind == "text" or "int" in kinds[name].kind]
    for name in names:
        if kinds[name].different == facts.n_sampled:
            return [name]
    keys = [name for name in names if kinds[name].is_number and len(kinds[name].of(None)) == facts.n_sampled]
    if keys and len(np.unique(np.stack([kinds[name].of(None) for name in keys]), axis=1).T) == facts.n_sampled:
        return keys
    return []


def _stars(facts: Facts) -> dict[str, Any] | None:
    """A cut on a column of classes, of which some are no galaxies."""
    for column in facts.columns:
        classes = [text for text in column.texts if text.lower() in _CLASSES]
        if column.kind == "text" and classes and len(column.texts) > 1 and any(len(text) > 1 for text in classes):
            return {"column": column.name, "classes": classes, "not_a_galaxy": True}
    return None
