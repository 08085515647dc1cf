"""Where the engines are and what they may use: part of every run file, or a profile of their own, shared by many runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from dask.utils import parse_bytes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PROFILES = Path(__file__).parent / "profiles"
#: Of Dask's workers. One thread each. Dask has glibc give memory back at once, and each large array then costs page faults
#: anew: a quarter of the time of inference. Here what is freed is kept for the next array; the peak is the same.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def replace(self, **changes: Any) -> Self:
        """Return these settings with others in some places; what is None changes nothing.

        Raises:
            ValueError: the result is impossible.
        """
        return self.model_validate({**self.model_dump(), **{k: v for k, v in changes.items() if v is not None}})


def _size(value: str | None) -> str | None:
    if value is not None and parse_bytes(value) <= 0:
        raise ValueError(f"{value!r} is no amount of memory; for example 2 GiB")
    return value


class RaySettings(_Section):
    """Ray: actors for simulations, workers for training."""

    address: str | None = Field(
        None, description="of a running cluster: host:port, or auto on one of its nodes; none: one is started here"
    )
    actors: int = Field(2, ge=1, description="actors")
    cores_per_actor: float = Field(1.0, gt=0, description="cores that an actor reserves")
    memory_per_actor: str | None = Field(
        None, description='memory that an actor reserves, for example "2 GiB"; none: it reserves none'
    )
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs, or a part of one, of a worker of the training")
    tries: int = Field(3, ge=1, description="deaths on one galaxy before it is given up on (FSPS, MCMC)")
    object_store_memory: int = Field(200_000_000, ge=80_000_000, description="bytes, for a cluster started here")
    spill_directory: str | None = Field(
        None, description="where objects go that find no room in memory, for a cluster started here; none: Ray's own"
    )

    _sized = field_validator("memory_per_actor")(_size)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.address and self.spill_directory:
            raise ValueError(
                f"spill_directory: {self.spill_directory} is for a cluster started here, and address says {self.address}; "
                "there `ray start --object-spilling-directory` chooses it"
            )
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(f"gpus_per_worker: {self.gpus_per_worker:g} is neither a part of a GPU nor whole ones")
        return self

    @property
    def per_actor(self) -> dict[str, Any]:
        """What an actor reserves, as Ray's options."""
        memory = {"memory": parse_bytes(self.memory_per_actor)} if self.memory_per_actor else {}
        return {"num_cpus": self.cores_per_actor, **memory}


class SlurmSettings(_Section):
    """Dask workers as Slurm jobs (dask-jobqueue)."""

    queue: str | None = Field(None, description="partition; none: the site's default")
    account: str | None = None
    cores: int = Field(1, ge=1, description="cores of a job: one worker each, with engines.dask.memory_limit")
    walltime: str = Field("04:00:00", description="of a job; workers end by themselves five minutes before")
    interface: str | None = Field(None, description="network interface that the nodes share, for example ib0")
    extra: tuple[str, ...] = Field((), description='more directives, for example "--constraint=cpu"')


class KubernetesSettings(_Section):
    """Dask workers as pods of a DaskCluster, made by the Dask operator (dask-kubernetes)."""

    namespace: str | None = Field(None, description="none: that of the pod or of the kubeconfig")
    image: str = Field("sedflow-dist:0.1.0", description="image of scheduler and workers: the one this runs in")
    service_account: str = Field("default", description="of scheduler and workers, for their access to storage")
    cpu: str = Field("1", description="cores of a worker; its memory is engines.dask.memory_limit")
    secret: str | None = Field(
        None, description="Secret whose keys are environment variables, for storage's credentials"
    )
    tls_secret: str | None = Field(
        None,
        description="Secret with ca.crt, tls.crt and tls.key, mounted at /etc/dask-tls: Dask's traffic is encrypted",
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes of workers")


class DaskSettings(_Section):
    """Dask: workers for ingest, validation and inference, one thread each."""

    address: str | None = Field(
        None, description="address of a running scheduler; none: workers are started for the time of a job"
    )
    start: Literal["local", "slurm", "kubernetes"] = Field("local", description="where workers are started")
    workers: int = Field(2, ge=1, description="worker processes that are started")
    maximum_workers: int | None = Field(
        None, description="as many at most while there is work for them, and `workers` at least; none: always `workers`"
    )
    memory_limit: str = Field("3 GiB", description="per worker that is started")
    retries: int = Field(3, ge=0, description="of a task that ends in an error")
    slurm: SlurmSettings = SlurmSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()

    _sized = field_validator("memory_limit")(_size)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.address and self.start != "local":
            raise ValueError(f"start: {self.start} starts workers, and address says that they are at {self.address}")
        if self.address and self.maximum_workers:
            raise ValueError(f"maximum_workers: the workers at {self.address} are not started here")
        if self.maximum_workers is not None and self.maximum_workers < self.workers:
            raise ValueError(f"maximum_workers: {self.maximum_workers} is fewer than workers = {self.workers}")
        for name, section in (("slurm", self.slurm), ("kubernetes", self.kubernetes)):
            if self.start != name and section != type(section)():
                raise ValueError(f"{name}: has settings, but start says {self.start}")
        return self


class Engines(_Section):
    """Both engines."""

    ray: RaySettings = RaySettings()
    dask: DaskSettings = DaskSettings()

    @classmethod
    def load(cls, profile: str | Path) -> Engines:
        """Read a profile: its name, or a YAML file with the keys of the run file's section ``engines``.

        Raises:
            ValueError: there is none, or it is not valid; says which key is wrong and what is allowed.
        """
        file = Path(profile)
        if file.suffix not in (".yaml", ".yml"):
            file = PROFILES / f"{profile}.yaml"
        if not file.is_file():
            names = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
            raise ValueError(f"no profile {profile}: it is a file *.yaml, or one that comes along: {names}")
        try:
            return cls.model_validate(read_yaml(file) or {})
        except ValidationError as error:
            raise ValueError(f"{file} is not a valid profile:\n{problems(error)}") from None


def read_yaml(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        ValueError: it is none, or a key stands twice in one section.
    """
    try:
        loader = yaml.SafeLoader(file.read_text())
        try:
            node = loader.get_single_node()
            _refuse_twins(loader, node, file)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error


def _refuse_twins(loader: yaml.SafeLoader, document: yaml.Node | None, file: Path) -> None:
    """Raise ValueError where a key stands twice in a mapping: YAML forbids it, and the loader would take the last."""
    todo, seen = [document], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # an anchored node is looked at once
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        lines: dict[Any, int] = {}
        for key, value in node.value:
            todo += (key, value)
            if isinstance(key, yaml.ScalarNode):
                merge = key.tag == "tag:yaml.org,2002:merge"
                name, line = key.value if merge else loader.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise ValueError(
                        f"{file} has the key {key.value!r:.100} twice in one section, in lines {lines[name]} and {line}: "
                        "remove one of them"
                    )
                lines[name] = line


def problems(error: ValidationError) -> str:
    """Say in a line a key which keys are wrong, what is allowed and what was found."""
    return "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}{_found(e)}" for e in error.errors())


def _found(error: Mapping[str, Any]) -> str:
    """What an invalid key holds; an unknown key's value, or a whole section, is not repeated: a secret may stand in it."""
    value = error["input"]
    known = error["type"] != "extra_forbidden" and isinstance(value, str | int | float | None)
    return f" (found {value!r:.100})" if known else ""
