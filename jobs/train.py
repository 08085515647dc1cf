"""train: a training set and a survey's noise in, a model out. Ray Train runs the optimisation, data-parallel.

Every validation writes a checkpoint (safetensors and JSON, never a pickle) to the run's storage; a run that was killed goes
on from there, bit by bit as if it had not been.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file

from cluster import ray_engine
from jobs.config.run_file import RunFile, fingerprint
from jobs.simulate.ssp import load as load_ssp
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist import keyed_random
from sedflow_dist.flow import features as features_module
from sedflow_dist.flow import maf, support, training
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.support import Novelty
from sedflow_dist.flow.trained_model import FAR, Flow, FlowSpec, dimensions
from sedflow_dist.flow.training import Estimator, Progress
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.sps import filters
from storage_schemas import model as model_store
from storage_schemas import photometry, training_set
from storage_schemas.backend.arrays import array
from storage_schemas.backend.location import Location

_TICK = 20  # steps between movements of the progress bar
_TENSORS, _STATE = "state.safetensors", "state.json"
_NOISE_ROWS = 1_000_000  # to which the noise is fitted
_UNRELIABLE = int(Flag.BAD_REDSHIFT | Flag.TOO_FEW_BANDS | Flag.ABSURD_COLOUR)


@events.job("train")
def train(run: RunFile) -> Location:
    """Train the run's flow if its model is missing; return the model's location."""
    out = run.store("model")
    key = training_key(run)
    if model_store.is_finished(out):
        found = json.loads(model_store.read(out)[1])["training"].get("key")
        if found != key:
            raise ValueError(f"{out} was trained with other settings; choose another storage root or remove it")
        say("train", f"the model is there already: {out}")
        return out
    clock = Clock()
    noise = fit_noise(run)
    checkpoints = run.store("checkpoints")
    with ray_engine.session(run.engines.ray):
        _fit(run, key, checkpoints)
    tensors, state = _latest(checkpoints / key)
    flow = assemble(run, noise, tensors, state, key)
    model_store.write(out, *flow.to_bytes())
    best = state["best"]
    rate = state["step"] * run.training.batch / clock.seconds
    say("train", f"validation log-probability {best:.3f} after {state['step']:,} steps, {clock.seconds:.0f} s "
        f"({rate:,.0f} mock galaxies/s); model {flow.id}: {out}")  # fmt: skip
    return out


def training_key(run: RunFile) -> str:
    """Hash of everything that the trained model depends on."""
    settings = training_set.open(run.store("training")).group.attrs["settings"]
    noise = photometry.open(run.store("photometry")).group.attrs["settings"]
    return fingerprint(settings, noise, run.flow, run.training, run.simulation, run.seed)


def fit_noise(run: RunFile) -> NoiseModel:
    """Fit the noise of the survey to the run's own photometry, to a part of it where it is large."""
    rows = photometry.sample(photometry.open(run.store("photometry")), photometry.DATA, _NOISE_ROWS)
    flux, sigma, mask, flags = (rows[name] for name in ("flux", "sigma", "mask", "flags"))
    ok = (flags & _UNRELIABLE) == 0
    survey = run.survey_definition
    return NoiseModel.fit(flux[ok], sigma[ok], mask[ok], survey.labels.index(survey.selection_band))


def load_shapes(run: RunFile) -> tuple[Shapes, Shapes]:
    """Load the training set without rows that FSPS failed on (NaN); its last rows are held out for validation."""
    store = training_set.open(run.store("training"))
    if missing := store.missing():
        raise ValueError(f"training set {store.location} lacks {len(missing)} of {store.n_chunks} chunks: run simulate")
    arrays = [torch.as_tensor(np.asarray(array(store.group, name)[:])) for name in training_set.NAMES]
    first_held_out = int(store.n_rows * (1 - run.training.held_out))
    good = torch.stack([torch.isfinite(a).reshape(len(a), -1).all(1) for a in arrays]).all(0)
    if not good.all():
        first_held_out, arrays = int(good[:first_held_out].sum()), [a[good] for a in arrays]
    return Shapes(*(a[:first_held_out] for a in arrays)), Shapes(*(a[first_held_out:] for a in arrays))


def mock_survey(run: RunFile, noise: NoiseModel) -> MockSurvey:
    """The survey as the training sees it."""
    return MockSurvey(noise, run.model.make_prior().log_mstar, run.training.drop_out)


def make_features(run: RunFile, survey: MockSurvey, shapes: Shapes) -> Features:
    """Standardise features on the training set."""
    amplitude, _, _ = run.flow.resolved()
    return training.fit_features(survey, shapes, "colours" if amplitude == "exact" else "magnitudes", run.seed)


def new_network(run: RunFile) -> torch.nn.Module:
    """The untrained network of the run."""
    amplitude, transforms, hidden = run.flow.resolved()
    n_features = features_module.size(len(run.survey_definition.bands))
    return maf.build(dimensions(amplitude), n_features, transforms, hidden, run.seed)


def assemble(
    run: RunFile, noise: NoiseModel, tensors: dict[str, torch.Tensor], state: dict[str, Any], key: str
) -> Flow:
    """Put the best weights of a checkpoint together with everything the flow needs to be used alone."""
    survey = run.survey_definition
    amplitude, transforms, hidden = run.flow.resolved()
    shapes, _ = load_shapes(run)
    mocks = mock_survey(run, noise)
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(run.seed, "colours"))
    seen = mocks.observe(shapes, 50_000, generator)
    limits, novelty = support.colour_range(seen.flux, seen.mask), Novelty.fit(mocks, shapes, run.seed)
    net = new_network(run)
    net.load_state_dict({k.removeprefix("best.net."): v for k, v in tensors.items() if k.startswith("best.net.")})
    table = load_ssp(run.store("ssp"))
    far = max(min(FAR, filters.reach(survey.bands, table.edges)), run.model.redshift[1])
    ssp = table.cut(*filters.rest_range(survey.bands, far, table.edges))
    spec = FlowSpec(
        bands=survey.bands, labels=survey.labels, amplitude=amplitude, transforms=transforms, hidden=hidden,
        redshift=run.model.redshift, birth_cloud_age=run.model.birth_cloud_age, selection_band=noise.selection_band,
        selection=noise.selection, prior=run.model.make_prior().to_dict(), ssp=ssp.provenance,
        training={**run.training.model_dump(mode="json"), "n_simulations": run.simulation.n_galaxies, "key": key,
                  "best": state["best"], "step": state["step"], "history": state["history"]},
    )  # fmt: skip
    return Flow(spec, net.eval(), make_features(run, mocks, shapes), noise, limits, novelty, ssp)


# -- inside Ray Train -----------------------------------------------------------------------------------------------------


def _fit(run: RunFile, key: str, checkpoints: Location) -> None:
    """Run the training loop to its end, or go on where it stopped; the last checkpoint then holds the result."""
    import ray.train
    import ray.train.torch

    filesystem, path = _filesystem(checkpoints)
    counter = ray_engine.counter()
    trainer = ray.train.torch.TorchTrainer(
        _loop,
        train_loop_config={"run": run.model_dump(mode="json"), "counter": counter},
        torch_config=None if run.training.workers > 1 else _alone(),
        scaling_config=_scaling(run),
        run_config=ray.train.RunConfig(
            name=key, storage_path=path, storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=3),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )  # fmt: skip
    with bar("train", run.training.steps, "steps") as progress, ray_engine.watch(counter, progress.update):
        trainer.fit()


def _alone() -> Any:
    """What a single worker needs of PyTorch's set-up: no process group, whose store listens on all interfaces."""
    import ray.train.torch
    from ray.train.backend import Backend

    class Alone(ray.train.torch.TorchConfig):
        backend_cls = Backend

    return Alone()


def _loop(config: dict[str, Any]) -> None:
    """The training loop of one worker."""
    import ray.train
    import ray.train.torch

    run = RunFile.model_validate(config["run"])
    settings = run.training
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(settings.threads)
    shapes, held_out = load_shapes(run)
    mocks = mock_survey(run, fit_noise(run))
    features = make_features(run, mocks, shapes)
    amplitude, _, _ = run.flow.resolved()
    prior = run.model.make_prior()
    device = ray.train.torch.get_device() if run.engines.ray.gpus_per_worker else torch.device("cpu")
    estimator = Estimator(new_network(run)).to(device)
    optimizer = training.optimizer(estimator)
    progress = Progress()
    best = {name: value.clone() for name, value in estimator.state_dict().items()}
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            tensors = load_file(Path(folder) / _TENSORS)
            progress = Progress(**json.loads((Path(folder) / _STATE).read_text()))
        estimator.load_state_dict(_strip(tensors, "current."))
        best = _strip(tensors, "best.")
        training.restore_optimizer(estimator, optimizer, tensors)
    parallel = ray.train.torch.prepare_model(estimator) if world > 1 else estimator

    def observe(source: Shapes, n: int, *names: object) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(keyed_random.torch_seed(run.seed, *names))
        seen = mocks.observe(source, n, generator)
        x = features(seen.flux, seen.sigma, seen.mask, seen.redshift)
        return training.target(seen, amplitude, prior).to(device), x.to(device)

    validation = observe(held_out, settings.validation_galaxies, "validation")
    train_sum, train_count = 0.0, 0
    bfloat16 = training.use_bfloat16(settings.precision)
    if rank == 0:
        config["counter"].add.remote(progress.step)
    while progress.step < settings.steps and progress.stale < settings.patience:
        phi, x = observe(shapes, max(settings.batch // world, 1), "train", progress.step, rank)
        rate = training.learning_rate(progress.step, settings.steps, run.learning_rate, settings.warm_up)
        train_sum += training.step(parallel, optimizer, phi, x, rate, bfloat16)
        train_count += 1
        progress.step += 1
        if rank == 0 and progress.step % _TICK == 0:
            config["counter"].add.remote(_TICK)
        if progress.step % settings.validate_every == 0 or progress.step == settings.steps:
            with torch.no_grad():
                score = estimator(*validation).mean().item()
            if progress.record(score, train_sum / train_count):
                best = {name: value.clone() for name, value in estimator.state_dict().items()}
            train_sum, train_count = 0.0, 0
            _report(progress, estimator, optimizer, best, rank)


def _report(
    progress: Progress, estimator: Estimator, optimizer: torch.optim.Adam, best: dict[str, Any], rank: int
) -> None:
    """Report a validation; the first worker writes the checkpoint."""
    import ray.train

    metrics = {"step": progress.step, "best": progress.best, **(progress.history or [{}])[-1]}
    if rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        tensors = {f"current.{name}": value.contiguous() for name, value in estimator.state_dict().items()}
        tensors |= {f"best.{name}": value.contiguous() for name, value in best.items()}
        tensors |= training.optimizer_tensors(estimator, optimizer)
        save_file({name: value.cpu() for name, value in tensors.items()}, Path(folder) / _TENSORS)
        (Path(folder) / _STATE).write_text(json.dumps(vars(progress)))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _latest(location: Location) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the last checkpoint of a finished training; a worker killed as it wrote one may have left parts of it beside."""
    states: dict[str, dict[str, Any]] = {}
    for name in location.list():
        if name.endswith(_STATE):
            with suppress(ValueError):
                states[name] = json.loads(location.get(name))
    last = max((state["step"] for state in states.values()), default=0)
    for name, state in states.items():
        if state["step"] == last:
            with suppress(FileNotFoundError, SafetensorError):
                return load(location.get(name.removesuffix(_STATE) + _TENSORS)), state
    raise RuntimeError(f"training ended without a whole checkpoint in {location}")


def _filesystem(location: Location) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return where Ray Train keeps checkpoints, as pyarrow sees it."""
    if location.is_local:
        Path(location.url).mkdir(parents=True, exist_ok=True)
        return pyarrow.fs.LocalFileSystem(), location.url
    options: dict[str, Any] = {"region": location.region}
    if location.endpoint:
        scheme, _, host = location.endpoint.partition("://")
        location.refuse_redirects()
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme}
    return pyarrow.fs.S3FileSystem(**options), location.url.removeprefix("s3://")


def _strip(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _scaling(run: RunFile) -> Any:
    """Return what workers reserve: their threads, or as many cores as the largest node has, and their part of a GPU."""
    import ray
    import ray.train

    cores = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    gpus = run.engines.ray.gpus_per_worker
    reserved = {"CPU": min(run.training.threads, max(int(cores), 1)), **({"GPU": gpus} if gpus else {})}
    return ray.train.ScalingConfig(num_workers=run.training.workers, use_gpu=gpus > 0, resources_per_worker=reserved)
