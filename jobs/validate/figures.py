"""figures: the stores of a run in, pictures out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from jobs.config.run_file import RunFile
from jobs.export.whole import whole_file
from jobs.observed import observed
from jobs.report import galaxy
from jobs.validate.compare import chain_ranks
from sedflow_dist import keyed_random
from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.inference.summary import Method
from sedflow_dist.magnitudes import POGSON, magnitude
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.simulation.shapes import Shapes
from sedflow_dist.validation import coverage, plots
from sedflow_dist.validation.mock_galaxies import mock_galaxies
from storage_schemas import training_set, validation
from storage_schemas.backend.location import Location
from storage_schemas.catalog.schema import model_bytes, open_catalog

_MOCKS = 5000


def figures(run: RunFile) -> list[str]:
    """Draw the run's figures into its ``figures`` folder; return their names.

    Where its ``chains`` folder has chains of the model's mock galaxies, their ranks stand beside the flow's.
    """
    catalog = open_catalog(run.store("catalog"))
    flow = TrainedModel.from_bytes(*model_bytes(catalog))
    drawn = _of_catalog(catalog)
    arrays, _ = validation.read(run.store("validation"))
    complete = arrays["complete"]
    ranks = arrays["rank"][complete]
    drawn["pp.png"] = plots.pp(ranks, flow.space.quantities, coverage.check(ranks), "Posteriors of the flow")
    drawn["sbc.png"] = plots.sbc(ranks, flow.space.quantities, chain_ranks(flow, run.store("chains"), run.seed))
    drawn["tarp.png"] = plots.coverage({
        title: {kind: arrays[prefix + name][complete] for kind, prefix in (("plain", ""), ("weighted", "weighted_"))}
        for title, name in (("TARP", "tarp"), ("Expected coverage", "hpd"))
    })  # fmt: skip
    drawn["training_data.png"] = training_data(run, catalog, flow)
    return [save(figure, run.store("figures"), name) for name, figure in drawn.items()]


def of_catalog(source: Location, folder: Location) -> list[str]:
    """Draw what a catalog alone shows into a folder: masses and redshifts, and a typical galaxy; return the files' names."""
    catalog = open_catalog(source)
    drawn = _of_catalog(catalog)
    return [save(figure, folder, name) for name, figure in drawn.items()]


def _of_catalog(catalog) -> dict[str, Figure]:  # noqa: ANN001
    return {
        "mass_redshift.png": mass_redshift(catalog),
        "posterior_sed.png": galaxy.of_row(catalog, _typical(catalog)).figure,
    }


def mass_redshift(catalog) -> Figure:  # noqa: ANN001
    """Stellar mass against redshift of a whole catalog."""
    names, quantiles = list(catalog["param"].values), catalog["quantiles"].values
    redshift = catalog["redshift"].values
    if "redshift" in names:  # where it was inferred, its median
        redshift = np.where(np.isnan(redshift), quantiles[:, names.index("redshift"), 2], redshift)
    outside = Flag.NOISE_OUTSIDE_TRAINING | Flag.COLOUR_OUTSIDE_TRAINING | Flag.NOVEL
    doubtful = outside | Flag.LOW_EFFECTIVE_FRACTION | Flag.ABSURD_COLOUR
    flagged = (catalog["flags"].values & int(doubtful)) != 0
    return plots.mass_redshift(redshift, quantiles[:, names.index("log_mstar_surviving"), 1:4], flagged)


def training_data(run: RunFile, catalog, flow: TrainedModel) -> Figure:  # noqa: ANN001
    """The run's training data, as its model sees them, against the rows of the catalog that were answered."""
    try:
        rows = training_set.open(run.store("training")).read(0, training_set.NAMES)
    except FileNotFoundError:  # the model was trained elsewhere
        mocks = mock_galaxies(flow, _MOCKS, run.seed)
    else:
        shapes = Shapes(**{name: torch.as_tensor(values) for name, values in rows.items()})
        generator = torch.Generator().manual_seed(keyed_random.torch_seed(run.seed, "figures"))
        mocks = flow.survey().observe(shapes, _MOCKS, generator)
    seen = observed(catalog)[catalog["method"].values != Method.NONE]
    return plots.training_data(
        flow.spec.labels, flow.spec.selection_band, _magnitudes(mocks.photometry), _magnitudes(seen)
    )


def _magnitudes(photometry: Photometry) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes and their errors, (galaxy, band) [mag]; NaN where a flux is masked or not positive."""
    arrays = photometry.arrays()
    flux = np.where(arrays["mask"] & (arrays["flux"] > 0), arrays["flux"], np.nan)
    return magnitude(flux), POGSON * arrays["sigma"] / flux


def _typical(catalog) -> int:  # noqa: ANN001
    """The answered, unflagged row whose effective fraction is the median."""
    fraction = catalog["effective_fraction"].values
    clean = (catalog["flags"].values == 0) & np.isfinite(fraction)
    if not clean.any():
        clean = catalog["method"].values != Method.NONE
    rows = np.flatnonzero(clean)
    return int(rows[np.argsort(fraction[rows], kind="stable")[len(rows) // 2]])


def save(figure: Figure, folder: Location, name: str) -> str:
    """Write a figure into a folder, which is made where there is none; return the file's name."""
    if folder.is_local:
        Path(folder.url).mkdir(parents=True, exist_ok=True)
    with whole_file(folder / name) as file:
        figure.savefig(file, format=Path(name).suffix[1:], dpi=120, bbox_inches="tight")
    plots.plt.close(figure)
    return f"{folder}/{name}"
