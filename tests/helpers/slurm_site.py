"""A real Slurm on this machine: a controller and two nodes, each a namespace of processes and network of its own.

All of it is children of one process: when that ends, the kernel ends everything, Slurm's jobs included.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

#: What has to be there, and where Debian has it (tests/debian_packages.sh).
COMMANDS = {
    "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge", "tini": "tini", "ip": "iproute2",
    "nsenter": "util-linux", "setpriv": "util-linux",
}  # fmt: skip
NODES = {"n1": "10.77.15.1", "n2": "10.77.15.2"}
CONTROLLER = "10.77.15.254"
#: Network interface that the nodes share.
INTERFACE = "node0"

#: Times are short so that losses are noticed soon; a requeued job may start after `cred_expire`.
_CONF = """
ClusterName=tests
SlurmctldHost=control({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
PropagateResourceLimits=NONE
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
SlurmdTimeout=30
MessageTimeout=60
SchedulerParameters=bf_interval=5
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""
_NODE = "NodeName={name} NodeHostname={name} NodeAddr={address} Sockets=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=16000"

#: Makes namespaces whose processes end with it. Orphans need an init: else `ray stop` would wait for what has ended.
_NAMESPACES = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


def missing() -> list[str]:
    """What is needed and is not here, in words; empty: all is."""
    absent = sorted({f"{package} ({command})" for command, package in COMMANDS.items() if not shutil.which(command)})
    return absent if os.geteuid() == 0 else ["root, for namespaces", *absent]


class SlurmSite:
    """A cluster of two nodes of two cores; ``home`` is the home folder that all see, and ``bin`` stands first in PATH."""

    def __init__(self, bin_folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)  # munge's user reads below it
        self.home = self.folder / "home"
        for name in ("home", "state", "munge", *(f"ray-{name}" for name in NODES)):
            (self.folder / name).mkdir()
        Path("/tmp/ray").mkdir(exist_ok=True)  # each node puts one of its own over it: what runs there is written in it
        conf = self.folder / "slurm.conf"
        nodes = "\n".join(_NODE.format(name=name, address=address) for name, address in NODES.items())
        conf.write_text(_CONF.format(folder=self.folder, controller=CONTROLLER, nodes=nodes))
        hosts = {"localhost": "127.0.0.1", "control": CONTROLLER, **NODES}
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
        # Of the tests' own environment what makes Ray quicker beside others (conftest.py), and nothing else.
        keep = {
            name: value for name, value in os.environ.items() if name.startswith(("LANG", "RAY_TRAIN_", "RAY_worker_"))
        }
        self.environment = {
            **keep, "HOME": str(self.home), "SLURM_CONF": str(conf), "PATH": f"{bin_folder}:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        self.bin, self.nodes, self._started = bin_folder, {}, []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self._started):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what there is ---------------------------------------------------------------------------------------------------

    def _spawn(self, *command: str, log: str) -> subprocess.Popen:
        """Start what ends with this process, whatever ends this one."""
        with open(self.folder / log, "ab") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, cwd=self.folder,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _start(self) -> None:
        outer = self._spawn(
            *_NAMESPACES, "tini", "sleep", "infinity", log="site.log"
        )  # fmt: skip
        self.pid = _child(outer)
        self.run(
            "bash",
            "-euc",
            f"""hostname control; mount --bind {self.folder}/hosts /etc/hosts; ip link set lo up
            ip link add bridge0 type bridge; ip address add {CONTROLLER}/24 dev bridge0; ip link set bridge0 up""",
        )
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge", "munge")
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._spawn(
            *self._inside(), "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground",
            *(f"--{option}={munge / name}" for option, name in files.items()), log="munged.log",
        )  # fmt: skip
        self.wait((munge / "socket").exists, 30, "munged's socket")
        self._spawn(*self._inside(), "slurmctld", "-D", "-c", log="slurmctld.out")
        for name in NODES:
            self.start_node(name)

    def start_node(self, name: str) -> None:
        """Start a node and wait until Slurm takes jobs for it."""
        script = f"""hostname {name}; mount --bind {self.folder}/ray-{name} /tmp/ray; ip link set lo up
            until ip link set {INTERFACE} up 2> /dev/null; do sleep 0.1; done
            ip address add {NODES[name]}/24 dev {INTERFACE}; exec slurmd -D -N {name}"""
        node = self._spawn(*self._inside(), *_NAMESPACES, "tini", "--", "bash", "-euc", script, log=f"{name}.out")
        self.nodes[name] = node
        inner = _child(node, "tini")
        outside = f"to-{name}"
        wire = ["nsenter", "--target", str(self.pid), "--net", "ip", "link"]
        subprocess.run(
            [*wire, "delete", outside], check=False, stderr=subprocess.DEVNULL
        )  # of a lost node, if it is still there
        subprocess.run(
            [*wire, "add", outside, "type", "veth", "peer", "name", INTERFACE, "netns", str(inner)], check=True
        )
        subprocess.run([*wire, "set", outside, "master", "bridge0", "up"], check=True)
        self.wait(lambda: self.run("sinfo", "-hN", "-n", name, "-o", "%t").strip() == "idle", 60, f"node {name}")

    def kill_node(self, name: str) -> None:
        """End everything on a node at once, as a loss of power does."""
        inner = _child(self.nodes[name], "tini")
        os.kill(inner, signal.SIGKILL)
        self.nodes.pop(name).wait()

    # -- use -------------------------------------------------------------------------------------------------------------

    def _inside(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid", f"--wd={self.home}", "--"]

    def run(self, *command: str, **environment: str) -> str:
        """Run a command where the controller is; what it said."""
        done = subprocess.run(
            [*self._inside(), *command], env={**self.environment, **environment}, cwd=self.home, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def submit(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> str:
        """Submit a job; its number."""
        return self.run("sbatch", "--parsable", *map(str, arguments), **(environment or {})).strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.run("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, number: str, states: tuple[str, ...], seconds: float) -> dict[str, str]:
        """Wait until a job is in one of some states."""
        self.wait(lambda: self.job(number)["JobState"] in states, seconds, f"{states} of job {number}")
        return self.job(number)

    def done(self, number: str, seconds: float = 900) -> dict[str, str]:
        """Wait for the end of a job."""
        return self.wait_for(
            number, ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"), seconds
        )

    def wait(self, condition, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s\n{self.logs()}"
            time.sleep(0.5)

    def log(self, job: str) -> str:
        """What a job of ours has said so far."""
        return "".join(path.read_text() for path in sorted(self.home.glob(f"*-{job}.log")))

    def logs(self) -> str:
        """The ends of all logs, for errors."""
        files = [
            *self.folder.glob("*.log"),
            *self.folder.glob("*.out"),
            *self.home.glob("*.log"),
            *self.home.glob("*.out"),
        ]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in files)


def _child(process: subprocess.Popen, name: str = "") -> int:
    """The init of the namespace that a process made, as our own namespace numbers it; ``name``, for errors."""
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        assert time.monotonic() < end, f"{process.args} has no child {name}"
        pid = process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
            if Path(f"/proc/{pid}/comm").read_text().strip() == "tini":
                return pid
        time.sleep(0.05)
