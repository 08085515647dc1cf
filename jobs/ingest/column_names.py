"""What the names of a catalog's columns tell: which look like positions, redshifts or identifiers.

Names in, names out, likeliest first. They are the field's habits and no proof: whoever uses them says so, and asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Parts of names that make of a quantity something else: its error, its quality, how it was measured.
_NOT_THE_VALUE = _words(
    "err errs error errors magerr fluxerr fluxivar e sigma sig unc uncert std stdev rms var ivar cov covar min max low high lo hi "
    "lower upper l68 u68 l95 u95 l99 u99 p16 p84 flag flags warn warning q qual quality qop qz conf nobs n num ngood chi2 chisq "
    "rchi2 prob odds pm pmra pmdec offset off diff corr dchisq ref type class source src method name index idx col row pix pixel"
)
#: Parts of names that make of z a band.
_OF_A_BAND = _words(
    "mag mags magnitude flux fluxes mod model cmodel psf auto aper aper2 kron petro iso fiber fibre ext extinction ebv depth "
    "transmission mw kcorr abs absmag nmgy sersic fracflux dered lim limit maglim zp seeing sky airmass snr obs filter band "
    "apercorr cal hsc sdss_z decam vista lsst ps1 megacam"
)
_RA = re.compile(r"(ra|alpha(?:win|psf|peak|sky|model)?|rightascension)(deg|rad|icrs|fk5|j?2000|\d{0,2})")
_DEC = {"ra": ("dec", "de", "decl", "declination"), "rightascension": ("declination", "dec")}
_REDSHIFT = re.compile(
    r"redshifts?|photo?z|specz|zspec|zphoto?|zbest|zpdf|zml|zmc|zred|zredshift|zhel(?:io)?|zcmb|zpeak|zmode|zmean|zmed|zmedian|"
    r"zfinal|zgal|zsys|ztrue|zobs|zuse|zused|zdist|zgrism|zsp|zph|zp|zin|zb|zfit|zopt|zout|zadopt(?:ed)?"
)
_IDENTIFIER = re.compile(
    r"id|ids|identifier|objid|objectid|sourceid|galid|targetid|catid|cataid|cata?id|uberid|nsaid|specobjid|coadd|number|"
    r"num|name|iau|iauname|designation|galaxyid|rowid|mangaid|plateifu|[a-z]{0,8}id"
)


def parts(name: str) -> list[str]:
    """Return the words of a name, in lower case.

    >>> parts("gKronMagErr"), parts("FLUX_IVAR_W1"), parts("u_psfFlux"), parts("e_RAJ2000")
    (['g', 'kron', 'mag', 'err'], ['flux', 'ivar', 'w1'], ['u', 'psf', 'flux'], ['e', 'raj2000'])
    >>> parts("RAdeg"), parts("gPSFMag"), parts("u_cModelFlux"), parts("cModelMagErr_u")
    (['radeg'], ['g', 'psf', 'mag'], ['u', 'cmodel', 'flux'], ['cmodel', 'mag', 'err', 'u'])
    """
    name = re.sub(r"(RA|DEC?)(?=deg|rad|hms|dms)", lambda found: found[0].lower(), name)
    name = re.sub(r"(?:FUV|NUV)(?=[a-z])", lambda found: f"{found[0]}_", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", "_", name)
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    joined = " ".join(words).replace("c model", "cmodel")
    return joined.split()


def positions(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of columns that look like right ascension and declination, in the order of the right ascensions.

    A pair differs in nothing but what it measures: ``RA_1`` goes with ``DEC_1``, ``ALPHA_J2000`` with ``DELTA_J2000``.

    >>> positions(["RA_2", "DEC_1", "RA_1", "DEC_2", "RA_ERR", "DEC_ERR", "e_RAJ2000"])
    [('RA_2', 'DEC_2'), ('RA_1', 'DEC_1')]
    >>> positions(["RAdeg", "DEdeg", "ALPHA_J2000", "DELTA_J2000", "X_WORLD", "Y_WORLD", "pmRA", "pmDec", "R.A.", "Dec."])
    [('RAdeg', 'DEdeg'), ('ALPHA_J2000', 'DELTA_J2000'), ('X_WORLD', 'Y_WORLD'), ('R.A.', 'Dec.')]
    """
    names = list(names)
    by_parts = {tuple(parts(name)): name for name in reversed(names)}
    found = []
    for name in names:
        words = parts(name)
        if not _NOT_THE_VALUE & set(words) and (mate := next(iter(_mates(words, by_parts)), None)):
            found.append((name, mate))
    return sorted(found, key=lambda pair: parts(pair[0]) != ["ra"])  # the plain one first, others as they stand


def _mates(words: Sequence[str], by_parts: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Declinations that go with a right ascension."""
    forms = [tuple(words)]
    if words[-2:] == ["right", "ascension"]:
        forms.append((*words[:-2], "rightascension"))
    for form in forms:
        for at, word in enumerate(form):
            if form[at : at + 2] in (("x", "world"), ("xwin", "world")):
                aims = [word.replace("x", "y")]
            elif form[at : at + 2] == ("r", "a"):  # R.A.
                yield from filter(None, [by_parts.get((*form[:at], "dec", *form[at + 2 :]))])
                continue
            elif match := _RA.fullmatch(word):
                core, rest = match.groups()
                aims = [other + rest for other in _DEC.get(core, (core.replace("alpha", "delta"),))]
            else:
                continue
            for aim in aims:
                if mate := by_parts.get((*form[:at], aim, *form[at + 1 :])):
                    yield mate


def redshifts(names: Iterable[str]) -> list[str]:
    """Return columns that look like redshifts, spectroscopic and plain ones first.

    >>> redshifts(["u", "g", "r", "i", "z", "FLUX_Z", "zErr", "ZWARN", "photo_z", "Z_SPEC", "Z"])
    ['Z', 'Z_SPEC', 'photo_z']
    >>> redshifts(["PSFSIZE_R", "PSFSIZE_Z", "g_blendedness", "z_blendedness", "magerr_z", "Z_VI"])
    ['Z_VI']
    """
    names = list(names)
    bands = {"r", "i"} <= set(names) or {"g", "r"} <= set(names)  # then z is a band, and Z is none
    known = {tuple(parts(name)) for name in names}
    found = []
    for name in names:
        words = parts(name)
        if _NOT_THE_VALUE & set(words) or _OF_A_BAND & set(words) or (name == "z" and bands):
            continue
        if len(words) > 1 and any(tuple(band if word == "z" else word for word in words) in known for band in "gri"):
            continue  # the z band's, as others have it too
        joined = "".join(words)
        if "z" in words or any(_REDSHIFT.fullmatch(word) for word in (*words, joined)):
            found.append(name)
    return sorted(found, key=lambda name: (name.lower() not in ("z", "redshift"), "phot" in name.lower()))


def says_redshift(name: str) -> bool:
    """Return whether a name can hardly mean anything but a redshift.

    >>> says_redshift("Z"), says_redshift("zspec"), says_redshift("z_spec"), says_redshift("Z_VI")
    (True, True, True, False)
    """
    return name == "Z" or bool(_REDSHIFT.fullmatch("".join(parts(name))))


def redshift_errors(names: Iterable[str], redshift: str) -> list[str]:
    """Return columns that by their names are the standard error of a column of redshifts.

    >>> redshift_errors(["Z", "zErr", "ZWARN"], "Z"), redshift_errors(["z_spec", "e_z_spec", "zerr"], "z_spec")
    (['zErr'], ['e_z_spec'])
    >>> redshift_errors(["redshift", "z_err", "g_err"], "redshift"), redshift_errors(["Redshift", "redshift_error"], "Redshift")
    ([], ['redshift_error'])
    """
    joined = {name: "".join(parts(name)) for name in names}
    own, known = "".join(parts(redshift)), set(joined.values())
    stems = ("z", "redshift") if own in ("z", "redshift") else (own,)
    wanted = {form for stem in stems for form in (f"{stem}err", f"{stem}error", f"e{stem}")}
    return [
        name for name, form in joined.items()
        if form in wanted and not any(form.replace("z", band) in known - {form} for band in "gri")  # of the band z
    ]  # fmt: skip


def identifiers(names: Iterable[str]) -> list[str]:
    """Return columns that look like identifiers of galaxies, in their order.

    >>> identifiers(["RELEASE", "TARGETID", "objID", "FLUX_G", "idx_width", "CATAID", "SPECOBJID_SURVEY"])
    ['TARGETID', 'objID', 'CATAID']
    """
    found = []
    for name in names:
        words = parts(name)
        if words and (
            _IDENTIFIER.fullmatch("".join(words)) or words[-1] == "id" or (words[0] == "id" and len(words) < 3)
        ):
            found.append(name)
    return found
