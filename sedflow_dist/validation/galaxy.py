"""One galaxy's figure: its posterior and spectral energy distribution, from draws and the model that they are of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

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
    some = draws[:: max(len(draws) // _SPECTRA, 1)]
    inferred = bool(photometry.redshift.isnan())
    at = list(names).index("redshift") if inferred else 0
    z = torch.as_tensor(some[:, at]) if inferred else photometry.redshift.expand(len(some))
    bands = [filters.Band.load(name) for name in model.spec.bands]
    seen = plots.Sed(
        [(band.wavelength, band.response / band.response.max()) for band in bands],
        np.array([band.effective_wavelength for band in bands]), photometry, *_spectra(model, some, z),
    )  # fmt: skip
    corner = (*corner, "redshift") if inferred else corner
    columns = [list(names).index(name) for name in corner]
    quantities = {quantity.name: quantity for quantity in model.quantities(Chosen())}
    low, middle, high = np.quantile(z.numpy(), (0.16, 0.5, 0.84))
    told = f"{middle:.3f} ({low:.3f} to {high:.3f})" if inferred else f"{middle:.3f}"
    return plots.posterior_and_sed(
        draws[:, columns], [quantities[name] for name in corner], f"{title}, z = {told}", seen,
        _history(draws, names, history) if history else None, words,
    )  # fmt: skip


def _spectra(
    model: TrainedModel, draws: Float[np.ndarray, "some column"], redshift: Float[Tensor, " some"]
) -> tuple[Float[np.ndarray, "some wavelength"], Float[np.ndarray, "some wavelength"]]:
    """Return observed wavelengths [A] and spectra [nanomaggies] of draws, all at the wavelengths of the middle one."""
    full = model.redshift_model.model
    spectra = full.spectra(torch.as_tensor(draws[:, : len(model.space.names)]), redshift)
    wavelength, flux = (x.numpy() for x in full.observed(spectra, redshift))
    common = wavelength[int(redshift.argsort()[len(redshift) // 2])]
    onto = np.stack([np.interp(common, x, y) for x, y in zip(wavelength, flux, strict=True)])
    return np.broadcast_to(common, onto.shape), onto


def _history(draws: Float[np.ndarray, "draw column"], names: Sequence[str], edges: Sequence[float]) -> plots.History:
    rates = [quantity.name for quantity in Chosen(star_formation_history=tuple(edges)).quantities(())]
    return plots.History(np.asarray(edges, float), draws[:, [list(names).index(name) for name in rates]])
