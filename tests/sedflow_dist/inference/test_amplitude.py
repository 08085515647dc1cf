"""The amplitude's evidence and draws against dense quadrature in float64."""

import math

import numpy as np
import pytest
import torch

from sedflow_dist.inference import amplitude
from sedflow_dist.photometry.photometry import Photometry

RANGE = (7.0, 12.5)
#: Fluxes per solar mass of a galaxy at z = 0.1 [nanomaggies], roughly.
PER_MASS = np.array([2e-10, 8e-10, 1.5e-9, 2.1e-9, 2.6e-9])


@pytest.fixture(params=["compiled", "operators"], autouse=True)
def made_by(request, monkeypatch):
    """Every test of this file twice: both are the same quadrature."""
    if request.param == "operators":
        monkeypatch.setattr(amplitude, "library_for", lambda *_: None)


def quadrature(per_mass, photometry):
    """ln evidence, and the cumulative distribution of log10 a on a grid, for a flat prior in log10 a on `RANGE`."""
    mask = photometry.mask[0].numpy()
    s, d, e = (np.asarray(x, np.float64)[mask] for x in (per_mass, photometry.flux[0], photometry.sigma[0]))
    precision = np.sum((s / e) ** 2)
    best, width = np.sum(s * d / e**2) / precision, precision**-0.5
    around = best + width * np.linspace(-9, 9, 20_001)
    around = np.log10(around[around > 0])
    around = around[(around > RANGE[0]) & (around < RANGE[1])]
    from_edge = np.logspace(-9, -1, 5000)  # outside the prior, all of the density is at its edge
    grid = np.unique(np.concatenate([np.linspace(*RANGE, 40_001), around, RANGE[0] + from_edge, RANGE[1] - from_edge]))
    chi2 = np.sum(((d - 10 ** grid[:, None] * s) / e) ** 2, axis=1)
    log_density = -0.5 * chi2 - np.sum(np.log(e)) - 0.5 * len(d) * math.log(2 * math.pi) - math.log(RANGE[1] - RANGE[0])
    peak = log_density.max()
    density = np.exp(log_density - peak)
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    return peak + math.log(cumulative[-1]), grid, cumulative / cumulative[-1], chi2.min()


def fit(per_mass, photometry, uniform):
    """One galaxy, one shape, many uniforms."""
    shape = torch.as_tensor(np.asarray(per_mass)).float().expand(1, len(uniform), -1)
    uniform = torch.as_tensor(uniform).float().unsqueeze(0)
    return amplitude.fit(shape, photometry, uniform, RANGE)


def case(name):
    rng = np.random.default_rng(4)
    mask = np.ones(5, bool)
    mass, noise, offset = {
        "signal to noise 300": (10**10.3, 0.007, 0.0),
        "signal to noise 30": (10**10.3, 0.07, 0.0),
        "signal to noise 8": (10**9.5, 0.28, 0.0),
        "signal to noise 5": (10**9.5, 0.45, 0.0),
        "signal to noise 2": (10**9.5, 1.1, 0.0),
        "nothing seen": (10**9.0, 30.0, 0.0),
        "negative": (10**9.0, 1.0, -3.0),
        "a band missing": (10**10.0, 0.1, 0.0),
        "at the upper end": (10**12.48, 0.05, 0.0),
        "above the prior": (10**12.6, 0.1, 0.0),
        "at the lower end": (10**7.02, 0.05, 0.0),
        "below the prior": (10**6.5, 0.1, 0.0),
    }[name]
    flux = mass * PER_MASS
    sigma = noise * np.maximum(flux, 0.3 * flux.max())
    flux = flux + sigma * rng.standard_normal(5) + offset * sigma
    if name == "a band missing":
        mask[1] = False
        flux[1] = sigma[1] = 0.0
    return PER_MASS, Photometry.of(flux, sigma, mask=mask)


CASES = [
    "signal to noise 300", "signal to noise 30", "signal to noise 8", "signal to noise 5", "signal to noise 2",
    "nothing seen", "negative", "a band missing", "at the upper end", "above the prior", "at the lower end",
    "below the prior",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_is_the_integral(name):
    arguments = case(name)
    expected, _, _, chi2 = quadrature(*arguments)
    found = fit(*arguments, np.array([0.5]))
    assert float(found.log_evidence) == pytest.approx(expected, abs=0.01, rel=1e-5)
    assert float(found.chi2) == pytest.approx(chi2, abs=2e-3, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_conditional(name):
    """Quantiles u of the exact distribution come out where u goes in: to 1 % of probability.

    3 % where the nodes are farthest apart in units of the width (the lower end of the prior lies within their reach),
    and where all mass lies within 1e-4 dex of the prior's edge, which float32 resolves in 300 steps.
    """
    arguments = case(name)
    tolerance = 0.03 if name in ("signal to noise 5", "below the prior") else 0.01
    u = (np.arange(2000) + 0.5) / 2000
    _, grid, cumulative, _ = quadrature(*arguments)
    log_mstar = fit(*arguments, u).log_mstar[0].double().numpy()
    assert np.abs(np.interp(log_mstar, grid, cumulative) - u).max() < tolerance
    assert (np.diff(log_mstar) >= -1e-6).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("u", [0.0, 1e-7, 1.0])
def test_draws_never_leave_the_prior(name, u):
    found = fit(*case(name), np.array([u])).log_mstar
    assert bool(((found >= RANGE[0]) & (found <= RANGE[1])).all())


def test_hopeless_shapes_have_finite_evidence():
    """A shape at 1e4 sigma from the data, or without any flux, must lose against the others, not poison the row."""
    per_mass = np.stack([PER_MASS, PER_MASS[::-1], 1e-30 * PER_MASS, 1e6 * PER_MASS, 0 * PER_MASS])
    flux = 10**10.5 * PER_MASS
    shapes = torch.as_tensor(per_mass).float()[None]
    found = amplitude.fit(shapes, Photometry.of(flux, 1e-4 * flux), torch.full((1, 5), 0.5), RANGE)
    assert bool(torch.isfinite(found.log_evidence).all())
    assert bool(torch.isfinite(found.log_mstar).all())
    assert int(found.log_evidence.argmax()) == 0


def test_many_galaxies_at_once_are_single_ones():
    cases = [case(name) for name in CASES]
    u = np.linspace(0.1, 0.9, 7)
    photometry = Photometry.concatenate([galaxy for _, galaxy in cases])
    shape = torch.as_tensor(PER_MASS).float().expand(len(cases), 7, -1)
    uniform = torch.as_tensor(u).float().expand(len(cases), -1)
    together = amplitude.fit(shape, photometry, uniform, RANGE)
    for row, arguments in enumerate(cases):
        alone = fit(*arguments, u)
        for name in ("log_evidence", "chi2", "log_mstar"):
            torch.testing.assert_close(getattr(together, name)[row], getattr(alone, name)[0], rtol=1e-5, atol=1e-5)


def test_evidence_does_not_depend_on_the_unit_of_the_shape():
    """Twice the light per solar mass is half the mass: inside the prior, the same evidence."""
    _, galaxy = case("signal to noise 30")
    single, double = (fit(k * PER_MASS, galaxy, np.array([0.3])) for k in (1.0, 2.0))
    assert float(single.log_evidence) == pytest.approx(float(double.log_evidence), abs=1e-3)
    assert float(single.log_mstar - double.log_mstar) == pytest.approx(math.log10(2), abs=1e-4)
