"""Which columns of a table are its photometry, by their names: fluxes or magnitudes of several bands, and their errors.

Names of columns in, families of them out: what is called alike but for the band. The patterns are those of DESI, SDSS, NSA,
Rubin, DES, Pan-STARRS, COSMOS, UltraVISTA, CANDELS, GAMA, WISE, VizieR and SExtractor; see `families`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.ingest.column_names import parts

#: Bands by the word that a name has for them, in the order of their wavelengths; the same light by other names, and filters
#: that only one instrument has, stand in `_OTHER`.
BANDS = (
    "fuv", "nuv", "u", "b", "g", "v", "r", "i", "z", "y", "j", "h", "ks", "w1", "w2", "w3", "w4",
)  # fmt: skip
_SAME = {"k": "ks", "ustar": "u", "us": "u", "f": "fuv", "n": "nuv"}
_OTHER = re.compile(
    r"f\d{3,4}(w|m|n|lp)|i[ab]\d{3}|nb\d{3,4}|m\d{3}|ch[1-4]|irac[1-4]|[ugriz]p{1,2}|\d+(micron|um)|yhsc|vis"
)
_FLUX = ("flux", "fluxes", "nmgy", "maggies", "fnu", "f")
_MAGNITUDE = ("ab", "mag", "mags", "magnitude", "magnitudes", "mpro", "m", "dered", "lupt")
_ERROR = ("err", "errs", "error", "errors", "e", "sigma", "sig", "unc", "uncert", "uncertainty", "std", "rms")
_IVAR = ("ivar", "invvar")
#: Instruments and surveys that names begin or end with; a band's word beside one is that instrument's.
INSTRUMENTS = (
    "acs", "wfc3", "uvis", "wfpc2", "irac", "splash", "mips", "galex", "sdss", "hsc", "sc", "suprime", "suprimecam", "subaru",
    "cfht", "cfhtls", "megacam", "uvista", "ultravista", "vista", "viking", "vhs", "video", "ukidss", "uds", "wircam", "wirds",
    "hawki", "isaac", "mosfire", "fourstar", "vimos", "ctio", "kpno", "lbc", "decam", "des", "ps1", "panstarrs", "lsst", "kids",
    "wise", "unwise", "twomass", "2mass", "euclid", "nircam", "niriss", "miri",
)  # fmt: skip
#: Words that make of it something else than the light of a galaxy in a band, as observed.
_NO_LIGHT = frozenset(
    [
        "abs", "absmag", "kcorr", "kcorrect", "rest", "restframe", "frac", "fracflux", "depth", "psfdepth", "galdepth", "lim",
        "limit", "maglim", "limmag", "extinction", "ext", "ebv", "transmission", "nobs", "snr", "rchisq", "chisq", "chi2",
        "flag", "flags", "mask", "allmask", "anymask", "apflux", "radius", "rad", "r50", "r90", "offset", "zp", "zeropoint",
        "seeing", "fwhm", "sky", "background", "lum", "luminosity", "mass", "weight", "corr", "cov", "model2", "fracmasked",
        "fracin", "resid", "blobresid", "id", "z", "min", "max", "low", "high", "isotropic", "peak", "sb", "mu", "surf",
    ]
)  # fmt: skip
#: How light is measured, best first: what has all of a galaxy's light goes before what has its centre's.
_WHOLE = ("cmodel", "model", "total", "tot", "sersic", "auto", "kron", "petro", "elpetro", "iso", "mean", "ap", "aper", "psf",
          "fiber", "fibre", "fiber2")  # fmt: skip
_JOINED = re.compile(
    r"(?P<band>fuv|nuv|ks|w[1-4]|[ubgvrizyjhk])(?P<what>(?:psf|model|cmodel|petro|kron|ap|fiber|auto)?(?:flux|mag|m))"
    r"(?P<error>err|ivar)?|(?P<what2>flux|mag|nmgy|f|m)(?P<error2>err|ivar)|(?P<error3>err|e|sig|d)(?P<what3>flux|mag)|"
    r"(?P<error6>e)(?P<band6>ks|[ubgvrizyjhk])|(?P<band4>w[1-4])(?P<error4>sig)?(?P<what4>mpro)|(?P<what5>model|cmodel|petro|psf|fiber|kron|auto|ap|aper)(?P<more5>flux|"
    r"mag)(?P<error5>err|ivar)?"
)
#: Vectors over the bands, by their length: SDSS's and the NASA-Sloan Atlas's.
_VECTORS = {5: ("u", "g", "r", "i", "z"), 7: ("fuv", "nuv", "u", "g", "r", "i", "z")}
_VECTOR_WORDS = ("nmgy", "flux", "modelflux", "cmodelflux", "petroflux", "psfflux", "mag", "extinction", "lupt")


#: An entry of a column of vectors, as surveys address it.
INDEXED = re.compile(r"(.+)\[(\d+)\]")
#: Columns by band and instrument.
_Bands = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Family:
    """Columns that are one measurement in several bands, as a survey addresses them, and its errors.

    Attributes:
        words: the names' words without the band's, as ``("flux", "auto")``
        kind: flux or magnitude; "" where the names do not say (``u``, ``g``, ``r``)
        columns, errors: by band; a band whose error is missing is none of ``errors``
        error_kind: sigma or ivar
        instruments: words of `INSTRUMENTS` beside a band's, by band
        others: columns of bands that have other names than those of `BANDS`, or that another instrument has too
    """

    words: tuple[str, ...]
    kind: str
    columns: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    error_kind: str = "sigma"
    instruments: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, ...]:
        """Smaller is better: more bands with errors, then more of a galaxy's light."""
        whole = min((_WHOLE.index(word) for word in self.words if word in _WHOLE), default=2.5)
        return (-min(len(self.errors), 5), whole, -len(self.columns), len(self.words))


def families(names: Sequence[str], widths: Mapping[str, int] | None = None) -> list[Family]:
    """Return families of at least two bands among columns, the best first.

    Args:
        widths: entries of columns of vectors, which are addressed as ``NAME[i]``

    >>> [f.columns for f in families(["FLUX_G", "FLUX_R", "FLUX_Z", "FLUX_IVAR_G", "FLUX_IVAR_R", "FLUX_IVAR_Z"])]
    [{'g': 'FLUX_G', 'r': 'FLUX_R', 'z': 'FLUX_Z'}]
    >>> found = families(["umag", "gmag", "rmag", "e_umag", "e_gmag", "e_rmag", "zph"])[0]
    >>> found.kind, found.errors
    ('magnitude', {'u': 'e_umag', 'g': 'e_gmag', 'r': 'e_rmag'})
    """
    by_words: dict[tuple[str, ...], _Bands] = {}
    for name, band, words in _addressed(names, widths or {}):
        instrument = next((word for word in words if word in INSTRUMENTS), "")
        rest = tuple(word for word in words if word not in INSTRUMENTS)
        by_words.setdefault(rest, {}).setdefault((band, instrument), name)
    found = [_family(words, columns, by_words) for words, columns in by_words.items()]
    return sorted(
        (family for family in found if family and len(family.columns) + len(family.others) > 1),
        key=lambda family: family.rank,
    )


def _family(words: tuple[str, ...], columns: _Bands, by_words: Mapping[tuple[str, ...], _Bands]) -> Family | None:
    if _is_error(words) or _NO_LIGHT & set(words) or (kind := _kind(words)) is None:
        return None
    chosen: dict[str, str] = {}  # of each band the first instrument
    for band, instrument in columns:
        chosen.setdefault(band, instrument)
    known = {band: chosen[band] for band in BANDS if band in chosen}
    if not kind and len(known) < 3:
        return None
    errors, error_kind = _errors(words, by_words)
    return Family(
        words, kind, {band: columns[band, instrument] for band, instrument in known.items()},
        {band: errors[key] for band, instrument in known.items() if (key := (band, instrument)) in errors}, error_kind,
        {band: instrument for band, instrument in known.items() if instrument},
        {" ".join((instrument, band)).strip(): name for (band, instrument), name in columns.items()
         if known.get(band) != instrument},
    )  # fmt: skip


def of_band(names: Sequence[str], word: Sequence[str], widths: Mapping[str, int]) -> dict[str, str]:
    """Return the columns called by exactly these words and a band, by band: ``("extinction",)``, ``("mw", "transmission")``."""
    wanted = tuple(sorted(word))
    return {band: name for name, band, words in _addressed(names, widths) if tuple(sorted(words)) == wanted}


def _addressed(names: Sequence[str], widths: Mapping[str, int]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Columns that have a band in their name, or are a vector over bands: address, band, the other words."""
    found = []
    lengths: dict[str, int] = {}
    for name in names:  # CSV has vectors as columns NAME[i]
        if match := INDEXED.fullmatch(name):
            lengths[match[1]] = max(lengths.get(match[1], 0), int(match[2]) + 1)
    for name in names:
        match = INDEXED.fullmatch(name)
        bare = match[1] if match else name
        width = widths.get(name, 0) if not match else lengths[bare]
        words = _split(parts(bare))
        if width:
            bands = _VECTORS.get(width)
            if bands and set(_VECTOR_WORDS) & set(words):
                entries = [int(match[2])] if match else range(width)
                found += [(name if match else f"{name}[{i}]", bands[i], tuple(words)) for i in entries]
            continue
        if (at := _band_at(name, words)) is not None:
            band = _SAME.get(words[at], words[at])
            if band == "z" and _has_both(names, name):  # VISTA's Z beside SDSS's z
                band = "vista z"
            found.append((name, band, (*words[:at], *words[at + 1 :])))
    return found


def _has_both(names: Sequence[str], name: str) -> bool:
    """Whether a name with a capital Z is there in the same words with a small one."""
    return "Z" in name and name.replace("Z", "z") in names


def _split(words: Sequence[str]) -> list[str]:
    """Take words apart that are written as one: ``umag``, ``magerr``, ``modelmagerr``, ``w1sigmpro``."""
    out = []
    for word in words:
        if match := _JOINED.fullmatch(word):
            found = {key: text for key, text in match.groupdict().items() if text}
            order = sorted(found, key=lambda key: ("band", "more", "what", "error").index(key.rstrip("0123456789")))
            out += [found[key] for key in sorted(order, key=lambda key: 0 if key.startswith("band") else 1)]
        else:
            out.append(word)
    return ["ivar" if word in _IVAR else word for word in out]


def _band_at(name: str, words: Sequence[str]) -> int | None:
    """Which word of a name is its band: the only one that can be; of several the first or last."""
    at = [i for i, word in enumerate(words) if word in BANDS or word in ("k", "ustar", "us") or _OTHER.fullmatch(word)]
    if not at:
        return None
    return at[0] if at[0] == 0 else at[-1]


def _is_error(words: Sequence[str]) -> bool:
    return bool({*_ERROR, "ivar"} & set(words))


def _kind(words: Sequence[str]) -> str | None:
    """Flux or magnitude; "" for words that say nothing of either, None for those of other quantities."""
    if set(_MAGNITUDE) & set(words):
        return "magnitude"
    if set(_FLUX) & set(words):
        return "flux"
    return None if words else ""


def _errors(words: Sequence[str], by_words: Mapping[tuple[str, ...], _Bands]) -> tuple[_Bands, str]:
    """The errors of a measurement: what is called alike but for a word that says so; else errors of nothing in particular."""
    plain = sorted(words)
    best: tuple[_Bands, str] = ({}, "sigma")
    for bare in (False, True):
        for others, columns in by_words.items():
            rest = sorted(word for word in others if word not in _ERROR and word != "ivar")
            same = rest == plain if not bare else not rest or (not plain and rest in (["mag"], ["m"]))
            if same and _is_error(others) and len(columns) > len(best[0]):
                best = (columns, "ivar" if "ivar" in others else "sigma")
        if best[0]:
            break
    return best
