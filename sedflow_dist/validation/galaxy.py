"""One galaxy's figure: its posterior and spectral energy distribution, from draws and the model that they are of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.parameters import PARAMETERS
from sedflow_dist.sps import filters
from sedflow_dist.validation import plots

#: What the corner plot shows.
CORNER = ("log_mstar_surviving", "log_sfr_1gyr", "log_z_mw", "t_age_mw", "f_burst", "tau_ism", "n_dust")
_SPECTRA = 200


def figure(
    model: TrainedModel,
    draws: Float[np.ndarray, "draw column"],
    names: Sequence[str],
    flux: Float[np.ndarray, " band"],
    sigma: Float[np.ndarray, " band"],
    mask: Bool[np.ndarray, " band"],
    redshift: float,
    title: str,
    corner: Sequence[str] = CORNER,
) -> Figure:
    """Return the corner plot of equally weighted draws with the data and the draws' spectra in its free corner.

    ``names`` are those of the columns: the parameters first.
    """
    galaxy_model = model.redshift_model.model
    some = torch.as_tensor(draws[:: max(len(draws) // _SPECTRA, 1), : len(PARAMETERS)])
    z = torch.full((len(some),), redshift)
    wavelength, spectra = galaxy_model.observed(galaxy_model.spectra(some, z), z)
    centres = np.array([filters.Band.load(name).effective_wavelength for name in model.spec.bands])
    columns = [list(names).index(name) for name in corner]
    return plots.posterior_and_sed(
        draws[:, columns], list(corner), f"{title}, z = {redshift:.3f}", centres[mask], flux[mask], sigma[mask],
        wavelength.numpy(), spectra.numpy(),
    )  # fmt: skip
