"""The command line, as a user has it: exit codes, clear messages, files that other programs read."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
import reference_galaxy
import tiny
import torch
import yaml
import zarr
from astropy.table import Table
from commands import sedflow
from provabgs import PARAMETERS, SPACE

from cluster.settings import DaskSettings
from jobs.config.sections import Inference
from jobs.infer import infer
from sedflow_dist.inference.settings import Routing
from storage_schemas.backend.location import Location

COMMANDS = ("demo", "run", "plan", "status", "submit", "jobs", "jobs status", "jobs logs", "jobs stop", "doctor", "build-ssp",
            "ingest", "simulate", "train", "learn-likelihood", "validate", "catalog average",
            "infer", "mcmc", "flux", "export", "catalog", "catalog show", "catalog draws", "catalog history", "catalog diff",
            "catalog figures", "catalog reweight", "catalog rollback", "catalog clean", "catalog verify", "reprocess", "verify",
            "zeropoints", "report", "show")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command):
    result = sedflow(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_flux_agrees_with_an_independent_evaluation(tmp_path, reference_ssp):
    """0.003 mag in every band; written differently, in float64, per galaxy, with astropy and speclite."""
    generator = torch.Generator().manual_seed(5)
    theta = SPACE.from_unit(torch.rand(40, 11, generator=generator, dtype=torch.float64)).numpy()
    z = 0.01 + 0.2 * torch.rand(40, generator=generator, dtype=torch.float64).numpy()
    header = ",".join((*PARAMETERS, "z"))
    np.savetxt(tmp_path / "p.csv", np.column_stack([theta, z]), delimiter=",", header=header, comments="", fmt="%.17g")
    done = sedflow("flux", tmp_path / "p.csv", "--survey", "sdss", "--out", tmp_path / "f.csv")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines[0] == "f_u,f_g,f_r,f_i,f_z"
    found = np.loadtxt(lines[1:], delimiter=",")
    bands = [f"sdss2010-{b}" for b in "ugriz"]
    expected = np.array([
        reference_galaxy.fluxes(dict(zip(PARAMETERS, row, strict=True)), redshift, bands, reference_ssp)
        for row, redshift in zip(theta, z, strict=True)
    ])  # fmt: skip
    assert np.abs(2.5 * np.log10(found / expected)).max() < 0.003


def test_other_components_have_columns_of_their_own_and_a_table_that_lacks_their_light_is_refused(tmp_path):
    components = "stars,nebular,birth_cloud,kriek_conroy"
    names = (*PARAMETERS[:9], "log_u", *PARAMETERS[9:], "z")
    row = "10,0.25,0.25,0.25,0.25,0.9,0.003,0.001,0.001,{},0.1,0.1,0,0.1"
    (tmp_path / "p.csv").write_text(f"{','.join(names)}\n" + "".join(f"{row.format(log_u)}\n" for log_u in (-4, -1)))
    for where, known in (("plain", "stars"), ("gas", components)):
        assert sedflow("build-ssp", "--out", tmp_path / where, "--components", known).returncode == 0
    flux = ("flux", tmp_path / "p.csv", "--components", components)
    refused = sedflow(*flux, "--ssp", tmp_path / "plain", "--out", tmp_path / "f.csv")
    assert refused.returncode == 1
    assert "has no emission of gas, which components of the galaxy model need" in refused.stderr
    for ssp in ("bc03", tmp_path / "gas"):
        assert sedflow(*flux, "--ssp", ssp, "--out", tmp_path / f"{Path(ssp).name}.csv").returncode == 0
    assert (tmp_path / "bc03.csv").read_text() == (tmp_path / "gas.csv").read_text()
    found = np.loadtxt(tmp_path / "bc03.csv", delimiter=",", skiprows=1)
    # Highly ionised gas around a young burst shines in [O III], which lies in r at z = 0.1.
    assert found[1, 2] > 1.1 * found[0, 2]


def test_a_bad_parameter_is_named_with_its_row(tmp_path):
    header = ",".join((*PARAMETERS, "z"))
    good = "10,0.25,0.25,0.25,0.25,0.1,1,0.001,0.001,0.1,0.1,0,0.1"
    (tmp_path / "p.csv").write_text(f"{header}\n{good}\n{good.replace('0.25', '0.5', 1)}\n")
    done = sedflow("flux", tmp_path / "p.csv", "--out", tmp_path / "f.csv")
    assert done.returncode == 1
    assert "row 1: beta1 + beta2 + beta3 + beta4 = 1.25" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nroot: y\ninput: z\nsurprise: 1\n", "surprise"),
        ("name: x\nroot: y\ninput: z\ntraining: {steps: -3}\n", "training.steps"),
        ("name: x\nroot: ftp://y\ninput: z\n", "s3://bucket/prefix"),
        ("- a\n", "holds no keys"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_run_file_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "run.yaml").write_text(content)
    done = sedflow("plan", tmp_path / "run.yaml")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_has_exit_code_2():
    assert sedflow("infer").returncode == 2
    assert sedflow("fly").returncode == 2


def test_doctor_probes_storage(tmp_path):
    done = sedflow("doctor", "--root", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "conditional writes are accepted and refused as they must be" in done.stdout


def test_plan_and_status_need_no_stores(tmp_path):
    plan = sedflow("plan", "demo", "--root", tmp_path / "x")
    assert plan.returncode == 0, plan.stderr
    assert "10,000" in plan.stdout
    assert "1,000,000" in plan.stdout
    assert sedflow("status", "demo", "--root", tmp_path / "x").returncode == 1


@pytest.fixture(scope="module")
def catalog(local):
    return local.store("catalog").url


def test_status_of_a_finished_run(local, tmp_path):
    run_file, *_ = tiny.write(local, tmp_path / "run.yaml")
    done = sedflow("status", run_file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("catalog", "draws", "{c}", "--rows", "99999999999999999999999", "--out", "o.csv"),
     ("catalog", "draws", "{c}", "--rows", "100000000", "--out", "o.csv"),
     ("export", "{c}", "o.csv", "--cone", "1e308,1e308,1e308")],
    ids=lambda a: a[-1] if a[0] == "export" else a[4],
)  # fmt: skip
def test_absurd_arguments_end_in_a_message(catalog, tmp_path, arguments):
    done = sedflow(*(a.replace("{c}", catalog) for a in arguments), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr and done.stderr.strip()


def test_ingest_takes_a_run_file_or_says_where_to(local, source, tmp_path):
    run = tiny.settings(tmp_path / "run", source)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
    done = sedflow("ingest", tmp_path / "run.yaml")
    assert done.returncode == 0, done.stderr
    found, expected = (zarr.open_group(r.store("photometry").zarr(True), mode="r") for r in (run, local))
    assert dict(found.attrs) == dict(expected.attrs)
    np.testing.assert_array_equal(found["flux"][...], expected["flux"][...])
    done = sedflow("ingest", source)
    assert done.returncode == 2
    assert "--out" in done.stderr
    assert "no run file" in done.stderr


def test_draws_are_the_same_twice_and_after_the_catalog_moved(catalog, tmp_path):
    shutil.copytree(catalog, tmp_path / "moved")
    files = []
    for number, where in enumerate((catalog, catalog, tmp_path / "moved")):
        files.append(tmp_path / f"{number}.csv")
        done = sedflow("catalog", "draws", where, "--rows", "0,5,7", "-n", "100", "--out", files[-1])
        assert done.returncode == 0, done.stderr
    one, two, three = (file.read_bytes() for file in files)
    assert one == two == three
    assert one.decode().splitlines()[0].startswith("row,draw,log_mstar,beta1")
    assert len(one.splitlines()) == 301


@pytest.mark.parametrize("name", ["d.fits", "d.parquet"])
def test_draws_are_written_as_the_ending_says(catalog, tmp_path, name):
    for out in (tmp_path / name, tmp_path / "d.csv"):
        done = sedflow("catalog", "draws", catalog, "--rows", "5,0", "-n", "50", "--out", out)
        assert done.returncode == 0, done.stderr
        assert "100 draws" in done.stdout
    found = Table.read(tmp_path / name)
    expected = Table.read(tmp_path / "d.csv", format="ascii.csv")
    assert [column.lower() for column in found.colnames] == expected.colnames
    for ours, theirs in zip(found.itercols(), expected.itercols(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert found.colnames[2].lower() == "log_mstar"
    assert name == "d.parquet" or found.columns[2].unit is not None  # those of Parquet stand in its fields
    assert found.columns[0].tolist() == 50 * [5] + 50 * [0]


def test_draws_of_another_ending_are_refused(catalog, tmp_path):
    done = sedflow("catalog", "draws", catalog, "--rows", "5", "-n", "50", "--out", tmp_path / "d.txt")
    assert done.returncode == 1
    assert "the ending must be one of .fits, .parquet, .csv" in done.stderr
    assert not (tmp_path / "d.txt").exists()


def test_an_export_names_the_ensembles_it_wrote(catalog, tmp_path):
    done = sedflow("export", catalog, tmp_path / "x.qp.hdf5", "--columns", "log_mstar,tau_ism")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_log_mstar.qp.hdf5", "x_tau_ism.qp.hdf5"]
    assert f"rows: {tmp_path}/x_log_mstar.qp.hdf5 to {tmp_path}/x_tau_ism.qp.hdf5 (2 files)" in done.stdout


def test_draws_of_a_row_without_answer_say_why(catalog, tmp_path):
    import tiny

    done = sedflow("catalog", "draws", catalog, "--rows", str(tiny.FAR), "--out", tmp_path / "d.csv")
    assert done.returncode == 1
    assert "REDSHIFT_OUTSIDE_MODEL" in done.stderr


@pytest.fixture(scope="module")
def unweighted(local, tmp_path_factory):
    """A catalog of draws without weights, which the tiny flow's are no good for."""
    out = Location.parse(str(tmp_path_factory.mktemp("unweighted") / "catalog"))
    settings = Inference(
        n_draws=256, min_effective_fraction=0.05, rows_per_shard=100, routing=Routing(share=0, more_draws=1)
    )
    infer(local.store("photometry"), local.store("model"), out, settings, 7, DaskSettings(workers=1))
    return out.url


@pytest.mark.slow
def test_reweighting_moves_the_answer_and_says_where_it_cannot(unweighted, tmp_path):
    medians, rows = [], [0, 5, 7, 20, 21, 22]
    for number, prior in enumerate(("tau_ism=norm(0.3,0.2)", "tau_ism=norm(1.5,0.2)", "tau_ism=uniform(7,1)")):
        out = tmp_path / f"{number}.csv"
        done = sedflow("catalog", "reweight", unweighted, "--prior", prior, "--prior", "log_z_mw=norm(-2,0.5)", "-n", 1024,
                       "--rows", ",".join(map(str, rows)), "--out", out)  # fmt: skip
        assert done.returncode == 0, done.stderr
        table = pyarrow.csv.read_csv(out)
        assert table.column_names[:2] == ["row", "log_mstar_p025"]
        assert {"tau_ism_mean", "tau_ism_std", "effective_fraction", "weighted", "flags", "reason"} <= set(
            table.column_names
        )
        assert table["row"].to_pylist() == rows
        answers = zip(table["tau_ism_p50"].to_pylist(), table["reason"].to_pylist(), strict=True)
        medians.append([median for median, reason in answers if not reason])
        assert f"{len(rows) - len(medians[-1])} have no answer" in done.stdout
    assert 0.1 < np.median(medians[0]) < 0.7
    assert 0.9 < np.median(medians[1]) < 1.8
    assert medians[2] == []
    assert set(table["reason"].to_pylist()) == {"effective fraction 0 is below 0.05"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--prior", "mass=flat", "--out", "o.csv"), "no column 'mass'"),
     (("--prior", "tau_ism=flat", "--out", "o.txt"), "the ending must be one of .fits, .parquet, .csv")],
)  # fmt: skip
def test_a_reweighting_that_cannot_be_says_why(catalog, tmp_path, arguments, message):
    done = sedflow("catalog", "reweight", catalog, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_exports_are_read_by_other_programs(catalog, tmp_path):
    import pyarrow.parquet
    from astropy.io import fits

    for name in ("c.fits", "c.parquet", "c.csv"):
        assert sedflow("export", catalog, tmp_path / name).returncode == 0
    with fits.open(tmp_path / "c.fits", checksum=True) as hdus:
        table = hdus[1]
        units = {c.name: c.unit for c in table.columns}
        mass = np.asarray(table.data["LOG_MSTAR_P50"], float)
    assert {f"LOG_MSTAR_{x}" for x in ("P025", "P16", "P50", "P84", "P975", "MEAN", "STD")} <= set(units)
    assert units["T_AGE_MW_P50"] == "Gyr"
    parquet = pyarrow.parquet.read_table(tmp_path / "c.parquet")
    np.testing.assert_allclose(parquet["log_mstar_p50"].to_numpy(), mass, rtol=1e-6)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == len(mass) + 1
    assert sedflow("export", catalog, tmp_path / "c.txt").returncode == 1


def test_catalog_show_and_history(catalog):
    assert "500 galaxies" in sedflow("catalog", "show", catalog).stdout
    assert "release-1" in sedflow("catalog", "history", catalog).stdout
