"""Profiles: what they may say, what they mean for Ray, Dask, Slurm and Kubernetes, and that impossible ones say why."""

import inspect
import os
import sys

import cloudpickle
import dask
import pytest
import yaml
from typer.testing import CliRunner

from cluster import dask_engine, kubernetes, ray_engine, slurm
from cluster.settings import PROFILES, WORKER_ENVIRONMENT, DaskSettings, Engines, RaySettings
from jobs.cli.main import app
from jobs.config.run_file import RunFile

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this
ray_engine.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
NAMES = sorted(path.stem for path in PROFILES.glob("*.yaml"))


def test_the_profile_local_is_the_default():
    assert NAMES == ["kubernetes", "local", "slurm"]
    assert Engines.load("local") == Engines()


def run_of_sizes(file):
    engines = {"ray": {"actors": 7}, "dask": {"workers": 5}}
    file.write_text(yaml.safe_dump({"name": "x", "root": str(file.parent), "input": "y", "engines": engines}))


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_replaces_the_engines_of_a_run_file(name, tmp_path):
    assert RunFile.load("demo", engines=name).engines == Engines.load(name) == Engines.load(PROFILES / f"{name}.yaml")
    run_of_sizes(tmp_path / "run.yaml")
    assert RunFile.load(tmp_path / "run.yaml", engines=name).engines == Engines.load(name)


def test_a_profile_of_one_engine_leaves_the_sizes_of_the_other(tmp_path):
    run_of_sizes(tmp_path / "run.yaml")
    (tmp_path / "mine.yaml").write_text("dask: {address: 'tcp://a:1'}")
    found = RunFile.load(tmp_path / "run.yaml", engines=tmp_path / "mine.yaml").engines
    assert found == Engines.model_validate({"ray": {"actors": 7}, "dask": {"address": "tcp://a:1"}})
    assert RunFile.load(tmp_path / "run.yaml").engines.dask.workers == 5


@pytest.mark.parametrize(
    "engines",
    [
        "slurm", "/tmp/theirs.yaml", {"ray": {"address": "auto"}}, {"ray": {"address": "10.0.0.1:6379"}},
        {"dask": {"address": "tcp://10.0.0.1:8786"}}, {"dask": {"start": "slurm"}},
        {"dask": {"start": "slurm", "slurm": {"queue": "regular"}}}, {"ray": {"spill_directory": "/etc"}},
        {"dask": {"start": "kubernetes", "kubernetes": {"image": "theirs/image:1"}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_file_cannot_say_where_engines_are(tmp_path, engines):
    content = {"name": "x", "root": str(tmp_path), "input": "y", "engines": engines}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"run\.yaml is not a valid run file:\n  engines.*--profile"):
        RunFile.load(tmp_path / "run.yaml")
    with pytest.raises(ValueError, match="--profile"):  # a profile does not make it better
        RunFile.load(tmp_path / "run.yaml", engines="local")


def test_what_the_settings_of_a_run_are_written_as_can_be_read_again(tmp_path):
    run = RunFile.load("demo", root=str(tmp_path))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
    assert RunFile.load(tmp_path / "run.yaml") == run


HOSTILE = ["\ntouch /tmp/x", "regular\n", "a\rb", "a\x0bb", "a\x85b", "a\u2028b", "\x1b]0;x\x07", "a b; touch x", "$(touch x)",
           "`x`", "a'b", 'a"b', "a|b", "a&b", "--wrap=x y"]  # fmt: skip
SLURM = [{"queue": ...}, {"account": ...}, {"interface": ...}, {"walltime": ...}]
PODS = [{name: ...} for name in ("image", "namespace", "service_account", "cpu", "secret", "tls_secret")]
PODS += [{"node_selector": {"pool": ...}}]


def filled(section, text):
    return {k: filled(v, text) if isinstance(v, dict) else text for k, v in section.items()}


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
@pytest.mark.parametrize(
    "content",
    [*({"dask": {"start": "slurm", "slurm": one}} for one in SLURM),
     *({"dask": {"start": "kubernetes", "kubernetes": one}} for one in PODS),
     {"dask": {"address": ...}}, {"dask": {"memory_limit": ...}}, {"ray": {"address": ...}},
     {"ray": {"memory_per_actor": ...}}],
    ids=str,
)  # fmt: skip
def test_what_reaches_a_shell_a_pod_or_a_connection_is_of_its_form(content, text):
    with pytest.raises(ValueError):
        Engines.model_validate(filled(content, text))


@pytest.mark.parametrize(
    "text", ["--constraint=cpu\nrm -rf x", "--x\r", "--x\u2029y", "rm -rf x", "", "#!/bin/sh", "--é"], ids=repr
)
def test_a_directive_is_one_line(text):
    with pytest.raises(ValueError, match="extra"):
        DaskSettings.model_validate({"start": "slurm", "slurm": {"extra": [text]}})


@pytest.mark.parametrize("key", ["name", "root", "input", "survey", "ssp.source", "ingest.redshift", "model.space"])
@pytest.mark.parametrize("character", ["\n", "\x1b", "\x00", "\x7f", "\u202e", "\u2028"], ids=ascii)
def test_a_run_file_holds_no_control_characters(tmp_path, key, character):
    content = {"name": "x", "root": str(tmp_path / "r"), "input": "y", "ssp": {}, "ingest": {}, "model": {}}
    section, _, last = key.rpartition(".")
    target = content[section] if section else content
    target[last] = {f"tau{character}": [0, 1]} if last == "prior" else f"a{character}b"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"holds the control character U\+") as caught:
        RunFile.load(tmp_path / "run.yaml")
    assert character not in str(caught.value).replace("run file:\n", "")


def test_ordinary_names_of_a_site_are_allowed():
    Engines.model_validate({
        "ray": {"address": "[fe80::1]:6379", "memory_per_actor": "2.5 GiB"},
        "dask": {"start": "slurm", "slurm": {"queue": "regular,debug", "account": "m1234_g", "interface": "ib0.1",
                 "walltime": "2-12:00:00", "extra": ["--constraint=cpu&nvme", "-q premium", "--mail-user=a@b.org"]}},
    })  # fmt: skip
    Engines.model_validate({
        "dask": {"start": "kubernetes", "kubernetes": {
            "image": "registry.example.org:5000/a/sedflow-dist@sha256:0123456789abcdef", "cpu": "1500m",
            "node_selector": {"eks.amazonaws.com/capacityType": "SPOT", "pool": ""}}},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ray: {adress: auto}", "ray.adress: no such key; near it are address"),
        ("ray: {gpus_per_worker: 1.5}", "neither a part of a GPU nor whole ones"),
        ("ray: {memory_per_actor: much}", "ray.memory_per_actor"),
        ("ray: {address: auto, spill_directory: /tmp}", "spill_directory: /tmp is for a cluster started here"),
        ("dask: {address: 'tcp://a:1', start: slurm}", "start: slurm starts workers"),
        ("dask: {address: 'tcp://a:1', maximum_workers: 3}", "are not started here"),
        ("dask: {workers: 3, maximum_workers: 2}", "2 is fewer than workers = 3"),
        ("dask: {slurm: {queue: regular}}", "slurm: has settings, but start says local"),
        ("dask: {start: moon}", "'local', 'slurm' or 'kubernetes'"),
        ("dask: {memory_limit: 0 GiB}", "is no amount of memory"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_cannot_be_says_why(tmp_path, content, message):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError) as caught:
        Engines.load(tmp_path / "mine.yaml")
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_secret_in_a_profile_is_not_repeated(tmp_path):
    (tmp_path / "mine.yaml").write_text("dask: {password: hunter2}")
    with pytest.raises(ValueError, match=r"dask\.password") as caught:
        Engines.load(tmp_path / "mine.yaml")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_profile_names_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"no profile lunar: .* kubernetes, local, slurm"):
        Engines.load("lunar")
    with pytest.raises(ValueError, match=r"^no profile lunar"):
        RunFile.load("demo", engines="lunar")


def test_commands_of_the_contract_take_a_profile():
    for command in ("run", "simulate", "train", "validate", "mcmc", "reprocess", "ingest", "infer", "submit", "plan"):
        assert "--profile" in CliRunner().invoke(app, [command, "--help"], terminal_width=200).output, command


def test_options_replace_what_a_profile_says():
    settings = DaskSettings(workers=3, start="slurm")
    assert settings.replace(workers=None) == settings
    assert settings.replace(workers=5) == DaskSettings(workers=5, start="slurm")
    with pytest.raises(ValueError, match="starts workers"):
        settings.replace(address="tcp://a:1")


def test_actors_reserve_what_the_settings_say():
    assert RaySettings().per_actor == {"num_cpus": 1.0}
    settings = RaySettings(actors=3, cores_per_actor=0.5, memory_per_actor="200 MiB")
    assert settings.per_actor == {"num_cpus": 0.5, "memory": 200 * 2**20}


class Reserved:
    """An actor that says what Ray reserved for it, and where it would spill."""

    def ask(self, _):
        return ray_engine.ray.get_runtime_context().get_assigned_resources()


def test_ray_reserves_it(tmp_path):
    settings = RaySettings(actors=3, cores_per_actor=0.5, memory_per_actor="50 MiB", spill_directory=str(tmp_path))
    found = []
    with ray_engine.session(settings):
        assert ray_engine.ray.cluster_resources()["CPU"] == 2  # three halves, rounded up
        ray_engine.map_actors(Reserved, (), "ask", range(4), settings, found.append)
    assert found == [{"CPU": 0.5, "memory": 50 * 2**20}] * 4


def environment(_):

    return {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}


def test_dask_adds_workers_while_there_is_work_and_gives_them_one_thread():
    import time

    with dask_engine.client(DaskSettings(workers=1, maximum_workers=2, memory_limit="2 GiB")) as client:
        assert len(client.scheduler_info()["workers"]) <= 1
        work = client.map(time.sleep, [0.5] * 40, pure=False)
        end = time.monotonic() + 30
        while len(client.scheduler_info()["workers"]) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        client.cancel(work)
        assert client.submit(environment, 0).result() == WORKER_ENVIRONMENT


def test_workers_have_their_environment_whatever_this_process_had_and_leave_it_as_it_was(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as other workers of Dask leave it
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = environment(0)
    with dask_engine.client(DaskSettings(workers=1)) as client:
        assert client.submit(environment, 0).result() == WORKER_ENVIRONMENT
    assert environment(0) == before


def test_a_scheduler_that_is_not_there_is_nobodys_afterwards():
    before = dask.config.get("scheduler", None)
    nobody = DaskSettings(address="tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(OSError, match=r"127\.0\.0\.1:9"),
        dask_engine.client(nobody),
    ):
        pass
    assert dask.config.get("scheduler", None) == before


def test_a_task_that_fails_is_tried_again_as_often_as_said(tmp_path):
    def fail(item):
        (tmp_path / f"{item}-{len(list(tmp_path.iterdir()))}").touch()
        raise OSError("no")

    with dask_engine.client(DaskSettings(workers=1)) as client, pytest.raises(OSError, match="no"):
        dask_engine.map_tasks(client, fail, ["a"], print, 2)
    assert len(list(tmp_path.iterdir())) == 3


def test_slurm_is_asked_for_what_the_settings_say(monkeypatch, tmp_path):
    """The script is rendered; nothing here has Slurm to run it."""
    from dask_jobqueue import SLURMCluster

    monkeypatch.chdir(tmp_path)  # certificates go there
    asked = []
    monkeypatch.setattr(SLURMCluster, "scale", lambda self, n: asked.append(n))  # and once more, to none, as it ends
    settings = DaskSettings.model_validate({
        "start": "slurm", "workers": 6, "memory_limit": "2 GiB",
        "slurm": {"queue": "regular", "account": "desi", "cores": 4, "walltime": "1-02:00:00", "interface": "lo",
                  "extra": ["--constraint=cpu"]},
    })  # fmt: skip
    with slurm.cluster(settings) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
    assert asked[0] == 6
    for line in ("#SBATCH -p regular", "#SBATCH -A desi", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G",
                 "#SBATCH -t 1-02:00:00", "#SBATCH --constraint=cpu", "export OMP_NUM_THREADS=1"):  # fmt: skip
        assert line in script.splitlines(), script
    for words in ("--nthreads 1", "--nworkers 4", "--memory-limit 2.00GiB", "--lifetime 93300s", "--tls-key"):
        assert words in script, script


@pytest.mark.parametrize(("text", "minutes"), [("90", 90), ("10:30", 10.5), ("01:00:00", 60), ("2-12", 3600)])
def test_walltimes_are_read_as_slurm_reads_them(text, minutes):
    assert slurm._walltime(text).total_seconds() == 60 * minutes


def test_a_walltime_that_is_none_says_so():
    with pytest.raises(ValueError, match="walltime: 'soon' is not"):
        slurm._walltime("soon")


def made(**changes):
    settings = Engines.load("kubernetes").dask.replace(**changes)
    return kubernetes.resources(settings, "sedflow-1", "galaxies")


def test_the_operator_is_asked_for_our_image_without_rights(monkeypatch):
    cluster, autoscaler = made()
    assert autoscaler["spec"] == {"cluster": "sedflow-1", "minimum": 4, "maximum": 64}
    assert cluster["spec"]["worker"]["replicas"] == 4
    for part, words in (("scheduler", "dask-scheduler"), ("worker", "dask")):
        pod = cluster["spec"][part]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "sedflow-dist:0.1.0"
        assert container["command"][0] == words
        assert container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "1", "memory": "3Gi"}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
        assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "tls"]
    assert len(made(maximum_workers=4)) == 2
    assert len(kubernetes.resources(DaskSettings(start="kubernetes"), "a", "b")) == 1


def test_what_is_asked_for_is_what_the_operator_knows():
    """Against the operator's own schema; an unknown field fails."""
    import dask_kubernetes
    import jsonschema

    folder = inspect.getfile(dask_kubernetes).rpartition("/")[0]
    cluster, autoscaler = made()
    for resource, name in ((cluster, "daskcluster"), (autoscaler, "daskautoscaler")):
        with open(f"{folder}/operator/deployment/helm/dask-kubernetes-operator/crds/{name}.yaml") as file:
            schema = _strict(yaml.load(file, yaml.CSafeLoader)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        jsonschema.validate(resource, schema)
        with pytest.raises(jsonschema.ValidationError, match="surprise"):
            jsonschema.validate({**resource, "spec": {**resource["spec"], "surprise": 1}}, schema)


def _strict(schema):
    """A copy of an OpenAPI schema in which objects with known properties have no others."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    elif (
        schema.get("type") == "object"
        and "properties" in schema
        and "x-kubernetes-preserve-unknown-fields" not in schema
    ):
        found["additionalProperties"] = False
    return found


def test_dasks_own_configuration_reaches_its_pods(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "/etc/dask-tls/ca.crt")
    with dask.config.set({"distributed.comm.require-encryption": True}):
        cluster, _ = made()
    for part in ("scheduler", "worker"):
        env = {e["name"]: e["value"] for e in cluster["spec"][part]["spec"]["containers"][0]["env"]}
        assert env["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] == "/etc/dask-tls/ca.crt"
        assert env["DASK_SCHEDULER_ADDRESS"] == "tls://sedflow-1-scheduler.galaxies.svc:8786"
    assert "tls" in cluster["spec"]["scheduler"]["spec"]["containers"][0]["command"]
