"""Photometry on S3 to a catalog on S3 with a shipped model: galaxies per second from one worker and from two, share of I/O.

The photometry is that of the 10,000 real galaxies, three times over; rows that need chains are left unanswered (routing is
measured by `mcmc.py`). The server is moto's, in a process of its own on the same machine: what it takes counts against us.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3
import numpy as np
from astropy.table import Table, vstack
from common import report

from cluster.settings import DaskSettings
from jobs.config import run_file, shipped
from jobs.config.sections import Inference
from jobs.containers.tables import KCORRECT_SAMPLE, resolve
from jobs.infer import infer, work
from jobs.ingest.job import ingest
from sedflow_dist.inference.settings import Routing
from storage_schemas import open_catalog, photometry
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

MODEL, ROWS_PER_SHARD, SEED, COPIES = "sdss", 1000, 1, 3
SETTINGS = Inference(n_draws=512, rows_per_shard=ROWS_PER_SHARD, routing=Routing(share=0))


def start_server() -> subprocess.Popen[bytes]:
    """Start an S3 server on loopback, point the environment at it and make the bucket galaxies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    while True:
        try:
            urllib.request.urlopen(endpoint)
            break
        except OSError:
            time.sleep(0.2)
    boto3.client("s3").create_bucket(Bucket="galaxies")
    return server


def io_seconds(root: Location, source: Location, answered: Location) -> float:
    """Return the seconds that a task's reading and writing takes, of one shard, best of three."""
    store, wanted = photometry.open(source), work(source, shipped.model(MODEL), SETTINGS, SEED)
    rows = wanted.layout.shards.rows(0)
    data = open_catalog(answered).isel(galaxy=slice(rows.start, rows.stop)).load()
    seconds = []
    for number in range(3):
        repo = catalog.repository(root / f"io{number}", create=True)
        branch = releases.stage(repo, wanted.run_id, wanted.layout, wanted.run, wanted.files)
        fork = repo.writable_session(branch).fork()
        start = time.perf_counter()
        read = store.read_rows(rows, (*photometry.DATA, *photometry.PASSED, *photometry.id_arrays(wanted.layout.ids)))
        rest = {
            name: data[name].values for name in data.data_vars if data[name].dims[0] == "galaxy" and name not in read
        }
        values = {**read, **rest}
        catalog.write_shard(fork, rows, 0, wanted.keys[0], values)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    server = start_server()
    try:
        root = Location.parse("s3://galaxies/benchmark")
        source = root / "photometry"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "galaxies.fits")
            vstack([Table.read(resolve(KCORRECT_SAMPLE))] * COPIES).write(path)
            ingest(path, run_file.survey("sdss"), source, ROWS_PER_SHARD)
        n_rows = photometry.open(source).n_rows
        rates = {}
        for workers in (2, 1):
            out = root / f"catalog{workers}"
            start = time.perf_counter()
            infer(source, shipped.model(MODEL), out, SETTINGS, SEED, DaskSettings(workers=workers))
            rates[workers] = n_rows / (time.perf_counter() - start)
            report(f"{workers} workers, start and end included", f"{rates[workers]:,.0f} galaxies/s")
        data = open_catalog(root / "catalog2")
        answered = data["method"].values > 0
        effective = np.median(data["effective_draws"].values[answered])
        report("two workers against one", f"{rates[2] / rates[1]:.2f}")
        report("median effective draws; rows without an answer", f"{effective:,.0f}; {np.mean(~answered):.2%}")
        seconds = io_seconds(root, source, root / "catalog2")
        share = seconds / (ROWS_PER_SHARD / rates[1])
        report("reading and writing a shard", f"{seconds:.2f} s, {share:.1%} of a worker's time")
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
