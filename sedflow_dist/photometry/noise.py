"""The noise of a survey: from its own measured uncertainties to simulated ones, p(sigma | flux).

In: calibrated fluxes and uncertainties of shape (galaxy, band). Out: mean and scatter of the magnitude error in bins of
magnitude, from which uncertainties and noisy fluxes are drawn. Source: SEDflow (Hahn & Melchior 2022, section 3.1, eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from sedflow_dist import magnitudes
from sedflow_dist.magnitudes import POGSON
from sedflow_dist.photometry.photometry import Photometry

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


#: Of a depth that is declared: how far brighter than it and fainter the bins lie [mag] (there S/N is 1), and how much the depth
#: differs over the sky and between galaxies, relative to the uncertainty.
_BRIGHTER, _FAINTER, _UNEVEN = 9.0, 1.75, 0.3


@dataclass(frozen=True)
class Depth:
    """The noise of a band that is told and not fitted: that of the sky, and an error that is a fraction of the flux.

    Attributes:
        magnitude: AB magnitude of a flux of five standard deviations of the sky's noise
        fraction: relative error beside it, of calibration and models
    """

    magnitude: float
    fraction: float

    def tables(self, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return magnitudes, mean and scatter of the magnitude error in bins."""
        magnitude = np.linspace(self.magnitude - _BRIGHTER, self.magnitude + _FAINTER, bins)
        sky = 0.2 * 10 ** (0.4 * (magnitude - self.magnitude))
        mean = np.hypot(sky, self.fraction)
        return magnitude, POGSON * mean, POGSON * np.maximum(_UNEVEN * sky**2 / mean, 0.1 * mean)


class NoiseModel(nn.Module):
    """Magnitude errors as functions of magnitude, and the magnitudes that the survey selects; its tables are buffers.

    Args:
        magnitude: bin centres [mag]
        mean, scatter: of the magnitude error in the bin [mag]
        selection_band: index of the band in which the survey selects
        selection: brightest and faintest observed magnitude in that band [mag]
        shallower: by how much galaxies are observed less deeply than the tables say, all bands of one alike: uniform from 0 to
            that [mag], as while a survey's years add up
    """

    magnitude: Float[Tensor, "band bin"]
    mean: Float[Tensor, "band bin"]
    scatter: Float[Tensor, "band bin"]

    def __init__(
        self,
        magnitude: Float[Tensor, "band bin"],
        mean: Float[Tensor, "band bin"],
        scatter: Float[Tensor, "band bin"],
        selection_band: int,
        selection: tuple[float, float],
        shallower: float = 0.0,
    ) -> None:
        super().__init__()
        for name, table in (("magnitude", magnitude), ("mean", mean), ("scatter", scatter)):
            self.register_buffer(name, table)
        self.selection_band, self.selection, self.shallower = selection_band, selection, shallower

    @property
    def most(self) -> float:
        """By what the uncertainty of the shallowest sky is larger than the tables'."""
        return float(10 ** (0.4 * self.shallower))

    @classmethod
    def told(
        cls,
        depths: Sequence[Depth],
        selection_band: int,
        selection: tuple[float, float],
        shallower: float = 0.0,
        bins: int = 16,
    ) -> NoiseModel:
        """Return the noise of a survey that is declared, band by band, and needs no data."""
        tables = zip(*(depth.tables(bins) for depth in depths), strict=True)
        magnitude, mean, scatter = (torch.as_tensor(np.stack(table), dtype=torch.float32) for table in tables)
        return cls(magnitude, mean, scatter, selection_band, selection, shallower)

    def selecting(self, selection: tuple[float, float]) -> NoiseModel:
        """Return the same noise of a survey that selects between other magnitudes."""
        return NoiseModel(self.magnitude, self.mean, self.scatter, self.selection_band, selection, self.shallower)

    @classmethod
    def fit(
        cls,
        photometry: Photometry,
        selection_band: int,
        bins: int = 16,
        depths: Mapping[int, Depth] | None = None,
    ) -> NoiseModel:
        """Fit to a survey's measured fluxes and uncertainties [nanomaggies]; bins hold equal numbers of galaxies.

        The selection spans the observed magnitudes but for the outermost 0.05 % at either end. ``depths``: noise of bands, by
        number, that is told and not fitted.
        """
        arrays = photometry.arrays()
        flux, sigma = arrays["flux"], arrays["sigma"]
        centres: list[ArrayLike] = []
        means: list[ArrayLike] = []
        scatters: list[np.ndarray] = []
        for band in range(flux.shape[1]):
            if depths and band in depths:
                centre, mean, scatter = depths[band].tables(bins)
                centres.append(centre)
                means.append(mean)
                scatters.append(scatter)
                continue
            ok = arrays["mask"][:, band] & (flux[:, band] > sigma[:, band])
            if ok.sum() < 10 * bins:
                bins_here = max(int(ok.sum()) // 10, 1)
                if ok.sum() < 10:
                    raise ValueError(
                        f"band {band}: only {ok.sum()} fluxes above 1 sigma; a noise model needs 10, or training.depth"
                    )
            else:
                bins_here = bins
            magnitude = magnitudes.magnitude(flux[ok, band])
            error = POGSON * sigma[ok, band] / flux[ok, band]
            order = np.argsort(magnitude, kind="stable")
            groups = np.array_split(order, bins_here)
            groups = [groups[min(i * bins_here // bins, bins_here - 1)] for i in range(bins)]
            centres.append([np.median(magnitude[g]) + 1e-3 * i for i, g in enumerate(groups)])
            means.append([np.median(error[g]) for g in groups])
            # Half the 2.5-97.5 % range over two; at least a tenth of the mean, so that no bin is a spike.
            spread = [np.subtract(*np.percentile(error[g], [97.5, 2.5])) / 4 for g in groups]
            scatters.append(np.maximum(spread, 0.1 * np.asarray(means[-1])))
        ok = arrays["mask"][:, selection_band] & (flux[:, selection_band] > 0)
        magnitude = magnitudes.magnitude(flux[ok, selection_band])
        faint, bright = np.percentile(magnitude, [99.95, 0.05])
        tables = [torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (centres, means, scatters)]
        return cls(tables[0], tables[1], tables[2], selection_band, (float(bright), float(faint)))

    def moments(
        self, flux: Float[Tensor, "galaxy band"]
    ) -> tuple[Float[Tensor, "galaxy band"], Float[Tensor, "galaxy band"]]:
        """Return mean and scatter of sigma [nanomaggies] at ``flux``; beyond the faintest bin sigma is constant."""
        brightest, faintest = self._flux_range()
        bounded = torch.minimum(torch.maximum(flux, faintest), brightest)
        position = magnitudes.magnitude(bounded)
        to_flux = torch.maximum(flux, faintest) / POGSON
        mean, scatter = torch.empty_like(flux), torch.empty_like(flux)
        for band in range(flux.shape[1]):
            x = self.magnitude[band]
            right = torch.searchsorted(x, position[:, band].contiguous()).clamp(1, len(x) - 1)
            t = ((position[:, band] - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
            for out, table in ((mean, self.mean[band]), (scatter, self.scatter[band])):
                out[:, band] = torch.lerp(table[right - 1], table[right], t) * to_flux[:, band]
        return mean, scatter

    def observe(
        self, flux: Float[Tensor, "galaxy band"], generator: Generator
    ) -> tuple[Float[Tensor, "galaxy band"], Float[Tensor, "galaxy band"], Bool[Tensor, " galaxy"]]:
        """Draw noisy fluxes and their uncertainties for true fluxes [nanomaggies].

        A survey states an uncertainty for the flux that it observed, and that is the relation that was fitted. One that followed
        the true flux would say more of it than the observed one does: a flow would learn brightness from uncertainties.

        Returns:
            fluxes, sigmas, and which rows the survey would have selected (magnitude in its range).
        """
        depth = torch.randn(flux.shape, generator=generator, device=flux.device)
        factor = flux.new_ones(1, 1)
        if self.shallower:
            factor = self.most ** torch.rand(len(flux), 1, generator=generator, device=flux.device)
        noise = self._sigma(flux, depth, factor) * torch.randn(flux.shape, generator=generator, device=flux.device)
        noisy = flux + noise
        bright, faint = map(magnitudes.flux, self.selection)
        selected = noisy[:, self.selection_band]
        return noisy, self._sigma(noisy, depth, factor), (selected <= bright) & (selected >= faint)

    def inverse_sigma(
        self, flux: Float[Tensor, "galaxy draw band"], photometry: Photometry
    ) -> Float[Tensor, "galaxy draw band"]:
        """Return 1 / sigma [1 / nanomaggies] of the noise in `observe`, were these the true fluxes of galaxies that look so.

        What differs between fields is told by the uncertainties stated, which are those of the fluxes observed; 0 in masked bands.
        """
        factor, depth = self._field(photometry)
        n_draws = flux.shape[1]
        depth = depth.unsqueeze(1).expand_as(flux).flatten(0, 1)
        sigma = self._sigma(flux.flatten(0, 1), depth, factor.repeat_interleave(n_draws, 0)).view_as(flux)
        return torch.where(photometry.mask.unsqueeze(1), 1 / sigma, 0.0)

    def _sigma(
        self,
        flux: Float[Tensor, "galaxy band"],
        depth: Float[Tensor, "galaxy band"],
        factor: Float[Tensor, "galaxy_or_all 1"],
    ) -> Float[Tensor, "galaxy band"]:
        """Return sigma [nanomaggies] at ``flux`` in a field that is shallower than most by ``depth`` standard deviations.

        It scatters in its logarithm: a normal distribution around a mean, of half as much scatter as in SDSS's faint u, has
        uncertainties of next to nothing and below it. ``factor``: by what the sky's noise is larger in all bands; an error that
        is a fraction of the flux stays the same fraction.
        """
        mean, scatter = self.moments(flux / factor)
        return factor * mean * torch.exp(scatter / mean * depth)

    def _field(self, photometry: Photometry) -> tuple[Float[Tensor, "galaxy 1"], Float[Tensor, "galaxy band"]]:
        """Return how deep the fields are that galaxies lie in, as their uncertainties tell: see `_sigma`.

        The common factor is, of 32, the one from which bands differ the least.
        """
        best = photometry.flux.new_full((len(photometry), 1), torch.inf)
        found, of_bands = torch.ones_like(best), torch.zeros_like(photometry.flux)
        for power in torch.linspace(0, 1, 32 if self.shallower else 1).tolist():
            factor = self.most**power
            mean, scatter = self.moments(photometry.flux / factor)
            depth = (photometry.sigma / (factor * mean)).log() * (mean / scatter)
            differ = depth.square().where(photometry.mask, 0.0).sum(1, keepdim=True)
            better = differ < best
            best, found = torch.where(better, differ, best), torch.where(better, factor, found)
            of_bands = torch.where(better, depth, of_bands)
        return found, of_bands

    def outside(self, photometry: Photometry) -> Bool[Tensor, " galaxy"]:
        """Return which rows have an uncertainty above mean + 3 scatter in some measured band (HM22, appendix)."""
        mean, scatter = self.moments(photometry.flux / self.most)
        return (photometry.mask & (photometry.sigma > self.most * (mean + 3 * scatter))).any(1)

    def _flux_range(self) -> tuple[Float[Tensor, " band"], Float[Tensor, " band"]]:
        return magnitudes.flux(self.magnitude[:, 0]), magnitudes.flux(self.magnitude[:, -1])
