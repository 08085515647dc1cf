"""Units: whatever a container states is read, converted where that is possible, and refused otherwise."""

import io

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
import zarr
from astropy.io.votable import from_table
from astropy.table import QTable, Table

from jobs.containers.formats import open_catalog
from jobs.containers.tables import Table as TableOf
from jobs.containers.units import parse
from jobs.ingest.calibrated import read
from jobs.ingest.job import ingest
from jobs.ingest.units import conversions
from sedflow_dist.magnitudes import JANSKY_PER_MAGGY
from sedflow_dist.photometry.calibrate import calibrate
from sedflow_dist.photometry.survey import Survey

BANDS = "gri"
SURVEY = Survey(
    name="test", bands=tuple(f"sdss2010-{b}" for b in BANDS), labels=tuple(BANDS), flux=tuple(f"F_{b}" for b in BANDS),
    error=tuple(f"E_{b}" for b in BANDS), error_kind="sigma", unit="nJy", model_error=0.0,
)  # fmt: skip
IVAR = SURVEY.model_copy(update={"error_kind": "ivar", "unit": "nanomaggy"})


def factor(unit, survey=SURVEY, column="F_g"):
    return conversions(survey, {column: unit}).factors.get(column)


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (("nJy", "nanoJy", "njy", "NJY", "nanojansky", "NanoJansky",
          "1e-9 Jy", "10-9 Jy", "10**-9Jy", "nJy\0"), 1.0),
        (("uJy", "µJy", "μJy", "microJy", "ujy", "microjansky"), 1e3), (("mJy", "10-3 Jy", "millijansky", "mjy"), 1e6),
        (("Jy", "JY", "Jansky", "janskys"), 1e9), (("MJy",), 1e15), (("erg / (s cm2 Hz)", "erg s-1 cm-2 Hz-1"), 1e32),
        (("W m-2 Hz-1",), 1e35), (("nanomaggy", "nanomaggies", "nmgy", "NMGY", "nMgy", "1e-9 maggy"), 3631.0),
        (("maggy", "maggies", "mgy", "MAGGIES"), 3631e9), (("", None, "---", "none", "unknown"), None),
    ],
)  # fmt: skip
def test_fluxes_are_converted_whatever_the_spelling(spellings, expected):
    for unit in spellings:
        assert factor(unit) == (expected if expected is None else pytest.approx(expected, rel=1e-14)), unit


@pytest.mark.parametrize(
    "unit",
    ["mag", "mag(AB)", "ABmag", "AB", "AB mag", "adu", "count", "counts", "DN", "electron", "e-/s", "Jy/beam", "nJy2",
     "dex(Jy)", "log(Jy)", "1", "%", "MJY", "-1 Jy", "erg / (s cm2 AA)", "furlong", "Jy " * 90, "\x1b[31mJy"],
)  # fmt: skip
def test_what_is_no_flux_is_refused_with_what_is_expected(unit):
    with pytest.raises(ValueError, match=r"column F_g.*the survey's column map expects nJy") as caught:
        factor(unit)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("column", "unit", "expected"),
    [
        ("E_g", "1/nanomaggy^2", 1.0), ("E_g", "nanomaggies**-2", 1.0), ("E_g", "1 / nJy2", 3631.0**2), ("Z", "redshift", 1.0),
        ("Z", "1", 1.0), ("RA", "rad", 180 / np.pi), ("RA", "hourangle", 15.0), ("DEC", "degrees", 1.0),
        ("DEC", "arcsec", 1 / 3600),
        ("A_g", "mag", 1.0), ("A_g", "mmag", 1e-3), ("E_g", "nanomaggy", None), ("Z", "km/s", None), ("Z", "Mpc", None),
        ("RA", "h", None), ("DEC", "1", None), ("RA", "'h:m:s'", None), ("A_g", "dex", None), ("A_g", "mag(AB)", None),
        ("A_g", "nJy", None),
    ],
)  # fmt: skip
def test_every_column_that_is_read_has_a_unit_of_its_kind(column, unit, expected):
    survey = IVAR.model_copy(update={"extinction": ("A_g", "A_r", "A_i")})
    stated = {"F_g": "nmgy", column: unit}
    if expected is None:
        with pytest.raises(ValueError, match=f"column {column}"):
            conversions(survey, stated)
    else:
        assert conversions(survey, stated).factors[column] == pytest.approx(expected, rel=1e-14)


def test_a_velocity_is_called_one_and_a_transmission_is_a_pure_number():
    with pytest.raises(ValueError, match="a velocity is no redshift"):
        factor("km/s", column="Z")
    survey = SURVEY.model_copy(update={"extinction": ("T",) * 3, "extinction_kind": "transmission"})
    assert factor("%", survey, "T") == 0.01
    with pytest.raises(ValueError, match="column T is in mag"):
        factor("mag", survey, "T")


def test_an_uncertainty_without_a_unit_has_that_of_its_flux():
    assert conversions(SURVEY, {"F_g": "uJy", "E_g": None}).factors == {"F_g": 1e3, "E_g": 1e3}
    assert conversions(IVAR, {"F_g": "maggy", "E_g": None}).factors["E_g"] == pytest.approx(1e-18)
    with pytest.raises(ValueError, match="E_g is in uJy, but its flux F_g states no unit: say what that is in"):
        conversions(SURVEY, {"F_g": None, "E_g": "uJy"})
    assert conversions(SURVEY, {"F_g": None, "E_g": "nJy", "F_r": None}).unstated == ("F_g", "F_r")


def test_the_prefix_of_magnitude_zero_is_that_of_calibration():
    one = calibrate(SURVEY, np.full((1, 3), 3631.0), np.ones((1, 3)), None, np.ones(1))
    assert one.photometry.flux.tolist() == [[1, 1, 1]]
    zero = u.zero_point_flux(JANSKY_PER_MAGGY * u.Jy)
    assert parse("nmgy").to(u.nJy, equivalencies=zero) == pytest.approx(3631)


# -- containers -----------------------------------------------------------------------------------------------------------

N = 4
VALUES = {"Z": np.full(N, 0.3), "RA": np.linspace(0.1, 3, N), "DEC": np.linspace(-1, 1, N)} | {
    name: np.arange(1.0, N + 1) for b in BANDS for name in (f"F_{b}", f"E_{b}")
}
UNITS = {"RA": "rad", "DEC": "rad"} | {name: "uJy" for b in BANDS for name in (f"F_{b}", f"E_{b}")}


def as_fits(path):
    Table(VALUES, units=UNITS).write(path)


def as_gzipped_fits_that_spells_oddly(path):
    table = Table(VALUES)
    for name, unit in UNITS.items():
        table[name].unit = u.Unit({"uJy": "microJy", "rad": "radians"}[unit], parse_strict="silent")
    table.write(path)


def as_parquet_of_astropy(path):
    QTable({name: values * (u.Unit(UNITS[name]) if name in UNITS else 1) for name, values in VALUES.items()}).write(
        path
    )


def as_parquet_with_fields(path):
    fields = [pa.field(name, pa.float64(), metadata={"unit": UNITS.get(name, "")}) for name in VALUES]
    pa.parquet.write_table(pa.table(list(map(pa.array, VALUES.values())), pa.schema(fields)), path)


def as_voparquet(path):
    text = io.BytesIO()
    from_table(Table(VALUES, units=UNITS)).to_xml(text)
    table = pa.table(VALUES).replace_schema_metadata({"IVOA.VOTable-Parquet.content": text.getvalue()})
    pa.parquet.write_table(table, path)


def as_zarr(path, key="unit", zarr_format=3):
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, values in VALUES.items():
        array = group.create_array(name, data=values)
        if name in UNITS:
            array.attrs[key] = UNITS[name]


def as_zarr_2(path):
    as_zarr(path, "units", 2)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_fits, "a.fits"), (as_gzipped_fits_that_spells_oddly, "a.fits.gz"), (as_parquet_of_astropy, "a.parquet"),
        (as_parquet_with_fields, "a.parquet"), (as_voparquet, "a.parquet"), (as_zarr, "a.zarr"), (as_zarr_2, "a.zarr"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_the_units_of_every_container_are_converted(write, name, tmp_path, capsys):
    write(tmp_path / name)
    store = ingest(tmp_path / name, SURVEY, tiny.location(tmp_path / "store"), 20)
    for array in ("flux", "sigma"):
        np.testing.assert_allclose(store.group[array][:, 1], np.arange(1, N + 1) / 3.631, rtol=1e-6)
    np.testing.assert_allclose(store.group["ra"][:], np.degrees(VALUES["RA"]), rtol=1e-15)
    assert store.group.attrs["report"]["no_unit"] == {}
    assert "no unit" not in capsys.readouterr().err


def test_units_that_are_not_stated_are_assumed_and_it_is_said(tmp_path, capsys):
    Table(VALUES).write(tmp_path / "a.fits")
    store = ingest(tmp_path / "a.fits", SURVEY, tiny.location(tmp_path / "store"), 20)
    assert store.group.attrs["report"]["no_unit"] == {"F_g": N, "F_r": N, "F_i": N}
    assert "no unit is stated of F_g, F_r, F_i in 4 rows: taken as nJy" in capsys.readouterr().err


def test_a_survey_says_units_instead_of_the_file(tmp_path):
    Table(VALUES, units={**UNITS, "F_g": "furlong", "Z": "km/s"}).write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"units: \{F_g: nJy\}"):
        ingest(tmp_path / "a.fits", SURVEY, tiny.location(tmp_path / "store"), 20)
    said = Survey.model_validate({**SURVEY.model_dump(), "units": {"f_g": "nJy", "Z": "1"}})
    store = ingest(tmp_path / "a.fits", said, tiny.location(tmp_path / "store"), 20)
    np.testing.assert_allclose(store.group["flux"][:, 0], np.arange(1, N + 1) / 3631, rtol=1e-6)
    with pytest.raises(ValueError, match="units name F_x, whose numbers"):
        Survey.model_validate({**SURVEY.model_dump(), "units": {"F_x": "nJy"}})


@pytest.mark.parametrize(("declared", "factor"), [({}, 0.01), ({"Z": ""}, 1.0), ({"Z": "1"}, 1.0), ({"z": "%"}, 0.01)])
def test_a_survey_says_that_a_column_is_a_pure_number(declared, factor, tmp_path):
    table = Table({"Z": [0.1, 0.2], **{f"{x}_{b}": [1.0, 2.0] for x in "FE" for b in BANDS}})
    table["Z"].unit = "%"
    table.write(tmp_path / "a.ecsv")
    survey = SURVEY.model_copy(update={"units": declared})
    redshift = read(tiny.location(tmp_path / "a.ecsv"), slice(0, 2), survey, {})[0]["redshift"]
    np.testing.assert_allclose(redshift, factor * np.array([0.1, 0.2]), rtol=1e-6)


def test_a_cut_on_a_flux_is_in_the_surveys_unit(tmp_path):
    Table(VALUES, units=UNITS).write(tmp_path / "a.fits")
    survey = Survey.model_validate({**SURVEY.model_dump(), "cuts": {"faint": {"column": "f_r", "below": 2500.0}}})
    store = ingest(tmp_path / "a.fits", survey, tiny.location(tmp_path / "store"), 20)
    assert store.group.attrs["report"]["cuts"] == {"faint": 2}


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (("dex", "dex(1)", "dex(---)", "[-]", "[1]", "log(1)"), u.dex(u.one)),
        (("dex(solMass)", "[solMass]", "[Msun]", "log(solMass)", "log10(Msun)"), u.dex(u.solMass)),
        (("dex(solMass / yr)", "[solMass.yr-1]", "log(solMass yr-1)"), u.dex(u.solMass / u.yr)),
    ],
)
def test_logarithms_are_one_unit_however_a_container_writes_them(spellings, expected):
    assert [parse(text) for text in spellings] == [expected] * len(spellings)


@pytest.mark.parametrize("text", ["[]", "log()", "[[solMass]]", "log((solMass)"])
def test_half_a_logarithm_is_no_unit(text):
    with pytest.raises(ValueError, match="is none that is known"):
        parse(text)


def test_two_units_of_one_column_are_refused_if_it_is_wanted(tmp_path):
    fields = [pa.field(name, pa.float64(), metadata={"unit": "uJy"}) for name in "AB"]
    text = io.BytesIO()
    from_table(Table({"A": [1.0], "B": [1.0]}, units={"A": "mJy", "B": "10-6 Jy"})).to_xml(text)
    schema = pa.schema(fields, metadata={"IVOA.VOTable-Parquet.content": text.getvalue()})
    pa.parquet.write_table(pa.table([pa.array([1.0])] * 2, schema), tmp_path / "a.parquet")
    with open_catalog(tiny.location(tmp_path / "a.parquet")) as catalog:
        assert catalog.units["B"] == "uJy"
        with pytest.raises(ValueError, match="column A has more than one unit in its file's metadata: uJy, mJy"):
            catalog.read(0, 1, ["A"])
    with pytest.raises(ValueError, match="column A has more than one unit in its file's metadata: uJy, mJy"):
        TableOf(tmp_path / "a.parquet").column("A")
