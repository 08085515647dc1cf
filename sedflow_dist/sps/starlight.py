"""Light of draws through bands: populations and tables of light in cells in, fluxes before the distance out.

A table has a row for each age and metallicity; a population takes two metallicities. Compiled (`compiled_light`), a sum has those
two rows, and nothing but fluxes leaves the processor; PyTorch's operators, where there is no library for the processor or a screen
that it does not know, take products with all of them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from sedflow_dist.compiled import library_for
from sedflow_dist.sps.compiled_light import CompiledLight, Dimming, Glow
from sedflow_dist.sps.components import Screen
from sedflow_dist.sps.drawn import Drawn, Tables
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ladder import BetweenRungs, Cells


class Starlight:
    """Sum the light of many draws of each of some galaxies of a ``model``, behind its screens."""

    def __init__(self, model: GalaxyModel) -> None:
        self._model, library = model, library_for(model.stars.log_age)
        known = all(type(screen).optical_depth is not Screen.optical_depth for screen in model.composition.screens)
        self._compiled = CompiledLight(model.stars, library) if library and known else None

    @property
    def compiled(self) -> bool:
        """Whether this has a compiled sum."""
        return self._compiled is not None

    @property
    def cells_at_once(self) -> int:
        """Of what the number of cells of a table must be a multiple."""
        return self._compiled.cells_at_once if self._compiled else 1

    def __call__(self, drawn: Drawn, tables: Tables) -> Float[Tensor, "galaxy draw band"]:
        """Return attenuated light through bands, without what dust emits."""
        if tables.are_shared:
            tables = replace(tables, galaxy=tables.galaxy.expand(len(drawn.theta)).contiguous())
        model, values = self._model, drawn.values
        sources = []
        for (inside, light), cells in zip(model.sources, tables.sources, strict=True):
            assert drawn.weights is not None
            amount = light.weights(values, drawn.populations, drawn.weights, drawn.epoch)
            sources.append(Glow(amount, cells, inside))
        if self._compiled is None:
            return self._by_operators(drawn, tables, sources)
        screens = []
        for screen, curves in zip(model.composition.screens, tables.curves or (), strict=tables.curves is not None):
            depth = screen.optical_depth(values)
            assert depth is not None
            screens.append(Dimming(depth, curves, screen.covers == "birth clouds"))
        return self._compiled(drawn.populations, tables, sources, screens)

    def _by_operators(self, drawn: Drawn, tables: Tables, sources: list[Glow]) -> Float[Tensor, "galaxy draw band"]:
        stars, galaxy = self._model.stars, tables.galaxy
        weights = stars.metallicity_weights(drawn.populations) if drawn.weights is None else drawn.weights

        def own(table: Cells) -> Tensor:
            if isinstance(table, BetweenRungs):
                return table[galaxy].tables()
            return table if len(table) == 1 else table[galaxy]

        bins, nodes = own(tables.bins), own(tables.nodes)
        young_weights, old_weights = stars.split_bins(weights)
        n = young_weights.shape[-1]
        young = young_weights @ bins[:, :n]
        old = old_weights @ bins[:, n:]
        rows, amount, in_cloud = stars.node_rows(drawn.populations, weights)
        if len(nodes) > 1:
            rows = rows + (torch.arange(len(nodes)) * nodes.shape[1])[:, None, None]
        if bool(in_cloud.any()):
            young = young + _sum_of_rows(nodes, rows + stars.cloud_rows * in_cloud, amount * in_cloud)
        old.add_(_sum_of_rows(nodes, rows, amount * ~in_cloud))
        for source in sources:
            (young if source.inside else old).add_(source.amount @ own(source.templates))
        if tables.curves is None:
            light = young.add_(old)
        else:
            curves = [tuple(curve if curve.ndim == 1 else own(curve) for curve in each) for each in tables.curves]
            light = self._model.dim(young, [old], drawn.values, curves)
        band = torch.searchsorted(tables.end, torch.arange(light.shape[-1]), right=True)
        return light @ one_hot(band, len(tables.end)).to(light.dtype)


def _sum_of_rows(
    nodes: Float[Tensor, "_galaxy node cell"], rows: Int[Tensor, "galaxy draw part"], amount: Tensor
) -> Float[Tensor, "galaxy draw cell"]:
    """Sum rows of tables, as much of each as ``amount`` says."""
    table, amount = nodes.flatten(0, 1), amount.flatten(0, 1).to(nodes.dtype)
    bag = embedding_bag(rows.flatten(0, 1), table, mode="sum", per_sample_weights=amount)
    return bag.view(*rows.shape[:2], -1)
