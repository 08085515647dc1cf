"""What a container declares is honoured, what is not understood is refused if it is wanted, and nothing is reserved on the word
of a header."""

import json
import resource
import shutil
import warnings

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import zarr
from astropy.io import fits
from astropy.table import MaskedColumn, QTable
from astropy.table import Table as AstropyTable

from jobs.containers.formats import missing, open_catalog
from jobs.containers.tables import Table
from jobs.ingest import inputs
from storage_schemas.backend.printable import printable


def read(path, *names):
    with open_catalog(tiny.location(path)) as catalog:
        return catalog.read(0, catalog.n_rows, names)


def table_hdu(columns, **keywords):
    """A binary table; keywords replace those of its header when it is written."""
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header.update(keywords)
    return hdu


# -- FITS -----------------------------------------------------------------------------------------------------------------


def test_fits_integers_that_are_null_are_missing_and_packed_ones_unpacked(tmp_path):
    columns = [
        fits.Column("NULL", "J", null=-9, array=np.array([1, -9, 3])),
        fits.Column("PACKED", "I", array=np.array([2, -99, 6], np.int16)),
        fits.Column("UNSIGNED", "K", bzero=2**63, array=np.array([1, 2**63 + 5, 2**64 - 1], np.uint64)),
        fits.Column("SIGNED", "B", bzero=-128, array=np.array([1, -2, 100], np.int8)),
        fits.Column("VECTOR", "2I", null=-1, array=np.array([[1, -1], [3, 4], [-1, 6]], np.int16)),
        fits.Column("TEXT", "6A", array=np.array(["a", "b b ", ""])),
    ]
    table_hdu(columns, TSCAL2=0.5, TZERO2=10.0, TNULL2=-99).writeto(tmp_path / "a.fits")
    found = read(tmp_path / "a.fits", "NULL", "PACKED", "UNSIGNED", "SIGNED", "VECTOR", "TEXT")
    assert found["NULL"].tolist() == [1, None, 3]
    assert found["PACKED"].tolist() == [11, None, 13]
    assert found["UNSIGNED"].tolist() == [1, 2**63 + 5, 2**64 - 1]
    assert found["SIGNED"].tolist() == [1, -2, 100]
    assert found["VECTOR"].tolist() == [[1, None], [3, 4], [None, 6]]
    assert found["TEXT"].tolist() == ["a", "b b", ""]
    table = Table(tiny.location(tmp_path / "a.fits"))
    np.testing.assert_array_equal(table.numbers(["VECTOR[0]", "PACKED"]), [[1, 11], [3, np.nan], [np.nan, 13]])


@pytest.mark.parametrize(
    ("form", "null", "expected"),
    [
        ("J", -99.0, [1, None, 3]), ("J", "", [1, -99, 3]), ("E", -99, [1, None, 3]), ("D", -99.0, [1, None, 3]),
        ("J", -98.5, "is not an integer: -98.5"), ("J", "N/A", "is not an integer: N/A"), ("D", "x", "is not a number: x"),
        ("J", True, "is not an integer: True"), ("3A", "-99", "is not known of a column without numbers"),
    ],
)  # fmt: skip
def test_what_fits_declares_as_null_is_missing_or_refused_if_it_is_wanted(form, null, expected, tmp_path):
    values = ["1", "-99", "3"] if form == "3A" else [1, -99, 3]
    columns = [fits.Column("A", form, array=np.array(values)), fits.Column("B", "D", array=np.ones(3))]
    table_hdu(columns, TNULL1=null).writeto(tmp_path / "a.fits", output_verify="ignore")
    assert read(tmp_path / "a.fits", "B")["B"].tolist() == [1, 1, 1]
    if isinstance(expected, list):
        assert read(tmp_path / "a.fits", "A")["A"].tolist() == expected
    else:
        with pytest.raises(ValueError, match=rf"column A declares as missing \(TNULL\) what {expected}"):
            read(tmp_path / "a.fits", "A")


def test_a_text_of_fits_ends_at_a_nul(tmp_path):
    columns = [
        fits.Column("T", "8A", array=np.array([b"A-garbag", b"B", b"no end.."])),
        fits.Column("V", "6A", dim="(3,2)", array=np.array([["a-b", "cde"]] * 3)),
    ]
    table_hdu(columns).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    content = content.replace(b"A-garbag", b"A\0garb\xff\xfe").replace(b"a-b", b"a\0b")
    (tmp_path / "a.fits").write_bytes(content)
    assert read(tmp_path / "a.fits", "T")["T"].tolist() == ["A", "B", "no end.."]
    assert read(tmp_path / "a.fits", "V")["V"].tolist() == [["a", "cde"]] * 3
    with open_catalog(tiny.location(tmp_path / "a.fits")) as catalog:
        assert catalog.exact(0, 3, ["T"])["T"].values.tolist() == ["A", "B", "no end.."]


@pytest.mark.parametrize(
    ("form", "null", "text", "expected"),
    [
        ("F6.2", "", "12345", 123.45), ("F6.2", "", "5", 0.05), ("F6.2", "", "-150", -1.5), ("F6.2", "", "1.5", 1.5),
        ("E7.1", "", "25E1", 25.0), ("F6", "", "12345", 12345), ("I6", "", "12345", 12345), ("F6.2", "-99", "-99.00", None),
        ("I6", "-99", "-099", None), ("A6", "N/A", "N/A", None), ("F6.2", "", "1_5", "column A holds what is no number: 1_5"),
        ("I6", "", "1_5", "column A holds what is no number: 1_5"),
    ],
)  # fmt: skip
def test_numbers_of_fits_in_characters_are_what_the_standard_says(form, null, text, expected, tmp_path):
    width = int(form[1:].partition(".")[0])
    columns = [fits.Column("A", f"A{width}", ascii=True, array=np.array([text.rjust(width)]))]
    hdu = fits.TableHDU.from_columns(columns)
    hdu.writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes().replace(f"'A{width}      '".encode(), f"'{form:<8}'".encode())
    card = f"TNULL1  = '{null:<8}'".ljust(80).encode() + b"END".ljust(80)
    start = content.index(b"END" + b" " * 77, 2880)
    (tmp_path / "a.fits").write_bytes(content[:start] + card + content[start + len(card) :])
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            read(tmp_path / "a.fits", "A")
    else:
        assert read(tmp_path / "a.fits", "A")["A"].tolist() == [expected]
        with open_catalog(tiny.location(tmp_path / "a.fits")) as catalog:
            assert catalog.exact(0, 1, ["A"])["A"].missing.tolist() == [expected is None]


def test_a_fits_logical_value_that_is_zero_is_missing(tmp_path):
    table_hdu([fits.Column("L", "L", array=np.array([True, False, True]))]).writeto(tmp_path / "a.fits")
    content = bytearray((tmp_path / "a.fits").read_bytes())
    content[5760:5763] = b"TF\0"
    (tmp_path / "a.fits").write_bytes(content)
    assert read(tmp_path / "a.fits", "L")["L"].tolist() == [True, False, None]


def test_variable_length_and_other_columns_are_refused_only_if_they_are_wanted(tmp_path):
    columns = [
        fits.Column("A", "D", array=[1.0, 2.0]),
        fits.Column("LONG", "PE()", array=np.array([np.ones(2, "f4"), np.ones(3, "f4")], object)),
        fits.Column("COMPLEX", "C", array=np.array([1j, 2], np.complex64)), fits.Column("TEXT", "9000A", array=["x", "y"]),
        fits.Column("B", "J", array=[3, 4]), fits.Column("C", "J", array=[5, 6]),
    ]  # fmt: skip
    table_hdu(columns).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(content.replace(b"TTYPE6  = 'C ", b"TTYPE6  = 'B "))
    assert read(tmp_path / "a.fits", "A")["A"].tolist() == [1, 2]
    for name, message in {
        "LONG": "variable-length", "COMPLEX": "complex", "TEXT": "9,000 bytes a row; at most 4,096", "B": "is there twice",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"a\.fits: column {name} .*{message}"):
            read(tmp_path / "a.fits", name)


def test_the_first_table_is_found_behind_images_and_a_compressed_one_is_refused(tmp_path):
    first = fits.HDUList([
        fits.PrimaryHDU(np.zeros((3, 5), np.int16)), fits.ImageHDU(np.zeros(3000)), fits.CompImageHDU(np.zeros((9, 9))),
        table_hdu([fits.Column("A", "D", array=[1.0, 2.0])]), table_hdu([fits.Column("OTHER", "D", array=[1.0])]),
    ])  # fmt: skip
    first.writeto(tmp_path / "a.fits")
    assert read(tmp_path / "a.fits", "A")["A"].tolist() == [1, 2]
    table_hdu([fits.Column("A", "D", array=[1.0])], ZTABLE=True).writeto(tmp_path / "b.fits")
    with pytest.raises(ValueError, match="funpack"):
        read(tmp_path / "b.fits", "A")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(3), name="SKY")]).writeto(tmp_path / "c.fits")
    with pytest.raises(ValueError, match="no table; its HDUs are PRIMARY, SKY"):
        read(tmp_path / "c.fits", "A")


UNITS_BEYOND_FITS = {"Q": "nmgy", "DEX": "dex(nJy)", "ST": "mag(ST)", "AB": "mag(AB)", "JY": "uJy"}


def table_of_astropy(path, **keywords):
    """What astropy says in comments, as FITS has no keyword for it; keywords replace those of the header."""
    table = QTable({name: [1.0, 2.0] * u.Unit(unit) for name, unit in UNITS_BEYOND_FITS.items()})
    table["F"] = MaskedColumn([1.0, 2.0], mask=[0, 1], description="a comment of more than a card: " + "long " * 30)
    table["V"] = MaskedColumn([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]])
    table["T"] = MaskedColumn(["a", "b"], mask=[1, 0])
    for name in "FVT":
        table[name].info.serialize_method["fits"] = "data_mask"
    with warnings.catch_warnings():  # of units that are lost to others
        warnings.simplefilter("ignore")
        table.write(path)
    with fits.open(path, mode="update") as hdus:
        hdus[1].header.update(keywords)
    return path


def test_masks_and_units_that_astropy_keeps_in_comments_of_fits_are_read(tmp_path):
    path = table_of_astropy(tmp_path / "a.fits")
    assert "TUNIT1" not in fits.getheader(path, 1)
    with open_catalog(tiny.location(path)) as catalog:
        assert {name: unit for name, unit in catalog.units.items() if unit} == UNITS_BEYOND_FITS
    found = read(path, "F", "V", "T")
    assert found["F"].tolist() == [1, None]
    assert found["V"].tolist() == [[1, None], [3, 4]]
    assert missing(found["T"]).tolist() == [True, False]
    with open_catalog(tiny.location(path)) as catalog:
        assert catalog.exact(0, 2, ["T"])["T"].missing.tolist() == [True, False]
        assert catalog.exact(0, 0, ["T"])["T"].kind == "str"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"TUNIT5": "mJy"}, "column JY has more than one unit in its file's metadata: mJy, uJy"),
        ({"TTYPE7": "other"}, r"column F has its missing values in the column F\.mask, which cannot be read"),
    ],
)
def test_comments_of_astropy_that_contradict_a_fits_header_are_refused_if_they_are_wanted(keywords, message, tmp_path):
    path = table_of_astropy(tmp_path / "a.fits", **keywords)
    assert read(path, "Q")["Q"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=message):
        read(path, "JY", "F")


def test_comments_of_astropy_without_an_end_are_refused(tmp_path):
    content = table_of_astropy(tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(content.replace(b"--END-ASTROPY", b"--BAD-ASTROPY"))
    with pytest.raises(ValueError, match="what its columns are cannot be read"):
        read(tmp_path / "a.fits", "Q")


def announce(path, **keywords):
    """A FITS file of two rows that announces other things."""
    table_hdu([fits.Column("A", "D", array=[1.0, 2.0])]).writeto(path)
    content = path.read_bytes()
    for key, value in keywords.items():
        at = content.index(f"{key:<8}=".encode(), 2880)
        content = content[:at] + f"{key:<8}= {value:>20}".encode() + content[at + 30 :]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"TFIELDS": 10**9}, "1,000,000,000 columns; a FITS table has at most 999"),
        ({"NAXIS2": 10**15}, "cut off: 1000000000000000 rows are announced"),
        ({"NAXIS1": 10**12}, "1,000,000,000,000 bytes a row"), ({"NAXIS1": 10**8, "NAXIS2": 10**8}, "is cut off"),
        ({"NAXIS2": -5}, "NAXIS2 is -5"), ({"NAXIS1": 9}, "its columns take 8 bytes a row, and NAXIS1 says 9"),
        ({"TFORM1": "'999999999D'"}, "its columns take 7,999,999,992 bytes"), ({"NAXIS": 10**12}, "NAXIS"),
        ({"TFORM1": "'9Z'"}, "no FITS format"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["fits", "fits.gz"])
def test_a_fits_header_that_announces_too_much_is_refused_by_arithmetic(tmp_path, keywords, message, ending):
    import gzip

    announce(tmp_path / "a.fits", **keywords)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()) if ending == "fits.gz" else path.read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message):
        inputs.inspect(tiny.location(path), 500_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_header_without_an_end_is_not_read_for_ever(tmp_path):
    import gzip

    bomb = fits.PrimaryHDU().header.tostring().encode()[:2800].replace(b"END", b"   ") + b" " * (20 << 20)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(ValueError, match=r"the header of HDU 0 has more than"):
        read(tmp_path / "a.fits.gz")


# -- Parquet --------------------------------------------------------------------------------------------------------------


def test_arrow_values_that_are_null_are_missing_whatever_their_type(tmp_path):
    columns = {
        "FLOAT": pa.array([1.5, None, 2.5]), "INT": pa.array([1 << 60, None, 3]), "BOOL": pa.array([True, None, False]),
        "TEXT": pa.array(["a", None, "c"]), "WORD": pa.array(["a", None, "a"]).dictionary_encode(),
        "DECIMAL": pa.array([1, None, 3], pa.decimal128(9, 2)), "NOTHING": pa.nulls(3),
        "HALF": pa.array(np.array([1, 2, 3], "f2")),
        "VECTOR": pa.array([[1.0, 2.0], None, [3.0, None]]), "FIXED": pa.array([None, [1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
        "EMPTY": pa.array([[], [1.0], [2.0]]), "GONE": pa.array([None] * 3, pa.list_(pa.float64())),
        "BYTES": pa.array([b"x", None, b"z"]), "VIEW": pa.array(["x", None, "z"], pa.string_view()),
    }  # fmt: skip
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    found = read(tmp_path / "a.parquet", *columns)
    assert {name: found[name].tolist() for name in ("FLOAT", "INT", "BOOL", "TEXT", "WORD", "BYTES", "VIEW")} == {
        "FLOAT": [1.5, None, 2.5], "INT": [1 << 60, None, 3], "BOOL": [True, None, False], "TEXT": ["a", None, "c"],
        "WORD": ["a", None, "a"], "BYTES": ["x", None, "z"], "VIEW": ["x", None, "z"],
    }  # fmt: skip
    assert found["VECTOR"].tolist() == [[1, 2], [None, None], [3, None]]
    assert found["FIXED"].tolist() == [[None, None], [1, 2], [3, 4]]
    assert missing(found["TEXT"]).tolist() == [False, True, False]
    table = Table(tiny.location(tmp_path / "a.parquet"))
    names = ["DECIMAL", "NOTHING", "HALF", "EMPTY[0]", "GONE[7]", "BOOL"]
    nan = np.nan
    expected = [[1, nan, 1, nan, nan, 1], [nan, nan, 2, 1, nan, nan], [3, nan, 3, 2, nan, 0]]
    np.testing.assert_array_equal(table.numbers(names), expected)


def test_arrow_types_that_are_no_columns_are_refused_only_if_they_are_wanted(tmp_path):
    columns = {
        "A": pa.array([1.0, 2.0]), "STRUCT": pa.array([{"x": 1}, {"x": 2}]), "RAGGED": pa.array([[1.0], [1.0, 2.0]]),
        "WHEN": pa.array([0, 1], pa.timestamp("s")), "DEEP": pa.array([[[1.0]], [[2.0]]]),
        "MAP": pa.array([[("x", 1)], []], pa.map_(pa.string(), pa.int64())), "RAW": pa.array([b"\xff", b"x"]),
        "B": pa.array([1, 2]), "C": pa.array([3, 4]),
    }  # fmt: skip
    table = pa.table(columns).rename_columns([*list(columns)[:-1], "B"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "A")["A"].tolist() == [1, 2]
    for name, message in {
        "STRUCT": "is nested", "MAP": "is nested", "RAGGED": "1 entries in row 0 and 2 in row 1", "WHEN": "timestamp",
        "DEEP": "vectors of vectors", "B": "is there twice", "RAW": "UTF8",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"a\.parquet: column {name} .*{message}"):
            read(tmp_path / "a.parquet", name)


def test_a_store_of_ours_is_no_table(tmp_path):
    """Photometry is inferred, not ingested again; beside its arrays lies an empty lock."""
    group = zarr.open_group(tmp_path / "z", mode="w", attributes={"sedflow_kind": "photometry"})
    group.create_array("Z", data=np.full(3, 0.1))
    (tmp_path / "z" / "sedflow.lock").touch()
    with pytest.raises(ValueError, match="is a photometry store of sedflow and no table; `sedflow infer`"):
        inputs.inspect(tiny.location(tmp_path / "z"), 100)


def test_an_empty_parquet_file_among_others_is_no_piece(tmp_path):
    pa.parquet.write_table(pa.table({"A": pa.array([], pa.float64())}), tmp_path / "a.parquet")
    assert inputs.inspect(tiny.location(tmp_path / "a.parquet"), 100).borders == (0,)
    AstropyTable({"A": np.zeros(0)}).write(tmp_path / "a.fits")
    assert inputs.inspect(tiny.location(tmp_path / "a.fits"), 100).borders == (0,)


def test_masks_and_units_that_astropy_keeps_beside_the_data_of_parquet_are_read(tmp_path):
    table = QTable({"Q": [1.0, 2.0] * u.uJy, "V": np.ones((2, 2)) * u.nJy})
    table["M"] = AstropyTable({"M": np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]])})["M"]
    table.write(tmp_path / "a.parquet")
    with open_catalog(tiny.location(tmp_path / "a.parquet")) as catalog:
        assert [catalog.units[name] for name in ("Q", "V", "M")] == ["uJy", "nJy", None]
        assert catalog.read(0, 2, ["M"])["M"].tolist() == [[1, None], [3, 4]]


@pytest.mark.parametrize("level", ["{a: *%d, b: *%d}", "[*%d, *%d]", "{<<: [*%d, *%d]}"])
def test_astropys_metadata_that_repeat_themselves_are_looked_at_once(level, tmp_path):
    levels = "".join(f"  - &{i} {level % (i - 1, i - 1)}\n" for i in range(1, 40))
    text = f"datatype:\n- {{name: A, unit: uJy}}\nmeta:\n  - &0 {{k: v}}\n{levels}  - {{name: *39, unit: *39}}\n"
    schema = pa.schema([pa.field("A", pa.float64())], metadata={"table_meta_yaml": text})
    pa.parquet.write_table(pa.table([pa.array([1.0])], schema), tmp_path / "a.parquet")
    with open_catalog(tiny.location(tmp_path / "a.parquet")) as catalog:
        assert catalog.units == {"A": "uJy"}


def test_a_text_that_is_large_is_refused_before_it_is_held_many_times(tmp_path):
    text = "x" * 20_000_000
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array([text]))
    pa.parquet.write_table(pa.table({"ID": pa.array([text] * 3)}), tmp_path / "plain.parquet", use_dictionary=False)
    pa.parquet.write_table(pa.table({"ID": many}), tmp_path / "many.parquet", store_schema=False)
    del many
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=r"plain\.parquet: column ID has 1 entries and .* bytes a row in the mean; at most"
    ):
        read(tmp_path / "plain.parquet", "ID")
    with pytest.raises(ValueError, match=r"many\.parquet: column ID holds a text of 20,000,000 bytes; at most 4,096"):
        read(tmp_path / "many.parquet", "ID")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


# -- Zarr and CSV ---------------------------------------------------------------------------------------------------------


def test_a_zarr_shape_of_which_nothing_is_stored_is_refused(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name in ("A", "B"):
        group.create_array(name, shape=(10**6,), chunks=(10**5,), dtype="f8")[:] = 1.0
    assert inputs.inspect(tiny.location(tmp_path / "a.zarr"), 10**5).n_rows == 10**6
    for name in ("A", "B"):
        about = json.loads((tmp_path / f"a.zarr/{name}/zarr.json").read_text())
        about["shape"] = [10**15]
        (tmp_path / f"a.zarr/{name}/zarr.json").write_text(json.dumps(about))
    with pytest.raises(
        ValueError, match="announces 1,000,000,000,000,000 rows, and the chunks that are stored hold at most 1,"
    ):
        inputs.inspect(tiny.location(tmp_path / "a.zarr"), 10**5)


def test_a_zarr_chunk_that_is_huge_is_refused_only_if_it_is_wanted(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("A", data=np.arange(5.0))
    group.create_array("HUGE", shape=(5,), chunks=(10**12,), dtype="f8")
    group.create_array("OTHER", data=np.arange(3.0))
    assert read(tmp_path / "a.zarr", "A")["A"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="column HUGE takes 8 bytes a row and 8,000,000,000,000 a chunk"):
        read(tmp_path / "a.zarr", "HUGE")
    with pytest.raises(ValueError, match="column OTHER has 3 rows, and the longest of the group 5"):
        read(tmp_path / "a.zarr", "OTHER")


def test_fill_values_of_identifiers_do_not_cost_their_digits(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("ID", data=np.array([(1 << 60) + 1, -1, 3]))
    array.attrs["_FillValue"] = -1
    plain = group.create_array("FLAG", data=np.array([0, 1, 2]), fill_value=0)
    assert plain.fill_value == 0
    found = read(tmp_path / "a.zarr", "ID", "FLAG")
    assert found["ID"].tolist() == [(1 << 60) + 1, None, 3]
    assert found["FLAG"].tolist() == [0, 1, 2]  # of a plain array, 0 is a value


def test_two_csv_columns_of_one_name_are_refused_only_if_they_are_wanted(tmp_path):
    (tmp_path / "a.csv").write_text("A,B,B\n1,2,3\n,2,3\n")
    assert read(tmp_path / "a.csv", "A")["A"].tolist() == [1, None]
    with pytest.raises(ValueError, match="column B is there twice"):
        read(tmp_path / "a.csv", "B")


# -- HATS -----------------------------------------------------------------------------------------------------------------


def hats(folder, kind="object"):
    (folder / "dataset/Norder=0/Dir=0").mkdir(parents=True)
    (folder / "hats.properties").write_text(f"#HATS catalog\nobs_collection=x\ndataproduct_type={kind}\n")
    for pixel in (3, 4):
        pa.parquet.write_table(pa.table({"A": [1.0]}), folder / f"dataset/Norder=0/Dir=0/Npix={pixel}.parquet")
    (folder / "partition_info.csv").write_text("Norder,Npix\n0,3\n0,4\n")
    return folder


def test_a_collection_is_its_primary_table(tmp_path):
    hats(tmp_path / "c/main")
    hats(tmp_path / "c/main_10arcs", "margin")
    (tmp_path / "c/collection.properties").write_text(
        "obs_collection=c\nhats_primary_table_url=main\nall_margins=main_10arcs\n"
    )
    found = inputs.expand(tmp_path / "c", tiny.location(tmp_path))
    assert [file.url for file in found] == [
        f"{tmp_path}/c/main/dataset/Norder=0/Dir=0/Npix={n}.parquet" for n in (3, 4)
    ]
    for name, error in (
        ("../else", ValueError),
        ("", ValueError),
        ("s3://other/x", ValueError),
        ("nothing", FileNotFoundError),
    ):
        (tmp_path / "c/collection.properties").write_text(f"hats_primary_table_url={name}\n")
        with pytest.raises(error, match="primary"):
            inputs.expand(tmp_path / "c", tiny.location(tmp_path))


def test_margins_and_catalogs_with_a_lost_leaf_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of the kind 'margin'"):
        inputs.expand(hats(tmp_path / "m", "margin"), tiny.location(tmp_path))
    folder = hats(tmp_path / "h")
    (folder / "dataset/Norder=0/Dir=0/Npix=4.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="lacks Norder=0, Npix=4"):
        inputs.expand(folder, tiny.location(tmp_path))


def test_what_lies_in_a_hats_catalog_and_is_none_of_it_is_not_read(tmp_path):
    """Rows would be there twice: a margin has properties of its own; of anything else nobody knows what it is."""
    folder, place = hats(tmp_path / "h"), tiny.location(tmp_path)
    hats(folder / "margin", "margin")
    hats(folder / "dataset/other")
    assert len(inputs.expand(folder, place)) == 2
    (folder / "margin/hats.properties").unlink()
    with pytest.raises(ValueError, match="below dataset/ and margin/dataset/: rows may be there twice"):
        inputs.expand(folder, place)
    shutil.rmtree(folder / "margin")
    (folder / "partition_info.csv").write_text("Norder,Npix\n0,3\n")
    with pytest.raises(
        ValueError, match=r"holds dataset/Norder=0/Dir=0/Npix=4.parquet, which its partition_info.csv does not"
    ):
        inputs.expand(folder, place)


@pytest.mark.parametrize(("n", "refused"), [("2", False), ("20", True), ("", False), ("many", True)])
@pytest.mark.parametrize("collection", [True, False])
def test_a_hats_catalog_has_as_many_rows_as_it_says(n, refused, collection, tmp_path):
    folder, place = hats(tmp_path / "c/main"), tiny.location(tmp_path)
    with (folder / "hats.properties").open("a") as file:
        file.write(f"hats_nrows={n}\n")
    (tmp_path / "c/collection.properties").write_text("hats_primary_table_url=main\n")
    source = tmp_path / "c" if collection else f"{folder}/"
    files = [inputs.inspect(file, 100) for file in inputs.expand(source, place)]
    if refused:
        with pytest.raises(ValueError, match=f"holds 2 rows, and {n} by the hats_nrows of its properties"):
            inputs.require_all_rows(source, files, place)
    else:
        inputs.require_all_rows([source], files, place)


# -- what is said ---------------------------------------------------------------------------------------------------------


def test_names_of_columns_and_files_reach_no_terminal_as_they_are(tmp_path):
    path = tmp_path / "a\x1b]0;owned\x07\n.parquet"
    pa.parquet.write_table(pa.table({"\x1b[2Jflux\u202e": [1.0], "a\nsedflow: all is well": [1.0]}), path)
    table = Table(tiny.location(path))
    for ask in (
        lambda: table.require(["Z\x9b"]),
        lambda: table.column("no"),
        lambda: read(tmp_path / "no\x1b[2J.fits"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            ask()
        assert str(caught.value).isprintable()


def test_what_a_terminal_obeys_is_written_as_an_escape():
    assert printable("\x1b[31m \x9b1m \u202e é µ \n") == r"\x1b[31m \x9b1m \u202e é µ \n"
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"
    assert printable("\ud800") == r"\ud800"
