"""Training: mock observations as the survey makes them, targets, schedules, and going on from a checkpoint."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from provabgs import SPACE

from sedflow_dist.flow import training
from sedflow_dist.flow.captured_step import CapturedStep
from sedflow_dist.flow.conditional_flow import build
from sedflow_dist.flow.features import COLOURS
from sedflow_dist.flow.training import Batches, Progress, Schedule, Trainer, learning_rate, target
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes

MASSES = SPACE.amplitude.prior.range


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def survey(noise):
    return MockSurvey(noise, MASSES, drop_out=0.4)


@pytest.fixture(scope="module")
def seen(survey, shapes):
    return survey.observe(shapes, 5000, generator(0))


# -- mock observations ------------------------------------------------------------------------------------------------


def test_only_what_the_survey_selects_is_seen(shapes, noise):
    """On the *observed* magnitude in the selection band (here nothing is dropped, so that it is known)."""
    found = MockSurvey(noise, MASSES, drop_out=0.0).observe(shapes, 5000, generator(1))
    magnitude = 22.5 - 2.5 * torch.log10(found.photometry.flux[:, noise.selection_band])
    bright, faint = noise.selection
    assert float(magnitude.min()) >= bright - 1e-3
    assert float(magnitude.max()) <= faint + 1e-3
    assert float(magnitude.max() - magnitude.min()) > 0.8 * (faint - bright)
    assert bool(found.photometry.mask.all())
    assert bool((found.photometry.sigma > 0).all())


def test_mocks_are_noisy_galaxies_of_the_training_set(seen, shapes, noise):
    """Every mock is a shape times its mass plus noise of its own sigma."""
    phi = {tuple(row.tolist()): i for i, row in enumerate(shapes.phi)}
    index = torch.tensor([phi[tuple(row.tolist())] for row in seen.phi[:1000]])
    assert torch.equal(shapes.redshift[index], seen.photometry.redshift[:1000])
    true = shapes.per_mass[index] * 10 ** seen.log_mstar[:1000].unsqueeze(1)
    pull = ((seen.photometry.flux[:1000] - true) / seen.photometry.sigma[:1000].clamp(min=1e-9))[
        seen.photometry.mask[:1000]
    ]
    assert abs(float(pull.mean())) < 0.06
    assert float(pull.std()) == pytest.approx(1, abs=0.05)
    assert float(seen.log_mstar.min()) >= MASSES[0]
    assert float(seen.log_mstar.max()) <= MASSES[1]


def test_the_mass_prior_is_kept_where_everything_is_selected(shapes):
    """A survey without limits returns the prior's masses: they are drawn from it, not inside the selection."""
    tables = torch.tensor([[10.0, 30.0]] * 5), torch.full((5, 2), 0.05), torch.full((5, 2), 0.005)
    everything = MockSurvey(NoiseModel(*tables, 2, (-20.0, 60.0)), MASSES, 0.0)
    masses = everything.observe(shapes, 20_000, generator(2)).log_mstar
    u = ((masses - MASSES[0]) / (MASSES[1] - MASSES[0])).sort().values
    distance = (u - (torch.arange(len(u)) + 0.5) / len(u)).abs().max()
    assert float(distance) < 1.63 / math.sqrt(len(u)) + 1e-4  # Kolmogorov-Smirnov, 1 %


def test_bands_go_missing_but_three_stay(seen, survey):
    kept = seen.photometry.mask.sum(1)
    assert int(kept.min()) == 3
    assert float((kept < 5).float().mean()) == pytest.approx(survey.drop_out, abs=0.03)
    # One missing and two missing are equally frequent, and every band goes as often.
    assert float((kept == 4).float().mean()) == pytest.approx(0.2, abs=0.025)
    missing = (~seen.photometry.mask).float().mean(0)
    assert float((missing - missing.mean()).abs().max()) < 0.02
    assert bool((seen.photometry.flux[~seen.photometry.mask] == 0).all())
    assert bool((seen.photometry.sigma[~seen.photometry.mask] == 0).all())


def test_three_bands_never_lose_one(noise):
    three = NoiseModel(noise.magnitude[1:4], noise.mean[1:4], noise.scatter[1:4], 1, noise.selection)
    shapes = Shapes(torch.randn(100, 10), 1e-9 * (0.5 + torch.rand(100, 3)), torch.full((100,), 0.1))
    assert bool(MockSurvey(three, MASSES, 1.0).observe(shapes, 500, generator(3)).photometry.mask.all())


def test_whole_instruments_go_missing(noise, shapes):
    """Half of those that lose bands lose instruments, each half of the time, and never so many that fewer than three bands stay."""
    u_alone, gri, z_alone = (0,), (1, 2, 3), (4,)
    found = (
        MockSurvey(noise, MASSES, 1.0, (u_alone, gri, z_alone)).observe(shapes, 20_000, generator(4)).photometry.mask
    )
    patterns, counts = torch.unique(found, dim=0, return_counts=True)
    kept = ["".join(label for label, on in zip("ugriz", row, strict=True) if on) for row in patterns.tolist()]
    share = dict(zip(kept, (counts / len(found)).tolist(), strict=True))
    # Of the half that lose instruments: all bands stay in 1/8 where nothing is lost, and in the 4/8 where gri is.
    assert share["ugriz"] == pytest.approx(0.5 * 5 / 8, abs=0.015)
    # Others lose one of five bands in half of the cases, or two: a fifth of a quarter, and a tenth of one.
    assert share["griz"] == pytest.approx(0.5 / 8 + 0.25 / 5, abs=0.015)
    assert share["gri"] == pytest.approx(0.5 / 8 + 0.25 / 10, abs=0.015)
    assert share["ugr"] == pytest.approx(0.25 / 10, abs=0.01)
    assert min(map(len, share)) == 3


def test_a_galaxy_has_the_bands_of_one_footprint(noise, shapes):
    """Two sets of four bands that share two: half of the galaxies lose one more, none keeps fewer than three."""
    sets = ((0, 1, 2, 4), (0, 2, 3, 4))
    survey = MockSurvey(noise, MASSES, 0.5, band_sets=sets)
    found = survey.observe(shapes, 20_000, generator(4)).photometry.mask
    patterns, counts = torch.unique(found, dim=0, return_counts=True)
    shares = {tuple(row): float(n) / len(found) for row, n in zip(patterns.int().tolist(), counts, strict=True)}
    for bands in sets:
        whole = [int(band in bands) for band in range(5)]
        assert shares.pop(tuple(whole)) == pytest.approx(0.25, abs=0.015)
        for gone in set(bands) - {1, 3}:  # bands of both sets; without its own band, neither set tells which it was
            without = tuple(on if band != gone else 0 for band, on in enumerate(whole))
            assert shares.pop(without) == pytest.approx(0.25 / 4, abs=0.01)
    assert shares == {(1, 0, 1, 0, 1): pytest.approx(0.5 / 4, abs=0.015)}
    instruments = replace(survey, drop_out=1.0, instruments=((0,), (1, 2, 3)))
    kept = instruments.observe(shapes, 5_000, generator(4)).photometry.mask
    assert int(kept.sum(1).min()) == 3
    assert not bool((kept[:, 1] & kept[:, 3]).any())


def test_without_instruments_the_same_numbers_are_drawn(noise, shapes):
    """The key to old trainings: what the option adds is drawn after all else."""
    plain = MockSurvey(noise, MASSES, 0.4).observe(shapes, 500, generator(5)).photometry
    grouped = MockSurvey(noise, MASSES, 0.4, ((0,),)).observe(shapes, 500, generator(5)).photometry
    both = plain.mask & grouped.mask
    assert torch.equal(plain.flux[both], grouped.flux[both])
    assert torch.equal(plain.redshift, grouped.redshift)


def test_the_same_generator_sees_the_same_galaxies(survey, shapes):
    first, second, other = (survey.observe(shapes, 100, generator(s)) for s in (5, 5, 6))
    assert torch.equal(first.phi, second.phi) and torch.equal(first.log_mstar, second.log_mstar)
    for name, values in first.photometry.arrays().items():
        np.testing.assert_array_equal(values, second.photometry.arrays()[name])
    assert not torch.equal(first.photometry.flux, other.photometry.flux)


def test_a_selection_that_nothing_meets_says_so(noise, shapes):
    blind = MockSurvey(NoiseModel(noise.magnitude, noise.mean, noise.scatter, 2, (-30.0, -29.0)), MASSES, 0.0)
    with pytest.raises(ValueError, match=r"of 4000 simulated galaxies .* \(-30\.0, -29\.0\) mag kept 0"):
        blind.observe(shapes, 10, generator(0))


# -- targets and features ---------------------------------------------------------------------------------------------


def test_targets_are_in_probit_space(seen):
    assert target(seen, "exact", SPACE) is seen.phi
    both = target(seen, "learnt", SPACE)
    assert both.shape == (5000, 11)
    assert torch.equal(both[:, 1:], seen.phi)
    back = MASSES[0] + (MASSES[1] - MASSES[0]) * torch.special.ndtr(both[:, 0])
    assert torch.allclose(back, seen.log_mstar, atol=1e-4)


def test_masses_on_the_edges_have_finite_targets(seen):
    edge = replace(seen[:2], log_mstar=torch.tensor(MASSES))
    assert bool(torch.isfinite(target(edge, "learnt", SPACE)).all())


def test_features_are_fitted_to_what_is_seen(survey, shapes, seen):
    fitted = training.fit_features(survey, shapes, COLOURS, seed=1)
    x = fitted(seen.photometry)
    measured = torch.cat([seen.photometry.mask, seen.photometry.mask], dim=1)
    assert float(x[:, :10][measured].mean()) == pytest.approx(0, abs=0.05)
    assert float(x[:, :10][measured].std()) == pytest.approx(1, abs=0.1)
    again = training.fit_features(survey, shapes, COLOURS, seed=1)
    assert torch.equal(fitted.mean, again.mean)


# -- schedule and progress --------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 1000, 2e-3, 100) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[99] == rates[100] == pytest.approx(2e-3)
    assert all(b > a for a, b in pairwise(rates[:100]))
    assert all(b < a for a, b in pairwise(rates[100:]))
    assert rates[550] == pytest.approx(1e-3)
    assert rates[1000] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warm_up"), [(10, 0), (10, 10), (5, 20), (1, 0)])
def test_the_learning_rate_is_sane_for_short_trainings(steps, warm_up):
    rates = [learning_rate(step, steps, 1.0, warm_up) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_progress_counts_validations_since_the_best():
    progress = Progress()
    better = []
    for step, score in enumerate([-12.0, -11.0, -11.5, -11.0, math.nan, -10.5, -10.6]):
        progress.step = 100 * step
        better.append(progress.record(score, score - 1))
    assert better == [True, True, False, False, False, True, False]
    assert (progress.best, progress.stale) == (-10.5, 1)
    assert progress.history[1] == {"step": 100, "train": -12.0, "validation": -11.0}
    assert len(progress.history) == 7


def test_a_training_goes_on_bit_by_bit_from_a_checkpoint():
    """Weights, Adam's moments and the step are all there is: four steps are two, a checkpoint, and two."""

    def start():
        flow = build("maf", {"transforms": 2, "hidden": 8}, 3, 4, seed=1)
        return flow, torch.optim.Adam(flow.parameters(), lr=1e-2)

    def step(flow, optimizer, i):
        phi, x = torch.randn(64, 3, generator=generator(i)), torch.randn(64, 4, generator=generator(100 + i))
        optimizer.zero_grad()
        (-flow(phi, x).mean()).backward()
        optimizer.step()

    through, optimizer = start()
    for i in range(4):
        step(through, optimizer, i)

    first, optimizer = start()
    for i in range(2):
        step(first, optimizer, i)
    weights = {name: value.clone() for name, value in first.state_dict().items()}
    moments = {name: value.clone() for name, value in training.optimizer_tensors(first, optimizer).items()}
    resumed, optimizer = start()
    resumed.load_state_dict(weights)
    training.restore_optimizer(resumed, optimizer, moments)
    for i in range(2, 4):
        step(resumed, optimizer, i)
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_short_training_knows_more_than_the_prior(flow, shapes, noise, mocks):
    """The small flow knows more than the prior of mock observations that it has not seen: two nats, at least."""
    x = flow.features(mocks.photometry)
    with torch.no_grad():
        learnt = flow.network.log_prob(mocks.phi, x).mean()
    prior = -0.5 * (mocks.phi**2).sum(1).mean() - 5 * math.log(2 * math.pi)
    assert float(learnt - prior) > 2


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("bfloat16", True)])
def test_the_precision_can_be_forced(precision, expected):
    assert training.use_bfloat16(precision) is expected
    assert isinstance(training.use_bfloat16("auto"), bool)


def trained(mocks_of, shapes, schedule, progress, flow, optimizer, best):
    """A `Trainer` that ran to the end of its schedule, and the steps at which it said something."""
    features = training.fit_features(mocks_of, shapes, COLOURS, seed=1)
    batches = Batches(mocks_of, features, "exact", SPACE, seed=3)
    trainer, said = Trainer(flow, optimizer, flow, batches, schedule, progress, best), []
    trainer.run(shapes, shapes, lambda: said.append(progress.step), lambda: said.append(("validated", progress.step)))
    return trainer, said


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_trainer_that_is_interrupted_ends_in_the_same_bits(survey, shapes, at_once):
    """Six steps with a validation every two are two, a checkpoint, and four; also where examples of four are drawn at once."""

    def start():
        flow = build("maf", {"transforms": 1, "hidden": 8}, 10, 16, seed=1)
        return flow, training.optimizer(flow)

    plan = Schedule(6, 64, 5e-3, 2, 2, 128, 10, False, at_once)
    flow, optimizer = start()
    whole, said = trained(survey, shapes, plan, Progress(), flow, optimizer, training.copy(flow))
    assert said == [1, 2, ("validated", 2), 3, 4, ("validated", 4), 5, 6, ("validated", 6)]
    assert whole.progress.best == max(one["validation"] for one in whole.progress.history)

    flow, optimizer = start()
    stopped = Progress()
    features = training.fit_features(survey, shapes, COLOURS, seed=1)

    def kill():
        raise KeyboardInterrupt

    trainer = Trainer(
        flow, optimizer, flow, Batches(survey, features, "exact", SPACE, 3), plan, stopped, training.copy(flow)
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.run(shapes, shapes, lambda: None, kill)
    moments = {name: value.clone() for name, value in training.optimizer_tensors(flow, optimizer).items()}
    resumed, optimizer = start()
    resumed.load_state_dict(training.copy(flow))
    training.restore_optimizer(resumed, optimizer, moments)
    again, _ = trained(survey, shapes, plan, stopped, resumed, optimizer, trainer.best)
    for name, value in whole.flow.state_dict().items():
        assert torch.equal(value, again.flow.state_dict()[name]), name
    assert again.progress.history == whole.progress.history


def test_a_trainer_stops_where_nothing_gets_better(survey, shapes):
    flow = build("maf", {"transforms": 1, "hidden": 8}, 10, 16, seed=1)
    plan = Schedule(50, 64, 1e-9, 1, 1, 128, 3, False)
    progress = Progress(best=math.inf)
    trained(survey, shapes, plan, progress, flow, training.optimizer(flow), training.copy(flow))
    assert (progress.step, progress.stale) == (3, 3)


def test_examples_drawn_at_once_are_those_of_each_step(survey, shapes):
    """Stretches of one draw of three batches, the next three drawn anew."""
    flow = build("maf", {"transforms": 1, "hidden": 8}, 10, 16, seed=1)
    batches = Batches(survey, training.fit_features(survey, shapes, COLOURS, seed=1), "exact", SPACE, 3)
    plan, progress = Schedule(5, 64, 5e-3, 2, 5, 128, 10, False, at_once=3), Progress()
    trainer = Trainer(flow, training.optimizer(flow), flow, batches, plan, progress, training.copy(flow))
    seen = []
    for progress.step in range(5):
        seen.append(trainer._batch(shapes))
    known = [batches.draw(shapes, 192, "train", number, 0) for number in range(2)]
    for i, (phi, x) in enumerate(seen):
        rows = slice(64 * (i % 3), 64 * (i % 3 + 1))
        assert torch.equal(phi, known[i // 3][0][rows]) and torch.equal(x, known[i // 3][1][rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_captured_step_is_a_step(survey, shapes):
    """Weights after 20 steps, captured and one operation after the other: apart by what TF32 rounds, a twentieth of their way."""
    ends = []
    for captured in (True, False):
        flow = build("maf", {"transforms": 2, "hidden": 16}, 10, 16, seed=1).cuda()
        start, optimizer = training.copy(flow), training.optimizer(flow)
        features = training.fit_features(survey, shapes, COLOURS, seed=1)
        phi, x = (part.cuda() for part in Batches(survey, features, "exact", SPACE, 3).draw(shapes, 256, "x"))
        step = CapturedStep(training.step, flow, optimizer, phi, x) if captured else None
        assert all(torch.equal(value, start[name]) for name, value in flow.state_dict().items())
        for _ in range(20):
            step(phi, x, 1e-3) if step else training.step(flow, optimizer, phi, x, 1e-3, False)
        ends.append(torch.cat([value.flatten() for value in flow.parameters()]))
    moved = torch.cat([value.flatten() for name, value in start.items() if name in dict(flow.named_parameters())])
    assert (ends[0] - ends[1]).norm() < 0.05 * (ends[1] - moved.cuda()).norm()


def test_a_gpu_trains_in_float32_unless_told_otherwise():
    assert not training.use_bfloat16("auto", "cuda")
    assert training.use_bfloat16("bfloat16", "cuda")
