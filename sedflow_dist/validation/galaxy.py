"""One galaxy's figure: its posterior and spectral energy distribution, from draws and the model that they are of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps import filters
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.validation import plots

#: What the corner plot shows.
CORNER = ("log_mstar_surviving", "log_sfr_1gyr", "log_z_mw", "t_age_mw", "f_burst", "tau_ism", "n_dust")
_SPECTRA = 200


def figure(
    model: TrainedModel,
    draws: Float[np.ndarray, "draw column"],
    names: Sequence[str],
    photometry: Photometry,
    title: str,
    corner: Sequence[str] = CORNER,
    history: Sequence[float] = (),
    words: Sequence[str] = (),
) -> Figure:
    """Return the corner plot of equally weighted draws; in its free corner the data with the draws' spectra, and more.

    ``names`` are those of the columns: the parameters first; ``photometry`` is the galaxy's. ``history``: edges of the bins of
    lookback time [Gyr] whose star-formation rates are among the columns, which are drawn, too. ``words``: lines beside.
    """
    galaxy_model = model.redshift_model.model
    some = torch.as_tensor(draws[:: max(len(draws) // _SPECTRA, 1), : len(model.space.names)])
    z = photometry.redshift.expand(len(some))
    wavelength, spectra = galaxy_model.observed(galaxy_model.spectra(some, z), z)
    bands = [filters.Band.load(name) for name in model.spec.bands]
    seen = plots.Sed(
        [(band.wavelength, band.response / band.response.max()) for band in bands],
        np.array([band.effective_wavelength for band in bands]), photometry, wavelength.numpy(), spectra.numpy(),
    )  # fmt: skip
    columns = [list(names).index(name) for name in corner]
    quantities = {quantity.name: quantity for quantity in model.columns()}
    return plots.posterior_and_sed(
        draws[:, columns], [quantities[name] for name in corner], f"{title}, z = {float(photometry.redshift):.3f}", seen,
        _history(draws, names, history) if history else None, words,
    )  # fmt: skip


def _history(draws: Float[np.ndarray, "draw column"], names: Sequence[str], edges: Sequence[float]) -> plots.History:
    rates = [quantity.name for quantity in Chosen(star_formation_history=tuple(edges)).quantities(())]
    return plots.History(np.asarray(edges, float), draws[:, [list(names).index(name) for name in rates]])
