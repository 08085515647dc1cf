"""What dust takes of galaxies' light, summed over every pixel of a table, and what a model with dust emission has it emit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.sps import galaxy_model
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.libraries import hat
from sedflow_dist.sps.ssp import SSPTable

#: A dust, and one by whose light a galaxy's differs in proportion to the energy that both emit.
ONE_DUST, OTHER_DUST = (
    {"u_min": 1.0, "q_pah": 2.5, "gamma_dust": 0.01}, {"u_min": 20.0, "q_pah": 2.5, "gamma_dust": 0.1},
)  # fmt: skip


def draws(space: ParameterSpace, n: int, seed: int) -> Tensor:
    """Galaxies of the prior, per solar mass: half with a burst of up to 20 Myr, some with five times the prior's dust, some with
    1e-3 of it."""
    unit = torch.rand(n, len(space.coordinates), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = space.from_unit(unit)
    values = space.values(theta)
    values["log_mstar"].fill_(0.0)
    values["t_burst"][::2] *= 0.02 / 13.27
    for name in ("tau_bc", "tau_ism"):
        values[name][::5] *= 5
        values[name][1::7] *= 1e-3
    return theta


def absorbed(
    table: SSPTable, components: tuple[str, ...], theta: Tensor, space: ParameterSpace, patch
) -> tuple[Tensor, Tensor]:
    """Luminosities of galaxies without dust, and what dust takes of them: sums over the whole table, no pixel cut away.

    Gas of a free log U is the tabulated one mixed: models of fixed log U, linear between the nodes as all light is.
    """
    patch.setattr(galaxy_model, "rest_range", lambda bands, z_max, edges: (edges[0], edges[-1]))
    width = torch.as_tensor(np.diff(table.edges))
    log_u = space.values(theta)["log_u"]
    shares = hat(table.nebular.log_u, log_u.clone())
    found = torch.zeros(2, len(theta), dtype=torch.float64)
    for node in torch.nonzero(shares.sum(0)).squeeze(1).tolist():
        composition = Composition.of(components, {"log_u": float(table.nebular.log_u[node])})
        model = GalaxyModel(table, ["galex-nuv"], 0.2, composition, dtype=torch.float64)
        own = theta[:, [space.names.index(name) for name in composition.space.names]]
        bare = own.clone()
        for name in ("tau_bc", "tau_ism"):
            composition.space.values(bare)[name].zero_()
        for rows in torch.nonzero(shares[:, node]).squeeze(1).split(500):
            z = torch.full((len(rows),), 0.1, dtype=torch.float64)
            before, after = ((model.spectra(of[rows], z) * width).sum(-1) for of in (bare, own))
            found[:, rows] += shares[rows, node] * torch.stack([before, before - after])
    return found[0], found[1]


def emitted(table: SSPTable, components: tuple[str, ...], theta: Tensor, space: ParameterSpace, log_u=None) -> Tensor:
    """Luminosities of dust, before it is cut off by the bands: how galaxies' light with one dust differs from that with another,
    over how those dusts differ for a luminosity of one. All other light of the model cancels."""
    prior = {} if log_u is None else {"log_u": log_u}
    composition = Composition.of((*components, "dust_emission"), prior)
    model = GalaxyModel(table, ["sdss2010-r", "wise2010-W4"], 0.2, composition, dtype=torch.float64)
    spectra, template = [], []
    for dust in (ONE_DUST, OTHER_DUST):
        columns = [
            torch.full((len(theta),), dust[name]) if name in dust else theta[:, space.names.index(name)]
            for name in composition.space.names
        ]
        of = torch.stack(columns, 1)
        z = torch.full((500,), 0.1, dtype=torch.float64)
        spectra.append(torch.cat([model.spectra(rows, z[: len(rows)]) for rows in of.split(500)]))
        rows, share = model.dust_mixture(composition.space.values(of[:1]))
        template.append((model.dust_templates[rows] * share.unsqueeze(-1)).sum(-2)[0])
    at = int((template[1] - template[0]).abs().argmax())
    return (spectra[1] - spectra[0])[:, at] / (template[1] - template[0])[at]
