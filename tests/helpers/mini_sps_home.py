"""A miniature SPS_HOME: every file that python-fsps 0.5.0 reads, computed from formulas; 13 MB in half a second.

In: a folder. Out: in it, what the unmodified wheel (FSPS 4: MIST isochrones, C3K_LR spectra, DL07 dust emission) needs
to run from import to galaxy spectrum. Array sizes are compiled into FSPS and not free; the contents are toys: stars are
black bodies with a few absorption features, on power laws of mass with one giant branch. A test of plumbing, not of
astrophysics. Nothing is copied from FSPS.

Two properties of Fortran's list-directed input keep files small: ``33*0.`` stands for 33 values, and a table with a
fixed number of rows may hold its useful rows first and rows beyond the last wavelength after them. Libraries that are
equal for all metallicities are links to one file: only the isochrones depend on metallicity.

    python tests/helpers/mini_sps_home.py FOLDER && SPS_HOME=FOLDER python -c "import fsps; ..."
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# -- sizes that are compiled into FSPS (its sps_vars.f90 and sps_setup.f90) --------------------------------------------
N_WAVELENGTH, N_LOG_T, N_LOG_G = 1936, 80, 14  # of the stellar library
FEH = np.round(np.arange(-2.5, 0.51, 0.25), 2)  # 13 isochrone metallicities
FEH_SPECTRA = FEH[:11]  # of which FSPS reads spectra
LOG_AGE = np.round(5.0 + 0.05 * np.arange(107), 2)  # log10(yr)
N_BAND, N_INDEX, N_SED = 159, 30, 1221
N_LINE, N_CONTINUUM = 166, 1963  # of the nebular tables, at 11 metallicities, 10 ages and 7 ionisation parameters
N_WR, N_WMBASIC, N_POST_AGB, N_AGB, N_ARINGER, N_DUST, N_XRB = 1963, 5508, 9281, 6146, 9032, 1001, 15000

# -- constants, cgs, as FSPS has them; wavelengths are in Angstrom -----------------------------------------------------
PLANCK, BOLTZMANN, C_CM, C_A, STEFAN = 6.6261e-27, 1.380649e-16, 2.9979e10, 2.9979e18, 5.6704e-5
GRAVITY = 4.13e10  # g = M T^4 / (L * GRAVITY)
R_SUN, PARSEC, L_SUN = 6.955e10, 3.08568e18, 3.839e33


# -- stars -------------------------------------------------------------------------------------------------------------


def wavelength_grid() -> Array:
    """100 A to 1e8 A in steps as those of C3K_LR: 0.005 in ln(lambda) to 2.4 um, about 0.01 beyond."""
    blue = 100.0 * np.exp(0.005 * np.arange(1097))
    return np.concatenate([blue, np.geomspace(blue[-1], 1e8, N_WAVELENGTH - len(blue) + 1)[1:]])


def planck(lam: Array, teff: float) -> Array:
    """B_nu [erg/s/cm2/Hz/sr]."""
    nu = C_A / lam
    return 2 * PLANCK * nu**3 / C_CM**2 / np.expm1(np.minimum(PLANCK * nu / (BOLTZMANN * teff), 600.0))


def black_body(lam: Array, teff: float) -> Array:
    """L_nu / L_bol [1/Hz]."""
    return np.pi * planck(lam, teff) / (STEFAN * teff**4)


def bolometric(f_nu: Array, lam: Array) -> float:
    """Integral of f_nu over frequency."""
    g = f_nu * C_A / lam**2
    return float(np.sum(0.5 * (g[1:] + g[:-1]) * np.diff(lam)))


def absorption(lam: Array, teff: float) -> Array:
    """Factor on a black body: Lyman and Balmer jumps, the 4000 A break and a few lines, at the resolution of C3K_LR."""

    def below(x: ArrayLike) -> Array:  # 1 well below 0, 0 well above
        return 1 / (1 + np.exp(np.clip(x, -300, 300)))

    cool = below((teff - 6500.0) / 500.0)
    like_a = np.exp(-0.5 * ((np.log10(teff) - 4.0) / 0.16) ** 2)
    factor = 1 - 0.95 * below((teff - 28000.0) / 3000.0) * (lam < 912)
    factor *= 1 - 0.45 * like_a * below((lam - 3700.0) / 30.0)
    factor *= 1 - 0.55 * cool * below((lam - 4000.0) / 40.0)
    lines = [(6564.6, 0.30, 0.03)] + [(balmer, 0.35, 0.05) for balmer in (4862.7, 4341.7, 4102.9)]
    lines += [(3951.0, 0.0, 0.35), (5176.0, 0.0, 0.20), (5896.0, 0.0, 0.12), (8600.0, 0.0, 0.10)]
    for centre, hot_depth, cool_depth in lines:
        profile = np.exp(-0.5 * ((lam - centre) / (centre / 235.0)) ** 2)
        factor *= 1 - (hot_depth * like_a + cool_depth * cool) * profile
    return factor


def isochrone(log_age: float, feh: float, n_main: int = 34, n_giant: int = 18) -> Array:
    """Rows of an isochrone: initial and actual mass, log L, log T, log g, C/O, FSPS's phase, log mass loss."""
    t = 10**log_age

    def lifetime(m: Array) -> Array:  # on the main sequence [yr]: shorter at low metallicity, at least 3 Myr
        return 1e10 * m**-2.5 * 10 ** (0.08 * feh) + 3e6

    grid = np.geomspace(0.1, 119.9, 4000)
    turn_off, death = (
        max(float(np.interp(-t, -lifetime(grid) * longer, grid, right=grid[-1])), 0.3) for longer in (1.0, 1.08)
    )
    m = np.geomspace(0.1, turn_off, n_main)
    log_m = np.log10(m)
    massive = np.log10(1.4142) + 3.5 * np.log10(55.0) + (log_m - np.log10(55.0))
    pieces = [np.log10(0.23) + 2.3 * log_m, 4 * log_m, np.log10(1.4142) + 3.5 * log_m]
    spent = np.minimum(t / lifetime(m), 1.0)
    log_l = np.select([m < 0.43, m < 2.0, m < 55.0], pieces, massive) + 0.30 * spent
    log_r = np.where(m < 1, 0.8, 0.57) * log_m + 0.10 * spent
    log_t = np.log10(5772.0) + 0.25 * log_l - 0.5 * log_r - 0.020 * feh
    actual, phase = m.copy(), np.zeros(n_main)

    if death > turn_off * (1 + 1e-4):
        x = (np.arange(n_giant) + 0.5) / n_giant
        giants = turn_off + (death - turn_off) * x
        giant_l = log_l[-1] + (max(3.3, log_l[-1] + 0.25) - log_l[-1]) * x**6
        hayashi = 3.70 - 0.045 * (giant_l - 1.0) - 0.025 * feh  # cooler when brighter and when metal-rich
        redward = np.clip((1.6 - np.log10(turn_off)) / 0.5, 0, 1)  # stars above 40 Msun stay hot
        giant_t = log_t[-1] + (hayashi - log_t[-1]) * np.clip(x / 0.25, 0, 1) * redward
        giant_phase = np.where((x < 0.6) | (x >= 0.9), 2.0, 3.0)
        giant_phase[-1] = 5.0
        m, actual = np.append(m, giants), np.append(actual, giants * (1 - 0.15 * x**2))
        log_l, log_t, phase = np.append(log_l, giant_l), np.append(log_t, giant_t), np.append(phase, giant_phase)
    log_g = np.log10(actual / GRAVITY / 10**log_l) + 4 * log_t
    constant = np.ones_like(m)
    return np.column_stack([m, actual, log_l, log_t, log_g, 0.5 * constant, phase, -9 * constant])


# -- text --------------------------------------------------------------------------------------------------------------


def column(values: Iterable[float], form: str = "%.6g") -> str:
    """One value a line."""
    return "".join(form % v + "\n" for v in values)


def row(values: Iterable[float], form: str = "%.3E") -> str:
    """One line."""
    return " ".join(form % v for v in values)


def padded(lam: Array, values: Array, n_rows: int) -> str:
    """A table of exactly ``n_rows``: the rows given, then rows of zeros beyond the last wavelength."""
    lines = [f"{x:.6g} {row(v)}" for x, v in zip(lam, values, strict=True)]
    lines += [f"{int(lam[-1]) + i} {values.shape[1]}*0." for i in range(1, n_rows - len(lines) + 1)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Folder:
    """A folder under construction."""

    root: Path

    def __call__(self, name: str, text: str | NDArray[Any], same: Sequence[str] = ()) -> None:
        """Write a file; the names in ``same`` (same folder) are links to it, or copies where links fail."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text.tobytes())
        for other in same:
            link = path.parent / other
            link.unlink(missing_ok=True)
            try:
                link.symlink_to(path.name)
            except OSError:
                shutil.copyfile(path, link)


# -- files -------------------------------------------------------------------------------------------------------------


def write_isochrones(put: Folder) -> None:
    """13 files of 107 isochrones, each after a line that starts with #."""
    tags = [f"{'m' if z < 0 else 'p'}{round(abs(z) * 100):03d}" for z in FEH]
    put("ISOCHRONES/MIST/zlegend.dat", "".join(f"{tag}{z:6.2f}\n" for tag, z in zip(tags, FEH, strict=True)))
    form = "%.2f %.7g %.5g %.4f %.4f %.3f %.1f %d %d"
    for tag, z in zip(tags, FEH, strict=True):
        lines = []
        for log_age in LOG_AGE:
            lines.append("# log(age) Mini Mact logl logt logg C/O phase log(mdot)")
            lines += [form % (log_age, *star) for star in isochrone(log_age, z)]
        put(f"ISOCHRONES/MIST/isoc_feh_{tag}_afe_p0_vvcrit0.4_full.dat", "\n".join(lines) + "\n")


def write_stellar_library(put: Folder, lam: Array) -> None:
    """C3K_LR: Eddington fluxes B_nu/4, raw float32, wavelength fastest, then log T, then log g."""
    folder = "SPECTRA/C3K/c3k_lr/c3k_lr"
    put(f"{folder}.lambda", column(lam, "%.10g"))
    put(f"{folder}.res", column(np.full(N_WAVELENGTH, -1273.13), "%.2f"))
    put(f"{folder}_zlegend.dat", column(FEH, "%+.2f"))
    cool = [2500.0, 2800.0, 3000.0, 3200.0, 3500.0]
    teff = np.concatenate([cool, np.arange(3750.0, 13001.0, 250.0), np.arange(14000.0, 50001.0, 1000.0)])
    put("SPECTRA/C3K/c3k_lr/logt.dat", column(np.log10(teff), "%.4f"))
    put("SPECTRA/C3K/c3k_lr/logg.dat", column(-1.0 + 0.5 * np.arange(N_LOG_G), "%.1f"))
    cube = np.empty((N_LOG_G, N_LOG_T, N_WAVELENGTH), "<f4")
    for i, t in enumerate(teff):
        smooth = planck(lam, t)
        star = smooth * absorption(lam, t)
        star *= bolometric(smooth, lam) / bolometric(star, lam)
        cube[:, i] = np.maximum(star / 4, 1e-35)
    names = [f"c3k_lr_feh{z:+.2f}_afe+0.0.spec.bin" for z in FEH_SPECTRA]
    put(f"SPECTRA/C3K/c3k_lr/{names[0]}", cube, same=names[1:])


def write_special_stars(put: Folder) -> None:
    """Hot main-sequence stars (above log T = 4.4); post-AGB, Wolf-Rayet and AGB stars (not in the toy isochrones)."""
    hot, agb = "SPECTRA/Hot_spectra", "SPECTRA/AGB_spectra"
    lam = np.geomspace(91.0, 1.0e8, 360)

    def bodies(teff: Iterable[float], lam: Array) -> Array:
        return np.maximum(np.array([black_body(lam, t) for t in teff]).T, 1e-50)

    log_t = np.linspace(np.log10(25000.0), np.log10(50000.0), 11)
    metallicities = (0.0001, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.010, 0.014, 0.020, 0.030, 0.040)
    put(f"{hot}/WMBASIC.teff", column(log_t, "%.5f"))
    put(f"{hot}/WMBASIC_zlegend.dat", column(metallicities, "%.4f"))
    names = [f"WMBASIC_z{z:.4f}.spec" for z in metallicities]
    put(f"{hot}/{names[0]}", padded(lam, np.tile(bodies(10**log_t, lam), 3), N_WMBASIC), same=names[1:])

    teff = 50000.0 + 10000.0 * np.arange(14)
    put(f"{hot}/ipagb.teff", column(teff, "%.1f"))
    spectra = padded(lam[::3], bodies(teff, lam[::3]), N_POST_AGB)
    put(f"{hot}/ipagb_solar.spec", spectra, same=["ipagb_halo.spec"])

    log_t, few = np.linspace(4.60, 5.15, 12), np.geomspace(91.0, 1e8, 120)
    lines = [row([*few, *(1e8 + 1 + np.arange(N_WR - len(few)))], "%.7g")]
    stars = [f"{row(np.maximum(black_body(few, 10**t), 1e-60))} {N_WR - len(few)}*1E-60" for t in log_t]
    for z in (0.001, 0.004, 0.008, 0.020, 0.040):
        for t, star in zip(log_t, stars, strict=True):
            lines += [f"{t:.3f} {z:.3f}", star]
    put(f"{hot}/CMFGEN_WN.teff", column(log_t, "%.5f"), same=["CMFGEN_WC.teff"])
    put(f"{hot}/CMFGEN_WN_Zall.spec", "\n".join(lines) + "\n", same=["CMFGEN_WC_Zall.spec"])

    table = ["# color, Teff", "9.99 " + row(np.linspace(-2.0, 0.2, 22), "%.3f")]
    table += [f"1.0 22*{t:.0f}" for t in np.linspace(2500, 4000, 9)]
    put(f"{agb}/Orich.teff", "\n".join(table) + "\n")
    put(f"{agb}/Crich.teff", "# color, Teff\n" + column((2000, 2400, 2800, 3000, 3200), "1.0 %.0f"))
    put(f"{agb}/Crich_Aringer.teff", column(np.arange(2400, 4001, 200.0), "%.0f"))
    for name, n_rows, n_stars in (("Orich", N_AGB, 9), ("Crich", N_AGB, 5), ("Crich_Aringer", N_ARINGER, 9)):
        put(f"{agb}/{name}.spec", padded(np.array([90.0, 1e8]), np.full((2, n_stars), 1e-30), n_rows))


def write_other_spectra(put: Folder) -> None:
    """X-ray binaries (next to nothing), Vega and the Sun (black bodies)."""
    put("SPECTRA/xrb/xsp.lambda", column(1 + 2 * np.arange(N_XRB), "%d"))
    feh = (-1.3, -1.0, -0.8, -0.7, -0.5, -0.4, -0.3, -0.2, 0.0, 0.2, 0.3)
    names = [f"xsp_feh{z:+.2f}.spec" for z in feh]
    put(f"SPECTRA/xrb/{names[0]}", f"{N_XRB}*1E-60\n" * 10, same=names[1:])
    lam = np.geomspace(91.0, 1.0e8, N_SED)
    vega = planck(lam, 9600.0) * C_A / lam**2 * np.pi * (2.36 * R_SUN / (7.68 * PARSEC)) ** 2
    sun = planck(lam, 5772.0) * np.pi * (R_SUN / (10 * PARSEC)) ** 2
    for name, header, flux in (("A0V_KURUCZ_92", "# lambda Flambda\n", vega), ("SUN_STScI", "", sun)):
        lines = (f"{x:.6g} {f:.5E}\n" for x, f in zip(lam, flux, strict=True))
        put(f"SPECTRA/{name}.SED", header + "".join(lines))


def write_dust(put: Folder, lam: Array) -> None:
    """Emission by dust per mass (Draine & Li's shapes as grey bodies) and by tori; dust around AGB stars does nothing."""
    field_tenths = (1, 1.5, 2, 3, 4, 5, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 80, 120, 150, 200, 250)
    um = np.geomspace(1.0, 1.0e4, 161)
    pah = np.exp(-0.5 * ((um - 8.0) / 2.0) ** 2) + 1e-30
    # Heated by one intensity, and by a power law up to 10^6: thirteen times as bright.
    heated = [
        (u / 10, t * (u / 10) ** (1 / 6), bright) for u in field_tenths for t, bright in ((18.0, 1.0), (54.0, 4.5))
    ]
    bodies = [(u, bright, planck(um * 1e4, t) * (100.0 / um) ** 2) for u, t, bright in heated]
    for k, q_pah in enumerate((0.47, 1.12, 1.77, 2.50, 3.19, 3.90, 4.58)):
        rows = np.array([u * bright * (body / body.max() + 0.01 * q_pah * pah) for u, bright, body in bodies])
        put(f"dust/dustem/DL07_MW3.1_{k}0.dat", f"# toy dust emission\n#\n{padded(um, rows.T, N_DUST)}")

    # Flux out / flux in = 1 everywhere. The first wavelength must not lie below the first of the main grid.
    grid = [f"{t:.0f} {tau:.4f}\n2*1." for t in np.linspace(2000, 4500, 6) for tau in np.linspace(-5, 1.5, 50)]
    shells = "\n".join(["2", f"{lam[0]:.10g} {lam[-1]:.10g}", *grid]) + "\n"
    put("dust/dusty/Orich_dusty.spec", shells, same=["Crich_dusty.spec"])

    torus_lam = np.concatenate([lam[:1], np.geomspace(lam[0], 1e7, 125)[1:]])
    depths = (5, 10, 20, 30, 40, 60, 80, 100, 150)  # the deeper, the colder
    torus = np.array([black_body(torus_lam, 600.0 * depth**-0.25) + 1e-25 for depth in depths]).T
    rows = "".join(f"{x:.10g} {row(f, '%.4E')}\n" for x, f in zip(torus_lam, torus, strict=True))
    put("dust/Nenkova08_y010_torusg_n10_q2.0.dat", f"#\n#\n#\n{row(depths, '%g')}\n{rows}")

    depths, far = np.geomspace(0.25, 50, 18), np.linspace(1000, 30000, 25)  # Witt & Gordon
    lines = [f"{x:.1f} {tau:.2f} 6*{tau * (5500 / x) ** 0.7:.4f}" for tau in depths for x in far]
    put("dust/alldirty_h.dat", "\n".join(["#", "#", "#", *lines]) + "\n", same=["alldirty_c.dat"])
    smc = "".join(f"{x:.4f} {1 / x:.4f} {(0.55 / x) ** 1.2:.4f}\n" for x in np.geomspace(2.2, 0.1, 30))
    put("dust/Gordon03_table4.dat", smc)


def write_nebula(put: Folder) -> None:
    """166 lines of hydrogen at Rydberg's wavelengths, seven of them bright (case B).

    The one at 4863 A stands for [O III]: it depends on metallicity, age and ionisation; the others are the same in all nebulae.
    """
    rydberg = 1.0 / 1.0967758e-3  # A
    pairs = [(low, up) for low in range(1, 8) for up in range(low + 1, low + 26)]
    lines = sorted((rydberg / (1 / low**2 - 1 / up**2), low, up) for low, up in pairs)[:N_LINE]
    h_beta = 4.78e-13 / L_SUN  # Lsun per ionising photon
    bright = {(1, 2): 23.0, (2, 3): 2.86, (2, 4): 1.0, (2, 5): 0.468, (2, 6): 0.259, (3, 4): 0.332, (3, 5): 0.162}

    def line_row(z: float, age: float, u: float) -> str:
        oxygen = 10 ** (0.8 * (u + 2.5) + 0.5 * z) * (age / 1e6) ** -0.3
        light = {**bright, (2, 4): bright[2, 4] * (1 + 3 * oxygen)}
        strengths = groupby(h_beta * light.get((low, up), 0.0) for _, low, up in lines)
        return " ".join(f"{len(list(same))}*{strength:.3E}" for strength, same in strengths)

    lam = [90.0, 911.0, *np.geomspace(912.5, 1e8, N_CONTINUUM - 2)]

    log_z = (-1.98, -1.5, -0.98, -0.58, -0.39, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2)
    ages = (0.5e6, 1e6, 2e6, 3e6, 4e6, 5e6, 6e6, 7e6, 1e7, 2e7)
    grid = [(z, age, u) for z in log_z for age in ages for u in np.linspace(-4, -1, 7)]
    nodes = ["{:g} {:g} {:g}\n".format(*node) for node in grid]
    rows = "".join(f"{n}{line_row(*node)}\n" for n, node in zip(nodes, grid, strict=True))
    line_text = f"# toy lines\n{row([x for x, _, _ in lines], '%.6E')}\n{rows}"
    continuum = f"2*0. {N_CONTINUUM - 2}*1E-60\n"
    continuum_text = f"# toy continuum\n{row(lam, '%.6g')}\n" + "".join(n + continuum for n in nodes)
    put("nebular/ZAU_ND_mist.lines", line_text, same=["ZAU_WD_mist.lines"])
    put("nebular/ZAU_ND_mist.cont", continuum_text, same=["ZAU_WD_mist.cont"])
    put("data/emlines_info.dat", "".join(f"{x:.3f},H I {up}-{low}\n" for x, low, up in lines))


def write_bands(put: Folder) -> None:
    """159 top-hat bands, the first of them V (Vega's zero point); spectral indices; an initial mass function."""
    centres = np.concatenate([[5500.0], np.geomspace(1300.0, 5.0e6, N_BAND - 1)])
    numbered = list(enumerate(centres, start=1))
    hats = [f"# {i}\n{0.94 * c:.3f} 0.\n{0.95 * c:.3f} 1.\n{1.05 * c:.3f} 1.\n{1.06 * c:.3f} 0.\n" for i, c in numbered]
    names = [f"{i} {'V' if i == 1 else f'tophat_{i:03d}'} toy top-hat at {c:.0f} A\n" for i, c in numbered]
    put("data/allfilters.dat", "".join(hats))
    put("data/FILTER_LIST", "".join(names))
    put("data/magsun.dat", "".join(f"{i} 5.0 5.0\n" for i, _ in numbered))
    put("data/filter_lambda_eff.dat", "".join(f"{i} {c:.2f}\n" for i, c in numbered))
    windows = [c + np.array([0, 30, -40, -10, 40, 70]) for c in np.linspace(4100, 8600, N_INDEX)]
    put("data/allindices.dat", "#\n#\n#\n#\n" + "".join(f"{row(w, '%.1f')} 2\n" for w in windows))
    put("data/imf.dat", "0.08 0.50 1.3\n0.50 1.00 2.3\n1.00 100. 2.3\n")


def write(root: str | Path) -> Path:
    """Write a complete home into the folder ``root``, made if need be; return its absolute path."""
    root = Path(root).absolute()
    if len(str(root)) > 249:
        raise ValueError(f"FSPS reads 250 characters of SPS_HOME; {root} has {len(str(root))}")
    put, lam = Folder(root), wavelength_grid()
    write_isochrones(put)
    write_stellar_library(put, lam)
    write_special_stars(put)
    write_other_spectra(put)
    write_dust(put, lam)
    write_nebula(put)
    write_bands(put)
    (root / "OUTPUTS").mkdir(exist_ok=True)
    return root


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/helpers/mini_sps_home.py FOLDER")
    print(write(sys.argv[1]))
