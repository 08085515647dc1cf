"""Response curves of bands that users bring: a file in, a curve with its content out, which goes where the file does not.

ECSV, VOTables such as the SVO filter profile service gives, and text in two columns. A model, a store or a job that names such a
band holds the whole curve, so that none depends on the file any more.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.io import votable
from astropy.table import Table
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_LARGEST_FILE = 16 << 20
_SAMPLES = 50_000
#: Fraction of the largest response below zero that is noise of a laboratory; it counts as none.
_NOISE = 0.01
#: How writers of text say the unit of wavelengths: in the name of the column.
_UNIT = re.compile(r"(?:\b|_)(nm|nanomet\w*|um|micron\w*|micromet\w*|aa|a|ang\w*)(?:\b|_)", re.IGNORECASE)
#: What files say of detectors; numbers are the SVO's.
_DETECTORS: dict[str, Literal["photon", "energy"]] = {
    "0": "energy", "energy": "energy", "energy counter": "energy", "bolometer": "energy",
    "1": "photon", "photon": "photon", "photon counter": "photon", "ccd": "photon",
}  # fmt: skip


class Curve(BaseModel):
    """The response of a band, linear between its samples and zero beyond; its scale does not matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    detector: Literal["photon", "energy"] = Field(
        "photon", description="what the response is per: a photon that comes in, or its energy"
    )
    wavelength: tuple[float, ...] = Field(min_length=2, max_length=_SAMPLES, description="A")
    response: tuple[float, ...] = Field(min_length=2, max_length=_SAMPLES)

    @model_validator(mode="after")
    def _check(self) -> Curve:
        lam, response = np.array(self.wavelength), np.array(self.response)
        if lam.shape != response.shape:
            raise ValueError(f"band {self.name}: {len(lam)} wavelengths and {len(response)} responses")
        if not (np.isfinite(lam).all() and np.isfinite(response).all()):
            raise ValueError(f"band {self.name}: a wavelength or a response is not finite")
        if not (lam[0] > 0 and np.all(np.diff(lam) > 0)):
            raise ValueError(f"band {self.name}: wavelengths are not positive and increasing")
        if not (np.all(response >= 0) and response.max() > 0):
            raise ValueError(f"band {self.name}: a response is negative, or none is positive")
        return self

    @cached_property
    def digest(self) -> str:
        """Hash of all that fluxes depend on: samples and detector."""
        content = np.array([self.wavelength, self.response], "<f8").tobytes()
        return hashlib.sha256(content + self.detector.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name} (curve {self.digest})"

    @classmethod
    def read(
        cls, path: Path, detector: Literal["photon", "energy"] | None = None, unit: str | None = None,
        name: str | None = None,
    ) -> Curve:  # fmt: skip
        """Read a curve: photon counter unless ``detector``, or the file, says otherwise.

        Args:
            unit: of the wavelengths, as astropy writes it; None: the file's, and angstroms where it states none
            name: None: the file's, without its ending

        Raises:
            ValueError: there is no such file, or it holds no response curve; says what was found.
        """
        try:
            lam, response, stated, found = _content(path)
            if detector and found and detector != found:
                raise ValueError(f"it says that its detector counts by {found}, and the run file says {detector}")
            lam, response = _cleaned(lam * _angstroms(unit, stated), response)
            return cls(
                name=name or path.stem, detector=detector or found or "photon", wavelength=tuple(lam.tolist()),
                response=tuple(response.tolist()),
            )  # fmt: skip
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{path} is no response curve: {said}") from None
        except ValueError as error:
            raise ValueError(f"{path} is no response curve: {error}") from None


def names(bands: Sequence[str | Curve]) -> list[str]:
    """Return how bands are called in messages and keys: a curve with the hash of its content."""
    return [str(band) for band in bands]


def of_json(bands: Sequence[Any]) -> list[str | Curve]:
    """Return bands as a store's or model's metadata hold them: names, and curves with their samples."""
    return [Curve.model_validate(band) if isinstance(band, Mapping) else band for band in bands]


def declared(entry: Any, folder: Path) -> Any:
    """Return a band as a survey declares it: the name of a `speclite` filter, or the curve of a file, read.

    Args:
        entry: a name, a path (it has a dot or a slash), or a mapping with ``file``; anything else comes back as it is
        folder: what paths are relative to

    Raises:
        ValueError: the file holds no curve; or a mapping has other keys.
    """
    if isinstance(entry, str) and ("/" in entry or "." in entry):
        entry = {"file": entry}
    if not (isinstance(entry, Mapping) and "file" in entry):
        return entry
    if unknown := set(entry) - {"file", "detector", "unit", "name"}:
        raise ValueError(f"a band of a file has no key {sorted(unknown)[0]!r}; it has file, detector, unit and name")
    texts = {key: value for key, value in entry.items() if value is not None}
    if wrong := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise ValueError(f"{wrong[0]} of a band is {texts[wrong[0]]!r:.60}; it is a text")
    if texts.get("detector", "photon") not in ("photon", "energy"):
        raise ValueError(f"detector of band {texts['file']} is {texts['detector']!r}; it counts photon or energy")
    if "://" in texts["file"]:
        raise ValueError(f"band {texts['file']}: curves are read from files here; copy it beside the run file")
    return Curve.read(folder / Path(texts.pop("file")).expanduser(), **texts)  # type: ignore[arg-type]


def _content(path: Path) -> tuple[np.ndarray, np.ndarray, str | None, Literal["photon", "energy"] | None]:
    """Wavelengths, responses, the unit that is stated of the former, and what is said of the detector."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"it has {path.stat().st_size:,} bytes; a curve has at most {_LARGEST_FILE:,}")
    start = path.read_bytes()[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()  # a mark that some editors write
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if start.startswith(b"<"):
                found = votable.parse_single_table(path)
                table, facts = found.to_table(), {param.name: param.value for param in found.params}
            else:
                table = Table.read(path, format="ascii.ecsv" if b"%ECSV" in start[:20] else "ascii")
                facts = table.meta
        except Exception:  # astropy's readers raise whatever they stumble over
            first = start.partition(b"\n")[0].decode("ascii", "backslashreplace")
            raise ValueError(
                f"it is no ECSV, no VOTable and no text in two columns, wavelength and response (it begins {first!r:.80})"
            ) from None
    lam, response = _columns(table)
    for column in (lam, response):
        if column.dtype.kind not in "iuf" or np.ma.is_masked(column):
            raise ValueError(f"column {column.name!r:.100} holds other things than numbers")
    said = {str(name).lower(): str(value).strip() for name, value in facts.items() if isinstance(value, str | int)}
    text = " ".join([lam.name, *map(str, table.meta.get("comments", [])[-1:])])
    match = _UNIT.search(text)
    stated = str(lam.unit) if lam.unit is not None else said.get("wavelengthunit") or (match[1] if match else None)
    detector = said.get("detectortype") or said.get("detector") or None
    if detector and detector.lower() not in _DETECTORS:
        raise ValueError(f"it says that its detector is {detector!r:.40}; known are {', '.join(_DETECTORS)}")
    return (
        np.asarray(lam, float),
        np.asarray(response, float),
        stated,
        _DETECTORS[detector.lower()] if detector else None,
    )


def _columns(table: Table) -> tuple[Any, Any]:
    """Columns of wavelengths and responses: the only two, or those that are called so."""
    if len(table.colnames) == 2:
        return table.columns[0], table.columns[1]
    lam = [name for name in table.colnames if name.lower().startswith(("wave", "lam", "wl"))]
    response = [name for name in table.colnames if name.lower().startswith(("resp", "trans", "throughput"))]
    if len(lam) != 1 or len(response) != 1:
        raise ValueError(
            f"its columns are {', '.join(table.colnames)!r:.200}; expected are two, wavelength and response (or "
            "transmission, throughput)"
        )
    return table[lam[0]], table[response[0]]


def _angstroms(unit: str | None, stated: str | None) -> float:
    """The factor from the wavelengths' unit to angstroms."""
    factors = {}
    for text in filter(None, (unit, stated)):
        plain = text.strip().lower()
        known = {"a": "AA", "ang": "AA", "mic": "um", "nan": "nm"}
        plain = known.get(plain[:3] if plain != "a" else "a", text.strip())
        try:
            factors[text] = float(u.Unit(plain).to(u.AA))
        except (ValueError, TypeError, u.UnitsError):
            raise ValueError(
                f"its wavelengths are in {text!r:.40}; expected is a length, such as Angstrom or nm"
            ) from None
    if len(set(factors.values())) > 1:
        raise ValueError(f"its wavelengths are in {stated}, and the run file says {unit}")
    return next(iter(factors.values()), 1.0)


def _cleaned(lam: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples in increasing order, without the noise about zero and without the zeros beyond the ends."""
    if len(lam) > 1 and lam[0] > lam[-1]:
        lam, response = lam[::-1], response[::-1]
    top = np.nanmax(response, initial=0.0)
    if np.any(response < -_NOISE * top):
        raise ValueError(f"a response is {response.min():g}, and the largest {top:g}: none is negative")
    response = np.maximum(response, 0.0)
    used = np.flatnonzero(response > 0)
    if not len(used):
        raise ValueError("no response is positive")
    part = slice(max(used[0] - 1, 0), used[-1] + 2)
    return lam[part], response[part]
