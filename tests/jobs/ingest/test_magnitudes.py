"""Tables of magnitudes, counts and fluxes of any unit through ingest: values, contradictions, and what the report says."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
import tiny
import zarr
from astropy.io import fits
from astropy.table import Table

from jobs.ingest.job import ingest
from jobs.ingest.units import conversions
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps.filters import Band

N = 6
BANDS = ("g", "r", "i")
RNG = np.random.default_rng(1)
FLUX, Z = 10 ** RNG.uniform(0, 3, (N, 3)), np.full(N, 0.1)
SIGMA = 0.05 * FLUX
POGSON = 2.5 / np.log(10)
VEGA, SOFTENING = np.array([-0.08, 0.16, 0.37]), np.array([0.9e-10, 1.2e-10, 1.8e-10])
PIVOT = np.array([Band.load(f"sdss2010-{b}").pivot for b in BANDS])


def survey(**changed):
    values = {
        "name": "s", "bands": tuple(f"sdss2010-{b}" for b in BANDS), "labels": BANDS, "flux": tuple(f"F_{b}" for b in BANDS),
        "error": tuple(f"E_{b}" for b in BANDS), "error_kind": "sigma", "model_error": 0.0, "ra": None, "dec": None,
    }  # fmt: skip
    return Survey.model_validate({**values, **changed})


MAGNITUDES = survey(unit="mag")


def write(path, flux, error, unit=None, error_unit=None, dtype="f8"):
    table = Table({"Z": Z[: len(flux)]})
    for i, band in enumerate(BANDS):
        table[f"F_{band}"] = np.asarray(flux[:, i], dtype)
        table[f"E_{band}"] = np.asarray(error[:, i], dtype)
        for name, said in ((f"F_{band}", unit), (f"E_{band}", error_unit)):
            if said:
                table[name].unit = said
    ending = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes)
    table.write(path, overwrite=True, **FORMATS.get(ending, {}))
    return path


#: What astropy does not know by the ending alone, or would write by halves.
FORMATS = {
    ".tsv": {"format": "ascii.tab"}, ".dat": {"format": "ascii.basic"}, ".tbl": {"format": "ascii.ipac"},
    ".vot": {"format": "votable"}, ".hdf5": {"path": "phot", "serialize_meta": True},
}  # fmt: skip


def photometry(path, declared, tmp_path):
    store = ingest(path, declared, tiny.location(tmp_path / f"store-{len(list(tmp_path.iterdir()))}"), 20)
    return store.group["flux"][:], store.group["sigma"][:], store.group.attrs["report"], store.group["mask"][:]


def lupt(flux, sigma):
    x = 1e-9 * flux / (2 * SOFTENING)
    return -POGSON * (np.arcsinh(x) + np.log(SOFTENING)), POGSON * 1e-9 * sigma / (2 * SOFTENING) / np.hypot(1, x)


MAG, MAG_ERROR = 22.5 - 2.5 * np.log10(FLUX), POGSON * SIGMA / FLUX
LAMBDA = 3.631e-29 * 2.99792458e18 / PIVOT**2  # erg / (s cm2 A) of a nanomaggy


@pytest.mark.parametrize("ending", ["fits", "csv", "parquet"])
@pytest.mark.parametrize(
    ("declared", "flux", "error", "unit", "error_unit"),
    [
        (survey(), FLUX, SIGMA, "nmgy", "nmgy"), (survey(unit="nJy"), 3631 * FLUX, 3631 * SIGMA, "nJy", "nJy"),
        (survey(unit="erg / (s cm2 Hz)"), 3.631e-29 * FLUX, 3.631e-29 * SIGMA, "erg / (s cm2 Hz)", "erg / (s cm2 Hz)"),
        (survey(unit="erg / (s cm2 Hz)"), 3.631 * FLUX, 3.631 * SIGMA, "uJy", "uJy"),  # what the file states is converted
        (survey(unit="erg / (s cm2 Angstrom)"), LAMBDA * FLUX, LAMBDA * SIGMA, "erg / (s cm2 Angstrom)", None),
        (MAGNITUDES, MAG, MAG_ERROR, "mag", "mag"), (MAGNITUDES, 1e3 * MAG, 1e3 * MAG_ERROR, "mmag", None),
        (MAGNITUDES, MAG, MAG_ERROR, "mag(AB)", "mag"),
        (survey(unit="mag", system="Vega", ab_offset=VEGA.tolist()), MAG - VEGA, MAG_ERROR, "mag", "mag"),
        (survey(unit="mag", softening=SOFTENING.tolist()), *lupt(FLUX, SIGMA), "mag", "mag"),
        (survey(zero_point=25.0), 10 * FLUX, 10 * SIGMA, "ct", "ct"), (survey(zero_point=25.0), 10 * FLUX, 10 * SIGMA, "adu", None),
        (survey(zero_point=25.0), 3.631 * FLUX, 3.631 * SIGMA, "uJy", "uJy"),
        (survey(error_kind="magnitude"), FLUX, MAG_ERROR, "nmgy", "mag"),
        (survey(error_kind="magnitude"), 3.631 * FLUX, 1e3 * MAG_ERROR, "uJy", "mmag"),
    ],
)  # fmt: skip
def test_the_same_galaxies_in_any_unit_are_the_same_photometry(
    declared, flux, error, unit, error_unit, ending, tmp_path
):
    if ending == "csv":  # no units: what the survey says counts
        if unit in ("mmag", "uJy"):
            units = {f"F_{b}": unit for b in BANDS} | {f"E_{b}": error_unit or unit for b in BANDS}
            declared = Survey.model_validate({**declared.model_dump(), "units": units})
        unit = error_unit = None
    path = write(tmp_path / f"a.{ending}", flux, error, unit, error_unit)
    found, sigma, report, mask = photometry(path, declared, tmp_path)
    np.testing.assert_allclose(found, FLUX, rtol=1e-6)
    np.testing.assert_allclose(sigma, SIGMA, rtol=1e-6)
    assert mask.all()
    assert report["missing"] == report["not_detected"] == report["assumed_error"] == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["ecsv", "tsv", "dat", "tbl", "vot", "hdf5", "fits.gz"])
@pytest.mark.parametrize(
    ("declared", "flux", "error"),
    [
        (survey(), FLUX, SIGMA), (survey(unit="erg / (s cm2 Hz)"), 3.631e-29 * FLUX, 3.631e-29 * SIGMA),
        (MAGNITUDES, MAG, MAG_ERROR), (survey(unit="mag", softening=SOFTENING.tolist()), *lupt(FLUX, SIGMA)),
    ],
    ids=["nanomaggies", "cgs", "magnitudes", "luptitudes"],
)  # fmt: skip
def test_the_same_galaxies_in_any_container_are_the_same_photometry(declared, flux, error, ending, tmp_path):
    path = write(tmp_path / f"a.{ending}", flux, error)
    found, sigma, _, mask = photometry(path, declared, tmp_path)
    np.testing.assert_allclose(found, FLUX, rtol=1e-6)
    np.testing.assert_allclose(sigma, SIGMA, rtol=1e-6)
    assert mask.all()


# -- a unit that contradicts the declaration -----------------------------------------------------------------------------

VEGA_SURVEY = survey(unit="mag", system="Vega", ab_offset=VEGA.tolist())
LUPT = survey(unit="mag", softening=SOFTENING.tolist())


@pytest.mark.parametrize(
    ("declared", "unit", "message"),
    [
        (MAGNITUDES, "nJy", "column F_g is in nJy"), (MAGNITUDES, "nmgy", "expects mag"), (MAGNITUDES, "dex", "expects mag"),
        (MAGNITUDES, "vegamag", "the survey's magnitudes are AB: say `system: Vega`"),
        (MAGNITUDES, "mag(Vega)", "say `system: Vega`"), (MAGNITUDES, "mag(ST)", "magnitudes are AB: convert them"),
        (MAGNITUDES, "STmag", "convert them"), (MAGNITUDES, "luptitude", "give its softening parameters"),
        (MAGNITUDES, "asinh mag", "give its softening parameters"), (MAGNITUDES, "mag(asinh)", "softening"),
        (VEGA_SURVEY, "mag(AB)", "magnitudes are Vega: say `system: AB`"), (VEGA_SURVEY, "ABmag", "say `system: AB`"),
        (survey(), "mag", "column F_g is in mag"), (survey(), "mag(AB)", "expects nanomaggy"),
        (survey(), "ct", "expects nanomaggy"),
        (survey(), "erg / (s cm2 Angstrom)", "expects nanomaggy"), (survey(), "luptitude", "expects nanomaggy"),
        (survey(unit="erg / (s cm2 Angstrom)"), "nJy", "expects erg"), (survey(zero_point=25.0), "mag", "expects count"),
        (survey(zero_point=25.0), "erg / (s cm2 Angstrom)", "expects count"), (survey(zero_point=25.0), "km", "expects count"),
        (survey(zero_point=25.0), "s", "expects count"), (survey(zero_point=25.0), "ct / min", "expects count"),
        (survey(zero_point=25.0, unit="adu"), "electron", "expects adu"), (survey(zero_point=25.0, unit="adu"), "1", "expects adu"),
        (survey(zero_point=25.0, unit="ct / s"), "ct", "expects ct / s"), (survey(), "ABmag", "the survey says `unit: mag`"),
        (survey(unit="nJy"), "electron / s", "the survey gives a zero_point"),
    ],
)  # fmt: skip
def test_a_unit_that_contradicts_the_declaration_is_refused(declared, unit, message):
    with pytest.raises(ValueError, match=message):
        conversions(declared, {"F_g": unit})


@pytest.mark.parametrize(
    ("declared", "column", "unit", "factor"),
    [
        (LUPT, "F_g", "luptitude", 1.0), (LUPT, "F_g", "asinh mag", 1.0), (LUPT, "F_g", "mag", 1.0), (LUPT, "F_g", "mag(AB)", 1.0),
        (VEGA_SURVEY, "F_g", "vegamag", 1.0), (VEGA_SURVEY, "F_g", "mag(Vega)", 1.0), (MAGNITUDES, "F_g", "AB", 1.0),
        (MAGNITUDES, "F_g", "mmag", 1e-3), (MAGNITUDES, "E_g", "mag(AB)", 1.0), (VEGA_SURVEY, "E_g", "mag(AB)", 1.0),
        (survey(zero_point=22.5), "F_g", "nJy", 1 / 3631), (survey(zero_point=22.5), "F_g", "electron / s", 1.0),
        (survey(zero_point=(25.0, 26.0, 27.0)), "E_g", "nmgy", 10.0),
        (survey(zero_point=25.0, error_kind="ivar"), "E_g", "1 / nmgy2", 0.01),
        (survey(zero_point=25.0, error_kind="ivar"), "E_g", "1 / ct2", 1.0),
        (survey(zero_point=25.0), "F_g", "1e3 adu", 1e3), (survey(zero_point=25.0), "F_g", "%", 0.01),
        (survey(zero_point=25.0), "E_g", "1e-3 ct", 1e-3),
        (survey(zero_point=25.0, unit="ct / min"), "E_g", "ct / s", 60.0),
        (survey(zero_point=25.0, unit="ct / min", error_kind="ivar"), "E_g", "s2 / ct2", 1 / 3600),
        (survey(unit="erg / (s cm2 Angstrom)", error_kind="ivar"), "E_g", "1e34 s2 cm4 Angstrom2 / erg2", 1e34),
        (survey(zero_point=25.0, unit="DN"), "F_g", "adu", 1.0), (survey(zero_point=25.0, unit="counts"), "F_g", "electron", 1.0),
    ],
)  # fmt: skip
def test_a_unit_that_agrees_is_taken_or_converted(declared, column, unit, factor):
    stated = {"F_g": None, **({"F_g": declared.unit} if column == "E_g" else {}), column: unit}
    assert conversions(declared, stated).factors[column] == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("flux", "error"), [("adu", "electron"), ("ct", "ct / s"), ("1", "electron"), ("electron", "%")]
)
def test_an_error_that_counts_something_else_than_its_flux_is_refused(flux, error):
    with pytest.raises(
        ValueError, match=rf"column F_r is in {flux} and its error E_r in {error}, which cannot be converted"
    ):
        conversions(survey(zero_point=25.0), {"F_r": flux, "E_r": error})
    for same in (flux, f"1e-3 {flux}" if flux != "1" else "ct"):
        assert conversions(survey(zero_point=25.0), {"F_r": flux, "E_r": same}).factors["E_r"] in (1.0, 1e-3)


def test_an_error_in_another_kind_of_unit_than_its_magnitude_is_refused():
    with pytest.raises(ValueError, match=r"column E_r is in nJy.*expects mag"):
        conversions(MAGNITUDES, {"F_r": "mag", "E_r": "nJy"})
    with pytest.raises(ValueError, match=r"column E_r is in nJy.*expects \(erg|expects mag"):
        conversions(survey(error_kind="magnitude"), {"F_r": "nJy", "E_r": "nJy"})


# -- codes, limits and the report -----------------------------------------------------------------------------------------

CODES = {"not_detected": [99.99], "not_observed": [-99.99], "limits": [27.5, 27.5, 25.0], "limit_sigma": 5.0}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("unit", ["mag", "mmag"])
def test_codes_are_those_of_the_file_in_its_own_type_and_before_any_conversion(dtype, unit, tmp_path):
    """99.99 in float32 is 99.98999786, and a code of a column in mmag is not a thousandth of itself."""
    flux, error = MAG.copy(), MAG_ERROR.copy()
    scale = 1.0 if unit == "mag" else 1e3
    flux, error = scale * flux, scale * error
    flux[0, 0], flux[1, 1], flux[2, 1] = 99.99, -99.99, -99.99
    path = write(tmp_path / "a.fits", flux, error, unit, unit, dtype)
    found, sigma, report, mask = photometry(path, survey(unit="mag", **CODES), tmp_path)
    expected = np.ones((N, 3), bool)
    expected[1, 1] = expected[2, 1] = False
    np.testing.assert_array_equal(mask, expected)
    assert found[0, 0] == 0
    assert sigma[0, 0] == pytest.approx(0.01 / 5, rel=1e-6)
    assert report["not_detected"] == {"g": 1}
    assert report["missing"] == {"r": 2}
    assert "BAD_FLUX" not in report["flags"]


def test_bands_that_most_rows_lack_are_simply_missing(tmp_path, capsys):
    """Rows of two instruments: nulls, or codes, where one of them has no such band."""
    rows = 40
    table = {"Z": np.full(rows, 0.1)} | {f"{k}_{b}": np.ones(rows) for b in BANDS for k in "FE"}
    other = pa.array([1.0] + [None] * (rows - 1))
    pa.parquet.write_table(pa.table({**table, "F_j": other, "E_j": other}), tmp_path / "a.parquet")
    declared = survey(
        bands=(*(f"sdss2010-{b}" for b in BANDS), "twomass-J"), labels=(*BANDS, "j"), flux=(*(f"F_{b}" for b in BANDS), "F_j"),
        error=(*(f"E_{b}" for b in BANDS), "E_j"), not_observed=[float("nan")],
    )  # fmt: skip
    _, _, report, mask = photometry(tmp_path / "a.parquet", declared, tmp_path)
    assert mask.sum(0).tolist() == [rows, rows, rows, 1]
    assert report["missing"] == {"j": rows - 1}
    assert set(report["flags"]) == {"BAND_MISSING"}
    assert report["usable"] == rows
    assert "rows that lack a band: 39 j" in capsys.readouterr().err
    again = ingest(tmp_path / "a.parquet", declared, tiny.location(tmp_path / "again"), 20)
    ingest(tmp_path / "a.parquet", declared, again.location, 20)  # NaN in its settings equals itself


def test_an_assumed_error_stands_in_the_report(tmp_path, capsys):
    path = write(tmp_path / "a.fits", MAG, MAG_ERROR, "mag")
    _, sigma, report, _ = photometry(path, survey(unit="mag", error=None, error_fraction=0.1, max_snr=8.0), tmp_path)
    np.testing.assert_allclose(sigma, FLUX / 8, rtol=1e-6)
    assert report["assumed_error"] == dict.fromkeys(BANDS, 0.1)
    assert "assumed are 0.1 of the flux in g, 0.1 of the flux in r" in capsys.readouterr().err


def test_text_in_a_column_of_magnitudes_is_told_as_text(tmp_path):
    (tmp_path / "a.csv").write_text("F_g,F_r,F_i,E_g,E_r,E_i,Z\n20,faint,20,.1,.1,.1,.1\n")
    with pytest.raises(ValueError, match=r"F_r.*faint"):
        ingest(tmp_path / "a.csv", survey(unit="mag", **CODES), tiny.location(tmp_path / "store"), 20)


@pytest.mark.parametrize("container", ["fits", "zarr", "zarr-single", "hdf5"])
def test_codes_of_packed_integers_are_found_as_they_are_written(container, tmp_path):
    """-9999 times 0.01 is -99.99000000000001, and in float32 something else again."""
    magnitude = np.full((N, 3), 2000)
    magnitude[1, 0], magnitude[2, 0] = -9999, 1999
    columns = {f"E_{b}": np.full(N, 0.1) for b in "gri"} | {"Z": np.full(N, 0.1)}
    packed = {
        f"F_{b}": magnitude[:, i].astype("i2" if container == "zarr-single" else "i4") for i, b in enumerate("gri")
    }
    if container == "fits":
        path = tmp_path / "a.fits"
        fields = [fits.Column(name, "J" if name in packed else "D", array=v) for name, v in (packed | columns).items()]
        hdu = fits.BinTableHDU.from_columns(fields)
        hdu.header.update({f"TSCAL{i}": 0.01 for i in (1, 2, 3)})
        hdu.writeto(path)
    else:
        path = tmp_path / ("a.h5" if container == "hdf5" else "a.zarr")
        group = h5py.File(path, "w") if container == "hdf5" else zarr.open_group(path, mode="w")
        for name, values in (packed | columns).items():
            array = (
                group.create_dataset(name, data=values)
                if container == "hdf5"
                else group.create_array(name, data=values)
            )
            if name in packed:
                array.attrs["scale_factor"] = 0.01
        if container == "hdf5":
            group.close()
    declared = survey(unit="mag", not_observed=[-99.99], ra=None, dec=None)
    found, _, report, mask = photometry(path, declared, tmp_path)
    assert np.argwhere(~mask).tolist() == [[1, 0]]
    assert report["missing"] == {"g": 1}
    assert "BAD_FLUX" not in report["flags"]
    np.testing.assert_allclose(found[[0, 2], 0], 10 ** (-0.4 * (np.array([20, 19.99]) - 22.5)), rtol=1e-5)
