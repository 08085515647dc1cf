"""The galaxy model for many draws at one redshift: posterior draws in, fluxes and rest-frame magnitudes out.

Importance weights need the fluxes of a thousand draws for each galaxy. At a fixed redshift band integration and SSP
spectra can be multiplied once; only screens, smooth in wavelength, stay per draw and are evaluated at a few nodes a band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from sedflow_dist.sps.components import Curves
from sedflow_dist.sps.cosmology import ABSOLUTE_FACTOR
from sedflow_dist.sps.drawn import Drawn, DrawPhotometry, Emission, Tables
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ladder import BetweenRungs, room, runs
from sedflow_dist.sps.populations import N_POPULATIONS, Epoch
from sedflow_dist.sps.starlight import Starlight


@dataclass(frozen=True)
class FixedRedshifts:
    """What redshifts alone decide: ``epoch``, each field (galaxy, 1), and the light of all stars through the bands."""

    epoch: Epoch
    tables: Tables

    def __getitem__(self, galaxy: Int[Tensor, " row"]) -> FixedRedshifts:
        """Return the same for rows of draws, of which a galaxy may have none or several."""
        epoch = Epoch(**{name: value[galaxy] for name, value in vars(self.epoch).items()})
        return FixedRedshifts(epoch, replace(self.tables, galaxy=self.tables.galaxy[galaxy]))


class RedshiftModel:
    """Fluxes of many draws for each of some galaxies; agrees with ``model`` to 2 mmag (docs/model.md says where).

    Args:
        model: the full galaxy model (float32)
    """

    def __init__(self, model: GalaxyModel) -> None:
        self.model, stars = model, model.stars
        self._starlight = Starlight(model)
        nodes = model.weights.with_smooth_factor(model.composition.breaks_a)
        #: Cells without any light, that any number of others, and all, can be filled up with to what compiled sums take at once.
        n, at_once = len(nodes.wavelength), self._starlight.cells_at_once
        self._n_cells = -(-(n + at_once - 1) // at_once) * at_once
        dark = (0, self._n_cells - n)
        self._node_wavelength = model.tensor(np.pad(nodes.wavelength, dark, "edge"))
        self._piece, self._band = (torch.as_tensor(np.pad(x, dark, "edge")) for x in (nodes.piece, nodes.band))
        #: Which cells have any light at a rung of the ladder: those of a piece that the band has left have none.
        self._lit = pad(torch.as_tensor((nodes.table != 0).any(-1)), dark)
        templates = [light.templates for _, light in model.sources]
        self._rows = [len(stars.bin_spectra), len(stars.node_spectra), *map(len, templates)]
        rows = torch.cat([stars.bin_spectra, stars.node_spectra, *templates])
        n_pixels = len(model.wavelength)
        ladder = pad(torch.einsum("rk,sck->src", rows[:, :n_pixels], model.tensor(nodes.table)), dark)
        #: Light in cells at each rung, (rung, row, cell), of the fixed bins, the nodes and each source.
        self._ladder = tuple(room(part) for part in ladder.split(self._rows, dim=1))
        #: The rows' light in cells of energy, the same at all redshifts, and all of it, before any screen: what is seen behind the
        #: screens and what was there.
        self._energy = None if model.dust_templates is None else self._in_cells_of_energy(rows[:, n_pixels:])
        #: What dust emits per luminosity through each band, (rung, row, band).
        self._dust = None if model.dust_templates is None else model.band_fluxes(model.dust_templates).contiguous()
        self._surviving = torch.cat(
            [stars.bin_surviving, stars.node_surviving, *(t.new_zeros(len(t)) for t in templates)]
        ).unsqueeze(-1)
        #: The bands at z = 0.
        self.rest_frame = self.shared([0])
        #: The same before any dust, which neither takes light nor gives any: without screens a band is one cell.
        self.rest_frame_without_dust = self._bare(ladder[0])

    def shared(self, rungs: Sequence[int]) -> Tables:
        """Return the bands at rungs of the ladder of redshifts, ln(1 + z) = rung times `BandWeights.step`, for all galaxies alike.

        Bands of one redshift stand after those of another, then the mass that survives, which screens leave alone.
        """
        model, at, n_bands = self.model, torch.as_tensor(rungs), len(self.model.bands)
        lit = self._filled_up(self._lit[at].flatten(), beside=1)
        rows = torch.cat([part[at] for part in self._ladder], 1)
        cells = torch.cat([rows.transpose(0, 1).flatten(1)[:, lit], self._surviving], dim=-1)
        stretch = torch.exp(at.double() * model.weights.step).to(self._node_wavelength.dtype)
        wavelength = (self._node_wavelength / stretch.unsqueeze(-1)).flatten()[lit]
        curves = _with_one_more(model.curves(wavelength, self._piece.repeat(len(at))[lit]))
        dust = None if self._dust is None else self._dust[at].transpose(0, 1).flatten(1).unsqueeze(0)
        band = (n_bands * torch.arange(len(at)).unsqueeze(-1) + self._band).flatten()[lit]
        end = _ends(band, n_bands * len(at))
        return self._in_common(cells, curves, torch.cat([end, end[-1:] + 1]), dust)

    def _bare(self, rest_frame: Float[Tensor, "row cell"]) -> Tables:
        n_bands = len(self.model.bands)
        cells = rest_frame.new_zeros(len(rest_frame), n_bands).index_add_(1, self._band, rest_frame)
        dark = -(n_bands + 1) % self._starlight.cells_at_once
        end = torch.arange(1, n_bands + 2)
        end[-1] += dark
        return self._in_common(pad(torch.cat([cells, self._surviving], -1), (0, dark)), None, end)

    def _in_cells_of_energy(self, energy: Float[Tensor, "row cell"]) -> Tables:
        n, dark = energy.shape[1], (0, -(energy.shape[1] + 1) % self._starlight.cells_at_once)
        wavelength = torch.cat([self.model.energy_wavelength, self.model.energy_wavelength[-1:].expand(dark[1])])
        cells = torch.cat([pad(energy, dark), energy.sum(1, keepdim=True)], 1)
        end = torch.tensor([n + dark[1], n + dark[1] + 1])
        return self._in_common(cells, _with_one_more(self.model.curves(wavelength)), end)

    def _in_common(
        self,
        cells: Float[Tensor, "row cell"],
        curves: tuple[Curves, ...] | None,
        end: Int[Tensor, " end"],
        dust: Float[Tensor, "1 _part _band"] | None = None,
    ) -> Tables:
        """Put light in cells of fixed bins, nodes and sources together, which all galaxies share."""
        bins, nodes, *sources = cells.unsqueeze(0).split(self._rows, dim=1)
        return Tables(bins, BetweenRungs.shared(nodes), tuple(sources), curves, torch.zeros(1).long(), end, dust)

    def _filled_up(self, lit: Bool[Tensor, " cell"], beside: int = 0) -> Int[Tensor, " kept"]:
        """Return the cells that are lit, and of the others as many as compiled sums need, with so many more ``beside`` them."""
        missing = -(int(lit.sum()) + beside) % self._starlight.cells_at_once
        if missing:
            lit = lit.clone()
            lit[torch.nonzero(~lit)[:missing, 0]] = True
        return torch.nonzero(lit).squeeze(1)

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments."""
        compiled, energy = self._starlight.compiled, 0 if self._energy is None else self._energy.n_cells
        rows = sum(self._rows) - (self._rows[1] if compiled else 0)
        tables = 4 * rows * self._n_cells * (1 if compiled else 3)  # by operators of nodes, too, and at two rungs
        return n_galaxies * tables + n_galaxies * n_draws * self.memory_of_draw(max(self._n_cells, energy))

    def memory_of_draw(self, cells: int) -> int:
        """Return the bytes of a draw whose light is looked at in so many cells.

        Populations, fluxes, sources' weights and dust's rows; by operators light in cells and its terms, weights of populations at
        metallicities, and which rows of the tables the burst takes, as 64-bit indices.
        """
        numbers = sum(light.numbers + len(light.templates) for _, light in self.model.sources)
        numbers += 0 if self._dust is None else 60
        if not self._starlight.compiled:
            return 4 * (9 * cells + 60 * self.model.stars.n_metallicities + 100 + numbers)
        weights = N_POPULATIONS * self.model.stars.n_metallicities if self.model.sources else 0
        return 4 * (2 * weights + 200 + numbers)

    def __call__(self, theta: Float[Tensor, "galaxy draw param"], redshift: Float[Tensor, " galaxy"]) -> DrawPhotometry:
        """Evaluate draws; their amplitude is not used (everything is per solar mass)."""
        return self.evaluate(theta, self.at(redshift))

    def evaluate(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> DrawPhotometry:
        """Evaluate draws where what the redshifts decide is known: what is called again and again for the same galaxies."""
        drawn = self._drawn(theta, at.epoch)
        rest = self._through_bands(drawn, self.rest_frame)
        return DrawPhotometry(drawn, self.observed(drawn, at), rest[..., :-1] * ABSOLUTE_FACTOR, rest[..., -1])

    def absolute(self, drawn: Drawn, shared: Tables | None = None) -> Float[Tensor, "galaxy draw band"]:
        """Return fluxes per solar mass formed [nanomaggies] through the bands at redshifts that all share, as if at 10 pc.

        The observed flux at redshift z is that times (10 pc / d_L)^2 / (1 + z). ``shared``: None: the rest frame.
        """
        found = self._through_bands(drawn, shared or self.rest_frame)
        return found[..., :-1] * ABSOLUTE_FACTOR

    def observed(self, drawn: Drawn, at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies] of draws that may be of a model of other bands."""
        return self._through_bands(drawn, at.tables) * at.epoch.flux_factor.unsqueeze(-1)

    def at(self, redshift: Float[Tensor, " galaxy"], own_tables: bool = True) -> FixedRedshifts:
        """Return what the redshifts alone decide, for `flux` and `evaluate`.

        ``own_tables``: with a table for each, which many draws at each use; or straight from the ladder: of a few draws at each of
        very many redshifts.
        """
        epoch = self.model.stars.populations.epoch(redshift)
        per_draw = Epoch(**{f: getattr(epoch, f).unsqueeze(-1) for f in epoch.__dataclass_fields__})
        return FixedRedshifts(per_draw, self._observed_tables(epoch, own_tables))

    def flux(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies]: what a sampler calls again and again."""
        return self.observed(self._drawn(theta, at.epoch), at)

    def _drawn(self, theta: Float[Tensor, "galaxy draw param"], epoch: Epoch) -> Drawn:
        model = self.model
        values = model.space.values(theta)
        populations = model.stars.populations(values, epoch)
        # Compiled sums over stars find their own; sources are weighed by them.
        alone = self._starlight.compiled and not model.sources
        drawn = Drawn(
            theta, values, epoch, populations, None if alone else model.stars.metallicity_weights(populations)
        )
        if self._energy is None:
            return drawn
        seen, all_of_it = self._starlight(drawn, self._energy).unbind(-1)
        row, share = model.dust_mixture(values)
        return replace(drawn, emission=Emission(row, share * (all_of_it - seen).clamp_(min=0).unsqueeze(-1)))

    def _through_bands(self, drawn: Drawn, tables: Tables) -> Float[Tensor, "galaxy draw band"]:
        """Fluxes of draws, before the distance, and what else the tables have."""
        found = self._starlight(drawn, tables)
        if self.model.sources:  # as in the full model: no light is negative
            found.clamp_(min=0)
        if tables.dust is not None and drawn.emission is not None:
            n_rows, n_bands = tables.dust.shape[1:]
            row = drawn.emission.row
            if len(tables.dust) > 1:
                row = row + (tables.galaxy * n_rows)[:, None, None]
            emitted = embedding_bag(
                row.flatten(0, 1), tables.dust.reshape(-1, n_bands), mode="sum",
                per_sample_weights=drawn.emission.luminosity.flatten(0, 1),
            )  # fmt: skip
            found[..., :n_bands] += emitted.view(*found.shape[:2], n_bands)
        return found

    def _observed_tables(self, epoch: Epoch, own_tables: bool) -> Tables:
        rung, fraction = self.model.rung(epoch.redshift)
        lit = torch.arange(self._n_cells)
        if own_tables:
            lit = self._filled_up((self._lit[rung] | self._lit[rung + 1]).any(0))
        columns = runs(lit)
        bins, nodes, *sources = (BetweenRungs(part, rung, fraction, columns) for part in self._ladder)
        dust = None
        if self._dust is not None:
            dust = BetweenRungs(self._dust, rung, fraction, runs(torch.arange(self._dust.shape[-1]))).tables()
        wavelength = self._node_wavelength[lit] / (1 + epoch.redshift.unsqueeze(-1))
        curves = self.model.curves(wavelength.unsqueeze(1), self._piece[lit])
        of_bins, *of_sources = (part.tables() if own_tables else part for part in (bins, *sources))
        end = _ends(self._band[lit], len(self.model.bands))
        return Tables(of_bins, nodes, tuple(of_sources), tuple(curves), torch.arange(len(rung)), end, dust)


def _ends(band: Int[Tensor, " cell"], n_bands: int) -> Int[Tensor, " band"]:
    """Return behind which cell those of each band end, of cells in the order of bands."""
    return torch.searchsorted(band, torch.arange(n_bands), right=True)


def _with_one_more(curves: Sequence[Curves]) -> tuple[Curves, ...]:
    """Return curves with one more column, of what no screen takes from."""
    return tuple(tuple(pad(curve, (0, 1)) for curve in own) for own in curves)
