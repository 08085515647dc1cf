"""HDF5 and VOTable: every table of a file, what it declares, and nothing from anywhere else."""

import io

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io.votable import from_table, tree
from astropy.table import MaskedColumn, QTable, Table

from jobs.containers import hdf5_catalog
from jobs.containers.formats import missing, open_catalog, tables_of
from storage_schemas.backend.location import Location


def read(address, *names):
    with open_catalog(Location(str(address))) as catalog:
        return catalog.read(0, catalog.n_rows, names)


def listed(path):
    return [(table.name, table.n_rows, table.columns) for table in tables_of(Location(str(path)))]


# -- HDF5 -----------------------------------------------------------------------------------------------------------------


def test_groups_and_compound_arrays_are_tables_and_several_are_no_guess(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, n in (("photometry", 3), ("deep/er", 4)):
            file.create_group(name)["x"] = np.arange(n)
        file["table"] = np.array([(1, 2.0), (3, 4.0)], [("A", "i8"), ("B", "f4")])
        file.create_group("empty")
    assert listed(path) == [("table", 2, ("A", "B")), ("photometry", 3, ("x",)), ("deep/er", 4, ("x",))]
    for address, rows in {"[deep/er]": 4, "[/photometry]": 3, "[Photometry]": 3, "[1]": 2}.items():
        with open_catalog(Location(f"{path}{address}")) as catalog:
            assert catalog.n_rows == rows
    assert read(f"{path}[table]", "B")["B"].tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"holds 3 tables: table, photometry, deep/er. Say which .*a\.hdf5\[table\]"):
        read(path)
    with pytest.raises(ValueError, match="none of its tables is er; it holds table, photometry, deep/er"):
        read(f"{path}[er]")


def test_arrays_at_the_root_are_a_table(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["z"], file["Z"] = [1.0, 2.0], [0.1, 0.2]
        file["version"] = "1.0"
    assert listed(tmp_path / "a.h5") == [("/", 2, ("Z", "z"))]
    assert read(tmp_path / "a.h5", "z", "Z")["z"].tolist() == [1, 2]
    assert read(f"{tmp_path}/a.h5[/]", "Z")["Z"].tolist() == [0.1, 0.2]


def test_packed_numbers_and_fill_values_are_those_that_xarray_reads(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for name, values, about in (
            (
                "PACKED",
                np.array([1, -999, 3], "i2"),
                {"scale_factor": 0.5, "add_offset": 10.0, "_FillValue": np.int16(-999)},
            ),
            ("FILLED", np.array([1.0, -99.0, 3.0]), {"missing_value": [-99.0]}),
            ("ID", np.array([(1 << 60) + 1, -1, 3]), {"_FillValue": -1}),
        ):
            file[name] = values
            for key, value in about.items():
                file[name].attrs[key] = value
    found = read(tmp_path / "a.nc", "PACKED", "FILLED", "ID")
    assert np.ma.filled(found["PACKED"], np.nan).tolist() == pytest.approx([10.5, np.nan, 11.5], nan_ok=True)
    assert np.ma.filled(found["FILLED"], np.nan).tolist() == pytest.approx([1, np.nan, 3], nan_ok=True)
    assert found["ID"].tolist() == [(1 << 60) + 1, None, 3]
    with open_catalog(Location(str(tmp_path / "a.nc"))) as catalog:
        ids = catalog.exact(0, 3, ["ID"])["ID"]
        assert (ids.values.tolist(), ids.missing.tolist()) == ([(1 << 60) + 1, 0, 3], [False, True, False])
        with pytest.raises(ValueError, match="integers packed with scale_factor and add_offset"):
            catalog.exact(0, 3, ["PACKED"])


def test_identifiers_of_hdf5_keep_every_digit_and_letter(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["U"] = np.array([2**64 - 1, 2**63, 1], "u8")
        file["BIG"] = np.array([2**60 + 1, 2, 3], ">i8")
        file["S"] = np.array([b"NGC 1", b"00012", b""], "S8")
        file.create_dataset("T", data=["Größe", "1e5", ""], dtype=h5py.string_dtype())
    with open_catalog(Location(str(tmp_path / "a.h5"))) as catalog:
        found = catalog.exact(0, 3, ["U", "BIG", "S", "T"])
        assert [found[n].kind for n in found] == ["uint64", "int64", "str", "str"]
        assert [catalog.exact(0, 0, [n])[n].kind for n in found] == ["uint64", "int64", "str", "str"]
        assert found["U"].values.tolist() == [2**64 - 1, 2**63, 1]
        assert found["BIG"].values.tolist() == [2**60 + 1, 2, 3]
        assert found["S"].values.tolist() == ["NGC 1", "00012", ""]
        assert found["T"].values.tolist() == ["Größe", "1e5", ""]
        assert found["T"].missing.tolist() == found["S"].missing.tolist() == [False, False, True]


@pytest.mark.parametrize(
    "options", [{"format": "fixed"}, {"format": "table"}, {"format": "table", "data_columns": True}]
)
@pytest.mark.filterwarnings("ignore")
def test_frames_of_pandas_are_what_pandas_reads(options, tmp_path):
    frame = pd.DataFrame({"ID": [5, 6, 7], "z": [0.1, np.nan, 0.3], "F_G": [1.0, 2.0, 3.0], "F_R": np.float32([4, 5, 6]),
                          "OK": [True, False, True], "NAME": ["a", None, "nan_c"]})  # fmt: skip
    path = tmp_path / "a.h5"
    frame.to_hdf(path, key="deep/cat", **options)
    ((name, n_rows, columns),) = listed(path)
    assert (name, n_rows, set(columns)) == ("deep/cat", 3, {"index", *frame.columns})
    back = pd.read_hdf(path, "deep/cat")
    numbers = ["ID", "z", "F_G", "F_R", "OK"]
    found = read(path, *numbers)
    for column in numbers:
        np.testing.assert_array_equal(np.asarray(found[column], float), back[column].to_numpy(float))
    if options["format"] == "fixed":
        with pytest.raises(ValueError, match="column NAME is pickled: reading it could run any code"):
            read(path, "NAME")
    else:
        assert missing(read(path, "NAME")["NAME"]).tolist() == [False, True, False]


CATEGORIES = {"I": [500, 700, 500], "F": [0.05, 0.5, 0.05], "S": ["STAR", None, "QSO"], "N": [7, None, 2**60 + 1]}


@pytest.mark.parametrize("columns", [None, True])
def test_categories_of_pandas_are_their_values_and_not_their_numbers(columns, tmp_path):
    listed = {name: [x for x in dict.fromkeys(values[::-1]) if x is not None] for name, values in CATEGORIES.items()}
    frame = pd.DataFrame({name: pd.Categorical(values, listed[name]) for name, values in CATEGORIES.items()})
    frame.assign(one=1.0).to_hdf(tmp_path / "a.h5", key="t", format="table", data_columns=columns)
    with open_catalog(Location(str(tmp_path / "a.h5"))) as catalog:
        for name, expected in CATEGORIES.items():
            values, exactly = catalog.read(0, 3, [name])[name], catalog.exact(0, 3, [name])[name]
            found = np.ma.getdata(values).tolist()
            assert [None if gone else x for x, gone in zip(found, missing(values), strict=True)] == expected
            assert [x or None for x in exactly.values.tolist()] == expected
            assert exactly.missing.tolist() == [x is None for x in expected]
            assert catalog.exact(1, 3, [name])[name].values.tolist() == exactly.values[1:].tolist()
            assert catalog.exact(0, 0, [name])[name].values.dtype == exactly.values.dtype


def test_categories_that_are_not_there_are_refused(tmp_path):
    pd.DataFrame({"I": pd.Categorical([500, 700]), "z": 1.0}).to_hdf(tmp_path / "a.h5", key="t", format="table")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        (block,) = file["t/meta"]
        rows = file["t/table"][...]
        rows[block][1] = 2
        file["t/table"][...] = rows
    with pytest.raises(ValueError, match="column I has category 2 of 2: the file is damaged"):
        read(tmp_path / "a.h5", "I")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["t/meta"]
    with pytest.raises(ValueError, match="column I has categories that are not in the file"):
        read(tmp_path / "a.h5", "I")


@pytest.mark.parametrize("kind", ["fixed", "table"])
@pytest.mark.parametrize(
    "values",
    [
        pd.to_datetime(["2020-01-01"] * 2),
        pd.to_datetime(["2020-01-01"] * 2, utc=True),
        pd.to_timedelta([1, 2], unit="ns"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_times_of_pandas_are_refused_and_so_is_an_index_of_them(kind, values, tmp_path):
    pd.DataFrame({"T": values, "z": [1.0, 2.0]}).to_hdf(tmp_path / "a.h5", key="t", format=kind)
    pd.DataFrame({"z": [1.0, 2.0]}, index=values).to_hdf(tmp_path / "b.h5", key="t", format=kind)
    for path, name in (("a.h5", "T"), ("b.h5", "index")):
        with open_catalog(Location(str(tmp_path / path))) as catalog:
            assert catalog.read(0, 2, ["z"])["z"].tolist() == [1, 2]
            for method in (catalog.read, catalog.exact):
                with pytest.raises(ValueError, match=rf"column {name} is a time \((datetime|timedelta)64"):
                    method(0, 2, [name])


@pytest.mark.parametrize("options", [{}, {"nan_rep": "_NULL_"}, {"nan_rep": "nan"}])
def test_text_that_pandas_calls_none_is_what_pandas_reads(options, tmp_path):
    frame = pd.DataFrame({"T": ["a", None, "nan", "_NULL_"], "one": 1.0})
    frame.to_hdf(tmp_path / "a.h5", key="t", format="table", **options)
    expected = [None if pd.isna(x) else x for x in pd.read_hdf(tmp_path / "a.h5")["T"]]
    assert read(tmp_path / "a.h5", "T")["T"].tolist() == expected
    with open_catalog(Location(str(tmp_path / "a.h5"))) as catalog:
        assert catalog.exact(0, 4, ["T"])["T"].missing.tolist() == [x is None for x in expected]


def test_text_of_pandas_in_another_encoding_is_refused(tmp_path):
    pd.DataFrame({"T": ["é", "è"]}).to_hdf(tmp_path / "a.h5", key="t", format="table", encoding="latin-1")
    with pytest.raises(ValueError, match="column T is text in latin-1; only UTF-8 is read"):
        read(tmp_path / "a.h5", "T")


def test_masks_and_units_that_astropy_keeps_beside_hdf5_are_read(tmp_path):
    table = QTable({"Q": [1.0, 2.0], "M": MaskedColumn([1, 2], mask=[False, True]), "V": np.ones((2, 3))})
    table["Q"].unit = "uJy"
    table.write(tmp_path / "a.h5", path="x", serialize_meta=True)
    with open_catalog(Location(str(tmp_path / "a.h5"))) as catalog:
        assert catalog.names == ("Q", "M", "V")
        assert catalog.units["Q"] == "uJy"
        found = catalog.read(0, 2, catalog.names)
        assert found["M"].tolist() == [1, None]
        assert found["V"].shape == (2, 3)
        assert catalog.exact(0, 2, ["M"])["M"].missing.tolist() == [False, True]


def test_what_is_in_other_files_or_of_other_types_is_refused_only_if_it_is_wanted(tmp_path):
    (tmp_path / "secret").write_bytes(np.arange(3.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1.0, 2.0, 3.0]
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["A"], file["B"], file["LONG"] = [1.0, 2.0, 3.0], [1, 2, 3], np.arange(5)
        file.create_dataset("EXTERNAL", (3,), "f8", external=[(str(tmp_path / "secret"), 0, 24)])
        file.create_virtual_dataset("VIRTUAL", layout)
        file["LINK"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file["DEEP"] = np.zeros((3, 2, 2))
        file["COMPLEX"] = np.ones(3, complex)
        file.create_dataset("VLEN", (3,), h5py.vlen_dtype(np.float64))
    assert read(tmp_path / "a.h5", "A")["A"].tolist() == [1, 2, 3]
    for name, message in {
        "EXTERNAL": "stored in other files", "VIRTUAL": "stored in other files", "LONG": "has 5 rows, and most of its table 3",
        "DEEP": "2x2 values a row", "COMPLEX": "complex", "VLEN": "vectors of different lengths",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"column {name} .*{message}"):
            read(tmp_path / "a.h5", name)
    with open_catalog(Location(str(tmp_path / "a.h5"))) as catalog:
        assert "LINK" not in catalog.names


def test_rows_that_nothing_holds_and_files_that_are_broken_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10**12,), "f8", chunks=(1000,))
    with pytest.raises(ValueError, match="announces 1,000,000,000,000 rows, and what is stored holds at most 0"):
        read(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(ValueError, match=r"b\.h5 is not an HDF5 file"):
        read(tmp_path / "b.h5")
    (tmp_path / "c.h5.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="gunzip it first"):
        read(tmp_path / "c.h5.gz")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for i in range(30):
            file.create_group(f"g{i}")
    monkeypatch.setattr(hdf5_catalog, "_MOST_GROUPS", 20)
    with pytest.raises(ValueError, match="has more than 20 groups"):
        read(tmp_path / "d.h5")


# -- VOTable --------------------------------------------------------------------------------------------------------------


def votable(path, **tables):
    file = tree.VOTableFile()
    for name, table in tables.items():
        (resource,) = from_table(table).resources
        resource.tables[0].name = name
        file.resources.append(resource)
    out = io.BytesIO()
    file.to_xml(out)
    path.write_bytes(out.getvalue())
    return path


def test_tables_of_a_votable_are_named_or_numbered_and_several_are_no_guess(tmp_path):
    path = votable(tmp_path / "a.vot", phot=Table({"A": [1, 2]}), spec=Table({"Z": [0.1, 0.2, 0.3]}))
    assert listed(path) == [("phot", 2, ("A",)), ("spec", 3, ("Z",))]
    assert read(f"{path}[Spec]", "Z")["Z"].tolist() == read(f"{path}[2]", "Z")["Z"].tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"holds 2 tables: phot, spec. Say which in brackets"):
        read(path)


def test_nulls_vectors_and_text_of_a_votable_are_what_astropy_reads(tmp_path):
    table = Table({
        "I": MaskedColumn([1, -9, 3], mask=[0, 1, 0]), "V": np.arange(6.0).reshape(3, 2), "T": ["a", "b b", ""],
        "B": [True, False, True],
    })  # fmt: skip
    table["R"] = np.array([np.ones(1), np.ones(2), np.ones(0)], object)
    path = votable(tmp_path / "a.vot", t=table)
    found = read(path, "I", "V", "T", "B")
    assert found["I"].tolist() == [1, None, 3]
    assert found["V"].tolist() == table["V"].tolist()
    assert [x or "" for x in found["T"]] == ["a", "b b", ""]
    assert found["B"].tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"column R .*variable length"):
        read(path, "R")


def queried(path, status="", after="", frame='ID="f" system="ICRS"', ref="f", group=""):
    """A result as a service writes it: positions in a frame, and what became of the query."""
    path.write_text(f"""<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><COOSYS {frame}/>
      <RESOURCE type="results">{status}<TABLE><FIELD ID="r" name="ra" datatype="double" unit="deg" ref="{ref}"/>
      <FIELD name="id" datatype="char" arraysize="*"><VALUES null="N/A"/></FIELD>
      <FIELD name="x" datatype="float"/>{group}<DATA><TABLEDATA><TR><TD>1</TD><TD>N/A</TD><TD>3</TD></TR>
      <TR><TD>2</TD><TD>b</TD><TD>4</TD></TR></TABLEDATA></DATA></TABLE>{after}</RESOURCE></VOTABLE>""")
    return path


def status(value, text=""):
    return f'<INFO name="QUERY_STATUS" value="{value}">{text}</INFO>'


def test_text_that_a_votable_declares_as_null_is_missing(tmp_path):
    path = queried(tmp_path / "a.vot", status("OK"), status("OK"))
    assert read(path, "id")["id"].tolist() == [None, "b"]
    with open_catalog(Location(str(path))) as catalog:
        assert catalog.exact(0, 2, ["id"])["id"].missing.tolist() == [True, False]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (status("OK"), status("OVERFLOW"), r"QUERY_STATUS is OVERFLOW: the service cut the table off after 2 rows\. Ask it"),
        (status("OVERFLOW", "maxtup=2"), "", r"QUERY_STATUS is OVERFLOW \(maxtup=2\)"),
        (status("ERROR", "no such column"), "", r"QUERY_STATUS is ERROR \(no such column\): this is not the result"),
        ("", status("ERROR"), "QUERY_STATUS is ERROR: this is not"),
    ],
)  # fmt: skip
def test_a_result_that_the_service_cut_off_or_calls_an_error_is_refused(before, after, message, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.vot: its {message}"):
        read(queried(tmp_path / "a.vot", before, after), "ra")


@pytest.mark.parametrize(
    ("frame", "other"),
    [
        ('ID="f" system="ICRS"', None), ('ID="f" system="eq_FK5" equinox="J2000"', None), ('ID="f" equinox="2000.0"', None),
        ('ID="f" system="FK5"', None), ('ID="elsewhere" system="galactic"', None), ('ID="f" system="galactic"', "galactic"),
        ('ID="f" system="eq_FK4" equinox="B1950"', "eq_FK4 B1950"), ('ID="f" system="ecl_FK5"', "ecl_FK5"),
        ('ID="f" system="eq_FK5" equinox="J1975"', "eq_FK5 J1975"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grouped", [False, True])
def test_positions_of_a_votable_in_another_frame_are_refused_if_they_are_wanted(grouped, frame, other, tmp_path):
    way = {"ref": "", "group": '<GROUP ref="f"><FIELDref ref="r"/></GROUP>'} if grouped else {}
    path = queried(tmp_path / "a.vot", frame=frame, **way)
    assert read(path, "x")["x"].tolist() == [3, 4]
    if other is None:
        assert read(path, "ra")["ra"].tolist() == [1, 2]
    else:
        with pytest.raises(
            ValueError, match=rf"column ra is in the frame {other} \(COOSYS\), and positions are taken as ICRS"
        ):
            read(path, "ra")


@pytest.mark.parametrize(
    "evil",
    ['<FITS><STREAM href="file:///etc/passwd"/></FITS>', "<BINARY2><STREAM\n encoding='gzip' HREF='http://127.0.0.1/x'/></BINARY2>",
     '<v:STREAM xmlns:v="x" href="file:///etc/passwd"/>'],
)  # fmt: skip
def test_a_votable_fetches_nothing_from_elsewhere(evil, tmp_path):
    content = votable(tmp_path / "a.vot", t=Table({"A": [1, 2]})).read_text()
    start, end = content.index("<TABLEDATA>"), content.index("</TABLEDATA>") + len("</TABLEDATA>")
    (tmp_path / "b.vot").write_text(content[:start] + evil + content[end:])
    with pytest.raises(ValueError, match=r"b\.vot says that data are elsewhere \(href\), or has entities"):
        read(tmp_path / "b.vot")
    (tmp_path / "c.vot").write_text('<!DOCTYPE x [<!ENTITY a "b">]>' + content)
    (tmp_path / "d.vot").write_bytes(content.encode("utf-16"))
    (tmp_path / "e.vot").write_text("<VOTABLE><TABLE>")
    for name, message in {
        "c.vot": "has entities",
        "d.vot": "is no VOTable: it does not begin with <",
        "e.vot": "is no VOTable",
    }.items():
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)
