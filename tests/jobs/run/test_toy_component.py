"""A thirteenth parameter and a component of an installed package, declared in this file alone, through the whole chain."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import xarray as xr
from paths import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import generate

from jobs.export import export
from jobs.infer import infer
from jobs.ingest.job import ingest_of
from jobs.run.plan import plan
from jobs.simulate.job import simulate
from jobs.train import train
from sedflow_dist.priors import Uniform
from sedflow_dist.quantities import Parameter
from sedflow_dist.sps.components import PROVABGS, Composition, Screen
from sedflow_dist.sps.dust import drude
from storage_schemas import open_catalog


class Bump(Screen):
    """Strength of the 2175 A bump, beside what the slope of the dust's curve brings."""

    name = "bump"
    parameters = (
        Parameter("bump", "1", "strength of the 2175 A bump", r"$B$", "phys.absorption", prior=Uniform(low=0, high=3)),
    )
    covers = "all stars"

    def curves(self, wavelength, piece):
        return (drude(wavelength),)

    def transmission(self, values, curves):
        return torch.exp(-values["bump"].unsqueeze(-1) * curves[0])


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What pip leaves of a package with the entry point: metadata on the path of this process and of all workers."""
    metadata = tmp_path / "site" / "toy_bump-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-bump\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[sedflow.components]\nbump = {Path(__file__).stem}:Bump\n")
    paths = [str(metadata.parent), str(Path(__file__).parent)]
    for path in paths:
        monkeypatch.syspath_prepend(path)
    known = [*paths, str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, known)))


@pytest.mark.slow
def test_a_toy_parameter_goes_through_simulate_train_infer_export_and_the_docs_table(installed, source, tmp_path):
    run = tiny.settings(
        tmp_path / "run", source, model={"components": [*PROVABGS, "bump"], "prior": {"bump": [0, 2]}},
        simulation={"n_galaxies": 4_000, "rows_per_chunk": 2_000},
    )  # fmt: skip
    ingest_of(run)
    assert [stage.name for stage in plan(run)]
    simulate(run)
    train(run)
    infer(run.store("photometry"), run.store("model"), run.store("catalog"), run.inference, run.seed, run.engines.dask)

    catalog = open_catalog(run.store("catalog").url)
    assert isinstance(catalog, xr.Dataset)
    answered = catalog["method"].values > 0
    assert answered.sum() > 400
    names = list(catalog["param"].values)
    assert names[:13] == [*Composition.of().space.names, "bump"]
    bump = catalog["quantiles"].sel(param="bump").values[answered]
    assert ((bump >= 0) & (bump <= 2)).all() and (np.diff(bump, axis=1) >= 0).all()
    assert catalog["draws"].sizes["coordinate"] == 12

    table = tmp_path / "catalog.csv"
    export(catalog, table)
    columns = pd.read_csv(table)
    np.testing.assert_allclose(columns["bump_p50"][answered], bump[:, 2], rtol=1e-6)

    rows = generate.quantities(run.model.composition().space, "ugriz")
    assert "| `bump` | 1 | phys.absorption | strength of the 2175 A bump |".replace(" 1 ", "  ") in rows
