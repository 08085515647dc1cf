"""The columns of the table that PROVABGS publishes of its own catalog, made of arrays of ours, a block of rows at a time.

Source: the value-added catalog of DESI's Early Data Release (data.desi.lbl.gov/doc/releases/edr/vac/provabgs; Hahn et al. 2023,
arXiv 2306.06318): names, units, order and types are its. What a catalog has nothing of is left out, and `tell` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from jobs.export.rows import Column
from jobs.telemetry.progress import say
from sedflow_dist.flow.model_spec import ModelSpec
from sedflow_dist.inference.summary import QUANTILES
from sedflow_dist.magnitudes import magnitude
from sedflow_dist.sps.chosen import name_of
from storage_schemas.catalog.query import ORDER, PIXEL, id_variables
from storage_schemas.photometry import ID_MISSING

#: Its parameters by our names, in its order (`provabgs.models.NMF`: logmstar, beta1_sfh to beta4_sfh, fburst, tburst, gamma1_zh,
#: gamma2_zh, dust1, dust2, dust_index). The thirteenth, the share of the light that is in the fibre, is of spectra: NaN.
PARAMETERS = (
    "log_mstar", "beta1", "beta2", "beta3", "beta4", "f_burst", "t_burst", "gamma1", "gamma2", "tau_bc", "tau_ism", "n_dust",
)  # fmt: skip
N_DRAWS = 100
#: What the published table has where there is no posterior; its users' selections drop it.
NO_ANSWER = -999
#: Of its columns, those that a catalog never has.
NEVER = ("ZERR", "TSNR2_BGS", "FIBMAG_R", "PROVABGS_W_ZFAIL", "PROVABGS_W_FIBASSIGN", "IS_BGS_BRIGHT", "IS_BGS_FAINT")
_BANDS = ("g", "r", "z", "w1")
_PIXEL_ORDER = 6  # nside 64
#: First bit and number of bits of the parts of a TARGETID (desitarget.targets.encode_targetid).
_BITS = {"objid": (0, 22), "brickid": (22, 20), "release": (42, 16)}
_FLOAT, _INTEGER = np.dtype(np.float64), np.dtype(np.int64)

#: Arrays of some rows by name: those of the catalog that are `needed`, and ``theta`` (row, draw, 13), ``theta_best`` (row, 13),
#: ``surviving`` (row, draw) and ``surviving_best`` (row,) [log10(Msun)].
Arrays = Mapping[str, np.ndarray]


class Made(NamedTuple):
    """A column of the table, its values (row, *shape) from arrays, and the shape of an entry."""

    column: Column
    of: Callable[[Arrays], np.ndarray]
    shape: tuple[int, ...] = ()


def columns(catalog: xr.Dataset, spec: ModelSpec) -> list[Made]:
    """Return the columns that a catalog of this model has, in the published order.

    Raises:
        ValueError: the model lacks a parameter of PROVABGS's; names it.
    """
    space = spec.composition().space
    if lacking := [name for name in PARAMETERS if name not in (*space.names, *space.fixed)]:
        raise ValueError(
            f"PROVABGS's table has the parameters {', '.join(PARAMETERS)}; the model of this catalog "
            f"({', '.join(spec.components)}) lacks {', '.join(lacking)}: export it to another ending"
        )
    width, thetas = len(PARAMETERS) + 1, f"{', '.join(PARAMETERS)}, f_fiber (NaN)"
    return [
        *_target_id(catalog),
        _made("RA", "right ascension (ICRS)", lambda arrays: arrays["ra"], "deg"),
        _made("DEC", "declination (ICRS)", lambda arrays: arrays["dec"], "deg"),
        _made("Z_HP", "redshift", lambda arrays: arrays["redshift"]),
        *_magnitudes(spec),
        Made(Column("HPIX_64", _INTEGER, description=f"HEALPix pixel, nside 64, nested; {NO_ANSWER}: no position"), _pixel),
        _made("PROVABGS_MCMC", f"posterior draws of {thetas}", lambda arrays: arrays["theta"], "", N_DRAWS, width),
        _made("PROVABGS_THETA_BF", f"the draw of least chi^2: {thetas}", lambda arrays: arrays["theta_best"], "", width),
        _made(
            "PROVABGS_LOGMSTAR", "stellar mass that survives, of the draws", lambda arrays: arrays["surviving"], "log10(Msun)",
            N_DRAWS,
        ),
        _made(
            "PROVABGS_LOGMSTAR_BF", "stellar mass that survives, of the draw of least chi^2",
            lambda arrays: arrays["surviving_best"], "log10(Msun)",
        ),
        *_z_max(catalog),
    ]  # fmt: skip


def needed(catalog: xr.Dataset) -> list[str]:
    """Return the names of the catalog's arrays that its columns are made of."""
    quantiles = ["quantiles"] if "z_max" in catalog["param"].values else []
    identifiers = [ID_MISSING, *id_variables(catalog).values()] if ID_MISSING in catalog else []
    return ["ra", "dec", "redshift", "flux", "mask", PIXEL, *quantiles, *identifiers]


def tell(made: list[Made], spec: ModelSpec) -> None:
    """Say what is left out, and why."""
    reasons = {
        "TARGETID": "no identifier is called so, nor are there release, brickid and objid, all of them integers; rows are in the "
        "catalog's order",
        "PROVABGS_Z_MAX": "the catalog was made without inference.selection (docs/columns.md)",
        **{f"MAG_{band.upper()}": "no band, or more than one of a galaxy's, is called so" for band in _BANDS},
        "SCHLEGEL_COLOR": "it takes all four magnitudes",
    }
    for name, reason in reasons.items():
        if name not in [one.column.name for one in made]:
            say("export", f"{name} is left out: {reason}")
    say("export", f"{', '.join(NEVER)} are left out: a catalog has nothing of them; join them from DESI's tables")
    if more := [name for name in spec.composition().space.names if name not in PARAMETERS]:
        say("export", f"the model's {', '.join(more)} are left out: PROVABGS has no such parameters")


def _made(name: str, meaning: str, of: Callable[[Arrays], np.ndarray], unit: str = "", *shape: int) -> Made:
    return Made(Column(name, _FLOAT, unit, description=meaning), of, shape)


def _target_id(catalog: xr.Dataset) -> list[Made]:
    """DESI's identifier: the input's own, or what it is made of in the Legacy Surveys."""
    found = {
        name.lower(): (number, variable)
        for number, (name, variable) in enumerate(id_variables(catalog).items())
        if catalog[variable].dtype.kind in "iu"
    }
    parts = ("targetid",) if "targetid" in found else tuple(_BITS)
    if not set(parts) <= set(found):
        return []

    def of(arrays: Arrays) -> np.ndarray:
        missing = np.any([arrays[ID_MISSING][:, found[name][0]] for name in parts], axis=0)
        whole = np.zeros(len(missing), np.int64)
        for name in parts:
            first, bits = _BITS.get(name, (0, 0))
            values = arrays[found[name][1]].astype(np.int64)
            wrong = ~missing & ((values < 0) | (values >> bits != 0))
            if bits and wrong.any():
                raise ValueError(
                    f"{name} {values[wrong][0]} is no part of a TARGETID, which has {bits} bits of it: 0 to {(1 << bits) - 1}"
                )
            whole |= values << first
        return np.where(missing, NO_ANSWER, whole)

    return [Made(Column("TARGETID", _INTEGER, description=f"DESI's, of {', '.join(parts)}; {NO_ANSWER}: missing"), of)]


def _magnitudes(spec: ModelSpec) -> list[Made]:
    """Magnitudes in bands of these names, of whichever footprint, and the colour that BGS Faint is selected by."""
    found = dict[str, Made]()
    for band in _BANDS:
        places = [i for i, one in enumerate(spec.bands) if name_of(one).rpartition("-")[2].lower() == band]
        together = [sum(i in bands for i in places) for bands in spec.band_sets or [range(len(spec.bands))]]
        if max(together) == 1:
            names = " or ".join(name_of(spec.bands[i]) for i in places)
            meaning = f"AB magnitude in {names}, corrected for extinction; NaN: not measured, or no positive flux"
            found[band] = _made(f"MAG_{band.upper()}", meaning, _magnitude_in(places), "mag")
    if len(found) < len(_BANDS):
        return list(found.values())

    def colour(arrays: Arrays) -> np.ndarray:
        g, r, z, w1 = (found[band].of(arrays) for band in _BANDS)
        return (z - w1) - 1.2 * (g - r) + 1.2

    return [*found.values(), _made("SCHLEGEL_COLOR", "(z - W1) - 1.2 (g - r) + 1.2", colour, "mag")]


def _magnitude_in(places: list[int]) -> Callable[[Arrays], np.ndarray]:
    def of(arrays: Arrays) -> np.ndarray:
        flux = arrays["flux"][:, places].astype(np.float64)
        good = arrays["mask"][:, places] & (flux > 0)  # in one band at most
        return np.asarray(magnitude(np.where(good.any(1), np.where(good, flux, 0).sum(1), np.nan)))

    return of


def _pixel(arrays: Arrays) -> np.ndarray:
    pixel = arrays[PIXEL]
    return np.where(pixel < 0, NO_ANSWER, pixel >> 2 * (ORDER - _PIXEL_ORDER))


def _z_max(catalog: xr.Dataset) -> list[Made]:
    """The greatest redshift at which a galaxy is selected, where the catalog has it."""
    names = catalog["param"].values.tolist()
    if "z_max" not in names:
        return []
    place, median = names.index("z_max"), QUANTILES.index(0.5)
    meaning = f"median of the {catalog.attrs['param_meanings'][place]}"
    return [
        _made(
            "PROVABGS_Z_MAX",
            meaning,
            lambda arrays: np.nan_to_num(arrays["quantiles"][:, place, median], nan=NO_ANSWER),
        )
    ]
