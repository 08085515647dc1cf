"""One small table in every container: values, nulls, units and identifiers are those that astropy, pyarrow and h5py read."""

import gzip
import io

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from jobs.containers.formats import missing, open_catalog, tables_of
from storage_schemas.backend.location import Location

IDS = [(1 << 60) + 1, 12, 3]
NAMES = ["NGC 1", "00012", "a"]
FLUX = [1.5, None, -2.25]
COUNT = [7, 8, None]


def plain():
    return Table({
        "ID": IDS, "NAME": NAMES, "FLUX": MaskedColumn([1.5, 0, -2.25], mask=[0, 1, 0], unit="uJy"),
        "COUNT": MaskedColumn([7, 8, 0], mask=[0, 0, 1]), "Z": [0.1, 0.2, 0.3],
    })  # fmt: skip


def written(table, kind, **options):
    """Text that astropy writes."""
    out = io.StringIO()
    table.write(out, format=kind, **options)
    return out.getvalue()


def text(kind, **options):
    return lambda path: path.write_text(written(plain(), f"ascii.{kind}", **options))


def gzipped(write):
    def made(path):
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return made


def commented_header(path):
    path.write_text("# made by hand\n#\n" + written(plain(), "ascii.commented_header"))


def skyserver(path):
    path.write_text("#Table1\n" + written(plain(), "ascii.csv"))


def vizier(path):
    lines = written(plain(), "ascii.tab").splitlines()
    rules = "\t".join("-" * 8 for _ in range(5))
    path.write_text("\n".join(["#", "#RESOURCE=x", lines[0], "\t\tuJy\t\t", rules, *lines[1:]]) + "\n")


def sextractor(path):
    head = ["#   1 ID     Running number", "#   2 NAME", "#   3 FLUX     Flux     [uJy]", "#   4 COUNT", "#   5 Z  x"]
    path.write_text("\n".join([*head, *written(plain(), "ascii.no_header").splitlines()]) + "\n")


def readme(path):
    """CDS's way: the description lies beside the table."""
    lines = written(plain(), "ascii.mrt").splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("-----"))
    path.write_text("\n".join(lines[last + 1 :]) + "\n")
    (path.parent / "ReadMe").write_text("\n".join(lines[: last + 1]).replace("table.dat", path.name) + "\n")


def votable(path, kind="tabledata"):
    out = io.BytesIO()
    plain().write(out, format="votable", tabledata_format=kind)
    path.write_bytes(out.getvalue())


def characters(path):
    """A FITS file as VizieR sends it."""
    columns = [
        fits.Column("ID", "I20", array=np.array(IDS)), fits.Column("NAME", "A8", array=np.array(NAMES)),
        fits.Column("FLUX", "F10.3", unit="uJy", null="-99.000", array=np.array([1.5, -99, -2.25])),
        fits.Column("COUNT", "I5", null="-9", array=np.array([7, 8, -9])),
        fits.Column("Z", "E12.5", array=np.array([0.1, 0.2, 0.3])),
    ]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns)]).writeto(path)


def astropys_hdf5(path):
    plain().write(path, path="data/phot", format="hdf5", serialize_meta=True)


def rails_hdf5(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("photometry")
        for name, values in plain().columns.items():
            if name == "NAME":
                group.create_dataset(name, data=NAMES, dtype=h5py.string_dtype())
            else:
                group[name] = np.ma.filled(values, -99 if name == "COUNT" else np.nan)
        group["FLUX"].attrs["units"] = "uJy"
        group["COUNT"].attrs["_FillValue"] = -99


def netcdf(path):
    rails_hdf5(path)


def frame():
    made = plain().to_pandas()
    return made.assign(COUNT=[7.0, 8.0, np.nan])


def pandas_table(path, **options):
    frame().to_hdf(path, key="cat", format="table", **options)


#: Ending, writer, whether text says units, whether it says types.
WAYS = {
    "csv": ("csv", text("csv"), False, False), "csv.gz": ("csv.gz", gzipped(text("csv")), False, False),
    "semicolons": ("csv", text("csv", delimiter=";"), False, False), "bars": ("psv", text("basic", delimiter="|"), False, False),
    "tsv": ("tsv", text("tab"), False, False), "tabs": ("txt", text("tab"), False, False),
    "blanks": ("dat", text("basic"), False, False), "blanks.gz": ("txt.gz", gzipped(text("basic")), False, False),
    "commented": ("cat", commented_header, False, False), "commented csv": (
        "csv", lambda p: p.write_text("#" + written(plain(), "ascii.csv")), False, False),
    "skyserver": ("csv", skyserver, False, False), "vizier": ("tsv", vizier, True, False),
    "sextractor": ("cat", sextractor, True, False),
    "ecsv": ("ecsv", text("ecsv"), True, True), "ecsv as txt": ("txt.gz", gzipped(text("ecsv", delimiter=",")), True, True),
    "mrt": ("txt", text("mrt"), True, True), "readme": ("dat", readme, True, True), "ipac": ("tbl", text("ipac"), True, True),
    "votable": ("vot", votable, True, True), "votable.gz": ("xml.gz", gzipped(votable), True, True),
    "binary": ("votable", lambda p: votable(p, "binary2"), True, True),
    "fits": ("fits", lambda p: plain().write(p), True, True), "fits.gz": ("fits.gz", lambda p: plain().write(p), True, True),
    "characters": ("fits", characters, True, True),
    "parquet": ("parquet", lambda p: plain().write(p), True, True),
    "astropy hdf5": ("hdf5", astropys_hdf5, True, True), "rail": ("hdf5", rails_hdf5, True, True),
    "netcdf": ("nc", netcdf, True, True),
    "pandas": ("h5", pandas_table, False, True), "pandas columns": (
        "h5", lambda p: pandas_table(p, data_columns=True), False, True),
}  # fmt: skip

UNORDERED = ("rail", "netcdf", "pandas")  # which keep their columns by name, or by type


@pytest.fixture(params=WAYS)
def way(request, tmp_path):
    ending, write, has_units, has_types = WAYS[request.param]
    path = tmp_path / f"table.{ending}"
    write(path)
    return Location(str(path)), has_units, has_types, request.param


@pytest.mark.filterwarnings("ignore")
def test_values_nulls_units_and_identifiers_are_the_same_in_every_container(way):
    location, has_units, has_types, name = way
    with open_catalog(location) as catalog:
        names = [n for n in catalog.names if n != "index" and not n.endswith(".mask")]
        assert names == (plain().colnames if name not in UNORDERED else names)
        assert set(names) == set(plain().colnames)
        assert catalog.n_rows == 3
        assert not catalog.unreadable
        assert catalog.units["FLUX"] == ("uJy" if has_units else None)
        assert not any(catalog.units[n] for n in ("ID", "NAME", "COUNT", "Z"))
        found = catalog.read(0, 3, ["FLUX", "COUNT", "Z", "NAME"])
        for column, expected in (("FLUX", FLUX), ("COUNT", COUNT)):
            values = np.ma.filled(np.ma.asarray(found[column]).astype(float), np.nan)
            np.testing.assert_array_equal(values, [np.nan if x is None else x for x in expected])
        assert found["Z"].tolist() == [0.1, 0.2, 0.3]
        assert not missing(found["NAME"]).any()
        exactly = catalog.exact(0, 3, ["ID", "NAME"])
        assert exactly["ID"].kind == ("int64" if has_types else "str")
        assert [int(x) for x in exactly["ID"].values] == IDS
        assert exactly["NAME"].kind == "str"
        assert exactly["NAME"].values.tolist() == NAMES
        assert not exactly["ID"].missing.any() and not exactly["NAME"].missing.any()
        of_no_rows = catalog.exact(0, 0, ["ID", "NAME"])
        assert [of_no_rows[n].kind for n in ("ID", "NAME")] == [exactly[n].kind for n in ("ID", "NAME")]
        part = catalog.read(1, 3, ["FLUX", "Z"])
        assert np.ma.filled(np.ma.asarray(part["FLUX"], float), np.nan)[1] == -2.25
        assert part["Z"].tolist() == [0.2, 0.3]
        assert catalog.exact(2, 3, ["ID"])["ID"].values.tolist() == exactly["ID"].values[2:].tolist()
    (table,) = tables_of(location)
    assert table.n_rows == 3
    assert set(table.columns) >= set(plain().colnames)
    if table.name:  # it can be named as well as not
        with open_catalog(location.at(f"{location.url}[{table.name}]")) as catalog:
            assert catalog.n_rows == 3
