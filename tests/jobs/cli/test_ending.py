"""How commands end: in one message whatever went wrong, within seconds of a signal, and before limits make them hang."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest
import tiny
from forked import sedflow
from paths import ROOT
from pydantic import ValidationError

from cluster import ray_place
from cluster.settings import RaySettings
from jobs.cli import ending
from storage_schemas.backend.faults import explain, may_pass

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE"


def in_a_new_interpreter(*arguments, cwd=None, limits=None, **environment):
    # -P: as the console script, which does not look for modules in the working folder
    return subprocess.run(
        [sys.executable, "-P", "-m", "jobs.cli", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, preexec_fn=limits, timeout=300,
    )  # fmt: skip


# -- errors -----------------------------------------------------------------------------------------------------------------


def raised(kind, *arguments):
    try:
        raise kind(*arguments)
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("flux"), "KeyError: 'flux'"), (IndexError("index 5"), "IndexError: index 5"),
        (TypeError("no"), "TypeError: no"),
        (OverflowError("too large"), "OverflowError: too large"), (ZeroDivisionError("x"), "ZeroDivisionError"),
        (AttributeError("x"), "AttributeError"), (AssertionError(), "AssertionError, in"),
        (RecursionError("deep"), "RecursionError"),
        (StopIteration(), "StopIteration"), (ValueError(), "ValueError, in"), (MemoryError(), "memory is full, in"),
        (MemoryError("Unable to allocate 7 PiB"), "(Unable to allocate 7 PiB)"), (EOFError(), "EOFError"),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_that_nobody_foresaw_say_where_and_what_to_do(error, words):
    said = ending.words(raised(type(error), *error.args))
    assert words in said
    assert "rows_per_shard" in said if isinstance(error, MemoryError) else "SEDFLOW_TRACEBACK=1" in said
    assert "\n" not in said


def test_errors_in_words_stay_as_they_are_and_name_no_place():
    assert ending.words(raised(ValueError, "row 3 is bad")) == "row 3 is bad"
    assert ending.words(raised(ModuleNotFoundError, "pip install x")) == "pip install x"


def test_the_place_is_the_last_of_ours():
    with pytest.raises(TypeError) as caught:
        ending._without_traceback(None)
    assert "in _without_traceback (jobs/cli/ending.py, line " in ending.words(caught.value)


def test_tracebacks_of_other_processes_are_told_by_their_last_line():
    text = "ray::fill() (pid=1)\nTraceback (most recent call last):\n  File x, line 1\nValueError: row 3 is bad\n"
    assert ending.words(RuntimeError(text)) == "ray::fill() (pid=1) ValueError: row 3 is bad"


def test_settings_that_are_not_valid_are_told_without_pydantics_own_form():
    with pytest.raises(ValidationError) as caught:
        RaySettings.model_validate({"actors": 0, "secret_key": SECRET})
    said = ending.words(caught.value)
    assert "actors: Input should be greater than or equal to 1 (found 0)" in said
    assert SECRET not in said and "errors.pydantic.dev" not in said


def test_a_command_shows_its_traceback_when_asked_and_no_secret_in_it(tmp_path):
    (tmp_path / "p.csv").write_text("log_mstar\n1\n")
    for wanted in ("0", "1"):
        done = sedflow("flux", f"s3://k:{SECRET}@b/\x1b[31m", "--out", tmp_path / "o.csv", SEDFLOW_TRACEBACK=wanted)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == (wanted == "1")
        assert "MDENG" not in done.stderr and "\x1b" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("sedflow: ")


# -- signals ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent():
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        kept = []

        def accept():
            while True:
                try:
                    kept.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], kept
        server.shutdown(socket.SHUT_RDWR)


_SHOW, _SIMULATE = (("catalog", "show", "s3://bucket/x"), 1), (("simulate", "demo", "--root", "s3://bucket/x"), 2)


@pytest.mark.parametrize(
    ("command", "requests", "number"),
    [
        (*_SHOW, signal.SIGTERM), (*_SIMULATE, signal.SIGINT),
        pytest.param(*_SHOW, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(*_SIMULATE, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=str,
)  # fmt: skip
def test_a_signal_ends_a_command_while_storage_is_silent(silent, tmp_path, command, requests, number):
    """Icechunk's first request waits; obstore's second, after the question about redirects, which is given up on."""
    port, asked = silent
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command], stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
             "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job begins with it ignored
    )  # fmt: skip
    end = time.monotonic() + 120
    while len(asked) < requests:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    family = psutil.Process(process.pid).children(recursive=True)
    start = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start < ending.GRACE + 4
    assert process.returncode not in (0, None)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert said.count("told to end (SIGTERM); what is committed stays") == 1
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


# -- limits of the machine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("status", "demo"), ("doctor",), ("simulate", "demo")], ids=" ".join)
def test_too_few_open_files_are_said_at_once(tmp_path, command):
    start = time.monotonic()
    if command == ("doctor",):
        few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (40, 40))  # also while modules are imported
        done = in_a_new_interpreter(*command, cwd=tmp_path, limits=few)
    else:
        done = sedflow(*command, cwd=tmp_path, limits={"RLIMIT_NOFILE": (40, 40)})
    assert done.returncode == 1
    assert "may have 40 files open" in done.stderr and "ulimit -n 4096" in done.stderr
    assert time.monotonic() - start < 60


def test_a_low_limit_that_may_be_raised_is_raised(tmp_path):
    done = sedflow("plan", "demo", "--root", tmp_path / "x", limits={"RLIMIT_NOFILE": (40, 5000)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("session error: invalid snapshot timestamp ordering. parent: `2026`, child: `2025`", "behind that of whoever"),
        ("snapshot timestamp is invalid, please verify if the machine clock has drifted", "off storage's"),
        ("<Code>RequestTimeTooSkewed</Code>", "off S3's"),
    ],
)  # fmt: skip
def test_clocks_that_differ_are_said(text, words):
    assert words in explain(OSError(text)) and "the clock of this machine" in explain(OSError(text))
    assert may_pass(OSError(text)) == ("ordering" in text)  # behind by seconds: later it is not


# -- where a command runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [pytest.param("ray", marks=pytest.mark.slow), "dask"])
def test_modules_in_the_working_folder_are_not_taken_for_ours(source, tmp_path_factory, engine):
    """And a home that is none, and a folder for temporary files whose name is too long for Ray's sockets."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("jobs", "cluster", "storage_schemas", "sedflow_dist", "numpy", "ray", "distributed"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('theirs: {name}')\n")
    long = folder / ("t" * 120)
    long.mkdir()
    run = tiny.settings(folder / "run", source, simulation={"n_galaxies": 1000, "rows_per_chunk": 500})
    surroundings = {"HOME": "/dev/null", "TMPDIR": str(long), "RAY_AUTH_MODE": "token"}
    command = "simulate" if engine == "ray" else "ingest"
    done = in_a_new_interpreter(
        command, *tiny.write(run, folder / "run.yaml")[: 3 if engine == "ray" else 1], cwd=folder, **surroundings
    )
    assert done.returncode == 0, done.stderr
    assert run.store("training" if engine == "ray" else "photometry").exists()
    assert "theirs" not in done.stderr


def test_a_module_of_the_working_folder_does_not_hide_ours_from_python_m(tmp_path):
    for name in ("cluster", "storage_schemas"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('theirs')\n")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "--help"], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_rays_token_is_its_owners_alone(home):
    with ray_place.token(create=True):
        file = home / ".ray" / "auth_token"
        assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
        made = file.read_text()
        assert len(made) == 64
    file.chmod(0o644)  # as Ray makes it
    with ray_place.token(create=False):
        assert file.stat().st_mode & 0o777 == 0o600 and file.read_text() == made
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_no_token_is_made_for_a_cluster_that_has_its_own(home):
    with ray_place.token(create=False):
        assert not (home / ".ray").exists() and "RAY_AUTH_TOKEN" not in os.environ


def test_a_home_that_cannot_be_written_to_gives_a_token_of_the_process(monkeypatch, home):
    monkeypatch.setenv("HOME", "/dev/null")
    with ray_place.token(create=True):
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_sockets_go_where_their_names_fit(monkeypatch, tmp_path, name):
    for other in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(other, raising=False)
    with ray_place.folder() as there:
        assert there is None
    monkeypatch.setenv(name, str(tmp_path / ("é" * 30)))
    with ray_place.folder() as there:
        assert len(there) < 30 and os.stat(there).st_mode & 0o777 == 0o700
    assert not os.path.exists(there)
    monkeypatch.setattr(
        ray_place.tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(OSError, match=r"too long for Ray's sockets .* set RAY_TMPDIR"), ray_place.folder():
        pass
