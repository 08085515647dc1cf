"""validate: which galaxies are simulated, what is kept of them, what is said about them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from provabgs import PARAMETERS

from jobs.validate.figures import figures, of_catalog
from jobs.validate.job import missing_patterns, report, validate
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.validation import coverage
from sedflow_dist.validation.mock_galaxies import flow_log_prob, mock_galaxies, unit_truth
from storage_schemas import photometry, validation
from storage_schemas.backend.location import Location

WITHOUT_U, WITHOUT_G, WITHOUT_UZ = (False, True, True, True, True), (True, False, True, True, True), (
    False, True, True, True, False
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """Photometry of 40 rows in four chunks: 5 without u and z, 3 without u, 6 with two bands only."""
    made = photometry.create(Location.parse(str(tmp_path / "photometry")), 40, 10, list("ugriz"), {}, {})
    mask = np.ones((40, 5), bool)
    mask[8:13] = WITHOUT_UZ
    mask[20:23] = WITHOUT_U
    mask[30:36, :3] = False
    for chunk in range(4):
        made.write(chunk, {"mask": mask[made.rows(chunk)]})
    return made


def test_the_most_common_patterns_come_first_and_single_bands_fill_up(store):
    assert missing_patterns(store, 1) == [WITHOUT_UZ]
    assert missing_patterns(store, 3) == [WITHOUT_UZ, WITHOUT_U, WITHOUT_G]
    assert len(missing_patterns(store, 99)) == 6  # five single bands, and u with z


def test_patterns_add_galaxies_and_leave_the_others_as_they_are(flow):
    alone, more = mock_galaxies(flow, 20, seed=3), mock_galaxies(flow, 20, seed=3, patterns=[WITHOUT_U, WITHOUT_UZ])
    for name, values in alone.photometry.arrays().items():
        np.testing.assert_array_equal(values, more.photometry.arrays()[name][:20], err_msg=name)
    assert torch.equal(alone.phi, more.phi[:20]) and torch.equal(alone.log_mstar, more.log_mstar[:20])
    assert alone.photometry.mask.all()
    assert more.photometry.mask[20:40].tolist() == [list(WITHOUT_U)] * 20
    assert more.photometry.mask[40:].tolist() == [list(WITHOUT_UZ)] * 20
    assert not more.photometry.flux[~more.photometry.mask].any()
    assert len(torch.unique(more.log_mstar)) == 60


@pytest.mark.parametrize("name", ["flow", "learnt_flow"])
def test_draws_carry_the_density_that_the_truth_is_compared_with(name, request):
    """A draw put in the truth's place has the log q that it was drawn with."""
    flow = request.getfixturevalue(name)
    mocks = mock_galaxies(flow, 5, seed=4, patterns=[WITHOUT_U])
    draws = Posterior(flow, seed=4).draw(mocks.photometry, np.arange(10), 16)
    lo, hi = flow.space.amplitude.prior.range
    u = draws.unit[:, 3].clamp(1e-6, 1 - 1e-6)
    drawn = replace(mocks, phi=torch.special.ndtri(u[:, 1:]), log_mstar=lo + (hi - lo) * u[:, 0])
    np.testing.assert_allclose(unit_truth(flow, drawn), u, atol=1e-6)
    # The unit cube's float32 near its edges limits phi: 1e-7 of u is up to 1e-2 of it there.
    np.testing.assert_allclose(flow_log_prob(flow, drawn), draws.log_q[:, 3], rtol=0.02, atol=0.05)


def arrays(n=400, seed=0):
    """What a validation store of a right posterior holds: all bands, then as many without u, which are biased."""
    rng = np.random.default_rng(seed)
    ranks = rng.random((2 * n, 12))
    ranks[n:] **= 2
    mask = np.ones((2 * n, 5), bool)
    mask[n:, 0] = False
    joint = {name: rng.random(2 * n) for name in ("tarp", "weighted_tarp", "hpd", "weighted_hpd")}
    about = {
        "mask": mask,
        "complete": np.arange(2 * n) < n,
        "signal_to_noise": rng.random(2 * n),
        "redshift": rng.random(2 * n),
        "inferred": np.zeros(2 * n, bool),
    }
    return {"rank": ranks, "weighted_rank": ranks, **about, **joint}


def test_the_report_names_what_is_wrong(capsys):
    found = report(arrays(), PARAMETERS, tuple("ugriz"))
    said = capsys.readouterr().err
    assert found.keys() == {f"{kind}{name}" for kind in ("plain", "weighted") for name in ("", " tarp", " hpd")}
    assert found["plain"].inside.all()  # galaxies that miss bands do not count there
    assert "worst of 1: without u, 0 of 12 inside, p 0.000" in said
    assert "TARP inside its 99 % band: yes" in said
    assert said.count("worst of 4: S/N ") == said.count("worst of 4: redshift ") == 2
    broken = arrays()
    broken["tarp"] = broken["tarp"] ** 2
    report(broken, PARAMETERS, tuple("ugriz"))
    assert "TARP inside its 99 % band: no (KS p 0.000)" in capsys.readouterr().err


def copied(run, folder):
    """The run in another place, where it may be changed."""
    shutil.copytree(run.location.url, folder / "run")
    return run.model_copy(update={"root": str(folder / "run")})


def test_the_run_checks_its_own_patterns_of_missing_bands(local, tmp_path, capsys):
    run = copied(local, tmp_path)
    before, _ = validation.read(run.store("validation"))
    shutil.rmtree(tmp_path / "run" / "validation" / "tarp")  # as an earlier version left it
    with pytest.raises(ValueError, match="lacks tarp: run sedflow validate"):
        validation.read(run.store("validation"))
    run = run.model_copy(update={"validation": run.validation.model_copy(update={"patterns": 2})})
    found = validate(run)
    assert "worst of 2: without " in capsys.readouterr().err
    after, _ = validation.read(run.store("validation"))
    assert len(after["rank"]) == 150
    assert after["band"].tolist() == ["u", "g", "r", "i", "z"]
    for name in ("rank", "weighted_rank", "tarp", "weighted_tarp", "hpd", "log_prob", "signal_to_noise"):
        assert before[name].tobytes() == after[name][:50].tobytes(), name
    complete = after["complete"]
    assert complete.sum() == 50 and after["mask"][complete].all() and not after["mask"][~complete].all(1).any()
    assert (after["signal_to_noise"] > 0).all()
    for name in ("tarp", "weighted_tarp", "hpd", "weighted_hpd"):
        assert ((after[name] >= 0) & (after[name] <= 1 + 1e-6)).all()
    assert found["plain"].pooled == coverage.check(after["rank"][complete]).pooled


def test_patterns_may_be_named_by_their_bands(local, tmp_path):
    run = copied(local, tmp_path)
    named = run.validation.model_copy(update={"patterns": (("g", "r", "i"),), "n_galaxies": 10})
    validate(run.model_copy(update={"validation": named}))
    after, _ = validation.read(run.store("validation"))
    assert after["complete"].tolist() == [True] * 10 + [False] * 10
    assert (after["mask"][10:] == [False, True, True, True, False]).all()


def test_a_catalog_alone_has_figures_too(local, tmp_path):
    drawn = of_catalog(local.store("catalog"), Location.parse(str(tmp_path / "figures")))
    assert [Path(name).name for name in drawn] == ["mass_redshift.png", "posterior_sed.png"]
    assert all(Path(name).read_bytes()[:4] == b"\x89PNG" for name in drawn)


@pytest.mark.slow
def test_one_command_draws_all_figures(local, tmp_path):
    run = copied(local, tmp_path)
    drawn = {name.rpartition("/")[2] for name in figures(run)}
    assert drawn == {"mass_redshift.png", "posterior_sed.png", "pp.png", "sbc.png", "tarp.png", "training_data.png"}
    assert all((tmp_path / "run" / "figures" / name).stat().st_size > 10_000 for name in drawn)
    shutil.rmtree(tmp_path / "run" / "training")  # a model that was trained elsewhere
    assert len(figures(run)) == len(drawn)
