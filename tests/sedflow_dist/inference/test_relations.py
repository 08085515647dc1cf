"""Published relations as priors: their densities against integrals, other implementations and numbers of their papers."""

import numpy as np
import pytest
from astropy.cosmology import Planck13
from pydantic import ValidationError
from scipy import integrate, stats

from sedflow_dist.inference.mass_function import Leja2020, NumberDensity, at_redshift
from sedflow_dist.inference.mass_metallicity import TABLE, Gallazzi2005
from sedflow_dist.inference.redshift_prior import TYPES, Benitez2000, RedshiftTable
from sedflow_dist.inference.settings import TargetPrior

ANYWHERE = np.array([[-np.inf]]), np.array([[np.inf]])


def log_pdf(relation, x, redshift=0.1, edges=ANYWHERE, **given):
    """ln of the density of one galaxy's draws."""
    given = {name: np.broadcast_to(np.asarray(value, float), np.shape(x))[None] for name, value in given.items()}
    return relation.log_pdf(np.asarray(x, float)[None], given, np.array([[redshift]]), *edges)[0]


# -- the mass function --------------------------------------------------------------------------------------------------


def schechter_of_masses(mass, z):
    """Number per Mpc^3 and Msun: the textbook's form in M itself, its parameters from Lagrange's quadratic."""
    weights = [
        (z - b) * (z - c) / ((a - b) * (a - c)) for a, b, c in [(0.2, 1.6, 3.0), (1.6, 0.2, 3.0), (3.0, 0.2, 1.6)]
    ]
    phi_1, phi_2, m_star = (
        10 ** np.dot(weights, values)
        for values in ((-2.44, -3.08, -4.14), (-2.89, -3.29, -3.51), (10.79, 10.88, 10.84))
    )
    x = mass / m_star
    return (phi_1 * x**-0.28 + phi_2 * x**-1.48) * np.exp(-x) / m_star


@pytest.mark.parametrize("z", [0.2, 0.7, 1.6, 2.9])
def test_the_mass_function_is_the_double_schechter_function_of_the_paper(z):
    """To 1e-12; the number above a mass, by incomplete gamma functions, is the integral to 1e-8."""
    log_mass = np.linspace(7, 12.3, 40)
    expected = schechter_of_masses(10**log_mass, z) * 10**log_mass * np.log(10)
    np.testing.assert_allclose(np.exp(Leja2020().log_phi(log_mass, np.asarray(z))), expected, rtol=1e-12)
    for least in (7.0, 9.5, 11.4):
        number, _ = integrate.quad(lambda m: schechter_of_masses(10**m, z) * 10**m * np.log(10), least, 14)
        assert Leja2020(min=least).number(np.asarray(z)) == pytest.approx(number, rel=1e-8)


def test_the_mass_function_is_nearly_the_one_of_nearby_galaxies():
    """That of SDSS and GALEX (Moustakas et al. 2013), to 0.25 dex: Leja et al.'s masses are larger by 0.1 to 0.2."""
    log_mass = np.array([9.5, 10.0, 10.5, 11.0])
    nearby = np.array([-2.106, -2.234, -2.317, -2.728])
    np.testing.assert_allclose(Leja2020().log_phi(log_mass, 0.1) / np.log(10), nearby, atol=0.25)


@pytest.mark.parametrize(("z", "as_at"), [(0.01, 0.2), (5.0, 3.0)])
def test_beyond_its_redshifts_the_mass_function_is_held(z, as_at):
    assert at_redshift((-2.44, -3.08, -4.14), np.array(z)) == at_redshift((-2.44, -3.08, -4.14), np.array(as_at))


@pytest.mark.parametrize("z", [0.05, 1.0])
def test_the_density_of_masses_is_normalised_above_the_least(z):
    x = np.linspace(8.5, 13, 4001)
    density = np.exp(log_pdf(Leja2020(min=8.5), x, z))
    assert integrate.simpson(density, x=x) == pytest.approx(1, abs=1e-6)
    assert log_pdf(Leja2020(min=8.5), [8.4], z) == -np.inf


def test_the_density_of_redshifts_is_number_times_volume():
    """Normalised; the ratio at two redshifts is that of shells of the volume; with the mass, the marginal is itself."""
    prior = NumberDensity(Leja2020(min=9), 0.05, 3.5)
    total, _ = integrate.quad(lambda z: np.exp(prior.log_pdf(np.asarray(z))), 0.05, 3.5, points=[0.2, 3.0])
    assert total == pytest.approx(1, rel=1e-6)
    z, dz = np.array([0.5, 2.0]), 1e-3
    shells = (Planck13.comoving_volume(z + dz) - Planck13.comoving_volume(z - dz)).value / (2 * dz)
    mass = np.linspace(9, 13, 4001)
    expected = shells * integrate.simpson(np.exp(prior.mass.log_phi(mass, z[:, None])), x=mass)
    found = np.exp(prior.log_pdf(z))
    assert found[1] / found[0] == pytest.approx(expected[1] / expected[0], rel=1e-5)
    marginal, _ = integrate.quad(lambda m: np.exp(prior.log_joint(np.asarray(m), np.asarray(0.5))), 9, 13)
    assert marginal == pytest.approx(found[0], rel=1e-6)
    assert (prior.log_pdf(np.array([0.0, 0.04, 3.6])) == -np.inf).all()
    with pytest.raises(ValueError, match="redshifts from 2 to 1"):
        NumberDensity(Leja2020(), 2, 1)


# -- mass and metallicity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widen", [1, 2])
def test_metallicities_follow_the_table_and_are_cut(widen):
    """scipy's truncated normal with the table's numbers, to 1e-9; between its masses linear, beyond them the nearest."""
    x = np.linspace(-4, -1, 301)
    for mass, median, low, high in [*TABLE[[0, 5, -1]], (7.0, *TABLE[0, 1:]), (10.575, 0.015, -0.325, 0.21)]:
        sigma = widen * (high - low) / 2
        a, b = ((edge - median) / sigma for edge in (-1.98, 0.19))
        expected = stats.truncnorm(a, b, np.log10(0.02) + median, sigma).logpdf(x)
        found = log_pdf(Gallazzi2005(widen=widen), x, log_mstar_surviving=mass)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(-3.0, -2.0), (-6.0, -3.9), (-1.6, -1.0)])
def test_metallicities_are_normalised_over_what_the_model_has(low, high):
    x = np.linspace(low, high, 20_001)
    edges = np.array([[low]]), np.array([[high]])
    for mass in (9.0, 10.3, 11.5):
        density = np.exp(log_pdf(Gallazzi2005(low=-3), x, edges=edges, log_mstar_surviving=mass))
        assert integrate.trapezoid(density, x) == pytest.approx(1, abs=3e-3)


def test_where_model_and_relation_share_no_metallicity_there_is_no_density():
    edges = np.array([[-1.2]]), np.array([[-1.0]])
    assert (log_pdf(Gallazzi2005(), [-1.1, -1.15], edges=edges, log_mstar_surviving=10.0) == -np.inf).all()


# -- redshift, given the magnitude ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, *TYPES])
@pytest.mark.parametrize("magnitude", [20.0, 23.5, 27.0])
def test_bpz_is_normalised_and_its_shape_is_the_papers(kind, magnitude):
    prior = Benitez2000()

    def density(z):
        return np.exp(prior.log_pdf(z, magnitude, kind))

    root = np.linspace(1e-4, np.sqrt(30), 60_001)  # of z: the density begins as steeply as z^0.9
    mass = integrate.cumulative_simpson(density(root**2) * 2 * root, x=root, initial=0)
    assert mass[-1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(prior.cdf(root[::9000] ** 2, magnitude, kind), mass[::9000], atol=1e-6)
    if kind:
        t = TYPES[kind]
        z_m = t.z_0 + t.k_m * (magnitude - 20)
        shape = [z**t.alpha * np.exp(-((z / z_m) ** t.alpha)) for z in (0.2, 1.1)]
        assert density(1.1) / density(0.2) == pytest.approx(shape[1] / shape[0], rel=1e-12)


def test_bpz_has_the_papers_fractions_and_ends():
    prior = Benitez2000()
    shares = prior.fractions(np.array([20.0, 25.0, 15.0]))
    np.testing.assert_allclose(sum(shares.values()), 1)
    np.testing.assert_allclose([share[0] for share in shares.values()], [0.35, 0.50, 0.15])
    np.testing.assert_allclose(shares["E"][1], 0.35 * np.exp(-0.45 * 5))
    z = np.linspace(0.01, 3, 50)
    np.testing.assert_array_equal(prior.log_pdf(z, np.asarray(15.0)), prior.log_pdf(z, np.asarray(20.0)))
    medians = [z[np.searchsorted(prior.cdf(z, np.asarray(m)), 0.5)] for m in (20.0, 23.0, 26.0)]
    assert medians[0] < medians[1] < medians[2]  # fainter is farther


# -- redshifts: a table ---------------------------------------------------------------------------------------------------


def test_a_table_of_redshifts_is_a_density():
    table = RedshiftTable(edges=(0, 0.1, 0.3, 1.0), number=(2, 0, 6))
    z = np.array([0.05, 0.2, 0.5, 0.999, 1.0, 3.0])
    with np.errstate(divide="ignore"):
        expected = np.log([2.5, 0, 0.75 / 0.7, 0.75 / 0.7, 0, 0])
    np.testing.assert_allclose(table.log_pdf(z), expected)
    assert table.describe() == "a table of 3 bins from 0 to 1"
    total, _ = integrate.quad(lambda x: np.exp(table.log_pdf(x)), 0, 1, points=[0.1, 0.3])
    assert total == pytest.approx(1)


@pytest.mark.parametrize(
    ("edges", "number", "told"),
    [((0, 1), (1, 2), "2 bins have 3 edges, and there are 2"), ((0, 0.5, 0.5), (1, 2), "increase"),
     ((-0.1, 1), (1,), "0 or more, and increase"), ((0, 1), (0,), "not all are 0"), ((0, 1), (-1,), "0 or more")],
)  # fmt: skip
def test_a_table_of_redshifts_that_is_none_is_refused(edges, number, told):
    with pytest.raises(ValidationError, match=told):
        TargetPrior(redshift={"edges": edges, "number": number})


def test_a_table_of_redshifts_is_plain_data():
    prior = TargetPrior.model_validate({"redshift": {"edges": [0, 1, 2], "number": [1, 3]}})
    assert TargetPrior.model_validate_json(prior.model_dump_json()) == prior and not prior.is_empty
