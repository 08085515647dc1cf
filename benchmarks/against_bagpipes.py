"""Fluxes of 200 galaxies by bagpipes' own assembly, all components on: what tests/helpers/bagpipes_galaxies.json holds.

Arguments: a writable copy of the `bagpipes` package's parent folder (on its first import it writes a table of the IGM beside its
grids), and the file to write. Bursts and constant histories at bagpipes' own ages; its dust curves are replaced by this package's,
its lines are put where they are instead of into the nearest sample, and 45 % of Lyman alpha, its blue side in pixels of 0.5 %, is
absorbed by the intergalactic medium instead of all. `RESOLUTION` is four times what bagpipes takes for photometry: it looks at
spectra in points, a step of 0.083 % apart, which in the ultraviolet is every fourth sample of BC03 (0.5 A).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import kcorrect
import numpy as np

from sedflow_dist.curves import Curve
from sedflow_dist.sps import cosmology
from sedflow_dist.sps.filters import AB_FLUX, Band

BANDS = (
    "galex-fuv", "galex-nuv", *(f"sdss2010-{b}" for b in "ugriz"), "twomass-J", "twomass-H", "twomass-Ks",
    *(f"wise2010-W{i}" for i in (1, 2, 3, 4)),
)  # fmt: skip
RESOLUTION, GALAXIES = 2400.0, 200
LSUN = 3.826e33  # bagpipes' [erg/s]
MAGNITUDES = 2.5 / np.log(10)
Q_PAH = (0.47, 1.12, 1.77, 2.50, 3.19, 3.90, 4.58)


def mips_24() -> Curve:
    """Return the curve of MIPS at 24 micron that kcorrect carries: speclite has none."""
    file = Path(kcorrect.__file__).parent / "data/responses/spitzer_mips_24.dat"
    lines = [line.split("|")[1:3] for line in file.read_text().splitlines() if line.startswith("|")]
    lam, response = np.array(lines[1:], float).T
    return Curve(name="mips-24", wavelength=tuple(lam.tolist()), response=tuple(response.tolist()))


def diffuse_dust(lam: np.ndarray, n: float) -> np.ndarray:
    """Return Kriek & Conroy's curve: optical depth over that at 5500 A, as PROVABGS has it."""
    um = lam / 1e4
    blue = 1.17 * (-2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3) + 1.78
    red = np.where(lam < 1.04e4 / (1.857 - 1.78 / 1.17), 1.17 * (-1.857 + 1.04 / um) + 1.78, 0.0)
    drude = (lam * 350) ** 2 / ((lam**2 - 2175.0**2) ** 2 + (lam * 350) ** 2)
    calzetti = np.where(lam < 6300, blue, red) / (0.44 * 4.05)
    return (calzetti + (0.85 - 1.9 * n) * drude / 4.05) * (lam / 5500) ** n


def through(band: Band, lam: np.ndarray, spectrum: np.ndarray, z: float) -> float:
    """Return maggies, before the distance, of a rest-frame spectrum that is linear between its samples."""
    own = lam * (1 + z)
    fine = np.union1d(np.linspace(*band.range, 4000), own[(own > band.range[0]) & (own < band.range[1])])
    response = np.interp(fine, band.wavelength, band.response)
    light = np.interp(fine / (1 + z), lam, spectrum)
    return float(np.trapezoid(light * response * fine, fine) / (AB_FLUX * np.trapezoid(response / fine, fine)))


def correct(model: Any, config: Any) -> None:
    """Share each line between the samples on both sides of it; let half of Lyman alpha through the intergalactic medium."""
    lam, gas = model.wavelengths, model.nebular
    for i, at in enumerate(config.line_wavs):
        nearest = int(np.abs(lam - at).argmin())
        gas.combined_grid[nearest] -= gas.line_grid[i] / ((lam[nearest + 1] - lam[nearest - 1]) / 2)
        left = int(np.searchsorted(lam, at)) - 1
        t = (at - lam[left]) / (lam[left + 1] - lam[left])
        gas.combined_grid[left] += (1 - t) * gas.line_grid[i] / ((lam[left + 1] - lam[left - 1]) / 2)
        gas.combined_grid[left + 1] += t * gas.line_grid[i] / ((lam[left + 2] - lam[left]) / 2)
    left = int(np.searchsorted(lam, 1215.67)) - 1
    model.igm.grid[left : left + 2] = 0.55 + 0.45 * model.igm.grid[left - 1].copy()


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from bagpipes import config, utils
    from bagpipes.models.model_galaxy import model_galaxy
    from bagpipes.models.star_formation_history import star_formation_history

    config.R_phot = config.R_other = RESOLUTION
    rng, model, galaxies = np.random.default_rng(7), None, []
    bands = [Band.load(band) for band in (*BANDS, mips_24())]
    for i in range(GALAXIES):
        z = rng.uniform(0.01, 3.0)
        of = {
            "redshift": z, "metallicity": float(rng.choice(config.metallicities)), "logU": float(rng.uniform(-4, -1)),
            "u_min": float(rng.uniform(0.1, 8.0)), "q_pah": float(rng.choice(Q_PAH)),
            "gamma": float(10 ** rng.uniform(-3, np.log10(0.15))), "tau_bc": float(rng.uniform(0, 3)),
            "tau_ism": float(rng.uniform(0.02, 3)), "n_dust": float(rng.uniform(-2, 1)),
        }  # fmt: skip
        last = np.flatnonzero(config.age_bins < 0.97e9 * np.interp(z, utils.z_array, utils.age_at_z))[-1]
        history: dict[str, Any] = {"massformed": 0.0, "metallicity": of["metallicity"]}
        if i % 2:
            history["age"] = config.age_sampling[int(rng.integers(0, last))] / 1e9
        else:
            low = 0 if i % 4 else int(rng.integers(0, last))
            history["age_min"] = config.age_bins[low] / 1e9
            history["age_max"] = config.age_bins[int(rng.integers(low + 1, last + 1))] / 1e9
        parts = {
            # An edge of its bins of age, less a little: at the edge itself it divides by zero.
            "redshift": z, "t_bc": config.age_bins[11] / 1e9 * (1 - 1e-7), "nebular": {"logU": of["logU"]},
            "dust": {"type": "VW07", "Av": of["tau_ism"], "eta": 1 + of["tau_bc"] / of["tau_ism"], "qpah": of["q_pah"],
                     "umin": of["u_min"], "gamma": of["gamma"]},
            "burst" if i % 2 else "constant": history,
        }  # fmt: skip
        if model is None:
            model = model_galaxy(parts)
            correct(model, config)
        model.sfh = star_formation_history(parts)
        model.dust_atten.A_cont = MAGNITUDES * diffuse_dust(model.wavelengths, of["n_dust"])
        model.dust_atten.A_cont_bc = MAGNITUDES * 5500 / model.wavelengths
        mass = model.sfh.ceh.grid.sum(0)
        model.update(parts)
        used = np.flatnonzero(mass > 0)
        light = model.spectrum_full * model.lum_flux * (1 + z) / LSUN
        factor = cosmology.flux_factor(z, cosmology.comoving_distance_mpc(z))
        flux = [float(f"{through(band, model.wavelengths, light, z) * factor:.5e}") for band in bands]
        rounded = {name: float(f"{value:.9g}") for name, value in of.items()}
        formed = [float(f"{value:.8g}") for value in mass[used]]
        galaxies.append({**rounded, "first_bin": int(used[0]), "mass": formed, "flux": flux})
    rows = ",\n  ".join(json.dumps(galaxy) for galaxy in galaxies)
    named = json.dumps([*BANDS, mips_24().model_dump()])
    Path(sys.argv[2]).write_text(f'{{\n "bands": {named},\n "galaxies": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
