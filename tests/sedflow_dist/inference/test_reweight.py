"""Another prior for draws that are there: known answers, nothing changed where nothing should, and failure said aloud."""

import numpy as np
import pytest
import torch
from astropy.table import Table
from provabgs import COORDINATES, PARAMETERS, SPACE
from scipy import stats

from jobs.catalog.draws import engine, observed, replay
from jobs.catalog.reweight import reweight as reweight_catalog
from jobs.config.sections import Inference
from jobs.containers import tables
from jobs.infer import infer
from jobs.ingest.job import ingest
from sedflow_dist.inference import importance, reweight
from sedflow_dist.inference.densities import Density
from sedflow_dist.inference.interim_prior import InducedPrior, ParameterPrior, Steps, prior_draws
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import TargetPrior
from sedflow_dist.inference.summary import QUANTILE_NAMES, QUANTILES, Method
from sedflow_dist.sps import derived
from storage_schemas import open_catalog

LABELS = tuple("ugriz")
COLUMNS = tuple(q.name for q in derived.columns(SPACE, LABELS))
TAU, SFR = COLUMNS.index("tau_ism"), COLUMNS.index("log_sfr_1gyr")


def new_prior(flow, *texts):
    return NewPrior.build(texts, flow, seed=1)


def gaussian_draws(mean, std, n=20_000):
    """Equally weighted draws of one galaxy, whose tau_ism is Gaussian: quantiles, so without Monte-Carlo noise."""
    values = torch.full((1, n, len(COLUMNS)), 0.5)
    values[0, :, TAU] = torch.as_tensor(stats.norm(mean, std).ppf((np.arange(n) + 0.5) / n))
    return values, torch.full((1, n), 1 / n, dtype=torch.float64)


REDSHIFT = torch.tensor([0.07])
LEAST = 0.005  # effective fraction


@pytest.mark.parametrize(("mean", "std"), [(1.4, 0.1), (1.55, 0.1), (1.5, 0.3)])
def test_a_gaussian_posterior_times_a_gaussian_prior_is_the_known_gaussian(flow, mean, std):
    """Mean and std to 1e-3 of the posterior's width, fraction to 1 %: E[w]^2 / E[w^2] of Gaussians in closed form."""
    m, s = 1.5, 0.15
    values, weight = gaussian_draws(m, s)
    new, fraction = reweight.reweight(values, weight, new_prior(flow, f"tau_ism=norm({mean},{std})"), REDSHIFT)
    quantiles, found_mean, found_std = importance.summarise(values, new, QUANTILES)
    precision = 1 / s**2 + 1 / std**2
    expected = stats.norm((m / s**2 + mean / std**2) / precision, precision**-0.5)
    assert abs(float(found_mean[0, TAU]) - expected.mean()) < 1e-3 * s
    assert abs(float(found_std[0, TAU]) - expected.std()) < 1e-3 * s
    np.testing.assert_allclose(quantiles[0, TAU], expected.ppf([0.025, 0.16, 0.5, 0.84, 0.975]), atol=3e-3 * s)
    # w = N(x; mean, std): E[w] = N(m; mean, s^2 + std^2), E[w^2] = N(m; mean, s^2 + std^2 / 2) / (2 sqrt(pi) std)
    first = stats.norm(mean, np.hypot(s, std)).pdf(m)
    second = stats.norm(mean, np.sqrt(s**2 + std**2 / 2)).pdf(m) / (2 * np.sqrt(np.pi) * std)
    assert float(fraction) == pytest.approx(first**2 / second, rel=0.01)


@pytest.mark.parametrize("text", ["tau_ism=uniform(0,3)", "tau_ism=flat", "n_dust=uniform(-2,3)", "beta2=beta(1,3)",
                                  "gamma1=loguniform(4.5e-5,1.5e-2)", "t_burst=uniform(scale=13.26, loc=0.01)"])  # fmt: skip
def test_the_old_prior_changes_nothing(flow, text):
    values = torch.rand(3, 500, len(COLUMNS), generator=torch.Generator().manual_seed(2))
    u = torch.rand(3, 500, 11, generator=torch.Generator().manual_seed(3))
    values[..., : len(PARAMETERS)] = SPACE.from_unit(u)
    weight = torch.rand(3, 500, generator=torch.Generator().manual_seed(4)).double()
    weight /= weight.sum(-1, keepdim=True)
    new, fraction = reweight.reweight(values, weight, new_prior(flow, text), REDSHIFT.expand(3))
    torch.testing.assert_close(new, weight, rtol=1e-5, atol=0)
    torch.testing.assert_close(fraction, 1 / (500 * (weight**2).sum(-1)), rtol=1e-5, atol=0)
    quantiles = importance.quantiles(values, weight.float(), (0.16, 0.5, 0.84))
    torch.testing.assert_close(
        importance.summarise(values, new, QUANTILES)[0][..., 1:4], quantiles, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("text", ["tau_ism=norm(2.9,1e-4)", "tau_ism=norm(1e6,1e-3)", "tau_ism=uniform(5,1)"])
def test_a_prior_far_from_the_draws_leaves_no_effective_draws(flow, text):
    values, weight = gaussian_draws(0.5, 0.1)
    new, fraction = reweight.reweight(values, weight, new_prior(flow, text), REDSHIFT)
    assert bool(torch.isfinite(new).all())
    assert float(fraction) < 1e-4


def test_the_edges_of_the_prior_have_a_weight(flow):
    for name, parameter in ((n, i) for i, n in enumerate(PARAMETERS)):
        for u in (0.0, 1.0):
            theta = SPACE.from_unit(torch.full((1, 1, 11), u))
            values = torch.zeros(1, 1, len(COLUMNS))
            values[..., : len(PARAMETERS)] = theta
            ratio = new_prior(flow, f"{name}=flat").log_ratio(values, REDSHIFT)
            assert bool(torch.isfinite(ratio).all()), (name, u, float(theta[0, 0, parameter]))


@pytest.mark.parametrize("name", PARAMETERS)
def test_old_densities_are_those_of_prior_draws(name):
    """The mean of 1 / density over draws is the length of the range: importance sampling of a flat density, to 5 sigma."""
    theta = SPACE.from_unit(torch.rand(200_000, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    x = theta[:, PARAMETERS.index(name)].numpy()
    old = ParameterPrior(name, SPACE)
    (lo,), (hi,) = old.range(np.zeros(1))
    inside = x < 0.9 if name.startswith("beta") else x < hi  # 1 / Beta(1,3) has no finite variance at 1
    terms = inside * np.exp(-old.log_pdf(x[None], np.zeros(1))[0])
    length = 0.9 if name.startswith("beta") else hi - lo
    assert terms.mean() == pytest.approx(length, abs=max(5 * terms.std() / np.sqrt(len(x)), 1e-4 * length))


# -- derived properties -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(flow):
    return Steps(flow, seed=1)


@pytest.fixture(scope="module")
def fresh(flow):
    """Other prior draws than those of `steps`, at a redshift between two of these."""
    return prior_draws(flow, 0.063, seed=2, n=100_000)


@pytest.mark.parametrize("name", ["log_sfr_1gyr", "log_z_mw", "t_age_mw"])
def test_flat_on_a_derived_property_makes_prior_draws_flat(steps, fresh, name):
    """Fresh prior draws at a redshift between two steps, weighted: their distribution is within 1 % of uniform."""
    old = InducedPrior(COLUMNS.index(name), steps)
    redshift, x = np.array([0.063]), fresh[:, COLUMNS.index(name)].astype(float)
    (lo,), (hi,) = old.range(redshift)
    inside = np.sort(x[(x > lo) & (x < hi)])
    assert len(inside) > 0.995 * len(x)
    weight = np.exp(-old.log_pdf(inside[None], redshift)[0])
    cumulative = weight.cumsum() / weight.sum()
    uniform = (inside - lo) / (hi - lo)
    assert np.abs(cumulative - uniform).max() < 0.015
    raw = np.abs((np.arange(len(inside)) + 0.5) / len(inside) - uniform).max()
    assert raw > 0.1  # it was not flat before


def test_flat_excludes_what_the_old_prior_does_not_cover(flow):
    values = torch.zeros(1, 3, len(COLUMNS))
    values[0, :, SFR] = torch.tensor([-20.0, 0.0, 20.0])
    ratio = new_prior(flow, "log_sfr_1gyr=flat").log_ratio(values, REDSHIFT)
    assert torch.isfinite(ratio).tolist() == [[False, True, False]]


def test_sources_are_what_decides_a_column(flow):
    """Draw all other parts of the prior anew: the column stays."""
    generator = torch.Generator().manual_seed(8)
    u, other = torch.rand(2, 1, 64, 11, generator=generator).unbind(0)
    model = flow.redshift_model
    redshift = torch.tensor([0.1])

    def derive(cube):
        theta = SPACE.from_unit(cube)
        return derived.derive(model.model, theta, model(theta, redshift))

    before = derive(u)
    for column, name in enumerate(p.name for p in derived.properties(SPACE, LABELS)):
        kept = derived.sources(SPACE, LABELS, name)
        own = [("beta" if c.startswith("stick") else c) in kept for c in COORDINATES]
        after = derive(torch.where(torch.tensor(own), u, other))
        torch.testing.assert_close(after[..., column], before[..., column], rtol=1e-4, atol=1e-4, msg=name)


# -- reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("tau_ism=norm(0.3,0.2)", 0.3 - 0.2 * 1.959964, 0.3 + 0.2 * 1.959964),
        (" n_dust = uniform( -1 , 1 ) ", -0.975, -0.025),  # scipy: from loc to loc + scale
        ("log_mstar=truncnorm(-1,1,loc=10,scale=0.5)", 9.534, 10.466),
        ("f_burst=halfnorm(scale=1e-1)", 0.1 * 0.03134, 0.1 * 2.2414),
        ("tau_ism=truncnorm(0,inf,0.5,0.1)", 0.5 + 0.1 * 0.03134, 0.5 + 0.1 * 2.2414),
    ],
)
def test_distributions_are_scipys(text, low, high):
    np.testing.assert_allclose(Density.parse(text).distribution.ppf([0.025, 0.975]), [low, high], atol=2e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tau_ism", "is no prior such as"),
        ("tau_ism=norm(0.3,0.2", "is no prior such as"),
        ("tau_ism=poisson(3)", "'poisson' is none of flat, leja2020, gallazzi2005, beta"),
        ("log_mstar=leja2020()", "leja2020 is a density of log_mstar_surviving, not of log_mstar"),
        ("log_mstar_surviving=leja2020(min=30)", "less than or equal to 12; defaults are leja2020(min=7)"),
        ("log_z_mw=gallazzi2005(1,0.02,1,0)", "low = 1 is not below high = 0"),
        ("log_z_mw=gallazzi2005(scatter=2)", "'scatter' is no argument"),
        ("redshift=norm(0.1,0.1)", "the same factor for all draws of a row and changes nothing"),
        ("tau_ism=__import__('os')", "'__import__' is none of"),
        ("tau_ism=norm(os.getcwd())", "is no number; the arguments are norm(loc, scale)"),
        ("tau_ism=norm(nan,1)", "'nan' is no number"),
        ("tau_ism=norm(1,2,3)", "too many numbers"),
        ("tau_ism=norm(loc=1,2)", "positional argument follows keyword argument"),
        ("tau_ism=norm(1,2)(3)", "is no prior such as"),
        ("tau_ism=stats.norm(1)", "is no prior such as"),
        ("tau_ism=norm(*[1,2])", "'*[1, 2]' is no number"),
        ("tau_ism=norm(**{'loc':1})", "'**' is no argument"),
        ("tau_ism=norm(True)", "'True' is no number"),
        ("tau_ism=norm(1j)", "'1j' is no number"),
        ("tau_ism=norm('1')", "is no number"),
        ("tau_ism=norm(9**9**9)", "'9 ** 9 ** 9' is no number"),
        ("tau_ism=norm(1" + "0" * 400 + ")", "is no number"),
        ("tau_ism=norm(" + "-(" * 5000 + "1" + ")" * 5000 + ")", "is no prior such as"),
        ("tau_ism=" + "norm(" * 300 + ")" * 300, "is no"),
        ("tau_ism=norm(1)\nimport os", "is no prior such as"),
        ("tau_ism=(x:=norm)", "is no prior such as"),
        ("1=norm(1)", "is no prior such as"),
        ("tau_ism=norm(\0)", "is no prior such as"),
        ("tau_ism=norm(1,loc=2)", "given twice"),
        ("tau_ism=norm(mean=2)", "'mean' is no argument"),
        ("tau_ism=norm(0,-1)", "not defined for these numbers"),
        ("tau_ism=beta(2)", "lacks b; the arguments are beta(a, b, loc, scale)"),
        ("tau_ism=flat(0,1)", "flat takes no arguments"),
    ],
)
def test_a_text_that_is_no_prior_is_refused(text, message):
    with pytest.raises(ValueError) as error:
        Density.parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mass=norm(10,1)"], "no column 'mass'; there are log_mstar"),
        (["tau_ism=flat", "tau_ism=norm(1,1)"], "has two new priors"),
        (["beta1=flat", "beta2=flat"], "depend on each other through beta"),
        (["log_sfr_1gyr=flat", "log_mstar=norm(10,1)"], "depend on each other through log_mstar"),
        (["log_z_mw=flat", "log_mstar_surviving=leja2020()"], "depend on each other through beta"),
    ],
)
def test_priors_that_make_no_product_are_refused(flow, texts, message):
    with pytest.raises(ValueError, match=message):
        new_prior(flow, *texts)


# -- catalogs -----------------------------------------------------------------------------------------------------------

OLD = TargetPrior(densities=("tau_ism=flat",))  # what it was


@pytest.fixture(scope="module")
def catalog(local):
    return local.store("catalog")


@pytest.fixture(scope="module")
def fine_catalog(local, source):
    """The first 60 rows with 4,096 draws: some have weights that serve, some have not."""
    Table.read(source)[:60].write(path := source.parent / "sixty.fits")
    photometry, out = local.location / "sixty_photometry", local.location / "sixty"
    ingest(path, local.survey_definition, photometry, 60)
    settings = Inference(n_draws=4096, min_effective_fraction=LEAST, routing=local.inference.routing)
    infer(photometry, local.store("model"), out, settings, local.seed, local.engines.dask)
    return out


def test_a_catalog_under_its_own_prior_is_what_inference_says(fine_catalog, tmp_path):
    """Quantiles are those of `Posterior.summarise`, to float32 rounding; poor rows say so and are NaN.

    The fraction is that of the weights that are used, the smoothed ones, which may be worth less than the plain ones.
    """
    data = open_catalog(fine_catalog)
    rows = np.flatnonzero(data["method"].values[:60] > 0)
    done, failed = reweight_catalog(fine_catalog, tmp_path / "o.parquet", OLD, rows.tolist(), 4096, "main")
    table = tables.Table(tmp_path / "o.parquet")
    np.testing.assert_array_equal(table.column("row"), rows)
    posterior = Posterior(engine(data).posterior.flow, data.attrs["run"]["seed"], 4096, LEAST)
    expected = posterior.summarise(observed(data.isel(galaxy=slice(60))), data["flags"].values[:60], 0)
    reason = table.column("reason")
    answered = reason == ""
    assert (done, failed) == (len(rows), int((~answered).sum()))
    good = expected.method[rows] == Method.WEIGHTED
    np.testing.assert_array_equal(table.column("weighted"), good)
    assert answered[~good].all(), reason  # a row without weights is summarised without, as in the catalog
    assert 3 <= good.sum() < len(rows)
    weight = posterior.draw(observed(data.isel(galaxy=rows)), rows, 4096).weight
    fraction = np.where(good, 1 / (4096 * (weight**2).sum(1)), 1.0)
    np.testing.assert_array_equal(answered, fraction >= LEAST)
    assert answered[good].sum() >= 3
    np.testing.assert_allclose(table.column("effective_fraction"), fraction, rtol=2e-3)
    for name in ("effective_draws", "interim_effective_draws"):  # a prior that is the old one costs nothing
        np.testing.assert_allclose(table.column(name), 4096 * fraction, rtol=2e-3)
    for i, name in enumerate(COLUMNS):
        for j, quantile in enumerate(QUANTILE_NAMES):
            found = table.column(f"{name}_{quantile}")
            wanted = np.where(answered, expected.quantiles[rows, i, j], np.nan)
            np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3, err_msg=name)


def test_a_catalog_made_under_a_target_prior_is_the_one_reweighted_to_it(local, fine_catalog, tmp_path):
    """Its weighted rows have the medians of a table of `reweight`; its columns say what the prior took."""
    target = TargetPrior(densities=("tau_ism=norm(0.6,0.5)", "n_dust=norm(0,1)"))
    settings = Inference(n_draws=4096, min_effective_fraction=LEAST, routing=local.inference.routing, prior=target)
    out = local.location / "sixty_target"
    infer(local.location / "sixty_photometry", local.store("model"), out, settings, local.seed, local.engines.dask)
    made, interim = open_catalog(out), open_catalog(fine_catalog)
    methods = made["method"].values
    rows = np.flatnonzero((methods == Method.WEIGHTED) & (interim["method"].values == Method.WEIGHTED))
    assert len(rows) >= 3
    for number, catalog in enumerate((out, fine_catalog)):  # one has a target prior already, which is replaced
        reweight_catalog(catalog, tmp_path / f"{number}.parquet", target, rows.tolist(), 4096, "main")
        table = tables.Table(tmp_path / f"{number}.parquet")
        for name in ("tau_ism", "log_mstar", "log_z_mw"):
            wanted = made["quantiles"].values[rows, COLUMNS.index(name), 2]
            scale = made["std"].values[rows, COLUMNS.index(name)]
            off = (table.column(f"{name}_p50") - wanted) / scale
            assert np.nanmax(np.abs(off)) < 0.3, name  # weights are smoothed before, or after, the factor
    draws = interim["effective_draws"].values[rows]
    np.testing.assert_allclose(made["interim_effective_draws"].values[rows], draws, rtol=1e-3)
    assert np.isnan(interim["interim_effective_draws"].values).all()
    plain = made["effective_draws"].values[methods == Method.FLOW]
    assert (plain < 4096).all() and (plain >= reweight.LEAST_EFFECTIVE_DRAWS).all()


def test_too_few_draws_are_refused(catalog, tmp_path):
    with pytest.raises(ValueError, match="30 draws a row are too few"):
        reweight_catalog(catalog, tmp_path / "o.csv", OLD, [0], 30, "main")


def test_replayed_draws_have_the_columns_of_the_engine(catalog):
    data = open_catalog(catalog)
    row = int(np.flatnonzero(data["method"].values > 0)[0])
    assert replay(data, [row], 100)[1] == engine(data).posterior.columns == COLUMNS
