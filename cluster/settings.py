"""Where the engines are and what they may use. A run file says sizes only; a profile, named by who runs, says the rest.

Who writes a run file must not decide what is connected to, submitted or started: all that reaches a job script, a pod or a
connection comes from a profile, and is checked there for its form.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cluster import yaml_files
from cluster.messages import problems

PROFILES = Path(__file__).parent / "profiles"
#: Letters of the longest name of a socket.
LONGEST_SOCKET = 107
#: Of Dask's workers. No modules from the folder that they start in: a file there may have a name of ours. One thread each.
#: Dask has glibc give memory back at once, and each large array then costs page faults anew: a quarter of the time of
#: inference. Here what is freed is kept for the next array; the peak is the same.
WORKER_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}  # fmt: skip


#: What reaches job scripts, pods and connections. A pattern ends where the text ends: a newline fits none.
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}"
RayAddress = Annotated[str, Field(pattern=rf"^(?:auto|{_HOST})$")]
DaskAddress = Annotated[str, Field(pattern=rf"^(?:(?:tcp|tls)://)?{_HOST}$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(?:\.[0-9]+)? ?(?:[kKMGTP]i?)?B?$")]
SlurmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,:@+-]{0,255}$")]
Walltime = Annotated[str, Field(pattern=r"^(?:[0-9]{1,4}-)?[0-9]{1,6}(?::[0-9]{1,2}){0,2}$")]
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,31}$")]
#: An option of sbatch on a line of its own; printable ASCII ends no line.
Directive = Annotated[str, Field(pattern=r"^-{1,2}[A-Za-z][ -~]{0,255}$")]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")]
Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$")]
Cores = Annotated[str, Field(pattern=r"^[0-9]{1,6}(?:\.[0-9]{1,3}|m)?$")]
LabelKey = Annotated[
    str, Field(pattern=r"^(?:[a-z0-9][a-z0-9.-]{0,252}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
FolderPath = Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]{0,1023}$")]


#: Unicode's categories of control, format (which turns text around), and line and paragraph separators.
_CONTROL = {"Cc", "Cf", "Zl", "Zp"}
_SIZES_ONLY = (
    "a run file says how much of the engines it takes, not where they are; that is for who runs: --profile NAME or FILE.yaml "
    "(docs/engines.md)"
)


def refuse_control_characters(content: Any, where: str = "") -> None:
    """Look through nested dictionaries and lists for text that could end a line, or act on a terminal.

    Raises:
        ValueError: there is such text; says where.
    """
    todo, seen = [(where, content)], set[int]()
    while todo:
        at, value = todo.pop()
        if isinstance(value, str):
            if found := next((c for c in value if unicodedata.category(c) in _CONTROL), None):
                raise ValueError(
                    f"{at or 'text'}: holds the control character U+{ord(found):04X}; allowed is plain text"
                )
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # YAML's aliases make trees of one thing many times over
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, inner in pairs:
                refuse_control_characters(key if isinstance(key, str) else "", f"a key of {at or 'the file'}")
                todo.append((f"{at}.{key}".lstrip("."), inner))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, content: Any) -> Any:
        refuse_control_characters(content)
        return content

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


class RaySizes(_Section):
    """How much of Ray a run takes."""

    actors: int = Field(2, ge=1, description="actors")
    cores_per_actor: float = Field(1.0, gt=0, description="cores that an actor reserves")
    memory_per_actor: Memory | None = Field(
        None, description='memory that an actor reserves, for example "2 GiB"; none: it reserves none'
    )
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs, or a part of one, of a worker of the training")
    tries: int = Field(3, ge=1, description="deaths on one galaxy before it is given up on (FSPS, MCMC)")
    object_store_memory: int = Field(200_000_000, ge=80_000_000, description="bytes, for a cluster started here")

    _sized = field_validator("memory_per_actor")(_size)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(f"gpus_per_worker: {self.gpus_per_worker:g} is neither a part of a GPU nor whole ones")
        return self


class RaySettings(RaySizes):
    """Ray: actors for simulations, workers for training."""

    address: RayAddress | None = Field(
        None, description="of a running cluster: host:port, or auto on one of its nodes; none: one is started here"
    )
    spill_directory: FolderPath | None = Field(
        None, description="where objects go that find no room in memory, for a cluster started here; none: Ray's own"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.address and self.spill_directory:
            raise ValueError(
                f"spill_directory: {self.spill_directory} is for a cluster started here, and address says {self.address}; "
                "there `ray start --object-spilling-directory` chooses it"
            )
        return self

    @property
    def per_actor(self) -> dict[str, Any]:
        """What an actor reserves, as Ray's options."""
        memory = {"memory": parse_bytes(self.memory_per_actor)} if self.memory_per_actor else {}
        return {"num_cpus": self.cores_per_actor, **memory}


class SlurmSettings(_Section):
    """Dask workers as Slurm jobs (dask-jobqueue)."""

    queue: SlurmName | None = Field(None, description="partition; none: the site's default")
    account: SlurmName | None = Field(None, description="who is billed; none: the user's default")
    cores: int = Field(1, ge=1, description="cores of a job: one worker each, with engines.dask.memory_limit")
    walltime: Walltime = Field("04:00:00", description="of a job; workers end by themselves five minutes before")
    interface: Interface | None = Field(None, description="network interface that the nodes share, for example ib0")
    extra: tuple[Directive, ...] = Field((), description='more directives, for example "--constraint=cpu"')


class KubernetesSettings(_Section):
    """Dask workers as pods of a DaskCluster, made by the Dask operator (dask-kubernetes)."""

    namespace: KubernetesName | None = Field(None, description="none: that of the pod or of the kubeconfig")
    image: Image = Field("sedflow-dist:0.1.0", description="image of scheduler and workers: the one this runs in")
    service_account: KubernetesName = Field(
        "default", description="of scheduler and workers, for their access to storage"
    )
    cpu: Cores = Field("1", description="cores of a worker; its memory is engines.dask.memory_limit")
    secret: KubernetesName | None = Field(
        None, description="Secret whose keys are environment variables, for storage's credentials"
    )
    tls_secret: KubernetesName | None = Field(
        None,
        description="Secret with ca.crt, tls.crt and tls.key, mounted at /etc/dask-tls: Dask's traffic is encrypted",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="labels of the nodes of workers"
    )


class DaskSizes(_Section):
    """How much of Dask a run takes."""

    workers: int = Field(2, ge=1, description="worker processes that are started")
    maximum_workers: int | None = Field(
        None, description="as many at most while there is work for them, and `workers` at least; none: always `workers`"
    )
    memory_limit: Memory = Field("3 GiB", description="per worker that is started")
    retries: int = Field(3, ge=0, description="of a task that ends in an error")

    _sized = field_validator("memory_limit")(_size)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum_workers is not None and self.maximum_workers < self.workers:
            raise ValueError(f"maximum_workers: {self.maximum_workers} is fewer than workers = {self.workers}")
        return self


class DaskSettings(DaskSizes):
    """Dask: workers for ingest, validation and inference, one thread each."""

    address: DaskAddress | None = Field(
        None, description="address of a running scheduler; none: workers are started for the time of a job"
    )
    start: Literal["local", "slurm", "kubernetes"] = Field("local", description="where workers are started")
    slurm: SlurmSettings = SlurmSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.address and self.start != "local":
            raise ValueError(f"start: {self.start} starts workers, and address says that they are at {self.address}")
        if self.address and self.maximum_workers:
            raise ValueError(f"maximum_workers: the workers at {self.address} are not started here")
        for name, section in (("slurm", self.slurm), ("kubernetes", self.kubernetes)):
            if self.start != name and section != type(section)():
                raise ValueError(f"{name}: has settings, but start says {self.start}")
        return self


class Sizes(_Section):
    """How much of both engines a run takes: the section ``engines`` of a run file."""

    ray: RaySizes = RaySizes()
    dask: DaskSizes = DaskSizes()


class Engines(_Section):
    """Both engines."""

    ray: RaySettings = RaySettings()
    dask: DaskSettings = DaskSettings()

    @classmethod
    def of_run(cls, sizes: Any) -> Engines:
        """Return the engines of a run file, on this machine: its section ``engines``, which may hold sizes only.

        A key that says where they are may stand there with its default, which is nowhere: what a run's settings are written
        as can be read again.

        Raises:
            ValueError: the section says where engines are, or is not valid.
        """
        if isinstance(sizes, str):
            raise ValueError(f"  engines: {_SIZES_ONLY}")
        try:
            given = cls.model_validate(sizes or {})
        except ValidationError as error:
            raise ValueError(problems(error, "engines.", cls)) from None
        for name, known in (("ray", RaySizes), ("dask", DaskSizes)):
            section = getattr(given, name)
            for key, field in type(section).model_fields.items():
                if key not in known.model_fields and getattr(section, key) != field.default:
                    raise ValueError(f"  engines.{name}.{key}: {_SIZES_ONLY}")
        return given

    def replaced(self, profile: Engines | None) -> Engines:
        """Return these engines with what a profile has instead: all of Ray, all of Dask, or both."""
        there = {name: getattr(profile, name) for name in profile.model_fields_set} if profile else {}
        return self.model_copy(update=there)

    @classmethod
    def load(cls, profile: str | Path) -> Engines:
        """Read a profile: its name, or a YAML file with the sections ``ray`` and ``dask``.

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
            return cls.model_validate(yaml_files.read(file) or {})
        except ValidationError as error:
            raise ValueError(f"{file} is not a valid profile:\n{problems(error, model=cls)}") from None
