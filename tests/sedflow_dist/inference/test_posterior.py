"""Posteriors: summaries that do not depend on the block, replayed draws, gaps, and weights that correct the flow."""

import memory
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from provabgs import COORDINATES, PARAMETERS, SPACE

from sedflow_dist.flow.conditional_flow import build
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import adaptation, amplitude, importance
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import Routing
from sedflow_dist.inference.summary import QUANTILE_NAMES, QUANTILES, Method
from sedflow_dist.parameters import probit
from sedflow_dist.photometry.flags import REASONS, Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps import derived
from sedflow_dist.validation.mock_galaxies import log_likelihood

LABELS = tuple("ugriz")
FIELDS = ("quantiles", "mean", "std", "log_evidence", "log_evidence_error", "effective_fraction", "effective_draws",
          "pareto_k", "chi2", "p_value")  # fmt: skip


def replay(posterior, data, rows, n_draws):
    """Replayed draws of rows that the flow has answered with its weights."""
    return Router(posterior, Routing()).draws(data, rows, np.full(len(rows), Method.WEIGHTED), n_draws)


def summarise(posterior, data, row=0, flags=None):
    flags = np.zeros(len(data), np.uint32) if flags is None else flags
    return posterior.summarise(data, flags, row)


@pytest.fixture(scope="module")
def posterior(flow):
    return Posterior(flow, seed=1, n_draws=256, n_keep=16)


@pytest.fixture(scope="module")
def block(mocks):
    return mocks.photometry[:70]


@pytest.fixture(scope="module")
def summary(posterior, block):
    """70 galaxies: more than two internal batches."""
    return summarise(posterior, block)


@pytest.fixture(scope="module")
def draws(posterior, mocks):
    """Draws of 40 galaxies."""
    return posterior.draw(mocks.photometry[:40], np.arange(40), 256)


# -- quantiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_equal_weights_give_hazens_quantiles(n):
    values = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(n))
    found = importance.quantiles(values, torch.full((3, n), 0.37), QUANTILES)
    expected = np.quantile(values.numpy(), QUANTILES, axis=1, method="hazen").transpose(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_weighted_quantiles_are_those_of_the_weighted_distribution():
    """Uniform draws with weights x: the density 2x, whose quantile q is sqrt(q)."""
    x = ((torch.arange(4000) + 0.5) / 4000).view(1, -1, 1)
    found = importance.quantiles(x, x[..., 0], QUANTILES)
    assert torch.allclose(found[0, 0], torch.tensor(QUANTILES).sqrt(), atol=1e-3)


@given(st.lists(st.tuples(st.floats(-5, 5, width=32), st.floats(0.0625, 1, width=32)), min_size=2, max_size=30))
def test_order_and_scale_of_the_weights_do_not_matter(pairs):
    values, weight = torch.tensor([[v] for v, _ in pairs]).unsqueeze(0), torch.tensor([[w for _, w in pairs]])
    found = importance.quantiles(values, weight, QUANTILES)
    assert bool((found.diff(dim=-1) >= -1e-5).all())
    assert float(found.min()) >= float(values.min())
    assert float(found.max()) <= float(values.max())
    if len({v for v, _ in pairs}) == len(pairs):  # ties may stand in either order
        other = importance.quantiles(values.flip(1), 8 * weight.flip(1), QUANTILES)
        torch.testing.assert_close(other, found, atol=1e-4, rtol=1e-4)


def test_draws_without_weight_do_not_count():
    values = torch.randn(1, 500, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(1, 500)
    weight[:, 250:] = 0
    without = importance.quantiles(values[:, :250], weight[:, :250], QUANTILES)
    assert torch.allclose(importance.quantiles(values, weight, QUANTILES), without, atol=0.02)


def test_all_weight_on_one_draw_is_that_draw():
    values = torch.arange(5.0).view(1, 5, 1)
    weight = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    found = importance.quantiles(values, weight, (0.5,))
    assert float(found) == pytest.approx(2.0)


def test_names_of_quantiles_and_columns_are_consistent(draws, posterior, summary):
    assert len(QUANTILES) == len(QUANTILE_NAMES)
    for q, name in zip(QUANTILES, QUANTILE_NAMES, strict=True):
        assert float("0." + name.removeprefix("p")) == q
    assert posterior.columns == (*PARAMETERS, *(p.name for p in derived.properties(SPACE, LABELS)))
    assert len(set(posterior.columns)) == draws.values.shape[-1] == summary.quantiles.shape[1]
    assert summary.quantiles.shape[2] == len(QUANTILES)


# -- the same numbers, whatever the block -----------------------------------------------------------------------------


def assert_same_to_rounding(found, expected, message):
    """Kept draws may differ by a few of 65,536 steps; a resampled index on a rounding edge may pick the neighbour."""
    if found.dtype == np.uint16:
        assert np.mean(np.abs(found.astype(int) - expected.astype(int)) > 8) < 0.02, message
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=message)


def test_a_row_is_the_same_in_any_block(posterior, block, summary):
    """To float32 rounding: matrix products of another shape add in another order. (Shards have one shape: bit by bit.)"""
    for rows in (slice(0, 1), slice(3, 8), slice(31, 33), slice(10, 69), slice(69, 70)):
        part = summarise(posterior, block[rows], row=rows.start)
        for name in (*FIELDS, "flags", "method", "draws"):
            assert_same_to_rounding(getattr(part, name), getattr(summary, name)[rows], f"{name} {rows}")


def test_a_row_does_not_depend_on_its_neighbours(posterior, block, summary):
    """Neighbours that are flagged, bursts of other ages, missing bands: none of it touches a row's numbers."""
    flags = np.zeros(70, np.uint32)
    flags[::3] = int(Flag.BAD_REDSHIFT)
    part = summarise(posterior, block, flags=flags)
    kept = np.arange(70) % 3 != 0
    for name in (*FIELDS, "draws"):
        np.testing.assert_array_equal(getattr(part, name)[kept], getattr(summary, name)[kept], err_msg=name)


def test_rows_and_seeds_have_their_own_base_points(posterior, flow):
    rows = np.array([0, 1, 2, 1])
    base = posterior.base_points(rows, 64)
    assert torch.equal(base[1], base[3])
    assert not torch.isclose(base[0], base[1]).any(0).all()
    assert not torch.equal(base, Posterior(flow, seed=2).base_points(rows, 64))
    assert bool(((base >= 0) & (base <= 1)).all())
    # Low discrepancy survives the shift: every eighth of every coordinate holds its eighth of the points.
    for counts in (torch.histc(base[0, :, i], 8, 0, 1) for i in range(base.shape[-1])):
        assert float((counts - 8).abs().max()) <= 2


def test_draws_replay_identically(posterior, flow, block):
    rows = np.array([0, 5, 6])
    data = block[rows]
    first = replay(posterior, data, rows, 100)
    again = replay(Posterior(flow, seed=1), data, rows, 100)
    alone = replay(posterior, data[1], rows[1:2], 100)
    assert first.shape == (3, 100, len(posterior.columns))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1:2], alone)
    assert not np.array_equal(first, replay(Posterior(flow, seed=2), data, rows, 100))


def test_draws_do_not_depend_on_the_number_of_threads(flow, block):
    """Bit by bit, through sampler, galaxy model, amplitude and weights."""
    rows, threads = np.array([0, 5]), torch.get_num_threads()
    data = block[rows]
    try:
        found = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(replay(Posterior(flow, seed=1), data, rows, 5000))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize(("n_draws", "budget"), [(128, 4_000_000), (1024, 16_000_000), (2048, 1)])
def test_memory_is_planned(flow, block, n_draws, budget):
    """A batch takes what was planned for it at most, and not a third; the plan keeps to the budget or is one galaxy."""
    posterior = Posterior(flow, seed=1, n_draws=n_draws, memory=budget)
    flow.redshift_model, flow.network.sampler._spare.clear()
    measured = memory.peak(lambda: summarise(posterior, block[: 3 * posterior.abreast]))
    assert posterior.memory() / 3 < measured <= posterior.memory()
    together = posterior.abreast * min(n_draws, adaptation.ROUND)
    assert posterior.abreast == 1 or posterior.memory() <= budget + flow.network.memory(together)


def test_where_weights_do_not_serve_all_draws_are_the_flows(flow, block):
    """Of a threshold between the rows' effective fractions; a row's draws do not depend on the others'."""
    rows, n_draws = np.arange(8), 2 * adaptation.ROUND
    learnt = Posterior(flow, 1, n_draws, min_effective_fraction=0.0).draw(block[rows], rows, n_draws)
    threshold = float(learnt.effective_fraction.median())
    found = Posterior(flow, 1, n_draws, min_effective_fraction=threshold).draw(block[rows], rows, n_draws)
    poor = learnt.effective_fraction < threshold
    assert 0 < int(poor.sum()) < len(rows)
    for name in ("values", "weight", "log_evidence"):
        torch.testing.assert_close(getattr(found, name)[~poor], getattr(learnt, name)[~poor])
    assert found.own[poor].all() and not found.own[~poor].all(-1).any()
    phi = Posterior(flow, 1, n_draws).propose(block[rows], rows, n_draws)
    torch.testing.assert_close(found.unit[poor][..., 1:], phi.unit[poor][..., 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.plain[poor], torch.full_like(found.plain[poor], 1 / n_draws))


def test_replayed_draws_have_the_quantiles_of_the_summary(posterior, block, summary):
    """Resampled by their weights: medians agree within a tenth of the posterior's width, or so."""
    weighted = np.flatnonzero(summary.method == Method.WEIGHTED)[:20]
    draws = replay(posterior, block[weighted], weighted, 256)
    width = summary.std[weighted]
    found = np.abs(np.median(draws, axis=1) - summary.quantiles[weighted, :, 2]) / np.maximum(width, 1e-6)
    assert np.median(found) < 0.05
    assert np.quantile(found, 0.99) < 0.4


# -- inside the prior -------------------------------------------------------------------------------------------------


def assert_inside_prior(theta):
    named = SPACE.values(theta)
    for parameter in set(PARAMETERS) - {f"beta{i}" for i in range(1, 5)}:
        lo, hi = torch.tensor(SPACE.block_of(parameter).prior.range)
        assert bool(((named[parameter] >= lo) & (named[parameter] <= hi)).all()), parameter
    assert float((named["beta"].sum(-1) - 1).abs().max()) < 1e-5
    assert bool((named["beta"] >= 0).all())


def test_no_draw_leaves_the_prior(draws):
    assert_inside_prior(draws.values[..., : len(PARAMETERS)])
    assert bool(((draws.unit >= 0) & (draws.unit <= 1)).all())
    assert bool(torch.isfinite(draws.values).all())


def test_no_draw_leaves_the_prior_for_absurd_photometry(posterior):
    """Too bright, too faint and negative for any mass of the prior."""
    flux = torch.tensor([[1e9] * 5, [1e-9] * 5, [-50.0] * 5, [1.0, 1e5, -1e5, 1e5, 1.0]])
    absurd = Photometry.of(flux, flux.abs() * 0.02 + 1e-3, redshift=0.1)
    found = posterior.draw(absurd, np.arange(4), 256)
    assert_inside_prior(found.values[..., : len(PARAMETERS)])


def test_kept_draws_are_the_draws_to_16_bits(posterior, block, summary, flow):
    """Decoded, they are the parameters of replayed draws: equally weighted, one in 65,536 of the prior's width."""
    row = int(np.flatnonzero(summary.method == Method.WEIGHTED)[0])
    decoded = flow.space.from_unit(torch.as_tensor((summary.draws[row] + 0.5) / 2.0**16)).numpy()
    known = posterior.draw(block[row], np.array([row]), posterior.n_draws).values[0, :, : len(PARAMETERS)].numpy()
    scale = known.std(0) + 1e-9
    nearest = np.abs((decoded[:, None] - known[None]) / scale).max(-1).min(1)
    assert nearest.max() < 0.05


# -- gaps and flags ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def troubled(posterior, mocks):
    """Rows 0-5: as it is, no redshift, z beyond the galaxy model, two bands, hopeless photometry, an error far too large."""
    found = mocks.photometry[:6].arrays()
    flux, sigma = found["flux"].copy(), found["sigma"].copy()
    mask, redshift = found["mask"].copy(), found["redshift"].copy()
    flags = np.zeros(6, np.uint32)
    redshift[1], flags[1] = np.nan, int(Flag.BAD_REDSHIFT)
    redshift[2] = 0.65
    mask[3, 2:], flags[3] = False, int(Flag.TOO_FEW_BANDS | Flag.BAND_MISSING)
    flux[3, 2:] = sigma[3, 2:] = 0
    mask[4:] = True
    flux[4], sigma[4] = 1e15 * np.array([1, -1, 1, -1, 1]), 1e-20
    sigma[5] = 50 * np.abs(flux[5]) + 1
    photometry = Photometry.of(flux, sigma, redshift, mask)
    before, flags_before = {name: x.copy() for name, x in photometry.arrays().items()}, flags.copy()
    found = posterior.summarise(photometry, flags, 0)
    for name, values in photometry.arrays().items():
        np.testing.assert_array_equal(values, before[name])  # what is the caller's stays the caller's
    np.testing.assert_array_equal(flags, flags_before)
    return found


@pytest.mark.parametrize(
    ("row", "flag"),
    [(1, Flag.BAD_REDSHIFT), (2, Flag.REDSHIFT_OUTSIDE_MODEL), (3, Flag.TOO_FEW_BANDS), (4, Flag.FAILED)],
)
def test_rows_without_an_answer_are_nan_never_zero(troubled, row, flag):
    assert troubled.flags[row] & int(flag)
    assert troubled.flags[row] & int(REASONS)
    for name in FIELDS:
        assert np.isnan(getattr(troubled, name)[row]).all(), name
    assert troubled.method[row] == Method.NONE


def test_other_rows_are_answered(troubled, summary):
    assert not troubled.flags[0] & int(REASONS)
    for name in FIELDS:
        assert np.isfinite(getattr(troubled, name)[[0, 5]]).all(), name
        assert_same_to_rounding(getattr(troubled, name)[0], getattr(summary, name)[0], name)
    assert troubled.flags[5] & int(Flag.NOISE_OUTSIDE_TRAINING)


def test_every_answered_row_is_finite(summary):
    answered = (summary.flags & int(REASONS)) == 0
    assert answered.sum() >= 68
    for name in FIELDS:
        assert np.isfinite(getattr(summary, name)[answered]).all(), name
    assert (np.diff(summary.quantiles[answered], axis=-1) >= 0).all()
    assert (summary.std[answered] >= 0).all()
    assert (summary.chi2[answered] >= 0).all()
    assert ((summary.effective_fraction[answered] > 0) & (summary.effective_fraction[answered] <= 1 + 1e-6)).all()


def test_poor_weights_are_flagged_and_not_used(flow, block):
    """With a threshold that no row meets, quantiles are those of the flow's own draws, equally weighted."""
    strict = Posterior(flow, seed=1, n_draws=256, min_effective_fraction=1.1)
    data = block[:5]
    found = summarise(strict, data)
    assert ((found.flags & int(Flag.LOW_EFFECTIVE_FRACTION)) != 0).all()
    assert (found.method == Method.FLOW).all()
    assert (found.effective_draws == 256).all()
    values = strict.draw(data, np.arange(5), 256).values.numpy()
    expected = np.quantile(values, 0.5, axis=1, method="hazen")
    np.testing.assert_allclose(found.quantiles[..., 2], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_serve_are_used(summary):
    weighted = summary.method == Method.WEIGHTED
    assert weighted.mean() > 0.5
    np.testing.assert_allclose(summary.effective_draws[weighted], 256 * summary.effective_fraction[weighted], rtol=1e-6)
    low = (summary.flags & int(Flag.LOW_EFFECTIVE_FRACTION)) != 0
    np.testing.assert_array_equal(low, ~weighted & ((summary.flags & int(REASONS)) == 0))


def test_colours_outside_the_training_data_are_flagged(posterior, block, flow):
    flux = np.tile(10.0 * np.array([1.0, 2.0, 3.0, 4.0, 4.5]), (8, 1))
    sigma = 0.05 * flux
    flux[1, 1] *= 50
    flux[2, 1], flux[3, 1], sigma[3, 1] = -1.0, 100.0, 0
    photometry = Photometry.of(flux, sigma, block.redshift[:8])
    found = summarise(posterior, photometry).flags & int(Flag.COLOUR_OUTSIDE_TRAINING)
    assert (found != 0).tolist() == [False, True] + [False] * 6


def test_a_mass_at_the_edge_of_the_prior_is_flagged(posterior, block):
    flux = 1e4 * block.flux[:1]
    data = Photometry.of(flux, 0.1 * flux.abs() + 1, block.redshift[0])
    assert summarise(posterior, data).flags[0] & int(Flag.PRIOR_EDGE)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faint_galaxy(flow):
    """Three bands of one galaxy at low signal-to-noise: a posterior broad enough for any proposal to cover."""
    flux = torch.tensor([[0.0, 12.0, 30.0, 45.0, 0.0]])
    sigma = torch.tensor([[0.0, 3.0, 6.0, 8.0, 0.0]])
    return Photometry.of(flux, sigma, redshift=0.08)


@pytest.fixture(scope="module")
def brute_force(flow, faint_galaxy):
    """Weighted prior draws: mean and spread of the unit cube's coordinates, and the evidence, without any flow.

    The amplitude is integrated on a grid of log_mstar.
    """
    mask, z = faint_galaxy.mask[0], faint_galaxy.redshift
    flux, sigma = faint_galaxy.flux[0].double(), faint_galaxy.sigma[0].double()
    u = torch.rand(20_000, 11, generator=torch.Generator().manual_seed(0))
    theta = flow.space.from_unit(u)
    theta[:, 0] = 0.0
    per_mass = flow.redshift_model.model.fluxes(theta, z.expand(len(u))).double()[:, mask]
    grid = torch.linspace(7, 12.5, 1101, dtype=torch.float64)
    chi2 = torch.stack([(((10**m * per_mass - flux[mask]) / sigma[mask]) ** 2).sum(1) for m in grid], dim=1)
    density = (-0.5 * chi2 - (sigma[mask].log() + 0.5 * np.log(2 * np.pi)).sum()).exp()
    evidence = density.mean(1)
    weight = evidence / evidence.sum()
    log_mstar = (density @ grid) / density.sum(1)
    coordinates = torch.cat([((log_mstar - 7) / 5.5).unsqueeze(1), u[:, 1:].double()], dim=1)
    mean = weight @ coordinates
    spread = (weight @ (coordinates - mean) ** 2).sqrt()
    return mean, spread, float(evidence.mean().log()), float(1 / (weight**2).sum())


def weighted_mean(flow, galaxy, n=20_000):
    found = Posterior(flow, seed=4).draw(galaxy, np.array([0]), n)
    return (found.weight[0].unsqueeze(-1) * found.unit[0].double()).sum(0), found


@pytest.mark.parametrize("proposal", ["trained", "untrained", "learnt"])
def test_weights_correct_any_proposal(flow, learnt_flow, faint_galaxy, brute_force, proposal):
    """A trained flow, one that has learnt nothing and one that draws the mass: the same posterior and evidence."""
    mean, spread, log_evidence, size = brute_force
    assert size > 300
    if proposal == "untrained":
        net = build("maf", {"transforms": 2, "hidden": 16}, flow.dimensions, flow.spec.n_features, seed=8)
        rest = flow.features, flow.noise, flow.colour_range, flow.novelty, flow.ssp_table
        flow = TrainedModel(flow.spec, net, *rest)
    found_mean, found = weighted_mean(learnt_flow if proposal == "learnt" else flow, faint_galaxy)
    effective = float(found.effective_fraction[0]) * found.weight.shape[1]
    assert effective > 100
    error = (1 / effective + 1 / size) ** 0.5  # of a mean, in units of the spread
    pull = (found_mean - mean) / (spread * error)
    assert float(pull.abs().max()) < 4.5, dict(zip(COORDINATES, pull.tolist(), strict=True))
    assert float(found.log_evidence[0]) == pytest.approx(log_evidence, abs=5 * error)


def test_weights_are_normalised(draws, posterior, mocks):
    """Fraction and evidence are those of likelihood x prior / density as they are; the weights to use, of their tail smoothed.

    Likelihood, prior and density are evaluated here again, at the draws' parameters: to float32 rounding.
    """
    assert torch.allclose(draws.weight.sum(1), torch.ones(40, dtype=torch.float64))
    data = mocks.photometry[:40]
    per_mass = posterior.flow.redshift_model(draws.values[..., : len(PARAMETERS)], data.redshift).flux
    log_l = amplitude.fit(per_mass, data, draws.unit[..., 0], posterior.flow.space.amplitude.prior.range).log_evidence
    log_prior = torch.distributions.Normal(0, 1).log_prob(probit(draws.unit[..., 1:])).sum(-1)
    log_weight = (log_l + log_prior - draws.log_q).double()
    weight = torch.softmax(log_weight, -1)
    expected = 1 / (256 * (weight**2).sum(1))
    assert torch.allclose(draws.effective_fraction, expected, rtol=0.02)
    assert torch.allclose(draws.log_evidence, torch.logsumexp(log_weight, -1) - np.log(256), atol=0.02)
    assert torch.allclose(draws.log_evidence_error, ((1 / expected - 1) / 256).sqrt(), rtol=0.02)
    for ours, plain in zip(draws.weight, weight, strict=True):
        body = plain.argsort()[: 256 - 48]  # 3 sqrt(256) draws are the tail
        share = ours[body].sum() / plain[body].sum()
        torch.testing.assert_close(ours[body], share * plain[body], rtol=0.05, atol=1e-7)


def test_the_truth_is_as_likely_as_the_draws_say(flow, mocks):
    """chi2 of the true parameters is that of five bands or fewer, and the integrated likelihood is below the peak's."""
    lo, hi = flow.space.amplitude.prior.range
    u = torch.cat([((mocks.log_mstar - lo) / (hi - lo)).unsqueeze(1), torch.special.ndtr(mocks.phi)], dim=1)
    full, integrated = log_likelihood(flow, mocks, flow.space.from_unit(u))
    mask = mocks.photometry.mask
    sigma = torch.where(mask, mocks.photometry.sigma, 1.0)
    norm = -(torch.where(mask, sigma.log() + 0.5 * np.log(2 * np.pi), 0.0)).sum(1)
    chi2 = -2 * (full - norm)
    assert float((chi2 / mask.sum(1)).mean()) == pytest.approx(1, abs=0.15)
    assert bool((integrated < full + 0.5 * chi2 + 1e-3).all())


def test_the_integrated_likelihood_is_the_integral_of_the_likelihood(flow, mocks):
    one = mocks[torch.zeros(401, dtype=torch.long)]
    lo, hi = flow.space.amplitude.prior.range
    masses = (one.log_mstar[0] - lo) / (hi - lo) + torch.linspace(-0.04, 0.04, 401)  # of the prior; width 0.003
    u = torch.cat([masses.unsqueeze(1), torch.special.ndtr(one.phi)], dim=1)
    full, integrated = log_likelihood(flow, one, flow.space.from_unit(u))
    mean = torch.trapezoid(full.double().exp(), masses.double())
    assert float(integrated[0]) == pytest.approx(float(mean.log()), abs=0.02)


def test_draws_and_fits_agree_on_the_amplitude(draws, mocks, posterior):
    """The mass of every draw is the exact conditional's, given its shape and its base point."""
    data = mocks.photometry[:40]
    per_mass = posterior.flow.redshift_model(draws.values[..., : len(PARAMETERS)], data.redshift).flux
    uniform = posterior.base_points(np.arange(40), 256)[..., -1]
    expected = amplitude.fit(per_mass, data, uniform, posterior.flow.space.amplitude.prior.range)
    torch.testing.assert_close(draws.values[..., 0], expected.log_mstar, atol=1e-4, rtol=0)


def test_a_flow_that_learnt_the_amplitude_is_summarised_too(learnt_flow, block):
    found = summarise(Posterior(learnt_flow, seed=1, n_draws=128), block[:5])
    assert np.isfinite(found.quantiles).all()
    values = Posterior(learnt_flow, seed=1).draw(block[:5], np.arange(5), 128).values
    assert_inside_prior(values[..., : len(PARAMETERS)])


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_draws_alike_have_numpys_quantiles_and_moments(n):
    values = torch.randn(5, n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    found, mean, std = importance.summarise(values, None, QUANTILES)
    expected = np.quantile(values.numpy(), QUANTILES, axis=1, method="hazen").transpose(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(mean.numpy(), values.numpy().mean(1), atol=1e-12)
    np.testing.assert_allclose(std.numpy(), values.numpy().std(1), atol=1e-12)


def test_without_the_certificate_a_row_has_the_quantiles_of_its_replayed_draws(learnt_flow, block):
    posterior, n = Posterior(learnt_flow, seed=1, n_draws=64, n_keep=8, certificate=False), 30
    found = Router(posterior, Routing()).summarise(block[:n], np.zeros(n, np.uint32), 100)
    assert posterior.columns == PARAMETERS and (found.method == Method.FLOW).all()
    assert np.isnan(found.effective_fraction).all() and np.isnan(found.chi2).all()
    draws = Router(posterior, Routing()).draws(block[:n], np.arange(100, 100 + n), found.method, 64)
    expected = np.quantile(draws, QUANTILES, axis=1, method="hazen").transpose(1, 2, 0)
    np.testing.assert_allclose(found.quantiles, expected, atol=1e-4)
    np.testing.assert_allclose(found.mean, draws.mean(1), atol=1e-4)
    assert found.draws.shape == (n, 8, 11) and found.draws.any(axis=(1, 2)).all()


def test_an_exact_amplitude_cannot_do_without_the_certificate(flow):
    with pytest.raises(ValueError, match="learnt the amplitude"):
        Posterior(flow, seed=1, certificate=False)
