"""Processes that start in no time: a clean process, which has imported the commands once, forks them.

For what must be a process of its own, with limits, an environment or an end of its own; `commands.sedflow` is for the rest.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

_CONTEXT = multiprocessing.get_context("forkserver")


def serve():
    """Start the server, unless it is there; Dask's workers are forked by the same.

    Its own environment is that of its first use, which may be another test's, without credentials for example.
    """
    _CONTEXT.set_forkserver_preload(
        ["forked", "writers", "jobs.cli.main", "jobs.infer", "jobs.ingest.job", "distributed"]
    )
    # Python 3.11 does not tell the server where modules are, and where one is not found it says nothing.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()


def start(function, *arguments):
    """Start a function of a module of tests/helpers in a process of its own, with the environment as it is now; return that."""
    serve()
    process = _CONTEXT.Process(target=_in, args=(dict(os.environ), function, arguments))
    process.start()
    return process


def _in(environment, function, arguments):
    """Call a function in an environment."""
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def sedflow(*arguments, cwd=None, limits=None, timeout=300, **environment):
    """Run a command; return exit code, standard output and standard error.

    ``limits`` are those of the process by the name that `resource` has for them, such as {"RLIMIT_NOFILE": (40, 40)}.
    """
    command = ["sedflow", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        wanted = {**os.environ, **environment}
        process = start(_command, command, str(cwd or os.curdir), limits or {}, wanted, *map(str, said))
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in said))


def _command(command, folder, limits, environment, out, err):
    """Be that command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = command
    sys.dont_write_bytecode |= bool(limits)  # what cannot be written whole would be read by everybody afterwards
    for name, values in limits.items():
        resource.setrlimit(getattr(resource, name), values)
    from jobs.cli.main import main

    main()
