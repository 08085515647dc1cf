"""Units as people write them in catalogs, parsed by astropy; what it does not know is in a table of spellings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np

from jobs.containers.exact import plain_text
from storage_schemas.backend.printable import shortened

#: What writers put where there is no unit.
_ABSENT = {"", "-", "--", "---", "none", "null", "nan", "n/a", "na", "unknown", "undefined"}
#: Spellings that astropy does not know, and what they mean; in lower case, except that M is no m.
_WORDS = {
    "nanomaggies": "nmgy", "nanomaggie": "nmgy", "nanomaggys": "nmgy", "nmaggy": "nmgy", "nmaggies": "nmgy",
    "nanomgy": "nmgy", "maggies": "mgy", "maggie": "mgy", "maggys": "mgy",
    "janskys": "Jy", "janskies": "Jy", "jy": "Jy", "jansky": "Jy", "njy": "nJy", "ujy": "uJy", "mjy": "mJy", "kjy": "kJy",
    "picojy": "pJy", "nanojy": "nJy", "microjy": "uJy", "millijy": "mJy", "kilojy": "kJy", "megajy": "MJy",
    "picojanskys": "pJy", "nanojanskys": "nJy", "microjanskys": "uJy", "millijanskys": "mJy",
    "picojansky": "pJy", "microjansky": "uJy", "millijansky": "mJy", "nanojansky": "nJy",
    "nmgy": "nmgy", "nanomaggy": "nmgy", "mgy": "mgy", "maggy": "mgy", "deg": "deg", "rad": "rad", "arcsec": "arcsec",
    "mag": "mag", "counts": "count", "adus": "adu", "dn": "DN", "electrons": "electron",
    "degs": "deg", "degrees": "deg", "degree": "deg", "radians": "rad", "radian": "rad", "rads": "rad",
    "hourangles": "hourangle", "arcsecs": "arcsec", "arcseconds": "arcsec", "arcsecond": "arcsec", "asec": "arcsec",
    "arcmins": "arcmin", "arcminutes": "arcmin", "arcminute": "arcmin",
    "mags": "mag", "magnitude": "mag", "magnitudes": "mag",
    "abmag": "mag(AB)", "ab": "mag(AB)", "magab": "mag(AB)", "mag_ab": "mag(AB)", "ab_mag": "mag(AB)", "stmag": "mag(ST)",
    "vegamag": "mag",
    "dimensionless": "1", "unitless": "1", "redshift": "1",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d](?:[^\W\d]|_(?=[^\W\d]))*")
#: A logarithm to base ten as VOTables and CDS write it, ``[solMass]``, as FITS does, ``log(solMass)``, and as astropy does.
_LOGARITHM = re.compile(r"\[([^\[\]]+)\]|(?:log|log10|dex)\((.+)\)", re.IGNORECASE)
_LONGEST = 200
#: Keys, in lower case, under which writers put a column's unit among what they say of it.
_KEYS = ("unit", "units", "tunit")


def parse(text: str | None) -> u.UnitBase | u.FunctionUnitBase | None:
    """Return a unit as astropy's, or None where nothing is stated.

    >>> parse("nanomaggies"), parse("10-3 Jy"), parse("---")
    (Unit("nmgy"), Unit("0.001 Jy"), None)

    Raises:
        ValueError: it is no unit that astropy or the table of spellings here knows.
    """
    plain = (text or "").strip().strip("\0").strip()
    if plain.lower() in _ABSENT:
        return None
    if len(plain) > _LONGEST:
        raise ValueError("its unit is a long text and none that is known")
    if plain.lower() in ("ab", "ab mag", "mag ab"):  # astropy's AB is the flux density of magnitude 0
        plain = "mag(AB)"
    if logarithm := _LOGARITHM.fullmatch(plain):
        of = next(filter(None, logarithm.groups())).strip()
        plain = f"dex({'1' if of.lower() in _ABSENT else of})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for spelling in (plain, _WORD.sub(_astropys, plain)):
            try:
                unit = u.Unit(spelling, format="generic", parse_strict="raise")
            except (ValueError, TypeError, ArithmeticError, RecursionError):
                continue
            if isinstance(unit, u.FunctionUnitBase) or (np.isfinite(unit.scale) and unit.scale > 0):
                return unit
    raise ValueError(f"its unit {shortened(plain)!r} is none that is known")


def said(attributes: Mapping[Any, Any]) -> list[str]:
    """Return every unit that is among what a file says of a column; what is no text is one that nobody knows."""
    plain = sorted((plain_text(key), "" if value is None else plain_text(value)) for key, value in attributes.items())
    return [text for key, text in plain if key.lower() in _KEYS]


def agreed(texts: Iterable[str]) -> tuple[str | None, str | None]:
    """Return the unit that a file states of a column, maybe in several places; or why the column is not read.

    >>> agreed(["nJy", "nanojansky", ""]), agreed([])
    (('nJy', None), (None, None))
    """
    found = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if len(found) > 1 and not _alike(found):
        return found[0], f"has more than one unit in its file's metadata: {', '.join(map(shortened, found))}"
    return (found[0] if found else None), None


def _alike(texts: Sequence[str]) -> bool:
    """Whether units are one in several spellings."""
    try:
        first, *others = map(parse, texts)
    except ValueError:
        return False
    return first is not None and all(other == first for other in others)


def _astropys(word: re.Match[str]) -> str:
    text = word[0]
    if text.startswith("M") and text.lower() == "mjy":
        return text  # mega or milli
    return _WORDS.get(text.lower(), text)
