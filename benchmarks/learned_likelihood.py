"""What the learned likelihood finds in planted misfits, beside chi^2 and beside the best that can be found at all.

Mock galaxies of a model, clean or gone wrong (Student's t, 20 % more light in one band, the Small Magellanic Cloud's dust), all
bands measured. The best of all tests is the ratio of evidences with the planted misfit's own likelihood (Neyman & Pearson); it is
computed exactly here: in each band in turn without those 20 %, behind the other dust, with Student's t at every draw.
Arguments: a model, a folder for arrays, numbers of clean and of misfit galaxies of each kind.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from jobs.config import shipped
from jobs.on_worker import read_likelihood
from sedflow_dist import keyed_random
from sedflow_dist.flow.learned_likelihood import LearnedLikelihood
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import goodness_of_fit, importance
from sedflow_dist.inference.comparison import Comparison
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.imperfections import ImperfectGalaxies, Imperfections, Kind, other_dust
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import model as model_store

SEED, DRAWS, BLOCK = 2, 512, 16
STRENGTH, FREEDOM = 0.2, 3
_STRENGTHS = 36  # of lines, between the weakest and the strongest that were learnt
PLANTED = Imperfections(degrees_of_freedom=FREEDOM, line=(STRENGTH, STRENGTH + 1e-6), dust="smc")
FALSE_ALARMS = 0.01


def compare(comparison: Comparison, photometry: Photometry, row: np.ndarray) -> dict[str, np.ndarray]:
    """Return, of one galaxy, evidences under the learned likelihood and under known ones over the Gaussian one.

    Known are Student's t, the planted line, and what was learnt but for the dust.
    """
    model, log_weight = comparison.draw(photometry, row)
    residual = (photometry.flux.unsqueeze(1) - model) * photometry.inverse_sigma.unsqueeze(1)
    t = torch.as_tensor(stats.t.logpdf(residual.numpy(), FREEDOM) - stats.norm.logpdf(residual.numpy())).sum(-1)
    signal = model * photometry.inverse_sigma.unsqueeze(1)
    low, high = comparison.learned.spec.imperfections.line
    strengths = low + (high - low) * (torch.arange(_STRENGTHS) + 0.5) / _STRENGTHS
    ratios = {
        "log_bayes_factor": comparison.learned.log_ratio(model, photometry), "tails": t,
        "line_at_draws": one_line(residual, signal, torch.tensor([STRENGTH])),
        "known": torch.logaddexp(t, one_line(residual, signal, strengths)) - math.log(2),
    }  # fmt: skip
    found = {name: importance.log_bayes_factor(log_weight, ratio) for name, ratio in ratios.items()}
    plain = importance.certify(log_weight)
    said = {name: value for name, (value, _) in found.items()} | {
        "log_bayes_factor_error": found["log_bayes_factor"][1], "log_evidence_again": plain.log_evidence,
        "effective_again": plain.effective_fraction,
    }  # fmt: skip
    return {name: value.numpy() for name, value in said.items()}


def one_line(residual: Tensor, signal: Tensor, strengths: Tensor) -> Tensor:
    """Return ln of the likelihood with a line in any one band, of any of these strengths, over the Gaussian one."""
    line = signal.unsqueeze(-1) * strengths
    ratio = line * residual.unsqueeze(-1) - 0.5 * line**2
    return torch.logsumexp(ratio.flatten(-2), -1) - math.log(ratio[0, 0].numel())


def planted(flow: TrainedModel, name: str, n: int, wrong: Imperfections = PLANTED) -> Photometry:
    """Return ``n`` mock galaxies that no training saw: clean, with a misfit of a kind by its name, or of any kind."""
    galaxies, model = flow.redshift_model.model, flow.spec.redshift
    other = other_dust(galaxies, PLANTED.dust)
    drawn = ImperfectGalaxies.draw(galaxies, other, model, SEED, f"planted {name}", 20 * n)
    survey = flow.survey()
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(SEED, "planted", name))
    mocks = survey.observe(drawn.shapes, n, generator)
    if name == "clean":
        return mocks.photometry
    any_kind = torch.randint(len(Kind), (n,), generator=generator)
    kind = any_kind if name == "any" else torch.full((n,), int(Kind[name.upper()]))
    truth, residual = drawn.truth(mocks), drawn.residuals(mocks, kind, wrong, generator)
    return dataclasses.replace(truth, flux=truth.flux + truth.sigma * residual)


def behind_other_dust(flow: TrainedModel) -> TrainedModel:
    """Return the same flow before galaxies behind the other dust, with all its parameters, of which one does nothing."""
    found = TrainedModel(
        flow.spec, flow.network, flow.features, flow.noise, flow.colour_range, flow.novelty, flow.ssp_table
    )
    model = flow.redshift_model.model
    dust = Composition.of(["stars", PLANTED.dust]).screens
    kept = tuple(screen for screen in model.composition.screens if screen.covers != "all stars")
    composition = dataclasses.replace(model.composition, screens=kept + dust)
    found.__dict__["redshift_model"] = RedshiftModel(
        GalaxyModel(model.ssp, model.bands, model.z_max, composition, flow.spec.birth_cloud_age)
    )
    return found


def without_light(data: Photometry, band: int) -> tuple[Photometry, float]:
    """Return data as if one band had the line's light and lost it, and ln of what that does to the density of the data."""
    factor = torch.ones(data.flux.shape[1])
    factor[band] = 1 + STRENGTH
    return dataclasses.replace(data, flux=data.flux / factor, sigma=data.sigma / factor), -math.log(1 + STRENGTH)


def look(
    flow: TrainedModel, likelihood: LearnedLikelihood, data: Photometry, line: bool, dust: bool
) -> dict[str, np.ndarray]:
    """Return, by name and galaxy, what is said of each; evidences of the line and of the dust where they are asked for."""
    plain, dusty = Posterior(flow, SEED, DRAWS), Posterior(behind_other_dust(flow), SEED, DRAWS)
    comparison = Comparison(plain, likelihood)
    plain.values = dusty.values = lambda theta, light: theta  # type: ignore[method-assign]
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(data), BLOCK):
        part = data[slice(start, start + BLOCK)]
        rows = np.arange(start, start + len(part))
        draws = plain.draw(part, rows, DRAWS)
        weight = torch.where(plain.serves(draws).unsqueeze(-1), draws.weight, 1 / DRAWS)
        each = [compare(comparison, part[i], rows[i : i + 1]) for i in range(len(part))]
        said = goodness_of_fit.columns(draws.chi2, draws.n_bands, weight)
        said |= {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        said |= {name: getattr(draws, name).numpy() for name in ("log_evidence", "effective_fraction")}
        if line:
            each = [without_light(part, band) for band in range(part.flux.shape[1])]
            evidence = [plain.draw(d, rows, DRAWS).log_evidence.numpy() + jacobian for d, jacobian in each]
            said["line"] = np.logaddexp.reduce(evidence) - math.log(len(evidence)) - said["log_evidence"]
        if dust:
            behind = dusty.draw(part, rows, DRAWS)
            said["dust"] = behind.log_evidence.numpy() - said["log_evidence"]
            said["dust_effective"] = behind.effective_fraction.numpy()
        for name, values in said.items():
            found.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def calibration(clean: np.ndarray, wrong: np.ndarray) -> None:
    """Print what holds of evidences' ratios B if they are right: of clean galaxies, the mean of B where it is below c is the
    share of imperfect ones (of the kinds that were learnt) whose B is below c."""
    for c in (1, 3, 10, 100):
        below, share = np.where(clean < c, clean, 0.0), wrong < c
        errors = [x.std() / len(x) ** 0.5 for x in (below, share)]
        print(f"B < {c}: mean of B, clean {below.mean():.3f} +- {errors[0]:.3f}; "
              f"share of imperfect ones {share.mean():.3f} +- {errors[1]:.3f}")  # fmt: skip


def table(clean: dict[str, np.ndarray], wrong: dict[str, dict[str, np.ndarray]]) -> None:
    """Print, for each misfit, what share chi^2, the learned likelihood and the best test find at 1 % false alarms."""

    def above(name: str, data: dict[str, np.ndarray], threshold: float) -> np.ndarray:
        return (1 - data["p_value"] if name == "p_value" else data[name]) > threshold

    def threshold(name: str, among: np.ndarray | None = None) -> float:
        values = 1 - clean["p_value"] if name == "p_value" else clean[name]
        allowed = FALSE_ALARMS * len(values)  # of all clean galaxies, also where only some of them are looked at
        left = values if among is None else values[among]
        return float(np.quantile(left, 1 - allowed / len(left)))

    chi2 = threshold("p_value")
    unseen = ~above("p_value", clean, chi2)
    for kind, data in wrong.items():
        missed = ~above("p_value", data, chi2)
        print(f"{kind}: chi2 finds {1 - missed.mean():.3f} and misses {missed.sum()} of {len(missed)}", flush=True)
        for name in ("log_bayes_factor", "known", *(n for n in (kind, f"{kind}_at_draws") if n in clean)):
            found, most = above(name, data, threshold(name)), above(name, data, threshold(name, unseen))[missed].mean()
            print(f"  {name:<16} finds {found.mean():.3f}, of those missed {found[missed].mean():.3f}; "
                  f"{most:.3f} if all its false alarms are spent on them", flush=True)  # fmt: skip


def main() -> None:
    where, folder, n_clean, n_wrong = shipped.model(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    flow, likelihood = TrainedModel.from_bytes(*model_store.read(where)), read_likelihood(where)
    found = {}
    for name, n in (("clean", n_clean), ("any", n_clean // 2), *((kind.name.lower(), n_wrong) for kind in Kind)):
        data = planted(flow, name, n, likelihood.spec.imperfections if name == "any" else PLANTED)
        found[name] = look(flow, likelihood, data, line=name in ("clean", "line"), dust=name in ("clean", "dust"))
        np.savez(folder / f"{name}.npz", **found[name])
        value, error = found[name]["log_bayes_factor"], found[name]["log_bayes_factor_error"]
        print(f"{name}: {n} galaxies; log_bayes_factor 1, 16, 50, 84, 99 %: "
              f"{np.quantile(value, [0.01, 0.16, 0.5, 0.84, 0.99]).round(3)}, its error {np.median(error):.4f}; "
              f"effective fraction {np.median(found[name]['effective_fraction']):.2f}", flush=True)  # fmt: skip
    share = likelihood.spec.share
    calibration(*(np.expm1(found[name]["log_bayes_factor"]) / share + 1 for name in ("clean", "any")))
    table(found.pop("clean"), {name: found[name] for name in found if name != "any"})


if __name__ == "__main__":
    main()
