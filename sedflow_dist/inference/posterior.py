"""Posteriors of galaxies: photometry and a trained flow in, summaries, weights, evidence and flags out.

One call answers a block of galaxies. Every draw is weighed against the exact likelihood (importance sampling: Dax et al.
2023, arXiv 2210.05686), and every row carries the effective fraction of its weights. Row i gets the same draws, to float32
rounding, in any block and on any worker: base points are one scrambled Sobol set, shifted by numbers keyed to the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sedflow_dist import keyed_random
from sedflow_dist.flow import support
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import amplitude, goodness_of_fit, importance, likelihood
from sedflow_dist.parameters import COORDINATES, PARAMETERS, probit, to_16_bits, unit
from sedflow_dist.photometry.flags import REASONS, Flag
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.sps import derived
from sedflow_dist.sps.fixed_redshift import DrawPhotometry

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
QUANTILE_NAMES = ("p025", "p16", "p50", "p84", "p975")
#: Bytes that the draws of one batch of galaxies may take, beside the sampler's layers: they stay in the last-level cache.
MEMORY = 32_000_000
_EDGE_SHARE, _EDGE_WIDTH = 0.05, 0.005


def columns(labels: Sequence[str], certificate: bool = True) -> tuple[str, ...]:
    """Return the names of everything that is summarised: parameters, then (with the certificate) derived properties."""
    return (*PARAMETERS, *derived.names(labels)) if certificate else PARAMETERS


@dataclass(frozen=True)
class Draws:
    """Posterior draws of a block: ``unit`` cube (galaxy, draw, 11), ``values`` (galaxy, draw, column as in `columns`), the
    flow's density ``log_q`` and ``chi2`` (galaxy, draw), bands measured (galaxy,), and the rest as in `Certificate`."""

    unit: Tensor
    values: Tensor
    log_q: Tensor
    chi2: Tensor
    n_bands: Tensor
    weight: Tensor
    effective_fraction: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    pareto_k: Tensor


class Method(IntEnum):
    """How a row was answered."""

    NONE = 0
    FLOW = 1
    WEIGHTED = 2
    MORE_DRAWS = 3
    SHORT_MCMC = 4
    MCMC = 5


@dataclass(frozen=True)
class Summary:
    """What a catalog keeps of a block of galaxies; rows without an answer are NaN and flagged.

    ``quantiles`` (galaxy, column, quantile); ``mean``, ``std`` (galaxy, column); ``log_evidence`` [ln of the likelihood
    of the fluxes in nanomaggies] and its standard error; ``effective_fraction`` and ``pareto_k`` of the weights;
    ``effective_draws`` that the answer is worth; ``chi2`` of the best draw; ``p_value``, posterior-predictive; ``rhat`` of
    a chain; ``method``; ``draws``: kept draws as 16-bit quantiles of the prior (galaxy, draw, 11).
    """

    quantiles: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    log_evidence: np.ndarray
    log_evidence_error: np.ndarray
    effective_fraction: np.ndarray
    effective_draws: np.ndarray
    pareto_k: np.ndarray
    chi2: np.ndarray
    p_value: np.ndarray
    rhat: np.ndarray
    method: np.ndarray
    flags: np.ndarray
    draws: np.ndarray


class Posterior:
    """Answer galaxies with a flow.

    Args:
        flow: the trained flow
        seed: with the row number, fixes every draw
        n_draws: base points per galaxy
        min_effective_fraction: rows below are summarised without weights and flagged
        n_keep: draws kept per galaxy
        certificate: False: quantiles of the flow's draws alone. Nothing is computed but the flow, nothing says how good an
            answer is, and there are parameters only
        memory: bytes that the draws of a batch of galaxies may take; a batch is one galaxy at least
    """

    def __init__(
        self,
        flow: TrainedModel,
        seed: int,
        n_draws: int = 2048,
        min_effective_fraction: float = 0.01,
        n_keep: int = 0,
        certificate: bool = True,
        memory: int = MEMORY,
    ) -> None:
        self.flow, self.seed, self.n_draws = flow, seed, n_draws
        self.min_effective_fraction, self.n_keep, self.certificate = min_effective_fraction, n_keep, certificate
        if not certificate and flow.spec.amplitude == "exact":
            raise ValueError("quantiles without the certificate need a flow that learnt the amplitude (preset paper); this "
                             "one's is drawn from the exact likelihood, which is most of the certificate's cost")  # fmt: skip
        self.columns = columns(flow.spec.labels, certificate)
        self._sobol: dict[int, Tensor] = {}
        self.batch = max(memory // self._draws_memory(1), 1)  # galaxies

    def memory(self) -> int:
        """Return the most bytes that `summarise` needs beside its arguments and results."""
        rows = self.batch * self.n_draws
        return self._draws_memory(self.batch) + self.flow.network.memory(rows)

    def _draws_memory(self, n_galaxies: int) -> int:
        """The most bytes that draws of so many galaxies need, apart from the sampler: base points, values, photometry."""
        own = 4 * (6 * len(COORDINATES) + 3 * len(self.columns) + 6 * len(self.flow.spec.bands) + 30)
        return n_galaxies * self.n_draws * own + self.flow.redshift_model.memory(n_galaxies, self.n_draws)

    def summarise(
        self, flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray, redshift: np.ndarray, flags: np.ndarray, row: int
    ) -> Summary:
        """Answer galaxies of a block that starts at catalog row ``row``; arrays as in `surveys.Photometry`."""
        f, s, m, z = _tensors(flux, sigma, mask, redshift)
        flow = self.flow
        flags = flags | support.flags(flow.spec.redshift, flow.noise, flow.colour_range, flow.novelty, f, s, m, z)
        answered = np.flatnonzero(self.open(flags, redshift))
        summary = self._empty(flags)
        for start in range(0, len(answered), self.batch):
            at = answered[start : start + self.batch]
            data = f[at], s[at], m[at], z[at]
            if self.certificate:
                self.fill(summary, at, self.draw(*data, at + row, self.n_draws), at + row)
            else:
                self._plain(summary, at, *data, at + row)
        return summary

    def open(self, flags: np.ndarray, redshift: np.ndarray) -> np.ndarray:
        """Return which rows can be answered, (galaxy,): beyond the trained redshifts too, as far as the galaxy model goes."""
        reasons = int(REASONS & ~Flag.REDSHIFT_OUTSIDE_MODEL)
        return ((flags & reasons) == 0) & (redshift > 0) & (redshift <= self.flow.reach)

    # -- parts --------------------------------------------------------------------------------------------------------

    def draw(
        self,
        flux: Float[Tensor, "galaxy band"],
        sigma: Float[Tensor, "galaxy band"],
        mask: Bool[Tensor, "galaxy band"],
        redshift: Float[Tensor, " galaxy"],
        rows: np.ndarray,
        n_draws: int,
    ) -> Draws:
        """Draw from the flow and weigh: rows are the galaxies' rows in their catalog, which key the base points."""
        flow = self.flow
        base = self.base_points(rows, n_draws)
        x = flow.features(flux, sigma, mask, redshift)
        phi, log_q = flow.network.sample_with_log_prob(probit(base[..., : flow.dimensions]), x)
        log_prior = -0.5 * (phi**2).sum(-1) - 0.5 * flow.dimensions * math.log(2 * math.pi)
        u = unit(phi)
        exact = flow.spec.amplitude == "exact"
        if exact:  # the amplitude's coordinate is filled in below
            u = torch.cat([torch.full_like(u[..., :1], 0.5), u], dim=-1)
        theta = flow.prior.from_unit(u)
        photometry = flow.redshift_model(theta, redshift)
        lo, hi = flow.prior.log_mstar
        if exact:
            fit = amplitude.fit(photometry.flux, flux, sigma, mask, base[..., -1], flow.prior.log_mstar)
            theta[..., 0] = fit.log_mstar
            u[..., 0] = (fit.log_mstar - lo) / (hi - lo)
            log_l = fit.log_evidence
        else:
            log_l, _ = likelihood.gaussian(photometry.flux * 10 ** theta[..., :1], flux, sigma, mask)
        return Draws(
            unit=u,
            values=self.values(theta, photometry),
            log_q=log_q,
            chi2=likelihood.gaussian(photometry.flux * 10 ** theta[..., :1], flux, sigma, mask)[1],
            n_bands=mask.sum(-1),
            **vars(importance.certify(log_l + log_prior - log_q)),
        )

    def values(self, theta: Tensor, photometry: DrawPhotometry) -> Float[Tensor, "galaxy draw column"]:
        """Return parameters and derived properties of draws, columns as in `columns`."""
        if not self.certificate:
            return theta
        properties = derived.derive(self.flow.redshift_model.model.population_model, theta, photometry)
        return torch.cat([theta, properties], -1)

    def base_points(self, rows: np.ndarray, n_draws: int) -> Float[Tensor, "galaxy draw coordinate"]:
        """Return scrambled Sobol points of the unit cube, shifted (modulo 1) by numbers keyed to each row."""
        n = len(COORDINATES)
        if n_draws not in self._sobol:
            engine = torch.quasirandom.SobolEngine(n, scramble=True, seed=keyed_random.torch_seed(self.seed, "sobol"))
            self._sobol[n_draws] = engine.draw(n_draws, dtype=torch.float64)
        shifts = np.concatenate([keyed_random.uniforms(self.seed, "shift", int(row), 1, n) for row in rows])
        points = self._sobol[n_draws] + torch.as_tensor(shifts).unsqueeze(1)
        return (points - points.floor()).float()

    def _empty(self, flags: np.ndarray) -> Summary:
        n, n_columns = len(flags), len(self.columns)
        nan = lambda *shape: np.full((n, *shape), np.nan, np.float32)  # noqa: E731
        scalars = ("log_evidence", "log_evidence_error", "effective_fraction", "effective_draws", "pareto_k", "chi2",
                   "p_value", "rhat")  # fmt: skip
        return Summary(
            quantiles=nan(n_columns, len(QUANTILES)), mean=nan(n_columns), std=nan(n_columns),
            **{name: nan() for name in scalars}, method=np.zeros(n, np.uint8), flags=flags.copy(),
            draws=np.zeros((n, self.n_keep, len(COORDINATES)), np.uint16),
        )  # fmt: skip

    def fill(self, summary: Summary, at: np.ndarray, draws: Draws, rows: np.ndarray) -> None:
        """Write the answer of the flow's draws for the galaxies ``at``, which are ``rows`` of their catalog."""
        ok = (torch.isfinite(draws.log_evidence) & torch.isfinite(draws.values).all(-1).all(-1)).numpy()
        good = self.serves(draws).numpy()
        outside = (summary.flags[at] & int(Flag.REDSHIFT_OUTSIDE_MODEL)) != 0
        summary.flags[at[~ok]] |= np.uint32(int(Flag.FAILED))
        ok &= good | ~outside  # there the flow is no answer by itself
        summary.flags[at[ok & ~good]] |= np.uint32(int(Flag.LOW_EFFECTIVE_FRACTION))
        weight = torch.where(self.serves(draws).unsqueeze(-1), draws.weight, 1 / draws.weight.shape[1])
        self.describe(summary, at, ok, draws.unit, draws.values, weight, rows)
        self.judge(summary, at, ok, draws.chi2, draws.n_bands, weight)
        for name in ("log_evidence", "log_evidence_error", "effective_fraction", "pareto_k"):
            getattr(summary, name)[at[ok]] = getattr(draws, name).numpy()[ok]
        n = draws.weight.shape[1]
        summary.effective_draws[at[ok]] = np.where(good, n * draws.effective_fraction.numpy(), n)[ok]
        summary.method[at[ok]] = np.where(good, Method.WEIGHTED, Method.FLOW)[ok]

    def _plain(
        self,
        summary: Summary,
        at: np.ndarray,
        flux: Tensor,
        sigma: Tensor,
        mask: Tensor,
        redshift: Tensor,
        rows: np.ndarray,
    ) -> None:
        """Write quantiles of the flow's draws, equally weighted, for the galaxies ``at``."""
        flow, n = self.flow, self.n_draws
        x = flow.features(flux, sigma, mask, redshift)
        phi, _ = flow.network.sample_with_log_prob(probit(self.base_points(rows, n)), x)
        u = unit(phi)
        theta = flow.prior.from_unit(u)
        ok = torch.isfinite(theta).all(-1).all(-1).numpy()
        summary.flags[at[~ok]] |= np.uint32(int(Flag.FAILED))
        self.describe(summary, at, ok, u, theta, None, rows)
        summary.method[at[ok]] = Method.FLOW

    def describe(
        self, summary: Summary, at: np.ndarray, ok: np.ndarray, u: Tensor, values: Tensor, weight: Tensor | None,
        rows: np.ndarray,
    ) -> None:  # fmt: skip
        """Write what draws say of the galaxies ``at`` that are ``ok``: quantiles, moments, kept draws; no weight: all alike."""
        quantiles, mean, std = importance.summarise(values, weight, QUANTILES)
        at_edge = (u[..., 0] < _EDGE_WIDTH) | (u[..., 0] > 1 - _EDGE_WIDTH)
        share = at_edge.float().mean(-1) if weight is None else (weight * at_edge).sum(-1)
        edge = (share > _EDGE_SHARE).numpy()
        summary.flags[at[edge & ok]] |= np.uint32(int(Flag.PRIOR_EDGE))
        for name, value in (("quantiles", quantiles), ("mean", mean), ("std", std)):
            getattr(summary, name)[at[ok]] = value.numpy()[ok]
        if self.n_keep:
            weight = torch.ones(u.shape[:2]) if weight is None else weight
            pick = torch.as_tensor(self.resample(weight, rows, self.n_keep))
            kept = u.gather(1, pick.unsqueeze(-1).expand(-1, -1, u.shape[-1]))
            summary.draws[at[ok]] = to_16_bits(kept)[ok]

    def judge(
        self, summary: Summary, at: np.ndarray, ok: np.ndarray, chi2: Tensor, n_bands: Tensor, weight: Tensor
    ) -> None:
        """Write how well weighted draws fit the galaxies ``at`` that are ``ok``."""
        p_value = goodness_of_fit.posterior_predictive(chi2.numpy(), n_bands.numpy(), weight.numpy())
        summary.p_value[at[ok]], summary.chi2[at[ok]] = p_value[ok], chi2.amin(-1).numpy()[ok]

    def serves(self, draws: Draws) -> Bool[Tensor, " galaxy"]:
        """Whether weights are worth as many draws as the least fraction of ``n_draws``, however many were drawn."""
        return draws.effective_fraction * draws.weight.shape[1] >= self.min_effective_fraction * self.n_draws

    def resample(self, weight: Float[Tensor, "galaxy draw"], rows: np.ndarray, n: int) -> np.ndarray:
        """Return ``n`` draws a galaxy, as indices: systematic resampling with one keyed uniform a row."""
        start = np.concatenate([keyed_random.uniforms(self.seed, "resample", int(row), 1, 1) for row in rows])
        targets = torch.as_tensor((start + np.arange(n)) / n)
        cumulative = weight.double().cumsum(-1)
        return torch.searchsorted(cumulative / cumulative[:, -1:], targets).clamp(max=weight.shape[1] - 1).numpy()


def _tensors(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(np.ascontiguousarray(x)) for x in arrays)


def log_likelihood(
    flow: TrainedModel, mocks: Mocks, theta: Float[Tensor, "galaxy param"]
) -> tuple[Float[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
    """Return ln p(data | theta) of galaxies, and ln of it with the amplitude integrated out under its prior."""
    per_mass = flow.redshift_model(theta.unsqueeze(1), mocks.redshift).flux
    data = (mocks.flux, mocks.sigma, mocks.mask)
    full, _ = likelihood.gaussian(per_mass * 10 ** theta[:, None, :1], *data)
    fit = amplitude.fit(per_mass, *data, torch.full_like(theta[:, :1], 0.5), flow.prior.log_mstar)
    return full[:, 0], fit.log_evidence[:, 0]
