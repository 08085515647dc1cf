"""Workers of Ray that start in no time: a process that has imported what they need forks them, as `forked` does for commands.

A worker that trains or simulates imports for 4 s of a core, as often as there are workers. Inside `workers`, a raylet starts
this file in place of Ray's setup_worker.py; it has a worker forked with its own arguments, environment and outputs, and ends
when that does. How Ray starts workers itself is what tests/cluster look at.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from unittest import mock

_SOCKET = "SEDFLOW_TESTS_FORK_RAY"  # names the server's socket
#: What Ray, its Train and our jobs import, but nothing that imports Ray: it reads a worker's environment when it is imported.
_MORE = (
    "jobs.config.run_file",
    "jobs.telemetry.progress",
    "pandas",
    "pyarrow.fs",
    "torch.distributed",
    "aiohttp",
    "jsonschema",
)


# -- in a process of tests ------------------------------------------------------------------------------------------------


@contextmanager
def workers():
    """Let a cluster of Ray that is started on this machine in this block have forked workers."""
    from ray._private import ray_constants

    with (
        mock.patch.dict(os.environ, {_SOCKET: _server()}),
        mock.patch.object(ray_constants, "SETUP_WORKER_FILENAME", __file__),
    ):
        yield


@cache
def _server():
    """Start the server, which ends with this process; return its socket."""
    path = os.path.join(tempfile.mkdtemp(prefix="ray-"), "fork")
    ours = [name for name in sys.modules if name.partition(".")[0] in ("sedflow_dist", "storage_schemas")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", path, *ours], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert server.stdout.readline() == b"ready\n", "the server did not start"
    _alive.append(server)  # its input is open as long as this process lives
    return path


_alive = []


# -- the server -----------------------------------------------------------------------------------------------------------


def _serve(path, modules):
    """Import, then fork a worker for everyone who asks, until the input ends."""
    for name in (*modules, *_MORE):
        import_module(name)
    assert "ray" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _alive.append(asking)  # which hears of this worker's end
                _work(asking)
                return
            asking.close()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def _work(asking):
    """Be the worker that is asked for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(asking, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with asking.makefile("rb") as said:
        told = json.loads(said.readline())
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = told["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])  # as for any script
    runpy.run_path(sys.argv[0], run_name="__main__")


# -- what a raylet starts -------------------------------------------------------------------------------------------------


def _start():
    """Take the arguments of setup_worker.py; of what a runtime environment can be, tests have variables."""
    own = dict(
        argument.split("=", 1)
        for argument in sys.argv[1:]
        if argument.startswith(("--serialized-runtime", "--language="))
    )
    assert own["--language"] == "PYTHON"
    context = json.loads(own.get("--serialized-runtime-env-context") or "{}")
    arguments = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in own]
    told = {"arguments": arguments, "environment": {**os.environ, **context.get("env_vars", {})}, "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(os.environ[_SOCKET])
        socket.send_fds(asking, [b" "], [0, 1, 2])
        asking.sendall(json.dumps(told).encode() + b"\n")
        asking.recv(1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2], sys.argv[3:])
    else:
        _start()
