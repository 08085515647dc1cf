"""Which filters photometry was probably observed with, and in which unit: what the names of its columns are usual for."""

from __future__ import annotations

from jobs.inspect.photometry_columns import Family

#: speclite's filters by instrument and band.
_FILTERS: dict[str, dict[str, str]] = {
    "sdss": {band: f"sdss2010-{band}" for band in "ugriz"},
    "lsst": {band: f"lsst2016-{band}" for band in "ugrizy"},
    "decam": {**{band: f"decam2014-{band}" for band in "ugriz"}, "y": "decam2014-Y"},
    "legacy": {**{band: f"decamDR1-{band}" for band in "griz"}, "y": "decamDR1-Y"},
    "hsc": {band: f"hsc2017-{band}" for band in "grizy"},
    "panstarrs": {band: f"panstarrs-{band}" for band in "grizy"},
    "megacam": {band: f"cfht_megacam-{band}" for band in "ugriz"},
    "bessell": {band: f"bessell-{band.upper()}" for band in "ubvri"},
    "twomass": {"j": "twomass-J", "h": "twomass-H", "ks": "twomass-Ks"},
    "wise": {f"w{i}": f"wise2010-W{i}" for i in (1, 2, 3, 4)},
    "galex": {"fuv": "galex-fuv", "nuv": "galex-nuv"},
    "euclid": {band: f"Euclid-{band.upper()}" for band in "yjh"},
}  # fmt: skip
_SAME = {
    "des": "decam",
    "ps1": "panstarrs",
    "cfht": "megacam",
    "cfhtls": "megacam",
    "2mass": "twomass",
    "unwise": "wise",
}
#: Of bands that have one home, wherever the others were observed.
_AT_HOME = {**_FILTERS["galex"], **_FILTERS["wise"]}


def of(family: Family) -> dict[str, str | None]:
    """Return speclite's name of each band's filter; None of a band whose instrument speclite lacks."""
    usual = _FILTERS[_instrument(family)]
    found: dict[str, str | None] = {}
    for band in family.columns:
        word = family.instruments.get(band, "")
        if word:
            own = _FILTERS.get(_SAME.get(word, word), {})
            found[band] = own.get(band) or (
                _AT_HOME.get(band) if word in ("galex", "wise", "unwise", "sdss", "lsst") else None
            )
        else:
            found[band] = usual.get(band) or _AT_HOME.get(band) or _FILTERS["twomass"].get(band)
    return found


def unit(family: Family) -> str | None:
    """Return the unit that fluxes under these names usually have where a file states none."""
    if _is_rubin(family):
        return "nJy"
    if (family.error_kind == "ivar" and family.errors) or "nmgy" in family.words:
        return "nanomaggy"
    return None


def is_sdss(family: Family) -> bool:
    """Whether magnitudes are named as SDSS's own, which are asinh magnitudes: ``modelMag_u``."""
    return bool({"model", "cmodel", "psf", "petro", "fiber"} & set(family.words)) and _instrument(family) == "sdss"


def doubt(family: Family) -> str:
    """Return what is to be said of the filters."""
    if family.instruments:
        return "filters as the names of the columns say; speclite's names of them"
    return "ASK: no file states its filters; these are the usual ones of columns with such names. Are they yours?"


def _is_rubin(family: Family) -> bool:
    """``u_cModelFlux``: the band first."""
    first = next(iter(family.columns.values()))
    return (
        family.kind == "flux"
        and first[1:2] == "_"
        and bool({"cmodel", "psf", "kron", "gaap", "sersic"} & set(family.words))
    )


def _instrument(family: Family) -> str:
    """Where the optical bands that name no instrument of their own were probably observed."""
    bands, first = set(family.columns), next(iter(family.columns.values()), "")
    if _is_rubin(family):
        return "lsst"
    if {"b", "v"} & bands and "g" not in bands:
        return "bessell"
    if family.error_kind == "ivar" and family.errors and "u" not in bands:
        return "legacy"
    if "kron" in family.words and first[:1] in "grizy" and "u" not in bands:
        return "panstarrs"
    if "auto" in family.words and "u" not in bands:
        return "decam"
    if "y" in bands:
        return "lsst" if "u" in bands else "panstarrs"
    return "sdss"
