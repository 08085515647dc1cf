"""Tables of text as people write them: what is a name, a unit, a comment, a null; and what is no guess."""

import gzip

import numpy as np
import pytest

from jobs.containers import text_catalog
from jobs.containers.formats import open_catalog, tables_of
from storage_schemas.backend.location import Location


def columns(path, content, *names, table=""):
    """Numbers of columns, NaN where none is, and the catalog's names and units."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_catalog(Location(f"{path}{table}")) as catalog:
        found = catalog.read(0, catalog.n_rows, names or catalog.names)
        values = {name: np.ma.filled(np.ma.asarray(value), np.nan if value.dtype.kind == "f" else -1).tolist()
                  for name, value in found.items()}  # fmt: skip
        return values, dict(catalog.units)


ROWS = {"a": [1, 2], "b": [0.5, 1.5], "c": [3, 4]}


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "a.csv": "a,b,c\n1,0.5,3\n2,1.5,4\n", "crlf.csv": "a,b,c\r\n1,0.5,3\r\n2,1.5,4\r\n", "end.csv": "a,b,c\n1,0.5,3\n2,1.5,4",
        "bom.csv": "\ufeffa,b,c\n1,0.5,3\n2,1.5,4\n", "padded.csv": "a, b, c\n1, 0.5, 3\n2, 1.5, 4\n",
        "blank.csv": "\n\na,b,c\n\n1,0.5,3\n2,1.5,4\n\n", "quoted.csv": '"a","b","c"\n"1","0.5","3"\n"2","1.5","4"\n',
        "semicolons.csv": "a;b;c\n1;0.5;3\n2;1.5;4\n", "tabs.csv": "a\tb\tc\n1\t0.5\t3\n2\t1.5\t4\n",
        "commas.txt": "a,b,c\n1,0.5,3\n2,1.5,4\n", "bars.txt": "a | b | c\n1 | 0.5 | 3\n2 | 1.5 | 4\n",
        "blanks.dat": "  a   b  c \n 1   0.5   3\n\t2 1.5\t4  \n", "aligned.txt": "a\t\tb\tc\n1\t\t0.5\t3\n2\t\t1.5\t4\n",
        "sign.cat": "# a b c\n1 0.5 3\n2 1.5 4\n", "tight.cat": "#a b c\n1 0.5 3\n2 1.5 4\n",
        "sign.csv": "#a,b,c\n1,0.5,3\n2,1.5,4\n",
        "spaced.csv": "# a, b, c\n1,0.5,3\n2,1.5,4\n",
        "many.cat": "# Survey of x\n# by me and you\n#\n# a b c\n# end\n1 0.5 3\n2 1.5 4\n",
        "below.cat": "# a comment\na b c\n1 0.5 3\n# 9 9 9\n2 1.5 4\n# end\n",
        "rule.txt": "a b c\n--- --- ---\n1 0.5 3\n2 1.5 4\n", "psql.txt": "a | b | c\n---+-----+---\n1 | 0.5 | 3\n2 | 1.5 | 4\n",
        "skyserver.csv": "#Table1\na,b,c\n1,0.5,3\n2,1.5,4\n", "skyserver.txt": "#Table1\r\na,b,c\r\n1,0.5,3\r\n2,1.5,4\r\n",
        "half.fits.txt": "a b c\n1 0.5 3\n2 1.5 4\n",
    }.items(),
)  # fmt: skip
def test_every_way_to_write_a_table_of_text_is_the_same_table(name, content, tmp_path):
    assert columns(tmp_path / name, content)[0] == ROWS
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(content.encode()))
    assert columns(zipped, None)[0] == ROWS


def test_units_that_stand_below_the_names_or_beside_them_are_read(tmp_path):
    vizier = "#Column a\n#\na;b;c\n ;uJy;deg\n-;-----;---\n1;0.5;3\n2;1.5;4\n"
    assert columns(tmp_path / "a.tsv", vizier) == (ROWS, {"a": None, "b": "uJy", "c": "deg"})
    sextractor = "#   1 a   Running number\n#  2 b  Flux  [uJy]\n#   3 c  Angle [deg]\n 1 0.5 3\n 2 1.5 4\n"
    assert columns(tmp_path / "b.cat", sextractor) == (ROWS, {"a": None, "b": "uJy", "c": "deg"})
    commented = "# a b c\n# - uJy deg\n1 0.5 3\n2 1.5 4\n"
    assert columns(tmp_path / "c.cat", commented) == (ROWS, {"a": None, "b": "uJy", "c": "deg"})


@pytest.mark.parametrize("ending", ["csv", "txt"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_row_of_nothing_but_dashes_is_a_row_and_the_one_above_no_units(ending, at, tmp_path):
    rows = [["1", "2.5"], ["3", "4.5"], ["5", "6.5"]]
    rows[at] = ["--", "---"]
    separator = "," if ending == "csv" else " "
    found, units = columns(tmp_path / f"a.{ending}", "\n".join(map(separator.join, [["a", "b"], *rows])) + "\n")
    assert len(found["a"]) == 3
    assert not any(units.values())


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("a.txt", ["-- -- --", ".1 1 2", ".2 2 3"]), ("a.txt", ["-- -- --", "-- -- --", ".2 2 3"]),
        ("a.tsv", ["A\t--\t--", "--\t--\t--", "B\t1\t2"]), ("a.tsv", ["A\t---\t---", "---\t---\t---", "B\t1\t2"]),
        ("a.tsv", ["null\tnull\tnull", "--\t--\t--", "B\t1\t2"]), ("a.csv", ["---,---,---", "---,---,---", "B,1,2"]),
        ("a.csv", ["-,-,-", "----,----,----", "B,1,2"]), ("a.txt", ["-- - --", ".1 1 2", ".2 2 3"]),
    ],
)  # fmt: skip
def test_the_first_rows_may_lack_every_value(name, rows, tmp_path):
    separator = {"txt": " ", "tsv": "\t", "csv": ","}[name[2:]]
    (tmp_path / name).write_text("\n".join([separator.join(("Z", "F_g", "F_r")), *rows]) + "\n")
    with open_catalog(Location(str(tmp_path / name))) as catalog:
        assert catalog.n_rows == 3
        assert not any(catalog.units.values())


@pytest.mark.parametrize(
    "content",
    [
        "a;b;c\n-;-----;---\n1;0.5;3\n2;1.5;4\n", "a;b;c\n;;\n-;-----;---\n1;0.5;3\n2;1.5;4\n",
        "a;b;c\n\"h:m:s\";what;\n--;-----;---\n 1;  0.5;  3\n 2;  1.5;  4\n", "a b   c\n- --- -\n1 0.5 3\n2 1.5 4\n",
        "a   b   c  \n--- --- ---\n1   0.5 3\n2   1.5 4\n", "a;b;c\n;uJy;\n-;---;-\n1;0.5;3\n2;1.5;4\n",
    ],
)  # fmt: skip
def test_a_rule_below_the_names_or_units_is_no_row(content, tmp_path):
    assert columns(tmp_path / "a.txt", content)[0] == ROWS


def test_vectors_of_sextractor_are_the_columns_that_astropy_makes_of_them(tmp_path):
    from astropy.table import Table

    content = "# 1 NUMBER\n# 2 MAG_APER Magnitudes [mag]\n# 5 FLAGS\n1 20.0 21.0 22.0 0\n"
    found, units = columns(tmp_path / "a.cat", content)
    expected = Table.read(content.splitlines(), format="ascii.sextractor")
    assert found == {name: expected[name].tolist() for name in expected.colnames}
    assert units["MAG_APER_2"] == "mag"


@pytest.mark.parametrize(
    "null", ["", "-", "--", "---", "nan", "NaN", "null", "NULL", "N/A", "INDEF", r"\N", "...", "None"]
)
@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_a_cell_without_a_number_is_missing_and_the_others_stay_numbers(null, ending, tmp_path):
    separator, cell = (",", null) if ending == "csv" else (" ", null or '""')
    content = "\n".join(separator.join(row) for row in (("a", "b"), ("1", "2.5"), (cell, cell), ("3", "4.5"))) + "\n"
    (tmp_path / f"a.{ending}").write_text(content)
    with open_catalog(Location(str(tmp_path / f"a.{ending}"))) as catalog:
        found = catalog.read(0, 3, ["a", "b"])
        assert found["a"].tolist() == [1, None, 3]
        assert found["b"].tolist() == [2.5, None, 4.5]
        assert catalog.exact(0, 3, ["a"])["a"].values.tolist() == ["1", "", "3"]
        assert catalog.exact(0, 3, ["a"])["a"].missing.tolist() == [False, True, False]


@pytest.mark.parametrize("null", ["", "--", "NULL"])
def test_blanks_about_a_cell_make_no_text_of_a_column_of_numbers(null, tmp_path):
    rows = (("1", "2.5", "x"), (null, null, null), ("3", "4.5", "y"))
    psql = "".join(f" {' | '.join(f'{cell:>4}' for cell in row)} \n" for row in (("a", "b", "c"), *rows))
    unlike = "a,b,c\n1,2.5,x\n" + f" {null} ,  {null},{null} \n3,4.5,y\n"
    for name, content in (("a.psv", psql), ("a.csv", unlike)):
        (tmp_path / name).write_text(content)
        with open_catalog(Location(str(tmp_path / name))) as catalog:
            found = catalog.read(0, 3, ["a", "b"])
            assert found["a"].tolist() == [1, None, 3]
            assert found["b"].tolist() == [2.5, None, 4.5]
            exactly = catalog.exact(0, 3, ["c"])["c"]
            assert (exactly.values.tolist(), exactly.missing.tolist()) == (["x", "", "y"], [False, True, False])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.dat", "a b c\n1 2 3\n4 5\n", "Expected 3 columns, got 2"),  # not a row that ends in nothing
        ("long.csv", "a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
        ("nameless.csv", "1,0.5\n2,1.5\n", "no line names its columns; its first row is '1,0.5'"),
        ("nameless.dat", "# made by hand\n1 0.5\n", "no line names its columns; its first row is '1 0.5'"),
        ("inside.csv", "# made\na,b\n1,2\n#3,4\n5,6\n", "line 4 begins with #, and may be a comment or a row"),
        ("empty.csv", "\n\n", "no line names its columns"), ("quotes.csv", '"a,b\n' + "1,2\n" * 50_000, "no table of text"),
        ("two.csv", "#Table1\na\n1\n#Table2\nb\n2\n3\n", r"holds 2 tables: Table1, Table2. Say which .*two\.csv\[Table1\]"),
    ],
)  # fmt: skip
def test_what_would_be_a_guess_is_refused(name, content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        columns(tmp_path / name, content)


def test_results_of_skyserver_are_told_apart(tmp_path):
    path = tmp_path / "a.csv"
    assert columns(path, "#Table1\na\n1\n#Table2\nb,c\n2,3\n4,5\n", table="[Table2]")[0] == {"b": [2, 4], "c": [3, 5]}
    assert columns(path, None, table="[1]")[0] == {"a": [1]}
    assert [(t.name, t.n_rows, t.columns) for t in tables_of(Location(str(path)))] == [
        ("Table1", 1, ("a",)), ("Table2", 2, ("b", "c")),
    ]  # fmt: skip


def test_a_sign_in_a_table_without_comments_is_text(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n#1,2\n#2,3\n")
    with open_catalog(Location(str(tmp_path / "a.csv"))) as catalog:
        assert catalog.exact(0, 2, ["id"])["id"].values.tolist() == ["#1", "#2"]


def test_identifiers_are_the_text_that_is_written_in_every_dialect(tmp_path):
    ids = ["00012", "1e5", "NGC 1", "0x10", "", str(2**64 + 1), "Null-1"]
    for name, separator, quote in (("a.csv", ",", ""), ("b.txt", " ", '"'), ("c.tsv", "\t", ""), ("d.psv", " | ", "")):
        rows = [f"{quote}{one}{quote}{separator}1.5" for one in ids]
        (tmp_path / name).write_text("\n".join([f"id{separator}x", *rows]) + "\n")
        with open_catalog(Location(str(tmp_path / name))) as catalog:
            found = catalog.exact(0, len(ids), ["id"])["id"]
        assert found.values.tolist() == ids
        assert found.missing.tolist() == [not one for one in ids]


def test_a_table_without_rows_is_one(tmp_path):
    for name, content in {"a.csv": "a,b\n", "b.dat": "a b\n", "c.cat": "# a b\n"}.items():
        (tmp_path / name).write_text(content)
        with open_catalog(Location(str(tmp_path / name))) as catalog:
            assert (catalog.names, catalog.n_rows, catalog.borders(5)) == (("a", "b"), 0, [0])


def test_text_that_is_large_is_refused_and_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(text_catalog, "MOST_BYTES", 1 << 20)
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"1,2\n" * 300_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 300_000))
    for name in ("a.csv", "a.csv.gz"):
        with pytest.raises(ValueError, match=r"has more than 1 MB; .*write it as Parquet.*stilts tcopy"):
            columns(tmp_path / name, None)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:-20])
    with pytest.raises(ValueError, match="cannot be gunzipped"):
        columns(tmp_path / "b.csv.gz", None)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blanks_are_parted_alike_wherever_a_block_of_a_file_ends(block, tmp_path, monkeypatch):
    monkeypatch.setattr(text_catalog, "_BLOCK_BYTES", block)
    content = "a b c\n" + "".join(f'{i}  "x {i}"\t{i}.5\n' for i in range(50))
    (tmp_path / "a.txt").write_text(content)
    with open_catalog(Location(str(tmp_path / "a.txt"))) as catalog:
        found = catalog.read(0, 50, ["a", "b", "c"])
        assert found["a"].tolist() == list(range(50))
        assert found["b"].tolist() == [f"x {i}" for i in range(50)]
        assert found["c"].tolist() == [i + 0.5 for i in range(50)]


def test_a_file_of_no_known_kind_is_refused_with_the_kinds_that_are(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"its format is not one of FITS .*Parquet.*HDF5.*VOTable.*text \(\.csv"):
        columns(tmp_path / "a.docx", None)
