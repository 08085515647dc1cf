"""The notebooks of examples/ run from their first cell to their last, and draw and print what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from paths import ROOT

NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))


def cells(name, kind="code"):
    notebook = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def run(name, where, **environment):
    """Run the cells of a notebook in a new process, in order, without a display; return what they printed.

    A plain interpreter: they hold no magics, so a kernel and its twenty packages would test nothing more.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells(name))], cwd=where, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": path, "SEDFLOW_LOG": "text"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder where the second notebook ran, and what it printed."""
    where = tmp_path_factory.mktemp("notebook")
    return where, run("file_to_figures", where)


def test_there_are_three_notebooks():
    assert NOTEBOOKS == ["file_to_figures", "one_galaxy", "two_priors"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs_and_explains_itself(name):
    notebook = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    assert cells(name, "markdown")[0].startswith("# ")
    assert not any(line.startswith(("!", "%")) for cell in cells(name) for line in cell.splitlines())


def test_one_galaxy_is_inferred_in_a_notebook(tmp_path):
    printed = run("one_galaxy", tmp_path)
    mass = float(printed.split()[0])
    assert 9.6 < mass < 10.3
    assert abs(float(printed.split()[-1])) < 0.1  # another seed


def test_a_file_becomes_a_catalog_and_figures(first):
    where, printed = first
    assert "'galaxy': 20" in printed
    for name in ("main_sequence.png", "effective_draws.png", "first.parquet"):
        assert (where / name).stat().st_size > 1000


def test_a_catalog_in_object_storage_is_read_under_two_priors(first, s3_server, tmp_path):
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    where: Path = first[0] / "first"
    for file in where.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "galaxies", f"first/{file.relative_to(where)}")
    printed = run(
        "two_priors",
        tmp_path,
        AWS_ENDPOINT_URL=s3_server,
        AWS_REGION="us-east-1",
        SEDFLOW_CATALOG="s3://galaxies/first",
    )
    assert "'galaxy': 20" in printed
    assert (tmp_path / "two_priors.png").stat().st_size > 1000
    assert len((tmp_path / "dusty.csv").read_text().splitlines()) == 4
