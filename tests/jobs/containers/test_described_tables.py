"""Tables of text that describe themselves: what they declare as null, as a unit, as a type is that, however the rows write it."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from jobs.containers import astropy_catalog
from jobs.containers.formats import missing, open_catalog
from storage_schemas.backend.location import Location

MRT = """Title:
================================================================================
Byte-by-byte Description of file: t.dat
--------------------------------------------------------------------------------
 Bytes Format Units  Label     Explanations
--------------------------------------------------------------------------------
 1- 4  I4     ---    ID      Number
 6-12  F7.3   mag    F       ?=99.99 Magnitude
14-19  F6.3   mJy    G       ?=-9 Flux
21-25  A5     ---    N       ? Name
--------------------------------------------------------------------------------
   1  99.990  1.000 a b
   2  21.500 -9.000
   3   9.000        00012
"""
IPAC = r"""\comment declared
|    id|    ra|   flux|name   |
|  long|double| double|char   |
|      |   deg|    uJy|       |
|  null|  null|   -99.|null   |
     1   10.0    1.5   NGC 1
     2   20.0  -99.0   null
 12345   null   -99.   00012
"""
GAIA = """# %ECSV 1.0
# ---
# delimiter: ','
# datatype:
# - {name: source_id, datatype: int64}
# - {name: f, unit: uJy, datatype: float64}
# - {name: ok, datatype: bool}
# - {name: name, datatype: string}
# schema: astropy-2.0
source_id,f,ok,name
1152921504606846977,1.5,"True","NGC 1"
2,null,"False","00012"
3,nan,null,null
"""


def opened(path, content):
    path.write_text(content)
    return open_catalog(Location(str(path)))


def listed(values):
    return np.ma.filled(np.ma.asarray(values, float), np.nan).tolist()


@pytest.mark.parametrize("name", ["t.mrt", "t.txt", "t.dat"])
def test_what_a_table_of_cds_declares_as_null_is_missing_however_it_is_written(name, tmp_path):
    with opened(tmp_path / name, MRT) as catalog:
        found = catalog.read(0, 3, catalog.names)
        assert listed(found["F"]) == pytest.approx([np.nan, 21.5, 9.0], nan_ok=True)
        assert listed(found["G"]) == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
        assert missing(found["N"]).tolist() == [False, True, False]
        assert (catalog.units["F"], catalog.units["G"], catalog.units["ID"]) == ("mag", "mJy", None)
        assert catalog.exact(0, 3, ["N"])["N"].values.tolist() == ["a b", "", "00012"]
        assert catalog.exact(0, 3, ["ID"])["ID"].kind == "int64"


def test_what_a_table_of_ipac_declares_as_null_is_missing_however_it_is_written(tmp_path):
    with opened(tmp_path / "t.tbl", IPAC) as catalog:
        found = catalog.read(0, 3, catalog.names)
        assert listed(found["flux"]) == pytest.approx([1.5, np.nan, np.nan], nan_ok=True)
        assert listed(found["ra"]) == pytest.approx([10, 20, np.nan], nan_ok=True)
        assert missing(found["name"]).tolist() == [False, True, False]
        assert (catalog.units["ra"], catalog.units["flux"]) == ("deg", "uJy")
        assert catalog.exact(0, 3, ["name"])["name"].values.tolist() == ["NGC 1", "", "00012"]


def test_a_value_under_a_bar_of_ipac_loses_no_character(tmp_path):
    with pytest.raises(ValueError, match="in line 7 a value stands under a bar of the header"):
        opened(tmp_path / "t.tbl", IPAC.replace("   20.0  -99.0", "   20.0 -199.00000"))


def test_the_nulls_of_gaias_archive_are_missing(tmp_path):
    with opened(tmp_path / "gaia.csv", GAIA) as catalog:
        found = catalog.read(0, 3, catalog.names)
        assert listed(found["f"]) == pytest.approx([1.5, np.nan, np.nan], nan_ok=True)
        assert found["ok"].tolist() == [True, False, None]
        exactly = catalog.exact(0, 3, ["source_id", "name"])
        assert exactly["source_id"].values.tolist() == [(1 << 60) + 1, 2, 3]
        assert exactly["name"].values.tolist() == ["NGC 1", "00012", ""]
        assert exactly["name"].missing.tolist() == [False, False, True]


@pytest.mark.parametrize("elsewhere", ["2", "null", ""])
def test_text_of_ecsv_that_is_null_is_missing_whatever_other_columns_hold(elsewhere, tmp_path):
    rows = f'1,1.5,"True",null\n2,{elsewhere},"False",null\n3,1.5,"True",N\n'
    with opened(tmp_path / "t.ecsv", GAIA[: GAIA.index("1152")] + rows) as catalog:
        assert catalog.exact(0, 3, ["name"])["name"].missing.tolist() == [True, True, False]


def test_columns_that_are_no_numbers_or_text_are_refused_only_if_they_are_wanted(tmp_path):
    table = Table({"A": [1.0, 2.0]})
    table["T"] = Time([50000.0, 50001.0], format="mjd")
    table["sky"] = SkyCoord([1, 2], [3, 4], unit="deg")
    table["V"] = np.array([np.ones(1), np.ones(2)], object)
    table.write(tmp_path / "a.ecsv")
    with open_catalog(Location(str(tmp_path / "a.ecsv"))) as catalog:
        assert catalog.read(0, 2, ["A"])["A"].tolist() == [1, 2]
        for name in ("T", "sky", "V"):
            with pytest.raises(ValueError, match=f"column {name} holds values of the type"):
                catalog.read(0, 2, [name])


def test_described_tables_that_are_large_or_broken_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"t\.ecsv is no ecsv table that can be read"):
        opened(tmp_path / "t.ecsv", GAIA.replace("source_id,f,ok,name", "source_id,f"))
    monkeypatch.setattr(astropy_catalog, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"t\.mrt has more than 0 MB; .*write it as Parquet"):
        opened(tmp_path / "t.mrt", MRT)
