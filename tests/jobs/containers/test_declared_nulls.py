"""What HDF5, Zarr and VOParquet declare of their numbers and text is so for `read` and `exact` alike, or refused."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import xarray as xr
import zarr

from jobs.containers.formats import missing, open_catalog
from storage_schemas.backend.location import Location

WAYS = ("h5", "zarr2", "zarr3")
U1 = np.array([200, 255, 7], "u1")
TEXT = np.array([b"a", b"none", b"c"])


def write(way, path, values, attributes):
    if way == "h5":
        with h5py.File(path, "w") as file:
            file["X"] = values
            file["X"].attrs.update(attributes)
    else:
        group = zarr.open_group(str(path), mode="w", zarr_format=int(way[-1]))
        array = group.create_array("X", shape=values.shape, dtype=values.dtype)
        array[:] = values
        array.attrs.update({k: v.item() if isinstance(v, np.generic) else v for k, v in attributes.items()})
    return Location(str(path))


def both(location):
    """The column as it is read, and exactly: lists in which None is missing."""
    with open_catalog(location) as catalog:
        values, exactly = catalog.read(0, catalog.n_rows, ["X"])["X"], catalog.exact(0, catalog.n_rows, ["X"])["X"]
    plain = np.ma.getdata(values).tolist()
    return (
        [None if gone else x for x, gone in zip(plain, missing(values), strict=True)],
        [None if gone else x for x, gone in zip(exactly.values.tolist(), exactly.missing, strict=True)],
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("values", "attributes", "expected"),
    [
        (U1.view("i1"), {"_Unsigned": "true"}, [200, 255, 7]),
        (U1.view("i1"), {"_Unsigned": "true", "_FillValue": np.uint8(255)}, [200, None, 7]),
        (U1.view("i1"), {"_Unsigned": "true", "_FillValue": np.int8(-1)}, [200, None, 7]),
        (U1, {"_Unsigned": "false", "_FillValue": -1}, [-56, None, 7]),
        (np.array([-1, 5], "i8"), {"_Unsigned": "true"}, [2**64 - 1, 5]),
        (np.array([1, -99, 3]), {"missing_value": "-99"}, [1, None, 3]),
        (np.array([1, -99, 3]), {"missing_value": "-99.0"}, [1, None, 3]),
        (np.array([1, -99, -98]), {"missing_value": [-99, -98]}, [1, None, None]),
        (np.array([1, 2**60 + 1, 2**60]), {"missing_value": str(2**60 + 1)}, [1, None, 2**60]),
        (np.array([1.5, -99.0, 3.0]), {"missing_value": "-99"}, [1.5, None, 3]),
        (np.array([1.5, -99.75, 3.0], "f4"), {"missing_value": -99.75}, [1.5, None, 3]),
        (np.array([1, 255], "u1"), {"missing_value": -1}, [1, 255]),  # which no value of that type is
        (np.array([0, 1, 0], "i1"), {"dtype": "bool"}, [False, True, False]),
        (TEXT, {"missing_value": "none"}, ["a", None, "c"]),
    ],
)  # fmt: skip
def test_what_is_declared_of_a_column_is_so_on_both_paths(way, values, attributes, expected, tmp_path):
    read, exactly = both(write(way, tmp_path / f"x.{way}", values, attributes))
    assert read == exactly == expected
    assert list(map(type, exactly)) == list(map(type, expected)) or values.dtype.kind == "f"


def test_packed_numbers_without_a_sign_are_those_that_xarray_reads(tmp_path):
    about = {"_Unsigned": "true", "_FillValue": np.uint8(255), "scale_factor": 0.5, "add_offset": 1.0}
    expected = xr.conventions.decode_cf_variable("X", xr.Variable("row", U1.view("i1"), dict(about))).values
    assert expected.tolist() == pytest.approx([101, np.nan, 4.5], nan_ok=True)
    with open_catalog(write("zarr3", tmp_path / "x.zarr", U1.view("i1"), about)) as catalog:
        np.testing.assert_array_equal(np.ma.filled(catalog.read(0, 3, ["X"])["X"], np.nan), expected)


def test_text_that_is_none_may_be_declared_as_bytes_or_as_zarrs_fill_value(tmp_path):
    assert both(write("h5", tmp_path / "x.h5", TEXT, {"_FillValue": np.bytes_(b"none")}))[1] == ["a", None, "c"]
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", zarr_format=2)
    array = group.create_array("X", shape=3, dtype="S4", fill_value=b"none", attributes={"_ARRAY_DIMENSIONS": ["row"]})
    array[:2] = TEXT[[0, 2]]
    assert both(Location(str(tmp_path / "x.zarr"))) == (["a", "c", None],) * 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("values", "attributes", "message"),
    [
        (np.array([1.0, 2.0]), {"missing_value": "n/a"}, r"column X holds float64, .* 'n/a' is none, which is no number"),
        (np.array([1, 2]), {"missing_value": "n/a"}, r"column X holds int64, .* 'n/a' is none, which is no number"),
        (np.array([b"a", b"b"]), {"missing_value": -99}, "column X holds text, .* -99 is none, which is no text"),
        (np.array([1, 2]), {"_Unsigned": "maybe"}, "_Unsigned says 'maybe'"),
        (np.array([b"a", "È1".encode("latin1")]), {}, r"column X holds bytes that are no text \(UTF-8\): b'\\xc81' in row 1"),
        (np.array([1, 2]), {"units": "days since 2000-01-01"}, "is a time"),
        (np.array([1, 2]), {"dtype": "timedelta64[ns]"}, "is a time"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_on_both_paths(way, values, attributes, message, tmp_path):
    with open_catalog(write(way, tmp_path / f"x.{way}", values, attributes)) as catalog:
        for read in (catalog.read, catalog.exact):
            with pytest.raises(ValueError, match=message):
                read(0, 2, ["X"])


@pytest.mark.parametrize("kind", ["M8[s]", "m8[ns]", "c16"])
@pytest.mark.filterwarnings("ignore")
def test_a_zarr_array_of_another_type_is_refused(kind, tmp_path):
    with open_catalog(write("zarr2", tmp_path / "x.zarr", np.array([1, 2]).astype(kind), {})) as catalog:
        for method in (catalog.read, catalog.exact):
            with pytest.raises(ValueError, match=r"column X (is of type|holds complex numbers)"):
                method(0, 2, ["X"])


def test_different_bytes_never_become_one_text(tmp_path):
    """Replaced, both were the same galaxy to a join."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", data=["É1".encode("latin1"), "È1".encode("latin1")], dtype=h5py.string_dtype())
    with open_catalog(Location(str(tmp_path / "x.h5"))) as catalog, pytest.raises(ValueError, match="in row 1"):
        catalog.exact(1, 2, ["X"])


@pytest.mark.parametrize("way", WAYS)
def test_units_in_several_places_agree_or_the_column_is_refused(way, tmp_path):
    for number, (second, expected) in enumerate({"nJy": "nJy", "nanojansky": "nJy", "uJy": None}.items()):
        location = write(way, tmp_path / f"{number}.{way}", np.ones(2), {"units": second, "unit": "nJy"})
        with open_catalog(location) as catalog:
            if expected:
                assert catalog.units["X"] == expected
                assert not catalog.unreadable
            else:
                with pytest.raises(ValueError, match=r"column X has more than one unit .*: nJy, uJy"):
                    catalog.read(0, 2, ["X"])


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_that_is_no_text_is_not_passed_over(way, tmp_path):
    """A unit for each entry would be taken for none, and the survey's for it."""
    values = {"list": ["nJy", "uJy"], "one": ["nJy"] if way == "h5" else "nJy", "empty": "", "number": 1}
    for name, expected in {"list": "uJy", "one": "nJy", "empty": None, "number": "1"}.items():
        with open_catalog(write(way, tmp_path / f"{name}.{way}", np.ones(2), {"units": values[name]})) as catalog:
            found = catalog.units["X"]
            assert found == expected if expected != "uJy" else "nJy" in found and "uJy" in found


def test_units_that_pytables_keeps_by_the_number_of_a_column_are_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["t"] = np.ones(2, [("A", "f8"), ("B", "f8"), ("C", "f8")])
        file["t"].attrs.update({"FIELD_1_UNIT": np.bytes_(b"uJy"), "FIELD_2_UNITS": "deg", "FIELD_1_FILL": 0.0})
    with open_catalog(Location(str(tmp_path / "x.h5"))) as catalog:
        assert catalog.units == {"A": None, "B": "uJy", "C": "deg"}


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        (pa.array([1.5, -99.0, None]), 'datatype="double"><VALUES null="-99"/>', [1.5, None, None]),
        (pa.array([2**62 + 1, 2**62, None]), f'datatype="long"><VALUES null="{2**62 + 1}"/>', [None, 2**62, None]),
        (pa.array(["a", "none", None]), 'datatype="char" arraysize="*"><VALUES null="none"/>', ["a", None, None]),
        (pa.array([True, False, None]), 'datatype="boolean"><VALUES null="?"/>', [True, False, None]),
    ],
)
def test_what_voparquet_calls_null_is_missing(values, field, expected, tmp_path):
    about = f'<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="X" {field}</FIELD></TABLE></RESOURCE></VOTABLE>'
    table = pa.table({"X": values}).replace_schema_metadata({"IVOA.VOTable-Parquet.content": about})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    assert both(Location(str(tmp_path / "x.parquet"))) == (expected, expected)


def test_an_enumeration_is_neither_its_numbers_nor_its_words(tmp_path):
    kind = h5py.enum_dtype({"STAR": 0, "GALAXY": 1}, basetype="i1")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", data=np.array([0, 1], "i1"), dtype=kind)
        file["OK"] = [True, False]
    with open_catalog(Location(str(tmp_path / "x.h5"))) as catalog:
        assert catalog.read(0, 2, ["OK"])["OK"].tolist() == [True, False]
        with pytest.raises(ValueError, match=r"column X is an enumeration .*GALAXY"):
            catalog.exact(0, 2, ["X"])
