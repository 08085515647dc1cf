"""Redshifts of a RAIL file by BPZ and FlexZBoost, as RAIL runs them, written as ensembles that `photo_z_rail.py` judges too.

Arguments: the file, and a folder for bpz.hdf5 (CWW templates, the default), bpz_cosmos.hdf5 (31 templates of COSMOS) and
flexzboost.hdf5 (rows of even number, informed on those of odd number). Runs in an environment of its own: pip install pz-rail-bpz
pz-rail-flexzboost. BPZ's priors and templates are those that come with RAIL; it is not informed on the file.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import rail.examples_data
from rail.estimation.algos.bpz_lite import BPZliteEstimator
from rail.estimation.algos.flexzboost import FlexZBoostEstimator, FlexZBoostInformer

DATA = Path(rail.examples_data.__path__[0]) / "estimation_data" / "data"
GRID = {"zmin": 0.0, "zmax": 3.2, "nzbins": 321, "hdf5_groupname": ""}
TEMPLATES = {
    "bpz": ("CWWSB4.list", "CWW_HDFN_prior.pkl"),
    "bpz_cosmos": ("COSMOS_seds.list", "COSMOS31_HDFN_prior.pkl"),
}


def bpz(table: dict[str, np.ndarray], folder: Path) -> None:
    for name, (spectra, prior) in TEMPLATES.items():
        stage = BPZliteEstimator.make_stage(
            name=name, output=str(folder / f"{name}.hdf5"), spectra_file=spectra, model=str(DATA / prior), data_path=str(DATA),
            **GRID,
        )  # fmt: skip
        start = time.process_time()
        stage.estimate(table)
        print(f"{name}: CPU ms a galaxy {1e3 * (time.process_time() - start) / len(table['redshift']):.1f}", flush=True)


def flexzboost(table: dict[str, np.ndarray], folder: Path) -> None:
    even, odd = ({key: values[start::2] for key, values in table.items()} for start in (0, 1))
    informer = FlexZBoostInformer.make_stage(name="inform_flexzboost", model=str(folder / "flexzboost.pkl"), **GRID)
    model = informer.inform(odd)
    stage = FlexZBoostEstimator.make_stage(
        name="flexzboost", output=str(folder / "flexzboost.hdf5"), model=model, **GRID
    )
    stage.estimate(even)


def main() -> None:
    file, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(file) as content:
        table = {name: values[:] for name, values in content["photometry"].items()}
    os.chdir(folder)
    bpz(table, folder)
    flexzboost(table, folder)


if __name__ == "__main__":
    main()
