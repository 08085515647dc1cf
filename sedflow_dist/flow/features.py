"""What the flow is conditioned on: fluxes, uncertainties, mask and redshift in, standardised features out.

Features are a list of encoders, each with a name, some columns and its own idea of what counts as measured. Asinh magnitudes
(Lupton et al. 1999, astro-ph/9903081) are defined for negative fluxes; a band that was not measured is zero with its mask
bit off. Colours are of fluxes divided by the galaxy's own mean flux, so brightness is no feature: the amplitude is drawn
exactly elsewhere. Magnitudes keep it, as SEDflow does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sedflow_dist.photometry.photometry import Photometry

_SOFTENING = 0.01  # of the mean flux; below it an asinh magnitude turns linear
_ABSOLUTE_SOFTENING = 0.1  # nanomaggies (25 mag), of magnitudes


@dataclass(frozen=True)
class Encoder(ABC):
    """Some columns of the features, made of photometry whose unmeasured bands have flux 0 and sigma 1.

    Attributes:
        name: by which stored models call it
        standard: mean and standard deviation by which its columns are standardised; None: those of the training data
    """

    name: str
    standard: tuple[float, float] | None = None

    def size(self, n_bands: int) -> int:
        """Return its number of columns: one a band, unless a subclass says otherwise."""
        return n_bands

    @abstractmethod
    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return its columns before standardisation, finite."""

    def present(self, mask: Bool[Tensor, "galaxy band"]) -> Bool[Tensor, "galaxy column"]:
        """Return what was measured: alone it counts when columns are standardised, and the rest is 0 afterwards."""
        return mask


def _keep(photometry: Photometry) -> Float[Tensor, "galaxy band"]:
    return photometry.mask.to(photometry.flux.dtype)


Scale = Callable[[Photometry], Float[Tensor, "galaxy 1"]]


def _mean_flux(photometry: Photometry) -> Float[Tensor, "galaxy 1"]:
    """The galaxy's mean flux over measured bands, or their mean sigma where that is larger [nanomaggies]."""
    flux, keep = photometry.flux, _keep(photometry)
    n = keep.sum(1, keepdim=True).clamp(min=1)
    mean = torch.maximum(flux.sum(1, keepdim=True), (photometry.sigma * keep).sum(1, keepdim=True)) / n
    return mean.clamp(min=1e-30)


def _nanomaggie(photometry: Photometry) -> Float[Tensor, "galaxy 1"]:
    return torch.ones_like(photometry.flux[:, :1])


@dataclass(frozen=True)
class AsinhFluxes(Encoder):
    """Asinh magnitudes of fluxes in units of ``scale``, linear below ``softening`` of it."""

    scale: Scale = _nanomaggie
    softening: float = _ABSOLUTE_SOFTENING

    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return one column a band."""
        scale = self.scale(photometry)
        return torch.asinh(photometry.flux / (2 * self.softening * scale)) * _keep(photometry)


@dataclass(frozen=True)
class LogFluxes(Encoder):
    """ln flux in units of ``scale``, of each band's own uncertainty where that is larger: defined for any flux.

    For bands whose fluxes differ by orders of magnitude: ln flux to 1 % where it is 2.5 sigma, linear below one.
    """

    scale: Scale = _nanomaggie

    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return one column a band: asinh(flux / 2 sigma) + ln(2 sigma / scale)."""
        twice = 2 * photometry.sigma
        return (torch.asinh(photometry.flux / twice) + torch.log(twice / self.scale(photometry))) * _keep(photometry)


@dataclass(frozen=True)
class Uncertainties(Encoder):
    """Logarithms of uncertainties in units of ``scale``."""

    scale: Scale = _nanomaggie

    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return one column a band."""
        return torch.log(photometry.sigma / self.scale(photometry)).clamp(-8, 8) * _keep(photometry)


@dataclass(frozen=True)
class Measured(Encoder):
    """Whether a band was measured: 1 or 0."""

    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return one column a band."""
        return _keep(photometry)

    def present(self, mask: Bool[Tensor, "galaxy band"]) -> Bool[Tensor, "galaxy column"]:
        """All of it is known."""
        return torch.ones_like(mask)


@dataclass(frozen=True)
class Redshift(Encoder):
    """The redshift."""

    def size(self, n_bands: int) -> int:
        """One column."""
        return 1

    def columns(self, photometry: Photometry) -> Float[Tensor, "galaxy column"]:
        """Return the redshift as a column."""
        return photometry.redshift.unsqueeze(1)

    def present(self, mask: Bool[Tensor, "galaxy band"]) -> Bool[Tensor, "galaxy column"]:
        """All of it is known."""
        return torch.ones_like(mask[:, :1])


_encoders: dict[str, Encoder] = {}


def register(encoder: Encoder) -> None:
    """Let stored models call an encoder by its name; ValueError: another has that name."""
    if encoder.name in _encoders:
        raise ValueError(f"an encoder {encoder.name!r} exists already")
    _encoders[encoder.name] = encoder


register(AsinhFluxes("colours", scale=_mean_flux, softening=_SOFTENING))
register(AsinhFluxes("magnitudes", scale=_nanomaggie, softening=_ABSOLUTE_SOFTENING))
register(LogFluxes("log_colours", scale=_mean_flux))
register(LogFluxes("log_fluxes", scale=_nanomaggie))
register(Uncertainties("relative_uncertainties", scale=_mean_flux))
register(Uncertainties("uncertainties", scale=_nanomaggie))
register(Measured("measured", standard=(0.5, 0.5)))
register(Redshift("redshift"))

#: Encoders that do not see the brightness, and those that do.
COLOURS = ("colours", "relative_uncertainties", "measured", "redshift")
MAGNITUDES = ("magnitudes", "uncertainties", "measured", "redshift")


def preset(amplitude: Literal["exact", "learnt"]) -> tuple[str, ...]:
    """Return the encoders for a flow whose amplitude is drawn exactly elsewhere, or learnt."""
    return COLOURS if amplitude == "exact" else MAGNITUDES


def encoders(names: Sequence[str]) -> tuple[Encoder, ...]:
    """Return the encoders of these names, in their order.

    Raises:
        ValueError: there is none of a name, or none at all; says which there are.
    """
    if unknown := [name for name in names if name not in _encoders]:
        raise ValueError(f"features: no encoder is called {unknown[0]!r}; there are {', '.join(sorted(_encoders))}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"features: expected one encoder or more, each once, found {', '.join(names) or 'none'}")
    return tuple(_encoders[name] for name in names)


def size(names: Sequence[str], n_bands: int) -> int:
    """Return the number of features of ``n_bands`` bands."""
    return sum(encoder.size(n_bands) for encoder in encoders(names))


def raw(photometry: Photometry, names: Sequence[str]) -> Float[Tensor, "galaxy feature"]:
    """Return features before standardisation, encoder by encoder; colours do not change when a galaxy is rescaled."""
    flux, sigma = photometry.flux * _keep(photometry), torch.where(photometry.mask, photometry.sigma, 1.0)
    seen = replace(photometry, flux=flux, sigma=sigma)
    return torch.cat([encoder.columns(seen) for encoder in encoders(names)], dim=1)


class Features(nn.Module):
    """Features standardised with mean and standard deviation of the training data.

    Args:
        names: of the encoders, in the order of their columns
        mean, std: of each feature
    """

    mean: Float[Tensor, " feature"]
    std: Float[Tensor, " feature"]

    def __init__(self, names: Sequence[str], mean: Float[Tensor, " feature"], std: Float[Tensor, " feature"]) -> None:
        super().__init__()
        encoders(names)  # a name that is unknown is refused here
        self.names = tuple(names)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @classmethod
    def fit(cls, names: Sequence[str], photometry: Photometry) -> Features:
        """Standardise on training data, counting what was measured only."""
        rows, weight = raw(photometry, names), _present(names, photometry.mask).double()
        total = weight.sum(0).clamp(min=1)
        mean = (rows * weight).sum(0) / total
        std = (((rows - mean) ** 2 * weight).sum(0) / total).sqrt().clamp(min=1e-3)
        end = 0
        for encoder in encoders(names):
            start, end = end, end + encoder.size(photometry.flux.shape[1])
            if encoder.standard:
                mean[start:end], std[start:end] = encoder.standard
        return cls(names, mean.float(), std.float())

    def __call__(self, photometry: Photometry) -> Float[Tensor, "galaxy feature"]:
        """Return standardised features; those of unmeasured bands are zero."""
        rows = (raw(photometry, self.names) - self.mean) / self.std
        return rows * _present(self.names, photometry.mask)


def _present(names: Sequence[str], mask: Bool[Tensor, "galaxy band"]) -> Bool[Tensor, "galaxy feature"]:
    return torch.cat([encoder.present(mask) for encoder in encoders(names)], dim=1)
