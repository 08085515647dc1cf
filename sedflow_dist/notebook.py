"""For a notebook: a trained model by its name, photometry in, the posterior of some galaxies out.

    from sedflow_dist import Photometry, load_model
    model = load_model("sdss")
    post = model.posterior(Photometry.of(flux, sigma, redshift=0.05), seed=1)
    post.quantiles(); post.plot()

The draws are those that `sedflow infer` weighs for the same seed and row; rows that it hands on to more draws or to MCMC say so
here by their effective fraction and flags. Storage offers itself to read models, by an entry point: the science knows none.
Nothing else in the package needs xarray, which is imported where it is used.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sedflow_dist import curves
from sedflow_dist.flow import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import importance
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.inference.summary import QUANTILES
from sedflow_dist.photometry.flags import Flag, bits, names, of_photometry
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps.chosen import Chosen

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_CERTIFICATE = {
    "log_evidence": "ln of the evidence of the fluxes in nanomaggies", "log_evidence_error": "its standard error",
    "effective_fraction": "share of the draws that their weights are worth",
    "pareto_k": "of the weights' tail; above 0.7 it is not to be trusted",
}  # fmt: skip
_PLOTTED = 4000  # draws
#: The group of entry points by which storage offers what it reads.
STORAGE = "sedflow.storage"


class Model(TrainedModel):
    """A trained model that infers galaxies."""

    def posterior(
        self, photometry: Photometry, seed: int, n_draws: int = 2048, row: int = 0, columns: Chosen | None = None
    ) -> GalaxyPosterior:
        """Infer galaxies.

        Args:
            photometry: calibrated, corrected for extinction, in the model's bands
            seed: with the rows, fixes every draw
            n_draws: draws of each galaxy
            row: the first galaxy's row; the others follow. The row of a catalog gives that catalog's draws
            columns: beside parameters and properties: docs/columns.md

        Raises:
            ValueError: the photometry has other bands than the model, or the model does not reach as far as chosen columns.
        """
        if photometry.flux.shape[1] != len(self.spec.bands):
            raise ValueError(
                f"photometry of {photometry.flux.shape[1]} bands; the model was trained on {len(self.spec.bands)}, in this "
                f"order: {', '.join(curves.names(self.spec.bands))}"
            )
        posterior = Posterior(self, seed, n_draws, chosen=columns)
        return GalaxyPosterior(posterior, photometry, np.arange(row, row + len(photometry)))


def load_model(name_or_url: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load a model that comes with the package by its name, any other from its folder or s3:// URL.

    Raises:
        FileNotFoundError: there is none; says what comes along.
        ValueError: what is there is no model of this version.
    """
    (storage,) = entry_points(group=STORAGE, name="models")
    try:
        weights, spec = storage.load()(shipped.resolve(str(name_or_url)))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; the package comes with {', '.join(shipped.names())}, others are folders or s3:// URLs"
        ) from error
    return Model.from_bytes(weights, spec, device=device)


class GalaxyPosterior:
    """The posterior of some galaxies: weighted draws, their evidence and flags. NaN where a galaxy has no answer.

    ``post["log_mstar"]`` is what `to_xarray` has by that name.

    Attributes:
        columns: names of parameters, derived properties and chosen columns
        values: draws of them, (galaxy, draw, column)
        importance: normalised importance weights, (galaxy, draw)
        served: whether those serve, (galaxy,); where not, summaries take all draws alike, as a catalog does
        certificate: evidence and diagnostics by name, (galaxy,) each
        flags: why an answer deserves care or was not given, (galaxy,), bits of `Flag`
    """

    def __init__(self, posterior: Posterior, photometry: Photometry, rows: Int[np.ndarray, " galaxy"]) -> None:
        self.model, self.photometry, self.columns = posterior.flow, photometry, posterior.columns
        self._posterior, self._rows = posterior, rows
        n, n_draws = len(photometry), posterior.n_draws
        self.values = np.full((n, n_draws, len(self.columns)), np.nan, np.float32)
        self.importance = np.full((n, n_draws), np.nan)
        self.certificate = {name: np.full(n, np.nan) for name in _CERTIFICATE}
        arrays = photometry.arrays()
        found = of_photometry(arrays["flux"], arrays["mask"], arrays["redshift"], posterior.flow.spec.band_sets)
        self.served, self.flags = np.zeros(n, bool), posterior.flag(photometry, bits(n, found))
        places = np.flatnonzero(posterior.open(photometry, self.flags))
        for start in range(0, len(places), posterior.batch):
            self._fill(places[start : start + posterior.batch])

    def _fill(self, at: Int[np.ndarray, " row"]) -> None:
        """Infer the galaxies ``at``."""
        draws = self._posterior.draw(self.photometry[at], self._rows[at], self._posterior.n_draws)
        self.values[at], self.importance[at] = draws.values.numpy(), draws.weight.numpy()
        for name, values in self.certificate.items():
            values[at] = getattr(draws, name).numpy()
        self.served[at] = self._posterior.serves(draws).numpy()
        finite = np.isfinite(self.certificate["log_evidence"][at]) & np.isfinite(self.values[at]).all((1, 2))
        self.flags[at[~finite]] |= np.uint32(int(Flag.FAILED))
        self.flags[at[finite & ~self.served[at]]] |= np.uint32(int(Flag.LOW_EFFECTIVE_FRACTION))

    @property
    def weight(self) -> Float[np.ndarray, "galaxy draw"]:
        """What each draw counts in summaries; sums to 1."""
        alike = np.where(np.isfinite(self.importance), 1 / self.importance.shape[1], np.nan)
        return np.where(self.served[:, None], self.importance, alike)

    def quantiles(self, probabilities: tuple[float, ...] = QUANTILES) -> xr.DataArray:
        """Return quantiles of every parameter and derived property, (galaxy, param, quantile)."""
        import xarray as xr

        found, _, _ = importance.summarise(torch.as_tensor(self.values), torch.as_tensor(self.weight), probabilities)
        coordinates = {"galaxy": self._rows, "param": list(self.columns), "quantile": list(probabilities)}
        return xr.DataArray(found.numpy(), coordinates, ("galaxy", "param", "quantile"), name="quantiles")

    def resample(self, n: int) -> Float[np.ndarray, "galaxy draw column"]:
        """Return ``n`` equally weighted draws of each galaxy, resampled by their weights."""
        pick = self._posterior.resample(torch.as_tensor(self.weight), self._rows, n)
        return np.take_along_axis(self.values, pick[..., None], 1)

    def plot(self, galaxy: int = 0, **options: Any) -> Figure:
        """Return the corner plot and the spectral energy distribution of one galaxy, numbered from 0.

        Raises:
            ValueError: the galaxy has no answer; says why.
        """
        from sedflow_dist.validation.galaxy import figure

        if not np.isfinite(self.weight[galaxy]).all():
            raise ValueError(f"galaxy {galaxy} has no answer: {', '.join(names(int(self.flags[galaxy])))}")
        draws, title = self.resample(_PLOTTED)[galaxy], f"galaxy {self._rows[galaxy]}"
        return figure(self.model, draws, self.columns, self.photometry[galaxy], title, **options)

    def to_xarray(self) -> xr.Dataset:
        """Return all of it as a Dataset: draws by name, log_weight, evidence, diagnostics and flags."""
        return self._dataset

    def __getitem__(self, name: str) -> xr.DataArray:
        return self._dataset[name]

    @cached_property
    def _dataset(self) -> xr.Dataset:
        import xarray as xr

        found: dict[str, Any] = {}
        for i, quantity in enumerate(self._posterior.quantities):
            about = {"units": quantity.unit, "long_name": quantity.meaning}
            found[quantity.name] = ("galaxy", "draw"), self.values[..., i], about
        with np.errstate(divide="ignore"):
            log_weight = np.log(self.importance)
        found["log_weight"] = ("galaxy", "draw"), log_weight, {"long_name": "ln of the normalised importance weight"}
        for name, meaning in _CERTIFICATE.items():
            found[name] = "galaxy", self.certificate[name], {"long_name": meaning}
        found["flags"] = "galaxy", self.flags, {"long_name": "quality flags, bits"}
        attributes = {"model": self.model.id, "seed": self._posterior.seed}
        return xr.Dataset(found, {"galaxy": self._rows}, attributes)
