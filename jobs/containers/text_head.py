"""The head of a table of text: its bytes in; names and units of columns, what parts them, and where the rows begin, out.

Known are: a line of names, or a comment of them (``# id ra dec``), below any comments; SExtractor's numbered comments; a line of
units and one of dashes below the names, as VizieR and psql write. Names may be parted by tabs, commas, semicolons, bars or blanks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest

from jobs.containers import units
from storage_schemas.backend.printable import shortened

BLANKS = " "
#: What writers put where a number, or a name, is missing, beside what Arrow knows.
NULLS = ("", "-", "--", "---", "...", "null", "NULL", "Null", "None", "nan", "NaN", "NAN", "-nan", "-NaN", "NA", "N/A", "n/a",
         "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "<NA>", "INDEF", r"\N")  # fmt: skip
_SEPARATORS = ("\t", ",", ";", "|")
_OF_ENDINGS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
_SAMPLE = 20
_MOST_HEAD_LINES = 10_000
_NUMBERED = re.compile(r"#\s*(\d+)\s+(\S+)(.*)")
_UNIT = re.compile(r".*\[([^\[\]]*)\]\s*")
_RULE = re.compile(r"[-+=|;,\s]*-{2}[-+=|;,\s]*")
#: What is no row of missing values: joints, or a run of dashes that is no word for a missing number.
_SURE_RULE = re.compile(r".*(-\+-|-{4}).*")


@dataclass
class Head:
    """What stands above the rows: names, units by name, the separator (`BLANKS` for any run of them), where rows begin.

    ``commented``: comments stand above the rows. ``padded``: blanks beside separators are no part of a value.
    """

    names: list[str]
    separator: str
    start: int
    units: dict[str, str] = field(default_factory=dict)
    commented: bool = False
    padded: bool = False


@dataclass(frozen=True)
class _Line:
    text: str
    start: int
    end: int


def read(content: bytes, name: str, title: str) -> Head:
    """Read the head of a table whose file has some name.

    Raises:
        ValueError: there are no names of columns; says what stands there instead.
    """
    try:
        return _read(content, name, title)
    except csv.Error as error:  # quotes without an end
        raise ValueError(f"{title}: its first lines are no table of text: {shortened(error)}") from error


def _read(content: bytes, name: str, title: str) -> Head:
    comments: list[_Line] = []
    lines = _lines(content)
    for line in lines:
        if not line.text.startswith("#"):
            break
        comments.append(line)
    else:
        line = _Line("", len(content), len(content))
    sample = [line, *(other for other, _ in zip(lines, range(_SAMPLE), strict=False))]
    rows = [other.text for other in sample if not other.text.startswith("#")]
    if numbered := _sextractor([one.text for one in comments]):
        return Head(list(numbered), BLANKS, line.start, {n: u for n, u in numbered.items() if u}, commented=True)
    separator = _separator(rows or [comments[-1].text if comments else ""], name)
    cells = split(line.text, separator)
    if not line.text or any(map(_is_number, cells)):
        if named := _commented([one.text for one in comments], separator, len(cells) if line.text else None):
            head = _head(named[0], separator, line.start, named[1], commented=True)
            head.padded = separator == "|" or f"{separator} " in line.text
            return head
        if all(map(_is_number, cells)):
            raise ValueError(
                f"{title}: no line names its columns; its first row is {shortened(line.text)!r}. Write their names, parted as "
                "the rows are, into a first line"
            )
    return _below(content, sample, separator, bool(comments))


def split(text: str, separator: str) -> list[str]:
    """Return the values of a line, without blanks about them."""
    blanks = separator == BLANKS
    row = next(
        csv.reader([text.replace("\t", " ").strip() if blanks else text], delimiter=separator, skipinitialspace=blanks),
        [],
    )
    return [value.strip() for value in row]


def _below(content: bytes, sample: Sequence[_Line], separator: str, commented: bool) -> Head:
    """The head where a line of names begins what is no comment; units and a rule may follow it."""
    line = sample[0]
    records = csv.reader(_texts(content, line.start), delimiter=separator, skipinitialspace=separator == BLANKS)
    raw = next(records, []) if separator != BLANKS else split(line.text, separator)
    start = line.end if separator == BLANKS else _after(content, line.start, records.line_num)
    places = [other for other in sample[1:] if other.start >= start]
    rest = [other.text for other in places]
    stated: list[str] = []
    if places and separator != "," and _is_rule(0, rest, raw, separator):
        start = places[0].end
    elif len(places) > 1 and _is_rule(1, rest, raw, separator) and _are_units(split(rest[0], separator)):
        stated, start = split(rest[0], separator), places[1].end
    head = _head([name.strip() for name in raw], separator, start, stated, commented)
    head.padded = separator == "|" or any(name != name.lstrip() for name in raw[1:])
    return head


def _is_rule(at: int, lines: Sequence[str], names: Sequence[str], separator: str) -> bool:
    """Whether a line below the names, directly or below units, is dashes under them, and no row of missing values.

    What could be either is a rule if its dashes are as wide as the columns; directly below the names three of them are one.
    """
    if not _RULE.fullmatch(lines[at]):
        return False
    runs = [len(cell) for cell in split(lines[at], separator)]
    if _SURE_RULE.fullmatch(lines[at]) or (not at and min(runs) >= len("---")):
        return True
    table = [list(names), *(split(line, separator) for i, line in enumerate(lines) if i != at)]
    return runs == [max(len(cell.strip()) for cell in column) for column in zip_longest(*table, fillvalue="")]


def _are_units(cells: Sequence[str]) -> bool:
    """Whether cells above a rule may be units: none is a number, and they do not say that something is missing."""
    return not any(map(_is_value, cells)) and (not any(cells) or not all(cell in NULLS for cell in cells))


def _head(names: list[str], separator: str, start: int, stated: Sequence[str], commented: bool) -> Head:
    found = dict(zip(names, stated, strict=False))
    return Head(names, separator, start, {name: unit for name, unit in found.items() if unit not in NULLS}, commented)


def _lines(content: bytes) -> Iterator[_Line]:
    """The first lines that are not blank."""
    at = len(b"\xef\xbb\xbf") if content.startswith(b"\xef\xbb\xbf") else 0
    for _ in range(_MOST_HEAD_LINES):
        if at >= len(content):
            return
        end = content.find(b"\n", at) + 1 or len(content)
        text = content[at:end].decode("utf-8", "replace").strip("\r\n")
        if text.strip():
            yield _Line(text, at, end)
        at = end


def _texts(content: bytes, start: int) -> Iterator[str]:
    while start < len(content):
        end = content.find(b"\n", start) + 1 or len(content)
        yield content[start:end].decode("utf-8", "replace")
        start = end


def _after(content: bytes, start: int, n_lines: int) -> int:
    for _ in range(n_lines):
        start = content.find(b"\n", start) + 1 or len(content)
    return start


def _separator(rows: Sequence[str], name: str) -> str:
    """What parts the values of lines: the one that the file's name says, if it does, or else one that parts all lines alike."""
    said = next((one for ending, one in _OF_ENDINGS.items() if name.lower().removesuffix(".gz").endswith(ending)), None)
    if said and said in rows[0]:
        return said
    for separator in _SEPARATORS:
        if separator not in rows[0]:
            continue
        counts = {len(split(row, separator)) for row in rows if not _RULE.fullmatch(row)}
        empty = separator == "\t" and "" in split(rows[0], separator)
        if len(counts) == 1 and not empty:
            return separator
    return said if said and len(rows[0].split()) == 1 else BLANKS


def _commented(comments: Sequence[str], separator: str, n: int | None) -> tuple[list[str], list[str]] | None:
    """Names, and units, that stand in comments: the last line of as many words as there are columns, and no two alike."""
    found: tuple[list[str], list[str]] | None = None
    for comment in comments:
        text = comment.lstrip("#").strip()
        for one in dict.fromkeys((separator, BLANKS)):
            cells = split(text, one)
            if (n is None and not cells) or (n is not None and len(cells) != n):
                continue
            if found and not found[1] and all(map(_is_unit, cells)):
                found = found[0], cells
            elif len(set(cells)) == len(cells) and not any(map(_is_number, cells)):
                found = cells, []
            break
    return found


def _sextractor(comments: Sequence[str]) -> dict[str, str]:
    """Names and units of SExtractor's header, ``#   5 MAG_APER  text  [mag]``; a vector has the numbers up to the next."""
    numbered = [found for found in map(_NUMBERED.fullmatch, comments) if found]
    places = [int(found[1]) for found in numbered]
    if not places or places[0] != 1 or any(b <= a for a, b in pairwise(places)):
        return {}
    names: dict[str, str] = {}
    for found, place, after in zip(numbered, places, [*places[1:], places[-1] + 1], strict=True):
        unit = _UNIT.fullmatch(found[3])
        for entry in range(after - place):
            names[f"{found[2]}_{entry}" if entry else found[2]] = unit[1].strip() if unit else ""
    return names


def _is_number(text: str) -> bool:
    """Whether a cell is a number, or stands for one that is missing."""
    return bool(text) and (text in NULLS or _is_value(text))


def _is_value(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which is Python's 1_000, and nobody else's


def _is_unit(text: str) -> bool:
    try:
        units.parse(text.strip("[]()"))
    except ValueError:
        return False
    return True
