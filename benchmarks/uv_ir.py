"""The model uv-ir against what it was not shown: GALEX's and 2MASS's fluxes of real galaxies, predicted from ugriz alone.

Arguments: the run file, the model, and, to compare with, a model of the same bands without gas and dust's emission; the photometry
is the run's (examples/uv_ir_table.py makes the table that it is ingested from). Galaxies that GALEX's NUV, SDSS and 2MASS
measured, inside the model's redshifts.

Apertures of the three surveys differ, and 2MASS has what it detected only: an offset is that, or the model's.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import report

from jobs.config.run_file import RunFile
from jobs.observed import observed
from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.validation.predictions import Predictions, agreement, predict
from storage_schemas import photometry

N_DRAWS, SEED = 2048, 1
SHOWN = tuple("ugriz")
ASKED = ("fuv", "nuv", "j", "h", "ks")


def galaxies(run: RunFile) -> Photometry:
    """Return those that all three surveys measured."""
    store, labels = photometry.open(run.store("photometry")), run.survey_definition.labels
    seen = observed(store.read_rows(slice(0, store.n_rows), photometry.DATA))
    needed = torch.tensor([label in (*SHOWN, "nuv", "j", "h", "ks") for label in labels])
    whole = seen.mask[:, needed].all(1) & (seen.flux[:, needed] > 0).all(1)
    low, high = run.model.redshift
    return seen[whole & (seen.redshift > low) & (seen.redshift < high)]


def inferred(model: TrainedModel, seen: Photometry) -> Predictions:
    """Infer galaxies, rows of a catalog of themselves."""
    return predict(Posterior(model, SEED, N_DRAWS), seen, np.arange(len(seen)))


def table(model: TrainedModel, seen: Photometry) -> None:
    """Print how fluxes predicted from ugriz agree with the measured ones."""
    labels = model.spec.labels
    found = inferred(model, seen.with_bands(torch.tensor([label in SHOWN for label in labels])))
    report("galaxies, of these with weights that serve", f"{len(seen):,}, {found.served.sum():,}")
    print("band   galaxies  within 68 %  within 95 %  measured - predicted  scatter  measured error [mag]")
    for label in ASKED:
        of = agreement(found, seen, labels.index(label))
        print(f"{label:<6} {of.galaxies:>8,} {100 * of.within_68:>10.1f} % {100 * of.within_95:>10.1f} % "
              f"{of.offset:>+20.3f} {of.scatter:>9.3f} {of.error:>8.3f}")  # fmt: skip


def fits(name: str, model: TrainedModel, seen: Photometry) -> None:
    """Print effective fractions and chi^2 of the best draws where all measured bands are shown."""
    found = inferred(model, seen)
    middle, low, high = np.quantile(found.effective_fraction, (0.5, 0.16, 0.84))
    serves = (N_DRAWS * found.effective_fraction >= 100) & (found.pareto_k < 0.7)
    report(f"{name}: effective fraction, 16 to 84 %", f"{middle:.3f}, {low:.3f} to {high:.3f}")
    report(f"{name}: 100 effective draws, k < 0.7", f"{100 * serves.mean():.1f} %")
    report(f"{name}: chi^2 (median of bands: {int(seen.n_bands.median())})", f"{np.median(found.chi2):.2f}")
    report(f"{name}: ln evidence", f"{np.median(found.log_evidence):.2f}")


def main() -> None:
    run, model = RunFile.load(sys.argv[1]), load_model(sys.argv[2])
    seen = galaxies(run)
    table(model, seen)
    fits("all components", model, seen)
    if len(sys.argv) > 3:
        fits("stars and dust alone", load_model(sys.argv[3]), seen)


if __name__ == "__main__":
    main()
