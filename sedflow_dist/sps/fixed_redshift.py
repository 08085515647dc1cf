"""The galaxy model for many draws at one redshift: posterior draws in, fluxes and rest-frame magnitudes out.

Importance weights need the fluxes of a thousand draws for each galaxy. At a fixed redshift band integration and SSP
spectra can be multiplied once; only screens, smooth in wavelength, stay per draw and are evaluated at a few nodes a band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from sedflow_dist.parameters import Values
from sedflow_dist.sps.components import Curves
from sedflow_dist.sps.cosmology import ABSOLUTE_FACTOR
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.populations import BURST, CUT, Epoch, Populations


@dataclass(frozen=True)
class DrawPhotometry:
    """What the galaxy model says of draws, per solar mass formed.

    ``flux``: observed [nanomaggies]; ``absolute``: rest frame at 10 pc [nanomaggies]; ``surviving``: mass fraction.
    """

    epoch: Epoch
    populations: Populations
    flux: Float[Tensor, "galaxy draw band"]
    absolute: Float[Tensor, "galaxy draw band"]
    surviving: Float[Tensor, "galaxy draw"]


@dataclass(frozen=True)
class _Tables:
    """Light in cells for the rows of the fixed bins (bin, metallicity), the cut bin, the nodes (age, metallicity) and the
    templates of each source besides the stars.

    Leading axis: galaxy, or 1 where all galaxies share the table. ``table`` says which of ``nodes`` is a galaxy's;
    ``curves`` are those of each screen.
    """

    bins: Float[Tensor, "_galaxy bin cell"]
    cut: Float[Tensor, "galaxy metallicity cell"]
    nodes: Float[Tensor, "_galaxy node cell"]
    sources: tuple[Float[Tensor, "_galaxy _template cell"], ...]
    curves: tuple[Curves, ...]
    table: Int[Tensor, " galaxy"]


@dataclass(frozen=True)
class FixedRedshifts:
    """What redshifts alone decide: ``epoch``, each field (galaxy, 1), and the light of all stars through the bands."""

    epoch: Epoch
    tables: _Tables

    def __getitem__(self, galaxy: Int[Tensor, " row"]) -> FixedRedshifts:
        """Return the same for rows of draws, of which a galaxy may have none or several."""
        t = self.tables
        epoch = Epoch(**{name: value[galaxy] for name, value in vars(self.epoch).items()})
        sources = tuple(cells[galaxy] for cells in t.sources)
        curves = tuple(tuple(curve[galaxy] for curve in own) for own in t.curves)
        return FixedRedshifts(epoch, _Tables(t.bins[galaxy], t.cut[galaxy], t.nodes, sources, curves, t.table[galaxy]))


class RedshiftModel:
    """Fluxes of many draws for each of some galaxies; agrees with ``model`` to 2 mmag (docs/model.md says where).

    Args:
        model: the full galaxy model (float32)
    """

    def __init__(self, model: GalaxyModel) -> None:
        self.model, stars = model, model.stars
        nodes = model.weights.with_smooth_factor(model.composition.breaks_a)
        self._node_wavelength = model.tensor(nodes.wavelength)
        self._node_piece = torch.as_tensor(nodes.piece)
        self._to_bands = model.tensor(nodes.band[:, None] == np.arange(len(model.bands)))
        band_table = model.tensor(nodes.table)
        templates = model.templates
        self._rows = [len(stars.bin_spectra), len(stars.node_spectra), *map(len, templates)]
        spectra = torch.cat([stars.bin_spectra, stars.node_spectra, *templates])
        self._ladder = torch.einsum("rk,sck->src", spectra, band_table)
        # Rest frame: the same cells at z = 0, and the surviving mass as one more column, which screens leave alone.
        surviving = torch.cat([stars.bin_surviving, stars.node_surviving, *(t.new_zeros(len(t)) for t in templates)])
        self._rest = torch.cat([self._ladder[0], surviving.unsqueeze(-1)], dim=-1)
        rest_curves = model.curves(self._node_wavelength, self._node_piece)
        self._rest_curves = [tuple(pad(curve, (0, 1)) for curve in curves) for curves in rest_curves]

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments."""
        rows, cells = self._ladder.shape[1:]
        n_z = self.model.stars.n_metallicities
        # A galaxy: its tables, at two rungs and between. A draw: light in cells and its terms; weights of populations at
        # metallicities, and which rows of the tables the burst takes, as 64-bit indices.
        return n_galaxies * 4 * 3 * rows * cells + n_galaxies * n_draws * 4 * (9 * cells + 60 * n_z + 100)

    def __call__(self, theta: Float[Tensor, "galaxy draw param"], redshift: Float[Tensor, " galaxy"]) -> DrawPhotometry:
        """Evaluate draws; their amplitude is not used (everything is per solar mass)."""
        at, values = self.at(redshift), self.model.space.values(theta)
        populations, weights = self._populations(values, at.epoch)
        flux = self._flux(values, populations, weights, at)
        epoch = self.model.stars.populations.epoch(redshift)
        rest = self._tables(self._rest.unsqueeze(0), epoch, self._rest_curves)
        light = self._light(values, populations, weights, at.epoch, rest)
        absolute = (light[..., :-1] @ self._to_bands) * ABSOLUTE_FACTOR
        return DrawPhotometry(at.epoch, populations, flux, absolute, light[..., -1])

    def at(self, redshift: Float[Tensor, " galaxy"]) -> FixedRedshifts:
        """Return what the redshifts alone decide, for `flux`."""
        epoch = self.model.stars.populations.epoch(redshift)
        per_draw = Epoch(**{f: getattr(epoch, f).unsqueeze(-1) for f in epoch.__dataclass_fields__})
        return FixedRedshifts(per_draw, self._observed_tables(epoch))

    def flux(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies]: what a sampler calls again and again."""
        values = self.model.space.values(theta)
        return self._flux(values, *self._populations(values, at.epoch), at)

    def _populations(
        self, values: Values, epoch: Epoch
    ) -> tuple[Populations, Float[Tensor, "galaxy draw population metallicity"]]:
        populations = self.model.stars.populations(values, epoch)
        return populations, self.model.stars.metallicity_weights(populations)

    def _flux(
        self,
        values: Values,
        populations: Populations,
        weights: Float[Tensor, "galaxy draw population metallicity"],
        at: FixedRedshifts,
    ) -> Float[Tensor, "galaxy draw band"]:
        light = self._light(values, populations, weights, at.epoch, at.tables)
        return (light @ self._to_bands) * at.epoch.flux_factor.unsqueeze(-1)

    def _observed_tables(self, epoch: Epoch) -> _Tables:
        rung, fraction = self.model.rung(epoch.redshift)
        cells = torch.lerp(self._ladder[rung], self._ladder[rung + 1], fraction[:, None, None])
        wavelength = self._node_wavelength / (1 + epoch.redshift.unsqueeze(-1))
        return self._tables(cells, epoch, self.model.curves(wavelength.unsqueeze(1), self._node_piece))

    def _tables(self, cells: Float[Tensor, "_galaxy row cell"], epoch: Epoch, curves: Sequence[Curves]) -> _Tables:
        """Split rows into bins, nodes and sources and interpolate the cut bin, whose age the redshift fixes, from the nodes."""
        stars = self.model.stars
        bins, nodes, *sources = cells.split(self._rows, dim=1)
        by_age = nodes.unflatten(1, (-1, stars.n_metallicities))
        galaxy = torch.arange(len(epoch.redshift)) if len(cells) > 1 else torch.zeros_like(epoch.cut_index)
        (left, t_left), (right, t_right) = stars.age_weights(epoch.cut_age)
        cut = by_age[galaxy, left] * t_left[:, None, None] + by_age[galaxy, right] * t_right[:, None, None]
        # Nodes are made contiguous, as a sampler looks into them again and again.
        return _Tables(bins, cut, nodes.contiguous(), tuple(sources), tuple(curves), galaxy)

    def _light(
        self,
        values: Values,
        populations: Populations,
        weights: Float[Tensor, "galaxy draw population metallicity"],
        epoch: Epoch,
        tables: _Tables,
    ) -> Float[Tensor, "galaxy draw cell"]:
        """Attenuated light of draws in cells."""
        young_weights, old_weights = self.model.stars.split_bins(weights)
        n = young_weights.shape[-1]
        young = young_weights @ tables.bins[:, :n]
        old = old_weights @ tables.bins[:, n:] + weights[..., CUT, :] @ tables.cut
        in_cloud, burst = self._burst(populations, weights, tables)
        if in_cloud is not None:
            young = young + in_cloud
        for source, cells in zip(self.model.composition.sources, tables.sources, strict=True):
            (young if source.inside else old).add_(source.weights(values, populations, epoch) @ cells)
        return self.model.dim(young, [old, burst], values, tables.curves)

    def _burst(
        self, populations: Populations, weights: Float[Tensor, "galaxy draw population metallicity"], tables: _Tables
    ) -> tuple[Float[Tensor, "galaxy draw cell"] | None, Float[Tensor, "galaxy draw cell"]]:
        """Light of the burst in birth clouds and outside: two ages times all metallicities of each galaxy's node table."""
        n_galaxy, n_draw = weights.shape[:2]
        n_z = weights.shape[-1]
        share = weights[..., BURST, :].unsqueeze(-2)
        pairs = self.model.stars.age_weights(populations.age[..., 1])
        ages = torch.stack([index for index, _ in pairs], -1).unsqueeze(-1)
        rows = ages * n_z + torch.arange(n_z)
        amount = share * torch.stack([t for _, t in pairs], -1).unsqueeze(-1)
        rows = rows + (tables.table * tables.nodes.shape[1]).view(-1, 1, 1, 1)
        table = tables.nodes.flatten(0, 1)
        shape = (n_galaxy * n_draw, 2 * n_z)

        def light(amount: Tensor) -> Tensor:
            row_weights = amount.reshape(shape).to(table.dtype)
            bag = embedding_bag(rows.reshape(shape), table, mode="sum", per_sample_weights=row_weights)
            return bag.view(n_galaxy, n_draw, -1)

        age = populations.age[..., 1]
        in_cloud = torch.stack([self.model.stars.in_cloud(age, index) for index, _ in pairs], -1).unsqueeze(-1)
        if not bool(in_cloud.any()):
            return None, light(amount)
        return light(amount * in_cloud), light(amount * ~in_cloud)
