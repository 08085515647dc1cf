"""flux: a table of parameters in, a table of model fluxes out, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jobs.export.whole import Destination, whole_file
from jobs.ingest.tables import Table
from jobs.simulate.ssp import load
from sedflow_dist.parameters import PARAMETERS
from sedflow_dist.photometry.surveys import Survey
from sedflow_dist.sps import ssp as ssp_module
from sedflow_dist.sps.forward_model import ForwardModel
from storage_schemas.backend.location import Location

HEADER = (*PARAMETERS, "z")


def flux(parameters: Path, survey: Survey, ssp: str, out: Destination, birth_cloud_age: float) -> int:
    """Write fluxes [nanomaggies] in the survey's bands for each row of ``parameters`` (columns `HEADER`); return rows.

    Raises:
        ValueError: a column is missing, or a parameter means nothing to the model; names the row.
    """
    table = Table(parameters)
    table.require(HEADER)
    values = torch.as_tensor(table.numbers(HEADER))
    library = ssp_module.bc03_miles() if ssp == "bc03" else load(Location.parse(ssp))
    redshift = values[:, -1]
    z_max = float(redshift[torch.isfinite(redshift)].clamp(min=0.01).max()) if len(redshift) else 0.01
    model = ForwardModel(library, survey.bands, z_max * (1 + 1e-6), birth_cloud_age)
    fluxes = model.fluxes(values[:, :-1], redshift).numpy()
    header = ",".join(f"f_{label}" for label in survey.labels)
    with whole_file(out) as file:
        np.savetxt(file, fluxes, fmt="%.8g", delimiter=",", header=header, comments="")
    return len(fluxes)
