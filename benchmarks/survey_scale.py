"""Survey scale: a synthetic catalog of N rows is ingested, answered with a small flow (quantiles only) and exported.

Arguments: a folder, then numbers of rows. Prints rows per second and the largest memory of any process for each stage.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import torch
import yaml
from common import report

from jobs.config.run_file import RunFile
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.simulation.shapes import draw_shapes
from storage_schemas import model

BANDS, FILE_ROWS, SHAPES = "ugriz", 500_000, 200_000
SURVEY = {
    "name": "synthetic", "bands": [f"sdss2010-{b}" for b in BANDS], "labels": list(BANDS), "flux": [f"f_{b}" for b in BANDS],
    "error": [f"e_{b}" for b in BANDS], "error_kind": "sigma", "model_error": 0.0, "redshift": "z", "ra": "ra", "dec": "dec",
    "ids": ["objectid"],
}  # fmt: skip


def write_input(folder: Path, n_rows: int, flow: TrainedModel) -> None:
    """Write galaxies of the forward model with the survey's noise as Parquet files, at positions anywhere on the sky."""
    shapes = draw_shapes(flow.redshift_model.model, flow.space, flow.spec.redshift, 1, "scale", 0, SHAPES)
    survey = flow.survey(0.05)
    for first in range(0, n_rows, FILE_ROWS):
        path = folder / f"part-{first // FILE_ROWS:04d}.parquet"
        if path.exists():
            continue
        n = min(FILE_ROWS, n_rows - first)
        mocks = survey.observe(shapes, n, torch.Generator().manual_seed(first))
        rng = np.random.default_rng(first)
        columns = {"objectid": np.arange(first, first + n), "ra": rng.uniform(0, 360, n),
                   "dec": np.rad2deg(np.arcsin(rng.uniform(-1, 1, n))), "z": mocks.photometry.redshift.numpy()}  # fmt: skip
        seen = mocks.photometry
        sigma = torch.where(seen.mask, seen.sigma, torch.nan)
        for i, band in enumerate(BANDS):
            columns |= {f"f_{band}": seen.flux[:, i].numpy(), f"e_{band}": sigma[:, i].numpy()}
        pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=100_000)


@contextmanager
def watched(stage: str, n_rows: int) -> Iterator[None]:
    """Report the seconds of a stage and the largest memory of any one process below this one."""
    peak, stop = [0.0], threading.Event()

    def poll() -> None:
        while not stop.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    peak[0] = max(peak[0], process.memory_info().rss / 1e9)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=poll)
    thread.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        thread.join()
    report(f"{stage}, {n_rows:,} rows", f"{n_rows / seconds:>9,.0f} rows/s {seconds:>7.0f} s {peak[0]:>6.2f} GB")


def sedflow(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "jobs.cli", *map(str, arguments)], check=True, stdout=sys.stderr)


def small_flow(root: Path) -> Path:
    """Train a flow of two blocks of 2 x 32 units that knows the amplitude, on the demo's survey."""
    content = {
        "name": "scale", "root": str(root / "small"), "input": "kcorrect-sample", "simulation": {"n_galaxies": SHAPES},
        "flow": {"preset": "paper", "transforms": 2, "hidden": 32},
        "training": {"steps": 3000, "learning_rate": 0.005, "threads": 1},
    }  # fmt: skip
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    if not model.is_finished(RunFile.load(path).store("model")):
        sedflow("ingest", "kcorrect-sample", "--out", root / "small/photometry")
        for stage in ("build-ssp --out " + str(root / "small/ssp"), f"simulate {path}", f"train {path}"):
            sedflow(*stage.split())
    return root / "small/model"


def main() -> None:
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    where = small_flow(root)
    flow = TrainedModel.from_bytes(*model.read(RunFile.load(root / "small.yaml").store("model")))
    declared = {"name": "scale", "root": str(root), "input": "none", "survey": SURVEY}
    (root / "survey.yaml").write_text(yaml.safe_dump(declared))
    for n_rows in map(int, sys.argv[2:]):
        folder = root / f"{n_rows}"
        (folder / "input").mkdir(parents=True, exist_ok=True)
        write_input(folder / "input", n_rows, flow)
        with watched("ingest", n_rows):
            sedflow("ingest", folder / "input/*.parquet", "--survey", root / "survey.yaml", "--out", folder / "photometry",
                    "--rows-per-chunk", 32768)  # fmt: skip
        with watched("infer", n_rows):
            sedflow("infer", folder / "photometry", "--model", where, "--out", folder / "catalog", "--draws", 64,
                    "--no-certificate", "--rows-per-shard", 32768)  # fmt: skip
        for out in ("catalog.parquet", "catalog_hats"):
            with watched(f"export {out}", n_rows):
                sedflow("export", folder / "catalog", folder / out)


if __name__ == "__main__":
    main()
