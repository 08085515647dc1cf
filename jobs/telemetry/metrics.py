"""Counters of this process for Prometheus, fed by the records that tasks return. Nothing is served unless it is asked for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server
from prometheus_client.core import HistogramMetricFamily

REGISTRY = CollectorRegistry()

WORK = Counter("sedflow_work", "Rows, galaxies or steps done", ["stage", "unit"], registry=REGISTRY)
CHUNKS = Counter("sedflow_chunks", "Chunks and shards written", ["stage"], registry=REGISTRY)
BYTES = Counter("sedflow_bytes", "Bytes of the arrays of chunks, before compression", ["stage"], registry=REGISTRY)
RETRIES = Counter("sedflow_retries", "Tasks and calls begun again after a fault", ["stage"], registry=REGISTRY)
GALAXIES = Counter(
    "sedflow_galaxies", "Galaxies of finished shards by the method that answered", ["method"], registry=REGISTRY
)
FLAGS = Counter("sedflow_flags", "Galaxies of finished shards by flag", ["flag"], registry=REGISTRY)
SECONDS = Histogram(
    "sedflow_chunk_seconds", "Time that a worker took for a chunk", ["stage"], registry=REGISTRY,
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)  # fmt: skip
RUNNING = Gauge("sedflow_job_running", "1 while a job works, then 0", ["stage"], registry=REGISTRY)
DONE = Gauge("sedflow_job_done", "What is done of a job, in its own unit", ["stage"], registry=REGISTRY)
TOTAL = Gauge("sedflow_job_total", "What there is to do in a job, in its own unit", ["stage"], registry=REGISTRY)
ADVANCED = Gauge("sedflow_job_advanced_timestamp_seconds", "When a job last advanced", ["stage"], registry=REGISTRY)
Info("sedflow", "This software", registry=REGISTRY).info({"version": importlib.metadata.version("sedflow-dist")})

#: Upper bounds of the histogram of effective fractions; a last bucket takes what is above.
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Fractions:
    """Effective fractions of many galaxies: how many lie in each bucket of `BOUNDS` and above, and their sum."""

    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, values: np.ndarray) -> Fractions:
        """Count values (galaxy,); those that are not finite, of galaxies without weights, do not count."""
        finite = values[np.isfinite(values)].astype(float)
        counts = np.bincount(np.searchsorted(BOUNDS, finite), minlength=len(BOUNDS) + 1)
        return cls(tuple(counts.tolist()), float(finite.sum()))


class _EffectiveFraction:
    """The histogram of effective fractions, added up from tasks' own."""

    def __init__(self) -> None:
        self.counts, self.total = np.zeros(len(BOUNDS) + 1, int), 0.0

    def add(self, fractions: Fractions) -> None:
        self.counts += np.array(fractions.counts)
        self.total += fractions.total

    def collect(self) -> Iterator[HistogramMetricFamily]:
        below = zip((*map(str, BOUNDS), "+Inf"), np.cumsum(self.counts).tolist(), strict=True)
        yield HistogramMetricFamily(
            "sedflow_effective_fraction", "Effective fraction of the draws of a galaxy", list(below), self.total
        )


_EFFECTIVE_FRACTION = _EffectiveFraction()
REGISTRY.register(_EFFECTIVE_FRACTION)  # type: ignore[arg-type]  # asks for collect() only


def answered(methods: Mapping[str, int], flags: Mapping[str, int], fractions: Fractions) -> None:
    """Count the galaxies of a shard that `infer` finished."""
    for name, n in methods.items():
        GALAXIES.labels(name).inc(n)
    for name, n in flags.items():
        FLAGS.labels(name).inc(n)
    _EFFECTIVE_FRACTION.add(fractions)


def serve(address: str) -> int:
    """Serve the counters at ``host:port`` for as long as this process lives; return the port (0 asks for a free one).

    Raises:
        ValueError: the address is none
        OSError: nothing can listen there
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f"cannot serve metrics at {address!r}; it takes host:port, for example 127.0.0.1:9464")
    server, _ = start_http_server(int(port), host, REGISTRY)
    return int(server.server_port)
