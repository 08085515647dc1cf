"""Options of commands: a wrong value names its option, and what is not read is refused, before anything is made."""

import re

import pytest
import tiny
from commands import sedflow
from typer.main import get_command

from jobs.cli import main
from storage_schemas import model as model_store


def said(done):
    """Standard error in one line, without the frame that a terminal shows it in."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--order", "nonsense"), "--order: Input should be 'auto', 'input' or 'healpix' (found 'nonsense')"),
        (("--join", "z.fits"), "for --join: a join is `on` identifying columns"),
        (("--join", "z.fits,within=1 arcsec,positions=RA"), "for --join: positions: 2 values are expected"),
        (("--join", "z.fits, within = 1"), "for --join: join: within is '1'; an angle has a unit"),
        (("--join", "z.fits,within=1 arcsec,position=a+b"), "for --join: 'position' is none of on, within, positions"),
        (("--join", "on=ID"), "for --join: the table comes first"),
        (("--join", "z.fits,on=A,on=B"), "for --join: on is there twice"),
        (
            ("--access", "anon,region="),
            "for --access: region: one to 64 of letters, digits and - are expected (found '')",
        ),
        (("--access", "nix=3"), "for --access: 'nix' is none of anon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_value_names_its_option(source, tmp_path, arguments, message):
    done = sedflow("ingest", source, *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in said(done)
    assert not (tmp_path / "out").exists()


def test_settings_of_mcmc_are_told_by_their_options():
    done = sedflow("mcmc", "mocks:1", "--model", "sdss", "--out", "c", "--burn-in", "-1", "--sampler", "x")
    assert done.returncode == 2
    assert "--sampler: Input should be 'zeus', 'emcee' or 'nautilus' (found 'x'); --burn-in: Input" in said(done)
    done = sedflow("mcmc", "mocks:1", "--model", "sdss", "--out", "c", "--walkers", "31")
    assert "--walkers: 31 is odd" in said(done)


def options_of(command, left_out):
    """Every option of a command with a value, but those left out."""
    values = {"order": "input", "rows_per_chunk": "10", "workers": "1", "keep_runs": None}
    for option in get_command(main.app).commands[command].params:
        if option.name not in left_out:
            value = values.get(option.name, "x")
            yield (option.opts[0], *([value] if value else []))


@pytest.mark.parametrize("option", options_of("ingest", ("source", "out", "profile", "help")), ids=lambda o: o[0])
def test_an_option_that_a_run_file_says_instead_is_refused(local, tmp_path, option):
    run_file, *_ = tiny.write(local, tmp_path / "run.yaml")
    done = sedflow("ingest", run_file, *option)
    assert done.returncode == 2
    assert f"for {option[0]}: not read here: the run file" in said(done)


@pytest.mark.parametrize("option", ["--survey", "--redshift", "--ra", "--dec", "--join"])
def test_an_option_that_a_photometry_store_was_made_with_is_refused(local, tmp_path, option):
    arguments = ("--model", "sdss", "--out", tmp_path / "out", option, "a,on=b")
    done = sedflow("infer", local.store("photometry"), *arguments)
    assert done.returncode == 2
    assert f"for {option}: not read here:" in said(done) and "is a photometry store" in said(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model", "nosuch"),
            "no model nosuch: it is a folder, an s3:// URL, or one that comes along: desi, rubin, sdss",
        ),
        (("--model", "{empty}"), "spec.json"),
        (("--model", "sdss", "--survey", "rubin"), "survey rubin has bands lsst2016-u"),
        (("--model", "sdss", "--no-certificate"), "`flow: {preset: paper}`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_model_that_cannot_answer_is_refused_before_a_table_is_read(source, tmp_path, arguments, message):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / model_store.WEIGHTS).write_bytes(b"")
    done = sedflow("infer", source, *(a.format(empty=tmp_path / "model") for a in arguments), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_store_is_not_answered_without_the_certificate_either(local, tmp_path):
    done = sedflow("infer", local.store("photometry"), "--model", "sdss", "--no-certificate", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "`flow: {preset: paper}`" in done.stderr
    assert not (tmp_path / "out").exists()
