"""`sedflow inspect`: what a table is, and a survey whose proposal works as it is, or says what only the user can know."""

import resource
import shlex
import subprocess
import sys

import field_tables
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import yaml
from astropy.io import fits
from astropy.table import Table
from commands import sedflow
from paths import ROOT
from typer.testing import CliRunner

from jobs.cli.main import app
from jobs.config import run_file
from jobs.config.run_file import RunFile
from jobs.ingest.job import ingest
from jobs.inspect import table_facts
from jobs.inspect.job import inspection
from storage_schemas import photometry


def proposed(path, tmp_path):
    """What is said of a table, and the store that its proposal makes of it, unedited."""
    lines = inspection(str(path))
    out = tmp_path / "proposed.yaml"
    out.write_text("\n".join(lines))
    survey = run_file.survey(str(out))
    return lines, survey, ingest(path, survey, tiny.location(tmp_path / "store"), 200)


def assert_is_of_the_galaxies(store, survey, layout, fraction=0.0):
    flux, sigma, about = field_tables.galaxies()
    np.testing.assert_allclose(store.group["flux"][:], flux, rtol=1e-5 + fraction)
    expected = np.hypot(sigma, survey.model_error * flux)
    np.testing.assert_allclose(store.group["sigma"][:], expected, rtol=1e-4 + fraction)
    np.testing.assert_allclose(store.group["redshift"][:], about["Z"], rtol=1e-6)
    np.testing.assert_allclose(store.group["ra"][:], about["RA"], rtol=1e-9)
    np.testing.assert_array_equal(store.group["ids/ID"][:], np.arange(len(flux)) + 1000)


@pytest.mark.parametrize("layout", field_tables.LAYOUTS)
def test_a_proposal_works_as_it_is(layout, tmp_path):
    field_tables.table(**field_tables.LAYOUTS[layout]).write(tmp_path / "mine.fits")
    lines, survey, store = proposed(tmp_path / "mine.fits", tmp_path)
    assert_is_of_the_galaxies(store, survey, layout)
    shown = next(line.split() for line in lines if line.startswith("#        r "))
    assert float(shown[2]) == pytest.approx(16.75, abs=0.2)  # the median, so that a wrong unit is seen at once
    assert not any("WARNING" in line for line in lines)
    if layout == "nJy, not stated":
        assert any("no unit is stated: nJy is a guess" in line for line in lines)


@pytest.mark.parametrize("layout", field_tables.MAGNITUDES)
def test_a_proposal_of_magnitudes_works_as_it_is(layout, tmp_path):
    field_tables.table(**field_tables.MAGNITUDES[layout]).write(tmp_path / "mine.fits")
    lines, survey, store = proposed(tmp_path / "mine.fits", tmp_path)
    assert survey.unit == "mag" and any("AB is assumed" in line for line in lines)
    assert_is_of_the_galaxies(store, survey, layout, fraction=0.05 if survey.softening else 0.0)


def test_codes_among_magnitudes_are_proposed_as_not_observed(tmp_path):
    table = field_tables.table("mag_{}", "magerr_{}", kind="magnitude")
    for name in ("mag_u", "magerr_u"):
        table[name] = table[name].astype("f4")
        table[name][::10] = 99.99  # which float32 does not hold
    table.write(tmp_path / "mine.fits")
    _, survey, store = proposed(tmp_path / "mine.fits", tmp_path)
    assert survey.not_observed == (99.99,)
    np.testing.assert_array_equal(store.group["mask"][:, 0], np.arange(400) % 10 != 0)


def test_a_table_without_errors_is_given_some_and_asks(tmp_path):
    field_tables.table("mag_{}", "", kind="magnitude").write(tmp_path / "mine.fits")
    lines, survey, _ = proposed(tmp_path / "mine.fits", tmp_path)
    assert survey.error_fraction == 0.1 and any("ASK: the table has no errors" in line for line in lines)


def test_a_built_in_survey_that_fits_is_named_with_the_columns_that_it_needs(tmp_path):
    flux, sigma, about = field_tables.galaxies()
    columns = {"MODELFLUX": flux, "MODELFLUX_IVAR": 1 / sigma**2, "EXTINCTION": 0 * flux + 0.1, "ZSPEC": about["Z"],
               "RA_1": about["RA"], "DEC_1": about["DEC"]}  # fmt: skip
    Table(columns).write(tmp_path / "a.fits")
    lines = inspection(str(tmp_path / "a.fits"))
    named = {"redshift": "ZSPEC", "ra": "RA_1", "dec": "DEC_1"}
    assert yaml.safe_load("\n".join(lines)) == {"survey": "sdss", "ingest": named}
    assert any("--survey sdss --redshift ZSPEC --ra RA_1 --dec DEC_1" in line for line in lines)
    Table({name: columns[name] for name in columns if name != "EXTINCTION"}).write(tmp_path / "b.fits")
    said = "\n".join(inspection(str(tmp_path / "b.fits")))
    assert "the built-in survey sdss nearly fits; the table lacks EXTINCTION[0]" in said
    assert yaml.safe_load(said)["survey"]["flux"] == [f"MODELFLUX[{i}]" for i in range(5)]


def test_what_a_table_is_stands_before_the_survey(tmp_path):
    table = field_tables.table(CLASS=np.where(np.arange(400) % 8, "GALAXY", "STAR"), count=np.arange(400, dtype="u8"))
    table["i_FLUX"][7] = np.nan
    table["u_FLUX"][:40] = -999.0
    table["u_FLUX"].unit = "uJy"
    table.write(tmp_path / "mine.fits")
    lines = inspection(str(tmp_path / "mine.fits"))
    rows = {line.split()[1]: line for line in lines if line.startswith("#   ")}
    assert any("400 rows, 16 columns; looked at 400 rows" in line for line in lines)
    assert "uint64" in rows["count"] and "int64" in rows["ID"] and "uJy" in rows["u_FLUX"]
    assert "codes for no value: -999 (10.0%)" in rows["u_FLUX"] and "0.2%" in rows["i_FLUX"]
    assert "GALAXY, STAR" in rows["CLASS"]
    cut = yaml.safe_load("\n".join(lines))["survey"]["cuts"]["not_a_galaxy"]
    assert cut == {"column": "CLASS", "classes": ["STAR"], "not_a_galaxy": True}


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (np.array([99.99] * 5 + [20.123, 21.5, 19.7], "f4"), [99.99]), (np.array([-99.0] * 5 + [20.1, 21.5, -120.3]), [-99.0]),
        (np.array([-1.0] * 9 + [0.1, 0.2, 0.35]), [-1.0]), (np.array([-1.0, 0.3, -2.2, 1.1]), []),
        (np.array([-9999, -9999, 5, 6, 7, 12]), [-9999]), (np.arange(90, 130), []), (np.array([1e20, 3.2, 4.4, 5.5]), [1e20]),
        (np.array([98.9, 99.0, 99.1, 99.2]), []), (np.array([99, 99, -99, -99, 21, 22, 23]), [-99, 99]),
    ],
)  # fmt: skip
def test_codes_for_no_value_are_found_in_the_columns_own_type(values, codes, tmp_path):
    Table({"x": values}).write(tmp_path / "a.fits")
    (facts,) = table_facts.tables(tiny.location(tmp_path / "a.fits"))
    assert [code for code, _ in facts.columns[0].sentinels] == codes


def test_a_table_without_photometry_says_so(tmp_path):
    Table({"RA": [1.0], "DEC": [2.0], "Z": [0.1], "name": ["a"]}).write(tmp_path / "a.fits")
    said = "\n".join(inspection(str(tmp_path / "a.fits")))
    assert "no photometry is recognised" in said and yaml.safe_load(said) is None


def test_a_table_of_no_rows_is_described(tmp_path):
    Table({"FLUX_G": np.zeros(0), "FLUX_R": np.zeros(0)}).write(tmp_path / "a.fits")
    assert any("0 rows, 2 columns" in line for line in inspection(str(tmp_path / "a.fits")))


def test_a_wrong_unit_is_warned_of_by_inspect_and_ingest(tmp_path, capfd):
    """Nanojanskys that the file calls millijanskys: fifteen magnitudes too bright."""
    field_tables.table("flux_{}", "flux_err_{}", scale=field_tables.KJY, unit="mJy").write(tmp_path / "mine.fits")
    lines, _, store = proposed(tmp_path / "mine.fits", tmp_path)
    assert any("WARNING: r has a median of 1." in line for line in lines)
    found = {line["name"]: line for line in store.group.attrs["report"]["light"]}
    assert found["r"]["off"] > 3 and found["r"]["median"] == pytest.approx(1.75, abs=0.2)
    said = capfd.readouterr().err
    assert "WARNING: r has a median of 1." in said and "g-r" in said
    ingest(tmp_path / "mine.fits", run_file.survey(str(tmp_path / "proposed.yaml")), store.location, 200)
    assert "WARNING: r has a median of 1." in capfd.readouterr().err  # also where nothing is left to do


def test_one_band_in_another_unit_is_seen_by_its_colours(tmp_path):
    table = field_tables.table("flux_{}", "flux_err_{}")
    for name in ("flux_g", "flux_err_g"):
        table[name] *= 1e-3
    table.write(tmp_path / "mine.fits")
    _, _, store = proposed(tmp_path / "mine.fits", tmp_path)
    off = {line["name"]: line["off"] for line in store.group.attrs["report"]["light"]}
    assert off["u-g"] > 3 and off["g-r"] > 3 and off["r-i"] < 1


def test_the_command_writes_what_the_survey_option_takes(tmp_path):
    field_tables.table(unit="uJy", scale=field_tables.KJY / 1e3).write(tmp_path / "mine.fits")
    out = tmp_path / "mine.yaml"
    told = CliRunner().invoke(app, ["inspect", str(tmp_path / "mine.fits"), "--out", str(out)])
    assert told.exit_code == 0 and out.read_text() == told.stdout
    section = yaml.safe_load(told.stdout)["survey"]
    run = RunFile.model_validate({"name": "a", "root": str(tmp_path), "input": "a.fits", "survey": section})
    assert run.survey_definition == run_file.survey(str(out))


@pytest.mark.parametrize("built_in", [True, False])
def test_commands_are_printed_as_a_shell_takes_them_and_do_as_they_are(built_in, tmp_path):
    """With blanks, quotes and brackets in names of files, tables and columns."""
    odd = {"ra": "RA 1", "dec": "DEC 1", "z": "z'spec"}
    table = field_tables.table(flux="{}_FLUX", error="{}_FLUXERR", unit="uJy", scale=field_tables.KJY / 1e3, **odd)
    if built_in:
        flux, sigma, _ = field_tables.galaxies()
        table = table[list(odd.values())]
        table["MODELFLUX"], table["MODELFLUX_IVAR"], table["EXTINCTION"] = flux, 1 / sigma**2, np.zeros_like(flux)
    file, out = tmp_path / "my table (v 1).fits", tmp_path / "my survey.yaml"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table, name="PHOT")]).writeto(file)
    told = sedflow("inspect", file, "--out", out)
    line = next(line for line in told.stdout.splitlines() if line.startswith("#   sedflow ingest"))
    assert sedflow(*shlex.split(line.removeprefix("#   sedflow ")), cwd=tmp_path).returncode == 0
    assert sedflow("ingest", file, "--survey", out, "--out", tmp_path / "other").returncode == 0
    for name in ("photometry", "other"):
        group = photometry.open(tiny.location(tmp_path / name)).group
        np.testing.assert_allclose(group["redshift"][:], field_tables.galaxies()[2]["Z"], rtol=1e-6)
        assert (group["healpix_29"][:] >= 0).all()


def test_other_columns_of_the_z_band_are_no_redshifts(tmp_path):
    """Such as the seeing: sweeps without redshifts have several of them."""
    table = Table({"RA": np.linspace(1, 2, 9), "DEC": np.linspace(1, 2, 9)})
    for band in ("g", "r", "z", "w1", "w2"):
        table[f"FLUX_{band}"], table[f"FLUX_IVAR_{band}"] = np.full(9, 50.0), np.full(9, 4.0)
        table[f"MW_TRANSMISSION_{band}"], table[f"PSFSIZE_{band}"] = np.full(9, 0.9), np.full(9, 1.2)
        table[f"FRACIN_{band}"] = np.full(9, 0.9)
    for name in ("MASKBITS", "RELEASE", "BRICKID", "OBJID"):
        table[name] = np.arange(9)
    table.write(tmp_path / "sweep.fits")
    lines = inspection(str(tmp_path / "sweep.fits"))
    assert any("--survey desi-legacy --out" in line for line in lines)
    assert any("ASK" in line and "None looks like a redshift" in line for line in lines)


def test_text_that_is_the_same_in_all_rows_tells_none_apart(tmp_path):
    table = field_tables.table()
    table.add_column(["COSMOS"] * len(table), name="FIELD_ID", index=0)
    table["ID"] = np.arange(len(table)) + 2**60  # which differ as integers, and not as floats
    table.write(tmp_path / "a.fits")
    assert yaml.safe_load("\n".join(inspection(str(tmp_path / "a.fits"))))["survey"]["ids"] == ["ID"]


def test_names_of_columns_cannot_write_a_survey_or_to_the_terminal(tmp_path):
    table = field_tables.table(z="Z\nsurvey: desi-legacy\n#", ra="RA\x1b[2J_1", dec="DEC\x1b[2J_1").to_pandas()
    pa.parquet.write_table(pa.Table.from_pandas(table), tmp_path / "a.parquet")
    lines = inspection(str(tmp_path / "a.parquet"))
    assert "\x1b" not in "".join(lines) and not any("\n" in line for line in lines)
    assert yaml.safe_load("\n".join(lines))["survey"]["flux"] == [f"{b}_FLUX" for b in "ugriz"]


def test_every_table_of_a_file_is_described_and_the_one_with_photometry_gets_the_survey(tmp_path):
    one, other = (
        Table({"TARGETID": np.arange(9), "Z": np.full(9, 0.1)}),
        field_tables.table(unit="uJy", scale=field_tables.KJY / 1e3),
    )
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(one, name="REDSHIFTS"), fits.BinTableHDU(other, name="PHOT")]
    fits.HDUList(hdus).writeto(tmp_path / "two.fits")
    lines = inspection(str(tmp_path / "two.fits"))
    assert sum("rows, " in line for line in lines) == 2
    assert any("(table REDSHIFTS): 9 rows, 2 columns" in line for line in lines)
    assert any("two.fits[PHOT]' --survey THIS.yaml" in line for line in lines)
    assert yaml.safe_load("\n".join(lines))["survey"]["flux"] == [f"{b}_FLUX" for b in "ugriz"]
    assert yaml.safe_load("\n".join(inspection(f"{tmp_path}/two.fits[PHOT]")))["survey"]["redshift"] == "Z"


_BIG = """
import sys
from pathlib import Path
from jobs.inspect.job import inspection
print(inspection(sys.argv[1])[1])
# that of the program alone: ru_maxrss is also what the process was before, a copy of the one that runs the tests
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def write_parquet(path, n_groups=2000, rows=100_000):
    """Row groups that all are the same bytes: 200 million rows, 10 GB, and a file of a few MB."""
    rng = np.random.default_rng(1)
    names = [f"{b}_FLUX" for b in "ugriz"] + [f"{b}_FLUXERR" for b in "ugriz"] + ["RA", "DEC", "Z"]
    columns = {name: rng.lognormal(3, 0.3, rows).astype("f4" if "FLUX" in name else "f8") for name in names}
    columns["Z"] = rng.uniform(0.02, 0.2, rows)
    pa.parquet.write_table(pa.table(columns), path, row_group_size=rows, compression="none", use_dictionary=False)
    about = pa.parquet.read_metadata(path)
    for _ in range(n_groups - 1):
        about.append_row_groups(pa.parquet.read_metadata(path))
    about.write_metadata_file(path.with_suffix(".footer"))
    content, footer = path.read_bytes(), path.with_suffix(".footer").read_bytes()
    data = content[: -8 - int.from_bytes(content[-8:-4], "little")]
    path.write_bytes(data + footer[4:])


def write_fits(path, rows=150_000_000):
    """A sparse file: a header, and 10 GB of nothing."""
    names = [f"{b}_FLUX" for b in "ugriz"] + [f"{b}_FLUXERR" for b in "ugriz"] + ["RA", "DEC", "Z", "ID"]
    columns = [fits.Column(name, "E" if "FLUX" in name else "D", array=np.zeros(1)) for name in names]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header["NAXIS2"] = rows
    content = fits.PrimaryHDU().header.tostring().encode() + hdu.header.tostring().encode()
    size = -(-rows * hdu.header["NAXIS1"] // 2880) * 2880
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(len(content) + size)


@pytest.mark.parametrize(("name", "write"), [("big.parquet", write_parquet), ("big.fits", write_fits)])
def test_ten_gigabytes_take_seconds_and_little_memory(name, write, tmp_path):
    """CPU seconds of a process of its own, libraries included, and its largest memory."""
    write(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = subprocess.run(
        [sys.executable, "-c", _BIG, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    said, memory = made.stdout.splitlines()
    assert ("200,000,000 rows" if "parquet" in name else "150,000,000 rows") in said
    assert int(memory) < 1_000_000, "kB"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
