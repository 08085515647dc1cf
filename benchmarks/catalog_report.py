"""The report of catalogs of N made rows: seconds, and the process's largest memory. Arguments: a folder, then numbers of rows."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from common import peak_memory_mb, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import made_catalog

from jobs.report import job
from storage_schemas.backend.location import Location

ROWS_PER_SHARD = 32_768


def main(folder: str, *sizes: str) -> None:
    before = peak_memory_mb()
    for n_rows in map(int, sizes):
        where = Location.parse(f"{folder}/catalog-{n_rows}")
        if not where.exists():  # making one takes more memory than reading it: run again for that of the report
            made_catalog.publish(where, n_rows, ROWS_PER_SHARD, in_healpix_order=False)
        wall, cpu = time.perf_counter(), time.process_time()
        job.report(where, f"{folder}/report-{n_rows}-{time.time_ns()}")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures = f"{wall:.0f} s, of a core {cpu:.0f}; memory {peak_memory_mb():.0f} MB, {before:.0f} after imports"
        report(f"report of {n_rows:,} rows", figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
