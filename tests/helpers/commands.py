"""Commands in the test's own process: a new interpreter would take seconds for its imports, as often as there are commands."""

import io
import signal
import subprocess
import sys
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from unittest import mock

from jobs.cli.main import main


def sedflow(*arguments, cwd=None):
    """Run a command through its entry point; return exit code, standard output and standard error as of a process."""
    command = ["sedflow", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(sys, "argv", command), chdir(cwd) if cwd else nullcontext(),
            redirect_stdout(out), redirect_stderr(err),
        ):  # fmt: skip
            main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.set_wakeup_fd(-1)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
