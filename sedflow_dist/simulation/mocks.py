"""Mock observations: simulated galaxies in, photometry as the survey would measure it and the truth behind it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from sedflow_dist import magnitudes
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.shapes import Shapes


@dataclass(frozen=True)
class Mocks:
    """Mock observations and the truth behind them: ``phi`` in probit space, ``log_mstar``, and the ``number`` of the shape."""

    phi: Float[Tensor, "galaxy shape"]
    log_mstar: Float[Tensor, " galaxy"]
    photometry: Photometry
    number: Int[Tensor, " galaxy"]

    def __len__(self) -> int:
        return len(self.phi)

    def __getitem__(self, rows: slice | Tensor) -> Mocks:
        """Return some of them."""
        return Mocks(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Mocks]) -> Mocks:
        """Return several blocks of them, one after the other."""
        return cls(
            torch.cat([part.phi for part in parts]),
            torch.cat([part.log_mstar for part in parts]),
            Photometry.concatenate([part.photometry for part in parts]),
            torch.cat([part.number for part in parts]),
        )


@dataclass(frozen=True)
class MockSurvey:
    """Observe shapes as the survey would: amplitude from the prior, its noise, its selection, and bands gone missing.

    log_mstar is drawn from its prior and what the survey would not select is rejected, so that the posterior is that of
    the prior and the likelihood alone: selection acts on what is observed.

    Attributes:
        log_mstar: range of its prior
        drop_out: fraction of galaxies that lose one band or more
        instruments: bands (by number) that one instrument observes; where there are some, half of the galaxies that lose
            bands lose those of whole instruments, each of them half the time
        band_sets: bands (by number) that a galaxy may have together; where there are some, each has those of one of them, all
            as often, before any go missing
    """

    noise: NoiseModel
    log_mstar: tuple[float, float]
    drop_out: float
    instruments: tuple[tuple[int, ...], ...] = ()
    band_sets: tuple[tuple[int, ...], ...] = ()

    def observe(self, shapes: Shapes, n: int, generator: Generator) -> Mocks:
        """Return ``n`` selected mock galaxies."""
        parts: list[tuple[Tensor, ...]] = []
        found = 0
        for _ in range(200):
            index = torch.randint(len(shapes.phi), (2 * n,), generator=generator, device=generator.device)
            lo, hi = self.log_mstar
            log_mstar = lo + (hi - lo) * torch.rand(len(index), generator=generator, device=generator.device)
            true = shapes.per_mass[index] * 10 ** log_mstar.unsqueeze(1)
            flux, sigma, selected = self.noise.observe(true, generator)
            parts.append((index[selected], log_mstar[selected], flux[selected], sigma[selected]))
            found += int(selected.sum())
            if found >= n:
                break
        else:
            raise ValueError(
                f"of {400 * n} simulated galaxies the survey's selection {self.noise.selection} mag kept {found}; "
                "prior and selection hardly overlap"
            )
        index, log_mstar, flux, sigma = (torch.cat(column)[:n] for column in zip(*parts, strict=True))
        redshift = shapes.redshift[index]
        whole = Photometry(flux, sigma, torch.ones_like(flux, dtype=torch.bool), redshift, torch.zeros_like(redshift))
        return Mocks(shapes.phi[index], log_mstar, whole.with_bands(self._missing(flux.shape, generator)), index)

    def selection_slope(self, shapes: Shapes) -> float:
        """Return d ln P / d ln f: how the share P of galaxies that are selected grows with all fluxes of the band of selection.

        Flat in ln mass, a shape's share is the part of the prior between the two limits, and it grows where the faint limit
        lies inside the prior and the bright one beyond. Noise, which moves limits by some percent, is left out.
        """
        lowest, highest = (x * math.log(10) for x in self.log_mstar)
        per_mass = shapes.per_mass[:, self.noise.selection_band].double().log()
        bright, faint = (math.log(magnitudes.flux(x)) - per_mass for x in self.noise.selection)  # ln of the mass
        share = bright.clamp(lowest, highest) - faint.clamp(lowest, highest)
        gained, lost = ((lowest < limit) & (limit < highest) for limit in (faint, bright))
        return float((gained.double() - lost.double()).sum() / share.sum())

    def _missing(self, shape: torch.Size, generator: Generator) -> Bool[Tensor, "galaxy band"]:
        """Any subset of a galaxy's bands that keeps at least three: the number missing is uniform, and so are the bands."""
        n, n_bands = shape
        device = generator.device
        most = min(map(len, self.band_sets), default=n_bands) - MINIMUM_BANDS
        order = torch.rand(n, n_bands, generator=generator, device=device).argsort(1)
        number = torch.zeros(n, dtype=torch.long, device=device)
        if most > 0:
            number = torch.randint(1, most + 1, (n,), generator=generator, device=device)
        loses = torch.rand(n, generator=generator, device=device) < self.drop_out
        there = torch.ones(shape, dtype=torch.bool, device=device)
        if self.band_sets:
            there = _belongs(self.band_sets, n_bands, device)[
                torch.randint(len(self.band_sets), (n,), generator=generator, device=device)
            ]
            order = order.where(there, n_bands).argsort(1).argsort(1)  # places among the bands that are there
        kept = there & (order >= torch.where(loses, number, 0).unsqueeze(1))
        if not self.instruments:
            return kept
        whole = loses & (torch.rand(n, generator=generator, device=device) < 0.5)
        return torch.where(whole.unsqueeze(1), self._of_instruments(there, generator), kept)

    def _of_instruments(self, there: Bool[Tensor, "galaxy band"], generator: Generator) -> Bool[Tensor, "galaxy band"]:
        """Those bands of a galaxy whose instruments observed it; all of them where these would be fewer than three."""
        (n, n_bands), device = there.shape, there.device
        belongs = _belongs(self.instruments, n_bands, device).float()
        absent = torch.rand(n, len(belongs), generator=generator, device=device) < 0.5
        kept = there & (absent.float() @ belongs == 0)
        return kept | (there & (kept.sum(1, keepdim=True) < MINIMUM_BANDS))


def _belongs(groups: Sequence[Sequence[int]], n_bands: int, device: torch.device) -> Bool[Tensor, "group band"]:
    """Which bands belong to each of some groups."""
    found = torch.zeros(len(groups), n_bands, dtype=torch.bool, device=device)
    for row, bands in zip(found, groups, strict=True):
        row[list(bands)] = True
    return found
