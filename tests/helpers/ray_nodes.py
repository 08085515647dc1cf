"""Ray clusters of several nodes on this machine, each node a `ray start` of its own, so that it can be killed as one."""

import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tiny

#: Ray either refuses a second node or gives up loopback for the machine's own address.
_START = """
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.resolve_ip_for_localhost = lambda host: host
from ray.scripts.scripts import main
main()
"""
TOKEN = Path.home() / ".ray" / "auth_token"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class RayNodes:
    """A cluster that asks for a token: the first node is its head. ``before`` stands in front of a node's command."""

    def __init__(self, **environment):
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # names of sockets must be short
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0",
                            **environment}  # fmt: skip
        for name in ("RAY_ADDRESS", "RAY_JOB_ID"):
            self.environment.pop(name, None)
        self.nodes, self.address, self.dashboard = [], None, None
        if "RAY_AUTH_TOKEN_PATH" not in environment and not TOKEN.exists():
            subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, cpus=1, host="127.0.0.1", before=(), dashboard=False, **environment):
        """Start a node and wait for it."""
        command = [*before, sys.executable, "-c", _START, "start", "--block", f"--node-ip-address={host}",
                   f"--num-cpus={cpus}", "--object-store-memory=80000000", "--disable-usage-stats"]  # fmt: skip
        if self.address:
            command.append(f"--address={self.address}")
        else:
            port, dashboard_port = free_port(), free_port()
            self.address, self.dashboard = f"{host}:{port}", f"http://{host}:{dashboard_port}"
            command += ["--head", f"--port={port}", f"--temp-dir={self.folder}",
                        f"--ray-client-server-port={free_port()}", f"--include-dashboard={str(dashboard).lower()}",
                        f"--dashboard-host={host}", f"--dashboard-port={dashboard_port}",
                        "--dashboard-agent-listen-port=0"]  # fmt: skip
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True, env={**self.environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                                                             **environment})  # fmt: skip
        self.nodes.append(node)
        lines, said = queue.Queue(), ""
        threading.Thread(target=lambda: [lines.put(line) for line in node.stdout], daemon=True).start()
        end = time.monotonic() + 90
        while "Ray runtime started" not in said:
            assert time.monotonic() < end, said
            assert node.poll() is None or not lines.empty(), said
            try:
                said += lines.get(timeout=0.2)
            except queue.Empty:
                continue
        return node

    def kill(self, node):
        """SIGKILL everything of a node at once."""
        if node in self.nodes:
            self.nodes.remove(node)
        if node.poll() is None:
            tiny.kill_when(node, lambda: True)
