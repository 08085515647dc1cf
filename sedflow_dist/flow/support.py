"""Inside or outside the training data, and why: photometry and redshifts in, flags out, before any inference.

Redshift, uncertainties, single colours, and a learned score of all of them together have a flag each. The score is -ln of a
Gaussian mixture's density of mock galaxies. A band's coordinates are asinh(flux / 2 sigma) + ln(2 sigma), which is ln flux
at high signal-to-noise and defined for negative fluxes (an asinh magnitude, Lupton et al. 1999, astro-ph/9903081, softened
by the band's own sigma), and ln sigma. Rescaling a galaxy adds one number to all of them, so their contrasts (projections on
the complement of (1, ..., 1)) do not change: the density is of contrasts and redshift, as the flow is scale-free too.
Contrasts of fewer bands are linear in those of all, so missing bands are integrated out exactly, without a second fit; the
density is then per volume of the training data's own spread in what was measured, so that sets of bands can share a limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt32
from scipy.linalg import helmert
from torch import Generator, Tensor, nn

from sedflow_dist import keyed_random, magnitudes
from sedflow_dist.photometry.flags import MINIMUM_BANDS, Flag, bits
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes

#: Share of the training data that is called novel.
FALSE_ALARMS = 0.001
_COLOUR_EDGES = (0.0005, 0.9995)
_COMPONENTS, _N_FIT, _N_LIMIT = 16, 20_000, 100_000
_PATTERNS = 256  # sets of missing bands over which a limit is averaged
_ROWS = 256  # scored at a time: 0.3 MB of float64 for five bands


class Novelty(nn.Module):
    """A Gaussian mixture over the contrasts of a galaxy (two a band, less one) and its redshift, and limits of its score.

    Args:
        weight, mean, covariance: of each component; two coordinates a band
        limit: the score that 0.1 % of training data exceed, by number of missing bands
    """

    weight: Float[Tensor, " component"]
    mean: Float[Tensor, "component coordinate"]
    covariance: Float[Tensor, "component coordinate coordinate"]
    limit: Float[Tensor, " missing"]

    def __init__(
        self,
        weight: Float[Tensor, " component"],
        mean: Float[Tensor, "component coordinate"],
        covariance: Float[Tensor, "component coordinate coordinate"],
        limit: Float[Tensor, " missing"],
    ) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("mean", mean), ("covariance", covariance), ("limit", limit)):
            self.register_buffer(name, value)
        if not bool((weight > 0).all()):
            raise ValueError("novelty: a weight is not positive")
        if bool(torch.linalg.cholesky_ex(covariance).info.any()):
            raise ValueError("novelty: a covariance is not positive definite")

    @classmethod
    def fit(cls, survey: MockSurvey, shapes: Shapes, seed: int) -> Novelty:
        """Fit to 20,000 mock galaxies with all bands; set the limits on 100,000 others, for each number of missing bands.

        One thread: the same seed gives the same bits on any number of cores.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return cls._fit(replace(survey, drop_out=0.0), shapes, seed)
        finally:
            torch.set_num_threads(threads)

    @classmethod
    def _fit(cls, survey: MockSurvey, shapes: Shapes, seed: int) -> Novelty:
        from sklearn.mixture import GaussianMixture
        from threadpoolctl import threadpool_limits

        generator = torch.Generator().manual_seed(keyed_random.torch_seed(seed, "novelty"))
        whole = replace(survey, band_sets=())  # though no galaxy has all of them
        x = _contrasts(whole.observe(shapes, _N_FIT, generator).photometry)
        centre, scale = x.mean(0), x.std(0)
        mixture = GaussianMixture(_COMPONENTS, random_state=keyed_random.torch_seed(seed, "mixture") % 2**32)
        with threadpool_limits(1):
            mixture.fit(((x - centre) / scale).numpy())
        weight, mean, covariance = map(torch.as_tensor, (mixture.weights_, mixture.means_, mixture.covariances_))
        n_numbers = len(survey.noise.mean) - MINIMUM_BANDS + 1
        unlimited = cls(
            weight, centre + scale * mean, covariance * scale * scale.unsqueeze(1),
            torch.full((n_numbers,), math.inf, dtype=torch.float64),
        )  # fmt: skip
        seen = survey.observe(shapes, _N_LIMIT, generator).photometry
        scores = (unlimited.score(seen.with_bands(drop(seen.mask, n, generator))) for n in range(n_numbers))
        limit = torch.stack([torch.quantile(s, 1 - FALSE_ALARMS) for s in scores])
        return cls(unlimited.weight, unlimited.mean, unlimited.covariance, limit)

    def score(self, photometry: Photometry) -> Float[Tensor, " galaxy"]:
        """Return -ln p(contrasts of the measured bands, redshift), p times det(whole covariance)^(1/2), float64.

        NaN with fewer than three bands.
        """
        scores = torch.full((len(photometry),), math.nan, dtype=torch.float64, device=self.mean.device)
        patterns, pattern, counts = torch.unique(photometry.mask, dim=0, return_inverse=True, return_counts=True)
        groups = pattern.argsort(stable=True).split(counts.tolist())
        for measured, group in zip(patterns, groups, strict=True):
            if int(measured.sum()) < MINIMUM_BANDS:
                continue
            mean, root, log_norm = self._marginal(measured)
            for rows in group.split(_ROWS):
                x = _contrasts(photometry[rows].bands(measured))
                residual = (x - mean.unsqueeze(1)).transpose(1, 2)  # (component, contrast, galaxy)
                whitened = torch.linalg.solve_triangular(root, residual, upper=False)
                log_density = log_norm.unsqueeze(1) - 0.5 * (whitened**2).sum(1)
                scores[rows] = -torch.logsumexp(log_density, 0)
        return scores

    def beyond(self, photometry: Photometry) -> Bool[Tensor, " galaxy"]:
        """Return which rows score above the limit for their number of missing bands."""
        missing = (~photometry.mask).sum(1).clamp(max=len(self.limit) - 1)
        return self.score(photometry) > self.limit[missing]

    def _marginal(
        self, measured: Bool[Tensor, " band"]
    ) -> tuple[
        Float[Tensor, "component contrast"], Float[Tensor, "component contrast contrast"], Float[Tensor, " component"]
    ]:
        """Mean, Cholesky factor of the covariance and ln of the norm of each component, for contrasts of some bands.

        The norm is that of a density per unit of the whole mixture's standard deviations: any basis gives the same.
        """
        both, device = torch.cat([measured, measured]), self.mean.device
        onto = torch.block_diag(
            _helmert(int(both.sum()), device) @ _helmert(len(both), device)[:, both].T,
            torch.ones(1, 1, dtype=torch.float64, device=device),
        )
        mean, covariance = self.mean @ onto.T, onto @ self.covariance @ onto.T
        root = torch.linalg.cholesky(covariance)
        weight = self.weight / self.weight.sum()
        from_centre = mean - weight @ mean
        whole = (weight.view(-1, 1, 1) * covariance).sum(0) + (from_centre.T * weight) @ from_centre
        log_det = root.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * torch.logdet(whole)
        return mean, root, weight.log() - log_det - 0.5 * len(onto) * math.log(2 * math.pi)


def flags(
    redshift_range: tuple[float, float],
    noise: NoiseModel,
    colour_range: Float[Tensor, "colour limit"],
    novelty: Novelty,
    photometry: Photometry,
    band_sets: Sequence[Sequence[int]] = (),
) -> UInt32[np.ndarray, " galaxy"]:
    """Flag rows outside the training data: redshift (no answer); uncertainty, colour, novelty (answered)."""
    lo, hi = redshift_range
    colour, measured = magnitudes.colours(photometry.flux, photometry.mask, band_sets)
    found = {
        Flag.REDSHIFT_OUTSIDE_MODEL: (photometry.redshift <= lo) | (photometry.redshift > hi),
        Flag.NOISE_OUTSIDE_TRAINING: noise.outside(photometry),
        Flag.COLOUR_OUTSIDE_TRAINING: (measured & ((colour < colour_range[:, 0]) | (colour > colour_range[:, 1]))).any(
            1
        ),
        Flag.NOVEL: novelty.beyond(photometry),
    }
    return bits(len(photometry), {flag: rows.cpu().numpy() for flag, rows in found.items()})


def colour_range(photometry: Photometry, band_sets: Sequence[Sequence[int]] = ()) -> Float[Tensor, "colour limit"]:
    """Return the 0.05 and 99.95 % quantiles of each colour of neighbouring bands [mag]."""
    colour, measured = magnitudes.colours(photometry.flux, photometry.mask, band_sets)
    edges = torch.tensor(_COLOUR_EDGES, device=photometry.flux.device)
    return torch.stack([torch.quantile(colour[:, i][measured[:, i]], edges) for i in range(colour.shape[1])])


def drop(mask: Bool[Tensor, "galaxy band"], n: int, generator: Generator) -> Bool[Tensor, "galaxy band"]:
    """Take bands from every row until it lacks ``n``, where it has as many: 256 random orders of bands in turn."""
    order = torch.rand(_PATTERNS, mask.shape[1], generator=generator).argsort(1)[torch.arange(len(mask)) % _PATTERNS]
    return mask & (order.where(mask, -1).argsort(1).argsort(1) >= n)


def _contrasts(photometry: Photometry) -> Float[Tensor, "galaxy contrast"]:
    """Contrasts of ln flux and ln sigma, then the redshift, float64; all bands are measured."""
    flux, sigma = photometry.flux.double(), photometry.sigma.double()
    x = torch.cat([torch.asinh(flux / (2 * sigma)) + (2 * sigma).log(), sigma.log()], dim=1)
    return torch.cat([x @ _helmert(x.shape[1], x.device).T, photometry.redshift.double().unsqueeze(1)], dim=1)


def _helmert(n: int, device: torch.device | str = "cpu") -> Float[Tensor, "contrast n"]:
    """Orthonormal rows that span the complement of (1, ..., 1)."""
    return torch.as_tensor(helmert(n), device=device)
