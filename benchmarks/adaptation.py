"""Proposals that learn: effective fractions, and ln evidence against many draws of the flow alone. Argument: a model (desi)."""

from __future__ import annotations

import sys
from unittest.mock import patch

import numpy as np
import torch
from common import report
from scipy.stats import median_abs_deviation

from jobs.config import shipped
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference import adaptation
from sedflow_dist.inference.draws import Draws
from sedflow_dist.inference.posterior import Posterior
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import model

GALAXIES, JUDGED, DRAWS, MANY = 256, 48, 2048, 65_536


def drawn(posterior: Posterior, photometry: Photometry, n_draws: int, alone: bool) -> list[Draws]:
    """Draw for all galaxies, by the flow alone or in rounds."""
    size = max(posterior.abreast * posterior.n_draws // n_draws, 1)
    cut = (lambda n: [slice(0, n)]) if alone else adaptation.rounds
    with patch.object(adaptation, "rounds", cut):
        return [
            posterior.draw(photometry[rows], rows, n_draws)
            for rows in np.array_split(np.arange(len(photometry)), -(-len(photometry) // size))
        ]


def main() -> None:
    torch.set_num_threads(1)
    flow = TrainedModel.from_bytes(*model.read(shipped.model(sys.argv[1] if len(sys.argv) > 1 else "desi")))
    photometry = mock_galaxies(flow, GALAXIES, 1).photometry
    known = torch.cat([one.log_evidence for one in drawn(Posterior(flow, 2), photometry[:JUDGED], MANY, alone=True)])
    for name, alone in (("the flow's draws", True), ("rounds", False)):
        draws = drawn(Posterior(flow, 1, DRAWS), photometry, DRAWS, alone)
        fraction, k, found, stated = (
            torch.cat([getattr(one, part) for one in draws]).numpy()
            for part in ("effective_fraction", "pareto_k", "log_evidence", "log_evidence_error")
        )
        report(f"{name}: effective fraction, median; 5 %; k > 0.7",
               f"{np.median(fraction):.3f}; {np.quantile(fraction, 0.05):.3f}; {np.mean(k > 0.7):.1%}")  # fmt: skip
        off = found[:JUDGED] - known.numpy()
        pull = off / stated[:JUDGED]
        report(f"{name}: error of ln evidence, median; spread; pulls' median; spread",
               f"{np.median(off):+.4f}; {median_abs_deviation(off, scale='normal'):.4f}; "
               f"{np.median(pull):+.2f}; {median_abs_deviation(pull, scale='normal'):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
