"""train: a training set and a survey's noise in, a model out. Ray Train runs the optimisation, data-parallel.

Every validation writes a checkpoint (safetensors and JSON, never a pickle) to the run's storage; a run that was killed goes
on from there, bit by bit as if it had not been.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.fs
import torch
from torch import Tensor

from cluster import ray_engine
from jobs import redshift_head
from jobs.checkpoint import Checkpoint, latest
from jobs.config import shipped
from jobs.config.run_file import RunFile, fingerprint
from jobs.config.sections import Section
from jobs.observed import observed
from jobs.simulate.ssp import load as load_ssp
from jobs.telemetry import events
from jobs.telemetry.progress import Clock, bar, say
from sedflow_dist import keyed_random
from sedflow_dist.flow import support, training
from sedflow_dist.flow.conditional_flow import ConditionalFlow
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.model_spec import ModelSpec, dimensions
from sedflow_dist.flow.support import Novelty
from sedflow_dist.flow.trained_model import TrainedModel, reach
from sedflow_dist.flow.training import Progress
from sedflow_dist.photometry.calibrate import relative_errors
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.noise import Depth, NoiseModel
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.sps import chosen_columns
from storage_schemas import model as model_store
from storage_schemas import photometry, training_set
from storage_schemas.backend.location import Location

#: Steps of which a GPU draws the examples at once: 0.3 ms a step of 16,384 galaxies, 10 ms one by one (an H200).
_AT_ONCE = 32
_TICK = 20  # steps between movements of the progress bar
_NOISE_ROWS = 1_000_000  # to which the noise is fitted
_UNRELIABLE = int(Flag.BAD_REDSHIFT | Flag.TOO_FEW_BANDS | Flag.ABSURD_COLOUR)


@events.job("train")
def train(run: RunFile) -> Location:
    """Train the run's flow if its model is missing; return the model's location."""
    out = run.store("model")
    start = starting_model(run)
    key = training_key(run, start)
    if model_store.is_finished(out):
        found = json.loads(model_store.read_spec(out))["training"].get("key")
        if found != key:
            raise ValueError(f"{out} was trained with other settings; choose another storage root or remove it")
        say("train", f"the model is there already: {out}")
        return out
    with model_store.writing(out) as lease:
        if run.training.steps:
            model = _trained(run, start, key)
        else:
            assert start is not None
            model = start.noting(start=start.id, key=key)
        if run.photo_z:
            model = redshift_head.add(model, run.photo_z, run.seed, run.training.threads)
        lease.check()
        model_store.write(out, *model.to_bytes())
    say("train", f"model {model.id}: {out}")
    return out


def _trained(run: RunFile, start: TrainedModel | None, key: str) -> TrainedModel:
    """Train the run's flow, or go on where it stopped."""
    clock, noise = Clock(), fit_noise(run)
    features = start.features if start else make_features(run, mock_survey(run, noise), load_shapes(run)[0])
    checkpoints = run.store("checkpoints")
    with ray_engine.session(run.engines.ray):
        _fit(run, noise, features, start, key, checkpoints)
    checkpoint = latest(checkpoints / key)
    progress = checkpoint.progress
    rate = progress.step * run.training.batch / clock.seconds
    say("train", f"validation log-probability {progress.best:.3f} after {progress.step:,} steps, {clock.seconds:.0f} s "
        f"({rate:,.0f} mock galaxies/s)")  # fmt: skip
    return assemble(run, checkpoint, key, start)


def starting_model(run: RunFile) -> TrainedModel | None:
    """Return the model whose weights the training starts from, if there is one.

    Raises:
        ValueError: its weights mean something else; names what.
    """
    if run.training.start is None:
        return None
    model = TrainedModel.from_bytes(*model_store.read(shipped.model(run.training.start)))
    spec = model.spec
    for name, its, wanted in (
        ("flow", spec.flow, run.flow.spec()),
        ("features", spec.features, run.flow.encoders),
        ("amplitude", spec.amplitude, run.flow.amplitude),
        ("bands", spec.bands, run.survey_definition.bands),
        ("components", spec.components, run.model.components),
        ("prior", model.space.to_dict(), run.model.space.to_dict()),
    ):
        if its != wanted:
            raise ValueError(f"training.start: the model {run.training.start} has {name} {its}, this run {wanted}")
    return model


def training_key(run: RunFile, start: TrainedModel | None) -> str:
    """Hash of everything that the trained model depends on."""
    settings = training_set.open(run.store("training")).group.attrs["settings"]
    told = run.training.selection is not None
    noise = [] if told else [photometry.open(run.store("photometry")).group.attrs["settings"]]
    return fingerprint(
        settings,
        *noise,
        _used(run.flow, "features", "embedding"),
        _training(run, start),
        run.simulation,
        run.seed,
        *([run.photo_z] if run.photo_z else []),
    )


def _training(run: RunFile, start: TrainedModel | None) -> dict[str, Any]:
    """Settings of the training that are in use; a model that it starts from, wherever that lies, by its id."""
    return _used(run.training, "depth", "selection", "shallower", "instruments", "start") | (
        {"start": start.id} if start else {}
    )


def _used(section: Section, *later: str) -> dict[str, Any]:
    """A section without the keys that came ``later`` and that it leaves empty: what was trained before is still the run's."""
    return section.model_dump(mode="json", exclude={name for name in later if not getattr(section, name)})


def fit_noise(run: RunFile) -> NoiseModel:
    """Return the noise of the survey: told, or fitted to the run's own photometry, a part of it where it is large."""
    survey, settings = run.survey_definition, run.training
    told = {survey.labels.index(label): magnitude for label, magnitude in settings.depth.items()}
    depths = {band: Depth(magnitude, relative_errors(survey)[band]) for band, magnitude in sorted(told.items())}
    selection_band = survey.labels.index(survey.selection_band)
    if settings.selection:
        return NoiseModel.told(list(depths.values()), selection_band, settings.selection, settings.shallower)
    rows = photometry.sample(photometry.open(run.store("photometry")), photometry.DATA, _NOISE_ROWS)
    reliable = (rows["flags"] & _UNRELIABLE) == 0
    return NoiseModel.fit(observed(rows)[reliable], selection_band, depths=depths)


def load_shapes(run: RunFile) -> tuple[Shapes, Shapes]:
    """Load the training set without rows that FSPS failed on (NaN); its last rows are held out for validation."""
    store = training_set.open(run.store("training"))
    if missing := store.missing():
        raise ValueError(f"training set {store.location} lacks {len(missing)} of {store.n_chunks} chunks: run simulate")
    found = store.read_rows(slice(0, store.n_rows), training_set.NAMES)
    arrays = [torch.as_tensor(found[name]) for name in training_set.NAMES]
    first_held_out = int(store.n_rows * (1 - run.training.held_out))
    good = torch.stack([torch.isfinite(a).reshape(len(a), -1).all(1) for a in arrays]).all(0)
    if not good.all():
        first_held_out, arrays = int(good[:first_held_out].sum()), [a[good] for a in arrays]
    return Shapes(*(a[:first_held_out] for a in arrays)), Shapes(*(a[first_held_out:] for a in arrays))


def mock_survey(run: RunFile, noise: NoiseModel) -> MockSurvey:
    """The survey as the training sees it."""
    survey, settings = run.survey_definition, run.training
    instruments = tuple(tuple(survey.labels.index(label) for label in one) for one in settings.instruments)
    return MockSurvey(noise, run.model.space.amplitude.prior.range, settings.drop_out, instruments, survey.band_sets)


def make_features(run: RunFile, survey: MockSurvey, shapes: Shapes) -> Features:
    """Standardise features on the training set."""
    return training.fit_features(survey, shapes, run.flow.encoders, run.seed)


def new_flow(run: RunFile, features: Features, weights: dict[str, Tensor] | None = None) -> ConditionalFlow:
    """The run's flow as its training starts: with these weights, or with new ones."""
    flow = run.flow.spec().build(dimensions(run.flow.amplitude, run.model.space), len(features.mean), run.seed)
    if weights:
        flow.load_state_dict(weights)
    return flow


def assemble(run: RunFile, checkpoint: Checkpoint, key: str, start: TrainedModel | None = None) -> TrainedModel:
    """Put the best weights of a checkpoint together with everything the flow needs to be used alone."""
    survey, noise, features = run.survey_definition, checkpoint.noise, checkpoint.features
    shapes, _ = load_shapes(run)
    mocks = mock_survey(run, noise)
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(run.seed, "colours"))
    seen = mocks.observe(shapes, 50_000, generator)
    limits, novelty = support.colour_range(seen.photometry, survey.band_sets), Novelty.fit(mocks, shapes, run.seed)
    flow = new_flow(run, features)
    flow.load_state_dict(checkpoint.best)
    table = run.model.composition().table(load_ssp(run.store("ssp")))
    far = reach(survey.bands, run.model.redshift, table)
    own = chosen_columns.OwnBands(survey.labels, survey.bands)
    ssp = table.cut(*chosen_columns.needed(run.inference, own, far, table.edges))
    progress = checkpoint.progress
    spec = ModelSpec(
        bands=survey.bands, labels=survey.labels, amplitude=run.flow.amplitude, flow=run.flow.spec(),
        features=features.names, redshift=run.model.redshift, birth_cloud_age=run.model.birth_cloud_age,
        selection_band=noise.selection_band, selection=noise.selection, shallower=noise.shallower,
        band_sets=survey.band_sets, prior=run.model.space.to_dict(),
        components=run.model.components,
        ssp=ssp.provenance,
        training={**_training(run, start), "n_simulations": run.simulation.n_galaxies, "key": key,
                  "best": progress.best, "step": progress.step, "history": progress.history},
    )  # fmt: skip
    return TrainedModel(spec, flow, features, noise, limits, novelty, ssp)


# -- inside Ray Train -----------------------------------------------------------------------------------------------------


def _fit(
    run: RunFile, noise: NoiseModel, features: Features, start: TrainedModel | None, key: str, checkpoints: Location
) -> None:
    """Run the training loop to its end, or go on where it stopped; the last checkpoint then holds the result."""
    import ray.train
    import ray.train.torch

    filesystem, path = _filesystem(checkpoints)
    counter = ray_engine.counter()
    trainer = ray.train.torch.TorchTrainer(
        _loop,
        train_loop_config={
            "run": run.model_dump(mode="json"), "noise": noise, "features": features, "counter": counter,
            "start": start.network.state_dict() if start else None,
        },
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
    noise, features, progress = config["noise"], config["features"], Progress()
    device = ray.train.torch.get_device() if run.engines.ray.gpus_per_worker else torch.device("cpu")
    flow = new_flow(run, features, config["start"]).to(device)
    optimizer = training.optimizer(flow)
    best = training.copy(flow)
    if last := _last_checkpoint():
        noise, features, progress, best = last.noise, last.features, last.progress, last.best
        flow.load_state_dict(last.current)
        training.restore_optimizer(flow, optimizer, last.optimizer)
    batches = training.Batches(
        mock_survey(run, noise.to(device)), features.to(device), run.flow.amplitude, run.model.space, run.seed
    )
    schedule = training.Schedule(
        settings.steps, max(settings.batch // world, 1), run.learning_rate, settings.warm_up, settings.validate_every,
        settings.validation_galaxies, settings.patience, training.use_bfloat16(settings.precision, device.type),
        at_once=_AT_ONCE if device.type == "cuda" else 1,
    )  # fmt: skip
    parallel = ray.train.torch.prepare_model(flow) if world > 1 else flow
    trainer = training.Trainer(flow, optimizer, parallel, batches, schedule, progress, best, rank)

    def stepped() -> None:
        if rank == 0 and progress.step % _TICK == 0:
            config["counter"].add.remote(_TICK)

    def validated() -> None:
        moments = training.optimizer_tensors(flow, optimizer)
        _report(Checkpoint(progress, noise, features, flow.state_dict(), trainer.best, moments), rank)

    if rank == 0:
        config["counter"].add.remote(progress.step)
    trainer.run(shapes.to(device), held_out.to(device), stepped, validated)


def _last_checkpoint() -> Checkpoint | None:
    """The checkpoint to go on from, with the noise and the features that its weights were trained with."""
    import ray.train

    if found := ray.train.get_checkpoint():
        with found.as_directory() as folder:
            return Checkpoint.read(Path(folder))
    return None


def _report(checkpoint: Checkpoint, rank: int) -> None:
    """Report a validation; the first worker writes the checkpoint."""
    import ray.train

    progress = checkpoint.progress
    metrics = {"step": progress.step, "best": progress.best, **(progress.history or [{}])[-1]}
    if rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


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


def _scaling(run: RunFile) -> Any:
    """Return what workers reserve: their threads, or as many cores as the largest node has, and their part of a GPU."""
    import ray
    import ray.train

    cores = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    gpus = run.engines.ray.gpus_per_worker
    reserved = {"CPU": min(run.training.threads, max(int(cores), 1)), **({"GPU": gpus} if gpus else {})}
    return ray.train.ScalingConfig(num_workers=run.training.workers, use_gpu=gpus > 0, resources_per_worker=reserved)
