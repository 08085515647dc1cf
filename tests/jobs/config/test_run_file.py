"""What a run file may say: a key that is wrong is told of in one line, with what is allowed and what was found."""

import pytest
import yaml

from jobs.config.run_file import RunFile

SURVEY = {"name": "x", "bands": ["sdss2010-g", "sdss2010-r", "sdss2010-i"], "labels": ["g", "r", "i"], "flux": ["G", "R", "I"],
          "error": ["EG", "ER", "EI"]}  # fmt: skip


def refused(folder, **sections):
    """The lines that refuse a run file, below the one that names it."""
    content = {"name": "x", "root": str(folder / "root"), "input": "a.fits", **sections}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"is not a valid run file") as caught:
        RunFile.load(folder / "run.yaml")
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("ids", "id", "survey.ids: a list is expected, as [id] (found 'id')"),
        ("not_detected", 99, "survey.not_detected: a list is expected, as [99] (found 99)"),
        ("floor", 0.02, "survey.floor: a list is expected, as [0.02] (found 0.02)"),
        ("bands", "x", "survey.bands: a list is expected, as [x] (found 'x')"),
        ("cuts", {"s": {"column": "CLASS", "classes": "STAR"}},
         "survey.cuts.s.classes: a list is expected, as [STAR] (found 'STAR')"),
        ("ids", "ab/0123456789012345678901", "survey.ids: a list is expected, as [a, b]"),
        ("fluxes", ["a"], "survey.fluxes: no such key; near it are flux"),
        ("cuts", {"s": {"colum": "CLASS"}}, "survey.cuts.s.colum: no such key; near it are column"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_survey_is_told_in_words(tmp_path, key, value, line):
    assert f"  {line}" in refused(tmp_path, survey={**SURVEY, key: value})


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"model": {"redshift": [0.1]}}, "model.redshift: 2 values are expected"),
        ({"model": {"redshift": [0.1, 0.2, 0.3]}}, "model.redshift: 2 values are expected"),
        ({"join": {"file": "z.fits", "within": 1}}, "join: join: within is '1'; an angle has a unit, as 1.0 arcsec"),
        ({"storage": {"region": "a b"}}, "storage.region: one to 64 of letters, digits and - are expected (found 'a b')"),
        ({"flow": {"zzz": 1}}, "flow.zzz: no such key; keys are preset, family, transforms, hidden, embedding"),
        ({"engines": {"ray": {"zzz": 1}}}, "engines.ray.zzz: no such key; keys are actors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_key_of_a_run_is_told_in_words(tmp_path, sections, line):
    (found,) = refused(tmp_path, **sections)
    assert found.startswith(f"  {line}")


@pytest.mark.parametrize(
    ("section", "settings", "line"),
    [
        ("training", {"depth": {"y": 20}}, "depth: 'y' is none of the bands g, r, i, or named twice"),
        ("training", {"instruments": [["g", "y"]]}, "instruments: 'y' is none of the bands g, r, i, or named twice"),
        (
            "training",
            {"instruments": [["g", "r"], ["r"]]},
            "instruments: 'r' is none of the bands g, r, i, or named twice",
        ),
        (
            "validation",
            {"patterns": [["g", "r", "y"]]},
            "patterns[0]: 'y' is none of the bands g, r, i, or named twice",
        ),
        ("validation", {"patterns": [["g", "r", "i"], ["g", "r"]]}, "patterns[1]: 2 bands; at least 3 are needed"),
    ],
)
def test_bands_that_are_named_are_those_of_the_survey_once(tmp_path, section, settings, line):
    assert f"  {section}.{line}" in refused(tmp_path, survey=SURVEY, **{section: settings})


def test_what_no_single_key_is_to_blame_for_has_no_empty_place(tmp_path):
    (line,) = refused(tmp_path, survey={**SURVEY, "bands": ["sdss2010-g", "sdss2010-q", "sdss2010-i"]})
    assert line.startswith("  no band named 'sdss2010-q'")


def test_the_certificate_can_be_left_out_of_flows_that_learnt_the_amplitude(tmp_path):
    """A run says so when it is read, not after its training."""
    (line,) = refused(tmp_path, inference={"certificate": False})
    assert "`flow: {preset: paper}`" in line
    content = {"name": "x", "root": str(tmp_path), "input": "a.fits", "inference": {"certificate": False}}
    assert RunFile.model_validate({**content, "flow": {"preset": "paper"}}).flow.amplitude == "learnt"


@pytest.mark.parametrize("name", ["nosuch", "sub/nosuch.yaml", "/sub/nosuch"])
def test_a_run_file_that_is_not_there_is_told_with_those_that_come_along(name):
    with pytest.raises(ValueError, match=rf"no run file {name}; those that come with the package are demo, .*sdss"):
        RunFile.load(name)
