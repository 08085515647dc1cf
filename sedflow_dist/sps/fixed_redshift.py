"""The forward model for many draws at one redshift: posterior draws in, fluxes and rest-frame magnitudes out.

Importance weights need the fluxes of a thousand draws for each galaxy. At a fixed redshift band integration and SSP
spectra can be multiplied once; only dust, smooth in wavelength, stays per draw and is evaluated at a few wavelengths per band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sedflow_dist.parameters import PARAMETERS
from sedflow_dist.sps.cosmology import ABSOLUTE_FACTOR
from sedflow_dist.sps.dust import CALZETTI_BREAKS_A, DustCurves
from sedflow_dist.sps.forward_model import ForwardModel
from sedflow_dist.sps.populations import BURST, CUT, Epoch, Populations


@dataclass(frozen=True)
class DrawPhotometry:
    """What the forward model says of draws, per solar mass formed; shapes (galaxy, draw) and (galaxy, draw, band).

    ``flux``: observed [nanomaggies]; ``absolute``: rest frame at 10 pc [nanomaggies]; ``surviving``: mass fraction.
    """

    epoch: Epoch
    populations: Populations
    flux: Tensor
    absolute: Tensor
    surviving: Tensor


@dataclass(frozen=True)
class _Tables:
    """SSP light in cells for the rows of the fixed bins (bin, metallicity), the cut bin and the nodes (age, metallicity).

    Leading axis: galaxy, or 1 where all galaxies share the table. ``table`` says which of ``nodes`` is a galaxy's.
    """

    bins: Tensor
    cut: Tensor
    nodes: Tensor
    dust: DustCurves
    table: Tensor


@dataclass(frozen=True)
class FixedRedshifts:
    """What redshifts alone decide: ``epoch``, each field (galaxy, 1), and the light of all stars through the bands."""

    epoch: Epoch
    tables: _Tables

    def __getitem__(self, galaxy: Int[Tensor, " row"]) -> FixedRedshifts:
        """Return the same for rows of draws, of which a galaxy may have none or several."""
        t = self.tables
        epoch = Epoch(**{name: value[galaxy] for name, value in vars(self.epoch).items()})
        dust = DustCurves(**{name: value[galaxy] for name, value in vars(t.dust).items()})
        return FixedRedshifts(epoch, _Tables(t.bins[galaxy], t.cut[galaxy], t.nodes, dust, t.table[galaxy]))


class RedshiftModel:
    """Fluxes of many draws for each of some galaxies; agrees with ``model`` to 2 mmag (docs/model.md says where).

    Args:
        model: the full forward model (float32)
    """

    def __init__(self, model: ForwardModel) -> None:
        self.model = model
        nodes = model.weights.with_smooth_factor(CALZETTI_BREAKS_A)
        self._node_wavelength = model._tensor(nodes.wavelength)
        self._node_piece = torch.as_tensor(nodes.piece)
        self._to_bands = model._tensor(nodes.band[:, None] == np.arange(len(model.bands)))
        band_table = model._tensor(nodes.table)
        spectra = torch.cat([model.bin_spectra, model.node_spectra])
        self._ladder = torch.einsum("rk,sck->src", spectra, band_table)
        # Rest frame: the same cells at z = 0, and the surviving mass as one more column, which dust leaves alone.
        surviving = torch.cat([model.bin_surviving, model.node_surviving]).unsqueeze(-1)
        self._rest = torch.cat([self._ladder[0], surviving], dim=-1)
        rest_dust = DustCurves.at(self._node_wavelength, self._node_piece)
        pad = torch.nn.functional.pad
        self._rest_dust = DustCurves(*(pad(getattr(rest_dust, f), (0, 1)) for f in rest_dust.__dataclass_fields__))

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments."""
        rows, cells = self._ladder.shape[1:]
        n_z = len(self.model.ssp.metallicity)
        # A galaxy: its tables, at two rungs and between. A draw: light in cells and its terms; weights of populations at
        # metallicities, and which rows of the tables the burst takes, as 64-bit indices.
        return n_galaxies * 4 * 3 * rows * cells + n_galaxies * n_draws * 4 * (9 * cells + 60 * n_z + 100)

    def __call__(self, theta: Float[Tensor, "galaxy draw param"], redshift: Float[Tensor, " galaxy"]) -> DrawPhotometry:
        """Evaluate draws; their ``log_mstar`` is not used (everything is per solar mass)."""
        at = self.at(redshift)
        populations, weights = self._populations(theta, at.epoch)
        flux = self._flux(theta, populations, weights, at)
        rest = self._tables(self._rest.unsqueeze(0), self.model.population_model.epoch(redshift), self._rest_dust)
        light = self._light(theta, populations, weights, rest)
        absolute = (light[..., :-1] @ self._to_bands) * ABSOLUTE_FACTOR
        return DrawPhotometry(at.epoch, populations, flux, absolute, light[..., -1])

    def at(self, redshift: Float[Tensor, " galaxy"]) -> FixedRedshifts:
        """Return what the redshifts alone decide, for `flux`."""
        epoch = self.model.population_model.epoch(redshift)
        per_draw = Epoch(**{f: getattr(epoch, f).unsqueeze(-1) for f in epoch.__dataclass_fields__})
        return FixedRedshifts(per_draw, self._observed_tables(epoch))

    def flux(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies]: what a sampler calls again and again."""
        return self._flux(theta, *self._populations(theta, at.epoch), at)

    def _populations(self, theta: Tensor, epoch: Epoch) -> tuple[Populations, Tensor]:
        populations = self.model.population_model(theta, epoch)
        return populations, self.model.metallicity_weights(populations)

    def _flux(self, theta: Tensor, populations: Populations, weights: Tensor, at: FixedRedshifts) -> Tensor:
        light = self._light(theta, populations, weights, at.tables)
        return (light @ self._to_bands) * at.epoch.flux_factor.unsqueeze(-1)

    def _observed_tables(self, epoch: Epoch) -> _Tables:
        rung, fraction = self.model._rung(epoch.redshift)
        cells = torch.lerp(self._ladder[rung], self._ladder[rung + 1], fraction[:, None, None])
        wavelength = self._node_wavelength / (1 + epoch.redshift.unsqueeze(-1))
        return self._tables(cells, epoch, DustCurves.at(wavelength.unsqueeze(1), self._node_piece))

    def _tables(self, cells: Tensor, epoch: Epoch, dust: DustCurves) -> _Tables:
        """Split rows into bins and nodes and interpolate the cut bin, whose age the redshift fixes, from the nodes."""
        n_z = len(self.model.ssp.metallicity)
        bins, nodes = cells.split([len(self.model.bin_spectra), len(self.model.node_spectra)], dim=1)
        by_age = nodes.unflatten(1, (-1, n_z))
        galaxy = torch.arange(len(epoch.redshift)) if len(cells) > 1 else torch.zeros_like(epoch.cut_index)
        (left, t_left), (right, t_right) = self.model._age_weights(epoch.cut_age)
        cut = by_age[galaxy, left] * t_left[:, None, None] + by_age[galaxy, right] * t_right[:, None, None]
        return _Tables(bins, cut, nodes.contiguous(), dust, galaxy)  # a sampler looks into nodes again and again

    def _light(self, theta: Tensor, populations: Populations, weights: Tensor, tables: _Tables) -> Tensor:
        """Attenuated light of draws in cells: (galaxy, draw, cell)."""
        young_weights, old_weights = self.model._split_bins(weights)
        n = young_weights.shape[-1]
        young = young_weights @ tables.bins[:, :n]
        old = old_weights @ tables.bins[:, n:] + weights[..., CUT, :] @ tables.cut
        in_cloud, burst = self._burst(populations, weights, tables)
        if in_cloud is not None:
            young = young + in_cloud
        tau_bc, tau_ism, n_dust = (theta[..., PARAMETERS.index(name)] for name in ("tau_bc", "tau_ism", "n_dust"))
        light = young.mul_(tables.dust.clouds(tau_bc)).add_(old).add_(burst)
        return light.mul_(tables.dust.diffuse(tau_ism, n_dust))

    def _burst(self, populations: Populations, weights: Tensor, tables: _Tables) -> tuple[Tensor | None, Tensor]:
        """Light of the burst in birth clouds and outside: two ages times all metallicities of each galaxy's node table."""
        n_galaxy, n_draw = weights.shape[:2]
        n_z = weights.shape[-1]
        share = weights[..., BURST, :].unsqueeze(-2)
        pairs = self.model._age_weights(populations.age[..., 1])
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
        in_cloud = torch.stack([self.model._in_cloud(age, index) for index, _ in pairs], -1).unsqueeze(-1)
        if not bool(in_cloud.any()):
            return None, light(amount)
        return light(amount * in_cloud), light(amount * ~in_cloud)
