"""A gallery of tables as astronomers have them: each through inspect, whose proposal works unedited, ingest and infer."""

import gzip
import io

import field_tables
import h5py
import numpy as np
import pytest
import tiny
import yaml
from astropy.io import fits
from field_tables import KJY, LAYOUTS, MAGNITUDES

from cluster.settings import DaskSettings
from jobs.config.sections import Inference
from jobs.infer import infer
from jobs.ingest.job import ingest
from jobs.inspect.job import inspection
from sedflow_dist import curves
from sedflow_dist.photometry.flags import REASONS
from sedflow_dist.photometry.survey import Survey
from storage_schemas import model as model_store
from storage_schemas import open_catalog

SETTINGS = Inference(n_draws=16, rows_per_shard=400, keep_draws=0, certificate=False)


def text(kind, compressed=False, before="", **options):
    def write(table, path):
        out = io.StringIO()
        table.write(out, format=kind, **options)
        content = (before + out.getvalue()).encode()
        path.write_bytes(gzip.compress(content) if compressed else content)
        return path

    return write


def astropys(**options):
    def write(table, path):
        table.write(path, **options)
        return path

    return write


def extension(table, path):
    """The photometry behind another table."""
    other = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=np.arange(3))], name="INFO")
    fits.HDUList([fits.PrimaryHDU(), other, fits.BinTableHDU(table, name="PHOT")]).writeto(path)
    return f"{path}[PHOT]"


def rail(table, path):
    with h5py.File(path, "w") as file:
        for name in table.colnames:
            file[f"photometry/{name}"] = np.asarray(table[name])
    return path


def votable(table, path):
    table.write(path, format="votable")
    return path


FITS, PARQUET, CSV = astropys(), astropys(), text("ascii.csv")
#: Ending, writer, layout of the columns; of all of them the same galaxies.
GALLERY = {
    "DESI sweeps in FITS": ("fits", FITS, LAYOUTS["DESI's names"]),
    "DESI in an extension": ("fits", extension, {"flux": "flux_{}", "error": "flux_ivar_{}", "ivar": True, "ra": "TARGET_RA",
                                                 "dec": "TARGET_DEC"}),
    "a match by TOPCAT": ("fits", FITS, LAYOUTS["uJy as stated, positions of a match"]),
    "SkyServer in CSV": ("csv", text("ascii.csv", before="#Table1\n"), LAYOUTS["nanomaggies, not stated"]),
    "SkyServer, magnitudes": ("csv", CSV, MAGNITUDES["SkyServer's names"]),
    "RAIL in HDF5": ("hdf5", rail, MAGNITUDES["RAIL's names"]),
    "RAIL in Parquet": ("pq", astropys(format="parquet"), MAGNITUDES["RAIL's names"]),
    "Rubin in Parquet": ("parquet", PARQUET, LAYOUTS["Rubin's names"]),
    "Rubin in CSV": ("csv.gz", text("ascii.csv", compressed=True), {"flux": "{}_psfFlux", "error": "{}_psfFluxErr", "scale": KJY,
                                                                   "ra": "coord_ra", "dec": "coord_dec", "z": "z_phot"}),
    "SExtractor in FITS": ("fits", FITS, MAGNITUDES["SExtractor's names"]),
    "DES in blanks": ("cat", text("ascii.commented_header"), {"flux": "MAG_AUTO_{}", "error": "MAGERR_AUTO_{}",
                                                             "kind": "magnitude", "bands": "UGRIZ", "z": "Z_SPEC"}),
    "VizieR in VOTable": ("vot", votable, MAGNITUDES["VizieR's names"] | {"unit": "mag"}),
    "VizieR in TSV": ("tsv", text("ascii.tab"), MAGNITUDES["VizieR's names"] | {"ra": "RAJ2000", "dec": "DEJ2000"}),
    "COSMOS in ECSV": ("ecsv", text("ascii.ecsv"), LAYOUTS["uJy as stated, positions of a match"] | {
        "ra": "ALPHA_J2000", "dec": "DELTA_J2000", "z": "zBest"}),
    "COSMOS in bars": ("psv", text("ascii.basic", delimiter="|"), {"flux": "{}_MAG", "error": "{}_MAGERR", "kind": "magnitude",
                                                                  "ra": "ALPHA_J2000", "dec": "DELTA_J2000", "z": "zBest"}),
    "GAMA in HDF5": ("h5", astropys(path="cat", serialize_meta=True), {"flux": "flux_{}", "error": "flux_err_{}", "scale": KJY,
                                                                       "unit": "nJy", "z": "Z_TONRY"}),
    "nJy, not stated": ("parquet", PARQUET, LAYOUTS["nJy, not stated"]),
    "bare f and e": ("dat", text("ascii.basic"), LAYOUTS["bare f and e"]),
    "cgs": ("fits", FITS, {"flux": "f_{}", "error": "e_{}", "scale": 3.631e-29, "unit": "erg / (s cm2 Hz)"}),
    "letters alone in IPAC": ("tbl", text("ascii.ipac"), MAGNITUDES["letters alone"]),
    "letters alone in semicolons": ("csv", text("ascii.csv", delimiter=";"), MAGNITUDES["letters alone"]),
    "gzipped FITS": ("fits.gz", FITS, {"flux": "FLUX_{}", "error": "FLUXERR_{}", "bands": "UGRIZ", "unit": "nmgy"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_model(learnt_flow, tmp_path_factory):
    """Where a small model is, and its bands."""
    where = tiny.location(tmp_path_factory.mktemp("model") / "model")
    model_store.write(where, *learnt_flow.to_bytes())
    return where, curves.names(learnt_flow.spec.bands)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GALLERY)
def test_a_table_of_the_field_becomes_a_catalog(name, small_model, dask, tmp_path):
    ending, write, layout = GALLERY[name]
    source = write(field_tables.table(**layout), tmp_path / f"mine.{ending}")
    survey = Survey.model_validate(yaml.safe_load("\n".join(inspection(str(source))))["survey"])
    store = ingest(source, survey, tiny.location(tmp_path / "photometry"), 400)

    flux, sigma, about = field_tables.galaxies()
    softened = 0.05 if survey.softening else 0.0  # SDSS's magnitudes are asinh magnitudes, these here are not
    np.testing.assert_allclose(store.group["flux"][:], flux, rtol=1e-6 + softened)
    np.testing.assert_allclose(
        store.group["sigma"][:], np.hypot(sigma, survey.model_error * flux), rtol=1e-4 + softened
    )
    np.testing.assert_allclose(store.group["redshift"][:], about["Z"], rtol=1e-6)
    np.testing.assert_allclose(store.group["ra"][:], about["RA"], rtol=1e-9)
    assert list(map(int, store.group["ids/ID"][:])) == list(range(1000, 1000 + len(flux)))

    where, bands = small_model
    out = tiny.location(tmp_path / "catalog")
    if curves.names(survey.bands) != bands:  # filters are never stated: which they are, only the user knows
        with pytest.raises(ValueError, match=r"has bands .*; model .* was trained on"):
            infer(store.location, where, out, SETTINGS, 1, DaskSettings(address=dask))
        as_sdss = survey.model_copy(update={"bands": bands})
        store = ingest(source, as_sdss, tiny.location(tmp_path / "photometry_as_sdss"), 400)
    infer(store.location, where, out, SETTINGS, 1, DaskSettings(address=dask))
    catalog = open_catalog(out)
    known = (catalog["flags"].values & int(REASONS)) == 0
    assert known.mean() > 0.9 and np.isfinite(catalog["quantiles"].values[known]).any(axis=(1, 2)).all()
