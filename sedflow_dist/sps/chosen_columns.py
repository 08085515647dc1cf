"""Chosen columns of posterior draws: what the galaxy model said of draws in, one number a column of each out.

Declared in `chosen`. Absolute magnitudes and K-corrections: Blanton & Roweis 2007 (astro-ph/0606170), section 2, after Hogg et
al. 2002 (astro-ph/0210394): m_R = M_Q + DM + K_QR, where Q may be a band blue-shifted by 1 + z_0, and flux densities of
bands are AB's in the frame of the band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist import magnitudes
from sedflow_dist.sps import derived
from sedflow_dist.sps.chosen import Chosen, Named, resolved
from sedflow_dist.sps.cosmology import ABSOLUTE_FACTOR
from sedflow_dist.sps.drawn import DrawPhotometry
from sedflow_dist.sps.filters import blue_shifted, rest_range
from sedflow_dist.sps.fixed_redshift import FixedRedshifts, RedshiftModel
from sedflow_dist.sps.greatest_redshift import GreatestRedshift
from sedflow_dist.sps.ssp import SSPTable

_DRAWS = 1024  # of a galaxy at once
_LEAST_FLUX = 1e-37  # so that no logarithm is infinite


@dataclass(frozen=True)
class OwnBands:
    """Labels and bands of the survey that a model is of."""

    labels: Sequence[str]
    bands: Sequence[Named]


def refuse(chosen: Chosen, own: OwnBands, z_max: float, edges: Float[np.ndarray, " edge"]) -> None:
    """Raise ValueError, naming the key, unless a model that reaches ``z_max`` has all that is chosen: `refuse_bands`."""
    refuse_bands(chosen, own, z_max, edges)
    limits = chosen.selection.redshift
    if limits and limits[1] > z_max * (1 + 1e-6):
        raise ValueError(
            f"selection.redshift: {limits[1]:g} is beyond the galaxy model, which reaches redshift {z_max:g}"
        )


def refuse_bands(chosen: Chosen, own: OwnBands, z_max: float, edges: Float[np.ndarray, " edge"]) -> None:
    """Raise ValueError, naming the key, unless an SSP table of these pixels has all bands that are chosen.

    Args:
        z_max: greatest redshift at which galaxies are observed
        edges: of the table's pixels [A]
    """
    if unknown := sorted(set(chosen.rest_frame.observed) - set(own.labels)):
        raise ValueError(f"rest_frame.observed: {unknown[0]!r} is none of the bands {', '.join(own.labels)}")
    asked = {"predict": (chosen.predict, z_max), "selection": (_selected(chosen), z_max)}
    for key, (bands, z) in asked.items():
        for band in resolved(bands, own.labels, own.bands):
            _refuse(key, band, z, edges)
    for band in _rest_bands(chosen, own):
        _refuse("rest_frame", band, 0.0, edges)


def _refuse(key: str, band: Named, z_max: float, edges: Float[np.ndarray, " edge"]) -> None:
    try:
        rest_range([band], z_max, edges)
    except ValueError as error:
        raise ValueError(
            f"{key}: {error}. A model keeps the wavelengths of its own bands, and of those that its run file chose when it "
            "was trained"
        ) from None


def needed(chosen: Chosen, own: OwnBands, z_max: float, edges: Float[np.ndarray, " edge"]) -> tuple[float, float]:
    """Return the rest-frame wavelengths [A] that the survey's bands and the chosen ones need up to a redshift."""
    seen = resolved((*chosen.predict, *_selected(chosen)), own.labels, own.bands)
    ranges = [rest_range((*own.bands, *seen), z_max, edges)]
    ranges += [rest_range([band], 0.0, edges) for band in _rest_bands(chosen, own)]
    return min(lo for lo, _ in ranges), max(hi for _, hi in ranges)


def _selected(chosen: Chosen) -> tuple[Named, ...]:
    return () if chosen.selection.band is None else (chosen.selection.band,)


def _rest_bands(chosen: Chosen, own: OwnBands) -> list[Named]:
    wanted = resolved(chosen.rest_frame.bands, own.labels, own.bands)
    return [blue_shifted(band, chosen.rest_frame.redshift) for band in wanted]


class ChosenColumns:
    """Computes what is chosen, columns as in `Chosen.quantities`.

    Args:
        own: bands of the model
        model: the galaxy model in the survey's bands, whose draws come in
        table: its SSP table, with wavelengths that the survey's bands do not see, too

    Raises:
        ValueError: the table does not reach as far as a band; says the numbers.
    """

    def __init__(self, chosen: Chosen, own: OwnBands, model: RedshiftModel, table: SSPTable) -> None:
        self._chosen, self._model, full = chosen, model, model.model
        refuse(chosen, own, full.z_max, table.edges)
        self.quantities = chosen.quantities(own.labels)
        self._observed = [list(own.labels).index(label) for label in chosen.rest_frame.observed]

        def through(bands: Sequence[Named], z_max: float) -> RedshiftModel | None:
            wanted = resolved(bands, own.labels, own.bands)
            return RedshiftModel(full.in_bands(table, wanted, z_max)) if bands else None

        self._predicted = through(chosen.predict, full.z_max)
        self._rest = through(_rest_bands(chosen, own), 0.0)
        selected = through(_selected(chosen), full.z_max)
        self._greatest = GreatestRedshift(chosen.selection, selected) if selected else None

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments and result."""
        n_draws = min(n_draws, _DRAWS)
        light = [part.memory(n_galaxies, n_draws) for part in (self._predicted, self._rest, self._greatest) if part]
        return max(light, default=0)

    def __call__(self, light: DrawPhotometry) -> Float[Tensor, "galaxy draw column"]:
        """Return the columns of draws."""
        space, redshift = self._model.model.space, light.drawn.epoch.redshift.squeeze(-1)
        at = self._predicted.at(redshift) if self._predicted else None
        return torch.cat([torch.cat(list(self._parts(part, at)), -1) for part in light.split(space, _DRAWS)], 1)

    def _parts(
        self, light: DrawPhotometry, at: FixedRedshifts | None
    ) -> Iterator[Float[Tensor, "galaxy draw _column"]]:
        """Yield columns in the order of `Chosen.quantities`."""
        chosen, space, drawn = self._chosen, self._model.model.space, light.drawn
        mass = drawn.values[space.amplitude.name]
        if self._predicted and at:
            yield self._predicted.observed(drawn, at) * space.scale(drawn.theta)
        if self._rest:
            absolute = self._rest.absolute(drawn)
            yield _magnitude(absolute) - 2.5 * mass.unsqueeze(-1)
            if self._observed:
                yield self._corrections(light, absolute)
        if self._greatest:
            yield self._greatest(drawn)
        if chosen.star_formation_history:
            yield self._history(light)
        if chosen.specific_rates:
            draws = derived.Draws(drawn.values, light, self._model.model.stars.populations)
            yield torch.stack(derived.specific_rates(draws), -1)
        for kind in chosen.colours:
            seen = (
                light.flux if kind == "observed" else self._model.absolute(drawn, self._model.rest_frame_without_dust)
            )
            magnitude = _magnitude(seen)
            yield magnitude[..., :-1] - magnitude[..., 1:]

    def _corrections(
        self, light: DrawPhotometry, absolute: Float[Tensor, "galaxy draw band"]
    ) -> Float[Tensor, "galaxy draw band"]:
        """K-corrections m - DM - M; the distance modulus follows from flux_factor, which has one factor 1 / (1 + z) more."""
        epoch = light.drawn.epoch
        distance_modulus = -2.5 * torch.log10(epoch.flux_factor * (1 + epoch.redshift) / ABSOLUTE_FACTOR)
        return _magnitude(light.flux[..., self._observed]) - _magnitude(absolute) - distance_modulus.unsqueeze(-1)

    def _history(self, light: DrawPhotometry) -> Float[Tensor, "galaxy draw bin"]:
        """Mean star-formation rates in bins [Msun/yr], the burst's mass included; 0 before the Big Bang.

        A bin that the Big Bang cuts has the mean over its part after it, so that rates times times add up to the mass.
        """
        drawn, populations = light.drawn, self._model.model.stars.populations
        mass = 10 ** (drawn.values[self._model.model.space.amplitude.name] - 9)
        edges = self._chosen.star_formation_history
        formed = [populations.mass_formed_within(drawn.values, drawn.epoch, edge) for edge in edges]
        time = [drawn.epoch.t_age.clamp(max=edge) for edge in edges]
        rates = [
            torch.where(t1 > t0, mass * (m1 - m0) / (t1 - t0).clamp(min=1e-6), 0.0).clamp(min=0)
            for (m0, m1), (t0, t1) in zip(pairwise(formed), pairwise(time), strict=True)
        ]
        return torch.stack(rates, -1)


def _magnitude(flux: Float[Tensor, "galaxy draw band"]) -> Float[Tensor, "galaxy draw band"]:
    return magnitudes.magnitude(flux.clamp(min=_LEAST_FLUX))
