"""PROVABGS's own columns: read as its users' scripts read them, its draws those of the catalog, what is not there said."""

import warnings

import numpy as np
import pytest
import small
import tiny
import torch
import xarray as xr
from astropy.table import Table, join
from astropy.units import dex, solMass

from jobs.catalog.draws import replay
from jobs.export import export
from jobs.export.provabgs import N_DRAWS, NEVER, PARAMETERS, columns, needed, tell
from sedflow_dist import load_model
from sedflow_dist.flow.model_spec import ModelSpec
from sedflow_dist.parameters import to_16_bits
from sedflow_dist.sps.chosen import Selection
from storage_schemas import open_catalog
from storage_schemas.backend.location import Location
from storage_schemas.photometry import ID_MISSING, OBSERVED

N = 24
SELECTION = Selection(band="r", magnitude=18.2)
THETA_BF, MCMC = "PROVABGS_THETA_BF", "PROVABGS_MCMC"


@pytest.fixture(scope="module")
def run(small_run, mocks, tmp_path_factory):
    """Two catalogs of 24 mock galaxies of known and unknown identity: one keeps draws, and says z_max; row 3 has no redshift."""
    made = small_run(tiny.location(tmp_path_factory.mktemp("provabgs")))
    values = small.rows_of(mocks, N)
    values["redshift"][3] = np.nan
    values["flags"][3] = 1 << 3
    values["healpix_29"] = np.where(np.arange(N) == 6, -1, values["healpix_29"] << 44)
    made.write(values)
    made.infer()
    made.infer(out=made.root / "kept", keep_draws=N_DRAWS, selection=SELECTION)
    return made


@pytest.fixture(scope="module")
def catalog(run):
    return open_catalog(run.catalog)


@pytest.fixture(scope="module")
def table(catalog, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "provabgs.hdf5"
    assert export(catalog, out) == N
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one table, where astropy looks for it
        return Table.read(out)


def test_a_script_for_the_published_table_reads_it(catalog, table):
    """As the scripts of AstroCLIP and of the Multimodal Universe select rows and take what they need."""
    bands = (table["MAG_G"] > 0) * (table["MAG_R"] > 0) * (table["MAG_Z"] > 0)
    chosen = table[(table["PROVABGS_LOGMSTAR_BF"] > 0) * bands]
    answered = catalog["method"].values != 0
    measured = catalog["mask"].values[:, [1, 2, 4]].all(1)
    assert len(chosen) == (answered & measured).sum() and 0 < len(chosen) < answered.sum() < N
    thetas, redshifts = chosen[THETA_BF][:, : len(PARAMETERS)], chosen["Z_HP"]
    assert isinstance(redshifts[0], float) and thetas.dtype == np.float64 and np.isfinite(thetas).all()
    np.testing.assert_allclose(thetas[:, 1:5].sum(1), 1, atol=1e-5)  # its model asserts that the weights sum to one
    others = Table({"Z_HP": catalog["redshift"].values[answered], "n": np.flatnonzero(answered)})
    assert len(join(chosen, others, keys="Z_HP")) == len(chosen)
    assert table[MCMC].shape == (N, N_DRAWS, len(PARAMETERS) + 1) and table["PROVABGS_LOGMSTAR"].shape == (N, N_DRAWS)
    assert table["RA"].unit == "deg" and table["PROVABGS_LOGMSTAR"].unit == dex(solMass)
    assert table["MAG_G"].description.startswith("AB magnitude in sdss2010-g") and table.meta["MODEL"]


def test_rows_without_an_answer_are_as_published(catalog, table):
    """Scripts drop them by > 0, or by != -999."""
    lost = catalog["method"].values == 0
    assert lost[3]
    for name in (MCMC, THETA_BF, "PROVABGS_LOGMSTAR", "PROVABGS_LOGMSTAR_BF"):
        found = np.asarray(table[name])
        assert (found[lost] == -999).all() and not (found[~lost] == -999).any()
    fibre = len(PARAMETERS)
    assert np.isnan(table[MCMC][~lost][..., fibre]).all() and np.isnan(table[THETA_BF][~lost][:, fibre]).all()


def test_what_is_observed_is_the_catalogs(catalog, table):
    flux = np.where(catalog["mask"].values & (catalog["flux"].values > 0), catalog["flux"].values, np.nan)
    for place, name in ((1, "MAG_G"), (2, "MAG_R"), (4, "MAG_Z")):
        np.testing.assert_allclose(table[name], 22.5 - 2.5 * np.log10(flux[:, place].astype(float)), rtol=1e-12)
    assert np.isnan(table["MAG_G"]).any()
    for ours, name in (("ra", "RA"), ("dec", "DEC"), ("redshift", "Z_HP")):
        np.testing.assert_array_equal(table[name], catalog[ours].values)
    assert table["HPIX_64"].tolist() == [-999 if n == 6 else n // 4 for n in range(N)]
    assert not {"TARGETID", "MAG_W1", "SCHLEGEL_COLOR", "PROVABGS_Z_MAX", *NEVER} & set(table.colnames)


def test_draws_are_of_those_that_the_command_draws_replays(catalog, table):
    rows = np.flatnonzero(catalog["method"].values)[:4].tolist()
    draws, names = replay(catalog, rows, small.SETTINGS.n_draws)
    places = [names.index(name) for name in (*PARAMETERS, "log_mstar_surviving")]
    for row, every in zip(rows, draws[..., places], strict=True):
        found = np.column_stack([table[MCMC][row][:, : len(PARAMETERS)], table["PROVABGS_LOGMSTAR"][row]])
        nearest = np.abs(found[:, None] - every).max(-1).min(1)  # all are among them, but for rounding of the mass
        assert (nearest < 1e-5).mean() > 0.9


def test_the_best_fit_is_the_draw_of_the_highest_likelihood(catalog, table, flow):
    """Of galaxies evaluated by the model that draws are made by, and compared with the data by numpy."""
    rows = np.flatnonzero(catalog["method"].values)[:3]
    flux, sigma, mask, redshift = (catalog[name].values[rows] for name in OBSERVED)
    theta = torch.as_tensor(np.asarray(table[MCMC])[rows, :, : len(PARAMETERS)]).float()
    model = flow.redshift_model(theta, torch.as_tensor(redshift)).flux.numpy() * 10.0 ** theta[..., :1].numpy()
    chi2 = (np.where(mask[:, None], (model - flux[:, None]) / np.where(mask, sigma, 1)[:, None], 0) ** 2).sum(-1)
    for i, row in enumerate(rows):
        best = np.flatnonzero((theta[i].numpy() == np.float32(table[THETA_BF][row, : len(PARAMETERS)])).all(1))
        assert chi2[i, best[0]] < chi2[i].min() * 1.001 + 1e-3
        assert table["PROVABGS_LOGMSTAR_BF"][row] in table["PROVABGS_LOGMSTAR"][row, best]
        assert table["PROVABGS_LOGMSTAR_BF"][row] < table[THETA_BF][row, 0]  # some of it does not survive


def test_draws_that_a_catalog_keeps_are_taken_and_z_max_with_them(run, table, tmp_path, capsys, flow):
    kept = open_catalog(run.root / "kept")
    export(kept, tmp_path / "mine.provabgs.hdf5")
    assert "replayed" not in capsys.readouterr().err
    found = Table.read(tmp_path / "mine.provabgs.hdf5")
    answered = kept["method"].values != 0
    ours, replayed = (
        to_16_bits(flow.space.to_unit(torch.as_tensor(np.asarray(one[MCMC])[answered, :, : len(PARAMETERS)]).float()))
        for one in (found, table)
    )
    step = np.abs(ours.astype(int) - replayed.astype(int))
    assert (step <= 3).mean() > 0.999  # the same draws, kept to 16 bits
    place = kept["param"].values.tolist().index("z_max")
    median = kept["quantiles"].values[:, place, 2]
    np.testing.assert_array_equal(found["PROVABGS_Z_MAX"], np.where(answered, median, -999))
    assert "18.2" in found["PROVABGS_Z_MAX"].description


def test_selected_rows_are_the_same_rows(catalog, table, tmp_path):
    """Draws are keyed by the row in the catalog, not in the selection."""
    export(catalog.isel(galaxy=slice(10, 14)), tmp_path / "provabgs.hdf5")
    some = Table.read(tmp_path / "provabgs.hdf5")
    for name in table.colnames:
        np.testing.assert_allclose(some[name], table[name][10:14], rtol=1e-6, err_msg=name)
    assert export(catalog.isel(galaxy=slice(0, 0)), tmp_path / "none.provabgs.hdf5") == 0
    assert len(Table.read(tmp_path / "none.provabgs.hdf5")) == 0


def test_it_reaches_a_bucket(catalog, table, s3_server, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = Location.parse("s3://galaxies/exported")
    export(catalog.isel(galaxy=slice(0, 2)), bucket / "provabgs.hdf5")
    (tmp_path / "here.hdf5").write_bytes(bucket.get("provabgs.hdf5"))
    assert Table.read(tmp_path / "here.hdf5")["Z_HP"].tolist() == table["Z_HP"][:2].tolist()


def test_what_is_left_out_is_said_with_the_reason(catalog, tmp_path, capsys):
    export(catalog.isel(galaxy=slice(0, 1)), tmp_path / "provabgs.hdf5")
    said = capsys.readouterr().err
    assert "TARGETID is left out: no identifier is called so" in said
    assert "PROVABGS_Z_MAX is left out: the catalog was made without inference.selection" in said
    assert "MAG_W1 is left out" in said and "draws are replayed" in said
    assert all(name in said for name in NEVER)


def test_what_is_refused(catalog, tmp_path):
    with pytest.raises(ValueError, match=r"provabgs.hdf5 has PROVABGS's own columns: --columns chooses for \.fits"):
        export(catalog, tmp_path / "provabgs.hdf5", ["log_mstar"])
    with pytest.raises(ValueError, match=r"the ending must be one of .*_hats, \.qp\.hdf5, provabgs\.hdf5"):
        export(catalog, tmp_path / "c.hdf5")
    smc = load_model("sdss").spec.model_copy(update={"components": ("stars", "birth_cloud", "smc"), "prior": {}})
    with pytest.raises(ValueError, match=r"the model of this catalog \(stars, birth_cloud, smc\) lacks n_dust"):
        columns(catalog, smc)
    assert list(tmp_path.iterdir()) == []


# -- DESI's own -------------------------------------------------------------------------------------------------------


def desi(ids):
    """A stand-in of a catalog by the model desi: rows of both footprints, identifiers (name -> dtype and values)."""
    n, spec = len(next(iter(ids.values()))), load_model("desi").spec
    flux = np.tile(np.array([2, 3, 4, 0, 0, 0, 5, 6], np.float32), (n, 1))
    flux[1:] = [0, 0, 0, 2, 3, 4, 5, 6]
    mask = flux > 0
    flux[-1, 6] = -1.0
    arrays = {
        "flux": (("galaxy", "band"), flux), "mask": (("galaxy", "band"), mask),
        "healpix_29": ("galaxy", np.zeros(n, np.int64)), ID_MISSING: (("galaxy", "identifier"), np.zeros((n, len(ids)), bool)),
        **{name: ("galaxy", values) for name, values in ids.items()},
    }  # fmt: skip
    attributes = {"ids": list(ids), "id_variables": {name: name for name in ids}, "param_meanings": [""]}
    return xr.Dataset(arrays, {"param": ["log_mstar"]}, attributes), spec


def made(data, spec: ModelSpec):
    arrays = {name: data[name].values for name in needed(data) if name in data}
    columns_ = columns(data, spec)
    wanted = {"TARGETID", "MAG_G", "MAG_R", "MAG_Z", "MAG_W1", "SCHLEGEL_COLOR"}
    return {one.column.name: one.of(arrays) for one in columns_ if one.column.name in wanted}


def test_both_footprints_have_the_published_magnitudes():
    data, spec = desi({"TARGETID": np.array([5, 6, 2**62 + 1])})
    found = made(data, spec)
    assert found["TARGETID"].tolist() == [5, 6, 2**62 + 1]
    g, r, z, w1 = (22.5 - 2.5 * np.log10(flux) for flux in (2.0, 3.0, 4.0, 5.0))
    for name, value in (("MAG_G", g), ("MAG_R", r), ("MAG_Z", z)):
        np.testing.assert_allclose(found[name], value, rtol=1e-14)
    np.testing.assert_allclose(found["MAG_W1"], [w1, w1, np.nan])
    np.testing.assert_allclose(found["SCHLEGEL_COLOR"], [*[(z - w1) - 1.2 * (g - r) + 1.2] * 2, np.nan])


def test_a_targetid_is_made_of_what_the_legacy_surveys_call_an_object():
    """That of a galaxy of the published table at 273.73, 65.51 deg: release 9011 is northern, brick 632233 is there."""
    ids = {"RELEASE": [9011, 9010, 0], "BRICKID": [632233, 1, 0], "OBJID": [3553, 0, 0]}
    data, spec = desi({name: np.array(values, np.int64) for name, values in ids.items()})
    data[ID_MISSING].values[2, 0] = True
    assert made(data, spec)["TARGETID"].tolist() == [39633448888962529, (9010 << 42) + (1 << 22), -999]
    data["OBJID"].values[1] = 1 << 22
    with pytest.raises(
        ValueError, match="objid 4194304 is no part of a TARGETID, which has 22 bits of it: 0 to 4194303"
    ):
        made(data, spec)


def test_parameters_that_provabgs_lacks_are_dropped_and_said(capsys):
    data, spec = desi({"TARGETID": np.array([5, 6])})
    tell(columns(data, spec), spec)
    assert "the model's q_pah, gamma_dust are left out" in capsys.readouterr().err
