"""Tables in the layouts of the field, all of the same galaxies: columns of fluxes or magnitudes by the names of surveys."""

import numpy as np
from astropy.table import Table

from jobs.containers.tables import resolve

BANDS = "ugriz"
LOG = 2.5 / np.log(10)
KJY = 3631.0  # nJy in a nanomaggy


def galaxies(n=400):
    """Fluxes and errors [nanomaggies], (galaxy, band) of u g r i z, redshifts and positions of real galaxies."""
    rows = Table.read(resolve("kcorrect-sample"))[:n]
    flux = np.clip(np.asarray(rows["MODELFLUX"], float), 0.3, None)
    sigma = 1 / np.sqrt(np.asarray(rows["MODELFLUX_IVAR"], float))
    return flux, sigma, {name: np.asarray(rows[name], float) for name in ("RA", "DEC", "Z")}


def table(flux="{}_FLUX", error="{}_FLUXERR", scale=1.0, kind="flux", unit=None, ra="RA", dec="DEC", z="Z", bands=BANDS,
          ivar=False, **others):  # fmt: skip
    """A table of the galaxies; ``{}`` in names of columns is the band, ``scale`` makes fluxes of nanomaggies."""
    values, sigma, about = galaxies()
    columns = {"ID": np.arange(len(values)) + 1000, ra: about["RA"], dec: about["DEC"], z: about["Z"]}
    for i, band in enumerate(bands):
        one, other = values[:, i] * scale, sigma[:, i] * scale
        if kind == "magnitude":
            one, other = 22.5 - 2.5 * np.log10(values[:, i]), LOG * sigma[:, i] / values[:, i]
        columns[flux.format(band)] = one
        if error:
            columns[error.format(band)] = 1 / other**2 if ivar else other
    made = Table(columns | others)
    if unit:
        for name in made.colnames:
            if name in [form.format(band) for form in (flux, error) if form for band in bands]:
                made[name].unit = unit
    return made


#: Layouts by what they are usual for: of the table, and the unit where the file does not say it.
LAYOUTS = {
    "uJy as stated, positions of a match": {
        "flux": "{}_FLUX", "error": "{}_FLUXERR", "scale": KJY / 1e3, "unit": "uJy", "ra": "RA_1", "dec": "DEC_1", "z": "ZSPEC",
    },
    "DESI's names": {"flux": "FLUX_{}", "error": "FLUX_IVAR_{}", "ivar": True, "bands": "UGRIZ", "ra": "TARGET_RA",
                     "dec": "TARGET_DEC"},
    "Rubin's names": {"flux": "{}_cModelFlux", "error": "{}_cModelFluxErr", "scale": KJY, "ra": "coord_ra", "dec": "coord_dec",
                      "z": "z_phot"},
    "nJy, not stated": {"flux": "flux_{}", "error": "flux_err_{}", "scale": KJY, "ra": "ALPHA_J2000", "dec": "DELTA_J2000",
                        "z": "redshift"},
    "bare f and e": {"flux": "f_{}", "error": "e_{}", "ra": "RAJ2000", "dec": "DEJ2000", "z": "zBest"},
    "nanomaggies, not stated": {"flux": "modelFlux_{}", "error": "modelFluxErr_{}", "ra": "ra", "dec": "dec", "z": "zsp"},
}  # fmt: skip
MAGNITUDES = {  # AB
    "SkyServer's names": {"kind": "magnitude", "flux": "petroMag_{}", "error": "petroMagErr_{}", "z": "z_spec"},
    "RAIL's names": {"kind": "magnitude", "flux": "mag_{}_lsst", "error": "mag_err_{}_lsst", "z": "redshift"},
    "SExtractor's names": {"kind": "magnitude", "flux": "MAG_AUTO_{}", "error": "MAGERR_AUTO_{}", "bands": "UGRIZ",
                           "ra": "ALPHAWIN_J2000", "dec": "DELTAWIN_J2000"},
    "VizieR's names": {"kind": "magnitude", "flux": "{}mag", "error": "e_{}mag", "ra": "RAdeg", "dec": "DEdeg", "z": "zsp"},
    "letters alone": {"kind": "magnitude", "flux": "{}", "error": "err_{}", "z": "Z"},
}  # fmt: skip
