"""simulate with FSPS itself: rows of a training set in, their fluxes out, every population of every galaxy a call of FSPS.

Rows are those of the table's engine: the same parameters, so that the two can be compared. A row on which FSPS fails has NaN
for fluxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.config.run_file import RunFile
from jobs.simulate.fsps_actor import FSPSActor, map_fsps
from jobs.simulate.ssp import load
from jobs.telemetry.progress import say
from sedflow_dist.simulation.shapes import draw_parameters
from sedflow_dist.sps.components import PROVABGS
from sedflow_dist.sps.filters import Band
from sedflow_dist.sps.fsps_engine import FSPSSettings, Nebula, band_fluxes
from storage_schemas import training_set
from storage_schemas.backend.chunked import ChunkedStore

#: Rows of one call of an actor: what is computed again, row by row, when it dies.
_BLOCK = 32


@dataclass(frozen=True)
class Block:
    """Simulated rows: arrays of the training set, and why the rows that have no fluxes have none."""

    rows: range
    arrays: dict[str, np.ndarray]
    failures: dict[int, str]


class FSPSSimulator(FSPSActor):
    """Computes fluxes of rows of a training set.

    Args:
        settings, home, logs: see `FSPSActor`
        run: run file
        provenance: of the run's SSP table, which this process' FSPS must be able to have made
    """

    def __init__(
        self, settings: FSPSSettings, home: str | None, logs: str, run: RunFile, provenance: dict[str, Any]
    ) -> None:
        super().__init__(settings, home, logs)
        self.run, self.provenance = run, provenance
        self.store = training_set.open(run.store("training"))
        self._drawn: tuple[int, tuple[np.ndarray, ...]] | None = None
        self.bands = [Band.load(name) for name in run.survey_definition.bands]

    def simulate(self, rows: range) -> Block:
        """Simulate rows.

        Raises:
            ValueError: the run's SSP table was made with another FSPS; names the difference
        """
        for name, value in self.fsps.provenance.items():
            if self.provenance.get(name) != value:
                raise ValueError(f"FSPS has {name} = {value!r} here, the run's SSP table {self.provenance.get(name)!r}")
        phi, theta, redshift = self._parameters(rows)
        per_mass = np.full((len(rows), len(self.bands)), np.nan, np.float32)
        failures = {}
        for i, row in enumerate(rows):
            try:
                per_mass[i] = self.fluxes(row, theta[i], float(redshift[i]))
            except (ValueError, RuntimeError, AssertionError) as error:
                failures[row] = str(error)
        return Block(rows, {"phi": phi, "per_mass": per_mass, "redshift": redshift}, failures)

    def _parameters(self, rows: range) -> list[np.ndarray]:
        """Take rows of a chunk, which is drawn once."""
        chunk = self.store.rows(rows.start // self.store.rows_per_chunk)
        if self._drawn is None or self._drawn[0] != chunk.start:
            self._drawn = chunk.start, draw_chunk(self.run, chunk)
        return [values[rows.start - chunk.start : rows.stop - chunk.start] for values in self._drawn[1]]

    def fluxes(self, row: int, theta: np.ndarray, redshift: float) -> np.ndarray:
        """Return fluxes (band,) [nanomaggies] of one galaxy."""
        wavelength, luminosity = self.fsps.galaxy_spectrum(theta, redshift, row)
        fluxes = band_fluxes(wavelength, luminosity, redshift, self.bands)
        if not (np.isfinite(fluxes).all() and (fluxes > 0).all()):
            raise ValueError(f"row {row}: FSPS gives fluxes {fluxes} for {theta} at redshift {redshift}")
        return fluxes


def draw_chunk(run: RunFile, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a whole chunk of the run's training set at once, see `draw_parameters`: as the table's engine does, bit by bit."""
    model = run.model
    drawn = draw_parameters(model.space, model.redshift, run.seed, "simulate", rows.start, rows.stop - rows.start)
    phi, theta, redshift = (values.numpy() for values in drawn)
    return phi, theta, redshift


def fill(run: RunFile, store: ChunkedStore, chunks: Sequence[int], on_rows: Callable[[int], Any]) -> None:
    """Fill chunks of the run's training set and say which rows have no fluxes.

    Raises:
        ValueError: the run's SSP table is not one of FSPS, so the likelihood would be that of other stars; or the galaxy
            model has components that FSPS is not asked for
    """
    if run.model.components != PROVABGS:
        raise ValueError(
            f"engine fsps simulates {', '.join(PROVABGS)}; the run's galaxy model has {', '.join(run.model.components)}: "
            "simulate with engine table"
        )
    provenance = load(run.store("ssp")).provenance
    settings = settings_of(provenance, run.model.birth_cloud_age)
    waiting: dict[int, dict[int, Block]] = {chunk: {} for chunk in chunks}
    failures: dict[int, str] = {}

    def take(block: Block) -> None:
        chunk = block.rows.start // store.rows_per_chunk
        parts, rows = waiting[chunk], store.rows(chunk)
        parts[block.rows.start] = block
        failures.update(block.failures)
        on_rows(len(block.rows))
        if sum(len(part.rows) for part in parts.values()) == rows.stop - rows.start:
            ordered = [parts[start].arrays for start in sorted(parts)]
            store.write(chunk, {name: np.concatenate([part[name] for part in ordered]) for name in ordered[0]})
            del waiting[chunk]

    def give_up(rows: range, words: str) -> None:
        chunk = store.rows(rows.start // store.rows_per_chunk)
        phi, _, redshift = (values[rows.start - chunk.start, None] for values in draw_chunk(run, chunk))
        per_mass = np.full((1, len(run.survey_definition.bands)), np.nan, np.float32)
        reason = f"row {rows.start}: given up after {run.engines.ray.tries} tries; {words}"
        take(Block(rows, {"phi": phi, "per_mass": per_mass, "redshift": redshift}, {rows.start: reason}))

    blocks = [
        range(first, min(first + _BLOCK, store.rows(chunk).stop))
        for chunk in chunks
        for first in range(store.rows(chunk).start, store.rows(chunk).stop, _BLOCK)
    ]
    ray = run.engines.ray
    deaths = map_fsps(FSPSSimulator, settings, (run, provenance), "simulate", blocks, ray, take, _one_by_one, give_up)
    for row in sorted(failures)[:5]:
        say("simulate", failures[row])
    if failures or deaths:
        say(
            "simulate",
            f"{len(failures):,} rows have no fluxes (NaN; training leaves them out); FSPS died {deaths} times",
        )


def settings_of(provenance: dict[str, Any], birth_cloud_age: float) -> FSPSSettings:
    """Return the settings with which FSPS made a table, with the run's birth clouds."""
    if provenance.get("code") != "FSPS":
        raise ValueError(
            f"engine fsps needs an SSP table of FSPS (ssp: {{source: fsps}}), and the run's is of "
            f"{provenance.get('code')}: its likelihood would be that of other stars"
        )
    nebula = provenance["nebular_emission"]
    return FSPSSettings(provenance["z_solar"], birth_cloud_age, Nebula(**nebula) if nebula else None, provenance["imf"])


def _one_by_one(rows: range) -> list[range]:
    return [range(row, row + 1) for row in rows]
