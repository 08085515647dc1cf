"""One table for the run file uv-ir of catalogs that mix units: counts per second, nanomaggies and Vega magnitudes.

Argument: the table to write. In: the 10,000 galaxies of SDSS, GALEX and 2MASS that kcorrect carries (its test of galaxies of
three surveys). Out: FLUX and IVAR [AB nanomaggies, and their inverse squares; IVAR 0: not observed], EXTINCTION [mag], RA, DEC
and Z; bands are those of jobs/runs/uv-ir.yaml. There is no WISE in the sample: its bands are not observed.

Apertures differ and nothing is done about it: SDSS's are model magnitudes, GALEX's Kron's (AUTO), 2MASS's extrapolated to
the whole galaxy (EXT).
"""

from __future__ import annotations

import sys

import numpy as np
from astropy.table import Table

from jobs.containers.tables import resolve

BANDS = ("fuv", "nuv", *"ugriz", "j", "h", "ks", "w1", "w2", "w3", "w4")
#: AB magnitude of one count per second: Morrissey et al. 2007. (FLUX_AUTO of GALEX's catalogs is in counts per second, unlike
#: their FLUX, which is in microjansky.)
GALEX_ZERO_POINTS = {"FUV": 18.82, "NUV": 20.08}
#: AB minus Vega [mag]: Blanton & Roweis 2007.
VEGA_TO_AB = {"J": 0.91, "H": 1.39, "K": 1.85}
#: A / E(B-V) of Schlegel et al. 1998. GALEX: Wyder et al. 2007; 2MASS: Schlegel et al., table 6; WISE: Legacy Surveys
#: (legacysurvey.org/dr10/catalogs).
EXTINCTION_PER_EBV = {
    "fuv": 8.24, "nuv": 8.20, "j": 0.902, "h": 0.576, "ks": 0.367, "w1": 0.184, "w2": 0.113, "w3": 0.0241, "w4": 0.00910,
}  # fmt: skip
#: The same of SDSS's r, by which E(B-V) is had from its column (Stoughton et al. 2002, table 22).
R_PER_EBV = 2.751


def table(rows: Table) -> Table:
    """Return the table of all bands for rows of kcorrect's sample."""
    flux, ivar = np.zeros((2, len(rows), len(BANDS)))
    for band, name in (("fuv", "FUV"), ("nuv", "NUV")):
        count = 10 ** (0.4 * (22.5 - GALEX_ZERO_POINTS[name]))
        value, error = (count * np.asarray(rows[f"{name}_{what}_AUTO"], float) for what in ("FLUX", "FLUXERR"))
        put(flux, ivar, band, value, error, seen=error > 0)  # 0 and -99: not observed
    sdss = slice(BANDS.index("u"), BANDS.index("z") + 1)
    flux[:, sdss], ivar[:, sdss] = rows["MODELFLUX"], rows["MODELFLUX_IVAR"]
    for band, name in (("j", "J"), ("h", "H"), ("ks", "K")):
        magnitude, error = (np.asarray(rows[f"{name}_{what}_EXT"], float) for what in ("M", "MSIG"))
        seen = (magnitude > 0) & (error > 0)  # magnitudes without an error are limits
        value = 10 ** (0.4 * (22.5 - magnitude - VEGA_TO_AB[name]))
        put(flux, ivar, band, value, 0.4 * np.log(10) * error * value, seen)
    extinction = np.zeros_like(flux)
    extinction[:, sdss] = rows["EXTINCTION"]
    ebv = extinction[:, BANDS.index("r")] / R_PER_EBV
    for band, per_ebv in EXTINCTION_PER_EBV.items():
        extinction[:, BANDS.index(band)] = per_ebv * ebv
    found = Table({"RA": rows["RA"], "DEC": rows["DEC"], "Z": rows["Z"]})
    for name, values in (("FLUX", flux), ("IVAR", ivar), ("EXTINCTION", extinction)):
        found[name] = values.astype(np.float32)  # FITS has no nanomaggies: the survey's declaration says the units
    return found


def put(flux: np.ndarray, ivar: np.ndarray, band: str, value: np.ndarray, error: np.ndarray, seen: np.ndarray) -> None:
    """Write a band's fluxes and inverse variances, 0 where it was not seen."""
    at = BANDS.index(band)
    flux[:, at] = np.where(seen, value, 0.0)
    ivar[:, at] = 1 / np.where(seen, error, np.inf) ** 2


if __name__ == "__main__":
    table(Table.read(resolve("kcorrect-sample"))).write(sys.argv[1], overwrite=True)
