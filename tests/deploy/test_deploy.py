"""The manifests in `deploy/` against strict schemas and the policy. No API server is here: nothing was applied to a cluster."""

import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import manifests
import pytest
from manifests import DEPLOY, OVERLAYS, rendered

BIN = Path(sys.executable).parent
#: Of Kubernetes.
VERSIONS = ("1.34", "1.37")


def check(thing, version=VERSIONS[0]):
    """Validate an object strictly: raises what says where it is wrong."""
    if thing["kind"] in ("RayJob", "DaskCluster", "DaskAutoscaler"):
        jsonschema.Draft202012Validator(manifests.schema(thing["kind"])).validate(thing)
    else:
        kubernetes_validate.validate(thing, version, strict=True)


@pytest.fixture
def driver(monkeypatch):
    with manifests.as_driver(monkeypatch) as container:
        yield container


# -- schemas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_strictly_valid(overlay, version):
    objects = rendered(overlay)
    for thing in objects:
        check(thing, version)
    kinds = {thing["kind"] for thing in objects}
    assert kinds == {"Namespace", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "RayJob",
                     "Job", "CronJob", "ConfigMap"}  # fmt: skip
    assert {thing["metadata"].get("namespace", "sedflow") for thing in objects} == {"sedflow"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_dask_clusters_are_strictly_valid(overlay, tmp_path, driver):
    for thing in manifests.dask_objects(overlay, tmp_path):
        check(thing)


PLANTED = [
    ("Job", "spec"), ("Job", "spec.template.spec"), ("Job", "spec.template.spec.containers.0.securityContext"),
    ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0"), ("NetworkPolicy", "spec.ingress.0"), ("Role", "rules.0"),
    ("PodDisruptionBudget", "spec.selector"), ("RayJob", "spec"), ("RayJob", "spec.rayClusterSpec.authOptions"),
    ("RayJob", "spec.submitterPodTemplate.spec"), ("RayJob", "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0"),
    ("RayJob", "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.volumes.0"), ("DaskCluster", "spec.worker.spec"),
    ("DaskCluster", "spec.scheduler.service.ports.0"), ("DaskAutoscaler", "spec"),
]  # fmt: skip


def at(thing, path):
    """What is at a dotted path, or None."""
    for part in path.split("."):
        try:
            thing = thing[int(part) if part.isdigit() else part]
        except (KeyError, IndexError):
            return None
    return thing


@pytest.mark.parametrize(("kind", "path"), PLANTED)
def test_an_unknown_field_is_found(kind, path, tmp_path):
    objects = [*rendered("aws"), *manifests.dask_objects("aws", tmp_path)]
    thing, place = next((o, found) for o in objects if o["kind"] == kind and (found := at(o, path)) is not None)
    check(thing)
    place["replicaz"] = 1
    with pytest.raises(
        jsonschema.ValidationError, match=r"Additional properties.*'replicaz'|'replicaz' was unexpected"
    ):
        check(thing)


def test_a_wrong_type_is_found():
    job = manifests.one(rendered("aws"), "RayJob", "sedflow-model")
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "four"
    with pytest.raises(jsonschema.ValidationError, match="four"):
        check(job)


# -- policy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_policy_is_kept(overlay, tmp_path, driver):
    assert manifests.violations([*rendered(overlay), *manifests.dask_objects(overlay, tmp_path)]) == []


def ray_cluster(objects):
    return manifests.one(objects, "RayJob", "sedflow-model")["spec"]["rayClusterSpec"]


def head(objects):
    return ray_cluster(objects)["headGroupSpec"]["template"]["spec"]["containers"][0]


def account(objects):
    return manifests.one(objects, "ServiceAccount", "sedflow-ray")


def policy(objects, name):
    return manifests.one(objects, "NetworkPolicy", name)["spec"]


def role(objects):
    return manifests.one(objects, "Role", "sedflow-driver")["rules"][0]


def without(place, *names):
    for name in names:
        del place[name]


VIOLATIONS = [
    ("may run as root", lambda o: manifests.driver_pod(o)["securityContext"].update(runAsNonRoot=False)),
    ("may run as root", lambda o: manifests.driver_pod(o)["securityContext"].update(runAsUser=0)),
    ("has no seccomp profile", lambda o: without(manifests.driver_pod(o)["securityContext"], "seccompProfile")),
    ("does not say whether it has a token", lambda o: without(manifests.driver_pod(o), "automountServiceAccountToken")),
    ("shares the node's hostNetwork", lambda o: manifests.driver_pod(o).update(hostNetwork=True)),
    ("mounts the node's /", lambda o: manifests.driver_pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("writes to its root", lambda o: head(o)["securityContext"].update(readOnlyRootFilesystem=False)),
    ("may gain privileges", lambda o: without(head(o)["securityContext"], "allowPrivilegeEscalation")),
    ("keeps capabilities", lambda o: head(o)["securityContext"].update(capabilities={"drop": ["NET_RAW"]})),
    ("keeps capabilities", lambda o: head(o)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"])),
    ("is privileged", lambda o: head(o)["securityContext"].update(privileged=True)),
    ("has no limits", lambda o: without(head(o)["resources"]["limits"], "memory")),
    ("has no requests", lambda o: without(head(o)["resources"], "requests")),
    ("has image sedflow-dist:latest", lambda o: head(o).update(image="sedflow-dist:latest")),
    ("has image registry:5000/sedflow-dist", lambda o: head(o).update(image="registry:5000/sedflow-dist")),
    ("has no probes", lambda o: without(head(o), "livenessProbe")),
    ("has no memory for Ray's objects", lambda o: head(o)["volumeMounts"].pop()),
    ("opens port 7000", lambda o: manifests.driver_pod(o)["containers"][0].update(ports=[{"containerPort": 7000}])),
    ("opens port 8080", lambda o: policy(o, "ray").update(ingress=[])),
    ("no NetworkPolicy denies by default", lambda o: policy(o, "default-deny").update(policyTypes=["Ingress"])),
    ("lets everybody in", lambda o: without(policy(o, "dask")["ingress"][0], "from")),
    ("lets everybody in", lambda o: without(policy(o, "dask")["ingress"][0], "ports")),
    ("lets others in", lambda o: policy(o, "dask")["ingress"][0]["from"].append({"ipBlock": {"cidr": "10.0.0.0/8"}})),
    ("lets others in", lambda o: policy(o, "dask")["ingress"][0]["from"].append({"namespaceSelector": {}})),
    ("lets out to everybody", lambda o: without(policy(o, "driver")["egress"][0], "to")),
    ("two at once", lambda o: manifests.cron(o).update(concurrencyPolicy="Allow")),
    ("no startingDeadlineSeconds", lambda o: without(manifests.cron(o), "startingDeadlineSeconds")),
    ("no timeZone", lambda o: without(manifests.cron(o), "timeZone")),
    ("no backoffLimit", lambda o: without(manifests.cron(o)["jobTemplate"]["spec"], "backoffLimit")),
    ("no activeDeadlineSeconds", lambda o: without(manifests.cron(o)["jobTemplate"]["spec"], "activeDeadlineSeconds")),
    ("may run for ever", lambda o: without(manifests.one(o, "Job", "sedflow-catalog")["spec"], "activeDeadlineSeconds")),
    ("asks for no token", lambda o: without(ray_cluster(o), "authOptions")),
    ("Role/sedflow-driver", lambda o: role(o).update(verbs=["*"])),
    ("Role/sedflow-driver", lambda o: role(o).update(apiGroups=[""], resources=["secrets"])),
    ("is a ClusterRole", lambda o: o.append({"kind": "ClusterRole", "metadata": {"name": "x"}})),
    ("is a Secret", lambda o: o.append({"kind": "Secret", "metadata": {"name": "x"}})),
    ("every pod would get its token", lambda o: without(account(o), "automountServiceAccountToken")),
]  # fmt: skip


@pytest.mark.parametrize(("message", "plant"), VIOLATIONS)
def test_a_violation_is_found(message, plant):
    objects = rendered("aws")
    plant(objects)
    assert any(message in line for line in manifests.violations(objects)), manifests.violations(objects)


SOURCES = sorted(path for path in DEPLOY.rglob("*.yaml") if "monitoring" not in path.parts)


def test_what_loosens_a_default_says_why():
    assert len(SOURCES) >= 15
    assert {str(path): manifests.unjustified(path.read_text()) for path in SOURCES} == {
        str(path): [] for path in SOURCES
    }
    assert sum(path.read_text().count("# justified: ") for path in SOURCES) == 6


@pytest.mark.parametrize(
    "text",
    [
        "automountServiceAccountToken: true",
        "dashboard-host: 0.0.0.0 # because",
        "a: 1 # justified: another line\n\nhostNetwork: true",
        "capabilities: {add: [SYS_PTRACE]}",
        "authOptions: {mode: disabled}",
    ],
)
def test_what_does_not_say_why_is_found(text):
    assert len(manifests.unjustified(text)) == 1
    assert not manifests.unjustified("# justified: so\n" + text.rpartition("\n")[2])
