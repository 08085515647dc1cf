"""A tiny run of the whole chain on real galaxies with planted bad rows, and what its stores hold."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import yaml
import zarr
from astropy.table import Table

from jobs.config.run_file import RunFile
from jobs.containers.tables import resolve
from storage_schemas import model, training_set
from storage_schemas.backend.location import Location
from storage_schemas.catalog import schema as catalog

#: Planted rows and what is wrong with them.
NAN_FLUX, NO_ERRORS, NO_REDSHIFT, FAR, NEGATIVE_REDSHIFT, NEGATIVE_FLUX, INFINITE = range(10, 17)
N_ROWS = 500


def write_input(path):
    """Write 500 galaxies of the kcorrect sample as FITS, seven of them spoilt."""
    table = Table.read(resolve("kcorrect-sample"))[:N_ROWS]
    table["MODELFLUX"][NAN_FLUX, 0] = np.nan
    table["MODELFLUX_IVAR"][NO_ERRORS, :3] = 0.0
    table["Z"][NO_REDSHIFT] = np.nan
    table["Z"][FAR] = 0.7  # beyond the galaxy model, too
    table["Z"][NEGATIVE_REDSHIFT] = -1.0
    table["MODELFLUX"][NEGATIVE_FLUX, 0] = -1.0
    table["MODELFLUX_IVAR"][INFINITE, 4] = np.inf
    table.write(path)
    return path


def settings(root, source, **sections):
    """Return a tiny run; ``sections`` replace whole sections of the run file."""
    content = {
        "name": "tiny", "root": str(root), "input": str(source), "survey": "sdss", "seed": 7,
        "simulation": {"n_galaxies": 12_000, "rows_per_chunk": 3_000},
        "flow": {"transforms": 2, "hidden": 20},
        "training": {"steps": 40, "batch": 256, "validate_every": 10, "validation_galaxies": 256, "threads": 1},
        "inference": {
            "n_draws": 64, "rows_per_shard": 100, "commit_every": 2, "keep_draws": 5,
            "routing": {"share": 0.0, "more_draws": 1},  # this flow answers few rows well
        },
        "validation": {"n_galaxies": 50, "n_draws": 64},
    }  # fmt: skip
    return RunFile.model_validate({**content, **sections})


def contents(run):
    """Return every array of every store of a run, and the model's bytes, by name."""
    found = {}
    for name in ("ssp", "photometry", "training", "validation"):
        for key, value in zarr.open_group(run.store(name).zarr(True), mode="r").members():
            found[f"{name}/{key}"] = np.asarray(value[...])
    group = zarr.open_group(catalog.store(run.store("catalog")), mode="r")
    found |= {f"catalog/{key}": np.asarray(value[...]) for key, value in group.members()}
    weights, spec = model.read(run.store("model"))
    return found | {"model/weights": np.frombuffer(weights, np.uint8), "model/spec": np.frombuffer(spec, np.uint8)}


def assert_same(one, other, names=None):
    """Bit by bit: NaNs have to agree in their bits too."""
    if names is None:
        assert one.keys() == other.keys()
    for name in names or one:
        a, b = one[name], other[name]
        if a.dtype.kind == "T":
            assert a.tolist() == b.tolist(), name
        else:
            assert a.tobytes() == b.tobytes(), name


def write(run, path):
    """Write a run as a run file, and where its engines are as a profile beside it; return the arguments of a command."""
    content = json.loads(run.model_dump_json())
    profile = path.with_name(f"{path.stem}-profile.yaml")
    profile.write_text(yaml.safe_dump(content.pop("engines")))
    path.write_text(yaml.safe_dump(content))
    return [str(path), "--profile", str(profile)]


def start(command, run, folder):
    """Start ``sedflow command run.yaml`` in a session of its own, so that it can be killed with all it started."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", command, *write(run, folder / f"{command}.yaml")], start_new_session=True,
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_when(process, condition, seconds=240.0):
    """SIGKILL the process and all its children as soon as ``condition()`` holds; it must not have ended before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.02)
    family = [process.pid, *_descendants(process.pid)]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _descendants(pid):
    """Process ids of all children, theirs, and so on."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        todo += (kids := children.get(todo.pop(), []))
        found += kids
    return found


def location(path):
    return Location.parse(str(path))


def training_arrays(run):
    group = training_set.open(run.store("training")).group
    return {name: np.asarray(group[name][:]) for name in (*training_set.NAMES, "chunk_digest")}
