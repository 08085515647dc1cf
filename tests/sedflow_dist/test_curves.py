"""Response curves from files: every layout gives the same curve, what is none is refused, detectors count what they say."""

import astropy.units as u
import numpy as np
import pytest
import speclite.filters
from astropy.io.votable.tree import Param
from astropy.io.votable.tree import VOTableFile as VOTable
from astropy.table import Table

from sedflow_dist import curves
from sedflow_dist.curves import Curve
from sedflow_dist.sps.filters import Band, BandWeights, rest_range
from sedflow_dist.sps.ssp import pixel_edges
from sedflow_dist.sps.unmodelled import warnings

SDSS_R = speclite.filters.load_filter("sdss2010-r")
LAM, RESPONSE = SDSS_R.wavelength.astype(float), np.asarray(SDSS_R.response, float)
EDGES = pixel_edges(0.005, (900.0, 56_000.0))


def as_ecsv(path, unit="Angstrom"):
    wavelength = (LAM * u.AA).to(unit)
    Table({"wavelength": wavelength, "response": RESPONSE}).write(path, format="ascii.ecsv")


def as_ecsv_in_nm(path):
    as_ecsv(path, "nm")


def as_two_columns(path, header="", comments="# ", separator=" ", scale=1.0):
    np.savetxt(path, np.c_[scale * LAM, RESPONSE], "%.17g", separator, header=header, comments=comments)


def as_text_with_a_header(path):
    as_two_columns(path, "wavelength transmission", "")


def as_csv(path):
    as_two_columns(path, "Wavelength,Transmission", "", ",")


def as_text_in_nm(path):
    as_two_columns(path, "wavelength_nm transmission", "", scale=0.1)


def as_text_in_microns_by_a_comment(path):
    as_two_columns(path, "lambda[um] T", scale=1e-4)


def as_text_from_red_to_blue(path):
    np.savetxt(path, np.c_[LAM, RESPONSE][::-1], "%.17g")


def as_text_in_percent(path):
    np.savetxt(path, np.c_[LAM, 100 * RESPONSE], "%.17g")


def as_votable(path, detector=None, unit="Angstrom"):
    """As the SVO filter profile service answers."""
    file = VOTable.from_table(Table({"Wavelength": (LAM * u.AA).to(unit), "Transmission": RESPONSE}))
    if detector is not None:
        table = file.get_first_table()
        table.params.append(Param(file, name="DetectorType", datatype="char", arraysize="*", value=detector))
    file.to_xml(str(path))


def as_votable_of_a_photon_counter(path):
    as_votable(path, "1")


def as_votable_with_a_mark_of_its_encoding(path):
    as_votable(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def as_votable_in_microns(path):
    as_votable(path, unit="um")


LAYOUTS = [
    as_ecsv, as_ecsv_in_nm, as_two_columns, as_text_with_a_header, as_csv, as_text_in_nm, as_text_in_microns_by_a_comment,
    as_text_from_red_to_blue, as_text_in_percent, as_votable, as_votable_of_a_photon_counter, as_votable_in_microns,
    as_votable_with_a_mark_of_its_encoding,
]  # fmt: skip


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_of_a_curve_is_the_same_band(write, tmp_path):
    write(tmp_path / "my-r.dat")
    curve = Curve.read(tmp_path / "my-r.dat")
    assert (curve.name, curve.detector) == ("my-r", "photon")
    mine, theirs = (BandWeights.build([band], EDGES, 0.2).table for band in (curve, "sdss2010-r"))
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12 * theirs.max())
    assert Band.load(curve).pivot == pytest.approx(Band.load("sdss2010-r").pivot, rel=1e-12)


def test_a_curve_of_the_same_samples_gives_the_same_bits(tmp_path):
    as_ecsv(tmp_path / "r.ecsv")
    mine, theirs = (
        BandWeights.build([band], EDGES, 0.2).table for band in (Curve.read(tmp_path / "r.ecsv"), "sdss2010-r")
    )
    np.testing.assert_array_equal(mine, theirs)


def test_the_digest_is_that_of_the_content(tmp_path):
    for write, name in ((as_ecsv, "a.ecsv"), (as_two_columns, "b.dat"), (as_votable, "c.xml")):
        write(tmp_path / name)
    found = [Curve.read(path) for path in sorted(tmp_path.iterdir())]
    assert len({curve.digest for curve in found}) == 1
    assert [str(curve) for curve in found] == [f"{name} (curve {found[0].digest})" for name in "abc"]
    other = found[0].model_copy(update={"detector": "energy"})
    assert Curve.model_validate(other.model_dump()).digest != found[0].digest
    again = Curve.model_validate_json(found[0].model_dump_json())
    assert (again, again.digest) == (found[0], found[0].digest)


def test_an_energy_counter_weighs_photons_by_their_energy(tmp_path):
    """Mean f_lambda of a steep spectrum, by quadrature: the one integrates R f d(lambda), the other R f lambda d(lambda)."""
    as_two_columns(tmp_path / "r.dat")
    x = np.linspace(LAM[0], LAM[-1], 100_001)
    response, spectrum = np.interp(x, LAM, RESPONSE), (x / 6000) ** 3
    for detector, weight in (("photon", response * x), ("energy", response)):
        band = Band.load(Curve.read(tmp_path / "r.dat", detector))
        end = band.wavelength[-1:]
        mean = band.moment(end, 4)[0] / band.moment(end, 1)[0] / 6000**3
        expected = np.trapezoid(weight * spectrum, x) / np.trapezoid(weight, x)
        assert mean == pytest.approx(expected, rel=1e-6)


def test_a_votable_says_what_its_detector_counts(tmp_path):
    as_votable(tmp_path / "r.xml", "0")
    assert Curve.read(tmp_path / "r.xml").detector == Curve.read(tmp_path / "r.xml", "energy").detector == "energy"
    with pytest.raises(ValueError, match="says that its detector counts by energy, and the run file says photon"):
        Curve.read(tmp_path / "r.xml", "photon")


@pytest.mark.parametrize(("said", "detector"), [("energy", "energy"), (0, "energy"), ("1", "photon"), ("maybe", None)])
def test_an_ecsv_may_say_it_too_and_what_nobody_knows_is_not_passed_over(said, detector, tmp_path):
    meta = {"DetectorType": said, "group_name": "mine"}
    Table({"wavelength": LAM * u.AA, "response": RESPONSE}, meta=meta).write(tmp_path / "r.ecsv", format="ascii.ecsv")
    as_votable(tmp_path / "r.xml", str(said))
    for name in ("r.ecsv", "r.xml"):
        if detector:
            assert Curve.read(tmp_path / name).detector == detector
        else:
            with pytest.raises(ValueError, match="it says that its detector is 'maybe'"):
                Curve.read(tmp_path / name)


def test_the_run_file_says_the_unit_where_the_file_does_not(tmp_path):
    np.savetxt(tmp_path / "r.dat", np.c_[LAM / 10, RESPONSE], "%.17g")
    np.testing.assert_allclose(Curve.read(tmp_path / "r.dat", unit="nm").wavelength[0], LAM[0], rtol=1e-12)
    with pytest.raises(ValueError, match="are the band's wavelengths in angstroms"):
        rest_range([Curve.read(tmp_path / "r.dat")], 0.2, EDGES)
    as_ecsv(tmp_path / "r.ecsv")
    with pytest.raises(ValueError, match="its wavelengths are in Angstrom, and the run file says nm"):
        Curve.read(tmp_path / "r.ecsv", unit="nm")
    with pytest.raises(ValueError, match="expected is a length"):
        Curve.read(tmp_path / "r.dat", unit="Jy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no ECSV, no VOTable and no text in two columns"), ("hello world, this is none\n", "is no response curve"),
        ("5000 0.1\n5100 x\n5200 0\n", "is no response curve"), ("5000 0.1\n", "is no response curve"),
        ("5000 0.1\n5000 0.2\n5100 0.1\n", "not positive and increasing"), ("5000 0.1\n6000 0.2\n5500 0.1\n", "increasing"),
        ("5000 0.1\n5100 nan\n5200 0.1\n", "not finite"), ("-1 0.1\n5100 0.2\n5200 0.1\n", "not positive"),
        ("5000 0.1\n5100 -0.2\n5200 0.1\n", "none is negative"), ("5000 0\n5100 0\n5200 0\n", "no response is positive"),
        ("a b c\n5000 0.1 1\n5100 0.2 1\n", "its columns are 'a, b, c'"), ("<VOTABLE></VOTABLE>", "is no response curve"),
        ("<html><body>not found</body></html>", "is no response curve"), ("PK\x03\x04\x00\x00", "is no response curve"),
    ],
)  # fmt: skip
def test_what_is_no_curve_is_refused_in_a_line(text, message, tmp_path):
    (tmp_path / "r.dat").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Curve.read(tmp_path / "r.dat")
    assert str(tmp_path / "r.dat") in str(caught.value)
    assert str(caught.value).isprintable()


def test_noise_about_zero_is_none_and_more_columns_are_told_by_name(tmp_path):
    (tmp_path / "r.dat").write_text(
        "wave qe throughput\n5000 .9 -0.0001\n5100 .9 0.5\n5200 .9 0.4\n5300 .9 0\n5400 .9 0\n"
    )
    curve = Curve.read(tmp_path / "r.dat")
    assert (curve.wavelength, curve.response) == ((5000, 5100, 5200, 5300), (0, 0.5, 0.4, 0))


def test_a_missing_file_and_a_url_are_told(tmp_path):
    for entry, message in (
        ("curves/none.ecsv", "there is no such file"), ("s3://b/r.dat", "curves are read from files here"),
        ({"file": "r.dat", "colour": "red"}, "has no key 'colour'"), ({"file": "r.dat", "detector": "ccd"}, "photon or energy"),
        ({"file": 5}, "it is a text"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            curves.declared(entry, tmp_path)
    assert curves.declared("sdss2010-r", tmp_path) == "sdss2010-r"


def test_a_name_never_reads_a_file(tmp_path, monkeypatch):
    """speclite reads ECSV where a name ends so; a model's specification may come from anywhere."""
    as_ecsv(tmp_path / "my-r.ecsv")
    monkeypatch.chdir(tmp_path)
    for name in ("my-r.ecsv", str(tmp_path / "my-r.ecsv")):
        with pytest.raises(ValueError, match="no band named"):
            Band.load(name)


def test_what_a_curve_sees_and_the_model_lacks_is_told_by_its_name():
    curve = Curve(name="mine", wavelength=(34_000, 40_000, 46_000), response=(0, 1, 0))
    assert any("mine" in line for line in warnings([curve], (0.0, 0.2)))
