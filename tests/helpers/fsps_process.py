"""FSPS in a process of its own: code in, plain values out.

Each must print a token: FSPS's STOP ends a process with exit status 0, under pytest too, so that an exit status proves nothing.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from paths import ROOT


def in_subprocess(home: Path, code: str, folder: Path) -> dict[str, Any]:
    """Run ``code``, which knows ``folder`` and leaves a dict ``answer`` of plain values; return that.

    Raises:
        AssertionError: it printed no token; whatever its exit status
    """
    token = secrets.token_hex(16)
    script = (
        f"import json, pathlib\nimport numpy as np\nfolder = pathlib.Path({str(folder)!r})\n{textwrap.dedent(code)}\n"
        f"print('\\n{token}' + json.dumps(answer), flush=True)\n"
    )
    environment = {**os.environ, "SPS_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    answer = re.search(rf"^{token}(.*)$", child.stdout, re.MULTILINE)
    if answer is None:
        raise AssertionError(f"no token (exit status {child.returncode}); it printed:\n{child.stdout}")
    return json.loads(answer[1])
