"""Dask workers as pods: settings in, the address of a scheduler out, whose cluster lives as long as the block.

The Dask operator makes the pods of a ``DaskCluster``. `dask_kubernetes.KubeCluster` would make one too, but knows no TLS.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask

from cluster.settings import WORKER_ENVIRONMENT, DaskSettings

TLS_DIRECTORY = "/etc/dask-tls"
_GROUP, _VERSION = "kubernetes.dask.org", "v1"
_USER = 1000  # of the image
_IDLE = 3600  # s without a task: the driver was killed before it could delete its cluster, so the operator does


@contextmanager
def cluster(settings: DaskSettings) -> Iterator[str]:
    """Make a DaskCluster, with a DaskAutoscaler where the number of workers may vary, and delete both afterwards.

    Raises:
        ModuleNotFoundError: dask-kubernetes is not installed.
        RuntimeError: the API server refuses; says why.
    """
    try:
        import kr8s
        from kr8s.objects import new_class
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Kubernetes needs dask-kubernetes: pip install 'sedflow-dist[kubernetes]'") from error
    name = f"sedflow-{uuid.uuid4().hex[:8]}"
    try:
        namespace = settings.kubernetes.namespace or kr8s.api().namespace
        made = []
        for resource in resources(settings, name, namespace):
            kind: Any = new_class(resource["kind"], f"{_GROUP}/{_VERSION}", namespaced=True, asyncio=False)
            made.append(kind(resource, namespace=namespace))
        for one in made:
            one.create()
    except (kr8s.ServerError, kr8s.APITimeoutError, kr8s.ConnectionClosedError, ConnectionError) as error:
        raise RuntimeError(
            f"Kubernetes did not make DaskCluster {name}: {error}. Is the Dask operator installed, and may this service "
            "account create daskclusters and daskautoscalers?"
        ) from error
    try:
        yield f"{_scheme()}://{name}-scheduler.{namespace}.svc:8786"
    finally:
        for one in reversed(made):
            one.delete()


def resources(settings: DaskSettings, name: str, namespace: str) -> list[dict[str, Any]]:
    """Return what is asked of the operator, as Kubernetes has it: a DaskCluster, and a DaskAutoscaler if one is needed."""
    from dask_kubernetes.operator import make_cluster_spec

    kubernetes = settings.kubernetes
    memory = settings.memory_limit.replace(" ", "").removesuffix("B")  # 3 GiB: 3Gi
    address = f"{_scheme()}://{name}-scheduler.{namespace}.svc:8786"
    env = [
        *({"name": name, "value": value} for name, value in WORKER_ENVIRONMENT.items()),
        {"name": "DASK_SCHEDULER_ADDRESS", "value": address},
        # Dask's own configuration, TLS above all, is that of the process which starts the cluster.
        *({"name": n, "value": v} for n, v in sorted(os.environ.items()) if n.startswith("DASK_DISTRIBUTED__")),
    ]
    command = ["dask", "worker", "--nworkers", "1", "--nthreads", "1", "--memory-limit", settings.memory_limit]
    limits = {"cpu": kubernetes.cpu, "memory": memory}
    spec: dict[str, Any] = make_cluster_spec(
        name,
        kubernetes.image,
        settings.workers,
        {"requests": limits, "limits": limits},
        env,
        command,
        idle_timeout=_IDLE,
    )
    spec["metadata"]["labels"] = {"app.kubernetes.io/part-of": "sedflow-dist"}
    scheduler, worker = spec["spec"]["scheduler"]["spec"], spec["spec"]["worker"]["spec"]
    scheduler["containers"][0]["args"] += ["--protocol", _scheme()]
    for pod in (scheduler, worker):
        # Whatever the image's entry point is.
        pod["containers"][0]["command"] = pod["containers"][0].pop("args")
        _secure(pod, settings)
    worker["nodeSelector"] = kubernetes.node_selector
    # The operator asks the scheduler over HTTP how many workers it wants and whether it is idle; Dask does not serve that by
    # default.
    scheduler["containers"][0]["env"] = [*env, {
        "name": "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES",
        "value": "['distributed.http.scheduler.prometheus', 'distributed.http.health', 'distributed.http.scheduler.api']",
    }]  # fmt: skip
    if not settings.maximum_workers:
        return [spec]
    return [spec, {
        "apiVersion": f"{_GROUP}/{_VERSION}", "kind": "DaskAutoscaler", "metadata": {"name": name},
        "spec": {"cluster": name, "minimum": settings.workers, "maximum": settings.maximum_workers},
    }]  # fmt: skip


def _secure(pod: dict[str, Any], settings: DaskSettings) -> None:
    """Let a pod run as the image's user, on a read-only root, without rights; with the Secrets that it needs."""
    kubernetes, container = settings.kubernetes, pod["containers"][0]
    pod |= {
        "serviceAccountName": kubernetes.service_account, "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }  # fmt: skip
    container |= {
        "workingDir": "/tmp", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    if kubernetes.tls_secret:
        pod["volumes"].append({"name": "tls", "secret": {"secretName": kubernetes.tls_secret, "defaultMode": 0o440}})
        container["volumeMounts"].append({"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True})
    if kubernetes.secret:
        container["envFrom"] = [{"secretRef": {"name": kubernetes.secret}}]


def _scheme() -> str:
    return "tls" if dask.config.get("distributed.comm.require-encryption") else "tcp"
