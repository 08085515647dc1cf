"""Which table of a file is meant: by name, by number, by default; and what is said where that is not clear."""

import gzip

import numpy as np
import pytest
import tiny
from astropy.io import fits
from astropy.table import Table

from cluster.settings import DaskSettings
from jobs.config.sections import Ingest
from jobs.containers.addresses import Entry, addresses, choose
from jobs.containers.formats import open_catalog, tables_of
from jobs.ingest import inputs
from jobs.ingest.job import ingest
from sedflow_dist.photometry.survey import Survey
from storage_schemas import photometry
from storage_schemas.backend.location import Location


def hdu(n_rows, name=None, version=None, column="A"):
    made = fits.BinTableHDU.from_columns([fits.Column(column, "D", array=np.arange(float(n_rows)))], name=name)
    if version:
        made.ver = version
    return made


def write(path, *tables):
    content = fits.HDUList([fits.PrimaryHDU(), *tables])
    content.writeto(path, output_verify="ignore")
    return path


def rows(address):
    with open_catalog(Location(str(address))) as catalog:
        return catalog.n_rows


@pytest.fixture
def several(tmp_path):
    return write(
        tmp_path / "a.fits", hdu(2, "PHOT"), fits.ImageHDU(np.zeros(3), name="SKY"), hdu(3, "Redshifts"),
        hdu(4, "PHOT", 2), hdu(5),
    )  # fmt: skip


def test_a_table_of_a_fits_file_is_named_or_numbered(several):
    assert [(t.name, t.n_rows, t.columns) for t in tables_of(Location(str(several)))] == [
        ("PHOT,1", 2, ("A",)), ("REDSHIFTS", 3, ("A",)), ("PHOT,2", 4, ("A",)), ("5", 5, ("A",)),
    ]  # fmt: skip
    for address, n_rows in {"": 2, "[1]": 2, "[3]": 3, "[Redshifts]": 3, "[phot,2]": 4, "[ 5 ]": 5}.items():
        assert rows(f"{several}{address}") == n_rows
    for table in tables_of(Location(str(several))):
        assert rows(f"{several}[{table.name}]") == table.n_rows


def test_a_table_that_is_not_there_or_not_the_only_one_is_refused_with_what_to_write(several):
    with pytest.raises(ValueError, match=r"2 of its tables are named PHOT: write \[PHOT,1\] or \[PHOT,2\]"):
        rows(f"{several}[PHOT]")
    for wrong in ("SKY", "2", "nothing", "0", "-1"):
        with pytest.raises(ValueError, match=rf"none of its tables is {wrong}; it holds PHOT,1, REDSHIFTS, PHOT,2, 5"):
            rows(f"{several}[{wrong}]")


def test_a_name_that_looks_like_the_number_of_another_table_is_no_guess(tmp_path):
    path = write(tmp_path / "a.fits", hdu(2, "2"), hdu(3, "other"))
    with pytest.raises(ValueError, match=r"named 2: write \[2,1\] or \[OTHER\]"):
        rows(f"{path}[2]")
    assert rows(f"{path}[2,1]") == 2


def test_names_that_differ_in_case_only_are_told_apart():
    entries = [Entry(("z",), 1), Entry(("Z",), 2)]
    assert [choose(entries, wanted, "f") for wanted in "zZ"] == [0, 1]
    assert addresses(entries) == ["z", "Z"]
    entries = [Entry(("Phot",), 1), Entry(("phoT",), 2)]
    with pytest.raises(ValueError, match=r"write \[Phot\] or \[phoT\]"):
        choose(entries, "PHOT", "f")


def test_of_an_ldac_file_the_objects_are_read_and_several_chips_are_no_guess(tmp_path):
    one = write(tmp_path / "a.fits", hdu(1, "LDAC_IMHEAD"), hdu(7, "LDAC_OBJECTS"))
    assert rows(one) == 7
    two = write(
        tmp_path / "b.ldac", *(hdu(n, name) for n, name in ((1, "LDAC_IMHEAD"), (7, "LDAC_OBJECTS")) for _ in "12")
    )
    with pytest.raises(ValueError, match=r"holds 2 tables: 3, 4. Say which in brackets, as .*b\.ldac\[3\]"):
        rows(two)
    assert rows(f"{two}[4]") == 7


def test_tables_of_gzipped_files_and_of_patterns_are_addressed_alike(tmp_path):
    for name in "ab":
        path = write(tmp_path / f"{name}.fits", hdu(2, "X"), hdu(3, "Y"))
        (tmp_path / f"{name}.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert rows(f"{tmp_path}/a.fits.gz[Y]") == 3
    for pattern, names in {"*.fits[Y]": ("a.fits", "b.fits"), "[ab].fits.gz[2]": ("a.fits.gz", "b.fits.gz")}.items():
        table = pattern[pattern.rindex("[") :]
        found = inputs.expand(f"{tmp_path}/{pattern}", tiny.location(tmp_path))
        assert [file.url for file in found] == [f"{tmp_path}/{name}{table}" for name in names]
        assert [rows(file) for file in found] == [3, 3]
    (tmp_path / "c.fits[Y]").write_bytes((tmp_path / "a.fits").read_bytes())  # a file of that name is itself
    assert rows(f"{tmp_path}/c.fits[Y]") == 2
    (tmp_path / "d.fits").write_bytes((tmp_path / "a.fits").read_bytes())
    (tmp_path / "d.fit").write_bytes((tmp_path / "a.fits").read_bytes())
    found = inputs.expand(f"{tmp_path}/d.fit[s]", tiny.location(tmp_path))  # and so is a pattern that matches files
    assert [file.url for file in found] == [f"{tmp_path}/d.fits"]


def test_tables_of_one_file_are_different_content_and_change_with_the_file(tmp_path):
    path = write(tmp_path / "a.fits", hdu(2, "X"), hdu(3, "Y"))
    x, y = (inputs.inspect(Location(f"{path}[{name}]"), 100) for name in "XY")
    assert (x.n_rows, y.n_rows) == (2, 3)
    assert x.content != y.content
    path.unlink()
    write(path, hdu(2, "X"), hdu(9, "Y"))
    assert inputs.stamp(x.location) != x.stamp
    with pytest.raises(ValueError, match="was changed while it was read"):
        inputs.require_unchanged(y.location, y.stamp)


def test_a_container_of_one_table_takes_no_address(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet is one table: leave \[PHOT\] out"):
        rows(f"{tmp_path}/a.parquet[PHOT]")


def test_two_tables_of_one_file_are_two_inputs_of_one_store(tmp_path):
    bands = ("g", "r", "i")
    survey = Survey(
        name="parts", bands=tuple(f"sdss2010-{b}" for b in bands), labels=bands, flux=tuple(f"F_{b}" for b in bands),
        error=tuple(f"E_{b}" for b in bands), error_kind="sigma", ids=("ID",),
    )  # fmt: skip
    tables = []
    for number, (name, n) in enumerate((("NORTH", 3), ("SOUTH", 5))):
        columns = {"ID": np.arange(n) + 100 * number, "Z": np.full(n, 0.1 * (number + 1)), "RA": np.arange(n) + 1.0}
        columns |= {"DEC": np.zeros(n)} | {f"{kind}_{b}": np.full(n, 5.0) for kind in "FE" for b in bands}
        tables.append(fits.BinTableHDU(Table(columns), name=name))
    path = write(tmp_path / "a.fits", *tables)
    source = [f"{path}[{name}]" for name in ("north", "south")]
    store = ingest(source, survey, tiny.location(tmp_path / "out"), 64, Ingest(), DaskSettings(workers=1))
    assert sorted(np.asarray(store.group["ids/ID"][:]).tolist()) == [0, 1, 2, 100, 101, 102, 103, 104]
    assert [(file.url, file.n_rows) for file in photometry.files(store)] == [(source[0], 3), (source[1], 5)]
    redshift, number = (np.asarray(store.group[name][:]) for name in ("redshift", "input_file"))
    np.testing.assert_allclose(redshift, 0.1 * (number + 1), rtol=1e-6)
