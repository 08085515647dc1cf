"""The three scripts for Slurm on a real one of two nodes: what they make, and what they make of lost nodes and ends of time."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import slurm_site
import tiny
import yaml
from manifests import DEPLOY
from slurm_site import SlurmSite

from jobs.config.run_file import RunFile
from storage_schemas import training_set
from storage_schemas.catalog import schema as catalog

BIN = Path(sys.executable).parent
SCRIPTS = DEPLOY / "slurm"
PROFILE = {
    "ray": {"address": "auto", "actors": 4},
    "dask": {
        "start": "slurm", "workers": 2, "memory_limit": "2 GiB",
        "slurm": {"cores": 1, "walltime": "00:30:00", "interface": slurm_site.INTERFACE},
    },
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site():
    if absent := slurm_site.missing():
        pytest.skip(f"no Slurm here, for want of {', '.join(absent)}; `sudo tests/debian_packages.sh` installs it")
    with SlurmSite(BIN) as site:
        # The folders that reprocess.scron names.
        (site.home / "sedflow" / "venv").mkdir(parents=True)
        (site.home / "sedflow" / "venv" / "bin").symlink_to(BIN)
        shutil.copy(SCRIPTS / "driver.sbatch", site.home / "sedflow")
        (site.home / "profile.yaml").write_text(yaml.safe_dump(PROFILE))
        site.run("ray", "get-auth-token", "--generate")
        yield site


@pytest.fixture
def run(site, source, request):
    """A tiny run in a folder of its own of the home of all nodes, its run file beside."""
    folder = site.home / request.node.name
    folder.mkdir()
    tiny.write(tiny.settings(folder / "run", source), folder / "run.yaml")
    return RunFile.load(folder / "run.yaml")


def arguments(run):
    return Path(run.root).parent / "run.yaml", "profile.yaml"


def night(site, run):
    """Submit what scrontab would: the line of reprocess.scron in a shell, with a bare PATH, from the home folder."""
    shutil.copy(arguments(run)[0], site.home / "sedflow" / "run.yaml")
    text = (SCRIPTS / "reprocess.scron").read_text()
    directives = re.findall(r"^#SCRON (.+)$", text, re.MULTILINE)
    (line,) = re.findall(r"^0 3 \* \* \* (.+)$", text, re.MULTILINE)
    script = site.home / "night.sh"
    script.write_text("#!/bin/sh\n" + "".join(f"#SBATCH {one}\n" for one in directives) + line + " profile.yaml\n")
    return site.submit(script, environment={"PATH": "/usr/bin:/bin"})


def finished(site, job):
    """Wait for a job that is to succeed; what Slurm knows of it."""
    found = site.done(job)
    assert found["JobState"] == "COMPLETED", f"{found}\n{site.log(job)}"
    return found


def nothing_is_left(site):
    """Workers are jobs of their own, and end with what asked for them."""
    site.wait(lambda: not site.run("squeue", "--noheader").strip(), 90, "an empty queue")


def test_the_three_scripts_make_what_one_machine_makes(site, run, local):
    job = site.submit(SCRIPTS / "driver.sbatch", "ingest", *arguments(run))
    finished(site, job)
    nothing_is_left(site)
    job = site.submit(SCRIPTS / "model.sbatch", *arguments(run))
    found = finished(site, job)
    assert (found["NumNodes"], found["NumCPUs"]) == ("2", "4")  # nodes have two cores, and are taken whole
    assert site.log(job).count("On worker node. Connecting to Ray cluster") == 2
    finished(site, job := night(site, run))
    assert "release-1" in site.log(job)
    nothing_is_left(site)
    tiny.assert_same(tiny.contents(local), tiny.contents(run))


def test_what_lost_nodes_and_ends_of_time_leave_is_gone_on_with(site, run, local):
    """Ingest is requeued, the model loses a node, the catalog's workers lose theirs, and its driver's time ends."""
    job = site.submit(SCRIPTS / "driver.sbatch", "ingest", *arguments(run))
    site.wait(lambda: "read" in site.log(job), 120, "the first words of ingest")
    said = site.log(job)
    site.run("scontrol", "requeue", job)
    assert finished(site, job)["Restarts"] == "1"
    assert site.log(job).startswith(said) and "ingest: done" in site.log(job)
    nothing_is_left(site)

    job = site.submit(SCRIPTS / "model.sbatch", *arguments(run))
    site.wait(lambda: "simulate  :" in site.log(job), 240, "simulated galaxies")
    site.kill_node("n2")
    site.wait_for(job, ("PENDING",), 120)
    said = site.log(job)
    site.start_node("n2")
    assert finished(site, job)["Restarts"] == "1"
    assert site.log(job).startswith(said)

    job = site.submit("--time=6", SCRIPTS / "driver.sbatch", "reprocess", *arguments(run))
    site.wait(lambda: "infer     :" in site.log(job), 120, "the first words of inference")
    site.kill_node("n2")  # the driver is on the first, its workers are not
    found = site.done(job)  # five minutes before its six are over
    assert found["JobState"] == "FAILED" and found["RunTime"] < "00:05:00", found
    assert "told to end (SIGTERM); what is committed stays" in site.log(job)
    nothing_is_left(site)
    site.start_node("n2")
    finished(site, job := site.submit(SCRIPTS / "driver.sbatch", "reprocess", *arguments(run)))
    nothing_is_left(site)
    assert catalog.repository(run.store("catalog")).list_tags() == {"release-1"}
    assert not training_set.open(run.store("training")).missing()
    tiny.assert_same(tiny.contents(local), tiny.contents(run))


def test_what_is_not_installed_is_said(site, run):
    """scrontab's PATH has no environment in it, and its working folder holds one called sedflow."""
    job = site.submit(SCRIPTS / "driver.sbatch", "reprocess", *arguments(run), environment={"PATH": "/usr/bin:/bin"})
    assert site.done(job)["ExitCode"] == "127:0"
    assert "no command sedflow on n1 in PATH=/usr/bin:/bin" in site.log(job)
