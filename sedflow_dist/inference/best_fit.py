"""Equally weighted draws of galaxies looked at again: parameters and photometry in, surviving masses and the best draw out."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import likelihood
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.sps import derived

_SURVIVING = "log_mstar_surviving"


class Looked(NamedTuple):
    """``surviving``: log10 of the mass that survives in stars [Msun]; ``best``: the draw of least chi^2."""

    surviving: Float[Tensor, "galaxy draw"]
    best: Int[Tensor, " galaxy"]


def look_at(flow: TrainedModel, theta: Float[Tensor, "galaxy draw param"], photometry: Photometry) -> Looked:
    """Return what a model says of draws whose parameters, the amplitude too, are known.

    The best one is that of least chi^2, as PROVABGS takes the sample of highest log-probability for its best fit: its priors
    are flat in the coordinates that it samples in, as ours are in the unit cube.
    """
    light = flow.redshift_model(theta, photometry.redshift)
    _, chi2 = likelihood.gaussian(light.flux * flow.space.scale(theta), photometry)
    names = [one.name for one in derived.properties(flow.space, flow.spec.labels)]
    properties = derived.derive(flow.redshift_model.model, theta, light)
    return Looked(properties[..., names.index(_SURVIVING)], chi2.argmin(-1))
