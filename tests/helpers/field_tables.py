"""Tables in the layouts of the field, all of the same galaxies: columns of fluxes or magnitudes by the names of surveys."""

import numpy as np
from astropy.table import Table

from jobs.containers.tables import resolve

BANDS = "ugriz"
LOG = 2.5 / np.log(10)


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
