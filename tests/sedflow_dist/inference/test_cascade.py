"""The fallback cascade: rows that serve stay as they are, others go on, each alone, the same every time, and rightly so."""

import dataclasses

import numpy as np
import pytest
import torch
from provabgs import PARAMETERS, SPACE
from pydantic import ValidationError

from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.mcmc import Target
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.settings import Routing
from sedflow_dist.inference.summary import QUANTILES, Method
from sedflow_dist.photometry.flags import REASONS, Flag
from sedflow_dist.photometry.photometry import Photometry

N_DRAWS, MORE, LEAST = 128, 8, 5
N_NEAR = 20
FAR, FARTHER, NO_REDSHIFT, TWO_BANDS, HOPELESS, NAN_FLUX, TOO_FAR = range(N_NEAR, N_NEAR + 7)
SETTINGS = Routing(effective_draws=LEAST, more_draws=MORE, walkers=22, short_steps=60, long_steps=120, share=1.0)
CERTIFICATE = ("effective_fraction", "log_evidence", "log_evidence_error", "pareto_k")
ANSWER = ("quantiles", "mean", "std", "effective_draws", "chi2", "p_value", "draws")


def change(**values):
    return Routing.model_validate({**SETTINGS.model_dump(), **values})


@pytest.fixture(scope="module")
def posterior(flow):
    return Posterior(flow, seed=1, n_draws=N_DRAWS, min_effective_fraction=0.03, n_keep=8)


@pytest.fixture(scope="module")
def block(mocks):
    """20 mock galaxies and seven rows with something special: photometry, flags."""
    take = [*range(N_NEAR), 0, 1, 2, 3, 4, 5, 6]
    found = mocks.photometry[take].arrays()
    flux, sigma = found["flux"].copy(), found["sigma"].copy()
    mask, redshift = found["mask"].copy(), found["redshift"].copy()
    flags = np.zeros(len(take), np.uint32)
    redshift[[FAR, FARTHER, TOO_FAR]] = 0.21, 0.55, 0.61
    redshift[NO_REDSHIFT], flags[NO_REDSHIFT] = np.nan, int(Flag.BAD_REDSHIFT)
    mask[TWO_BANDS, 2:], flags[TWO_BANDS] = False, int(Flag.TOO_FEW_BANDS | Flag.BAND_MISSING)
    mask[HOPELESS] = True
    flux[HOPELESS], sigma[HOPELESS] = 1e15 * np.array([1, -1, 1, -1, 1]), 1e-20
    mask[NAN_FLUX, 0], flags[NAN_FLUX] = False, int(Flag.BAD_FLUX | Flag.BAND_MISSING)
    return Photometry.of(flux, sigma, redshift, mask), flags


def summarise(router, block, rows=slice(None), row=0):
    return router.summarise(*(x[rows] for x in block), row)


@pytest.fixture(scope="module")
def plain(posterior, block):
    return summarise(posterior, block)


@pytest.fixture(scope="module")
def more(posterior, block):
    """Without MCMC."""
    return summarise(Router(posterior, change(share=0.0)), block)


@pytest.fixture(scope="module")
def routed(posterior, block):
    """The whole cascade, for every row that needs it."""
    return summarise(Router(posterior, SETTINGS), block)


def poor(summary):
    """Rows whose weights do not serve, by the definition of docs/model.md."""
    own = N_DRAWS * np.nan_to_num(summary.effective_fraction)
    worth = np.where(summary.method == Method.MORE_DRAWS, summary.effective_draws, own)
    by_flow = (summary.method > Method.NONE) & (summary.method < Method.SHORT_MCMC)
    by_flow[[FAR, FARTHER]] = summary.method[[FAR, FARTHER]] < Method.SHORT_MCMC  # none where weights do not serve
    return by_flow & ((worth < LEAST) | (summary.pareto_k > 0.7))


def by_mcmc(summary):
    return summary.method >= Method.SHORT_MCMC


def assert_equal_bits(found, expected, rows, names):
    for name in names:
        a, b = getattr(found, name)[rows], getattr(expected, name)[rows]
        assert a.tobytes() == b.tobytes(), name


# -- its steps ---------------------------------------------------------------------------------------------------------


def test_rows_that_serve_are_left_alone(plain, routed):
    serve = (plain.method > Method.NONE) & ~poor(plain)
    assert serve.sum() >= 3
    assert_equal_bits(routed, plain, serve, [f.name for f in dataclasses.fields(plain)])


def test_poor_rows_climb_until_they_are_served(plain, more, routed):
    """More draws only where they serve; every other poor row a chain; nobody is left with weights that do not serve."""
    climbed = poor(plain)
    assert climbed.sum() >= 8
    got_more = more.method == Method.MORE_DRAWS
    assert 3 <= got_more.sum() < climbed.sum()
    assert (climbed | ~got_more).all()
    worth = N_DRAWS * np.nan_to_num(plain.effective_fraction[got_more])
    assert (more.effective_draws[got_more] > worth).all()
    factor = more.effective_draws[got_more] / (N_DRAWS * more.effective_fraction[got_more])
    assert (factor * more.effective_fraction[got_more] >= 0.03).all()
    np.testing.assert_allclose(factor, 2 ** np.round(np.log2(factor)), rtol=1e-6)
    assert factor.min() < 2.1 and factor.max() > MORE - 0.1  # as many as each needs
    assert not poor(more)[np.flatnonzero(got_more)[factor < MORE - 0.1]].any()
    assert_equal_bits(more, plain, ~got_more, [f.name for f in dataclasses.fields(plain)])
    np.testing.assert_array_equal(by_mcmc(routed), poor(more))
    assert not poor(routed).any()
    for method in (Method.WEIGHTED, Method.MORE_DRAWS, Method.MCMC):
        assert (routed.method == method).any(), method


def test_chains_keep_the_flows_certificate(more, routed):
    """Effective fraction and evidence are the flow's; R-hat and effective draws the chain's; others have no R-hat."""
    chains = by_mcmc(routed)
    assert_equal_bits(routed, more, chains, CERTIFICATE)
    np.testing.assert_array_equal(np.isfinite(routed.rhat), chains)
    assert (routed.effective_draws[chains] > 1).all()
    open_end = (routed.flags & int(Flag.NOT_CONVERGED)) != 0
    np.testing.assert_array_equal(open_end, np.nan_to_num(routed.rhat) > 1.1)


def test_the_flag_of_poor_weights_goes_where_mcmc_answers(flow, block, more, routed):
    """All rows, and one for which there is a threshold just above what more draws of it are worth, the poorest."""
    for summary in (more, routed):
        flagged = summary.flags & int(Flag.LOW_EFFECTIVE_FRACTION) != 0
        np.testing.assert_array_equal(flagged, summary.method == Method.FLOW)
    assert not flagged.any()
    worth = np.where(more.method == Method.MORE_DRAWS, MORE * more.effective_fraction, np.inf)
    i = int(worth.argmin())
    strict = Posterior(flow, seed=1, n_draws=N_DRAWS, min_effective_fraction=1.01 * float(worth[i]))
    before = summarise(Router(strict, change(share=0.0)), block, slice(i, i + 1), i)
    assert before.method[0] == Method.FLOW and before.flags[0] & int(Flag.LOW_EFFECTIVE_FRACTION)
    after = summarise(Router(strict, change(effective_draws=N_DRAWS)), block, slice(i, i + 1), i)
    assert by_mcmc(after)[0] and not after.flags[0] & int(Flag.LOW_EFFECTIVE_FRACTION)


def test_the_flag_of_poor_weights_goes_where_more_draws_answer(flow, block, plain, more):
    """A threshold between the effective fractions of a row's first draws and of more of them."""
    gain = np.where(more.method == Method.MORE_DRAWS, more.effective_fraction - plain.effective_fraction, -1)
    i = int(gain.argmax())
    threshold = float(plain.effective_fraction[i] + 0.5 * gain[i])
    strict = Posterior(flow, seed=1, n_draws=N_DRAWS, min_effective_fraction=threshold)
    first = summarise(strict, block, slice(i, i + 1), i)
    assert first.method[0] == Method.FLOW and first.flags[0] & int(Flag.LOW_EFFECTIVE_FRACTION)
    found = summarise(Router(strict, change(share=0.0, effective_draws=N_DRAWS)), block, slice(i, i + 1), i)
    assert found.method[0] == Method.MORE_DRAWS and not found.flags[0] & int(Flag.LOW_EFFECTIVE_FRACTION)
    assert found.mean.tobytes() != first.mean.tobytes()


def test_one_times_as_many_draws_is_no_step(posterior, block, plain):
    """Not even a row whose draws would differ by rounding changes its method."""
    found = summarise(Router(posterior, change(more_draws=1, share=0.0)), block)
    assert_equal_bits(found, plain, slice(None), [f.name for f in dataclasses.fields(plain)])


def test_a_chain_too_short_says_so(posterior, block, more):
    rows = np.flatnonzero(poor(more))[:3]
    tiny = Router(posterior, change(short_steps=60, long_steps=60))
    for i in rows:
        found = summarise(tiny, block, slice(i, i + 1), i)
        assert found.method[0] == Method.SHORT_MCMC
        assert found.rhat[0] > 1.1
        assert found.flags[0] & int(Flag.NOT_CONVERGED)
        assert np.isfinite(found.quantiles).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"walkers": 23}, "walkers: 23 is odd"), ({"short_steps": 65}, "short_steps: 65 is not a multiple of 10"),
     ({"short_steps": 600, "long_steps": 300}, "long_steps: 300 is not a multiple of short_steps = 600")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Routing(**settings)


# -- which rows -------------------------------------------------------------------------------------------------------


def test_every_row_with_valid_photometry_is_answered(routed):
    unanswered = np.flatnonzero(routed.method == Method.NONE)
    assert unanswered.tolist() == [NO_REDSHIFT, TWO_BANDS, HOPELESS, TOO_FAR]
    for name in (*ANSWER[:-1], *CERTIFICATE, "rhat"):
        assert np.isnan(getattr(routed, name)[unanswered]).all(), name
    reasons = [Flag.BAD_REDSHIFT, Flag.TOO_FEW_BANDS, Flag.FAILED, Flag.REDSHIFT_OUTSIDE_MODEL]
    assert [Flag(int(routed.flags[i]) & int(REASONS)) for i in unanswered] == reasons
    answered = routed.method > Method.NONE
    for name in ANSWER[:-1]:
        assert np.isfinite(getattr(routed, name)[answered]).all(), name
    assert (np.diff(routed.quantiles[answered], axis=-1) >= 0).all()
    assert ((routed.p_value[answered] >= 0) & (routed.p_value[answered] <= 1)).all()


def test_rows_beyond_the_trained_redshifts_are_answered_by_weights_or_mcmc_and_stay_flagged(
    plain, routed, posterior, block
):
    for i in (FAR, FARTHER):
        assert plain.method[i] in (Method.NONE, Method.WEIGHTED)  # the flow alone is no answer there
        assert routed.method[i] >= Method.WEIGHTED
        assert routed.flags[i] & int(Flag.REDSHIFT_OUTSIDE_MODEL)
        assert not routed.flags[i] & int(Flag.LOW_EFFECTIVE_FRACTION | Flag.FAILED)
    values = Router(posterior, SETTINGS).draws(
        block[0][[FAR, FARTHER]], np.array([FAR, FARTHER]), routed.method[[FAR, FARTHER]], 200
    )
    named = SPACE.values(values)
    for name in ("log_mstar", "t_burst", "tau_ism", "n_dust", "gamma1", "f_burst"):
        low, high = SPACE.block_of(name).prior.range
        assert (named[name] >= np.float32(low)).all() and (named[name] <= np.float32(high)).all(), name
    np.testing.assert_allclose(named["beta"].sum(-1), 1, atol=1e-5)


def test_a_row_that_came_as_failed_is_left_alone_by_every_method(posterior, block, routed, monkeypatch):
    """It kills the worker that computes it: neither more draws nor a chain may touch it. Others stay what they were."""
    photometry, flags = block
    killer = int(np.flatnonzero(routed.method >= Method.MORE_DRAWS)[0])
    flags = flags.copy()
    flags[killer] |= int(Flag.FAILED)
    touched, draw = [], Posterior.draw

    def watched(self, part, rows, n):
        touched.extend(rows.tolist())
        return draw(self, part, rows, n)

    monkeypatch.setattr(Posterior, "draw", watched)
    near = slice(0, 6) if killer < 6 else slice(killer - 5, killer + 1)
    found = Router(posterior, SETTINGS).summarise(photometry[near], flags[near], near.start)
    assert touched and killer not in touched
    assert found.method[killer - near.start] == Method.NONE and found.flags[killer - near.start] & int(Flag.FAILED)


@pytest.mark.parametrize("unknown", ["no redshift", "one that may be zero"])
def test_a_row_without_a_redshift_is_flagged_and_its_neighbours_are_what_they_were(posterior, block, unknown):
    """Also where whoever asks has not flagged it: a row without an answer says why."""
    photometry, flags = block[0][:6], block[1][:6]
    redshift, sigma = photometry.redshift.clone(), photometry.redshift_sigma.clone()
    if unknown == "no redshift":
        redshift[2] = sigma[2] = torch.nan
    else:
        sigma[2] = redshift[2]
    changed = dataclasses.replace(photometry, redshift=redshift, redshift_sigma=sigma)
    found = Router(posterior, change(share=0.0, more_draws=1)).summarise(changed, flags, 0)
    expected = summarise(posterior, block, slice(0, 6))
    assert found.method[2] == Method.NONE and found.flags[2] & int(Flag.BAD_REDSHIFT)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found.flags[others], expected.flags[others])
    np.testing.assert_allclose(found.mean[others], expected.mean[others], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="MCMC: exact redshifts are needed"):
        Target(posterior.flow.redshift_model, changed)


def test_share_bounds_the_chains_and_takes_the_worst(posterior, block, more):
    """Of 27 rows, 0.2 are five: first those without any answer, one in vain, then the smallest effective fractions."""
    short = change(short_steps=60, long_steps=60, share=0.2)
    found = summarise(Router(posterior, short), block)
    chains = by_mcmc(found)
    assert chains.sum() == 4
    assert chains[[FAR, FARTHER]][more.method[[FAR, FARTHER]] == Method.NONE].all()
    left = poor(more) & ~chains
    assert left.any()
    assert np.nanmax(more.effective_fraction[chains]) < more.effective_fraction[left].min()
    assert_equal_bits(found, more, ~chains, [f.name for f in dataclasses.fields(more)])
    none = summarise(Router(posterior, change(share=0.03)), block)  # less than one row
    assert not by_mcmc(none).any()


def stars_among_galaxies(block, kind):
    """The first 20 rows of the block, and before them 20 others that no galaxy can be told from but by ``kind``."""
    found = block[0][[*range(N_NEAR), *range(N_NEAR)]].arrays()
    flux, sigma, redshift = (found[name].copy() for name in ("flux", "sigma", "redshift"))
    flags, stars = np.zeros(2 * N_NEAR, np.uint32), slice(0, N_NEAR)
    if kind == "at the redshifts of stars":
        redshift[stars] = 1e-5
    elif kind == "stars by their class":
        flags[stars] = int(Flag.NOT_A_GALAXY)
        flux[stars] *= np.array([1, 30, 1, 30, 1])  # which no galaxy model fits
    else:
        sigma[stars] = np.abs(flux[stars]) * 5 + 1e-3
        flux[stars] = -np.abs(flux[stars])
    return Photometry.of(flux, sigma, redshift, found["mask"]), flags


@pytest.mark.parametrize("kind", ["at the redshifts of stars", "stars by their class", "without a signal"])
def test_what_is_no_galaxy_takes_no_place_from_one_in_mcmc(posterior, block, kind):
    """Every chain is a galaxy's as long as there are galaxies that wait for one."""
    photometry, flags = stars_among_galaxies(block, kind)
    everyone = change(short_steps=60, long_steps=60, effective_draws=10_000, more_draws=1, share=0.25)
    found = Router(posterior, everyone).summarise(photometry, flags, 0)
    chains = np.flatnonzero(by_mcmc(found))
    assert len(chains) >= 8 and (chains >= N_NEAR).all()
    assert (found.method[:N_NEAR] > Method.NONE).any()  # by the flow they are answered


def test_rows_that_give_way_are_sampled_where_places_are_left(posterior, block):
    photometry, flags = stars_among_galaxies(block, "at the redshifts of stars")
    everyone = change(short_steps=60, long_steps=60, effective_draws=10_000, more_draws=1, share=1.0)
    found = Router(posterior, everyone).summarise(photometry[N_NEAR - 4 : N_NEAR], flags[:4], 0)
    assert by_mcmc(found).any()
    old = Router(posterior, change(**{**everyone.model_dump(), "min_redshift": 0.0})).summarise(
        photometry[N_NEAR - 4 : N_NEAR], flags[:4], 0
    )
    assert_equal_bits(found, old, slice(None), [f.name for f in dataclasses.fields(found)])


def test_chains_are_heard_of_while_they_grow(posterior, block):
    photometry, flags = block
    heard = []
    settings = change(short_steps=60, long_steps=120, share=0.2)
    quiet = Router(posterior, settings).summarise(photometry, flags, 0)
    found = Router(posterior, settings).summarise(photometry, flags, 0, lambda *told: heard.append(told))
    galaxies, steps, most = np.array(heard).T
    assert set(galaxies) == {5} and set(most) == {5 * 120}
    assert (np.diff(steps) >= 0).all() and steps[0] < 20 and 300 <= steps[-1] <= 600 and len(steps) > 60
    assert_equal_bits(found, quiet, slice(None), [f.name for f in dataclasses.fields(found)])


# -- the same numbers -------------------------------------------------------------------------------------------------


def test_a_routed_row_does_not_depend_on_its_block(posterior, block, routed):
    """Alone or beside others, near or beyond the model: equal bits, though the flow's first draws differ by rounding."""
    rows = [*np.flatnonzero(by_mcmc(routed))[:2], FAR, np.flatnonzero(routed.method == Method.MORE_DRAWS)[0]]
    router = Router(posterior, SETTINGS)
    for i in rows:
        alone = summarise(router, block, slice(i, i + 1), i)
        assert alone.method[0] == routed.method[i]
        for name in (*ANSWER, "rhat", "flags"):
            assert getattr(alone, name)[0].tobytes() == getattr(routed, name)[i].tobytes(), (i, name)


def test_replayed_draws_are_the_same_twice_and_those_of_the_summary(posterior, flow, block, routed):
    """Medians within 0.25 of a posterior's width and 16-84 % widths within 40 %, of 95 % of columns: 128 draws."""
    rows = np.concatenate(
        [np.flatnonzero(routed.method == m)[:2] for m in (Method.WEIGHTED, Method.MORE_DRAWS, Method.MCMC)] + [[FAR]]
    )
    data, methods, n = block[0][rows], routed.method[rows], N_DRAWS
    found = Router(posterior, SETTINGS).draws(data, rows, methods, n)
    other = Router(Posterior(flow, seed=1, n_draws=N_DRAWS, min_effective_fraction=0.03), SETTINGS)
    again = np.concatenate([other.draws(data[i], rows[[i]], methods[[i]], n) for i in range(len(rows))])
    assert found.shape == (len(rows), n, len(posterior.columns))
    np.testing.assert_array_equal(found, again)
    quantiles = np.quantile(found, (0.16, 0.5, 0.84), axis=1, method="hazen").transpose(1, 2, 0)
    expected, width = routed.quantiles[rows][..., 1:4], routed.std[rows] + 1e-6
    assert np.quantile(np.abs(quantiles[..., 1] - expected[..., 1]) / width, 0.95) < 0.25
    spread = (quantiles[..., 2] - quantiles[..., 0]) / (expected[..., 2] - expected[..., 0] + 1e-6)
    assert (np.abs(np.quantile(spread, (0.05, 0.95)) - 1) < 0.4).all()


def test_short_chains_and_plain_draws_are_replayed_too(posterior, block, plain, more):
    """A row that a short chain has answered, and one that only the flow's own draws have: the summary's quantiles."""
    chain, unweighted = (int(np.flatnonzero(rows)[0]) for rows in (poor(more), plain.method == Method.FLOW))
    short = change(short_steps=60, long_steps=60)
    for i, settings, method, n in [
        (chain, short, Method.SHORT_MCMC, 4 * 22),  # all that a chain keeps: 4 steps of 22 walkers
        (unweighted, change(share=0.0, more_draws=1), Method.FLOW, N_DRAWS),
    ]:
        router, one = Router(posterior, settings), slice(i, i + 1)
        found = summarise(router, block, one, i)
        assert found.method[0] == method
        first, again = (router.draws(block[0][i], np.array([i]), found.method, n) for _ in range(2))
        assert first.tobytes() == again.tobytes()
        quantiles = np.quantile(first[0], QUANTILES, axis=0, method="hazen").T
        np.testing.assert_allclose(quantiles, found.quantiles[0], rtol=1e-4, atol=1e-4)


def test_kept_draws_of_a_chain_are_the_chains(posterior, block, routed, flow):
    """Decoded, they are the parameters of replayed draws, to one in 65,536 of the prior's width."""
    row = int(np.flatnonzero(by_mcmc(routed))[0])
    data, method = block[0][row], routed.method[[row]]
    known = Router(posterior, SETTINGS).draws(data, np.array([row]), method, 10_000)[0][:, : len(PARAMETERS)]
    decoded = flow.space.from_unit(torch.as_tensor((routed.draws[row] + 0.5) / 2.0**16)).numpy()
    nearest = np.abs((decoded[:, None] - known[None]) / (known.std(0) + 1e-9)).max(-1).min(1)
    assert nearest.max() < 0.05


# -- the right numbers ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mcmc_agrees_with_importance_sampling(flow):
    """Three faint bands: mean and std of every column within 4.5 Monte-Carlo errors, about 0.1 of a posterior's width."""
    data = Photometry.of([0, 12, 30, 45, 0], [0, 3, 6, 8, 0], redshift=0.08)
    settings = Routing(effective_draws=100_000, more_draws=1, walkers=32, short_steps=1500, long_steps=1500, share=1.0)
    found = Router(Posterior(flow, seed=4, n_draws=N_DRAWS), settings).summarise(data, np.zeros(1, np.uint32), 0)
    assert found.method[0] == Method.SHORT_MCMC
    assert found.rhat[0] < 1.1 and found.effective_draws[0] > 300
    exact = Posterior(flow, seed=5).draw(data, np.array([0]), 30_000)
    effective = 30_000 * float(exact.effective_fraction)
    assert effective > 500
    x, weight = exact.values[0].double(), exact.weight[0]
    mean = weight @ x
    variance, fourth = weight @ (x - mean) ** 2, weight @ (x - mean) ** 4
    noise = 1 / effective + 1 / float(found.effective_draws[0])
    pull = (torch.as_tensor(found.mean[0]) - mean) / (variance * noise).sqrt()
    assert float(pull.abs().max()) < 4.5, pull
    error = ((fourth - variance**2) * noise).sqrt() / (2 * variance.sqrt())
    pull = (torch.as_tensor(found.std[0]) - variance.sqrt()) / error
    assert float(pull.abs().max()) < 4.5, pull
