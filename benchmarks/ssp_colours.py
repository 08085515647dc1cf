"""How two SSP tables differ in the colours and light of the same galaxies: MIST with C3K against BC03 with MILES, say.

Arguments: URLs of two tables, as ``sedflow build-ssp`` makes them (``--source fsps`` needs a real SPS_HOME; the miniature of
the tests has toy stars and gives toy figures). Galaxies: draws of the prior at z < 0.2, all and by specific star-formation
rate, whose formed masses, histories, metallicities (mass fractions) and dust are the same for both tables.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import torch

from jobs.simulate.ssp import load
from sedflow_dist.simulation.shapes import draw_parameters
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.populations import PopulationModel
from storage_schemas.backend.location import Location

SPACE = Composition.of().space

LETTERS = "ugriz"
BANDS = tuple(f"sdss2010-{b}" for b in LETTERS)
_WINDOW_GYR = 0.1


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    tables = [load(Location.parse(url)) for url in sys.argv[1:]]
    _, theta, redshift = draw_parameters(SPACE, (0.001, 0.2), 1, "colours", 0, 20_000)
    first, second = (-2.5 * torch.log10(GalaxyModel(table, BANDS, 0.2).fluxes(theta, redshift)) for table in tables)
    model = PopulationModel(0.2, (1e-5, 0.1))
    recent = model.mass_formed_within(theta, model.epoch(redshift), _WINDOW_GYR)
    log_ssfr = torch.log10(recent / (_WINDOW_GYR * 1e9))
    samples = {
        "all": torch.ones_like(log_ssfr, dtype=torch.bool), "log sSFR > -10": log_ssfr > -10,
        "-11 < log sSFR < -10": (log_ssfr > -11) & (log_ssfr < -10), "log sSFR < -11": log_ssfr < -11,
    }  # fmt: skip
    colours = {f"{a}-{b}": (i, i + 1) for i, (a, b) in enumerate(pairwise(LETTERS))}
    print(f"{' '.join(sys.argv[1:])}: first minus second [mag], median (16 to 84 %)")
    for name, chosen in samples.items():
        cells = [("r", (first - second)[chosen, 2])]
        cells += [
            (c, ((first[:, i] - first[:, j]) - (second[:, i] - second[:, j]))[chosen]) for c, (i, j) in colours.items()
        ]
        row = [f"{name} ({int(chosen.sum()):,})"]
        for what, values in cells:
            if len(values):
                low, middle, high = torch.quantile(values, torch.tensor([0.16, 0.5, 0.84])).tolist()
                row.append(f"{what} {middle:+.3f} ({low:+.3f} {high:+.3f})")
        print("; ".join(row))


if __name__ == "__main__":
    main()
