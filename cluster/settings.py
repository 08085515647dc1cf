"""Where the engines are and what they may use; part of every run file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RaySettings(BaseModel):
    """Ray: actors for simulations, workers for training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(None, description="address of a running cluster; none: one is started on this machine")
    actors: int = Field(2, ge=1, description="actors, one core each")
    tries: int = Field(3, ge=1, description="deaths of FSPS on one item before it is given up on")
    object_store_memory: int = Field(200_000_000, ge=80_000_000, description="bytes, for a cluster started here")


class DaskSettings(BaseModel):
    """Dask: workers for inference, one thread each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str | None = Field(
        None, description="address of a running scheduler; none: one is started on this machine"
    )
    workers: int = Field(2, ge=1, description="worker processes, for a cluster started here")
    memory_limit: str = Field("3 GiB", description="per worker, for a cluster started here")


class Engines(BaseModel):
    """Both engines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ray: RaySettings = RaySettings()
    dask: DaskSettings = DaskSettings()
