"""Light of the stars of draws: populations and tables of light in cells in, sums over stars in birth clouds and others out.

A table has a row for each age and metallicity; a population takes two metallicities. Compiled (`native/starlight.cpp`), a sum
has those two rows; PyTorch's operators, where there is no library for the processor, take products with all of them.
"""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sedflow_dist.compiled import call, library_for
from sedflow_dist.sps.populations import BURST, CUT, N_FIXED, N_POPULATIONS, Populations
from sedflow_dist.sps.stars import Stars


class _Stars(ctypes.Structure):
    """What `native/starlight.cpp` has to know of a model's stars, in its order."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (
            "populations", "fixed", "cut", "burst", "young", "first_old", "metallicities", "ages",
        )),
        ("log_metallicity", ctypes.c_void_p), ("log_age", ctypes.c_void_p), ("in_cloud", ctypes.c_void_p),
        ("cloud_age", ctypes.c_float), ("cloud_rows", ctypes.c_int64),
    )  # fmt: skip


class Starlight:
    """Sum the light of a model's ``stars`` for many draws of each of some galaxies."""

    def __init__(self, stars: Stars) -> None:
        self.stars, self._library = stars, library_for(stars.log_age)
        if self._library is None:
            return
        assert self._library.starlight_most_populations() >= N_POPULATIONS
        by_node = stars.birth_cloud_rule == "node"
        #: What the structure points at.
        self._held = [stars.log_metallicity, stars.log_age, stars.node_in_cloud.long()]
        metallicities, ages, in_cloud = (x.data_ptr() for x in self._held)
        self._told = _Stars(
            N_POPULATIONS, N_FIXED, CUT, BURST, stars.n_young, stars.first_old, stars.n_metallicities, len(stars.log_age),
            metallicities, ages, in_cloud if by_node else None, stars.birth_cloud_age, stars.cloud_rows,
        )  # fmt: skip

    def compiled(self, cells: int) -> bool:
        """Whether tables of so many cells have the compiled sum: all but those of fewer than a register holds."""
        return self._library is not None and cells >= self._library.starlight_least_cells()

    def __call__(
        self,
        populations: Populations,
        weights: Float[Tensor, "galaxy draw population metallicity"] | None,
        bins: Float[Tensor, "_galaxy bin cell"],
        cut: Float[Tensor, "galaxy metallicity cell"],
        nodes: Float[Tensor, "_table node cell"],
        table: Int[Tensor, " galaxy"],
    ) -> tuple[Float[Tensor, "galaxy draw cell"], Float[Tensor, "galaxy draw cell"]]:
        """Return the light of stars in birth clouds and of the others, before any screen.

        Args:
            weights: `Stars.metallicity_weights` of the populations, if they are known
            bins, cut, nodes: light of the fixed bins, of the bin that the age of the Universe cuts and of the table's ages; of
                each galaxy, or of one for all
            table: which of ``nodes`` is a galaxy's
        """
        if self._library and self.compiled(nodes.shape[-1]):
            return self._compiled(self._library, populations, bins, cut, nodes, table)
        weights = self.stars.metallicity_weights(populations) if weights is None else weights
        young_weights, old_weights = self.stars.split_bins(weights)
        n = young_weights.shape[-1]
        young = young_weights @ bins[:, :n]
        old = old_weights @ bins[:, n:] + weights[..., CUT, :] @ cut
        rows, amount, in_cloud = self.stars.nodes_of(populations.age[..., 1], weights[..., BURST, :])
        rows = rows + (table * nodes.shape[1])[:, None, None]
        if bool(in_cloud.any()):
            young = young + _sum_of_rows(nodes, rows + self.stars.cloud_rows * in_cloud, amount * in_cloud)
        return young, old.add_(_sum_of_rows(nodes, rows, amount * ~in_cloud))

    def _compiled(
        self, found: ctypes.CDLL, populations: Populations, bins: Tensor, cut: Tensor, nodes: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor]:
        (galaxies, draws), cells = populations.mass.shape[:2], nodes.shape[-1]
        young, old = (nodes.new_empty(galaxies, draws, cells) for _ in range(2))
        bins, cut, nodes = bins.contiguous(), cut.contiguous(), nodes.contiguous()
        bins_apart, nodes_apart = (x[0].numel() if len(x) > 1 else 0 for x in (bins, nodes))
        call(
            found.starlight, self._told, populations.mass.contiguous(), populations.metallicity.contiguous(),
            populations.age[..., 1].contiguous(), galaxies, draws, bins, bins_apart, cut, nodes, nodes_apart,
            table.contiguous(), cells, young, old,
        )  # fmt: skip
        return young, old


def _sum_of_rows(nodes: Tensor, rows: Tensor, amount: Tensor) -> Tensor:
    """Sum rows of tables, as much of each as ``amount`` says."""
    table, amount = nodes.flatten(0, 1), amount.flatten(0, 1).to(nodes.dtype)
    bag = embedding_bag(rows.flatten(0, 1), table, mode="sum", per_sample_weights=amount)
    return bag.view(*rows.shape[:2], -1)


def between_rungs(
    ladder: Float[Tensor, "rung row column"],
    rung: Int[Tensor, " galaxy"],
    fraction: Float[Tensor, " galaxy"],
    kept: Int[Tensor, " kept"],
) -> Float[Tensor, "galaxy row kept"]:
    """Return tables at redshifts between ``rung`` and the next, some of their columns."""
    found = library_for(ladder)
    if found is None:
        between = zip(rung.tolist(), fraction.tolist(), strict=True)
        return torch.stack([ladder[i].lerp(ladder[i + 1], share) for i, share in between]).index_select(-1, kept)
    out = ladder.new_empty(len(rung), ladder.shape[1], len(kept))
    call(found.between_rungs, ladder, *ladder.shape[1:], rung, fraction, len(rung), kept, len(kept), out)
    return out
