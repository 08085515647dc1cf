"""The doctor of SPS_HOME: a folder in, what is wrong with it out, before FSPS meets it.

FSPS cannot be asked: its Fortran ends the process with exit status 0 where a file is missing, and reads truncated
spectra or nebular tables without a word. So files are checked one by one, and a subprocess must show one good spectrum.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REMEDY = "git clone https://github.com/cconroy20/fsps && export SPS_HOME=$PWD/fsps"
#: FSPS keeps SPS_HOME in CHARACTER(250).
LONGEST_PATH = 249

# Sizes that are compiled into the wheel of python-fsps (MIST isochrones, C3K_LR spectra, DL07 dust emission).
_N_ISOCHRONES = 107
#: metallicities, ages and wavelengths of FSPS's SSPs
GRID_SHAPE = (13, _N_ISOCHRONES, 1936)
_SPECTRA_BYTES = 1936 * 80 * 14 * 4  # wavelength, log T, log g, float32
_NEBULAR_NODES = 11 * 10 * 7  # metallicity, age, log U; each is three numbers and then a row of values

_FEH = [round(-2.5 + 0.25 * i, 2) for i in range(13)]
_ISOCHRONES = [
    f"ISOCHRONES/MIST/isoc_feh_{'m' if z < 0 else 'p'}{round(abs(z) * 100):03d}_afe_p0_vvcrit0.4_full.dat" for z in _FEH
]
_SPECTRA = [f"SPECTRA/C3K/c3k_lr/c3k_lr_feh{z:+.2f}_afe+0.0.spec.bin" for z in _FEH[:11]]
_NEBULAR_WIDTHS = {"nebular/ZAU_ND_mist.lines": 166, "nebular/ZAU_ND_mist.cont": 1963}
_WMBASIC_Z = (0.0001, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.014, 0.02, 0.03, 0.04)
_XRB_FEH = (-1.3, -1.0, -0.8, -0.7, -0.5, -0.4, -0.3, -0.2, 0.0, 0.2, 0.3)

#: Every file that `import fsps` and the first StellarPopulation open, relative to SPS_HOME.
FILES = (
    "data/emlines_info.dat", "data/FILTER_LIST", "data/allfilters.dat", "data/allindices.dat",
    "ISOCHRONES/MIST/zlegend.dat", *_ISOCHRONES,
    *(f"SPECTRA/C3K/c3k_lr/{n}" for n in ("c3k_lr.lambda", "c3k_lr.res", "c3k_lr_zlegend.dat", "logt.dat", "logg.dat")),
    *_SPECTRA,
    "SPECTRA/Hot_spectra/WMBASIC.teff", "SPECTRA/Hot_spectra/WMBASIC_zlegend.dat",
    *(f"SPECTRA/Hot_spectra/WMBASIC_z{z:.4f}.spec" for z in _WMBASIC_Z),
    *(f"SPECTRA/Hot_spectra/ipagb{n}" for n in (".teff", "_solar.spec", "_halo.spec")),
    *(f"SPECTRA/Hot_spectra/CMFGEN_{star}{n}" for star in ("WN", "WC") for n in (".teff", "_Zall.spec")),
    *(f"SPECTRA/AGB_spectra/{n}.{kind}" for n in ("Orich", "Crich", "Crich_Aringer") for kind in ("teff", "spec")),
    "SPECTRA/xrb/xsp.lambda", *(f"SPECTRA/xrb/xsp_feh{z:+.2f}.spec" for z in _XRB_FEH),
    "SPECTRA/A0V_KURUCZ_92.SED", "SPECTRA/SUN_STScI.SED",
    *(f"dust/dustem/DL07_MW3.1_{k}0.dat" for k in range(7)),
    "dust/dusty/Orich_dusty.spec", "dust/dusty/Crich_dusty.spec", "dust/Nenkova08_y010_torusg_n10_q2.0.dat",
    "dust/alldirty_h.dat", "dust/alldirty_c.dat", "dust/Gordon03_table4.dat",
    *_NEBULAR_WIDTHS,
)  # fmt: skip


def check_home(path: str | None) -> list[str]:
    """Return what is wrong with an SPS_HOME, one sentence with its remedy each; an empty list if nothing is.

    Args:
        path: value of SPS_HOME; None if it is not set

    >>> check_home(None)[0][:20]
    'SPS_HOME is not set;'
    """
    if not path:
        return [f"SPS_HOME is not set; FSPS needs the data of its repository: {REMEDY}"]
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        return [
            f"SPS_HOME has {length} characters and FSPS reads {LONGEST_PATH}, so it would not find its files; "
            "reach the folder by a shorter path: ln -s $SPS_HOME ~/fsps && export SPS_HOME=~/fsps"
        ]
    home = Path(path)
    if not home.is_absolute():
        return [
            f"SPS_HOME is {path}, which other processes would look for elsewhere; export SPS_HOME={home.absolute()}"
        ]
    if not home.is_dir():
        return [f"SPS_HOME is {path}, which is not a directory; FSPS needs the data of its repository: {REMEDY}"]
    absent = [name for name in FILES if not os.access(home / name, os.R_OK) or not (home / name).stat().st_size]
    problems = []
    if absent:
        which = (
            f"{absent[0]} is" if len(absent) == 1 else f"{len(absent)} of the {len(FILES)} files ({absent[0]}, ...) are"
        )
        problems.append(f"{which} missing, empty or unreadable in {path}; get a complete copy: {REMEDY}")
    for names, complain in ((_SPECTRA, _spectra), (_ISOCHRONES, _isochrones), (_NEBULAR_WIDTHS, _nebula)):
        complaints = [text for name in names if name not in absent and (text := complain(home / name))]
        if complaints:
            more = f" (and {len(complaints) - 1} more files are like it)" if len(complaints) > 1 else ""
            problems.append(f"{complaints[0]}{more}; get a complete copy: {REMEDY}")
    return problems


def _spectra(path: Path) -> str | None:
    size = path.stat().st_size
    return None if size == _SPECTRA_BYTES else f"{path} has {size:,} bytes instead of {_SPECTRA_BYTES:,}"


def _isochrones(path: Path) -> str | None:
    """Count as FSPS does: runs of rows that follow a line which starts with #."""
    n = len(re.findall(rb"^[ \t]*#[^\n]*\n(?=\s*[^#\s])", path.read_bytes(), re.MULTILINE))
    return None if n == _N_ISOCHRONES else f"{path} holds {n} isochrones instead of {_N_ISOCHRONES}"


def _nebula(path: Path) -> str | None:
    """Count the numbers after the header line, in Fortran's notation: ``3*0.`` is three of them."""
    _, _, text = path.read_bytes().partition(b"\n")
    tokens = text.split()
    n = len(tokens) + sum(int(t.partition(b"*")[0]) - 1 for t in tokens if b"*" in t)
    width = _NEBULAR_WIDTHS[f"nebular/{path.name}"]
    expected = width + _NEBULAR_NODES * (3 + width)
    return None if n >= expected else f"{path} holds {n:,} numbers of the {expected:,} that FSPS reads"


@dataclass(frozen=True)
class ProbeResult:
    """What a subprocess made of a home.

    Attributes:
        ok: it printed its token after a spectrum that is finite and positive; the exit status says nothing
        message: one sentence; of a failure with FSPS's own words and the remedy
        seconds: until its answer
        output: everything that it printed
        facts: version of python-fsps and libraries, as FSPS reports them
    """

    ok: bool
    message: str
    seconds: float
    output: str
    facts: dict[str, Any] = field(default_factory=dict)


_PROBE = """
import json, sys
import numpy as np
import fsps
population = fsps.StellarPopulation(zcontinuous=1, imf_type=1, sfh=0)
_, spectrum = population.get_spectrum(tage=1.0)
bad = int(np.sum(~(np.isfinite(spectrum) & (spectrum > 0))))
if bad:
    sys.exit(f"{bad} of the {len(spectrum)} values of a spectrum are not finite and positive")
facts = {"python_fsps": fsps.__version__, "libraries": [name.decode().strip() for name in population.libraries]}
print("\\n" + sys.argv[1] + json.dumps(facts), flush=True)
"""


def probe(path: str | None, timeout: float = 300.0) -> ProbeResult:
    """Let a subprocess import FSPS on a home and compute one spectrum.

    Args:
        path: value of SPS_HOME; None if it is not set
        timeout: seconds after which it has failed; a real home takes about ten
    """
    token = secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if name != "SPS_HOME"}
    if path is not None:
        environment["SPS_HOME"] = path
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:  # Fortran leaves fort.91 and the like where it fails
        try:
            child = subprocess.run(
                [sys.executable, "-c", _PROBE, token], env=environment, cwd=scratch, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout,
            )  # fmt: skip
            output, end = child.stdout, f"exit status {child.returncode}"
        except subprocess.TimeoutExpired as expired:
            output = (expired.stdout or b"").decode(errors="replace")
            end = f"no answer in {timeout:g} s"
    seconds = time.perf_counter() - start
    answer = re.search(rf"^{token}(.*)$", output, re.MULTILINE)
    if answer:
        facts = json.loads(answer[1])
        libraries = ", ".join(facts["libraries"])
        message = f"FSPS (python-fsps {facts['python_fsps']}; {libraries}) gave a good spectrum in {seconds:.1f} s"
        return ProbeResult(True, message, seconds, output.replace(token, ""), facts)
    if "No module named 'fsps'" in output:
        message = "python-fsps is not installed: pip install 'sedflow-dist[fsps]'"
    else:
        where = path or "an SPS_HOME that is not set"
        message = f"FSPS gave no spectrum on {where} ({end}); it said: {_gist(output)}; get a complete copy: {REMEDY}"
    return ProbeResult(False, message, seconds, output)


def _gist(output: str) -> str:
    """What matters of a Fortran STOP, a Fortran runtime error (which ends in a backtrace) or a Python traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    lines = [line for line in lines if not line.startswith(("#", "Error termination"))]
    return " / ".join(lines[-3:]) or "nothing"
