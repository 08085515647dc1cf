"""Kubernetes manifests as tests see them: rendered overlays, strict schemas, and the policy that every object must keep."""

import copy
import gzip
import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml
from dask import config as dask_config
from paths import ROOT

from cluster import kubernetes
from cluster.settings import Engines

DEPLOY = ROOT / "deploy"
OVERLAYS = ("local", "aws")
KUBECTL = shutil.which("kubectl", path=str(Path(sys.executable).parent))


@cache
def _rendered(overlay):
    command = [KUBECTL, "kustomize", str(DEPLOY / "overlays" / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.load_all(text, yaml.CSafeLoader))


def rendered(overlay):
    """The objects of an overlay, as `kubectl kustomize` renders them."""
    return copy.deepcopy(_rendered(overlay))


def one(objects, kind, name):
    """The object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def driver_pod(objects):
    """The pod of the first release."""
    return one(objects, "Job", "sedflow-catalog")["spec"]["template"]["spec"]


def cron(objects):
    """The CronJob."""
    return one(objects, "CronJob", "sedflow-reprocess")["spec"]


def config(objects):
    """The files of the ConfigMap that pods see at /etc/sedflow."""
    return one(objects, "ConfigMap", "sedflow-run")["data"]


# -- schemas ------------------------------------------------------------------------------------------------------------


@cache
def schema(kind):
    """The strict JSON schema of a custom resource."""
    if kind == "RayJob":
        text = gzip.decompress((Path(__file__).parent / "crds" / "ray.io_rayjobs.v1.json.gz").read_bytes())
        found = json.loads(text)
    else:
        folder = importlib.resources.files("dask_kubernetes.operator.deployment.helm")
        file = folder / "dask-kubernetes-operator" / "crds" / f"{kind.lower()}.yaml"
        found = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"const": kind}, "metadata": {"type": "object"}}
    return strict(found)


def strict(node):
    """Kubernetes' structural schema as JSON schema that knows its own fields only."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items() if not key.startswith("x-kubernetes")}
    if node.get("x-kubernetes-int-or-string"):
        made = {"type": ["integer", "string"], **{k: v for k, v in made.items() if k == "pattern"}}
    known = isinstance(node.get("properties"), dict) and "additionalProperties" not in node
    if known and not node.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


# -- Dask, as the driver has it --------------------------------------------------------------------------------------------


def profile(overlay, tmp_path, name="dask.yaml"):
    """Engines of an overlay's profile."""
    (tmp_path / name).write_text(config(rendered(overlay))[name])
    return Engines.load(tmp_path / name)


def dask_environment(container):
    """Those of a container's environment variables that are settings of Dask."""
    return {entry["name"]: entry["value"] for entry in container["env"] if entry["name"].startswith("DASK_")}


def settings_of(env):
    """Dask's settings as its environment variables say."""
    names = {name: name.removeprefix("DASK_").replace("__", ".").lower() for name in env}
    return {names[name]: dask_config.interpret_value(value) for name, value in env.items()}


@contextmanager
def as_driver(monkeypatch):
    """The driver's container, with its settings of Dask in force."""
    job = one(rendered("local"), "Job", "sedflow-catalog")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = dask_environment(container)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with dask_config.set(settings_of(env)):
        yield container


def dask_objects(overlay, tmp_path):
    """What the driver asks of the Dask operator."""
    return kubernetes.resources(profile(overlay, tmp_path).dask, "sedflow-1", "sedflow")


# -- policy -------------------------------------------------------------------------------------------------------------


def pods(value, where=""):
    """(where, labels, spec) of every pod template in an object, however deep."""
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            yield where, value.get("metadata", {}).get("labels", {}), spec
        else:
            for key, inner in value.items():
                yield from pods(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from pods(inner, f"{where}[{i}]")


def added_labels(where):
    """What the operators put on the pods that they make."""
    if "headGroupSpec" in where:
        return {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
    if "workerGroupSpecs" in where:
        return {"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"}
    for component in ("scheduler", "worker"):
        if where.startswith("DaskCluster") and where.endswith(f".{component}"):
            return {"dask.org/component": component}
    return {}


def violations(objects):
    """All that an overlay's objects do against the policy, one line each."""
    found = []
    policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in policies:
        found.append("no NetworkPolicy denies by default")
    for thing in objects:
        name = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] in ("Secret", "ClusterRole", "ClusterRoleBinding"):
            found.append(f"{name}: is a {thing['kind']}")
        if thing["kind"] == "Role":
            found += [f"{name}: {rule}" for rule in thing["rules"] if _too_much(rule)]
        if thing["kind"] == "ServiceAccount" and thing.get("automountServiceAccountToken") is not False:
            found.append(f"{name}: every pod would get its token")
        if thing["kind"] == "CronJob":
            found += [f"{name}: {line}" for line in _cron(thing["spec"])]
        if thing["kind"] in ("Job", "RayJob") and not thing["spec"].get("activeDeadlineSeconds"):
            found.append(f"{name}: may run for ever")
        if thing["kind"] == "RayJob" and thing["spec"]["rayClusterSpec"].get("authOptions", {}).get("mode") != "token":
            found.append(f"{name}: Ray asks for no token")
        if thing["kind"] == "NetworkPolicy":
            found += [f"{name}: {line}" for line in _open(thing["spec"])]
        for where, labels, spec in pods(thing, name):
            labels = {**labels, **added_labels(where)}
            found += [f"{where}: {line}" for line in (*_pod(spec), *_ports(labels, spec, policies))]
    return found


def _pod(spec):
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if "automountServiceAccountToken" not in spec:
        yield "does not say whether it has a token"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"shares the node's {name}"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"mounts the node's {volume['hostPath']['path']}"
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        for line in _container(container):
            yield f"{container['name']} {line}"


def _container(container):
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "writes to its root"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if context.get("privileged"):
        yield "is privileged"
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= (resources.get(kind) or {}).keys():
            yield f"has no {kind}"
    _, _, tag = container["image"].rpartition("/")[2].partition(":")
    if tag in ("", "latest"):
        yield f"has image {container['image']}"
    served = container["name"].startswith(("ray-head", "ray-worker", "scheduler"))
    if served and not {"livenessProbe", "readinessProbe"} <= container.keys():
        yield "has no probes"
    if container["name"].startswith(("ray-head", "ray-worker")):
        shared = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        if not shared:
            yield "has no memory for Ray's objects"


def _too_much(rule):
    everything = "*" in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
    return everything or "secrets" in rule["resources"] or {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def _cron(spec):
    job = spec["jobTemplate"]["spec"]
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "two at once"
    for name in ("startingDeadlineSeconds", "timeZone"):
        if not spec.get(name):
            yield f"no {name}"
    for name in ("backoffLimit", "activeDeadlineSeconds", "podFailurePolicy"):
        if not job.get(name):
            yield f"no {name}"


def _open(spec):
    for rule in spec.get("ingress", []):
        if not rule.get("from") or not rule.get("ports"):
            yield "lets everybody in, or on every port"
        if any("ipBlock" in peer or peer in ({}, {"namespaceSelector": {}}) for peer in rule.get("from", [])):
            yield "lets others in than pods that it names"
    for rule in spec.get("egress", []):
        if not rule.get("to") or not rule.get("ports"):
            yield "lets out to everybody, or on every port"


def _ports(labels, spec, policies):
    mine = [policy for policy in policies if policy["podSelector"] and _selects(policy["podSelector"], labels)]
    for container in spec["containers"]:
        for port in container.get("ports", []):
            number = port["containerPort"]
            rules = [rule for policy in mine for rule in policy.get("ingress", [])]
            if not any(p["port"] <= number <= p.get("endPort", p["port"]) for rule in rules for p in rule["ports"]):
                yield f"{container['name']} opens port {number}, which no NetworkPolicy is about"


def _selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        (labels.get(e["key"]) in e["values"]) if e["operator"] == "In" else False
        for e in selector.get("matchExpressions", [])
    )


#: What loosens a default of security, in the text of a manifest.
LOOSENED = re.compile(
    r"automountServiceAccountToken: true|0\.0\.0\.0|readOnlyRootFilesystem: false|runAsNonRoot: false|privileged: true|"
    r"allowPrivilegeEscalation: true|\badd: \[|host(Network|PID|IPC): true|hostPath|Unconfined|mode: disabled|LoadBalancer|"
    r"NodePort"
)


def unjustified(text):
    """Lines that loosen a default and say nowhere, on that line or the one above, why."""
    lines = text.splitlines()
    code = [line.partition(" #")[0] if not line.strip().startswith("#") else "" for line in lines]
    return [
        f"line {i + 1}: {line.strip()}"
        for i, line in enumerate(lines)
        if LOOSENED.search(code[i]) and "# justified: " not in line and "# justified: " not in lines[max(i - 1, 0)]
    ]
