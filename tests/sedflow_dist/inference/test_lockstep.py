"""Samplers side by side: batches, independence of who runs beside, and global states left as they were found."""

import logging
import random
import subprocess
import sys

import numpy as np
import pytest

from sedflow_dist.inference import lockstep, mcmc

N_DIM, N_WALKERS = 4, 12


def gaussian(points):
    return -0.5 * (points**2).sum(-1)


def each(numbers, points):
    """Answer task i with a Gaussian of its own width."""
    return [gaussian(p) / (1 + i) for i, p in zip(numbers, points, strict=True)]


@pytest.fixture
def run():
    """`lockstep.run`, and what tasks may change must be back: both generators, and the root logger, which zeus takes."""

    def states():
        root = logging.getLogger()
        return (
            random.getstate(),
            np.random.get_state(),
            np.random.mtrand.get_bit_generator(),
            root.handlers[:],
            root.level,
        )

    def checked(tasks, evaluate):
        before = states()
        try:
            return lockstep.run(tasks, evaluate)
        finally:
            after = states()
            assert after[0] == before[0], "random has another state"
            same = [np.array_equal(a, b) for a, b in zip(after[1], before[1], strict=True)]
            assert all(same) and after[2] is before[2], "numpy.random has another state"
            assert after[3:] == before[3:], "the root logger has other handlers or another level"

    return checked


# -- batches ----------------------------------------------------------------------------------------------------------


def test_all_that_wait_are_answered_in_one_batch(run):
    """Tasks that ask 0, 1, 2 and 3 times: those that are done no longer take part."""
    asked = []

    def evaluate(numbers, points):
        asked.append((list(numbers), [len(p) for p in points]))
        return [p.sum(-1) + 100 * i for i, p in zip(numbers, points, strict=True)]

    def task(number):
        def work(ask):
            return [ask(np.full((number + 1, 2), float(turn))).tolist() for turn in range(number)]

        return work

    results = run([task(number) for number in range(4)], evaluate)
    assert results == [[[100.0 * i + 2 * turn] * (i + 1) for turn in range(i)] for i in range(4)]
    assert asked == [([1, 2, 3], [2, 3, 4]), ([2, 3], [3, 4]), ([3], [4])]


def test_nothing_to_do(run):
    assert run([], each) == []
    assert run([lambda ask: 7], pytest.fail) == [7]


# -- independence -----------------------------------------------------------------------------------------------------


def draws(seed):
    """A task that uses both global generators between questions."""

    def work(ask):
        random.seed(seed)
        np.random.seed(seed)
        found = []
        for _ in range(5):
            x = np.random.standard_normal((3, N_DIM)) + random.random()
            found.append(ask(x) + np.random.uniform(size=3) + random.random())
        return np.array(found)

    return work


def sampled(sampler, seed):
    """A task that is two segments of an ensemble."""

    def work(ask):
        start = np.random.default_rng(seed).standard_normal((N_WALKERS, N_DIM))
        one = mcmc.segment(sampler, ask, mcmc.State(start), 30, 5, seed)
        return one, mcmc.segment(sampler, ask, one.end, 30, 5, seed + 1)

    return work


def same(one, other):
    """Whether two pairs of segments agree bit by bit."""
    return all(
        a.phi.tobytes() == b.phi.tobytes()
        and a.log_prob.tobytes() == b.log_prob.tobytes()
        and a.end.position.tobytes() == b.end.position.tobytes()
        and (a.end.scale, a.end.tune, a.evaluations) == (b.end.scale, b.end.tune, b.evaluations)
        for a, b in zip(one, other, strict=True)
    )


def test_each_task_has_the_global_generators_to_itself(run):
    together = run([draws(seed) for seed in (11, 12, 13)], lambda _, points: [gaussian(p) for p in points])
    for seed, found in zip((11, 12, 13), together, strict=True):
        np.testing.assert_array_equal(found, draws(seed)(gaussian))


def test_an_evaluation_that_draws_numbers_takes_none_of_the_tasks():
    def evaluate(numbers, points):
        random.random()
        np.random.standard_normal(7)
        return [gaussian(p) for p in points]

    tasks = [draws(11), sampled("zeus", 12), sampled("emcee", 13)]
    quiet = lockstep.run(tasks, lambda _, points: [gaussian(p) for p in points])
    noisy = lockstep.run(tasks, evaluate)
    np.testing.assert_array_equal(quiet[0], noisy[0])
    assert same(quiet[1], noisy[1]) and same(quiet[2], noisy[2])


def test_the_first_chain_of_a_process_is_that_of_the_next():
    """What a sampler's library draws while it is imported is none of the chain's numbers."""
    code = """
import numpy as np
from sedflow_dist.inference import mcmc
start = np.random.default_rng(1).standard_normal((12, 4))
chains = [mcmc.segment("zeus", lambda x: -(x**2).sum(-1), mcmc.State(start), 10, 1, 5).phi for _ in range(2)]
assert np.array_equal(*chains)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sampler", mcmc.ENSEMBLES)
def test_a_chain_does_not_depend_on_who_runs_beside_it(run, sampler):
    """Equal bits: alone, and third of five with another sampler, other seeds and other lengths beside it."""
    (alone,) = run([sampled(sampler, 21)], lambda _, points: [gaussian(p) / 3 for p in points])
    others = [sampled("zeus", 1), sampled("emcee", 2), sampled(sampler, 21), draws(4), sampled("zeus", 21)]
    together = run(others, each)
    assert same(alone, together[2])
    assert not same(alone, together[0])


@pytest.mark.parametrize("sampler", mcmc.ENSEMBLES)
def test_another_seed_is_another_chain(run, sampler):
    one, other = run([sampled(sampler, 21), sampled(sampler, 22)], lambda _, points: [gaussian(p) for p in points])
    assert not same(one, other)


# -- errors -----------------------------------------------------------------------------------------------------------


class BrokenError(Exception):
    pass


def broken(ask):
    np.random.standard_normal(3)
    ask(np.zeros((2, N_DIM)))
    raise BrokenError("task 1")


def test_an_exception_in_a_task_reaches_the_caller(run):
    """The samplers beside it are left in the middle; fixture `run` looks at the states."""
    with pytest.raises(BrokenError, match="task 1"):
        run([sampled("zeus", 1), broken, sampled("zeus", 2)], each)


def test_an_exception_in_the_evaluation_reaches_the_caller(run):
    def evaluate(numbers, points):
        raise BrokenError("evaluation")

    with pytest.raises(BrokenError, match="evaluation"):
        run([sampled("zeus", 1), sampled("emcee", 2)], evaluate)


def test_answers_to_some_only_are_refused(run):
    with pytest.raises(ValueError, match="zip"):
        run([sampled("emcee", 1), sampled("emcee", 2)], lambda numbers, points: each(numbers, points)[:1])
