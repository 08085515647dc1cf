"""What `deploy/` says and runs: its commands and settings, TLS for Dask, the image's recipe, the scripts.

No image was built, and no Kubernetes is here; test_slurm.py runs the scripts on a Slurm.
"""

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

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

from jobs.cli.main import app
from jobs.config.run_file import RunFile
from storage_schemas import model as model_store
from storage_schemas.catalog import schema as catalog

BIN = Path(sys.executable).parent


@pytest.fixture
def driver(monkeypatch):
    with manifests.as_driver(monkeypatch) as container:
        yield container


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
    (tmp_path / "ray.yaml").write_text(manifests.config(objects)["ray.yaml"])
    run, driver = RunFile.load(tmp_path / "run.yaml", tmp_path / "ray.yaml"), manifests.profile(overlay, tmp_path).dask
    (mcmc,) = [parse(arguments) for arguments in commands(objects) if arguments[0] == "mcmc"]
    assert (mcmc["model"], mcmc["out"]) == (run.store("model").url, run.store("chains").url)
    assert (mcmc["ray"], mcmc["actors"]) == (run.engines.ray.address, run.engines.ray.actors)

    images = {c["image"] for thing in objects for _, _, spec in manifests.pods(thing) for c in spec["containers"]}
    assert images == {driver.kubernetes.image}
    accounts = {thing["metadata"]["name"] for thing in objects if thing["kind"] == "ServiceAccount"}
    used = {spec["serviceAccountName"] for thing in objects for _, _, spec in manifests.pods(thing)}
    assert used | {driver.kubernetes.service_account} == accounts
    pod = manifests.driver_pod(objects)
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
    night, first = (
        manifests.cron(objects)["jobTemplate"]["spec"],
        manifests.one(objects, "Job", "sedflow-catalog")["spec"],
    )
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
    env = {
        name: value.replace("/etc/dask-tls", str(mine)) for name, value in manifests.dask_environment(driver).items()
    }
    with (
        config.set(manifests.settings_of(env)),
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
            Client(cluster.scheduler_address, security=security(others), timeout=2, set_as_default=False)
        with refused():
            Client(
                cluster.scheduler_address.replace("tls://", "tcp://"),
                security=Security(require_encryption=False),
                timeout=2,
                set_as_default=False,
            )


def test_the_operator_learns_that_a_cluster_is_idle(tmp_path):
    """A driver that was killed deletes nothing; the operator asks as this test does, and deletes after an hour."""
    thing = manifests.dask_objects("local", tmp_path)[0]
    assert thing["spec"]["idleTimeout"] == 3600
    env = manifests.dask_environment(thing["spec"]["scheduler"]["spec"]["containers"][0])
    routes = {name: value for name, value in env.items() if "ROUTES" in name}
    with (
        config.set(manifests.settings_of(routes)),
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
    scripts = [*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch"), ROOT / "tests" / "debian_packages.sh"]
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
    (arguments,) = [manifests.cron(rendered("aws"))["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]]
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
