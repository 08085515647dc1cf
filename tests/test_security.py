"""Files and settings from elsewhere are data: none of them runs code, climbs out of its place, or lets a secret out."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import zarr
from paths import ROOT

from cluster import yaml_files
from cluster.settings import Engines
from jobs.config.run_file import RunFile, survey
from jobs.containers import formats
from sedflow_dist.flow.trained_model import TrainedModel
from storage_schemas import model as model_store
from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import without_secrets

PRODUCT = [
    path for folder in ("sedflow_dist", "storage_schemas", "cluster", "jobs") for path in (ROOT / folder).rglob("*.py")
]

# -- the product itself -----------------------------------------------------------------------------------------------

#: Calls that make code of data, by what they are called on and their name.
RUNS_CODE = {
    ("", "eval"), ("", "exec"), ("", "compile"), ("", "__import__"), ("os", "system"), ("os", "popen"),
    ("torch", "load"), ("joblib", "load"), ("pandas", "read_pickle"), ("pd", "read_pickle"),
    *((module, name) for module in ("pickle", "cloudpickle", "dill", "marshal") for name in ("load", "loads", "Unpickler")),
    ("shelve", "open"),
    *(("yaml", name) for name in ("load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all")),
}  # fmt: skip


def dangers(source):
    """What in a module makes code of data: (line, name)."""
    found, tree = [], ast.parse(source)
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }  # fmt: skip
    members = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
    }  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            called = members.get(node.func.id, ("", node.func.id))
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            called = (aliases.get(node.func.value.id, node.func.value.id), node.func.attr)
        else:
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        shell, allowed = keywords.get("shell"), keywords.get("allow_pickle")
        if called in RUNS_CODE:
            found.append((node.lineno, ".".join(called)))
        for name, value in (("shell", shell), ("allow_pickle", allowed)):
            if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
                found.append((node.lineno, name))
    return found


def test_nothing_in_the_product_makes_code_of_data():
    assert len(PRODUCT) > 60
    assert {str(path): found for path in PRODUCT if (found := dangers(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "exec(x)", "import pickle\npickle.load(f)", "import pickle as p\np.loads(f)", "import torch\ntorch.load(f)",
        "from pickle import loads\nloads(x)", "from yaml import load as l\nl(x)", "import yaml\nyaml.load(x)",
        "import subprocess\nsubprocess.run(x, shell=True)", "import os\nos.system(x)", "np.load(f, allow_pickle=True)",
        "import subprocess\nsubprocess.run(x, shell=y)",
    ],
)  # fmt: skip
def test_what_makes_code_of_data_is_found(source):
    assert dangers(source)


def test_harmless_calls_are_not():
    source = (
        "import yaml, re, json\nyaml.safe_load(x)\nre.compile(x)\njson.loads(x)\nnetwork.eval()\nrun(x, shell=False)"
    )
    assert dangers(source) == []


# -- models -----------------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture(scope="module")
def stored(flow):
    return flow.to_bytes()


def header(content, size=None):
    text = json.dumps(content).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text


def hostile_weights(path):
    import io
    import pickle

    import torch

    of_torch = io.BytesIO()
    torch.save({"network": Bomb(path)}, of_torch)
    return {
        "a pickle": pickle.dumps(Bomb(path)),
        "a file of torch.save": of_torch.getvalue(),
        "a header of 2^63 bytes": header({}, size=1 << 63),
        "a header longer than the file": header({}, size=1 << 20),
        "a tensor of 2^60 numbers": header({"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}}),
        "a shape that overflows": header({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}),
        "offsets outside the file": header({"a": {"dtype": "U8", "shape": [4], "data_offsets": [100, 104]}}) + b"1234",
        "negative offsets": header({"a": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}}) + b"1234",
        "tensors that overlap": header({
            name: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for name in "ab"
        }) + b"1234",
        "a header that is a list": header([1, 2]),
        "no tensors": header({}),
    }  # fmt: skip


@pytest.mark.parametrize("kind", hostile_weights("x"))
def test_hostile_weights_are_an_error_and_run_nothing(stored, tmp_path, kind):
    weights = hostile_weights(tmp_path / "touched")[kind]
    with pytest.raises(ValueError):
        TrainedModel.from_bytes(weights, stored[1])
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: b"[" * 100_000,
        lambda spec: b'{"bands":' * 50_000,
        lambda spec: json.dumps({**spec, "bands": ["b"] * 100_000, "labels": ["b"] * 100_000}).encode(),
        lambda spec: json.dumps({**spec, "flow": {"family": "maf", "settings": {"transforms": 1, "hidden": 1e308}}}).encode(),
        lambda spec: json.dumps({**spec, "redshift": [float("nan"), float("inf")]}).encode(),
        lambda spec: json.dumps({**spec, "flow": {"family": "__import__('os').getcwd()", "settings": {}}}).encode(),
    ],
    ids=["nested lists", "nested objects", "100,000 bands", "absurd units", "not numbers", "code"],
)  # fmt: skip
def test_hostile_specifications_are_an_error(stored, change):
    with pytest.raises(ValueError, match="not the specification of a flow"):
        TrainedModel.from_bytes(stored[0], change(json.loads(stored[1])))


def test_a_model_that_is_too_large_is_not_read(stored, tmp_path):
    where = tiny.location(tmp_path / "model")
    model_store.write(where, *stored)
    with open(tmp_path / "model" / model_store.WEIGHTS, "r+b") as file:
        file.truncate(5 << 30)  # a hole: it takes no room
    with pytest.raises(ValueError, match=r"has 5,368,709,120 bytes, and at most 4,294,967,296 are read"):
        model_store.read(where)


# -- catalogs that are read -------------------------------------------------------------------------------------------


def test_a_zarr_array_with_pickled_objects_is_not_read(tmp_path):
    import numcodecs

    group = zarr.open_group(tmp_path / "catalog", mode="w", zarr_format=2)
    group.create_array("RA", shape=(3,), dtype="f8")[:] = 1.0
    (tmp_path / "catalog" / "OBJID").mkdir()
    described = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "|O", "compressor": None, "fill_value": 0,
                 "order": "C", "filters": [{"id": "pickle", "protocol": 5}]}  # fmt: skip
    (tmp_path / "catalog" / "OBJID" / ".zarray").write_text(json.dumps(described))
    bombs = np.array([Bomb(tmp_path / "touched"), 0, 0], dtype=object)
    (tmp_path / "catalog" / "OBJID" / "0").write_bytes(numcodecs.Pickle().encode(bombs))
    with (
        pytest.raises(ValueError, match="pickle"),
        formats.open_catalog(Location.parse(tmp_path / "catalog")) as catalog,
    ):
        catalog.read(0, 3, ["OBJID"])
    assert not (tmp_path / "touched").exists()


# -- run files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {touched}']",
        "name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{touched}']]",
        "name: !!python/name:os.system",
        "name: !!python/object/new:os.system ['touch {touched}']",
        "name: x\nroot: y\ninput: !!python/module:os",
        "--- !ruby/object:Gem::Installer\ni: x",
    ],
)
def test_tags_of_yaml_make_nothing(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text.replace("{touched}", str(tmp_path / "touched")))
    with pytest.raises(ValueError, match="is not YAML"):
        RunFile.load(tmp_path / "run.yaml")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
                                      for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)) + "input: *n\n",
        "\x00\x01\x02",
    ],
    ids=["nested", "a billion laughs", "bytes"],
)  # fmt: skip
def test_run_files_that_blow_up_are_an_error(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        RunFile.load(tmp_path / "run.yaml")
    assert len(str(error.value)) < 10_000


@pytest.mark.parametrize("key", ["name", "root", "input", "survey"])
@pytest.mark.parametrize("value", ["$(touch {t})", "`touch {t}`", "; touch {t}", "{{ 1 }}", "%(x)s", "${HOME}"])
def test_values_are_never_expanded(tmp_path, key, value):
    content = {"name": "x", "root": str(tmp_path / "root"), "input": "in.fits", "survey": "sdss"}
    content[key] = value.replace("{t}", str(tmp_path / "touched"))
    try:
        run = RunFile.model_validate(content)
        if key == "survey":
            _ = run.survey_definition
    except ValueError:
        pass
    else:
        assert getattr(run, key).endswith(content[key].split("/")[-1])
    assert not (tmp_path / "touched").exists()


def load(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    return RunFile.load(tmp_path / "run.yaml")


SECRET = "NobodyMaySeeThis0123456789"
RUN = "name: x\nroot: /r\ninput: in.fits\n"


@pytest.mark.parametrize(
    "text",
    [
        f"name: x\nroot: s3://AKIA:{SECRET}@bucket/prefix\ninput: in.fits\n",
        f"name: x\nroot: /r\ninput: s3://AKIA:{SECRET}@bucket/in.fits\n",
        f"name: x\nroot: /r\ninput: [a.fits, 's3://bucket/in.fits?X-Amz-Signature={SECRET}']\n",
        f"name: x\nroot: https://user:{SECRET}@host/x\ninput: in.fits\n",
        f"{RUN}storage: {{endpoint: 'https://user:{SECRET}@host'}}\n",
        f"{RUN}storage: {{secret_access_key: {SECRET}}}\n",
        f"{RUN}aws_secret_access_key: {SECRET}\n",
    ],
)
def test_credentials_in_a_run_file_are_refused_and_not_repeated(tmp_path, text):
    with pytest.raises(ValueError) as error:
        load(tmp_path, text)
    seen = [error.value]
    while (
        inner := seen[-1].__cause__ or (None if seen[-1].__suppress_context__ else seen[-1].__context__)
    ) is not None:
        seen.append(inner)
    assert all(SECRET not in str(one) for one in seen)
    assert "is not a valid run file" in str(error.value)


RUN = "name: a\nroot: x\ninput: y\n"
DECLARED = (
    "survey:\n  name: s\n  ids: [A]\n  cuts:\n    faint: {column: F, below: 0}\n    faint: {column: F, above: 0}\n"
)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        (f"{RUN}seed: 1\nseed: 2\n", "seed", (4, 5)), (f'{RUN}"name": b\n', "name", (1, 4)),
        (f"{RUN}training: {{epochs: 1, epochs: 2}}\n", "epochs", (4, 4)), (RUN + DECLARED, "faint", (8, 9)),
        (f"{RUN}survey:\n  a: &a {{b: 1}}\n  c: {{<<: *a, d: 1, d: 2}}\n", "d", (6, 6)),
        (f"{RUN}survey:\n  - x\n  - {{true: 1, True: 2}}\n", "True", (6, 6)),
        (f"{RUN}0x10: 1\n16: 2\n", "16", (4, 5)), (f"{RUN}survey: {{<<: {{a: 1}}, <<: {{b: 1}}}}\n", "<<", (4, 4)),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused(tmp_path, text, key, lines):
    """YAML's loader would take the last one without a word."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    match = re.escape(f"{path} has the key {key!r} twice in one section, in lines {lines[0]} and {lines[1]}")
    for read in (RunFile.load, Engines.load, survey):
        with pytest.raises(ValueError, match=match):
            read(str(path))


def test_a_key_may_stand_in_two_sections_and_replace_a_merged_one(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: {x: {in: &in {<<: &far {k: 1}, k: 2}}}\nb: {<<: *in, k: 3}\nc: [*in, *in, *far]\n")
    assert yaml_files.read(path) == {"a": {"x": {"in": {"k": 2}}}, "b": {"k": 3}, "c": [{"k": 2}, {"k": 2}, {"k": 1}]}


@pytest.mark.parametrize(
    "url", ["s3://bucket/../other", "s3://bucket/a/../../b", "s3://bucket/a/./b", "s3://bucket//a", "s3://bu cket/a",
            "s3://../a", "http://host/a", "gs://b/a", "file+ssh://h/a", "data://x", "s3://b\n/a"],
)  # fmt: skip
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="allowed are a local path and s3://bucket/prefix"):
        Location.parse(url)


def test_local_paths_are_made_plain(tmp_path):
    assert Location.parse(f"{tmp_path}/a/../b").url == f"{tmp_path}/b"
    assert Location.parse(f"file://{tmp_path}/a/../b").url == f"{tmp_path}/b"


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "http://", "http://host?x=1", "http://host/#x", "host:9000", "http://h h"]
)
def test_other_endpoints_are_refused(endpoint, monkeypatch):
    with pytest.raises(ValueError, match="allowed are http://host:port and https://host:port"):
        Location.parse("s3://bucket/prefix", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ValueError, match="allowed are http://host:port and https://host:port"):
        Location.parse("s3://bucket/prefix")


def test_secrets_in_words_are_made_unreadable():
    text = f"GET https://k:{SECRET}@host/x?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&a=1 failed"
    assert without_secrets(text) == "GET https://***@host/x?X-Amz-Credential=***&X-Amz-Signature=***&a=1 failed"
    assert without_secrets("see https://host/a@b") == "see https://host/a@b"


# -- dependencies -----------------------------------------------------------------------------------------------------


def pins():
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def test_every_dependency_is_pinned_and_installed_as_pinned():
    """What is installed and needed by us, directly or not, has exactly one allowed version, and that version."""
    from packaging.requirements import Requirement

    wanted = {_plain(name): version for name, version in pins().items()}
    extras = sorted(importlib.metadata.metadata("sedflow-dist").get_all("Provides-Extra") or [])
    todo, seen = [("sedflow-dist", extra) for extra in ("", *extras)], set()
    wrong = {}
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here: nothing of it runs
        if name != "sedflow-dist" and wanted.get(name) != found.version.partition("+")[0]:
            wrong[name] = (found.version, wanted.get(name))
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(_plain(requirement.name), one) for one in ("", *requirement.extras)]
    assert len(seen) > 100
    assert not wrong


def test_pins_are_exact():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)


def test_what_is_installed_fits_together():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"], capture_output=True, text=True,
        env={**os.environ, "PIP_NO_INDEX": "1"}, check=False,
    )  # fmt: skip
    ours = {_plain(name) for name in pins()} | {"sedflow-dist"}
    lines = [line for line in done.stdout.splitlines() if _plain(line.split(" ")[0]) in ours]
    assert not lines


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
