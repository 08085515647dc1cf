"""What `deploy/` holds: manifests against strict schemas and the policy, commands against the command line, scripts run.

No API server is here: nothing was applied to a cluster, and no image was built.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import kubernetes_validate
import manifests
import pytest
import tiny
import yaml
from astropy.table import Table
from dask import config
from distributed import Client, LocalCluster
from distributed.security import Security
from manifests import DEPLOY, OVERLAYS, ROOT, rendered
from typer.main import get_command

from cluster import kubernetes
from cluster.settings import Engines
from jobs.cli import app
from jobs.runfile import RunFile
from storage_schemas import catalog, validation
from storage_schemas import model as model_store

BIN = Path(sys.executable).parent
#: The oldest and the newest Kubernetes that kubernetes-validate knows and KubeRay 1.7 supports.
VERSIONS = ("1.34", "1.37")


def check(thing, version=VERSIONS[0]):
    """Validate an object strictly: raises what says where it is wrong."""
    if thing["kind"] in ("RayJob", "DaskCluster", "DaskAutoscaler"):
        jsonschema.Draft202012Validator(manifests.schema(thing["kind"])).validate(thing)
    else:
        kubernetes_validate.validate(thing, version, strict=True)


def profile(overlay, tmp_path, name="dask.yaml"):
    """Engines of an overlay's profile."""
    (tmp_path / name).write_text(manifests.config(rendered(overlay))[name])
    return Engines.load(tmp_path / name)


def dask_environment(container):
    """Those of a container's environment variables that are settings of Dask."""
    return {entry["name"]: entry["value"] for entry in container["env"] if entry["name"].startswith("DASK_")}


def settings_of(env):
    """Dask's settings as its environment variables say."""
    names = {name: name.removeprefix("DASK_").replace("__", ".").lower() for name in env}
    return {names[name]: config.interpret_value(value) for name, value in env.items()}


@pytest.fixture
def driver(monkeypatch):
    """The driver's container, with its settings of Dask in force, as far as they are environment."""
    job = manifests.one(rendered("local"), "Job", "sedflow-catalog")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = dask_environment(container)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with config.set(settings_of(env)):
        yield container


def dask_objects(overlay, tmp_path):
    """What the driver asks of the Dask operator."""
    return kubernetes.resources(profile(overlay, tmp_path).dask, "sedflow-1", "sedflow")


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
    for thing in dask_objects(overlay, tmp_path):
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
    objects = [*rendered("aws"), *dask_objects("aws", tmp_path)]
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
    assert manifests.violations([*rendered(overlay), *dask_objects(overlay, tmp_path)]) == []


def driver_pod(objects):
    return manifests.one(objects, "Job", "sedflow-catalog")["spec"]["template"]["spec"]


def ray_cluster(objects):
    return manifests.one(objects, "RayJob", "sedflow-model")["spec"]["rayClusterSpec"]


def head(objects):
    return ray_cluster(objects)["headGroupSpec"]["template"]["spec"]["containers"][0]


def account(objects):
    return manifests.one(objects, "ServiceAccount", "sedflow-ray")


def policy(objects, name):
    return manifests.one(objects, "NetworkPolicy", name)["spec"]


def cron(objects):
    return manifests.one(objects, "CronJob", "sedflow-reprocess")["spec"]


def role(objects):
    return manifests.one(objects, "Role", "sedflow-driver")["rules"][0]


def without(place, *names):
    for name in names:
        del place[name]


VIOLATIONS = [
    ("may run as root", lambda o: driver_pod(o)["securityContext"].update(runAsNonRoot=False)),
    ("may run as root", lambda o: driver_pod(o)["securityContext"].update(runAsUser=0)),
    ("has no seccomp profile", lambda o: without(driver_pod(o)["securityContext"], "seccompProfile")),
    ("does not say whether it has a token", lambda o: without(driver_pod(o), "automountServiceAccountToken")),
    ("shares the node's hostNetwork", lambda o: driver_pod(o).update(hostNetwork=True)),
    ("mounts the node's /", lambda o: driver_pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
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
    ("opens port 7000", lambda o: driver_pod(o)["containers"][0].update(ports=[{"containerPort": 7000}])),
    ("opens port 8080", lambda o: policy(o, "ray").update(ingress=[])),
    ("no NetworkPolicy denies by default", lambda o: policy(o, "default-deny").update(policyTypes=["Ingress"])),
    ("lets everybody in", lambda o: without(policy(o, "dask")["ingress"][0], "from")),
    ("lets everybody in", lambda o: without(policy(o, "dask")["ingress"][0], "ports")),
    ("lets others in", lambda o: policy(o, "dask")["ingress"][0]["from"].append({"ipBlock": {"cidr": "10.0.0.0/8"}})),
    ("lets others in", lambda o: policy(o, "dask")["ingress"][0]["from"].append({"namespaceSelector": {}})),
    ("lets out to everybody", lambda o: without(policy(o, "driver")["egress"][0], "to")),
    ("two at once", lambda o: cron(o).update(concurrencyPolicy="Allow")),
    ("no startingDeadlineSeconds", lambda o: without(cron(o), "startingDeadlineSeconds")),
    ("no timeZone", lambda o: without(cron(o), "timeZone")),
    ("no backoffLimit", lambda o: without(cron(o)["jobTemplate"]["spec"], "backoffLimit")),
    ("no activeDeadlineSeconds", lambda o: without(cron(o)["jobTemplate"]["spec"], "activeDeadlineSeconds")),
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


# -- commands and settings ----------------------------------------------------------------------------------------------


def parse(arguments):
    """Parse the arguments of `sedflow` as the command line does; raises a usage error for what it does not know."""
    group = get_command(app)
    context = group.make_context("sedflow", list(arguments))
    while hasattr(group, "commands"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, rest, parent=context)
    return context.params


def commands(objects):
    """Arguments of every `sedflow` in an overlay."""
    for thing in objects:
        for _, _, spec in manifests.pods(thing):
            for container in spec["containers"]:
                if container["name"] == "sedflow":
                    assert "command" not in container  # it is the image's
                    yield container["args"]
        if thing["kind"] == "RayJob":
            yield from in_shell(thing["spec"]["entrypoint"])


def in_shell(text):
    """Arguments of every `sedflow` in a line of shell."""
    words = shlex.split(text)
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2])
    line = []
    for word in [*words, "&&"]:
        if word == "&&":
            assert line[0] == "sedflow", line
            yield line[1:]
            line = []
        else:
            line.append(word)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_are_those_of_the_command_line(overlay):
    found = list(commands(rendered(overlay)))
    for arguments in found:
        parse(arguments)
    names = sorted(arguments[0] for arguments in found)
    assert names == ["ingest", "mcmc", "reprocess", "reprocess", "simulate", "train", "validate"]


@pytest.mark.parametrize("arguments", [["reproces", "run.yaml"], ["train", "run.yaml", "--nodes", "3"], ["train"]])
def test_wrong_commands_are_found(arguments):
    with pytest.raises(Exception, match=r"No such command|No such option|Missing parameter"):
        parse(arguments)


PAGES = ["docs/kubernetes.md", "docs/operations.md", "docs/slurm.md"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_documentation_exist(page):
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    found = [shlex.split(line)[2:] for line in lines if line.startswith("$ sedflow ")]
    assert found
    for arguments in found:
        parse(arguments)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_agree_with_one_another(overlay, tmp_path):
    objects = rendered(overlay)
    (tmp_path / "run.yaml").write_text(manifests.config(objects)["run.yaml"])
    run, driver = RunFile.load(tmp_path / "run.yaml"), profile(overlay, tmp_path).dask
    (mcmc,) = [parse(arguments) for arguments in commands(objects) if arguments[0] == "mcmc"]
    assert (mcmc["model"], mcmc["out"]) == (run.store("model").url, run.store("chains").url)
    assert (mcmc["ray"], mcmc["actors"]) == (run.engines.ray.address, run.engines.ray.actors)

    images = {c["image"] for thing in objects for _, _, spec in manifests.pods(thing) for c in spec["containers"]}
    assert images == {driver.kubernetes.image}
    accounts = {thing["metadata"]["name"] for thing in objects if thing["kind"] == "ServiceAccount"}
    used = {spec["serviceAccountName"] for thing in objects for _, _, spec in manifests.pods(thing)}
    assert used | {driver.kubernetes.service_account} == accounts
    pod = driver_pod(objects)
    assert {"secretName": driver.kubernetes.tls_secret, "defaultMode": 0o440} in [
        v.get("secret") for v in pod["volumes"]
    ]
    secrets = [source["secretRef"]["name"] for source in pod["containers"][0].get("envFrom", [])]
    assert secrets == ([driver.kubernetes.secret] if driver.kubernetes.secret else [])

    workers = manifests.one(objects, "RayJob", "sedflow-model")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    cores = workers["replicas"] * int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert run.engines.ray.actors == cores
    assert run.training.threads * run.training.workers <= cores


def test_the_night_has_the_pod_of_the_first_release():
    objects = rendered("aws")
    night, first = cron(objects)["jobTemplate"]["spec"], manifests.one(objects, "Job", "sedflow-catalog")["spec"]
    assert night["template"] == first["template"]
    assert night["podFailurePolicy"] == first["podFailurePolicy"]


# -- TLS ----------------------------------------------------------------------------------------------------------------


def certificates(folder):
    subprocess.run([DEPLOY / "dask-tls.sh", folder], check=True)
    return folder


def security(folder):
    """Dask's security with the certificates of a folder."""
    keys = {f"tls_{who}_{what}": str(folder / f"tls.{end}") for who in ("client", "scheduler", "worker")
            for what, end in (("cert", "crt"), ("key", "key"))}  # fmt: skip
    return Security(tls_ca_file=str(folder / "ca.crt"), require_encryption=True, **keys)


@contextmanager
def refused():
    with pytest.raises((OSError, TimeoutError, RuntimeError)):
        yield


def test_dask_talks_tls_with_the_certificates_of_the_script_and_to_nobody_else(tmp_path, driver):
    mine, others = certificates(tmp_path / "mine"), certificates(tmp_path / "others")
    assert sorted(path.name for path in mine.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (mine / "tls.key").stat().st_mode & 0o077 == 0
    # The driver's own settings, with the Secret where it is here.
    env = {name: value.replace("/etc/dask-tls", str(mine)) for name, value in dask_environment(driver).items()}
    with (
        config.set(settings_of(env)),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tls", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", security=Security(),
        ) as cluster,
    ):  # fmt: skip
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        with Client(address) as client:
            assert client.submit(sum, (1, 2)).result() == 3
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tls", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", security=security(mine),
        ) as cluster,
        config.set({"distributed.comm.timeouts.connect": "2s", "distributed.comm.require-encryption": False}),
    ):  # fmt: skip
        with refused():
            Client(cluster.scheduler_address, security=security(others), timeout=2)
        with refused():
            Client(
                cluster.scheduler_address.replace("tls://", "tcp://"),
                security=Security(require_encryption=False),
                timeout=2,
            )


def test_the_operator_learns_that_a_cluster_is_idle(tmp_path):
    """A driver that was killed deletes nothing; the operator asks as this test does, and deletes after an hour."""
    thing = dask_objects("local", tmp_path)[0]
    assert thing["spec"]["idleTimeout"] == 3600
    env = dask_environment(thing["spec"]["scheduler"]["spec"]["containers"][0])
    routes = {name: value for name, value in env.items() if "ROUTES" in name}
    with (
        config.set(settings_of(routes)),
        LocalCluster(n_workers=0, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
    ):
        url = f"http://127.0.0.1:{cluster.scheduler.http_server.port}/api/v1/check_idle"
        for known in (False, True):  # the first time it starts to count
            with urllib.request.urlopen(url) as answer:
                assert bool(json.load(answer)["idle_since"]) >= known


# -- image and scripts --------------------------------------------------------------------------------------------------


def instructions(text):
    """(instruction, argument) of a Dockerfile."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [tuple(line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_the_image_is_pinned_small_and_not_root():
    subprocess.run([BIN / "hadolint", DEPLOY / "Dockerfile"], check=True)
    found = instructions((DEPLOY / "Dockerfile").read_text())
    last = found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]
    final = dict(last)
    assert final["USER"] == "1000:1000"
    assert final["ENTRYPOINT"] == '["sedflow"]'
    assert "HEALTHCHECK" in final
    assert "HOME=/tmp" in final["ENV"]
    assert not [argument for name, argument in last if name == "RUN" and "pip" in argument]  # built elsewhere
    assert not [name for name, _ in found if name == "ADD"]
    for name, argument in found:
        for install in re.findall(r"pip install ([^&]*)", argument) if name == "RUN" else []:
            assert install.startswith("-c constraints.txt ") or re.fullmatch(r"[\w-]+==[\d.]+ *", install), install
    base = dict(re.findall(r"ARG (\w+)=(.+)", (DEPLOY / "Dockerfile").read_text()))["BASE"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = {
        word
        for name, argument in found
        if name == "COPY" and "--from" not in argument
        for word in argument.split()[:-1]
    }
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


def test_the_scripts_pass_shellcheck():
    scripts = [*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]
    assert len(scripts) >= 3
    subprocess.run([BIN / "shellcheck", *scripts], check=True)


@pytest.mark.parametrize(
    ("name", "command"), [("model.sbatch", ""), ("driver.sbatch", "ingest"), ("driver.sbatch", "reprocess")]
)
def test_commands_of_slurm_scripts_exist(name, command):
    text = (DEPLOY / "slurm" / name).read_text()
    lines = re.findall(r"^(?:on_ray |exec )?sedflow (.*?)(?: #.*)?$", text, re.MULTILINE)
    assert lines
    for line in lines:
        line = line.replace('"${1:?ingest or reprocess}"', command)
        parse(shlex.split(re.sub(r'"\$\{?[^"]*"', "x", line)))


# -- run for real, as far as is possible on one machine -----------------------------------------------------------------


def write(run, path, **changes):
    """Write a run as a run file."""
    path.write_text(yaml.safe_dump({**json.loads(run.model_dump_json()), **changes}))


@pytest.mark.slow
def test_the_command_of_the_night(s3_server, dask, flow, tmp_path):
    """Twice, with changed photometry, and two at once: releases 1, 1, 2, 3."""
    (arguments,) = [cron(rendered("aws"))["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]]
    command = [sys.executable, "-m", "jobs.cli", *(a.replace("/etc/sedflow", str(tmp_path)) for a in arguments)]
    source = tiny.write_input(tmp_path / "galaxies.fits")
    run = tiny.settings("s3://galaxies/night", source, storage={"endpoint": s3_server})
    write(run, tmp_path / "run.yaml")
    # The operator's cluster is not to be had here; a scheduler on this machine is.
    (tmp_path / "dask.yaml").write_text(yaml.safe_dump({"dask": {"address": dask}}))
    model_store.write(run.store("model"), *flow.to_bytes())

    def night(processes=1):
        started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(processes)]
        return [(process.communicate()[1], process.returncode) for process in started]

    def releases():
        return catalog.repository(run.store("catalog")).list_tags()

    def brighten(row):
        table = Table.read(source)
        table["MODELFLUX"][row, 2] *= 1.1
        table.write(source, overwrite=True)

    ((said, code),) = night()
    assert (code, releases()) == (0, {"release-1"}), said
    start = time.monotonic()
    ((said, code),) = night()
    assert (code, releases()) == (0, {"release-1"}), said
    assert "nothing has changed since release-1" in said
    assert time.monotonic() - start < 60
    brighten(150)
    ((said, code),) = night()
    assert (code, releases()) == (0, {"release-1", "release-2"}), said
    assert "1 to compute" in said
    brighten(250)
    both = night(2)
    assert releases() == {"release-1", "release-2", "release-3"}
    assert 0 in [code for _, code in both], both


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of processes and network need root")
def test_the_scripts_for_slurm_make_a_model(source, tmp_path):
    """With Slurm's own commands stood in for, on one node, in namespaces of its own: `ray stop` ends every Ray it sees."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name, text in {
        "scontrol": "echo 127.0.0.1",
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
    }.items():
        (stand_ins / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (stand_ins / name).chmod(0o755)
    run = tiny.settings(tmp_path / "run", source, engines={"ray": {"address": "auto"}})
    write(run, tmp_path / "run.yaml")
    script = f"""ip link set lo up
        ray get-auth-token --generate > token
        bash {DEPLOY}/slurm/driver.sbatch ingest run.yaml local
        exec bash {DEPLOY}/slurm/model.sbatch run.yaml"""
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        done = subprocess.run(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc", script],
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
            env={
                **os.environ, "PATH": f"{stand_ins}:{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "RAY_TMPDIR": scratch,
                "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_CPUS_PER_TASK": "2",
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Head node started.") == 2
    assert model_store.is_finished(run.store("model"))
    assert validation.read(run.store("validation"))
