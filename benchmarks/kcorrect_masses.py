"""Stellar masses of a catalog against kcorrect's (Blanton & Roweis 2007), an independent method, on the same photometry.

Argument: the catalog. Galaxies with 0 < z < 0.2, r < 18 and five positive bands. Nothing is fitted to the comparison.
"""

from __future__ import annotations

import sys

import numpy as np
from astropy.cosmology import Planck13
from common import report
from kcorrect.kcorrect import Kcorrect

from jobs.observed import observed
from sedflow_dist.photometry.photometry import Photometry
from storage_schemas import open_catalog


def kcorrect_log_mass(photometry: Photometry) -> np.ndarray:
    """Return kcorrect's log10 surviving stellar mass for ugriz fluxes [nanomaggies]."""
    fitter = Kcorrect(
        responses=[f"sdss_{b}0" for b in "ugriz"], redshift_range=[0.0, 0.3], abcorrect=False, cosmo=Planck13
    )
    arrays = {name: values.astype(float) for name, values in photometry.arrays().items()}
    maggies, ivar = 1e-9 * arrays["flux"], 1 / (1e-9 * arrays["sigma"]) ** 2
    coefficients = fitter.fit_coeffs(redshift=arrays["redshift"], maggies=maggies, ivar=ivar)
    derived = fitter.derived(redshift=arrays["redshift"], coeffs=coefficients)
    return np.log10(derived["mremain"])


def main() -> None:
    catalog = open_catalog(sys.argv[1] if len(sys.argv) > 1 else "demo/catalog")
    seen = observed(catalog)
    flux, redshift = seen.flux.numpy(), seen.redshift.numpy()
    magnitude = 22.5 - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    good = (redshift > 0) & (redshift < 0.2) & (magnitude[:, 2] < 18) & np.isfinite(magnitude).all(1)
    ours = catalog["quantiles"].sel(param="log_mstar_surviving", quantile=0.5).values
    theirs = np.full(len(ours), np.nan)
    theirs[good] = kcorrect_log_mass(seen[good])
    difference = (ours - theirs)[good & np.isfinite(ours)]
    median = np.median(difference)
    report("galaxies compared", f"{len(difference):,}")
    report("ours - kcorrect, median", f"{median:+.3f} dex")
    report("scatter (1.48 MAD)", f"{1.4826 * np.median(np.abs(difference - median)):.3f} dex")
    report("beyond 0.3 dex", f"{100 * np.mean(np.abs(difference) > 0.3):.2f} %")


if __name__ == "__main__":
    main()
