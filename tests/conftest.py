"""Fixtures that many tests share, and guards against tests that leave torch changed or a run in which nothing ran."""

import fcntl
import logging
import os
import shutil
from contextlib import contextmanager

import shape_checks

# What every process of Dask looks at 10 to 50 times a second costs an idle cluster of two workers a thirtieth of a core, and
# each process of the tests keeps one or two as long as it lives.
for _name, _value in {
    "ADMIN__TICK__INTERVAL": "1s", "ADMIN__SYSTEM_MONITOR__INTERVAL": "10s", "WORKER__MEMORY__MONITOR_INTERVAL": "500ms",
    "WORKER__PROFILE__ENABLED": "False",
}.items():  # fmt: skip
    os.environ.setdefault(f"DASK_DISTRIBUTED__{_name}", _value)

shape_checks.switch_on()  # before the first module that it is to check is imported

# ruff: noqa: E402
import forked
import forked_ray
import numpy as np
import pytest
import reference_galaxy
import seaweedfs
import small
import tiny
import torch
from dask import config as dask_config
from hypothesis import settings
from provabgs import COORDINATES, SPACE
from xdist.scheduler import LoadFileScheduling

from jobs.run.job import run_all
from sedflow_dist import keyed_random
from sedflow_dist.flow import support, training
from sedflow_dist.flow.features import preset
from sedflow_dist.flow.model_spec import FlowSpec, ModelSpec, dimensions
from sedflow_dist.flow.support import Novelty
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.parameters import probit
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import bc03_miles
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")

Z_MAX = 0.2
SELECTION = (11.0, 17.8)  # r [mag]
#: Sky noise [nanomaggies] and calibration floor [mag] of the synthetic survey, u to z: like SDSS.
SKY, FLOOR = (0.9, 0.25, 0.35, 0.5, 2.0), (0.05, 0.02, 0.02, 0.02, 0.03)


#: Files whose tests look at the tiny run (the fixture `local`): one process runs them all, and the run is made once.
OF_THE_TINY_RUN = (
    "test_whole_chain.py", "test_cli.py", "test_reweight.py", "test_faults.py", "test_data_model.py", "test_validate.py",
    "test_submit.py", "test_absurd_sizes.py", "test_options.py", "test_inferred_redshifts.py",
)  # fmt: skip
#: Files that take minutes begin first, so that the last one does not keep one worker busy alone.
LONG = (
    *OF_THE_TINY_RUN, "test_fsps_jobs.py", "test_ending.py", "test_ingest_scale.py", "test_reprocess.py",
    "test_storage_faults.py", "test_cascade.py", "test_derived.py", "test_toy_component.py", "test_ray_nodes.py",
    "test_mcmc_jobs.py", "test_fsps_engine.py", "test_posterior.py", "test_races.py",
)  # fmt: skip
# Ray Train's controller looks for reports every two seconds: a tiny training would mostly wait for it. It watches for nodes
# that are to be taken away, with an actor more, of which this machine has none. Ray's workers are polite to everybody else by
# default: beside other tests they would hardly get a core.
for _name, _value in {
    "TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "worker_niceness": "0",
}.items():  # fmt: skip
    os.environ.setdefault(f"RAY_{_name}", _value)


def pytest_addoption(parser):
    parser.addoption(
        "--s3", choices=("moto", "seaweedfs"), default="moto", help="which server is the fixture s3_server"
    )


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


class ByFile(LoadFileScheduling):
    """Gives whole files to processes, those of the tiny run as if they were one."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "the tiny run" if file.rpartition("/")[2] in OF_THE_TINY_RUN else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


# -- guards -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def torch_is_left_as_found():
    """A test that changes torch's global state would change every test after it."""
    before = torch.get_default_dtype(), torch.get_num_threads()
    yield
    after = torch.get_default_dtype(), torch.get_num_threads()
    if after != before:
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])
        pytest.fail(f"the test changed torch's (default dtype, number of threads) from {before} to {after}")


@pytest.fixture(autouse=True)
def dask_is_left_as_found():
    """A test that leaves a client behind as everybody's scheduler would break whatever computes with Dask after it."""
    before = dask_config.get("scheduler", None)
    yield
    if (after := dask_config.get("scheduler", None)) != before:
        dask_config.set(scheduler=before)
        pytest.fail(f"the test changed Dask's scheduler from {before} to {after}")


_passed: list[str] = []


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        _passed.append(report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    """A run in which nothing passed (all skipped, or nothing collected) has shown nothing."""
    if hasattr(session.config, "workerinput"):
        return  # of pytest-xdist; the process that started it hears of all tests
    seems_fine = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if seems_fine and not _passed and not session.config.option.collectonly:
        session.config.get_terminal_writer().line("\nno test passed: that is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# -- galaxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ssp():
    return bc03_miles()


@pytest.fixture(scope="session")
def reference_ssp():
    return reference_galaxy.load_bc03_miles()


@pytest.fixture(scope="session")
def sdss_bands():
    return tuple(f"sdss2010-{band}" for band in "ugriz")


@pytest.fixture(scope="session")
def model(ssp, sdss_bands):
    return GalaxyModel(ssp, sdss_bands, Z_MAX)


def prior_draws(n: int, seed: int, z_max: float = Z_MAX) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters of galaxies drawn from the prior, and redshifts up to ``z_max``: (n, 12) and (n,), float32."""
    u = torch.as_tensor(keyed_random.uniforms(seed, "prior", 0, n, len(COORDINATES) + 1)).float()
    return SPACE.from_unit(u[:, :-1]), 0.003 + (z_max - 0.003) * u[:, -1]


@pytest.fixture(scope="session")
def galaxies():
    """`prior_draws`, for tests (they cannot import conftest)."""
    return prior_draws


# -- a survey and a small flow ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shapes(model):
    """12,000 simulated galaxies of one solar mass."""
    u = torch.as_tensor(keyed_random.uniforms(11, "shapes", 0, 12_000, len(COORDINATES) + 1)).float()
    redshift = 0.003 + (Z_MAX - 0.003) * u[:, -1]
    theta = SPACE.from_unit(u[:, :-1])
    theta[:, 0] = 0.0
    return Shapes(probit(u[:, 1:-1]), model.fluxes(theta, redshift), redshift)


def synthetic_photometry(per_mass: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes and uncertainties [nanomaggies] of galaxies brighter than r = 18.2 through a survey's sky and floors."""
    rng = np.random.default_rng(seed)
    r_magnitude = rng.uniform(SELECTION[0], SELECTION[1] + 0.4, len(per_mass))
    flux = per_mass / per_mass[:, 2:3] * 10 ** (0.4 * (22.5 - r_magnitude[:, None]))
    sky = np.asarray(SKY) * np.exp(0.15 * rng.standard_normal(flux.shape))
    sigma = np.hypot(sky, 0.4 * np.log(10) * np.asarray(FLOOR) * flux)
    return flux + sigma * rng.standard_normal(flux.shape), sigma


@pytest.fixture(scope="session")
def noise(shapes):
    """A noise model fitted to synthetic photometry, selected like SDSS' main sample."""
    flux, sigma = synthetic_photometry(shapes.per_mass.double().numpy(), seed=3)
    selected = 22.5 - 2.5 * np.log10(np.maximum(flux[:, 2], 1e-9)) < SELECTION[1]
    return NoiseModel.fit(Photometry.of(flux[selected], sigma[selected]), selection_band=2)


def train(shapes, noise, ssp, bands, amplitude, transforms, hidden, steps):
    """A `TrainedModel` put together as jobs/train.py does, after ``steps`` steps of training."""
    survey = MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.2)
    standardised = training.fit_features(survey, shapes, preset(amplitude), seed=5)
    kind = FlowSpec(family="maf", settings={"transforms": transforms, "hidden": hidden})
    flow = kind.build(dimensions(amplitude, SPACE), len(standardised.mean), seed=5)
    optimizer = torch.optim.Adam(flow.parameters())
    for step in range(steps):
        generator = torch.Generator().manual_seed(keyed_random.torch_seed(5, "train", step))
        mocks = survey.observe(shapes, 512, generator)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(step, steps, 5e-3, 20)
        optimizer.zero_grad()
        x = standardised(mocks.photometry)
        (-flow(training.target(mocks, amplitude, SPACE), x).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
    seen = survey.observe(shapes, 20_000, torch.Generator().manual_seed(1))
    limits, novelty = support.colour_range(seen.photometry), Novelty.fit(survey, shapes, seed=5)
    spec = ModelSpec(
        bands=bands, labels=tuple(b.rpartition("-")[2] for b in bands), amplitude=amplitude, flow=kind,
        features=standardised.names, redshift=(0.0, Z_MAX), birth_cloud_age=0.01, selection_band=noise.selection_band,
        selection=noise.selection, prior=SPACE.to_dict(), ssp=ssp.provenance,
    )  # fmt: skip
    return TrainedModel(spec, flow, standardised, noise, limits, novelty, ssp)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Let one of the processes of a run of the tests make what lies at a path that they share; returns the path."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # its own folder lies in the run's
        shared = shared.parent

    def made(name, make):
        path = shared / name
        with open(f"{path}.lock", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not file.seek(0, os.SEEK_END):
                make(path)
                file.write("made")
        return path

    return made


@pytest.fixture(scope="session")
def trained_once(shapes, noise, ssp, sdss_bands, made_once):
    """`train`, by one of the processes of a run of the tests; the others read what it made."""

    def trained(amplitude, **settings):
        def make(path):
            stored = train(shapes, noise, ssp, sdss_bands, amplitude, **settings).to_bytes()
            model_store.write(Location.parse(path), *stored)

        return TrainedModel.from_bytes(*model_store.read(Location.parse(made_once(f"{amplitude}_flow", make))))

    return trained


@pytest.fixture(scope="session")
def flow(trained_once):
    """A small flow after a short training: good enough for weights that are neither equal nor hopeless."""
    return trained_once("exact", transforms=3, hidden=32, steps=300)


@pytest.fixture(scope="session")
def learnt_flow(trained_once):
    """A small flow that has learnt the amplitude too, as the paper's does."""
    return trained_once("learnt", transforms=2, hidden=24, steps=60)


@pytest.fixture(scope="session")
def mocks(noise, shapes):
    """400 mock observations, a third of them without a band or two."""
    survey = MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.33)
    return survey.observe(shapes, 400, torch.Generator().manual_seed(9))


@contextmanager
def moto_server(bucket):
    """Yield the URL of moto's server with a bucket; it takes every access key."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=bucket)
    yield url
    server.stop()


@pytest.fixture(scope="session")
def s3_server(request):
    """URL of a real S3 server on loopback with the bucket galaxies; access keys stand in the environment."""
    serve = {"moto": moto_server, "seaweedfs": seaweedfs.serve}[request.config.option.s3]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with serve("galaxies") as url:
            yield url


@pytest.fixture(scope="session")
def dask(s3_server):
    """Address of a Dask scheduler with two workers: tests of many short runs do not start their own."""
    from distributed import LocalCluster
    from distributed.utils import get_mp_context

    with dask_config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # which tells the server what to import, before we do
        forked.serve()
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, env=dict(os.environ)
        )
    yield cluster.scheduler_address
    cluster.close(timeout=60)


@pytest.fixture(scope="session")
def small_run(dask, flow, tmp_path_factory):
    """Makes a `small.Small` at a root."""
    where = tiny.location(tmp_path_factory.mktemp("small") / "model")
    model_store.write(where, *flow.to_bytes())
    return lambda root: small.Small(root, where, dask, flow.spec.bands)


@pytest.fixture(scope="session")
def filled_run(small_run, mocks):
    """Makes a `small.Small` at a root, with photometry."""

    def make(root, n_rows):
        run = small_run(root)
        run.write(small.rows_of(mocks, n_rows))
        return run

    return make


# -- the tiny run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def source(made_once):
    return made_once("galaxies.fits", tiny.write_input)


@pytest.fixture(scope="session")
def local(source, dask, made_once, tmp_path_factory):
    """The run on a local folder; other tests start Dask's and Ray's workers anew, and end in the same content.

    One process of the tests runs it, each has a copy of its own.
    """

    def at(root):
        return tiny.settings(root, source, engines={"dask": {"address": dask}})

    def make(root):
        with forked_ray.workers():
            run_all(at(root))

    made = made_once("local", make)
    return at(shutil.copytree(made, tmp_path_factory.mktemp("local") / "local"))
