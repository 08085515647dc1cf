"""Stages for RAIL pipelines (github.com/LSSTDESC/rail): a trained model in, p(z) of a table's galaxies out as a qp ensemble.

`SedflowInformer` takes a model that comes with the package, or that a run made; `SedflowEstimator` infers each galaxy's redshift
with its mass, history and dust, and hands p(z) to RAIL. Columns, codes of what was not detected and limits are RAIL's own settings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qp
from ceci.config import StageParameter
from jaxtyping import Float
from rail.core.common_params import SharedParams
from rail.core.enums import DistributionType
from rail.estimation.estimator import CatEstimator
from rail.estimation.informer import CatInformer

from sedflow_dist import TrainedModel, load_model
from sedflow_dist.inference import importance, redshift_density
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.reweight import NewPrior
from sedflow_dist.inference.settings import MASS_FUNCTION, TargetPrior
from sedflow_dist.photometry.calibrate import Calibrated, calibrate
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.photometry.surveys import SURVEYS

#: Of the other parameters, what stands beside p(z): medians, and the quantiles that a Gaussian has at one standard deviation.
_BESIDE = ("log_mstar_surviving", "log_sfr_1gyr", "tau_ism")
_QUANTILES = {"p16": 0.16, "p50": 0.5, "p84": 0.84}
#: Galaxies whose draws are worked on at once.
_TOGETHER = 16


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
        n_draws=StageParameter(int, 512, msg="draws a galaxy"),
        mass_function=StageParameter(
            str, MASS_FUNCTION, msg="prior of redshift and mass: a mass function, times the volume; '': flat"
        ),
    )

    @classmethod
    def default_distribution_type(cls) -> DistributionType:
        """Posteriors."""
        return DistributionType.posterior

    def open_model(self, **kwargs: Any) -> None:
        """Take the model over, and build what infers."""
        super().open_model(**kwargs)
        if self.model is None:
            return
        model = TrainedModel.from_bytes(self.model["weights"], self.model["specification"])
        wanted, target = self.config.mass_function, None
        if wanted:
            target = NewPrior.of(TargetPrior.of_galaxies(wanted), model, self.config.seed)
        self._posterior = Posterior(model, self.config.seed, self.config.n_draws, target=target)
        self._survey = self._declared(model)

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
        observed = self._observed(data)
        grid = np.linspace(self.config.zmin, self.config.zmax, self.config.nzbins)
        density, beside = self._inferred(observed, start, grid)
        found = qp.Ensemble(qp.interp, {"xvals": grid, "yvals": density})
        found.set_ancil({"zmode": grid[density.argmax(1)][:, None], **beside})
        self._do_chunk_output(found, start, end, first, data=data)

    def _observed(self, data: Any) -> Calibrated:
        """A chunk's photometry, without redshifts whatever the table says."""
        magnitude, error = (
            np.stack([np.asarray(data[name], float) for name in names], 1)
            for names in (self._survey.flux, self._survey.errors)
        )
        return calibrate(self._survey, magnitude, error, None, np.full(len(magnitude), np.nan))

    def _inferred(
        self, observed: Calibrated, first: int, grid: Float[np.ndarray, " point"]
    ) -> tuple[Float[np.ndarray, "galaxy point"], dict[str, np.ndarray]]:
        """p(z) at the points of a grid, and columns of what is beside it."""
        posterior, seen, n = self._posterior, observed.photometry, len(observed.flags)
        flags = posterior.flag(seen, observed.flags)
        edges = np.concatenate([grid[:1], (grid[:-1] + grid[1:]) / 2, grid[-1:]])
        density = np.full((n, len(grid)), 1 / (grid[-1] - grid[0]))
        names = [f"{name}_{ending}" for name in _BESIDE for ending in _QUANTILES]
        beside = {name: np.full((n, 1), np.nan) for name in [*names, "effective_fraction"]}
        columns = [posterior.columns.index(name) for name in _BESIDE]
        beside["flags"] = flags[:, None]
        able = np.flatnonzero(posterior.open(seen, flags))
        for part in range(0, len(able), _TOGETHER):
            at = able[part : part + _TOGETHER]
            draws = posterior.draw(seen[at], at + first, self.config.n_draws)
            weight = np.where(posterior.serves(draws).numpy()[:, None], draws.weight.numpy(), draws.plain.numpy())
            density[at] = redshift_density.in_bins(draws.redshift.numpy(), weight, edges)
            found = importance.quantiles(draws.values[..., columns], draws.weight.float(), tuple(_QUANTILES.values()))
            for name, values in zip(names, found.flatten(1).T.numpy(), strict=True):
                beside[name][at, 0] = values
            beside["effective_fraction"][at, 0] = draws.effective_fraction.numpy()
        return density, beside
