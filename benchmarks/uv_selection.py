"""NUV of SDSS galaxies predicted from ugriz, and what of the disagreement is that GALEX's catalog has detections alone.

Arguments: the run file uv-ir, whose photometry is ingested (examples/uv_ir_table.py makes its table), and draws. The posterior is
that of the model `sdss`, which comes along; its galaxies are then seen through GALEX's bands: stars and dust screens alone, at
z < 0.2. Offsets and coverage by quintile of u - r: as measured, as a right model's would be of a sample of detections, and with
predictions that know of the limit. The limit is the least signal-to-noise ratio of the catalog but for its 2 %.
"""

from __future__ import annotations

import sys
from dataclasses import fields, replace

import numpy as np
import torch

from jobs.config.run_file import RunFile
from jobs.observed import observed
from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.magnitudes import POGSON
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import bc03_miles
from sedflow_dist.validation.predictions import Predictions, agreement, predict, quantile
from storage_schemas import photometry

SHOWN, ASKED, SEED = tuple("ugriz"), "nuv", 1
LEAST_SIGNAL = 2.5  # standard deviations of GALEX's own error
QUINTILES = (1.92, 2.33, 2.58, 2.77)  # of u - r


class SeenElsewhere(Posterior):
    """The posterior of a model's own bands, the first of the photometry; its galaxies have all bands of the photometry."""

    def __init__(self, flow: TrainedModel, bands: tuple[str, ...], seed: int, n_draws: int) -> None:
        model = GalaxyModel(bc03_miles(), bands, flow.reach, flow.composition, flow.spec.birth_cloud_age)
        self._own = torch.arange(len(bands)) < len(flow.spec.bands)
        flow.__dict__["redshift_model"] = RedshiftModel(model)
        super().__init__(flow, seed, n_draws)

    def _propose(self, photometry, rows, n_draws):  # type: ignore[no-untyped-def]
        return super()._propose(photometry.bands(self._own), rows, n_draws)


def galaxies(run: RunFile) -> tuple[Photometry, np.ndarray]:
    """Return those that SDSS measured and GALEX detected, ugriz first and NUV last, and their limits in NUV [nanomaggies]."""
    store, survey = photometry.open(run.store("photometry")), run.survey_definition
    seen = observed(store.read_rows(slice(0, store.n_rows), photometry.DATA))
    at = [survey.labels.index(label) for label in (*SHOWN, ASKED)]
    seen = replace(seen, flux=seen.flux[:, at], sigma=seen.sigma[:, at], mask=seen.mask[:, at])
    seen = seen[seen.mask.all(1) & (seen.flux > 0).all(1) & (seen.redshift > 0.003) & (seen.redshift < 0.2)]
    flux, sigma = seen.flux[:, -1].double().numpy(), seen.sigma[:, -1].double().numpy()
    floor, model = (
        np.broadcast_to(np.asarray(x), len(survey.labels))[at[-1]] for x in (survey.floor, survey.model_error)
    )
    own = np.sqrt(sigma**2 - ((floor / POGSON) ** 2 + model**2) * flux**2)
    return seen, LEAST_SIGNAL * own


def main() -> None:
    torch.set_num_threads(1)
    run, flow = RunFile.load(sys.argv[1]), load_model("sdss")
    seen, limit = galaxies(run)
    band = len(SHOWN)
    posterior = SeenElsewhere(flow, (*flow.spec.bands, "galex-nuv"), SEED, int(sys.argv[2]))
    found = predict(posterior, seen.with_bands(torch.arange(band + 1) < band), np.arange(len(seen)))
    right = quantile(found, seen, band, np.random.default_rng(SEED).random(len(seen)), limit)
    flux = seen.flux.clone()
    flux[:, band] = torch.as_tensor(right).float()
    if_right = replace(seen, flux=flux)
    colour = np.digitize(-2.5 * torch.log10(seen.flux[:, 0] / seen.flux[:, 2]).numpy(), QUINTILES)
    above = seen.flux[:, band].numpy() > limit
    print("u - r  galaxies | offset [mag], within 68, 95 % | of a right model's detections | given the limit")
    for number in (*range(5), None):
        rows = np.flatnonzero(above & ((colour == number) if number is not None else True))
        some = Predictions(*(getattr(found, field.name)[rows] for field in fields(found)))
        said = (
            agreement(some, seen[rows], band), agreement(some, if_right[rows], band),
            agreement(some, seen[rows], band, limit[rows]),
        )  # fmt: skip
        print("all" if number is None else number + 1, len(rows), *(
            f"| {one.offset:+.2f} {100 * one.within_68:.0f} {100 * one.within_95:.0f}" for one in said
        ), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
