"""The page of the data model is that of a catalog, and each column holds what its name says."""

import re
from pathlib import Path

import made_catalog
import numpy as np
import pyarrow.parquet
import pytest
import tiny
import zarr
from astropy.io.votable import ucd
from astropy.table import Table
from paths import ROOT
from provabgs import SPACE

from jobs.catalog.draws import engine
from jobs.columns import INFERRED
from jobs.config.sections import Inference
from jobs.export import export
from jobs.infer import infer
from jobs.ingest.job import ingest
from jobs.observed import observed
from sedflow_dist.inference.summary import METHODS, Method
from sedflow_dist.photometry.surveys import healpix
from sedflow_dist.sps import derived
from storage_schemas import open_catalog, photometry
from storage_schemas.backend.arrays import all_arrays
from storage_schemas.catalog import schema as catalog

PAGE = ROOT / "docs" / "data-model.md"
#: What the endings of columns promise.
PROBABILITIES = {"p025": 0.025, "p16": 0.16, "p50": 0.5, "p84": 0.84, "p975": 0.975}


def rows_of_page(title):
    """Rows of the first table behind a heading, as lists of cells."""
    part = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0].partition("\nAttributes:")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def attributes_of_page():
    part = PAGE.read_text().partition("Attributes:")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", part, re.M))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    where = tiny.location(tmp_path_factory.mktemp("made") / "catalog")
    made_catalog.publish(where, 500, 128, True)
    return where


def test_the_page_lists_what_a_catalog_holds(made):
    members = all_arrays(zarr.open_group(catalog.store(made), mode="r"))
    arrays = {name: cells for name, *cells in rows_of_page("Arrays")}
    beside = {name: cells for name, *cells in rows_of_page("Beside the rows")}
    assert set(members) - {"ids/objectId"} == (set(arrays) | set(beside)) - {"ids/ID", "draws", "draw_redshift"}
    for name, (dims, dtype, unit, word, _, meaning) in arrays.items():
        if name in members:
            found = members[name]
            assert ", ".join(found.metadata.dimension_names) == dims
            assert str(found.dtype) == dtype
            assert found.attrs["units"] == (unit or "1")
            assert found.attrs.get("ucd", "") == word
            assert found.attrs["long_name"].startswith(meaning)
    attributes = zarr.open_group(catalog.store(made), mode="r").attrs
    assert set(attributes) == attributes_of_page()


def test_every_ucd_is_one():
    specs = catalog.arrays(INFERRED, {"ID": "int64"})
    words = {spec.ucd for spec in specs if not {"param", "draw"} & set(spec.dims)} | {
        cells[2] for cells in rows_of_page("Parameters and properties")
    }
    assert "" not in words
    for word in words:
        assert ucd.check_ucd(word, check_controlled_vocabulary=True), word


def test_every_method_has_its_words():
    assert list(METHODS) == list(Method)
    words = {
        Method.NONE: "none", Method.FLOW: "flow", Method.WEIGHTED: "importance-weighted flow", Method.MORE_DRAWS: "more draws",
        Method.SHORT_MCMC: "short MCMC", Method.MCMC: "MCMC",
    }  # fmt: skip
    for method, word in words.items():
        assert word in METHODS[method]


def test_bytes_per_galaxy_are_told(made):
    sizes = catalog.sizes(made)
    stored = sum(path.stat().st_size for path in Path(made.url, "chunks").iterdir())
    assert 0.5 * stored < 500 * sum(sizes.values()) < 1.5 * stored  # small chunks stand in manifests
    assert set(sizes) == {spec.name for spec in catalog.arrays(INFERRED, {"objectId": "int64"})} - {
        "draws",
        "draw_redshift",
    }


# -- what columns hold ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(local, source, tmp_path_factory):
    """Forty rows with 4,096 draws as a table, the catalog, and its photometry."""
    folder = tmp_path_factory.mktemp("forty")
    Table.read(source)[:40].write(folder / "forty.fits")
    where, out = tiny.location(folder / "photometry"), tiny.location(folder / "catalog")
    ingest(folder / "forty.fits", local.survey_definition, where, 16)
    settings = Inference(n_draws=4096, rows_per_shard=16, routing=local.inference.routing)
    infer(where, local.store("model"), out, settings, local.seed, local.engines.dask)
    data = open_catalog(out)
    export(data, folder / "c.parquet")
    return pyarrow.parquet.read_table(folder / "c.parquet"), data, photometry.open(where)


def test_summaries_are_those_of_the_replayed_draws(answered):
    """The share of the draws' weight below each quantile is what the column's name says, to the weight of one draw."""
    table, data, _ = answered
    router, methods = engine(data), data["method"].values
    names = [q.name for q in derived.columns(SPACE, [str(label) for label in data["band"].values])]
    rows = np.flatnonzero((methods == Method.FLOW) | (methods == Method.WEIGHTED))
    assert len(rows) > 20
    for row in rows:
        at = np.array([row])
        values, weight = (
            x[0].double().numpy() for x in router.weighted(observed(data.isel(galaxy=at)), at, methods[at], 4096)
        )
        one = weight.max() + 1e-6
        for i, name in enumerate(names):
            draws = values[:, i]
            for ending, probability in PROBABILITIES.items():
                quantile = table[f"{name}_{ending}"][row].as_py()
                room = 1e-5 * max(abs(quantile), 1)
                below, up_to = weight[draws < quantile - room].sum(), weight[draws <= quantile + room].sum()
                assert below - one <= probability <= up_to + one, (row, name, ending, below, up_to)
            mean = (weight * draws).sum()
            std = np.sqrt((weight * (draws - mean) ** 2).sum())
            np.testing.assert_allclose(table[f"{name}_mean"][row].as_py(), mean, rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(table[f"{name}_std"][row].as_py(), std, rtol=2e-3, atol=1e-5, err_msg=name)


def test_what_is_passed_on_is_the_photometry(answered):
    table, data, store = answered
    for name in (*photometry.DATA, *photometry.PASSED):
        stored = np.asarray(store.group[name][:])
        if name != "flags":  # inference adds some
            np.testing.assert_array_equal(data[name].values, stored, err_msg=name)
    for name, column in {"ra": "ra", "dec": "dec", "healpix_29": "_healpix_29", "input_row": "input_row"}.items():
        np.testing.assert_array_equal(table[column].to_numpy(), np.asarray(store.group[name][:]), err_msg=name)
    np.testing.assert_array_equal(table["_healpix_29"].to_numpy(), healpix(data["ra"].values, data["dec"].values))
    np.testing.assert_array_equal(table["n_bands"].to_numpy(), data["mask"].values.sum(1))
    assert table["redshift"].to_numpy()[tiny.FAR] == pytest.approx(0.7)


def test_the_certificate_is_of_the_weights(answered):
    """Effective fraction of the weights, and chi^2 of the best draw, from the draws themselves."""
    table, data, _ = answered
    router, methods = engine(data), data["method"].values
    rows = np.flatnonzero(methods == Method.WEIGHTED)
    assert len(rows) >= 1
    for row in rows:
        at = np.array([row])
        draws = router.posterior.draw(observed(data.isel(galaxy=at)), at, 4096)
        assert table["effective_fraction"][row].as_py() == pytest.approx(float(draws.effective_fraction[0]), rel=1e-3)
        assert table["chi2"][row].as_py() == pytest.approx(float(draws.chi2.min()), rel=1e-3)
        assert table["log_evidence"][row].as_py() == pytest.approx(float(draws.log_evidence[0]), rel=1e-3)
