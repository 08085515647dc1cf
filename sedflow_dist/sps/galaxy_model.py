"""The galaxy model: parameters and a redshift in, spectra and fluxes out, for whole batches of galaxies.

A composition of sources and screens (`components`), evaluated on every pixel of the SSP table here, and for many draws at
one redshift in `fixed_redshift`. Where dust emits what it absorbed, the table's light in cells of energy stands beside the
pixels and goes through the same screens: the sum that is missing behind them is what the dust emits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sedflow_dist.parameters import ParameterSpace, Values, require
from sedflow_dist.sps.components import Composition, Curves, Light, Screen
from sedflow_dist.sps.filters import AB_FLUX, BandWeights, Named, rest_range
from sedflow_dist.sps.populations import Epoch
from sedflow_dist.sps.ssp import SSPTable
from sedflow_dist.sps.stars import BIRTH_CLOUD_AGE_GYR, Stars

#: Galaxies worked on at once: enough that what a step costs is spread, few enough that their spectra stay in the cache.
_BLOCK = 1024


@dataclass(frozen=True)
class _Columns:
    """Tables over some pixels, ``n_pixels``, and after them the cells of energy."""

    stars: Stars
    sources: list[tuple[bool, Light]]
    dust: Float[Tensor, "row pixel"] | None
    curves: list[Curves]
    n_pixels: int

    def only(self, pixels: Int[Tensor, " pixel"]) -> _Columns:
        """Return the same over some of the pixels: those between two bands, which no band sees, cost as much as others."""
        if len(pixels) == self.n_pixels:
            return self
        columns = torch.cat([pixels, torch.arange(self.n_pixels, self.stars.node_spectra.shape[1])])
        return _Columns(
            self.stars.only(columns),
            [(inside, replace(light, templates=light.templates[:, columns])) for inside, light in self.sources],
            None if self.dust is None else self.dust[:, pixels],
            [tuple(curve[columns] for curve in own) for own in self.curves],
            len(pixels),
        )


class GalaxyModel:
    """Fluxes and spectra of galaxies, batched.

    Args:
        ssp: SSP table; only the wavelengths that the bands need are kept
        bands: `speclite` names, for example ``["sdss2010-u", "sdss2010-g"]``, or curves
        z_max: largest redshift that will be asked for
        composition: sources and screens, and with them the parameters; PROVABGS's by default
        birth_cloud_age, birth_cloud_rule: see `Stars`
        dtype: float32 (1e-5 mag from float64; see tests/sedflow_dist/sps/test_galaxy_model.py) or float64
    """

    def __init__(
        self,
        ssp: SSPTable,
        bands: Sequence[Named],
        z_max: float,
        composition: Composition | None = None,
        birth_cloud_age: float = BIRTH_CLOUD_AGE_GYR,
        birth_cloud_rule: Literal["star", "node"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.bands, self.z_max, self.dtype = tuple(bands), float(z_max), dtype
        self.composition = composition or Composition.of()
        ssp = self.composition.table(ssp)
        self.ssp = ssp = ssp.cut(*rest_range(bands, z_max, ssp.edges))
        sources, fixed = self.composition.sources, self.space.fixed
        self.stars = Stars(ssp, z_max, birth_cloud_age, birth_cloud_rule, dtype, sources, fixed)
        self.weights = BandWeights.build(self.bands, ssp.edges, z_max, self.composition.foregrounds)
        self.wavelength = torch.as_tensor(ssp.wavelength, dtype=dtype)
        #: Rest wavelengths [A] of the cells of energy; none where no dust emits.
        self.energy_wavelength = self.tensor(ssp.bolometric.wavelength if ssp.bolometric else np.empty(0))
        #: Of each source besides the stars: whether it is inside birth clouds, and its templates, (row, column).
        self.sources: list[tuple[bool, Light]] = [part for source in sources for part in source.lights(self.stars)]
        #: What dust emits per luminosity [1/A], (row, pixel).
        reemission = self.composition.reemission
        self.dust_templates = None if reemission is None else self.tensor(reemission.templates(ssp))
        self._band_table = self.tensor(self.weights.table)
        curves = self.curves(torch.cat([self.wavelength, self.energy_wavelength]))
        self._all = _Columns(self.stars, self.sources, self.dust_templates, curves, len(self.wavelength))
        seen = torch.nonzero((self._band_table != 0).any(0).any(0)).squeeze(1)
        self._seen = self._all.only(seen)
        self._seen_table = self._band_table if self._seen is self._all else self._band_table[:, :, seen]

    def in_bands(self, ssp: SSPTable, bands: Sequence[Named], z_max: float) -> GalaxyModel:
        """Return the same galaxies in other bands; ``ssp`` is the table that this was made of, with more wavelengths perhaps."""
        rule: Literal["star", "node"] = "node" if self.stars.birth_cloud_rule == "node" else "star"
        return GalaxyModel(ssp, bands, z_max, self.composition, self.stars.birth_cloud_age, rule, self.dtype)

    @property
    def space(self) -> ParameterSpace:
        """The model's parameters."""
        return self.composition.space

    # -- parameters in, fluxes out ------------------------------------------------------------------------------------

    def fluxes(
        self, theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy band"]:
        """Return fluxes [nanomaggies] of galaxies with parameters ``theta`` (columns as in `space`) at ``redshift``.

        Raises:
            ValueError: a parameter or redshift outside what the model means; names the row, the value and the range.
        """
        check(self.space, theta, redshift, self.z_max)
        out = theta.new_empty(len(theta), len(self.bands), dtype=self.dtype)
        for rows in redshift.argsort(stable=True).split(_BLOCK):
            values = self.space.values(theta[rows].to(self.dtype))
            epoch = self.stars.populations.epoch(redshift[rows])
            per_mass = self._through_bands(self._spectra(values, epoch, self._seen), epoch.redshift)
            out[rows] = per_mass * (self._mass(values) * epoch.flux_factor).unsqueeze(-1)
        return out

    def spectra(
        self, theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy wavelength"]:
        """Return attenuated rest-frame spectra [Lsun/A] on the pixels `wavelength` [A]."""
        check(self.space, theta, redshift, self.z_max)
        values = self.space.values(theta.to(self.dtype))
        epoch = self.stars.populations.epoch(redshift)
        return self._spectra(values, epoch, self._all) * self._mass(values).unsqueeze(-1)

    def observed(
        self, spectrum: Float[Tensor, "galaxy wavelength"], redshift: Float[Tensor, " galaxy"]
    ) -> tuple[Float[Tensor, "galaxy wavelength"], Float[Tensor, "galaxy wavelength"]]:
        """Return observed wavelengths [A] and flux densities [nanomaggies, f_nu] of rest-frame spectra [Lsun/A]."""
        epoch = self.stars.populations.epoch(redshift)
        lam = self.wavelength * (1 + epoch.redshift.unsqueeze(-1))
        return lam, spectrum * epoch.flux_factor.unsqueeze(-1) * lam**2 / AB_FLUX

    # -- parts that the evaluation of draws shares --------------------------------------------------------------------

    def curves(
        self, wavelength: Float[Tensor, "*batch wavelength"], piece: Int[Tensor, " wavelength"] | None = None
    ) -> list[Curves]:
        """Return each screen's curves at rest wavelengths [A]; computed in float64, returned in the dtype that came in.

        ``piece``: how many of the composition's breaks lie below the side from which a wavelength is looked at; None: the
        wavelength decides.
        """
        lam, breaks = wavelength.double(), torch.tensor(self.composition.breaks_a, dtype=torch.float64)
        if piece is None:
            piece = torch.bucketize(lam, breaks, right=True)

        def of(screen: Screen) -> Curves:
            own = torch.tensor([0, *np.cumsum([at in screen.breaks_a for at in self.composition.breaks_a])])
            return tuple(curve.to(wavelength.dtype) for curve in screen.curves(lam, own[piece]))

        return [of(screen) for screen in self.composition.screens]

    def dim(
        self,
        young: Float[Tensor, "*batch wavelength"],
        old: Sequence[Float[Tensor, "*batch wavelength"]],
        values: Values,
        curves: Sequence[Curves],
    ) -> Float[Tensor, "*batch wavelength"]:
        """Return all light behind all screens, in the place of ``young``: that from inside birth clouds."""
        screens = list(zip(self.composition.screens, curves, strict=True))
        for screen, own in screens:
            if screen.covers == "birth clouds":
                screen.dim(young, values, own)
        light = young
        for part in old:
            light = light.add_(part)
        for screen, own in screens:
            if screen.covers == "all stars":
                screen.dim(light, values, own)
        return light

    def dust_mixture(self, values: Values) -> tuple[Int[Tensor, "*batch part"], Float[Tensor, "*batch part"]]:
        """Return which rows of `dust_templates` galaxies have, and the share of the energy that each emits."""
        reemission = self.composition.reemission
        assert reemission is not None
        return reemission.mixture(self.ssp, values)

    def rung(self, redshift: Float[Tensor, " galaxy"]) -> tuple[Int[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
        """Rung of the band weights' ladder below each redshift, and the fraction of ln(1+z) on to the next."""
        position = torch.log1p(redshift) / self.weights.step
        left = position.long().clamp(0, len(self._band_table) - 2)
        return left, position - left

    def band_fluxes(self, spectra: Float[Tensor, "row pixel"]) -> Float[Tensor, "rung row band"]:
        """Return fluxes through the bands, before the distance, at each rung of the ladder."""
        return torch.einsum("rk,sbk->srb", spectra, self._band_table)

    def tensor(self, x: np.ndarray) -> Tensor:
        """Return an array as a tensor of the model's dtype."""
        return torch.as_tensor(np.ascontiguousarray(x)).to(self.dtype)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _mass(self, values: Values) -> Float[Tensor, " galaxy"]:
        return 10 ** values[self.space.amplitude.name]

    def _spectra(self, values: Values, epoch: Epoch, at: _Columns) -> Float[Tensor, "galaxy pixel"]:
        """Attenuated spectra per unit of formed mass, with what the dust emits."""
        populations = at.stars.populations(values, epoch)
        shares = at.stars.metallicity_weights(populations)
        young, old = at.stars.light(populations, shares)
        for inside, light in at.sources:
            (young if inside else old).add_(light.weights(values, populations, shares, epoch) @ light.templates)
        if at.sources:  # where there is nothing, the gas's principal axes leave rounding: no light is negative
            young[..., : at.n_pixels].clamp_(min=0)
            old[..., : at.n_pixels].clamp_(min=0)
        if at.dust is None:
            return self.dim(young, [old], values, at.curves)
        energy = slice(at.n_pixels, None)
        all_energy = young[..., energy].sum(-1) + old[..., energy].sum(-1)
        seen = self.dim(young, [old], values, at.curves)
        absorbed = (all_energy - seen[..., energy].sum(-1)).clamp_(min=0)
        rows, share = self.dust_mixture(values)
        emitted = embedding_bag(rows, at.dust, mode="sum", per_sample_weights=share * absorbed.unsqueeze(-1))
        return emitted.add_(seen[..., : at.n_pixels])

    def _through_bands(
        self, spectra: Float[Tensor, "galaxy wavelength"], redshift: Float[Tensor, " galaxy"]
    ) -> Float[Tensor, "galaxy band"]:
        """Band fluxes of spectra in order of redshift: those between two rungs of the ladder are one matrix product."""
        left, fraction = self.rung(redshift)
        both = spectra.new_empty(len(spectra), 2, len(self.bands))
        first = 0
        for rung, n in zip(*(x.tolist() for x in left.unique_consecutive(return_counts=True)), strict=True):
            rows = slice(first, first + n)
            weights = self._seen_table[rung : rung + 2].flatten(0, 1)
            torch.mm(spectra[rows], weights.T, out=both[rows].view(n, -1))
            first += n
        return torch.lerp(both[:, 0], both[:, 1], fraction.unsqueeze(-1))


def check(
    space: ParameterSpace, theta: Float[Tensor, "galaxy param"], redshift: Float[Tensor, " galaxy"], z_max: float
) -> None:
    """Raise ValueError, naming row and parameter, unless every galaxy means something to the model."""
    space.check(theta)
    if redshift.shape != theta.shape[:1]:
        raise ValueError(f"redshifts have shape {tuple(redshift.shape)} for {len(theta)} galaxies")
    require("redshift", redshift, (0.0, z_max), above=True)
