"""The galaxy model for many draws at one redshift: posterior draws in, fluxes and rest-frame magnitudes out.

Importance weights need the fluxes of a thousand draws for each galaxy. At a fixed redshift band integration and SSP
spectra can be multiplied once; only screens, smooth in wavelength, stay per draw and are evaluated at a few nodes a band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from sedflow_dist.parameters import ParameterSpace, Values
from sedflow_dist.sps.components import Curves
from sedflow_dist.sps.cosmology import ABSOLUTE_FACTOR
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.populations import N_POPULATIONS, Epoch, Populations
from sedflow_dist.sps.starlight import Starlight, between_rungs


@dataclass(frozen=True)
class Drawn:
    """Draws of galaxies: parameters, what the redshifts decide, populations, and their masses at each metallicity.

    The same whatever the bands: light through other bands begins here. ``epoch``: each field (galaxy, 1); ``weights``: None where
    nobody needs them; ``absorbed``:
    luminosity per solar mass [Lsun] that dust takes, where it emits what it takes.
    """

    theta: Float[Tensor, "galaxy draw param"]
    values: Values
    epoch: Epoch
    populations: Populations
    weights: Float[Tensor, "galaxy draw population metallicity"] | None
    absorbed: Float[Tensor, "galaxy draw"] | None = None


@dataclass(frozen=True)
class DrawPhotometry:
    """What the galaxy model says of draws, per solar mass formed.

    ``flux``: observed [nanomaggies]; ``absolute``: rest frame at 10 pc [nanomaggies]; ``surviving``: mass fraction.
    """

    drawn: Drawn
    flux: Float[Tensor, "galaxy draw band"]
    absolute: Float[Tensor, "galaxy draw band"]
    surviving: Float[Tensor, "galaxy draw"]

    def split(self, space: ParameterSpace, n: int) -> Iterator[DrawPhotometry]:
        """Yield the same of at most ``n`` draws a galaxy at a time, which bounds the memory of what is computed of them."""
        drawn = self.drawn
        for start in range(0, drawn.theta.shape[1], n):
            part = slice(start, start + n)
            theta = drawn.theta[:, part]
            populations = Populations(**{name: x[:, part] for name, x in vars(drawn.populations).items()})
            absorbed = None if drawn.absorbed is None else drawn.absorbed[:, part]
            weights = None if drawn.weights is None else drawn.weights[:, part]
            some = Drawn(theta, space.values(theta), drawn.epoch, populations, weights, absorbed)
            yield DrawPhotometry(some, self.flux[:, part], self.absolute[:, part], self.surviving[:, part])


@dataclass(frozen=True)
class _Tables:
    """Light in cells for the rows of the fixed bins (bin, metallicity), the cut bin, the nodes (age, metallicity) and the
    templates of each source besides the stars.

    Leading axis: galaxy, or 1 where all galaxies share the table. ``table`` says which of ``nodes`` (and of ``dust``, what dust
    emits per luminosity) is a galaxy's; ``curves`` are those of each screen; ``to_bands`` says which cell is whose band.
    """

    bins: Float[Tensor, "_galaxy bin cell"]
    cut: Float[Tensor, "galaxy metallicity cell"]
    nodes: Float[Tensor, "_galaxy node cell"]
    sources: tuple[Float[Tensor, "_galaxy _template cell"], ...]
    curves: tuple[Curves, ...] | None
    table: Int[Tensor, " galaxy"]
    to_bands: Float[Tensor, "_cell band"]
    dust: Float[Tensor, "_galaxy _part band"] | None


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
        curves = None if t.curves is None else tuple(tuple(curve[galaxy] for curve in own) for own in t.curves)
        tables = _Tables(t.bins[galaxy], t.cut[galaxy], t.nodes, sources, curves, t.table[galaxy], t.to_bands, t.dust)
        return FixedRedshifts(epoch, tables)


@dataclass(frozen=True)
class SharedRedshifts:
    """The bands at redshifts that all galaxies share, the rest frame for one: light of all rows in cells, screens' curves,
    which cell belongs to which band, and what dust emits per luminosity. Bands of one redshift after those of another.

    ``curves``: None: light before any screen.
    """

    cells: Float[Tensor, "1 row cell"]
    curves: tuple[Curves, ...] | None
    to_bands: Float[Tensor, "_cell band"]
    dust: Float[Tensor, "1 _part band"] | None


class RedshiftModel:
    """Fluxes of many draws for each of some galaxies; agrees with ``model`` to 2 mmag (docs/model.md says where).

    Args:
        model: the full galaxy model (float32)
    """

    def __init__(self, model: GalaxyModel) -> None:
        self.model, stars = model, model.stars
        self._starlight = Starlight(stars)
        nodes = model.weights.with_smooth_factor(model.composition.breaks_a)
        self._node_wavelength = model.tensor(nodes.wavelength)
        self._piece = torch.as_tensor(nodes.piece)
        #: Which cells have any light at a rung of the ladder: those of a piece that the band has left have none.
        self._lit = torch.as_tensor((nodes.table != 0).any(-1))
        self._to_bands = model.tensor(nodes.band[:, None] == np.arange(len(model.bands)))
        self._n_cells = len(nodes.wavelength)
        templates = [light.templates for _, light in model.sources]
        self._rows = [len(stars.bin_spectra), len(stars.node_spectra), *map(len, templates)]
        rows = torch.cat([stars.bin_spectra, stars.node_spectra, *templates])
        n_pixels = len(model.wavelength)
        ladder = torch.einsum("rk,sck->src", rows[:, :n_pixels], model.tensor(nodes.table))
        #: Light in cells at each rung, (rung, row, cell), of the fixed bins, the nodes and each source.
        self._ladder = tuple(part.contiguous() for part in ladder.split(self._rows, dim=1))
        #: The rows' light in cells of energy, the same at all redshifts; the last cell has all of it, before any screen.
        self._energy = None if model.dust_templates is None else self._in_cells_of_energy(rows[:, n_pixels:])
        #: What dust emits per luminosity through each band, (rung, row, band).
        self._dust = None if model.dust_templates is None else model.band_fluxes(model.dust_templates).contiguous()
        # The surviving mass is one more column, which screens leave alone.
        self._surviving = torch.cat(
            [stars.bin_surviving, stars.node_surviving, *(t.new_zeros(len(t)) for t in templates)]
        ).unsqueeze(-1)
        #: The bands at z = 0.
        self.rest_frame = self.shared([0])
        #: The same before any dust, which neither takes light nor gives any: without screens a band is one cell.
        bare = (ladder[0] @ self._to_bands).unsqueeze(0)
        self.rest_frame_without_dust = SharedRedshifts(bare, None, torch.eye(len(model.bands), dtype=model.dtype), None)

    def shared(self, rungs: Sequence[int]) -> SharedRedshifts:
        """Return the bands at rungs of the ladder of redshifts, ln(1 + z) = rung times `BandWeights.step`."""
        model, at = self.model, torch.as_tensor(rungs)
        lit = self._lit[at].flatten()
        rows = torch.cat([part[at] for part in self._ladder], 1)
        cells = torch.cat([rows.transpose(0, 1).flatten(1)[:, lit], self._surviving], dim=-1)
        stretch = torch.exp(at.double() * model.weights.step).to(self._node_wavelength.dtype)
        wavelength = (self._node_wavelength / stretch.unsqueeze(-1)).flatten()[lit]
        curves = _with_all(model.curves(wavelength, self._piece.repeat(len(at))[lit]))
        dust = None if self._dust is None else self._dust[at].transpose(0, 1).flatten(1).unsqueeze(0)
        return SharedRedshifts(cells.unsqueeze(0), curves, torch.block_diag(*[self._to_bands] * len(at))[lit], dust)

    def _in_cells_of_energy(self, energy: Float[Tensor, "row cell"]) -> SharedRedshifts:
        """Return cells whose one "band" is what screens absorb: all light before them, less what is seen behind them."""
        model = self.model
        cells = torch.cat([energy, energy.sum(1, keepdim=True)], 1).unsqueeze(0)
        absorbed = torch.cat([-torch.ones(energy.shape[1], 1), torch.ones(1, 1)]).to(model.dtype)
        return SharedRedshifts(cells, _with_all(model.curves(model.energy_wavelength)), absorbed, None)

    def memory(self, n_galaxies: int, n_draws: int) -> int:
        """Return the most bytes that a call needs beside its arguments."""
        rows, energy = sum(self._rows), 0 if self._energy is None else self._energy.cells.shape[-1]
        tables = 4 * rows * self._n_cells * (1 if self._starlight.compiled(self._n_cells) else 3)  # and at two rungs
        return n_galaxies * tables + n_galaxies * n_draws * self.memory_of_draw(max(self._n_cells, energy))

    def memory_of_draw(self, cells: int) -> int:
        """Return the bytes of a draw whose light is looked at in so many cells.

        Light in cells and its terms, populations; by operators weights of these at metallicities, and which rows of the tables the
        burst takes, as 64-bit indices; sources' weights, and dust's rows.
        """
        numbers = sum(light.numbers + len(light.templates) for _, light in self.model.sources)
        numbers += 0 if self._dust is None else 60
        if not self._starlight.compiled(cells):
            return 4 * (9 * cells + 60 * self.model.stars.n_metallicities + 100 + numbers)
        weights = N_POPULATIONS * self.model.stars.n_metallicities if self.model.sources else 0
        return 4 * (4 * cells + 2 * weights + 200 + numbers)

    def __call__(self, theta: Float[Tensor, "galaxy draw param"], redshift: Float[Tensor, " galaxy"]) -> DrawPhotometry:
        """Evaluate draws; their amplitude is not used (everything is per solar mass)."""
        return self.evaluate(theta, self.at(redshift))

    def evaluate(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> DrawPhotometry:
        """Evaluate draws where what the redshifts decide is known: what is called again and again for the same galaxies."""
        drawn = self._drawn(theta, at.epoch)
        fluxes, light = self._through_bands(drawn, self._in_common(drawn, self.rest_frame))
        return DrawPhotometry(drawn, self.observed(drawn, at), fluxes * ABSOLUTE_FACTOR, light[..., -1])

    def absolute(self, drawn: Drawn, shared: SharedRedshifts | None = None) -> Float[Tensor, "galaxy draw band"]:
        """Return fluxes per solar mass formed [nanomaggies] through the bands at redshifts that all share, as if at 10 pc.

        The observed flux at redshift z is that times (10 pc / d_L)^2 / (1 + z). ``shared``: None: the rest frame.
        """
        fluxes, _ = self._through_bands(drawn, self._in_common(drawn, shared or self.rest_frame))
        return fluxes * ABSOLUTE_FACTOR

    def observed(self, drawn: Drawn, at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies] of draws that may be of a model of other bands."""
        fluxes, _ = self._through_bands(drawn, at.tables)
        return fluxes * at.epoch.flux_factor.unsqueeze(-1)

    def _in_common(self, drawn: Drawn, shared: SharedRedshifts) -> _Tables:
        """Return tables that galaxies share, with each one's cut bin."""
        epoch = Epoch(**{name: value.squeeze(-1) for name, value in vars(drawn.epoch).items()})
        parts = shared.cells.split(self._rows, dim=1)
        return self._tables(parts, epoch, shared.curves, shared.to_bands, shared.dust)

    def at(self, redshift: Float[Tensor, " galaxy"]) -> FixedRedshifts:
        """Return what the redshifts alone decide, for `flux` and `evaluate`."""
        epoch = self.model.stars.populations.epoch(redshift)
        per_draw = Epoch(**{f: getattr(epoch, f).unsqueeze(-1) for f in epoch.__dataclass_fields__})
        return FixedRedshifts(per_draw, self._observed_tables(epoch))

    def flux(self, theta: Float[Tensor, "galaxy draw param"], at: FixedRedshifts) -> Float[Tensor, "galaxy draw band"]:
        """Return observed fluxes per solar mass formed [nanomaggies]: what a sampler calls again and again."""
        return self.observed(self._drawn(theta, at.epoch), at)

    def _drawn(self, theta: Float[Tensor, "galaxy draw param"], epoch: Epoch) -> Drawn:
        values = self.model.space.values(theta)
        populations = self.model.stars.populations(values, epoch)
        # Compiled sums over stars find their own; sources are weighed by them.
        alone = self._starlight.compiled(self._n_cells) and not self.model.sources
        weights = None if alone else self.model.stars.metallicity_weights(populations)
        drawn = Drawn(theta, values, epoch, populations, weights)
        if self._energy is None:
            return drawn
        light = self._light(drawn, self._in_common(drawn, self._energy))
        return replace(drawn, absorbed=(light @ self._energy.to_bands).squeeze(-1).clamp_(min=0))

    def _through_bands(
        self, drawn: Drawn, tables: _Tables
    ) -> tuple[Float[Tensor, "galaxy draw band"], Float[Tensor, "galaxy draw cell"]]:
        """Band fluxes of draws, before the distance, and their attenuated light in cells."""
        light = self._light(drawn, tables)
        fluxes = light[..., : len(tables.to_bands)] @ tables.to_bands
        if self.model.sources:  # as in the full model: no light is negative
            fluxes = fluxes.clamp_(min=0)
        if tables.dust is not None and drawn.absorbed is not None:
            rows, share = self.model.dust_mixture(drawn.values)
            n_rows, n_bands = tables.dust.shape[1:]
            rows = rows + (tables.table * n_rows)[:, None, None]
            amount = (share * drawn.absorbed.unsqueeze(-1)).flatten(0, 1)
            emitted = embedding_bag(
                rows.flatten(0, 1), tables.dust.reshape(-1, n_bands), mode="sum", per_sample_weights=amount
            )
            fluxes = fluxes + emitted.view_as(fluxes)
        return fluxes, light

    def _observed_tables(self, epoch: Epoch) -> _Tables:
        rung, fraction = self.model.rung(epoch.redshift)
        lit = torch.nonzero((self._lit[rung] | self._lit[rung + 1]).any(0)).squeeze(1)
        parts = [between_rungs(part, rung, fraction, lit) for part in self._ladder]
        dust = None
        if self._dust is not None:
            dust = between_rungs(self._dust, rung, fraction, torch.arange(self._dust.shape[-1]))
        wavelength = self._node_wavelength[lit] / (1 + epoch.redshift.unsqueeze(-1))
        curves = self.model.curves(wavelength.unsqueeze(1), self._piece[lit])
        return self._tables(parts, epoch, curves, self._to_bands[lit], dust)

    def _tables(
        self,
        parts: Sequence[Float[Tensor, "_galaxy _row cell"]],
        epoch: Epoch,
        curves: Sequence[Curves] | None,
        to_bands: Float[Tensor, "_cell band"],
        dust: Float[Tensor, "_galaxy _part band"] | None,
    ) -> _Tables:
        """Put light in cells of bins, nodes and sources together, and that of the cut bin, whose age the redshift fixes."""
        stars, (bins, nodes, *sources) = self.model.stars, parts
        by_age = nodes.unflatten(1, (-1, stars.n_metallicities))
        galaxy = torch.arange(len(epoch.redshift)) if len(bins) > 1 else torch.zeros_like(epoch.cut_index)
        (left, t_left), (right, t_right) = stars.age_weights(epoch.cut_age)
        cut = by_age[galaxy, left] * t_left[:, None, None] + by_age[galaxy, right] * t_right[:, None, None]
        curves = None if curves is None else tuple(curves)
        return _Tables(bins, cut, nodes, tuple(sources), curves, galaxy, to_bands, dust)

    def _light(self, drawn: Drawn, tables: _Tables) -> Float[Tensor, "galaxy draw cell"]:
        """Attenuated light of draws in cells."""
        young, old = self._starlight(
            drawn.populations, drawn.weights, tables.bins, tables.cut, tables.nodes, tables.table
        )
        for (inside, light), cells in zip(self.model.sources, tables.sources, strict=True):
            assert drawn.weights is not None
            own = light.weights(drawn.values, drawn.populations, drawn.weights, drawn.epoch)
            (young if inside else old).add_(own @ cells)
        if tables.curves is None:
            return young.add_(old)
        return self.model.dim(young, [old], drawn.values, tables.curves)


def _with_all(curves: Sequence[Curves]) -> tuple[Curves, ...]:
    """Return curves with one more column, of what no screen takes from."""
    return tuple(tuple(pad(curve, (0, 1)) for curve in own) for own in curves)
