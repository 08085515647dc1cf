"""Reading catalogs: FITS, Parquet and CSV as columns of numpy arrays, whatever the container.

A column of vectors is addressed as ``NAME[i]``; in CSV that is the header itself. Names match in any case.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

#: Spellings of flux units that catalogs use, and what they mean.
_UNITS = {
    "nanomaggy": "nanomaggy", "nanomaggies": "nanomaggy", "nmgy": "nanomaggy", "nmaggy": "nanomaggy",
    "njy": "nJy", "maggy": "maggy", "maggies": "maggy", "mgy": "maggy", "jy": "Jy", "mjy": "mJy", "ujy": "uJy",
    "mag": "mag", "count": "counts", "counts": "counts",
}  # fmt: skip
KCORRECT_SAMPLE = "kcorrect-sample"


class Table:
    """Columns of a catalog and their units.

    Raises:
        FileNotFoundError, ValueError: no such file; not one of the formats; no rows. Says what was found.
    """

    def __init__(self, source: str | Path) -> None:
        self.path = resolve(source)
        suffix = self.path.suffix.lower()
        if suffix in (".fits", ".fit", ".gz"):
            self._columns, self._units = _read_fits(self.path)
        elif suffix in (".parquet", ".pq"):
            self._columns, self._units = _read_arrow(self.path, "parquet")
        elif suffix == ".csv":
            self._columns, self._units = _read_arrow(self.path, "csv")
        else:
            raise ValueError(f"{self.path}: format {suffix or '(none)'} is not one of .fits, .parquet, .csv")
        self._names = {name.lower(): name for name in self._columns}
        self.n_rows = len(next(iter(self._columns.values()))) if self._columns else 0
        if not self.n_rows:
            raise ValueError(f"{self.path} holds no rows (columns: {', '.join(self._columns) or 'none'})")

    def require(self, names: Iterable[str]) -> None:
        """Raise ValueError, naming what is missing and what was found, unless all columns are there."""
        missing = [name for name in names if not self._has(name)]
        if missing:
            raise ValueError(
                f"{self.path} lacks {', '.join(missing)}; its columns are {', '.join(self._columns)}. "
                "A survey's column map can be declared in the run file"
            )

    def column(self, name: str) -> np.ndarray:
        """Return a column; ``NAME[i]`` is one entry of a column of vectors."""
        if name.lower() in self._names:
            return self._columns[self._names[name.lower()]]
        base, _, index = name.partition("[")
        if base.lower() not in self._names:
            raise ValueError(f"{self.path} lacks {name}; its columns are {', '.join(self._columns)}")
        values = self._columns[self._names[base.lower()]]
        i = int(index.rstrip("]"))
        if values.ndim != 2 or values.shape[1] <= i:
            raise ValueError(f"{self.path}: {base} has shape {values.shape[1:]} per row; {name} is asked for")
        return values[:, i]

    def numbers(self, names: Iterable[str]) -> np.ndarray:
        """Return columns as float64, shape (row, column); what is no number is NaN."""
        return np.stack([_as_float(self.column(name), self.path, name) for name in names], axis=1)

    def check_unit(self, name: str, expected: str) -> None:
        """Raise ValueError if the catalog itself says that a column has another unit."""
        unit = self._units.get(self._names.get(name.partition("[")[0].lower(), ""))
        found = _UNITS.get((unit or "").strip().lower())
        if found and found != expected:
            raise ValueError(f"{self.path}: {name} is in {unit}; the survey's column map expects {expected}")

    def _has(self, name: str) -> bool:
        return name.lower() in self._names or name.partition("[")[0].lower() in self._names


def resolve(source: str | Path) -> Path:
    """Return the path of a catalog; ``kcorrect-sample`` is the 10,000 SDSS galaxies that kcorrect carries."""
    if str(source) == KCORRECT_SAMPLE:
        package = importlib.util.find_spec("kcorrect")
        if package is None or not package.submodule_search_locations:
            raise FileNotFoundError(
                "the sample of SDSS galaxies comes with the kcorrect package: pip install 'sedflow-dist[demo]'"
            )
        return Path(package.submodule_search_locations[0]) / "data/test/gst_tests_small.fits"
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no catalog {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    return path


def _read_fits(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str | None]]:
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as hdus:
            tables = [h for h in hdus if isinstance(h, fits.BinTableHDU)]
            if not tables:
                raise ValueError(f"{path} holds no binary table; its HDUs are {[h.name for h in hdus]}")
            data, columns = tables[0].data, tables[0].columns
            values = {c.name: _native(np.asarray(data[c.name])) for c in columns}
            return values, {c.name: c.unit for c in columns}
    except OSError as error:
        raise ValueError(f"{path} is not a FITS file: {error}") from error


def _read_arrow(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, str | None]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path) if kind == "parquet" else pyarrow.csv.read_csv(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a {kind} file: {error}") from error
    columns, units = {}, {}
    for field, column in zip(table.schema, table.columns, strict=True):
        units[field.name] = ((field.metadata or {}).get(b"unit") or b"").decode() or None
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            columns[field.name] = _vectors(column.to_pylist())
        else:
            columns[field.name] = column.to_numpy()
    return columns, units


def _vectors(rows: list[list[object] | None]) -> np.ndarray:
    """A column of vectors as (row, entry); what is no table of numbers stays a column of objects, in case nobody asks."""
    try:
        return np.array(rows, dtype=float)
    except (TypeError, ValueError):
        column = np.empty(len(rows), dtype=object)
        column[:] = rows
        return column


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "iuf" else values


def _as_float(values: np.ndarray, path: Path, name: str) -> np.ndarray:
    if values.ndim != 1:
        raise ValueError(f"{path}: column {name} has {values.shape[1]} entries per row; ask for one, as {name}[0]")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        bad = next(v for v in values if not _is_number(v))
        raise ValueError(f"{path}: column {name} holds {bad!r}, which is no number") from None


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
