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
from sedflow_dist.inference import importance
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.imperfections import ImperfectGalaxies, Imperfections, Kind, other_dust
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import model as model_store

SEED, DRAWS, BLOCK = 2, 512, 16
STRENGTH, FREEDOM = 0.2, 3
PLANTED = Imperfections(degrees_of_freedom=FREEDOM, line=(STRENGTH, STRENGTH + 1e-6), dust="smc")
FALSE_ALARMS = 0.01


class Bare(Posterior):
    """Draws without derived properties, compared by Student's t as well."""

    def values(self, theta: Tensor, light: object) -> Tensor:
        """Return parameters alone."""
        return theta

    def compare(self, model: Tensor, photometry: Photometry, log_weight: Tensor) -> dict[str, Tensor]:
        """Compare with Student's t at every draw, too: ``tails``."""
        residual = (photometry.flux.unsqueeze(1) - model) * photometry.inverse_sigma.unsqueeze(1)
        t = torch.as_tensor(stats.t.logpdf(residual.numpy(), FREEDOM) - stats.norm.logpdf(residual.numpy())).sum(-1)
        found = super().compare(model, photometry, log_weight)
        return {**found, "tails": importance.log_bayes_factor(log_weight, t)[0]}


def planted(flow: TrainedModel, kind: Kind | None, n: int) -> Photometry:
    """Return ``n`` mock galaxies that no training saw, with a misfit of a kind, or clean."""
    galaxies, model = flow.redshift_model.model, flow.spec.redshift
    other = other_dust(galaxies, PLANTED.dust)
    drawn = ImperfectGalaxies.draw(galaxies, other, model, SEED, f"planted {kind}", 20 * n)
    survey = MockSurvey(flow.noise, flow.space.amplitude.prior.range, 0.0)
    generator = torch.Generator().manual_seed(keyed_random.torch_seed(SEED, "planted", str(kind)))
    mocks = survey.observe(drawn.shapes, n, generator)
    if kind is None:
        return mocks.photometry
    truth = drawn.truth(mocks)
    residual = drawn.residuals(mocks, torch.full((n,), int(kind)), PLANTED, generator)
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
    own = Bare(flow, SEED, DRAWS, likelihood=likelihood)
    plain, dusty = Posterior(flow, SEED, DRAWS), Posterior(behind_other_dust(flow), SEED, DRAWS)
    plain.values = dusty.values = lambda theta, light: theta  # type: ignore[method-assign]
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(data), BLOCK):
        part = data[slice(start, start + BLOCK)]
        rows = np.arange(start, start + len(part))
        draws = own.draw(part, rows, DRAWS)
        weight = torch.where(own.serves(draws).unsqueeze(-1), draws.weight, 1 / DRAWS)
        said = {**own.judge(draws.chi2, draws.n_bands, weight), **{k: v.numpy() for k, v in draws.compared.items()}}
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
    for kind, best in (("tails", "tails"), ("line", "line"), ("dust", "dust")):
        data = wrong[kind]
        missed = ~above("p_value", data, chi2)
        shares = [above(n, data, threshold(n)).mean() for n in ("p_value", "log_bayes_factor", best)]
        of_missed = [above(n, data, threshold(n))[missed].mean() for n in ("log_bayes_factor", best)]
        most = above(best, data, threshold(best, unseen))[missed].mean()
        print(
            f"{kind:<6} found by chi2 {shares[0]:.3f}, learned {shares[1]:.3f}, best {shares[2]:.3f}; of the {missed.sum()} "
            f"that chi2 misses: learned {of_missed[0]:.3f}, best {of_missed[1]:.3f}, best among those {most:.3f}",
            flush=True,
        )


def main() -> None:
    where, folder, n_clean, n_wrong = shipped.model(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    flow, likelihood = TrainedModel.from_bytes(*model_store.read(where)), read_likelihood(where)
    found = {}
    for name, kind, n in (("clean", None, n_clean), *((k.name.lower(), k, n_wrong) for k in Kind)):
        data = planted(flow, kind, n)
        found[name] = look(flow, likelihood, data, line=name in ("clean", "line"), dust=name in ("clean", "dust"))
        np.savez(folder / f"{name}.npz", **found[name])
        value, error = found[name]["log_bayes_factor"], found[name]["log_bayes_factor_error"]
        print(f"{name}: {n} galaxies; log_bayes_factor 1, 16, 50, 84, 99 %: "
              f"{np.quantile(value, [0.01, 0.16, 0.5, 0.84, 0.99]).round(3)}, its error {np.median(error):.4f}; "
              f"effective fraction {np.median(found[name]['effective_fraction']):.2f}", flush=True)  # fmt: skip
    ratio = np.exp(found["clean"]["log_bayes_factor"])
    print(
        f"clean: mean of the ratio of evidences {ratio.mean():.4f} +- {ratio.std() / len(ratio) ** 0.5:.4f}, 1 expected"
    )
    table(found.pop("clean"), found)


if __name__ == "__main__":
    main()
