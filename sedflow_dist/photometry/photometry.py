"""Photometry: one observation of a block of galaxies, in one shape from the reader's arrays to the likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Errors of a redshift that do not matter, a fraction of it. Distances, and with them masses, are uncertain by 2 / ln 10 times it,
#: 0.004 dex, which widens the narrowest posteriors of the mass, of 0.03 dex, by 1 %.
EXACT = 0.005


@dataclass(frozen=True)
class Photometry:
    """Calibrated fluxes of a block of galaxies.

    Attributes:
        flux, sigma: (galaxy, band) [nanomaggies]; both 0 where ``mask`` is False, so that no NaN travels further
        mask: whether a band is measured, (galaxy, band); a negative flux is a measurement
        redshift: (galaxy,); NaN where it is not known and is to be inferred
        redshift_sigma: standard error of the redshift, (galaxy,); 0 where it is exact, NaN where there is none
    """

    flux: Float[Tensor, "galaxy band"]
    sigma: Float[Tensor, "galaxy band"]
    mask: Bool[Tensor, "galaxy band"]
    redshift: Float[Tensor, " galaxy"]
    redshift_sigma: Float[Tensor, " galaxy"]

    @classmethod
    def of(
        cls,
        flux: ArrayLike,
        sigma: ArrayLike,
        redshift: ArrayLike = np.nan,
        mask: ArrayLike | None = None,
        redshift_sigma: ArrayLike | None = None,
    ) -> Photometry:
        """Return photometry from numpy arrays or plain numbers, of one galaxy (band,) or of many (galaxy, band).

        ``mask`` None: a band is measured where its flux is finite and its sigma finite and positive. One redshift stands for
        all galaxies; ``redshift_sigma`` None: redshifts are exact where they are finite.

        Raises:
            ValueError: shapes do not fit together; says which.

        >>> Photometry.of([1.0, 2.0, float("nan")], [0.1, 0.1, 0.1], redshift=0.05).mask.tolist()
        [[True, True, False]]
        """
        flux, sigma = (np.atleast_2d(np.asarray(x, np.float32)) for x in (flux, sigma))
        if flux.ndim != 2 or flux.shape != sigma.shape:
            raise ValueError(
                f"photometry: flux has shape {flux.shape} and sigma {sigma.shape}; expected (galaxy, band)"
            )
        with np.errstate(invalid="ignore"):
            good = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0)
        if mask is not None:
            mask = np.atleast_2d(np.asarray(mask, bool))
            if mask.shape != flux.shape:
                raise ValueError(f"photometry: mask has shape {mask.shape} and flux {flux.shape}")
            good &= mask
        z = _per_galaxy("redshift", redshift, len(flux))
        exact = np.where(np.isfinite(z), np.float32(0), np.float32(np.nan))
        z_sigma = exact if redshift_sigma is None else _per_galaxy("redshift_sigma", redshift_sigma, len(flux))
        zero = np.float32(0)
        arrays = (np.where(good, flux, zero), np.where(good, sigma, zero), good, z, z_sigma)
        return cls(*(torch.as_tensor(np.ascontiguousarray(x)) for x in arrays))

    def __len__(self) -> int:
        return len(self.redshift)

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray | Tensor) -> Photometry:
        """Return some galaxies: one, a slice, indices or a boolean mask; one is a block of one."""
        if not isinstance(rows, slice | Tensor):
            found = np.ascontiguousarray(np.atleast_1d(rows))
            rows = torch.as_tensor(found if len(found) else found.astype(np.intp))
        return Photometry(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Photometry]) -> Photometry:
        """Return the galaxies of several blocks, one after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def to(self, device: torch.device | str) -> Photometry:
        """Return the same on a device."""
        return Photometry(*(getattr(self, field.name).to(device) for field in fields(self)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the same as numpy arrays by name, as stores keep them."""
        return {field.name: getattr(self, field.name).numpy(force=True) for field in fields(self)}

    # -- what is measured -----------------------------------------------------------------------------------------------

    def with_bands(self, mask: Bool[Tensor, "*galaxy band"]) -> Photometry:
        """Return the same as if only these bands had been measured, (band,) for all galaxies or (galaxy, band)."""
        kept = self.mask & mask
        return replace(self, flux=self.flux.where(kept, 0.0), sigma=self.sigma.where(kept, 0.0), mask=kept)

    def bands(self, which: Bool[Tensor, " band"]) -> Photometry:
        """Return some of the bands alone: arrays are narrower."""
        return replace(self, flux=self.flux[:, which], sigma=self.sigma[:, which], mask=self.mask[:, which])

    @property
    def n_bands(self) -> Int[Tensor, " galaxy"]:
        """Number of measured bands."""
        return self.mask.sum(-1)

    @property
    def inverse_sigma(self) -> Float[Tensor, "galaxy band"]:
        """1 / sigma [1 / nanomaggies], 0 where a band is not measured: multiplied by it, that band does not count."""
        return torch.where(self.mask, 1 / torch.where(self.mask, self.sigma, 1.0), 0.0)

    @property
    def signal_to_noise(self) -> Float[Tensor, "galaxy band"]:
        """flux / sigma, NaN where a band is not measured."""
        return torch.where(self.mask, self.flux / self.sigma, torch.nan)

    def without_redshifts(self, rows: Bool[np.ndarray, " galaxy"] | None = None) -> Photometry:
        """Return the same with the redshifts of some galaxies, or of all, not known."""
        hidden = torch.ones_like(self.redshift, dtype=torch.bool) if rows is None else torch.as_tensor(rows)
        redshift, sigma = (x.masked_fill(hidden, torch.nan) for x in (self.redshift, self.redshift_sigma))
        return replace(self, redshift=redshift, redshift_sigma=sigma)

    @property
    def has_no_redshift(self) -> Bool[Tensor, " galaxy"]:
        """Whether the redshift is not known."""
        return self.redshift.isnan()

    @property
    def has_exact_redshift(self) -> Bool[Tensor, " galaxy"]:
        """Whether the redshift is known, and its error, up to `EXACT` of it, can be left out."""
        known = torch.isfinite(self.redshift) & (self.redshift_sigma >= 0)
        return known & (self.redshift_sigma <= EXACT * self.redshift)


def _per_galaxy(name: str, values: ArrayLike, n: int) -> Float[np.ndarray, " galaxy"]:
    array = np.asarray(values, np.float32)
    if array.shape not in ((), (1,), (n,)):
        raise ValueError(f"photometry: {name} has shape {array.shape} for {n} galaxies")
    return np.array(np.broadcast_to(array, (n,)))
