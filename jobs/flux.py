"""flux: a table of parameters in, a table of model fluxes out, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jobs.containers.tables import Table
from jobs.export.whole import Destination, whole_file
from jobs.simulate.ssp import load
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps import bagpipes_libraries
from sedflow_dist.sps import ssp as ssp_module
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas.backend.location import Location


def flux(
    parameters: Path,
    survey: Survey,
    ssp: str,
    out: Destination,
    birth_cloud_age: float,
    composition: Composition,
) -> int:
    """Write fluxes [nanomaggies] in the survey's bands for each row of ``parameters``; return rows.

    The columns are the parameters of the galaxy model, as ``composition`` has them, and ``z``.

    Raises:
        ValueError: a column is missing, or a parameter means nothing to the model; names the row.
    """
    table = Table(parameters)
    names = composition.space.names
    table.require((*names, "z"))
    theta, redshift = (torch.as_tensor(table.numbers(columns)) for columns in (names, ["z"]))
    redshift = redshift.squeeze(1)
    library = (
        bagpipes_libraries.add(ssp_module.bc03_miles(), composition.needs)
        if ssp == "bc03"
        else load(Location.parse(ssp))
    )
    z_max = float(redshift[torch.isfinite(redshift)].clamp(min=0.01).max()) if len(redshift) else 0.01
    model = GalaxyModel(library, survey.bands, z_max * (1 + 1e-6), composition, birth_cloud_age)
    fluxes = model.fluxes(theta, redshift).numpy()
    header = ",".join(f"f_{label}" for label in survey.labels)
    with whole_file(out) as file:
        np.savetxt(file, fluxes, fmt="%.8g", delimiter=",", header=header, comments="")
    return len(fluxes)
