"""Forward model: galaxies per second and core, against a plain per-galaxy float64 loop in the same run.

The rival is tests/helpers/reference_galaxy.py: numpy, astropy and speclite, full wavelength resolution, one galaxy at a time.
Then what gas, dust emission and the intergalactic medium cost, at six bands.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from common import best_of, peak_memory_mb, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import reference_galaxy

from sedflow_dist.sps import bagpipes_libraries
from sedflow_dist.sps.components import PROVABGS, Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import bc03_miles

SPACE = Composition.of().space

BANDS = tuple(f"sdss2010-{b}" for b in "ugriz")
SIX_BANDS = (*BANDS, "wise2010-W1")
EVERYTHING = ("stars", "nebular", *PROVABGS[1:], "dust_emission", "igm")
#: Components and fixed parameters.
COMPOSITIONS = {
    "stars and dust screens": (PROVABGS, {}),
    "and gas, log U fixed": (("stars", "nebular", *PROVABGS[1:]), {"log_u": -2.0}),
    "and gas, log U free": (("stars", "nebular", *PROVABGS[1:]), {}),
    "everything, all parameters free": (EVERYTHING, {}),
}


def with_everything() -> None:
    """Print what components cost: galaxies a second, and draws a second at one redshift."""
    table = bagpipes_libraries.add(bc03_miles(), ("nebular", "dust"))
    generator = torch.Generator().manual_seed(2)
    for name, (components, fixed) in COMPOSITIONS.items():
        model = GalaxyModel(table, SIX_BANDS, 0.2, Composition.of(components, fixed))
        u = torch.rand(20_000, len(model.space.coordinates), generator=generator)
        theta, redshift = model.space.from_unit(u), 0.001 + 0.198 * torch.rand(len(u), generator=generator)
        rate = len(theta) / best_of(5, lambda m=model, t=theta, z=redshift: m.fluxes(t, z))
        draws, some, z = RedshiftModel(model), theta[:16_384].view(16, 1024, -1), redshift[:16]
        many = 16_384 / best_of(3, lambda d=draws, t=some, z=z: [d(t[i : i + 8], z[i : i + 8]) for i in (0, 8)])
        report(f"ugriz and W1: {name}", f"{rate:,.0f} galaxies/s, {many:,.0f} draws/s")


def main() -> None:
    torch.set_num_threads(1)
    model = GalaxyModel(bc03_miles(), BANDS, 0.2)
    generator = torch.Generator().manual_seed(1)
    theta = SPACE.from_unit(torch.rand(40_000, 11, generator=generator))
    redshift = 0.001 + 0.198 * torch.rand(40_000, generator=generator)
    seconds = best_of(5, lambda: model.fluxes(theta, redshift))
    rate = len(theta) / seconds

    reference = reference_galaxy.load_bc03_miles()
    rows = [dict(zip(SPACE.names, row, strict=True)) for row in theta[:20].double().tolist()]

    def loop() -> None:
        for row, z in zip(rows, redshift[:20].tolist(), strict=True):
            reference_galaxy.fluxes(row, z, list(BANDS), reference)

    slow = 20 / best_of(3, loop)
    draws = RedshiftModel(model)
    some, z = theta[:32_768].view(32, 1024, -1), redshift[:32]
    many = 32_768 / best_of(5, lambda: [draws(some[i : i + 8], z[i : i + 8]) for i in range(0, 32, 8)])
    report("forward model, ugriz, one core", f"{rate:,.0f} galaxies/s")
    report("plain float64 loop, one core", f"{slow:,.1f} galaxies/s")
    report("ratio", f"{rate / slow:,.0f}")
    report("many draws at one redshift, with rest frame", f"{many:,.0f} draws/s")
    with_everything()
    report("peak memory", f"{peak_memory_mb():,.0f} MB")


if __name__ == "__main__":
    main()
