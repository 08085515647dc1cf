"""Secrets leave no process: not in a message, an event or a log, through a link, or by a redirect to another server."""

import json
import logging
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import zarr

from cluster.settings import Engines
from jobs.config.run_file import RunFile
from jobs.telemetry import events, progress
from jobs.train import _filesystem
from sedflow_dist.flow.trained_model import TrainedModel
from storage_schemas import model as model_store
from storage_schemas.backend import credentials, redaction
from storage_schemas.backend.faults import explain
from storage_schemas.backend.location import Location, check_endpoint
from storage_schemas.backend.redaction import without_secrets
from storage_schemas.catalog import schema as catalog

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE"
TEXTS = [
    "s3://AKIA:{}@bucket/key", "s3://:{}@bucket", "https://user:{}@host:9000/x", "user:{}@host:9000", "AKIA:{}@bucket",
    "https://a.blob.core.windows.net/c?sv=1&sig={}&se=2", "s3://b/x?aws_secret_access_key={}&y=1", "s3://b/x?token={}",
    "https://h/x?X-Amz-Security-Token={}&X-Amz-Date=1", "https://h/x?X-Goog-Signature={}", "https://h/x?key={}",
    "AccountName=a;AccountKey={};x", "AWS_SESSION_TOKEN={}", "{{'aws_secret_access_key': '{}'}}", '{{"password": "{}"}}',
    "x-amz-security-token: {}", "Authorization: Bearer {}", "private_key = '{}'", "aws_secret_access_key = {}",
]  # fmt: skip


@pytest.mark.parametrize("form", TEXTS)
def test_secrets_are_known_by_their_form(form):
    found = without_secrets(f"GET {form.format(SECRET)} failed twice")
    assert SECRET not in found and "K7MDENG" not in found
    assert found.startswith("GET ") and found.endswith("failed twice")


@pytest.mark.parametrize(
    "text",
    [
        "see https://host/a@b", "no object s3://bucket/a@b/c", "no credentials for S3: set AWS_ACCESS_KEY_ID", "12:30:05 a@b",
        "RAY_AUTH_TOKEN_PATH: there is no file /home/me/token", "dask.kubernetes.tls_secret: String should match pattern",
        "has another token than ours, or there is none: RAY_AUTH_TOKEN", "image a/b:1@sha256:0123", "row 5: flux = 3.0",
        "/data/a:b/c.fits", "tcp://10.0.0.1:8786", '{"event": "chunk", "run": "a@b"}',
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_readable(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "MINIO_PASSWORD", "X_API_KEY"]
)
def test_secrets_of_the_environment_are_known_by_value(name, monkeypatch):
    monkeypatch.setenv(name, SECRET)
    assert "K7MDENG" not in without_secrets(f"the server said {SECRET}, and wJalrXUtnFEMI%2FK7MDENG%2FbPxRfiCYEXAMPLE")


def test_rays_token_and_found_credentials_are_known_by_value(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef0123\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "aws").write_text(f"[default]\naws_access_key_id = AKIAAAAA\naws_secret_access_key = {SECRET}\n")
    for other in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws"))
    monkeypatch.setattr(credentials, "_last", None)
    monkeypatch.setattr(redaction, "_found", set())
    assert credentials.for_obstore()["secret_access_key"] == SECRET
    assert without_secrets(f"a {SECRET} b 0123456789abcdef0123 c") == "a *** b *** c"
    monkeypatch.setattr(credentials, "_last", None)


def test_events_messages_and_logs_are_without_secrets(monkeypatch, capsys, caplog):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for form in ("json", "text"):
        monkeypatch.setenv("SEDFLOW_LOG", form)
        events.emit("warning", message=f"a {SECRET}", more={"x": [f"s3://k:{SECRET}@b"]})
        progress.say("infer", f"b {SECRET} \x1b[31m")
    logging.getLogger("distributed.worker").error("Compute failed: %s", SECRET)
    try:
        raise OSError(f"at {SECRET}")
    except OSError:
        logging.getLogger("other").exception("c %s", SECRET)
    said = capsys.readouterr().err
    assert said.count("***") >= 3 and "infer" in said and "\x1b" not in said
    assert SECRET not in said + caplog.text
    assert "Compute failed: ***" in caplog.text
    assert SECRET not in explain(OSError(f"no bucket {SECRET}"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:{}@bucket/x",
        "s3://bucket/x?sig={}",
        "s3://bucket/x?aws_secret_access_key={}",
        "s3://bucket/x?token={}",
    ],
)
def test_places_with_secrets_are_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="holds credentials") as caught:
        Location.parse(url.format(SECRET))
    assert "MDENG" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["AKIA:{}@host:9000", "user:{}@host", "https://h?token={}", "//AKIA:{}@host"])
def test_endpoints_with_secrets_are_refused_and_not_repeated(endpoint):
    with pytest.raises(ValueError) as caught:
        check_endpoint(endpoint.format(SECRET))
    assert "MDENG" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["secret: '{}", "secret: [{}", "secret: *{}", "secret: !{} x", "secret: &{} x\nother: &{} y", "{}: a: b", "@{}", "a: \"{}"],
)  # fmt: skip
@pytest.mark.parametrize("read", [RunFile.load, Engines.load])
def test_a_line_that_is_no_yaml_is_named_and_not_quoted(tmp_path, line, read):
    name = SECRET.replace("/", "")
    (tmp_path / "x.yaml").write_text("name: x\n" + line.replace("{}", name))
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "x.yaml")
    assert name not in str(caught.value)
    assert "x.yaml" in str(caught.value)
    if "is not YAML" in str(caught.value):
        assert "line " in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "content",
    ["dask: {{address: 'tcp://user:{}@host:1'}}", "ray: {{address: '{}'}}", "dask: {{password: {}}}", "dask: {}"],
)
def test_a_profile_with_a_secret_does_not_repeat_it(tmp_path, content):
    (tmp_path / "p.yaml").write_text(content.format(SECRET))
    with pytest.raises(ValueError) as caught:
        Engines.load(tmp_path / "p.yaml")
    assert "MDENG" not in str(caught.value)


# -- files that are not ours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [model_store.SPEC, model_store.WEIGHTS])
def test_a_link_within_a_model_is_not_followed(flow, tmp_path, name):
    where = Location.parse(tmp_path / "model")
    model_store.write(where, *flow.to_bytes())
    (tmp_path / "credentials").write_text(f"[default]\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to(tmp_path / "credentials")
    with pytest.raises(ValueError, match="is a symbolic link") as caught:
        model_store.read(where)
    assert SECRET not in str(caught.value)


def test_a_model_whose_folder_is_a_link_is_read(flow, tmp_path):
    model_store.write(Location.parse(tmp_path / "model"), *flow.to_bytes())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(tmp_path / "model")
    assert model_store.read(Location.parse(tmp_path / "run") / "model") == flow.to_bytes()


@pytest.mark.parametrize(
    "content",
    [f"[default]\naws_secret_access_key = {SECRET}\n", json.dumps({"private_key": SECRET, SECRET: 1}), f'"{SECRET}"',
     json.dumps({"bands": SECRET, "transforms": SECRET, "amplitude": SECRET, "prior": {SECRET: [0, 1]}})],
)  # fmt: skip
def test_a_specification_that_is_none_is_not_quoted(flow, content):
    weights, _ = flow.to_bytes()
    with pytest.raises(ValueError, match="not the specification of a flow") as caught:
        TrainedModel.from_bytes(weights, content.encode())
    assert "MDENG" not in str(caught.value) and caught.value.__suppress_context__
    with pytest.raises(ValueError, match="not a safetensors file") as caught:
        TrainedModel.from_bytes(len(content).to_bytes(8, "little") + content.encode(), flow.to_bytes()[1])
    assert "MDENG" not in str(caught.value) and caught.value.__suppress_context__


# -- redirects --------------------------------------------------------------------------------------------------------------


@contextmanager
def server(to=None, only=""):
    """Serve on loopback, and yield its URL and what was asked; with ``to``, send requests on whose path has ``only``."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            away = to and only in self.path
            self.send_response((303 if self.command in ("PUT", "POST") else 307) if away else 200)
            if away:
                self.send_header("Location", to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield made.server_address[1], asked
    finally:
        made.shutdown()
        made.server_close()


WAYS = {
    "put": lambda place: place.put("x", b"1"),
    "get": lambda place: place.get("x"),
    "list": lambda place: list(place.list()),
    "remove": lambda place: place.remove(),
    "zarr": lambda place: zarr.open_group(place.zarr(), mode="a"),
    "a catalog": lambda place: catalog.repository(place, create=True),
    "the checkpoints of a training": lambda place: _filesystem(place)[0].get_file_info("bucket/x"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_takes_no_credentials_to_another_server(way, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SessionTokenOfThisTest")
    monkeypatch.setattr(credentials, "_last", None)
    with server() as (other, reached), server(f"http://127.0.0.1:{other}") as (port, _):
        with pytest.raises(Exception) as caught:
            WAYS[way](Location.parse("s3://bucket/p", f"http://127.0.0.1:{port}", tries=1, timeout=2))
        assert reached == []
        if way != "a catalog":  # Icechunk's client does not follow
            assert f"sends requests on to http://127.0.0.1:{other}" in str(caught.value)
    monkeypatch.setattr(credentials, "_last", None)


def test_a_redirect_of_single_objects_reaches_no_other_host(monkeypatch):
    """The endpoint lists its bucket as it should, and sends readers of objects elsewhere."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SessionTokenOfThisTest")
    monkeypatch.setattr(credentials, "_last", None)
    with server() as (other, reached), server(f"http://localhost:{other}", only="/p/x") as (port, asked):
        place = Location.parse("s3://bucket/p", f"http://127.0.0.1:{port}", tries=1, timeout=2)
        with pytest.raises(Exception):  # noqa: B017
            place.get("x")
        assert any("x-amz-security-token" in headers for _, _, headers in asked)  # it was asked, as an S3 service is
        assert reached == []
    monkeypatch.setattr(credentials, "_last", None)


def test_the_question_before_the_first_request_holds_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SessionTokenOfThisTest")
    with server() as (port, asked):
        Location.parse("s3://bucket/p", f"http://127.0.0.1:{port}").refuse_redirects()
        ((_, path, headers),) = asked
    assert path == "/bucket?list-type=2&max-keys=1"
    assert not {"authorization", "x-amz-security-token"} & set(headers)
    assert os.environ["AWS_SESSION_TOKEN"] not in json.dumps(headers)
