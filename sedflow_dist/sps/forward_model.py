"""The forward model: twelve parameters and a redshift in, spectra and fluxes out, for whole batches of galaxies.

Linear in the SSP spectra, so it is exact: no emulator stands in for stellar population synthesis. Source: PROVABGS
(Hahn et al. 2022, arXiv 2202.01809, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag

from sedflow_dist.parameters import PARAMETERS
from sedflow_dist.sps.dust import DustCurves
from sedflow_dist.sps.filters import AB_FLUX, BandWeights, rest_range
from sedflow_dist.sps.populations import BURST, CUT, FIXED_AGES_GYR, N_FIXED, Epoch, PopulationModel, Populations
from sedflow_dist.sps.ssp import SSPTable

BIRTH_CLOUD_AGE_GYR = 0.01
#: Galaxies worked on at once: their spectra then stay in a core's cache.
_BLOCK = 512


class ForwardModel:
    """Fluxes and spectra of galaxies, batched.

    Args:
        ssp: SSP table; only the wavelengths that the bands need are kept
        bands: `speclite` names, for example ``["sdss2010-u", "sdss2010-g"]``
        z_max: largest redshift that will be asked for
        birth_cloud_age: stars younger than this [Gyr] lie in birth clouds. FSPS, and so the public PROVABGS code, has
            10 Myr; the paper's text says 100 Myr
        birth_cloud_rule: what "younger" is asked of. "star": the star's own age. "node": the ages of the table between
            which it is interpolated, as FSPS does it: a star of 10.07 Myr is then mostly in its cloud. None: what the
            table's provenance says, "star" if it says nothing
        dtype: float32 (1e-5 mag from float64; see tests/sedflow_dist/sps/test_forward_model.py) or float64
    """

    def __init__(
        self,
        ssp: SSPTable,
        bands: Sequence[str],
        z_max: float,
        birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
        dtype: torch.dtype = torch.float32,
        birth_cloud_rule: Literal["star", "node"] | None = None,
    ) -> None:
        self.bands, self.z_max, self.birth_cloud_age, self.dtype = tuple(bands), float(z_max), birth_cloud_age, dtype
        self.birth_cloud_rule = birth_cloud_rule or ssp.birth_cloud_rule
        if self.birth_cloud_rule not in ("star", "node"):
            raise ValueError(f"birth_cloud_rule is {self.birth_cloud_rule!r}; it can be 'star' or 'node'")
        self.ssp = ssp = ssp.cut(*rest_range(bands, z_max, ssp.edges))
        self.population_model = PopulationModel(z_max, (float(ssp.metallicity[0]), float(ssp.metallicity[-1])), dtype)
        self.weights = BandWeights.build(self.bands, ssp.edges, z_max)
        self.wavelength = torch.as_tensor(ssp.wavelength, dtype=dtype)
        self.dust = DustCurves.at(self.wavelength)
        # Rows of the node table: every age of the library, at every metallicity. Rows of the bin tables: every fixed bin
        # with stars in birth clouds, then every one with others (with "node", one bin can be both).
        self.node_spectra = self._tensor(np.swapaxes(ssp.spectra, 0, 1).reshape(-1, len(ssp.wavelength)))
        self.node_surviving = self._tensor(ssp.surviving.T.reshape(-1))
        # FSPS's nodes are logarithms with two decimals: 1e-6 forgives their rounding.
        self._node_in_cloud = torch.as_tensor(ssp.age <= birth_cloud_age * (1 + 1e-6))
        ages = torch.as_tensor(FIXED_AGES_GYR)
        pairs = [(i, t, self._in_cloud(ages, i)) for i, t in self._age_weights(ages)]
        young = [(i, t * inside) for i, t, inside in pairs]
        old = [(i, t * ~inside) for i, t, inside in pairs]
        self.n_young = int(torch.stack([t for _, t in young]).sum(0).count_nonzero())
        self.first_old = N_FIXED - int(torch.stack([t for _, t in old]).sum(0).count_nonzero())

        def rows_of_bins(nodes: Tensor) -> Tensor:
            n_z = len(ssp.metallicity)
            parts = self._between_ages(nodes, *young)[: self.n_young * n_z], self._between_ages(nodes, *old)
            return torch.cat([parts[0], parts[1][self.first_old * n_z :]])

        self.bin_spectra = rows_of_bins(self.node_spectra)
        self.bin_surviving = rows_of_bins(self.node_surviving.unsqueeze(-1)).squeeze(-1)
        self._band_table = self._tensor(self.weights.table)

    # -- parameters in, fluxes out ------------------------------------------------------------------------------------

    def fluxes(
        self, theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy band"]:
        """Return fluxes [nanomaggies] of galaxies with parameters ``theta`` (`PARAMETERS`, 12) at ``redshift``.

        Raises:
            ValueError: a parameter or redshift outside what the model means; names the row, the value and the range.
        """
        check_parameters(theta, redshift, self.z_max)
        out = theta.new_empty(len(theta), len(self.bands), dtype=self.dtype)
        for rows in redshift.argsort(stable=True).split(_BLOCK):
            block = theta[rows].to(self.dtype)
            epoch = self.population_model.epoch(redshift[rows])
            per_mass = self._through_bands(self._spectra(block, epoch), epoch.redshift)
            out[rows] = per_mass * (10 ** block[:, 0] * epoch.flux_factor).unsqueeze(-1)
        return out

    def spectra(
        self, theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy wavelength"]:
        """Return attenuated rest-frame spectra [Lsun/A] on the pixels `wavelength` [A]."""
        check_parameters(theta, redshift, self.z_max)
        theta = theta.to(self.dtype)
        return self._spectra(theta, self.population_model.epoch(redshift)) * 10 ** theta[:, :1]

    def observed(
        self, spectrum: Float[Tensor, "galaxy wavelength"], redshift: Float[Tensor, " galaxy"]
    ) -> tuple[Float[Tensor, "galaxy wavelength"], Float[Tensor, "galaxy wavelength"]]:
        """Return observed wavelengths [A] and flux densities [nanomaggies, f_nu] of rest-frame spectra [Lsun/A]."""
        epoch = self.population_model.epoch(redshift)
        lam = self.wavelength * (1 + epoch.redshift.unsqueeze(-1))
        return lam, spectrum * epoch.flux_factor.unsqueeze(-1) * lam**2 / AB_FLUX

    # -- parts --------------------------------------------------------------------------------------------------------

    def _spectra(self, theta: Tensor, epoch: Epoch) -> Tensor:
        """Attenuated spectra per unit of formed mass."""
        populations = self.population_model(theta, epoch)
        weights = self.metallicity_weights(populations)
        young, old = self._split_bins(weights)
        n_young_rows = self.n_young * len(self.ssp.metallicity)
        young = young @ self.bin_spectra[:n_young_rows]
        old = old @ self.bin_spectra[n_young_rows:]
        rows, row_weights, row_in_cloud = self._node_rows(populations, weights)
        if bool(row_in_cloud.any()):
            in_cloud = row_weights * row_in_cloud
            young += embedding_bag(rows, self.node_spectra, mode="sum", per_sample_weights=in_cloud)
            row_weights = row_weights - in_cloud
        old += embedding_bag(rows, self.node_spectra, mode="sum", per_sample_weights=row_weights)
        tau_bc, tau_ism, n_dust = (theta[..., PARAMETERS.index(n)] for n in ("tau_bc", "tau_ism", "n_dust"))
        return young.mul_(self.dust.clouds(tau_bc)).add_(old).mul_(self.dust.diffuse(tau_ism, n_dust))

    def metallicity_weights(self, populations: Populations) -> Float[Tensor, "*batch population metallicity"]:
        """Return each population's mass, shared between the table's metallicities: linear in log Z, clipped at its ends."""
        nodes = self._tensor(np.log(self.ssp.metallicity))
        log_z = torch.log(populations.metallicity).unsqueeze(-1)
        # Fraction of each step between neighbouring nodes that lies below log_z; differences are the hat functions.
        above = ((log_z - nodes[:-1]) / (nodes[1:] - nodes[:-1])).clamp_(0, 1)
        above.mul_(populations.mass.unsqueeze(-1))
        weights = above.new_empty(*above.shape[:-1], len(nodes))
        weights[..., 0] = populations.mass
        weights[..., 1:] = above
        weights[..., :-1] -= above
        return weights

    def _split_bins(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the fixed bins, flattened over (bin, metallicity): those in birth clouds and the others."""
        return weights[..., : self.n_young, :].flatten(-2), weights[..., self.first_old : N_FIXED, :].flatten(-2)

    def _in_cloud(self, age: Tensor, node: Tensor) -> Tensor:
        """Whether the light that stars of an age take from a node of the table comes from inside a birth cloud."""
        return self._node_in_cloud[node] if self.birth_cloud_rule == "node" else age < self.birth_cloud_age

    def _node_rows(self, populations: Populations, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the node table that make up the cut bin and the burst, their weights, and which lie in birth clouds."""
        n_z = weights.shape[-1]
        left, right = self._age_weights(populations.age)
        metallicities = torch.arange(n_z)
        rows = torch.cat([(index.unsqueeze(-1) * n_z + metallicities) for index, _ in (left, right)], dim=-1)
        share = weights[..., [CUT, BURST], :]
        row_weights = torch.cat([share * fraction.unsqueeze(-1) for _, fraction in (left, right)], dim=-1)
        clouds = [self._in_cloud(populations.age, index) for index, _ in (left, right)]
        in_cloud = torch.stack(clouds, dim=-1).repeat_interleave(n_z, dim=-1)
        return rows.flatten(-2), row_weights.flatten(-2), in_cloud.flatten(-2)

    def _age_weights(self, age: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Neighbouring ages of the library and their weights: linear in log(age), the youngest spectrum before it."""
        nodes = torch.as_tensor(np.log(self.ssp.age), dtype=age.dtype)
        position = torch.log(age).contiguous()
        right = torch.searchsorted(nodes, position).clamp(1, len(nodes) - 1)
        t = ((position - nodes[right - 1]) / (nodes[right] - nodes[right - 1])).clamp(0, 1)
        t = t.to(self.dtype)
        return (right - 1, 1 - t), (right, t)

    def _between_ages(self, nodes: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
        """Interpolate a node table (age * metallicity, column) at ages: (len(age) * metallicity, column)."""
        table = nodes.view(len(self.ssp.age), -1, nodes.shape[-1])
        rows = table[left[0]] * left[1][:, None, None] + table[right[0]] * right[1][:, None, None]
        return rows.reshape(-1, nodes.shape[-1])

    def _through_bands(self, spectra: Tensor, redshift: Tensor) -> Tensor:
        """Band fluxes of spectra in order of redshift: those between two rungs of the ladder are one matrix product."""
        left, fraction = self._rung(redshift)
        both = spectra.new_empty(len(spectra), 2, len(self.bands))
        first = 0
        for rung, n in zip(*(x.tolist() for x in left.unique_consecutive(return_counts=True)), strict=True):
            rows = slice(first, first + n)
            weights = self._band_table[rung : rung + 2].flatten(0, 1)
            torch.mm(spectra[rows], weights.T, out=both[rows].view(n, -1))
            first += n
        return torch.lerp(both[:, 0], both[:, 1], fraction.unsqueeze(-1))

    def _rung(self, redshift: Tensor) -> tuple[Tensor, Tensor]:
        """Rung of the band weights' ladder below each redshift, and the fraction of ln(1+z) on to the next."""
        position = torch.log1p(redshift) / self.weights.step
        left = position.long().clamp(0, len(self._band_table) - 2)
        return left, position - left

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(x)).to(self.dtype)


_DOMAIN = {
    "log_mstar": (-100.0, 30.0), **{f"beta{i}": (0.0, 1.0) for i in (1, 2, 3, 4)}, "f_burst": (0.0, 1.0),
    "t_burst": (0.0, float("inf")), "gamma1": (0.0, float("inf")), "gamma2": (0.0, float("inf")),
    "tau_bc": (0.0, float("inf")), "tau_ism": (0.0, float("inf")), "n_dust": (-10.0, 10.0),
}  # fmt: skip


def check_parameters(theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"], z_max: float) -> None:
    """Raise ValueError, naming row and parameter, unless every galaxy means something to the model."""
    if theta.ndim != 2 or theta.shape[1] != len(PARAMETERS) or redshift.shape != theta.shape[:1]:
        raise ValueError(
            f"parameters have shape {tuple(theta.shape)} and redshifts {tuple(redshift.shape)}; expected "
            f"(galaxy, {len(PARAMETERS)}) and (galaxy,); the parameters are {', '.join(PARAMETERS)}"
        )
    limits = torch.tensor([_DOMAIN[name] for name in PARAMETERS], dtype=theta.dtype)
    _raise_at((theta >= limits[:, 0]) & (theta <= limits[:, 1]) & torch.isfinite(theta), theta, _DOMAIN)
    total = theta[:, 1:5].sum(1, keepdim=True)
    _raise_at((total - 1).abs() < 1e-3, total, {"beta1 + beta2 + beta3 + beta4": (0.999, 1.001)})
    redshift = redshift.unsqueeze(1)
    _raise_at((redshift > 0) & (redshift <= z_max), redshift, {"redshift": (0.0, z_max)})


def _raise_at(good: Tensor, values: Tensor, domain: dict[str, tuple[float, float]]) -> None:
    if bool(good.all()):
        return
    row, column = (int(i) for i in torch.nonzero(~good)[0])
    name, (lo, hi) = list(domain.items())[column]
    raise ValueError(
        f"row {row}: {name} = {values[row, column].item():g} is outside [{lo:g}, {hi:g}] "
        f"({int((~good).any(1).sum())} of {len(good)} rows are bad)"
    )
