"""Stars: the source of all starlight; populations of galaxies in, their light from birth clouds and from outside them out.

Linear in the SSP spectra, so it is exact: no emulator stands in for stellar population synthesis. Source: PROVABGS
(Hahn et al. 2022, arXiv 2202.01809, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sedflow_dist.priors import LogUniform, Uniform
from sedflow_dist.quantities import Parameter, Simplex, Vector
from sedflow_dist.sps.components import Component, Source
from sedflow_dist.sps.populations import BURST, CUT, FIXED_AGES_GYR, N_FIXED, PopulationModel, Populations
from sedflow_dist.sps.ssp import SSPTable

BIRTH_CLOUD_AGE_GYR = 0.01


class Stars(Component):
    """Star-formation and metallicity histories of PROVABGS on an SSP table.

    Args:
        ssp: SSP table
        z_max: largest redshift that will be asked for
        birth_cloud_age: stars younger than this [Gyr] lie in birth clouds. FSPS, and so the public PROVABGS code, has
            10 Myr; the paper's text says 100 Myr
        birth_cloud_rule: what "younger" is asked of. "star": the star's own age. "node": the ages of the table between
            which it is interpolated, as FSPS does it: a star of 10.07 Myr is then mostly in its cloud. None: what the
            table's provenance says, "star" if it says nothing
        dtype: float32 or float64
        sources: those of the model besides the stars, as what comes out of birth clouds can be theirs to say
        fixed: values of parameters that are fixed

    Columns are the table's pixels and, where it has `bolometric` light, its cells of energy after them.

    Attributes:
        node_spectra: every age of the table at every metallicity, (age * metallicity, column); then, where the light of
            stars in birth clouds is not that of others, the young ones again, as these clouds let them be seen
        cloud_rows: how many rows further the same age and metallicity is in clouds: 0 where that light is the same
        bin_spectra: every fixed bin with stars in birth clouds, then every one with others (with the rule "node", one bin
            can be both), at every metallicity, (bin * metallicity, column)
        node_surviving, bin_surviving: surviving mass fractions of the same rows
    """

    name = "stars"
    parameters = (
        Parameter(
            "log_mstar", "log10(Msun)", "stellar mass formed", r"$\log M_*$", "phys.mass",
            prior=Uniform(low=7, high=12.5), domain=(-100.0, 30.0), role="amplitude",
        ),
        Simplex("beta", "1", "weight of SFH basis function {i}", r"$\beta_{i}$", size=4),
        Parameter(
            "f_burst", "1", "fraction of the mass formed in one burst", r"$f_{\rm burst}$",
            prior=Uniform(low=0, high=1), domain=(0.0, 1.0),
        ),
        Parameter(
            "t_burst", "Gyr", "lookback time of the burst", r"$t_{\rm burst}$", "time",
            prior=Uniform(low=0.01, high=13.27), domain=(0.0, math.inf),
        ),
        Vector(
            "gamma", "1", "weight of metallicity-history basis function {i}", r"$\gamma_{i}$",
            prior=LogUniform(low=4.5e-5, high=1.5e-2), domain=(0.0, math.inf), size=2,
        ),
    )  # fmt: skip

    def __init__(
        self,
        ssp: SSPTable,
        z_max: float,
        birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
        birth_cloud_rule: Literal["star", "node"] | None = None,
        dtype: torch.dtype = torch.float32,
        sources: Sequence[Source] = (),
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        self.ssp, self.birth_cloud_age, self.dtype, self.fixed = ssp, birth_cloud_age, dtype, fixed or {}
        self.birth_cloud_rule = birth_cloud_rule or ssp.birth_cloud_rule
        if self.birth_cloud_rule not in ("star", "node"):
            raise ValueError(f"birth_cloud_rule is {self.birth_cloud_rule!r}; it can be 'star' or 'node'")
        self.populations = PopulationModel(z_max, (float(ssp.metallicity[0]), float(ssp.metallicity[-1])), dtype)
        self.n_metallicities = len(ssp.metallicity)
        self.log_metallicity, self.log_age = self.tensor(np.log(ssp.metallicity)), self.tensor(np.log(ssp.age))
        # FSPS's nodes are logarithms with two decimals: 1e-6 forgives their rounding.
        self.node_in_cloud = torch.as_tensor(ssp.age <= birth_cloud_age * (1 + 1e-6))
        ages = torch.as_tensor(FIXED_AGES_GYR)
        pairs = [(i, t, self.in_cloud(ages, i)) for i, t in self.age_weights(ages)]
        young = [(i, t * inside) for i, t, inside in pairs]
        old = [(i, t * ~inside) for i, t, inside in pairs]
        self.n_young = int(torch.stack([t for _, t in young]).sum(0).count_nonzero())
        self.first_old = N_FIXED - int(torch.stack([t for _, t in old]).sum(0).count_nonzero())

        self._young, self._old = young, old
        spectra = ssp.columns
        for source in sources:
            spectra = source.of_stars(spectra, self)
        seen = spectra
        for source in sources:
            seen = source.of_clouds(seen, self)
        self.node_spectra = self.rows_of_nodes(spectra)
        self.node_surviving = self.tensor(ssp.surviving.T.reshape(-1))
        of_clouds = self.node_spectra if seen is spectra else self.rows_of_nodes(seen)
        self.bin_spectra = torch.cat([self.bins_in_clouds(of_clouds), self.bins_outside(self.node_spectra)])
        surviving = self.node_surviving.unsqueeze(-1)
        self.bin_surviving = torch.cat([self.bins_in_clouds(surviving), self.bins_outside(surviving)]).squeeze(-1)
        self.cloud_rows = 0 if seen is spectra else len(self.node_spectra)
        if self.cloud_rows:
            n = self._n_young_nodes * self.n_metallicities
            self.node_spectra = torch.cat([self.node_spectra, of_clouds[:n]])
            self.node_surviving = torch.cat([self.node_surviving, self.node_surviving[:n]])

    @property
    def n_young_rows(self) -> int:
        """Rows of the bins whose stars lie in birth clouds."""
        return self.n_young * self.n_metallicities

    @property
    def _n_young_nodes(self) -> int:
        """Ages of the table from which stars in birth clouds take their light."""
        return min(int(np.searchsorted(self.ssp.age, self.birth_cloud_age * (1 + 1e-6))) + 1, len(self.ssp.age))

    def only(self, columns: Int[Tensor, " column"]) -> Stars:
        """Return the same with some of the columns."""
        found = copy(self)
        found.node_spectra, found.bin_spectra = self.node_spectra[:, columns], self.bin_spectra[:, columns]
        return found

    def rows_of_nodes(self, table: Float[np.ndarray, "metallicity age column"]) -> Float[Tensor, "node column"]:
        """Return what is tabulated at metallicities and ages as rows, the metallicities of an age beside each other."""
        return self.tensor(np.swapaxes(table, 0, 1).reshape(-1, table.shape[-1]))

    def bins_in_clouds(self, nodes: Float[Tensor, "node column"]) -> Float[Tensor, "row column"]:
        """Return what is tabulated at nodes for the bins with stars in birth clouds: those stars' share of the bin."""
        return self._between_ages(nodes, *self._young)[: self.n_young_rows]

    def bins_outside(self, nodes: Float[Tensor, "node column"]) -> Float[Tensor, "row column"]:
        """Return what is tabulated at nodes for the bins with stars outside birth clouds: those stars' share of the bin."""
        return self._between_ages(nodes, *self._old)[self.first_old * self.n_metallicities :]

    def sum(
        self,
        inside: bool,
        bins: Float[Tensor, "row column"],
        nodes: Float[Tensor, "node column"],
        populations: Populations,
        weights: Float[Tensor, "*batch population metallicity"],
    ) -> Float[Tensor, "*batch column"]:
        """Sum what is tabulated over the stars of galaxies that lie in birth clouds, or over the others.

        Args:
            bins: as `bins_in_clouds` has them, or as many rows of `bins_outside` as are not zero
            weights: `metallicity_weights` of the populations
        """
        of_bins = self.split_bins(weights)[0 if inside else 1]
        found = of_bins[..., : len(bins)] @ bins
        rows, row_weights, in_cloud = self.node_rows(populations, weights)
        wanted = in_cloud if inside else ~in_cloud
        if bool(wanted.any()):
            amount = (row_weights * wanted).flatten(0, -2)
            found += embedding_bag(rows.flatten(0, -2), nodes, mode="sum", per_sample_weights=amount).view(found.shape)
        return found

    def light(
        self, populations: Populations, weights: Float[Tensor, "galaxy population metallicity"]
    ) -> tuple[Float[Tensor, "galaxy pixel"], Float[Tensor, "galaxy pixel"]]:
        """Return the spectra of stars in birth clouds and of the others, per unit of formed mass.

        ``weights``: `metallicity_weights` of the populations.
        """
        young, old = self.split_bins(weights)
        young = young @ self.bin_spectra[: self.n_young_rows]
        old = old @ self.bin_spectra[self.n_young_rows :]
        rows, row_weights, row_in_cloud = self.node_rows(populations, weights)
        if bool(row_in_cloud.any()):
            in_cloud = row_weights * row_in_cloud
            in_clouds = rows + self.cloud_rows * row_in_cloud
            young += embedding_bag(in_clouds, self.node_spectra, mode="sum", per_sample_weights=in_cloud)
            row_weights = row_weights - in_cloud
        old += embedding_bag(rows, self.node_spectra, mode="sum", per_sample_weights=row_weights)
        return young, old

    def metallicity_weights(self, populations: Populations) -> Float[Tensor, "*batch population metallicity"]:
        """Return each population's mass, shared between the table's metallicities: linear in log Z, clipped at its ends."""
        nodes = self.log_metallicity
        log_z = torch.log(populations.metallicity).unsqueeze(-1)
        # Fraction of each step between neighbouring nodes that lies below log_z; differences are the hat functions.
        above = ((log_z - nodes[:-1]) / (nodes[1:] - nodes[:-1])).clamp_(0, 1)
        above.mul_(populations.mass.unsqueeze(-1))
        weights = above.new_empty(*above.shape[:-1], len(nodes))
        weights[..., 0] = populations.mass
        weights[..., 1:] = above
        weights[..., :-1] -= above
        return weights

    def split_bins(
        self, weights: Float[Tensor, "*batch population metallicity"]
    ) -> tuple[Float[Tensor, "*batch young"], Float[Tensor, "*batch old"]]:
        """Weights of the fixed bins, flattened over (bin, metallicity): those in birth clouds and the others."""
        return weights[..., : self.n_young, :].flatten(-2), weights[..., self.first_old : N_FIXED, :].flatten(-2)

    def all_in_clouds(self, n: int) -> bool:
        """Whether all light that is taken from the table's ``n`` youngest ages comes from inside birth clouds."""
        return self.birth_cloud_rule == "node" and bool(self.node_in_cloud[:n].all())

    def in_cloud(self, age: Float[Tensor, "*batch"], node: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether the light that stars of an age take from a node of the table comes from inside a birth cloud."""
        return self.node_in_cloud[node] if self.birth_cloud_rule == "node" else age < self.birth_cloud_age

    def age_weights(
        self, age: Float[Tensor, "*batch"]
    ) -> tuple[
        tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]], tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]
    ]:
        """Neighbouring ages of the table and their weights: linear in log(age), the youngest spectrum before it."""
        nodes = self.log_age if age.dtype == self.dtype else torch.as_tensor(np.log(self.ssp.age), dtype=age.dtype)
        position = torch.log(age).contiguous()
        right = torch.searchsorted(nodes, position).clamp(1, len(nodes) - 1)
        t = ((position - nodes[right - 1]) / (nodes[right] - nodes[right - 1])).clamp(0, 1)
        t = t.to(self.dtype)
        return (right - 1, 1 - t), (right, t)

    def node_rows(
        self, populations: Populations, weights: Float[Tensor, "*batch population metallicity"]
    ) -> tuple[Int[Tensor, "*batch row"], Float[Tensor, "*batch row"], Bool[Tensor, "*batch row"]]:
        """Rows of the nodes that make up the cut bin and the burst, their weights, and which lie in birth clouds."""
        rows, row_weights, in_cloud = self.nodes_of(populations.age, weights[..., [CUT, BURST], :])
        return rows.flatten(-2), row_weights.flatten(-2), in_cloud.flatten(-2)

    def nodes_of(
        self, age: Float[Tensor, "*batch"], weights: Float[Tensor, "*batch metallicity"]
    ) -> tuple[Int[Tensor, "*batch row"], Float[Tensor, "*batch row"], Bool[Tensor, "*batch row"]]:
        """Return the four rows of `node_spectra` between which populations lie, their weights, and which are in birth clouds.

        Two ages, each at the two metallicities beside each other of which ``weights`` (`metallicity_weights`) are not zero.
        """
        lower = (weights != 0).to(torch.uint8).argmax(-1, keepdim=True).clamp_(max=self.n_metallicities - 2)
        pair = torch.cat([lower, lower + 1], dim=-1)
        share = weights.gather(-1, pair)
        nodes = self.age_weights(age)
        rows = torch.cat([index.unsqueeze(-1) * self.n_metallicities + pair for index, _ in nodes], dim=-1)
        row_weights = torch.cat([share * fraction.unsqueeze(-1) for _, fraction in nodes], dim=-1)
        in_cloud = torch.stack([self.in_cloud(age, index) for index, _ in nodes], dim=-1)
        return rows, row_weights, in_cloud.repeat_interleave(2, dim=-1)

    def _between_ages(
        self,
        nodes: Float[Tensor, "node column"],
        left: tuple[Int[Tensor, " age"], Float[Tensor, " age"]],
        right: tuple[Int[Tensor, " age"], Float[Tensor, " age"]],
    ) -> Float[Tensor, "row column"]:
        """Interpolate nodes, one for each age and metallicity, at other ages."""
        table = nodes.view(len(self.ssp.age), -1, nodes.shape[-1])
        rows = table[left[0]] * left[1][:, None, None] + table[right[0]] * right[1][:, None, None]
        return rows.reshape(-1, nodes.shape[-1])

    def tensor(self, x: np.ndarray) -> Tensor:
        """Return an array as a tensor of the model's dtype."""
        return torch.as_tensor(np.ascontiguousarray(x)).to(self.dtype)
