"""Averages over models: probabilities and mixtures in closed form, and mocks of two SSP tables that tell which is theirs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from provabgs import SPACE

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import model_average
from sedflow_dist.inference.model_average import Evidences
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.sps.galaxy_model import GalaxyModel


def evidences(log_evidence, error=0.0, answered=True, k=0.3):
    log_evidence = np.asarray(log_evidence, float)
    answered = np.broadcast_to(np.asarray(answered, bool), log_evidence.shape)
    return Evidences(answered, *(np.broadcast_to(x, log_evidence.shape) for x in (log_evidence, error, k)))


def test_probabilities_are_odds_times_evidence():
    found = model_average.probabilities(evidences([[-1000.0, -1001.0, -1003.0]]), np.array([0.2, 0.6, 0.2]))
    joint = np.array([0.2, 0.6 * np.exp(-1), 0.2 * np.exp(-3)])
    np.testing.assert_allclose(found.probability[0], joint / joint.sum(), rtol=1e-12)
    assert found.log_evidence[0] == pytest.approx(-1000 + np.log(joint.sum()), abs=1e-9)


def test_errors_of_probabilities_are_those_of_evidences():
    """To first order: the standard deviation over evidences drawn with their errors, to 3 %."""
    error, centre, odds = np.array([0.05, 0.1, 0.02]), np.array([0.0, -0.5, -1.0]), np.full(3, 1 / 3)
    found = model_average.probabilities(evidences(centre[None], error), odds)
    drawn = centre + error * np.random.default_rng(1).standard_normal((40_000, 3))
    many = model_average.probabilities(evidences(drawn), odds)
    np.testing.assert_allclose(found.error[0], many.probability.std(0), rtol=0.03)
    assert found.log_evidence_error[0] == pytest.approx(many.log_evidence.std(), rel=0.03)


def test_a_model_that_lacks_an_evidence_leaves_its_share_to_the_others():
    rows = evidences(
        [[-3.0, -4.0, np.nan], [-3.0, -4.0, -5.0], [np.nan, -np.inf, -5.0]], answered=[[1, 1, 1], [1, 1, 0], [0, 1, 0]]
    )
    found = model_average.probabilities(rows, np.array([0.25, 0.25, 0.5]))
    expected = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found.probability, [[expected, 1 - expected, 0]] * 2 + [[0, 0, 0]])
    np.testing.assert_allclose(found.log_evidence[:2], np.log((np.exp(-3) + np.exp(-4)) / 2))
    assert np.isnan(found.log_evidence[2])
    assert not evidences([[0.0]], error=0.6).trusted.any() and not evidences([[0.0]], k=np.nan).trusted.any()


def test_moments_and_quantiles_are_those_of_pooled_draws():
    """Weighted draws of two models against 400,000 draws taken from either by its probability: to 1 % of the width."""
    rng = np.random.default_rng(3)
    p = np.array([0.3, 0.7])
    values = [rng.normal(0, 1, (4000, 2)), rng.normal([3, 1], [0.5, 2], (9000, 2))]
    weights = [rng.random(4000), rng.random(9000)]
    pooled = np.concatenate(
        [
            x[rng.choice(len(x), round(400_000 * share), p=w / w.sum())]
            for share, x, w in zip(p, values, weights, strict=True)
        ]
    )
    draws = [(torch.as_tensor(x), torch.as_tensor(w)) for x, w in zip(values, weights, strict=True)]
    wanted = (0.025, 0.16, 0.5, 0.84, 0.975)
    found = model_average.quantiles(p, draws, wanted)
    np.testing.assert_allclose(found.T, np.quantile(pooled, wanted, axis=0), atol=0.02)
    mean = np.stack([np.average(x, axis=0, weights=w) for x, w in zip(values, weights, strict=True)])
    var = [np.average((x - m) ** 2, axis=0, weights=w) for x, m, w in zip(values, mean, weights, strict=True)]
    centre, std, between = model_average.moments(p[None], mean[None], np.sqrt(var)[None])
    np.testing.assert_allclose(centre[0], pooled.mean(0), atol=0.01)
    np.testing.assert_allclose(std[0], pooled.std(0), atol=0.01)
    assert between[0, 0] > 0.5 > between[0, 1]
    alone = model_average.moments(np.array([[0.0, 1.0]]), np.array([[[np.nan], [2.0]]]), np.array([[[np.nan], [1.0]]]))
    np.testing.assert_array_equal(np.ravel(alone), [2, 1, 0])


# -- two SSP tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(flow, ssp):
    """The flow with its own table and with one whose stars are redder: exact weights make either an exact posterior."""
    redder = ssp.wavelength / 5500
    other = replace(ssp, spectra=(ssp.spectra * redder**0.6).astype(np.float32), provenance={"library": "redder"})
    parts = flow.features, flow.noise, flow.colour_range, flow.novelty
    spec = flow.spec.model_copy(update={"ssp": other.provenance})
    return {"own": flow, "redder": TrainedModel(spec, flow.network, *parts, other)}, {"own": ssp, "redder": other}


def test_the_right_table_wins_as_often_as_its_probability_says(tables, shapes, noise, sdss_bands):
    """Mocks of both tables, half and half, under the same priors: probabilities are calibrated, and better than chance.

    So many draws that errors of the evidences, a tenth and more at 1,024 of this small flow, do not decide.
    """
    models, libraries = tables
    n, p, truth = 40, [], []
    for number, name in enumerate(models):
        u = torch.special.ndtr(shapes.phi[: 3 * n])
        theta = SPACE.from_unit(SPACE.join_any(u))
        SPACE.values(theta)[SPACE.amplitude.name].zero_()
        light = GalaxyModel(libraries[name], sdss_bands, 0.2).fluxes(theta, shapes.redshift[: 3 * n])
        survey = MockSurvey(noise, SPACE.amplitude.prior.range, drop_out=0.0)
        own = Shapes(shapes.phi[: 3 * n], light, shapes.redshift[: 3 * n])
        mocks = survey.observe(own, n, torch.Generator().manual_seed(number)).photometry
        draws = [Posterior(m, seed=1).draw(mocks, np.arange(n), 8192) for m in models.values()]
        rows = Evidences(
            np.ones((n, 2), bool), *(np.stack([getattr(d, x).numpy() for d in draws], 1) for x in
                                     ("log_evidence", "log_evidence_error", "pareto_k"))
        )  # fmt: skip
        p.append(model_average.probabilities(rows, np.array([0.5, 0.5])).probability)
        truth += [number] * n
    p, truth = np.concatenate(p), np.array(truth)
    right = p[np.arange(len(p)), truth]
    assert right.mean() > 0.6
    first = p[:, 0]
    for chosen in (first > 0.5, first <= 0.5):  # of these galaxies, as many are the first table's as was said
        expected, spread = first[chosen].sum(), np.sqrt((first * (1 - first))[chosen].sum())
        assert abs((truth[chosen] == 0).sum() - expected) < 4 * spread + 2
