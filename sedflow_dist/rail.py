"""Stages for RAIL pipelines (github.com/LSSTDESC/rail): a trained model in, p(z) of a table's galaxies out as a qp ensemble.

`SedflowInformer` takes a model that comes with the package, or that a run made; `SedflowEstimator` infers each galaxy's redshift
with its mass, history and dust, and hands p(z) to RAIL. Columns, codes of what was not detected and limits are RAIL's own settings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qp
from ceci.config import StageParameter
from jaxtyping import Shaped
from rail.core.common_params import SharedParams
from rail.core.enums import DistributionType
from rail.estimation.estimator import CatEstimator
from rail.estimation.informer import CatInformer

from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference import redshift_density
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.settings import MASS_FUNCTION, InferenceSettings, Routing, TargetPrior
from sedflow_dist.inference.summary import QUANTILE_NAMES, Summary
from sedflow_dist.photometry.calibrate import Calibrated, calibrate
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.photometry.surveys import SURVEYS

#: Of the other parameters, what stands beside p(z): medians, and the quantiles that a Gaussian has at one standard deviation.
_BESIDE = ("log_mstar_surviving", "log_sfr_1gyr", "tau_ism")
_QUANTILES = {name: QUANTILE_NAMES.index(name) for name in ("p16", "p50", "p84")}


class SedflowInformer(CatInformer):
    """Hand a trained model to RAIL. Nothing is learnt of the input: it is there because RAIL's pipelines have it so."""

    name = "SedflowInformer"
    entrypoint_function = "inform"
    interactive_function = "sedflow_informer"
    config_options = CatInformer.config_options.copy()
    config_options.update(
        trained_model=StageParameter(str, "rubin", msg="a model by name, or the place of one that a run trained"),
    )

    def run(self) -> None:
        """Read the model.

        Raises:
            ValueError: it has no redshift head.
        """
        model = load_model(self.config.trained_model)
        if model.head is None:
            raise ValueError(
                f"trained_model: {self.config.trained_model} has no redshift head, and infers no redshifts"
            )
        weights, specification = model.to_bytes()
        self.add_data("model", {"weights": weights, "specification": specification})


class SedflowEstimator(CatEstimator):
    """Infer redshifts: p(z) on RAIL's grid, and beside it what is inferred with it and how good the answer is.

    A galaxy with fewer than three bands measured has the prior's p(z), flat, and `effective_fraction` NaN.
    """

    name = "SedflowEstimator"
    entrypoint_function = "estimate"
    interactive_function = "sedflow_estimator"
    config_options = CatEstimator.config_options.copy()
    config_options.update(
        bands=SharedParams.copy_param("bands"),
        err_bands=SharedParams.copy_param("err_bands"),
        mag_limits=SharedParams.copy_param("mag_limits"),
        nondetect_val=SharedParams.copy_param("nondetect_val"),
        nonobserved_val=SharedParams.copy_param("nonobserved_val"),
        seed=StageParameter(int, 1, msg="fixes every draw, with the row of a galaxy"),
        n_draws=StageParameter(int, 512, msg="draws a galaxy; up to eight times as many where they do not serve"),
        mass_function=StageParameter(
            str, MASS_FUNCTION, msg="prior of redshift and mass: a mass function, times the volume; '': flat"
        ),
    )

    @classmethod
    def default_distribution_type(cls) -> DistributionType:
        """Posteriors."""
        return DistributionType.posterior

    def open_model(self, **kwargs: Any) -> None:
        """Take the model over, and build what infers: as a catalog's rows are, with more draws where these do not serve."""
        super().open_model(**kwargs)
        if self.model is None:
            return
        model = TrainedModel.from_bytes(self.model["weights"], self.model["specification"])
        wanted, n = self.config.mass_function, self.config.n_draws
        prior = TargetPrior.of_galaxies(wanted) if wanted else TargetPrior()
        settings = InferenceSettings(n_draws=n, keep_draws=n, prior=prior, routing=Routing(share=0.0))
        self._router, self._survey = Router.of(model, self.config.seed, settings), self._declared(model)

    def _declared(self, model: TrainedModel) -> Survey:
        """RAIL's settings as a survey's."""
        bands, survey = list(self.config.bands), SURVEYS["rail"]
        if len(bands) != len(model.spec.bands):
            raise ValueError(
                f"bands: the model has {len(model.spec.bands)}, {', '.join(model.spec.labels)}, not {bands}"
            )
        return survey.model_copy(
            update={
                "bands": model.spec.bands, "labels": model.spec.labels, "flux": tuple(bands),
                "error": tuple(self.config.err_bands), "not_detected": (self.config.nondetect_val,),
                "limits": tuple(float(self.config.mag_limits[band]) for band in bands),
                "not_observed": (self.config.nonobserved_val, float("nan")),
            }
        )  # fmt: skip

    def _process_chunk(self, start: int, end: int, data: Any, first: bool) -> None:
        """Infer the galaxies of a chunk, and hand on what was found."""
        observed, grid = self._observed(data), np.linspace(self.config.zmin, self.config.zmax, self.config.nzbins)
        summary = self._router.summarise(observed.photometry, observed.flags, start)
        density = redshift_density.in_bins(summary.draw_redshift, redshift_density.around(grid))
        density[np.isnan(density).any(1)] = 1 / (grid[-1] - grid[0])
        found = qp.Ensemble(qp.interp, {"xvals": grid, "yvals": density})
        found.set_ancil({"zmode": grid[density.argmax(1)][:, None], **self._beside(summary)})
        self._do_chunk_output(found, start, end, first, data=data)

    def _observed(self, data: Any) -> Calibrated:
        """A chunk's photometry, without redshifts whatever the table says."""
        magnitude, error = (
            np.stack([np.asarray(data[name], float) for name in names], 1)
            for names in (self._survey.flux, self._survey.errors)
        )
        return calibrate(self._survey, magnitude, error, None, np.full(len(magnitude), np.nan))

    def _beside(self, summary: Summary) -> dict[str, Shaped[np.ndarray, "galaxy 1"]]:
        """Columns beside p(z): how good the answer is, and intervals of other properties."""
        columns = {"flags": summary.flags, "effective_fraction": summary.effective_fraction}
        for name in _BESIDE:
            at = self._router.posterior.columns.index(name)
            columns |= {f"{name}_{ending}": summary.quantiles[:, at, i] for ending, i in _QUANTILES.items()}
        return {name: values[:, None] for name, values in columns.items()}
