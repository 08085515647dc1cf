"""Bands in tension: how many clean mock galaxies are flagged, and how many with light in a band that the model does not have.

Mock galaxies of a model with all bands of a footprint. Planted is light with the spectrum f_nu ~ wavelength^index longwards of 2
micron (hot dust around an active nucleus, obscured in the optical) that is so many times the galaxy's own in the model's last band;
of bands that all lie shortwards, in that band alone. Index inf: in that band alone, too. Masses are compared with the same galaxy's
answer before anything was planted, and with the truth. Arguments: a model, a file for the numbers (.npz), numbers of clean and of
planted galaxies, draws of each.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import torch

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.cascade import Router
from sedflow_dist.inference.settings import InferenceSettings, Routing
from sedflow_dist.inference.summary import Summary
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.mocks import Mocks
from sedflow_dist.sps.filters import Band
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model as model_store

SEED, BLOCK = 6, 20
SHORTEST = 20_000.0  # A; hot dust does not shine shortwards, where it would sublimate
STRENGTHS, INDICES = (0.3, 1.0, 3.0), (math.inf, 4.0, 2.0)
CALIBRATION = 0.05  # relative error of the planted light: WISE's floor


def planted(flow: TrainedModel, data: Photometry, strength: float, index: float) -> Photometry:
    """Return galaxies with light planted, and its noise."""
    wavelength = torch.as_tensor(np.array(pivots(flow)), dtype=torch.float32)
    last = wavelength.argmax()
    shape = (wavelength / wavelength[last]) ** index if math.isfinite(index) else torch.zeros_like(wavelength)
    shape[(wavelength < SHORTEST)] = 0
    shape[last] = 1
    added = strength * data.flux[:, last : last + 1].clamp(min=0) * shape * data.mask
    noise = CALIBRATION * added * torch.randn(added.shape, generator=torch.Generator().manual_seed(SEED))
    sigma = torch.hypot(data.sigma, CALIBRATION * added)
    return Photometry(data.flux + added + noise, sigma, data.mask, data.redshift, data.redshift_sigma)


def pivots(flow: TrainedModel) -> list[float]:
    """Return the pivot wavelength of each band [A]."""
    return [Band.load(band).pivot for band in flow.spec.bands]


def infer(flow: TrainedModel, data: Photometry, n_draws: int, **asked: object) -> tuple[Summary, float]:
    """Infer galaxies without MCMC; return the summary and the seconds of each."""
    settings = InferenceSettings.model_validate({"n_draws": n_draws, "routing": Routing(share=0.0), **asked})
    router, began = Router.of(flow, SEED, settings), time.process_time()
    summary = router.summarise(data, np.zeros(len(data), np.uint32), 0)
    return summary, (time.process_time() - began) / len(data)


def masses(flow: TrainedModel, summary: Summary) -> np.ndarray:
    """Return the median of log_mstar of each galaxy."""
    return summary.quantiles[:, [column.name for column in flow.columns()].index("log_mstar"), 2]


def found(summary: Summary) -> np.ndarray:
    """Return which galaxies are flagged."""
    return (summary.flags & int(Flag.BAND_IN_TENSION)) != 0


def strongly(flow: TrainedModel, mocks: Mocks, n_draws: int) -> dict[str, np.ndarray]:
    """Plant, infer with and without leaving out, and print what is found; return the numbers."""
    clean, _ = infer(flow, mocks.photometry, n_draws)
    true, before, kept = mocks.log_mstar.numpy(), masses(flow, clean), dict[str, np.ndarray]()
    print(f"clean: mass less truth: median {np.median(before - true):+.3f}, scatter {np.std(before - true):.3f} dex")
    for index in INDICES:
        for strength in STRENGTHS:
            data = planted(flow, mocks.photometry, strength, index)
            spoilt, _ = infer(flow, data, n_draws)
            left, seconds = infer(flow, data, n_draws, band_tension=True, leave_out="tension")
            flag, n_out = found(left), left.left_out.sum(1)
            with_it, after = masses(flow, spoilt) - before, masses(flow, left) - before
            right = left.left_out[:, np.argmax(pivots(flow))]
            print(
                f"index {index}, {strength} times: flagged {flag.mean():.2f}, that band left out {right.mean():.2f}, bands "
                f"left out {n_out.mean():.2f}; mass less clean answer, median (68 % within): with it {_spread(with_it)}, "
                f"after {_spread(after)}; less truth, after {np.median(masses(flow, left) - true):+.3f}; "
                f"{seconds:.2f} s a galaxy", flush=True,
            )  # fmt: skip
            numbers = {"flag": flag, "left_out": left.left_out, "p": left.band_p, "with": with_it, "after": after}
            kept |= {f"{name}_{index}_{strength}": x for name, x in numbers.items()}
    return kept


def _spread(x: np.ndarray) -> str:
    return f"{np.median(x):+.3f} ({np.quantile(np.abs(x), 0.68):.3f})"


def cleanly(flow: TrainedModel, mocks: Mocks, n_draws: int) -> dict[str, np.ndarray]:
    """Print the rate of false alarms of clean galaxies and how p is distributed; return p."""
    p, flag, seconds, parts = [], [], 0.0, range(0, len(mocks), BLOCK)
    for start in parts:
        summary, each = infer(flow, mocks.photometry[start : start + BLOCK], n_draws, band_tension=True)
        p.append(summary.band_p)
        flag.append(found(summary))
        seconds += each
        if start % 100 == 0:
            _told(np.concatenate(p), np.concatenate(flag), mocks, seconds / len(p))
    _told(np.concatenate(p), np.concatenate(flag), mocks, seconds / len(parts))
    return {"p_clean": np.concatenate(p), "flag_clean": np.concatenate(flag)}


def _told(p: np.ndarray, flag: np.ndarray, mocks: Mocks, seconds: float) -> None:
    told = np.isfinite(p).sum() / int(mocks.photometry.mask[: len(p)].sum())
    shares = {level: round(float((p[np.isfinite(p)] < level).mean()), 4) for level in (0.002, 0.01, 0.05, 0.1, 0.5)}
    error = math.sqrt(0.01 * 0.99 / len(p))
    print(f"{len(p)} clean: flagged {flag.mean():.4f} (0.01 +- {error:.4f}); bands told {told:.4f}; share of p below: {shares}; "
          f"{seconds:.2f} s a galaxy", flush=True)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, out, n_clean, n_planted, draws = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    trained = TrainedModel.from_bytes(*model_store.read(shipped.model(model)))
    every = mock_galaxies(trained, n_clean + n_planted, SEED)
    numbers = strongly(trained, every[slice(n_planted)], draws)
    np.savez(out, **numbers, **cleanly(trained, every[slice(n_planted, None)], draws))
