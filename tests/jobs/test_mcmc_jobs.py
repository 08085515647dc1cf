"""Chains by Ray actors: those of two are those of one byte for byte, whoever is killed, and little is computed twice."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import forked_ray
import numpy as np
import pytest
import ray
import tiny
import torch
import zarr
from commands import sedflow
from provabgs import COORDINATES, PARAMETERS, SPACE
from pydantic import ValidationError

from cluster import ray_engine
from cluster.settings import RaySettings
from jobs import mcmc
from jobs.config.sections import MCMC
from jobs.validate.compare import chain_ranks
from sedflow_dist import keyed_random
from sedflow_dist.inference import cascade
from sedflow_dist.inference.mcmc import State, Target, segment
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.validation import plots
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import chains, photometry
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

N = 4
SHORT = MCMC(sampler="zeus", walkers=22, steps=60, burn_in=20, thin=5, checkpoint_steps=20)
ONE, TWO = RaySettings(actors=1), RaySettings(actors=2)


@pytest.fixture(scope="module")
def stored_model(flow, tmp_path_factory):
    location = Location.parse(tmp_path_factory.mktemp("mcmc") / "model")
    model_store.write(location, *flow.to_bytes())
    return location


@pytest.fixture(scope="module")
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with forked_ray.workers(), ray_engine.session(TWO):
        yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def in_this_process(monkeypatch):
    """Actors are objects here, for tests of something else than Ray: each of its processes imports for seconds."""

    def map_actors(actor_class, arguments, method, items, settings, on_result, on_death):
        actor = actor_class(*arguments)
        for item in items:
            on_result(getattr(actor, method)(item))

    monkeypatch.setattr(ray_engine, "map_actors", map_actors)


@pytest.fixture(scope="module")
def data(flow):
    return mcmc.mocks(flow, N, seed=5)


@pytest.fixture(scope="module")
def of_one(cluster, stored_model, data, tmp_path_factory):
    """Chains made by one actor without faults."""
    out = Location.parse(tmp_path_factory.mktemp("one") / "chains")
    mcmc.sample(data, stored_model, out, SHORT, 5, ONE)
    return out


def contents(out):
    """Every array of both stores by name."""
    return {
        f"{name}/{key}": np.asarray(value[...])
        for name in ("segments", "summary")
        for key, value in zarr.open_group((out / name).zarr(True), mode="r").members()
    }


def assert_complete_and_same(one, other):
    assert [store.missing() for store in chains.open(other)] == [[], []]
    tiny.assert_same(contents(one), contents(other))


def chunk_times(out):
    """When each finished segment was finished [ns]."""
    folder = Path(out.url) / "segments/chunk_digest/c"
    paths = folder.glob("[0-9]*") if folder.is_dir() else ()
    return {int(path.name): path.stat().st_mtime_ns for path in paths if path.name.isdigit()}


# -- faults -----------------------------------------------------------------------------------------------------------


def first_to_come(path):
    """Whether no process was here before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def watched(folder, deadly_row, deadly_point):
    """Samplers that write down what they evaluate; the first that evaluates so many points of a row is killed."""

    class Watched(mcmc.Sampler):
        def _task(self, target, place, galaxy, missing):
            work = super()._task(target, place, galaxy, missing)
            row, seen = int(self.data.row[galaxy]), 0

            def counted(ask, points):
                nonlocal seen
                seen += len(points)
                if row == deadly_row and seen > deadly_point and first_to_come(folder / "killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
                values = ask(points)
                with open(folder / f"evaluated-{row}-{os.getpid()}", "a") as file:
                    file.write(f"{len(points)}\n")
                return values

            return lambda ask: work(lambda points: counted(ask, points))

    return Watched


def evaluated(folder):
    """Points of each row that were evaluated, by all processes."""
    counts = Counter()
    for path in folder.glob("evaluated-*"):
        counts[int(path.name.split("-")[1])] += sum(map(int, path.read_text().split()))
    return counts


# -- actors -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_actors_make_the_chains_of_one(of_one, stored_model, data, tmp_path):
    out = Location.parse(tmp_path / "chains")
    mcmc.sample(data, stored_model, out, SHORT, 5, TWO)
    assert_complete_and_same(of_one, out)
    other = Location.parse(tmp_path / "other")
    mcmc.sample(data[:1], stored_model, other, SHORT, 6, ONE)
    assert contents(other)["segments/chain"][0].tobytes() != contents(out)["segments/chain"][0].tobytes()


@pytest.mark.usefixtures("in_this_process")
def test_a_row_has_its_chain_whatever_is_sampled_beside_it(of_one, stored_model, data, tmp_path):
    out = Location.parse(tmp_path / "chains")
    mcmc.sample(data[2:3], stored_model, out, SHORT, 5, ONE)
    one, whole, n = contents(out), contents(of_one), SHORT.segments
    for name, values in one.items():
        rows = slice(2 * n, 3 * n) if name.startswith("segments/") else slice(2, 3)
        if name not in ("segments/coordinate", "segments/shape", "summary/shape"):
            assert values.tobytes() == whole[name][rows].tobytes(), name


@pytest.mark.slow
def test_a_killed_actor_costs_a_checkpoint_interval_and_no_byte(of_one, stored_model, data, tmp_path):
    """Killed in the middle of the second of three segments, with the other galaxies of its block somewhere near."""
    stored = contents(of_one)["segments/evaluations"].reshape(N, SHORT.segments)
    deadly = int(stored[2, 0] + stored[2, 1] // 2)
    out = Location.parse(tmp_path / "chains")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcmc, "Sampler", watched(tmp_path, 2, deadly))
        mcmc.sample(data, stored_model, out, SHORT, 5, TWO)
    assert (tmp_path / "killed").exists()
    assert_complete_and_same(of_one, out)
    counts = evaluated(tmp_path)
    twice = np.array([counts[row] - stored[row].sum() for row in range(N)])
    assert (twice >= 0).all() and (twice < stored.max(1)).all(), (twice, stored)
    assert 0 < twice[2] <= stored[2, 1]  # what was lost of the segment that was under way
    assert len(list(tmp_path.glob("evaluated-2-*"))) == 2


def command(source, stored_model, out, **options):
    """Arguments of ``sedflow mcmc`` with short chains."""
    short = {"sampler": SHORT.sampler, "walkers": 22, "steps": 60, "burn-in": 20, "thin": 5, "checkpoint-steps": 20}
    given = {"model": stored_model, "out": out, **short, **options}
    return ["mcmc", str(source), *(text for name, value in given.items() for text in (f"--{name}", str(value)))]


@pytest.mark.slow
def test_a_killed_job_goes_on_where_it_stopped(cluster, flow, stored_model, tmp_path):
    """Job, Ray and actors are killed; what they had finished is not written again, and the result is that of one go."""
    out, whole = Location.parse(tmp_path / "chains"), Location.parse(tmp_path / "whole")
    settings = SHORT.model_copy(update={"sampler": "emcee", "steps": 400})
    arguments = command("mocks:2", stored_model, out, sampler="emcee", steps=400, seed=5, actors=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments], start_new_session=True, cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    tiny.kill_when(process, lambda: len(chunk_times(out)) >= 5)
    before = chunk_times(out)
    assert 5 <= len(before) < 2 * settings.segments
    data = mcmc.mocks(flow, 2, seed=5)
    mcmc.sample(data, stored_model, out, settings, 5, TWO)
    after = chunk_times(out)
    assert {chunk: after[chunk] for chunk in before} == before
    mcmc.sample(data, stored_model, whole, settings, 5, ONE)
    assert_complete_and_same(whole, out)
    written = {path: path.stat().st_mtime_ns for path in Path(out.url).rglob("*") if path.is_file()}
    mcmc.sample(data, stored_model, out, settings, 5, TWO)  # nothing is missing
    assert {path: path.stat().st_mtime_ns for path in Path(out.url).rglob("*") if path.is_file()} == written


def test_chains_of_other_settings_or_galaxies_are_refused(of_one, stored_model, data):
    with pytest.raises(ValueError, match="was made with burn_in = 20, now 10 is asked for"):
        mcmc.sample(data, stored_model, of_one, SHORT.model_copy(update={"burn_in": 10}), 5, ONE)
    with pytest.raises(ValueError, match="was made with seed = 5, now 6 is asked for"):
        mcmc.sample(data, stored_model, of_one, SHORT, 6, ONE)
    with pytest.raises(ValueError, match="was made with galaxies = "):
        brighter = replace(data.photometry, flux=2 * data.photometry.flux)
        mcmc.sample(replace(data, photometry=brighter), stored_model, of_one, SHORT, 5, ONE)


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_draws_lie_inside_the_prior_and_the_summary_is_of_them(of_one, flow):
    segments, summary = chains.open(of_one)
    burn_in, kept = SHORT.burn_in // SHORT.thin, SHORT.segments * SHORT.kept_steps
    lo, hi = flow.space.amplitude.prior.range
    log_mstar = []
    for galaxy in range(N):
        u = mcmc.draws_of(segments, galaxy, SHORT)
        assert u.shape == (kept - burn_in, 22, len(COORDINATES)) and u.min() > 0 and u.max() < 1
        assert all(len(np.unique(u[..., i])) > 10 for i in range(len(COORDINATES)))
        theta = flow.space.from_unit(torch.as_tensor(u))
        assert lo < float(theta[..., 0].min()) and float(theta[..., 0].max()) < hi
        log_mstar.append(theta[..., 0])
        found = {name: values[0] for name, values in summary.read(galaxy, ["row", "rhat", "evaluations"]).items()}
        assert found["row"] == galaxy and (found["rhat"] > 0.9).all()
        parts = [segments.read(galaxy * SHORT.segments + s, ["evaluations"])["evaluations"][0] for s in range(3)]
        assert found["evaluations"] == sum(parts) > 60 * 22
    widths = [float(x.std()) for x in log_mstar]
    assert min(widths) > 0.005 and max(widths) < 1.0


@pytest.mark.usefixtures("in_this_process")
def test_walkers_may_start_at_the_flows_draws(cluster, flow, stored_model, data, tmp_path):
    """The first segment of a galaxy's chain is what the library makes of walkers that the flow's weighted draws are."""
    settings, row = SHORT.model_copy(update={"sampler": "emcee", "start": "flow"}), 2
    segments, _ = mcmc.sample(data, stored_model, Location.parse(tmp_path / "chains"), settings, 5, ONE)
    assert segments.group.attrs["settings"]["model"] == flow.id
    own = data.photometry[row]
    target = Target(flow.redshift_model, own)
    begun = State(cascade.start(Posterior(flow, 5), target, own, 0, row, 22))
    seed = keyed_random.torch_seed(5, "mcmc", row, 0)
    by_hand = segment("emcee", lambda points: target([0], [points])[0], begun, 20, 5, seed)
    stored = segments.read(row * settings.segments, ["position"])["position"][0]
    np.testing.assert_allclose(stored, by_hand.end.position, atol=1e-5)


def test_chains_of_mock_galaxies_have_ranks_of_the_truth(of_one, flow, tmp_path):
    """By hand for the mass, whose draws are the cube's first coordinate; the figure shows them beside the flow's."""
    found = chain_ranks(flow, of_one, 5)
    segments, _ = chains.open(of_one)
    lo, hi = flow.space.amplitude.prior.range
    true = (mock_galaxies(flow, N, 5).log_mstar.numpy() - lo) / (hi - lo)
    by_hand = [(mcmc.draws_of(segments, i, SHORT)[..., 0] < true[i]).mean() for i in range(N)]
    assert found.shape == (N, len(PARAMETERS))
    np.testing.assert_allclose(found[:, 0], by_hand, atol=1e-3)
    assert ((found >= 0) & (found <= 1)).all()
    assert "MCMC of 4" in plots.sbc(found, SPACE.quantities, found).get_suptitle()
    assert chain_ranks(flow, Location.parse(tmp_path / "none"), 5) is None
    with pytest.raises(ValueError, match="has chains of other galaxies than mocks:4 of this model with --seed 6"):
        chain_ranks(flow, of_one, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"walkers": 23}, "23 is odd"),
        ({"walkers": 20}, "greater than or equal to 22"),
        ({"steps": 70}, "steps: 70 is not a multiple of checkpoint_steps = 20"),
        ({"thin": 3}, "checkpoint_steps: 20 is not a multiple of thin = 3"),
        ({"burn_in": 60}, "burn_in: 60 leaves none of 60 steps"),
        ({"sampler": "gibbs"}, "'zeus', 'emcee' or 'nautilus'"),
        ({"step": 60}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_chain_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        MCMC.model_validate({**SHORT.model_dump(), **changes})
    MCMC.model_validate(SHORT.model_dump())


# -- the command line -------------------------------------------------------------------------------------------------


def refused(*arguments):
    """Run a command that ends with exit code 1; return what it says on standard error."""
    done = sedflow(*arguments)
    assert done.returncode == 1
    return done.stderr


@pytest.fixture(scope="module")
def store(flow, tmp_path_factory):
    """Six mock galaxies as a photometry store of two chunks."""
    found = mcmc.mocks(flow, 6, seed=8).photometry.arrays()
    location = Location.parse(tmp_path_factory.mktemp("store") / "photometry")
    settings = {"survey": {"bands": flow.spec.bands}}
    made = photometry.create(location, 6, 3, flow.spec.labels, {}, settings)
    values = {
        **{name: found[name] for name in photometry.OBSERVED}, "flags": np.zeros(6, np.uint32),
        "ra": np.zeros(6), "dec": np.zeros(6),
    }  # fmt: skip
    for chunk in range(2):
        made.write(chunk, {name: v[made.rows(chunk)] for name, v in values.items()})
    return location


def test_the_command_samples_mock_galaxies(cluster, of_one, stored_model, tmp_path):
    out = Location.parse(tmp_path / "chains")
    done = sedflow(*command("mocks:2", stored_model, out, seed=5, actors=1))
    assert done.returncode == 0, done.stderr
    assert "2 galaxies" in done.stderr and "worst R-hat" in done.stderr
    found = contents(out)
    assert found["summary/row"].tolist() == [0, 1]
    assert found["segments/chain"].shape == (6, 4, 22, 11)


@pytest.mark.usefixtures("in_this_process")
def test_the_command_samples_rows_of_a_store(cluster, stored_model, store, tmp_path):
    """Rows keep the numbers they have in the store, which key their chains."""
    out, alone = Location.parse(tmp_path / "chains"), Location.parse(tmp_path / "alone")
    done = sedflow(*command(store, stored_model, out, sampler="emcee", rows="0,3-4"))
    assert done.returncode == 0, done.stderr
    found = contents(out)
    assert found["summary/row"].tolist() == [0, 3, 4]
    assert sedflow(*command(store, stored_model, alone, sampler="emcee", rows="4", actors=1)).returncode == 0
    assert contents(alone)["segments/chain"].tobytes() == found["segments/chain"][6:].tobytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [("0,6", r"rows 0 to 6 asked for; .*photometry has rows 0 to 5"), ("4-7", r"rows 4 to 7 asked for")],
)
def test_rows_that_do_not_exist_are_an_error(cluster, stored_model, store, tmp_path, rows, message):
    said = refused(*command(store, stored_model, tmp_path / "chains", rows=rows))
    assert re.search(message, said) and "Traceback" not in said
    assert not (tmp_path / "chains").exists()


@pytest.mark.parametrize("rows", ["", "x", "3-1", "-3"])
def test_text_that_names_no_rows_is_wrong_use(stored_model, store, tmp_path, rows):
    done = sedflow(*command(store, stored_model, tmp_path / "chains", rows=rows))
    assert done.returncode == 2 and "is no list of row numbers" in done.stderr


def test_settings_that_make_no_chain_are_an_error(stored_model, tmp_path):
    done = sedflow(*command("mocks:2", stored_model, tmp_path / "chains", steps=70))
    said = re.sub(r"[│\s]+", " ", done.stderr)  # without the frame around it
    assert done.returncode == 2
    assert "steps: 70 is not a multiple of checkpoint_steps = 20" in said and "Traceback" not in said


def test_rows_without_a_posterior_are_named(store, stored_model):
    opened = photometry.open(store, "r+")
    before = opened.read(0, [*photometry.OBSERVED, "flags", "ra", "dec"])
    flags = np.array([0, Flag.TOO_FEW_BANDS, 0], before["flags"].dtype)
    opened.write(0, {**before, "flags": flags})
    try:
        with pytest.raises(ValueError, match=r"row 1 of .*photometry has no posterior: TOO_FEW_BANDS"):
            mcmc.rows_of(store, np.array([0, 1]), stored_model)
    finally:
        opened.write(0, before)


def test_photometry_in_other_bands_is_refused(flow, stored_model, tmp_path):
    location = Location.parse(str(tmp_path / "other"))
    settings = {"survey": {"bands": [f"decam2014-{b}" for b in "ugriz"]}}
    made = photometry.create(location, 1, 1, flow.spec.labels, {}, settings)
    row = {name: np.ones((1, 5), np.float32) for name in ("flux", "sigma")}
    row |= {"mask": np.ones((1, 5), bool), "redshift": np.ones(1, np.float32), "flags": np.zeros(1, np.uint32)}
    made.write(0, {**row, "ra": np.zeros(1), "dec": np.zeros(1)})
    with pytest.raises(ValueError, match=r"has bands decam2014-u, .* was trained on sdss2010-u"):
        mcmc.rows_of(location, np.array([0]), stored_model)
