"""Rows to a HATS catalog, which LSDB opens: a Parquet file for every HEALPix pixel, pixels as large as their rows allow.

Rows of a block go to a spool file of their pixel; a pixel whose last row has come is sorted and written. From a catalog in
HEALPix order one or two spools are open at a time; from another order as many as there are pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jobs.export import arrow
from jobs.export.rows import HEALPIX, Rows
from jobs.export.whole import Destination, destination, whole_folder
from jobs.telemetry.progress import say

ROWS_PER_PARTITION = 100_000  # at most: what one partition takes in memory
_FINEST = 8  # order of the finest partitions: 0.2 deg
_ORDER = 29
_PROPERTIES = ("hats.properties", "properties")  # by which a reader knows a HATS catalog


def write(rows: Rows, out: Destination) -> None:
    """Write a HATS catalog into the folder ``out``, or below it in a bucket.

    Rows without a position have no place in it; their number is told.

    Raises:
        ValueError: ``out`` exists, the ``hats`` package is not installed, or no row has a position.
    """
    try:
        import hats.io
        from hats.catalog import PartitionInfo, TableProperties
        from hats.io.paths import new_pixel_catalog_file
        from hats.io.skymap import write_skymap
        from hats.pixel_math import HealpixPixel
    except ImportError as error:
        raise ValueError("HATS needs the hats package: pip install 'sedflow-dist[export]'") from error
    counts, lost = _count(rows)
    if not counts.any():
        raise ValueError(f"none of {rows.n_rows:,} rows has a position: HATS cannot hold them")
    home, sizes = _partitions(counts)
    fields, where = arrow.schema(rows), destination(out)
    with whole_folder(where, last=_PROPERTIES) as folder:
        spools: dict[int, _Spool] = {}
        for block in rows.blocks():
            content = arrow.table(block, fields)
            pixel = block[HEALPIX]
            partition = np.where(pixel >= 0, home[np.maximum(pixel, 0) >> 2 * (_ORDER - _FINEST)], -1)
            for number in np.unique(partition[partition >= 0]).tolist():
                order, cell, size = sizes[number]
                if number not in spools:
                    spools[number] = _Spool(folder / f"{number}.spool", fields)
                if spools[number].add(content.filter(pa.array(partition == number))) == size:
                    path = new_pixel_catalog_file(folder, HealpixPixel(order, cell))
                    pyarrow.parquet.write_table(spools.pop(number).take().sort_by(HEALPIX), str(path))
        partitions = PartitionInfo.from_healpix([HealpixPixel(order, cell) for order, cell, _ in sizes])
        partitions.write_to_file(catalog_path=folder)
        write_skymap(counts, folder)
        total = hats.io.write_parquet_metadata(folder)
        TableProperties(
            catalog_name=where.url.rpartition("/")[2], catalog_type="object", total_rows=total,
            ra_column="ra", dec_column="dec",
            healpix_column=HEALPIX, healpix_order=_ORDER, hats_max_rows=ROWS_PER_PARTITION,
            moc_sky_fraction=partitions.calculate_fractional_coverage(), skymap_order=_FINEST,
            **TableProperties.new_provenance_dict(folder, builder="sedflow-dist"),
        ).to_properties_file(folder)  # fmt: skip
    if lost:
        say("export", f"{lost:,} rows without a position are not in {where}")


class _Spool:
    """Rows of one partition on their way: an Arrow stream in a file."""

    def __init__(self, path: Path, fields: pa.Schema) -> None:
        self._path, self._n_rows = path, 0
        self._file = pa.OSFile(str(path), "w")
        self._writer = pa.ipc.new_stream(self._file, fields)

    def add(self, content: pa.Table) -> int:
        """Append rows and return how many there are."""
        self._writer.write_table(content)
        self._n_rows += content.num_rows
        return self._n_rows

    def take(self) -> pa.Table:
        """Return all rows and delete the file."""
        self._writer.close()
        self._file.close()
        with pa.OSFile(str(self._path)) as file:
            content = pa.ipc.open_stream(file).read_all()
        self._path.unlink()
        return content


def _count(rows: Rows) -> tuple[np.ndarray, int]:
    """Rows in each pixel of the finest order, and rows without a position."""
    counts = np.zeros(12 << 2 * _FINEST, np.int64)
    for block in rows.blocks([HEALPIX]):
        pixel = block[HEALPIX]
        counts += np.bincount(pixel[pixel >= 0] >> 2 * (_ORDER - _FINEST), minlength=len(counts))
    return counts, rows.n_rows - int(counts.sum())


def _partitions(counts: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """For each pixel of the finest order the number of its partition, and (order, pixel, rows) of each partition.

    A partition is the largest pixel that holds at most `ROWS_PER_PARTITION` rows, or one of the finest order.
    """
    from hats.pixel_math import generate_alignment

    limit = max(ROWS_PER_PARTITION, int(counts.max()))
    alignment: Any = generate_alignment(counts, highest_order=_FINEST, threshold=limit)
    numbers: dict[tuple[int, int, int], int] = {}
    destination = np.full(len(counts), -1)
    for pixel in np.flatnonzero(counts):
        order, cell, size = (int(x) for x in alignment[pixel])
        destination[pixel] = numbers.setdefault((order, cell, size), len(numbers))
    return destination, list(numbers)
