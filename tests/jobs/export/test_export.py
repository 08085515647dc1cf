"""Catalogs out: identifiers of any kind and what a catalog says of its columns come through every container, and every
container is read by the programs it is for."""

import csv
import io
import shutil
import subprocess
import sys
import warnings

import astropy.units as u
import made_catalog
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import tiny
import xarray as xr
import zarr
from astropy.io import fits, votable
from astropy.io.votable import ucd
from astropy.table import Table

from jobs.columns import INFERRED
from jobs.containers.formats import open_catalog as open_input
from jobs.export import arrow, export, fits_table, write, zarr_group
from jobs.export.rows import HEALPIX, ROW_COLUMNS, Column, Rows, of_catalog
from storage_schemas import open_catalog
from storage_schemas.catalog.schema import arrays

#: Columns of a row's certificate: what tells a reader how far to trust it.
CERTIFICATE = ("method", "effective_draws", "effective_fraction", "pareto_k", "log_evidence", "log_evidence_error",
               "chi2", "p_value", "rhat")  # fmt: skip


@pytest.fixture
def catalog():
    """Two rows of one parameter whose identifiers are text, as Zarr's variable-length strings come back."""
    about = {spec.name: {"units": spec.units, "long_name": spec.long_name} for spec in arrays(INFERRED, {})}
    columns = {name: ("galaxy", i + np.arange(2) / 4, about[name]) for i, name in enumerate(ROW_COLUMNS)}
    columns |= {"quantiles": (("galaxy", "param", "quantile"), np.ones((2, 1, 5)))}
    columns |= {name: (("galaxy", "param"), np.ones((2, 1))) for name in ("mean", "std")}
    columns["NAME"] = ("galaxy", np.array(["M 31", "NGC 1"], np.dtypes.StringDType()))
    attributes = {"ids": ["NAME"], "param_units": ["Gyr"], "run": {"model": "m", "seed": 1}}
    return xr.Dataset(columns, {"param": ["t_burst"]}, attributes)


def test_text_identifiers_reach_fits_and_parquet(catalog, tmp_path):
    rows = of_catalog(catalog)
    fits_table.write(rows, tmp_path / "c.fits")
    arrow.write_parquet(rows, tmp_path / "c.parquet")
    assert Table.read(tmp_path / "c.fits")["NAME"].tolist() == ["M 31", "NGC 1"]
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet")["NAME"].to_pylist() == ["M 31", "NGC 1"]


@pytest.mark.parametrize("name", ["c.fits", "c.parquet", "c.csv"])
def test_every_certificate_reaches_every_container(catalog, tmp_path, name):
    write(of_catalog(catalog), tmp_path / name)
    table = Table.read(tmp_path / name, format={"c.csv": "ascii.csv"}.get(name))
    for column in CERTIFICATE:
        found = table[column.upper() if name == "c.fits" else column]
        np.testing.assert_array_equal(np.asarray(found), catalog[column].values, err_msg=column)


def test_descriptions_are_the_stores(catalog, tmp_path):
    fits_table.write(of_catalog(catalog), tmp_path / "c.fits")
    arrow.write_parquet(of_catalog(catalog), tmp_path / "c.parquet")
    header = fits.getheader(tmp_path / "c.fits", 1)
    number = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
    schema = pyarrow.parquet.read_schema(tmp_path / "c.parquet")
    for column in (*CERTIFICATE, "redshift", "flags"):
        expected = catalog[column].attrs["long_name"]
        assert expected
        assert header[f"TCOMM{number[column.upper()]}"] == expected
        assert schema.field(column).metadata[b"description"].decode() == expected
    assert header[f"TUNIT{number['RA']}"] == "deg"
    assert f"TCOMM{number['T_BURST_MEAN']}" not in header
    assert schema.field("t_burst_mean").metadata == {b"unit": b"Gyr"}


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "  =1", "＝1+1", "=1,2", '="x"')
HARMLESS = ("M 31", "-12", "+1.5e3", "-.5", "00012", "a=b", "'x", "None", "")


def test_formulas_in_csv_are_text_and_numbers_stay_numbers(catalog, tmp_path):
    """In Parquet they are what they are."""
    text = np.array([*FORMULAS, *HARMLESS], np.dtypes.StringDType())
    many = catalog.isel(galaxy=np.zeros(len(text), int)).assign(chi2=("galaxy", -1.5 - np.arange(len(text))))
    many = many.assign({"NAME": ("galaxy", text), "=evil,name": ("galaxy", -np.arange(len(text)))})
    rows = of_catalog(many.assign_attrs(ids=["NAME", "=evil,name"]))
    arrow.write_csv(rows, tmp_path / "c.csv")
    with open(tmp_path / "c.csv", newline="") as file:
        header, *found = list(csv.reader(file))
    assert [row[0] for row in found] == [f"'{x}" for x in FORMULAS] + list(HARMLESS)
    assert header[:2] == ["NAME", "'=evil,name"]
    assert [int(row[1]) for row in found] == [-i for i in range(len(text))]
    assert [float(row[header.index("chi2")]) for row in found] == many["chi2"].values.tolist()
    arrow.write_parquet(rows, tmp_path / "c.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet")["NAME"].to_pylist() == text.tolist()


@pytest.fixture(scope="module")
def identified(tmp_path_factory):
    """Unsigned, signed and text identifiers of which some are missing, and one with the name of a column."""
    where = tiny.location(tmp_path_factory.mktemp("identified") / "catalog")
    row = np.arange(40)
    lost = row % 10 == 3
    unsigned = np.where(lost, np.uint64(0), np.uint64(2**64 - 2) - row.astype(np.uint64))
    signed = np.where(lost, 0, 2**60 + row)
    text = np.where(lost, "", np.array([f"{i:05}" for i in row], np.dtypes.StringDType()))
    more = {"U": ("uint64", unsigned, lost), "I": ("int64", signed, lost), "T": ("str", text, lost)}
    made_catalog.publish(where, 40, 16, False, more_ids={**more, "Flux_chi2": ("int64", row, row < 0),
                                                         "CHI2": ("int64", row + 5, row < 0)})  # fmt: skip
    return open_catalog(where), {name: [None if m else v for v, m in zip(values.tolist(), lost, strict=True)]
                                 for name, (_, values, _) in more.items()}  # fmt: skip


def test_identifiers_of_every_type_reach_every_container_and_missing_ones_are_null(identified, tmp_path, capsys):
    data, wanted = identified
    for name in ("c.parquet", "c.fits", "c.csv", "c_hats"):
        export(data, tmp_path / name, ["log_mstar"])
    assert "the identifier CHI2 is the column id_CHI2" in capsys.readouterr().err
    table = pyarrow.parquet.read_table(tmp_path / "c.parquet")
    assert table.schema.field("U").type == "uint64"
    assert {name: table[name].to_pylist() for name in wanted} == wanted
    assert table["id_CHI2"].to_pylist() == list(range(5, 45)) and table["Flux_chi2"].to_pylist() == list(range(40))
    with open(tmp_path / "c.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert {name: [row[name] for row in found] for name in wanted} == {
        name: ["" if v is None else str(v) for v in values] for name, values in wanted.items()
    }
    about, content = fits.getheader(tmp_path / "c.fits", 1), fits.getdata(tmp_path / "c.fits", 1)
    number = {about[f"TTYPE{i}"]: i for i in range(1, about["TFIELDS"] + 1)}
    assert about[f"TZERO{number['U']}"] == 2**63 and about[f"TNULL{number['U']}"] == 2**63 - 1
    assert content["U"].tolist() == [2**64 - 1 if v is None else v for v in wanted["U"]]
    assert Table.read(tmp_path / "c.fits")["I"].tolist() == wanted["I"]
    assert [str(v) or None for v in content["T"]] == wanted["T"]
    hats = pyarrow.parquet.read_table(tmp_path / "c_hats" / "dataset", columns=["U", "input_row"]).to_pylist()
    assert all(row["U"] == wanted["U"][row["input_row"]] for row in hats) and len(hats) > 30


def test_an_ensemble_has_identifiers_too(identified, tmp_path):
    import qp

    data, wanted = identified
    export(data, tmp_path / "c.qp.hdf5", ["log_mstar"])
    found = qp.read(str(tmp_path / "c.qp.hdf5")).ancil
    assert found["U"].tolist() == [wanted["U"][i] or 0 for i in found["row"]]
    assert [str(name) for name in found["T"]] == [wanted["T"][i] or "" for i in found["row"]]


# -- whole catalogs ---------------------------------------------------------------------------------------------------

N = 30_000  # rows: two blocks and a part


@pytest.fixture(scope="module", params=[True, False], ids=["HEALPix order", "input's order"])
def made(request, tmp_path_factory):
    where = tiny.location(tmp_path_factory.mktemp("made") / "catalog")
    made_catalog.publish(where, N, 2048, request.param, name_rows=True)
    return open_catalog(where)


def expected(made):
    """A column of each kind, as the catalog itself has it."""
    names = {"objectId": "objectId", HEALPIX: "healpix_29", "ra": "ra", "input_file": "input_file", "flags": "flags",
             "n_bands": "n_bands", "chi2": "chi2"}  # fmt: skip
    columns = {name: made[array].values for name, array in names.items()}
    param = made_catalog.PARAMS.index("log_z_mw")
    columns |= {
        f"log_z_mw_{q}": made["quantiles"].values[:, param, i]
        for i, q in enumerate(("p025", "p16", "p50", "p84", "p975"))
    }
    return columns | {"log_z_mw_mean": made["mean"].values[:, param], "log_z_mw_std": made["std"].values[:, param]}


def test_fits_is_whole_has_units_and_its_checksums_are_right(made, tmp_path):
    assert export(made, tmp_path / "c.fits") == N
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a checksum that is wrong is a warning
        with fits.open(tmp_path / "c.fits", checksum=True) as hdus:
            hdus.verify("exception")
            assert {"CHECKSUM", "DATASUM"} <= set(hdus[1].header) and {"CHECKSUM", "DATASUM"} <= set(hdus[0].header)
            header = hdus[1].header
    table = Table.read(tmp_path / "c.fits")
    for name, values in expected(made).items():
        np.testing.assert_array_equal(np.asarray(table[name.upper()]), values, err_msg=name)
        assert table[name.upper()].dtype.kind == values.dtype.kind
    assert table["NAME"].tolist() == made["NAME"].values.tolist()
    assert table["RA"].unit == u.deg and table["T_AGE_MW_P50"].unit == u.Gyr
    assert header["TUNIT" + str(table.colnames.index("LOG_MSTAR_P50") + 1)] == "log(solMass)"
    assert header["MODEL"] == "made"
    damaged = (tmp_path / "c.fits").read_bytes()
    (tmp_path / "c.fits").write_bytes(damaged[:-5000] + bytes([damaged[-5000] ^ 1]) + damaged[-4999:])
    with pytest.warns(UserWarning, match="Datasum"), fits.open(tmp_path / "c.fits", checksum=True) as hdus:
        assert len(hdus) == 2


@pytest.mark.parametrize("total", [0, 1, 0xFFFFFFFF, 868229149, 0x3A3B3C3D, 0xC4C5C6C7])
def test_a_checksum_makes_the_sum_minus_zero(total):
    text = fits_table.encode(total)
    assert len(text) == 16 and text.isalnum()
    sums = fits_table.Sum(total)
    # aligned as in a header, where the value of the card begins one byte behind a word, and in place of zeros
    sums.add((text[1:] + text[:1]).encode())
    zeros = fits_table.Sum()
    zeros.add(b"0" * 16)
    assert (sums.total() - zeros.total()) % 0xFFFFFFFF == 0


def test_parquet_has_row_groups_and_the_votable_of_its_columns(made, tmp_path):
    export(made, tmp_path / "c.parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "c.parquet")
    assert file.metadata.num_rows == N and file.metadata.num_row_groups == 2
    content = file.read()
    for name, values in expected(made).items():
        np.testing.assert_array_equal(content[name].to_numpy(), values, err_msg=name)
    about = file.schema_arrow.metadata
    assert about[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    text = about[b"IVOA.VOTable-Parquet.content"]
    assert b"<DATA" not in text
    fields = votable.parse_single_table(io.BytesIO(text), verify="exception").fields
    assert [field.name for field in fields] == file.schema_arrow.names
    for field in fields:
        assert field.ucd and ucd.check_ucd(field.ucd, check_controlled_vocabulary=True), field.name
        assert field.description, field.name
    table = Table.read(tmp_path / "c.parquet", format="parquet.votable")
    assert table["log_mstar_p50"].unit == u.dex(u.solMass) and table["log_z_mw_std"].unit == u.dex(u.one)
    assert table["ra"].unit == u.deg and table["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert table["log_mstar_p50"].description == "50 % quantile: stellar mass formed"
    np.testing.assert_array_equal(np.asarray(table["objectId"]), made["objectId"].values)


def test_csv_is_read_by_others(made, tmp_path):
    export(made, tmp_path / "c.csv", ["log_z_mw", "flags", "n_bands", "chi2"])
    content = pyarrow.csv.read_csv(tmp_path / "c.csv")
    for name, values in expected(made).items():
        np.testing.assert_array_equal(content[name].to_numpy().astype(values.dtype), values, err_msg=name)
    assert (tmp_path / "c.csv").read_text().startswith("objectId,NAME,ra,dec,_healpix_29,input_file,input_row,n_bands,")


def test_chosen_columns_come_with_identifiers_and_position(made):
    rows = of_catalog(made, ["log_mstar", "chi2", "t_burst_p84"])
    assert [column.name for column in rows.columns] == [
        "objectId", "NAME", "ra", "dec", HEALPIX, "input_file", "input_row", "chi2", "log_mstar_p025", "log_mstar_p16",
        "log_mstar_p50", "log_mstar_p84", "log_mstar_p975", "log_mstar_mean", "log_mstar_std", "t_burst_p84",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no column mass; there are"):
        of_catalog(made, ["mass"])


def test_lsdb_opens_hats_and_its_cone_holds_the_same_rows(made, tmp_path, monkeypatch):
    import lsdb
    from hats.io.validation import is_valid_catalog

    monkeypatch.setattr("jobs.export.hats_catalog.ROWS_PER_PARTITION", 3000)
    export(made, tmp_path / "c_hats")
    assert is_valid_catalog(tmp_path / "c_hats", strict=True)
    opened = lsdb.open_catalog(tmp_path / "c_hats")
    placed = np.isfinite(made["ra"].values)
    assert len(opened) == opened.hc_structure.catalog_info.total_rows == placed.sum()
    orders = {pixel.order for pixel in opened.get_healpix_pixels()}
    assert len(orders) > 1  # small partitions where galaxies crowd
    about = pyarrow.parquet.read_schema(tmp_path / "c_hats" / "dataset" / "_common_metadata").metadata
    assert about[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    for partition in opened.partitions[[0, 7]].to_delayed():
        frame = partition.compute()
        assert len(frame) <= 3000 and frame.index.is_monotonic_increasing
    for cone in ((0.0, 10.0, 0.5), (359.9, 10.0, 2.0), (200.0, 89.9, 0.2), (123.0, -45.0, 5.0)):
        theirs = opened.cone_search(*cone[:2], radius_arcsec=3600 * cone[2]).compute()
        ours = made.sedflow.cone(*cone)
        assert len(ours["galaxy"]) > 10
        assert sorted(theirs["objectId"]) == sorted(ours["objectId"].values)
        of_row = dict(zip(ours["objectId"].values, ours["mean"].values[:, 0], strict=True))
        np.testing.assert_array_equal(theirs["log_mstar_mean"], [of_row[i] for i in theirs["objectId"]])


def test_qp_reads_ensembles(made, tmp_path):
    import qp

    export(made, tmp_path / "c.qp.hdf5", ["log_mstar", "log_z_mw", "chi2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c_log_mstar.qp.hdf5", "c_log_z_mw.qp.hdf5"]
    ensemble = qp.read(str(tmp_path / "c_log_z_mw.qp.hdf5"))
    columns = expected(made)
    answered = np.flatnonzero(np.isfinite(columns["log_z_mw_p50"]))
    assert 0 < len(answered) < N and ensemble.npdf == len(answered)
    np.testing.assert_array_equal(ensemble.ancil["row"], answered)
    for name in ("objectId", HEALPIX, "chi2"):
        np.testing.assert_array_equal(ensemble.ancil[name], columns[name][answered])
    assert [str(name) for name in ensemble.ancil["NAME"][:3]] == made["NAME"].values[answered][:3].tolist()
    some = ensemble[:500]
    for probability, name in ((0.025, "p025"), (0.16, "p16"), (0.5, "p50"), (0.84, "p84"), (0.975, "p975")):
        np.testing.assert_allclose(some.ppf(probability)[:, 0], columns[f"log_z_mw_{name}"][answered[:500]], rtol=1e-5)
    export(made.isel(galaxy=slice(0, 100)), tmp_path / "one.qp.hdf5", ["log_mstar"])
    assert qp.read(str(tmp_path / "one.qp.hdf5")).npdf < 100


@pytest.mark.parametrize("name", ["c.fits", "c.parquet", "c.csv"])
def test_an_export_of_no_rows_is_a_table_of_no_rows(made, tmp_path, name):
    assert export(made.isel(galaxy=slice(0, 0)), tmp_path / name) == 0
    readers = {"c.fits": Table.read, "c.parquet": pyarrow.parquet.read_table, "c.csv": pyarrow.csv.read_csv}
    assert len(readers[name](tmp_path / name)) == 0


@pytest.mark.parametrize("ending", ["fits", "zarr"])
@pytest.mark.parametrize(("kind", "null"), [("i8", -(2**63)), ("u8", 2**64 - 1)])
def test_an_identifier_that_would_be_read_as_a_missing_one_is_refused(tmp_path, ending, kind, null):
    column = Column("ID", np.dtype(kind), identifier=0)
    out = tmp_path / f"o.{ending}"
    writing = {"fits": fits_table.write, "zarr": zarr_group.write}[ending]
    for ids in ([5, 0, 7], [5, 0, null]):
        values = {"ID": np.ma.masked_array(np.array(ids, kind), [False, True, False])}
        rows = Rows.of_arrays([column], values, {})
        if null in ids:
            with pytest.raises(
                ValueError, match=f"identifier ID is {null} somewhere, which in .* stands for a missing"
            ):
                writing(rows, tmp_path / f"p.{ending}")
            assert not (tmp_path / f"p.{ending}").exists()
        else:
            writing(rows, out)
    if ending == "zarr":
        assert zarr.open_group(out)["ID"][:].tolist() == [5, null, 7]
    else:
        with open_input(tiny.location(out)) as again:  # astropy masks no unsigned numbers
            values, missing = again.exact(0, 3, ["ID"])["ID"]
        assert values.tolist() == [5, 0, 7] and missing.tolist() == [False, True, False]


def test_what_cannot_be_exported_is_said(made, tmp_path):
    with pytest.raises(
        ValueError, match=r"c.txt: the ending must be one of .fits, .parquet, .csv, .zarr, .hats, _hats, .qp.hdf5"
    ):
        export(made, tmp_path / "c.txt")
    (tmp_path / "c_hats").mkdir()
    with pytest.raises(ValueError, match="c_hats exists already"):
        export(made, tmp_path / "c_hats")
    with pytest.raises(ValueError, match="none of 0 rows has a position"):
        export(made.isel(galaxy=slice(0, 0)), tmp_path / "d_hats")
    with pytest.raises(ValueError, match="qp ensembles are made of the quantiles of parameters"):
        export(made, tmp_path / "c.qp.hdf5", ["chi2"])


def test_an_export_that_fails_leaves_what_was_there(made, tmp_path):
    rows = of_catalog(made)

    def breaks(columns):
        yield from list(rows.source(columns))[:1]
        raise OSError("gone")

    broken = Rows(rows.columns, rows.n_rows, rows.metadata, breaks)
    for name in ("c.fits", "c.parquet", "c.csv"):
        (tmp_path / name).write_text("before")
        with pytest.raises(OSError, match="gone"):
            write(broken, tmp_path / name)
        assert (tmp_path / name).read_text() == "before"
    with pytest.raises(OSError, match="gone"):
        write(broken, tmp_path / "c_hats")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "c.fits", "c.parquet"]


_PEAK = """
import sys
from pathlib import Path
from jobs.export import export, hats_catalog
from storage_schemas import open_catalog
hats_catalog.ROWS_PER_PARTITION = 20_000
source, folder, *endings = sys.argv[1:]
for ending in endings:
    export(open_catalog(source), Path(folder) / f"all{ending}", ["log_mstar"] if "qp" in ending else [])
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_rows(tmp_path):
    """Resident memory [kB] at its highest so far, in a process that writes one container after the other."""
    endings = [".csv", ".parquet", ".fits", ".qp.hdf5", "_hats"]
    peaks = []
    for n in (40_000, 160_000):
        made_catalog.publish(tiny.location(tmp_path / f"{n}"), n, 4096, True)
        command = [sys.executable, "-c", _PEAK, str(tmp_path / f"{n}"), str(tmp_path), *endings]
        peaks.append([int(text) for text in subprocess.run(command, check=True, capture_output=True).stdout.split()])
        shutil.rmtree(tmp_path / "all_hats")
    for ending, few, many in zip(endings, *peaks, strict=True):
        print(f"{ending}: {few / 1024:.0f} and {many / 1024:.0f} MB")
        assert many < few + 80 * 1024, (ending, peaks)  # 120,000 rows more are 100 MB; 32 MB are cached
