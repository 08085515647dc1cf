"""Whether photometry is that of galaxies: medians band by band and colour by colour, beside what the galaxy model makes.

A wrong unit, zero point or column is seen at once; what is off by more than `FAR` magnitudes is warned of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jobs.telemetry.progress import say
from sedflow_dist import magnitudes
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.simulation.light import ModelRange, model_range
from sedflow_dist.sps.filters import Named
from sedflow_dist.sps.ssp import bc03_miles
from storage_schemas import photometry
from storage_schemas.backend.chunked import ChunkedStore

#: Magnitudes beyond anything that the model makes: no galaxy, no error of a model and no odd sample is so far off.
FAR = 3.0
_ROWS = 20_000
_NAMES = ("flux", "sigma", "mask", "redshift")


@lru_cache(maxsize=32)
def _range(bands: tuple[Named, ...], band_sets: tuple[tuple[int, ...], ...]) -> ModelRange | None:
    """The model's range; None where the SSP table that it needs is not installed, or has nothing of these bands."""
    try:
        return model_range(bc03_miles(), bands, band_sets)
    except (ImportError, FileNotFoundError, ValueError):
        return None


def of_store(store: ChunkedStore, survey: Survey) -> list[dict[str, Any]]:
    """Return `judge` of a sample of a photometry store's rows: whole chunks from all over it."""
    return judge(survey, photometry.sample(store, _NAMES, _ROWS))


def judge(survey: Survey, sample: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return a line for each band, and for each colour of neighbouring ones of a footprint.

    Args:
        sample: calibrated photometry, arrays (galaxy, band) and (galaxy,): flux, sigma, mask, redshift

    Returns: of each line ``name``; ``median`` [AB mag], None where nothing is detected; ``snr``, the median of flux /
        sigma (of bands); ``measured`` and ``detected``, fractions of the rows; ``model``, the range at these redshifts, or
        None; ``off``, the median of how far rows lie outside it [mag]
    """
    flux, mask, sigma = (np.asarray(sample[name]) for name in ("flux", "mask", "sigma"))
    good = mask & (flux > 0)
    magnitude = magnitudes.magnitude(np.where(good, flux, 1.0).astype(np.float64))
    labels, sets = survey.labels, survey.band_sets
    colour, both = magnitudes.colours(flux.astype(np.float64), mask, sets)
    found = _range(tuple(survey.bands), sets)
    at = np.full(len(flux), -1) if found is None else found.at(np.asarray(sample["redshift"], np.float64))
    lines = []
    for i, label in enumerate(labels):
        snr = flux[mask[:, i], i] / sigma[mask[:, i], i]
        line = {"name": label, "snr": _median(snr), "measured": _share(mask[:, i]), "detected": _share(good[:, i])}
        limits = None if found is None else (found.bright[:, i], found.faint[:, i])
        lines.append(line | _beside(magnitude[:, i], good[:, i], at, limits))
    for i, (one, other) in enumerate(magnitudes.neighbours(len(labels), sets)):
        line = {
            "name": f"{labels[one]}-{labels[other]}",
            "snr": None,
            "measured": _share(both[:, i]),
            "detected": _share(both[:, i]),
        }
        limits = None if found is None else (found.blue[:, i], found.red[:, i])
        lines.append(line | _beside(colour[:, i], both[:, i], at, limits))
    return lines


def _beside(
    values: np.ndarray, good: np.ndarray, at: np.ndarray, limits: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any]:
    """The median of values (galaxy,), the model's range at their redshifts, and how far they lie outside it."""
    found: dict[str, Any] = {"median": _median(values[good]), "model": None, "off": None}
    rows = good & (at >= 0)
    if limits is None or not rows.any() or not np.isfinite(limits[0][at[rows]]).any():
        return found
    low, high = (limit[at[rows]] for limit in limits)
    off = np.maximum(np.maximum(low - values[rows], values[rows] - high), 0.0)
    return found | {"model": [_median(low), _median(high)], "off": _median(off)}


def table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines as a table for a terminal."""
    width = max(8, *(len(line["name"]) for line in lines))
    rows = [f"{'':>{width}}  median [AB mag]      S/N  measured   of model galaxies at these redshifts"]
    for line in lines:
        median = "nothing detected" if line["median"] is None else f"{line['median']:.2f}"
        snr = "" if line["snr"] is None else f"{line['snr']:.3g}"
        model = "" if line["model"] is None else f"{line['model'][0]:.1f} to {line['model'][1]:.1f}"
        off = f"   OFF BY {line['off']:.1f} mag" if line["off"] else ""
        rows.append(f"{line['name']:>{width}}  {median:>15}  {snr:>7}  {line['measured']:>7.0%}   {model}{off}")
    return rows


def warnings(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is to be warned of: medians that are farther from anything the model makes than `FAR`."""
    found = []
    for line in lines:
        if (line["off"] or 0.0) > FAR:
            low, high = line["model"]
            found.append(
                f"{line['name']} has a median of {line['median']:.1f} mag, and galaxies of the model at these redshifts have "
                f"{low:.1f} to {high:.1f}: rows are off by {line['off']:.1f} mag in the median. Is it the right column, unit, zero "
                "point, kind of error?"
            )
    return found


def tell(lines: Sequence[Mapping[str, Any]]) -> None:
    """Say all that as part of the report of an ingest."""
    for row in table(lines):
        say("ingest", row)
    for warning in warnings(lines):
        say("ingest", f"WARNING: {warning}")


def _median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return round(float(np.median(finite)), 4) if len(finite) else None


def _share(rows: np.ndarray) -> float:
    return round(float(np.mean(rows)), 4) if len(rows) else 0.0
