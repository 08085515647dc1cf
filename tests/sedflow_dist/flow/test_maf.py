"""Our arithmetic of the flow against sbi's and nflows' own, on small flows that have learnt something."""

import math
import os
import subprocess
import sys
from functools import partial

import memory
import numpy as np
import pytest
import torch

from sedflow_dist import compiled
from sedflow_dist.flow import maf, maf_compiled
from sedflow_dist.flow.maf_inverse import Sampler

#: (dimensions, features, transforms, hidden): as used, with fewer units than dimensions, degenerate, and one block.
SHAPES = [(10, 16, 3, 32), (11, 16, 2, 40), (10, 7, 2, 6), (4, 3, 5, 17), (2, 2, 3, 16), (10, 16, 1, 128)]


#: What PyTorch calls processors that this one can stand in for, the slowest last.
MASKS = {"AVX512": ("AVX512", "AVX2", "DEFAULT"), "AVX2": ("AVX2", "DEFAULT")}.get(
    torch.backends.cpu.get_cpu_capability(), ("DEFAULT",)
)


@pytest.fixture(params=MASKS)
def compiled_for(request, monkeypatch):
    """The processor that the compiled inverse takes this one for."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)


@pytest.fixture(params=[*MASKS, "operators"])
def sampler_of(request, monkeypatch):
    """How a sampler is made of blocks: for each processor, and by PyTorch's operators."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return partial(Sampler, compiled=request.param != "operators")


def trained(dimensions, features, transforms, hidden):
    """A flow that knows a banana-shaped posterior, its features and its correlations."""
    net = maf.build(dimensions, features, transforms, hidden, seed=1)
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    mixing = torch.randn(features, dimensions, generator=generator) / math.sqrt(features)
    for _ in range(80):
        x = torch.randn(256, features, generator=generator)
        phi = 0.4 * torch.randn(256, dimensions, generator=generator) + torch.tanh(x @ mixing)
        phi[:, -1] += 0.5 * phi[:, 0] ** 2
        optimizer.zero_grad()
        (-maf.log_prob(maf.blocks(net), phi, x).mean()).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def case(request):
    """A trained flow, features (20, feature) and base points (20, 50, dimension)."""
    dimensions, features, _, _ = request.param
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, features, generator=generator)
    base = torch.randn(20, 50, dimensions, generator=generator)
    return trained(*request.param), x, base


def test_log_prob_is_sbis(case):
    net, x, base = case
    phi = base[:, 0]
    with torch.no_grad():
        found = maf.log_prob(maf.blocks(net), phi, x)
        torch.testing.assert_close(found, net.log_prob(phi.unsqueeze(0), x)[0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(found, net.net.log_prob(phi, context=x), atol=1e-4, rtol=1e-5)


def test_gradients_are_sbis(case):
    """Training with our arithmetic is training of sbi's network: every weight gets the same gradient."""
    net, x, base = case
    parameters = list(net.parameters())
    ours = torch.autograd.grad(maf.log_prob(maf.blocks(net), base[:, 0], x).mean(), parameters)
    theirs = torch.autograd.grad(net.net.log_prob(base[:, 0], context=x).mean(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * max(float(b.abs().max()), 1.0), rtol=1e-3)


def test_draws_are_those_of_the_textbook_inverse(case, sampler_of):
    """To 1e-5 of the draws' scale, float32 rounding."""
    net, x, base = case
    with torch.no_grad():
        phi, _ = sampler_of(maf.blocks(net))(base, x)
        expected, _ = net.net._transform.inverse(base.flatten(0, 1), context=x.repeat_interleave(50, dim=0))
    scale = expected.std(0)
    assert float(((phi.flatten(0, 1) - expected) / scale).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))


def test_the_samplers_log_q_is_the_log_prob_of_its_draws(case, sampler_of):
    net, x, base = case
    with torch.no_grad():
        phi, log_q = sampler_of(maf.blocks(net))(base, x)
        expected = net.net.log_prob(phi.flatten(0, 1), context=x.repeat_interleave(50, dim=0)).view(20, 50)
    torch.testing.assert_close(log_q, expected, atol=1e-4, rtol=1e-5)


def test_draws_do_not_depend_on_how_they_are_split(case, sampler_of):
    """More draws than fit one chunk, in pieces that do not divide it."""
    net, x, _ = case
    sampler = sampler_of(maf.blocks(net))
    base = torch.randn(2, 5000, sampler.dimensions, generator=torch.Generator().manual_seed(5))
    phi, log_q = sampler(base, x[:2])
    for rows in (slice(0, 1), slice(1, 2)):
        alone, alone_q = sampler(base[rows], x[rows])
        torch.testing.assert_close(alone, phi[rows], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone_q, log_q[rows], atol=1e-4, rtol=1e-5)
    few, _ = sampler(base[:, :7], x[:2])
    torch.testing.assert_close(few, phi[:, :7], atol=1e-5, rtol=1e-5)


def test_any_mix_of_draws_per_galaxy_is_one_batch(case, sampler_of):
    """Galaxies with no, one and many draws, in any order, over several chunks."""
    net, x, base = case
    masked = maf.blocks(net)
    galaxy = torch.randint(1, 20, (500,), generator=torch.Generator().manual_seed(6))
    draw = torch.arange(500) % 50
    everything, log_q = sampler_of(masked)(base, x)
    found, found_q = sampler_of(masked, working_set=1).rows(base[galaxy, draw], x, galaxy)
    torch.testing.assert_close(found, everything[galaxy, draw], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_q, log_q[galaxy, draw], atol=1e-4, rtol=1e-5)


def test_draws_do_not_depend_on_the_number_of_threads(case, sampler_of):
    """Bit by bit: a catalog's draws replay on any number of cores."""
    net, x, _ = case
    sampler = sampler_of(maf.blocks(net), working_set=100_000)
    base = torch.randn(3, 1500, sampler.dimensions, generator=torch.Generator().manual_seed(8))
    threads = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(sampler(base, x[:3]))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for phi, log_q in found[1:]:
        assert torch.equal(phi, found[0][0]) and torch.equal(log_q, found[0][1])


@pytest.mark.parametrize(("rows", "working_set"), [(20_000, 2_000_000), (50, 2_000_000), (3000, 16_000_000)])
@pytest.mark.parametrize("compiled", [True, False])
def test_memory_is_planned(rows, working_set, compiled):
    """What PyTorch allocates at most is what the sampler says, and not half of it."""
    sampler = Sampler(maf.blocks(maf.build(10, 16, 2, 100, seed=1)), working_set, compiled)
    base, x = torch.randn(rows, 10), torch.randn(rows if compiled else 7, 16)  # compiled, a galaxy's context counts
    galaxy = torch.arange(rows) % len(x)
    measured = memory.peak(lambda: sampler.rows(base, x, galaxy))
    assert 0.5 * sampler.memory(rows) < measured <= sampler.memory(rows)


def test_no_galaxies_have_no_draws():
    sampler = Sampler(maf.blocks(maf.build(4, 3, 2, 16, seed=1)))
    for shape in ((0, 5, 4), (3, 0, 4)):
        phi, log_q = sampler(torch.zeros(shape), torch.zeros(shape[0], 3))
        assert phi.shape == shape and log_q.shape == shape[:2]


def test_rows_have_nothing_to_do_with_each_other(case, compiled_for):
    """Bit by bit, compiled: in any order and number, beside draws of the same galaxy or of others."""
    net, x, base = case
    made = Sampler(maf.blocks(net))
    phi, log_q = made(base, x)
    galaxy = torch.randint(1, 20, (700,), generator=torch.Generator().manual_seed(6))
    draw = torch.arange(700) % 50
    found, found_q = made.rows(base[galaxy, draw], x, galaxy)
    assert torch.equal(found, phi[galaxy, draw]) and torch.equal(found_q, log_q[galaxy, draw])
    alone, alone_q = made(base[3:4, :5], x[3:4])
    assert torch.equal(alone[0], phi[3, :5]) and torch.equal(alone_q[0], log_q[3, :5])


def test_draws_are_the_same_whatever_the_processors_instructions(case, monkeypatch):
    """Bit by bit, where products and sums are one instruction: lanes are more or fewer, each one's arithmetic is the same."""
    net, x, base = case
    found = []
    for name in ("AVX512", "AVX2"):
        if name not in MASKS:
            pytest.skip(f"this processor has no {name}")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        found.append(Sampler(maf.blocks(net))(base, x))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_every_library_was_built():
    """This machine has a compiler: where one of them is missing, all tests of it would pass by way of PyTorch's operators."""
    assert all(compiled._path(name).exists() for name in ("avx512", "avx2", "any"))


def test_masking_chooses_the_library_of_another_processor():
    """By PyTorch's own variable, from the environment of a new process; the names it gives to other processors are not x86's."""
    code = "from sedflow_dist import compiled; print(compiled.instructions())"
    for masked, expected in (("default", "any"), ("avx2", "avx2")):
        if masked == "avx2" and "AVX2" not in MASKS:
            continue
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "ATEN_CPU_CAPABILITY": masked},
        )  # fmt: skip
        assert done.stdout.strip() == expected


def test_without_a_library_operators_draw(case, monkeypatch):
    net, x, base = case
    monkeypatch.setattr(maf_compiled, "library_for", lambda *_: None)
    phi, _ = Sampler(maf.blocks(net))(base, x)
    assert torch.equal(phi, Sampler(maf.blocks(net), compiled=False)(base, x)[0])


def test_numbers_that_a_compiled_function_cannot_read_are_refused(case):
    """Not side by side, of another kind, or not as many as the flow has: each would be read as something else."""
    net, x, base = case
    made = Sampler(maf.blocks(net))._compiled
    galaxy, rows, scale = torch.zeros(10, dtype=torch.long), base[0, :10].contiguous(), torch.zeros(10)
    wide = rows.repeat_interleave(2, 1)
    with pytest.raises(ValueError, match="side by side"):
        made(wide[:, ::2], x[:1], galaxy, torch.empty_like(rows), scale)
    with pytest.raises(ValueError, match=r"torch\.float64.*must be float32"):
        made(rows.double(), x[:1], galaxy, torch.empty_like(rows), scale)
    with pytest.raises(ValueError, match=f"base points of {wide.shape[1]}"):
        made(wide, x[:1], galaxy, torch.empty_like(wide), scale)
    with pytest.raises(ValueError, match=f"features of {2 * x.shape[1]}"):
        made(rows, x[:1].repeat(1, 2), galaxy, torch.empty_like(rows), scale)


def test_extreme_features_and_base_points_give_finite_draws(compiled_for):
    """Units saturate and scales reach their floor: nothing overflows."""
    net = trained(4, 3, 5, 17)
    base, x = torch.linspace(-30, 30, 240).view(2, 30, 4), torch.tensor([[1e4, -1e4, 1e4], [-50.0, 3.0, 1e3]])
    phi, log_q = Sampler(maf.blocks(net))(base, x)
    expected, expected_q = Sampler(maf.blocks(net), compiled=False)(base, x)
    assert bool(torch.isfinite(log_q).all())
    torch.testing.assert_close(log_q, expected_q, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(phi, expected, atol=1e-3, rtol=1e-4)


def test_base_points_are_not_changed(case):
    net, x, base = case
    before = base.clone()
    Sampler(maf.blocks(net))(base, x)
    assert torch.equal(base, before)


def test_draws_depend_on_the_features():
    """A flow that ignores its features answers every galaxy alike: this one must not."""
    net = trained(4, 3, 2, 16)
    base = torch.zeros(2, 1, 4)
    phi, _ = Sampler(maf.blocks(net))(base, torch.tensor([[2.0, 2.0, 2.0], [-2.0, -2.0, -2.0]]))
    assert float((phi[0] - phi[1]).abs().max()) > 0.5


def test_the_density_integrates_to_one():
    """Two dimensions, on a grid."""
    net = trained(2, 2, 3, 16)
    axis = torch.linspace(-6, 8, 561)
    grid = torch.cartesian_prod(axis, axis)
    x = torch.tensor([[0.5, -1.0]]).expand(len(grid), -1)
    with torch.no_grad():
        log_q = maf.log_prob(maf.blocks(net), grid, x)
    assert float(log_q.double().exp().sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=0.002)


def test_weights_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again, other = (maf.build(10, 16, 2, 8, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_half_precision_steps_are_close():
    """Under autocast, as training runs: log-probabilities in float32, 2 % of a nat from the exact ones."""
    net = trained(10, 16, 2, 32)
    x, phi = torch.randn(64, 16, generator=torch.Generator().manual_seed(1)), torch.zeros(64, 10)
    with torch.no_grad():
        exact = maf.log_prob(maf.blocks(net), phi, x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = maf.log_prob(maf.blocks(net), phi, x)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().mean()) < 0.3
    assert np.isfinite(rounded.numpy()).all()
