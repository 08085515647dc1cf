"""Bands of a run file: names and curves, read and checked there; what is made with a curve holds it, and its content counts."""

import json
import subprocess
import sys

import numpy as np
import pytest
import speclite.filters
import tiny
import yaml
from typer.testing import CliRunner

from jobs.cli.main import app
from jobs.config.run_file import RunFile, fingerprint
from jobs.serving import check
from sedflow_dist.curves import Curve
from sedflow_dist.flow import model_spec
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import photometry

SDSS_R = speclite.filters.load_filter("sdss2010-r")


def curve(path, stretch=1.0, scale=1.0):
    path.parent.mkdir(exist_ok=True)
    np.savetxt(path, np.c_[scale * SDSS_R.wavelength, np.asarray(SDSS_R.response) ** stretch], "%.17g")
    return path


def run_file(folder, band, **sections):
    """A run file beside a folder of curves, with a band between two of SDSS."""
    survey = {
        "name": "mine", "bands": ["sdss2010-g", band, "sdss2010-i"], "labels": ["g", "r", "i"], "flux": ["F_G", "F_R", "F_I"],
        "error": ["E_G", "E_R", "E_I"],
    }  # fmt: skip
    content = {"name": "run", "root": str(folder / "root"), "input": "a.fits", "survey": survey, **sections}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def bands(path):
    return RunFile.load(path).survey_definition.bands


def test_paths_are_relative_to_the_run_file(tmp_path, monkeypatch):
    curve(tmp_path / "curves" / "my-r.dat")
    path = run_file(tmp_path, "curves/my-r.dat")
    monkeypatch.chdir("/")
    assert [str(band).partition(" ")[0] for band in bands(path)] == ["sdss2010-g", "my-r", "sdss2010-i"]
    mapping = {"file": str(tmp_path / "curves" / "my-r.dat"), "detector": "energy", "name": "R"}
    found = bands(run_file(tmp_path, mapping))[1]
    assert (found.name, found.detector) == ("R", "energy")


def test_a_run_that_travels_holds_its_curves(tmp_path):
    """To actors, and as a submitted job: the file need not be there."""
    file = curve(tmp_path / "curves" / "my-r.dat")
    run = RunFile.load(run_file(tmp_path, "curves/my-r.dat"))
    file.unlink()
    travelled = yaml.safe_dump(run.model_dump(mode="json", exclude={"engines"}))
    (tmp_path / "run.yaml").write_text(travelled)
    for again in (RunFile.load(tmp_path / "run.yaml"), RunFile.model_validate_json(run.model_dump_json())):
        assert again.survey_definition == run.survey_definition
        assert fingerprint(again.survey_definition) == fingerprint(run.survey_definition)


@pytest.mark.parametrize("change", [{"stretch": 1.01}, {"scale": 1.001}])
def test_what_a_file_holds_is_part_of_keys_and_where_it_lies_is_not(change, tmp_path):
    curve(tmp_path / "curves" / "my-r.dat")
    one = RunFile.load(run_file(tmp_path, "curves/my-r.dat")).survey_definition
    (tmp_path / "elsewhere").mkdir()
    curve(tmp_path / "elsewhere" / "my-r.dat")
    moved = RunFile.load(run_file(tmp_path, "elsewhere/my-r.dat")).survey_definition
    curve(tmp_path / "curves" / "my-r.dat", **change)
    changed = RunFile.load(run_file(tmp_path, "curves/my-r.dat")).survey_definition
    assert fingerprint(one) == fingerprint(moved) != fingerprint(changed)


@pytest.mark.parametrize(
    ("band", "sections", "message"),
    [
        ("sdss-r", {}, "no band named 'sdss-r'; speclite's families are"), ("sdss2010", {}, "no band named 'sdss2010'"),
        ("curves/none.ecsv", {}, "curves/none.ecsv is no response curve: there is no such file"),
        ("run.yaml", {}, "run.yaml is no response curve"), ({"file": "curves/r.dat", "detector": "ccd"}, {}, "photon or energy"),
        ({"file": "curves/r.dat", "colour": "red"}, {}, "has no key 'colour'"),
        ({"file": "curves/nm.dat"}, {}, "band nm needs .*are the band's wavelengths in angstroms"),
        ("galex-fuv", {"model": {"redshift": [0.0, 20.0]}}, "band galex-fuv needs rest wavelengths .* for z = 0 to 20"),
    ],
)  # fmt: skip
def test_a_band_that_cannot_serve_is_one_line_where_the_run_file_is_read(band, sections, message, tmp_path):
    curve(tmp_path / "curves" / "r.dat")
    curve(tmp_path / "curves" / "nm.dat", scale=0.1)
    path = run_file(tmp_path, band, **sections)
    with pytest.raises(ValueError, match=message) as caught:
        RunFile.load(path)
    problems = str(caught.value).splitlines()
    assert problems[0] == f"{path} is not a valid run file:"
    assert len(problems) == 2  # and nothing of the other forms that a survey may have
    assert not (tmp_path / "root").exists()


def test_an_unknown_band_ends_a_run_at_once_and_in_words(tmp_path):
    for command in (["run"], ["plan"], ["simulate"]):
        found = CliRunner().invoke(app, [*command, str(run_file(tmp_path, "sdss-r"))])
        assert found.exit_code == 1, command
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "run", str(run_file(tmp_path, "sdss-r"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no band named 'sdss-r'" in done.stderr
    assert "Traceback" not in done.stderr


# -- what is made with a curve ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_curve(flow, tmp_path_factory):
    """The tests' model, its r band as a curve of its own, in bytes; and the curve, whose file is gone."""
    file = curve(tmp_path_factory.mktemp("curves") / "my-r.dat")
    mine = Curve.read(file)
    file.unlink()
    weights, spec = flow.to_bytes()
    content = json.loads(spec)
    content["bands"][2] = mine.model_dump(mode="json")
    return weights, json.dumps(content).encode(), mine


def test_a_model_works_without_the_files_of_its_curves(with_curve, flow):
    weights, spec, mine = with_curve
    model = TrainedModel.from_bytes(weights, spec)
    assert model.spec.bands[2] == mine
    assert model_spec.parse(model.to_bytes()[1]).bands == model.spec.bands
    ours, theirs = (found.redshift_model.model._band_table for found in (model, flow))
    assert (ours == theirs).all()  # of the same samples
    assert model.id != flow.id
    other = json.loads(spec)
    other["bands"][2]["response"][5] *= 1.001
    assert TrainedModel.from_bytes(weights, json.dumps(other).encode()).id != model.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": [float("nan")] * 3}, "bands"), ({"wavelength": [3.0, 2.0, 1.0]}, "bands"), ({"detector": "x"}, "bands"),
        ({"file": "/etc/passwd"}, "bands"),
    ],
)  # fmt: skip
def test_a_specification_with_an_impossible_curve_is_refused(with_curve, change, message):
    weights, spec, _ = with_curve
    content = json.loads(spec)
    content["bands"][2] |= change
    with pytest.raises(ValueError, match=message):
        TrainedModel.from_bytes(weights, json.dumps(content).encode())


def test_photometry_of_another_curve_is_not_answered(with_curve, tmp_path):
    weights, spec, mine = with_curve
    model, names = TrainedModel.from_bytes(weights, spec), [f"sdss2010-{b}" for b in "ugriz"]

    def store(name, band):
        settings = {"survey": {"bands": [*names[:2], band.model_dump(mode="json"), *names[3:]]}}
        made = photometry.create(tiny.location(tmp_path / name), 1, 1, tuple("ugriz"), {}, settings)
        values = {spec.name: np.zeros((1, 5) if "band" in spec.dims else 1, spec.dtype) for spec in photometry.ARRAYS}
        made.write(0, values)
        return made

    check(store("same", mine), model, tiny.location(tmp_path))
    other = Curve.model_validate({**mine.model_dump(), "detector": "energy"})
    with pytest.raises(ValueError, match=rf"my-r \(curve {other.digest}\).*trained on .*my-r \(curve {mine.digest}\)"):
        check(store("other", other), model, tiny.location(tmp_path))


def test_the_galaxy_model_takes_curves(with_curve, ssp):
    mine = with_curve[2]
    model = GalaxyModel(ssp, ["sdss2010-g", mine], 0.1)
    assert (model.weights.table[:, 1] == GalaxyModel(ssp, ["sdss2010-g", "sdss2010-r"], 0.1).weights.table[:, 1]).all()
