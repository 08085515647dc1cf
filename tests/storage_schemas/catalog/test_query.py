"""Selections by position and identifier: the right rows, whatever their order, and of a store no more than they need."""

import made_catalog
import numpy as np
import pytest
import tiny
from counting_s3 import BUCKET, serve

from jobs.columns import INFERRED
from sedflow_dist.photometry.surveys import healpix
from storage_schemas import Location, open_catalog
from storage_schemas.catalog.schema import arrays, diff

N, ROWS_PER_SHARD = 12_000, 1024
N_ARRAYS = len(arrays(INFERRED, {"objectId": "int64"})) - 2  # no draws are kept, nor their redshifts


@pytest.fixture(scope="module", params=[True, False], ids=["HEALPix order", "input's order"])
def catalog(request, tmp_path_factory):
    where = tiny.location(tmp_path_factory.mktemp("catalog") / "catalog")
    made_catalog.publish(where, N, ROWS_PER_SHARD, request.param)
    return open_catalog(where)


@pytest.fixture(scope="module")
def s3():
    with pytest.MonkeyPatch.context() as patch, serve(patch) as counted:
        made_catalog.publish(Location.parse(f"s3://{BUCKET}/catalog"), N, ROWS_PER_SHARD, True)
        yield counted


def distance_deg(ra, dec, ra_0, dec_0):
    """Exact separation by vectors."""

    def vector(ra, dec):  # fmt: skip
        ra, dec = np.radians(ra), np.radians(dec)
        return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec) + 0 * ra])

    chord = np.linalg.norm(vector(ra, dec) - vector(ra_0, dec_0)[:, None], axis=0)
    return np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1)))


@pytest.mark.parametrize(
    "cone",
    [(0.0, 10.0, 0.3), (359.5, 10.0, 2.0), (-0.5, 10.0, 2.0), (77.0, 90.0, 1.0), (120.0, -90.0, 10.0), (10.0, 20.0, 100.0),
     (0.0, 0.0, 180.0), (45.0, 45.0, 1e-7)],
)  # fmt: skip
def test_a_cone_holds_the_rows_within_its_radius(catalog, cone):
    expected = np.flatnonzero(distance_deg(catalog["ra"].values, catalog["dec"].values, *cone[:2]) <= cone[2])
    found = catalog.sedflow.cone(*cone)
    assert found["galaxy"].values.tolist() == expected.tolist()
    assert (len(expected) > 30) == (cone[2] > 1e-3)
    np.testing.assert_array_equal(found["mean"].values, catalog["mean"].values[expected])
    again = found.sedflow.cone(*cone[:2], cone[2] / 2)  # of a selection
    half = distance_deg(found["ra"].values, found["dec"].values, *cone[:2]) <= cone[2] / 2
    assert again["galaxy"].values.tolist() == expected[half].tolist()


def test_a_galaxy_is_in_a_cone_of_no_size_on_it(catalog):
    row = catalog.isel(galaxy=5000)
    assert 5000 in catalog.sedflow.cone(float(row["ra"]), float(row["dec"]), 0.0)["galaxy"]


@pytest.mark.parametrize("order", [0, 3, 8, 29])
def test_pixels_hold_their_rows(catalog, order):
    pixel = healpix(catalog["ra"].values, catalog["dec"].values)
    all_pixels = np.where(pixel < 0, -1, pixel >> 2 * (29 - order))
    wanted = np.unique(all_pixels[[1000, 7000, 9999]])
    assert (wanted >= 0).all()
    found = catalog.sedflow.pixels(order, wanted)
    assert found["galaxy"].values.tolist() == np.flatnonzero(np.isin(all_pixels, wanted)).tolist()
    assert catalog.sedflow.pixels(order, []).sizes["galaxy"] == 0


def test_rows_are_found_by_identifier(catalog):
    ids = catalog["objectId"].values
    assert catalog.sedflow.with_ids(objectId=ids[:0]).sizes["galaxy"] == 0
    found = catalog.sedflow.with_ids(objectId=ids[[9000, 3, 77]])
    assert found["galaxy"].values.tolist() == [3, 77, 9000]
    with pytest.raises(ValueError, match=r"no row with objectId = -5 \(1 of 2 not found\)"):
        catalog.sedflow.with_ids(objectId=[ids[3], -5])
    with pytest.raises(ValueError, match="identifiers of this catalog are objectId; asked for: name"):
        catalog.sedflow.with_ids(name=["x"])


def test_identifiers_of_several_columns_count_together(tmp_path):
    made_catalog.publish(tiny.location(tmp_path / "named"), 300, 128, False, name_rows=True)
    data = open_catalog(tmp_path / "named")
    ids, names = data["objectId"].values, data["NAME"].values
    assert data.sedflow.with_ids(NAME=["galaxy 250"])["galaxy"].values.tolist() == [250]
    assert data.sedflow.with_ids(objectId=ids[[7, 200]], NAME=names[[7, 200]])["galaxy"].values.tolist() == [7, 200]
    with pytest.raises(ValueError, match=r"NAME = galaxy 8 \(1 of 1"):
        data.sedflow.with_ids(objectId=ids[[7]], NAME=["galaxy 8"])


UNSIGNED = np.uint64(2**64 - 1) - 3 * np.arange(300, dtype=np.uint64)
CLASHING = (
    "flux",
    "RA",
    "param",
    "galaxy",
    "draws",
    "shard_key",
    "id_flux",
    "identifier",
    "log_mstar_p50",
    "a/b",
    "row",
)


@pytest.fixture(scope="module")
def identified(tmp_path_factory):
    """A catalog with unsigned and text identifiers, some of them missing, and others with the names of its own arrays."""
    where = tiny.location(tmp_path_factory.mktemp("identified") / "catalog")
    row = np.arange(300)
    text = np.array([f"{i:05}" for i in row], np.dtypes.StringDType())
    lost = row % 50 == 7
    more = {"U": ("uint64", np.where(lost, np.uint64(0), UNSIGNED), lost), "T": ("str", np.where(lost, "", text), lost)}
    more |= {name: ("int64", 1000 * i + row, row < 0) for i, name in enumerate(CLASHING, 1)}
    made_catalog.publish(where, 300, 64, False, more_ids=more)
    return open_catalog(where)


def test_unsigned_identifiers_are_found_by_the_index_and_missing_ones_are_none(identified):
    assert identified["U"].dtype == np.uint64
    limits = identified["shard_range"].sel(indexed="ids/U").values.astype(object) + 2**63
    assert limits.tolist() == [[int(UNSIGNED[min(i + 63, 299)]), int(UNSIGNED[i])] for i in range(0, 300, 64)]
    wanted = [int(UNSIGNED[i]) for i in (250, 3)]
    for asked in (wanted, np.array(wanted, np.uint64)):
        assert identified.sedflow.with_ids(U=asked)["galaxy"].values.tolist() == [3, 250]
    assert identified.sedflow.with_ids(T=["00012"])["galaxy"].values.tolist() == [12]
    assert identified["id_missing"].sel(identifier="U").values.sum() == 6
    for asked in ({"U": [0]}, {"T": [""]}, {"U": [-1]}, {"U": [2**64]}, {"U": [int(UNSIGNED[7])]}, {"T": ["12"]}):
        with pytest.raises(ValueError, match="no row with"):
            identified.sedflow.with_ids(**asked)
    with pytest.raises(ValueError, match=r"identifier U is 1e\+19; those of this catalog are integers \(uint64\)"):
        identified.sedflow.with_ids(U=[1e19])
    part = identified.isel(galaxy=slice(100, None))
    assert part.sedflow.with_ids(U=wanted[:1])["galaxy"].values.tolist() == [250]


def test_identifiers_with_names_of_the_catalogs_own_keep_apart(identified):
    names = identified.attrs["id_variables"]
    assert {name: names[name] for name in ("U", "flux", "RA", "id_flux", "a/b")} == {
        "U": "U", "flux": "id_id_flux", "RA": "id_RA", "id_flux": "id_flux", "a/b": "a/b",
    }  # fmt: skip
    for i, name in enumerate(CLASHING, 1):
        np.testing.assert_array_equal(identified[names[name]].values, 1000 * i + np.arange(300))
        assert identified.sedflow.with_ids(**{name: [1000 * i + 5]})["galaxy"].values.tolist() == [5]
    assert identified["flux"].dims == ("galaxy", "band") and identified["ra"].dtype == np.float64
    assert "log_mstar" in identified["param"].values and identified["galaxy"].values[-1] == 299


@pytest.mark.parametrize("least", [0, 55, 90, 128, 170])
def test_random_cones_of_any_width_hold_all_their_rows(catalog, least):
    """Also those beyond 130 degrees, at the poles and across the meridian."""
    rng = np.random.default_rng(least)
    ra, dec = catalog["ra"].values, catalog["dec"].values
    for number in range(25):
        at = (
            rng.uniform(-360, 360),
            np.degrees(np.arcsin(rng.uniform(-1, 1))),
            rng.uniform(least, min(least + 60, 180)),
        )
        at = (0.0, 90.0 * (number % 2 * 2 - 1), at[2]) if number < 2 else at
        expected = np.flatnonzero(distance_deg(ra, dec, *at[:2]) <= at[2])
        assert catalog.sedflow.cone(*at)["galaxy"].values.tolist() == expected.tolist(), at


def test_another_order_or_a_part_of_the_rows_is_searched_itself(catalog):
    """The index is of the catalog as it was written."""
    for part in (
        catalog.isel(galaxy=slice(6000, None)),
        catalog.isel(galaxy=slice(None, None, -1)),
        catalog.isel(galaxy=[9, 8]),
    ):
        ids = part["objectId"].values
        assert part.sedflow.with_ids(objectId=[ids[1]])["galaxy"].values.tolist() == [part["galaxy"].values[1]]
        assert part.sedflow.pixels(0, range(12))["galaxy"].values.tolist() == part["galaxy"].values[
            part["healpix_29"].values >= 0
        ].tolist()  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: q.cone(0, 91, 1), "cone: dec is 91; allowed are -90 to 90 deg"),
        (lambda q: q.cone(float("nan"), 0, 1), "cone: ra is nan"),
        (lambda q: q.pixels(30, [0]), "HEALPix order 30; allowed are 0 to 29"),
        (lambda q: q.pixels(0, [12]), "order 0 has 0 to 11"),
    ],
)
def test_what_cannot_be_asked_for_is_said(catalog, call, message):
    with pytest.raises(ValueError, match=message):
        call(catalog.sedflow)


def test_one_galaxy_from_object_storage_costs_three_requests(s3):
    with s3.watch() as opening:
        data = open_catalog(f"s3://{BUCKET}/catalog")
    assert len(opening) <= 16
    with s3.watch() as one:
        data["quantiles"].isel(galaxy=5000).load()
    assert len(one) <= 3
    assert sum(size for *_, size in one) < 50_000
    with s3.watch() as neighbour:
        data["quantiles"].isel(galaxy=5001).load()
    assert not neighbour  # it came along
    with s3.watch() as every:
        data[[name for name in data if "galaxy" in data[name].dims]].isel(galaxy=8000).load()
    assert len(every) <= 2 * N_ARRAYS + 3  # manifest and data; where a shard has parts, its index


def test_a_cone_in_object_storage_reads_the_index_and_what_it_needs(s3):
    data = open_catalog(f"s3://{BUCKET}/catalog")
    with s3.watch() as seen:
        found = data.sedflow.cone(210.0, -40.0, 10.0)
    assert 5 < found.sizes["galaxy"] < 100
    chunks = {path for _, path, *_ in seen if "/chunks/" in path}
    assert len(chunks) <= 3 * 3  # pixel, ra and dec of at most three of twelve shards
    with s3.watch() as seen:
        found["mean"].load()
    assert sum(size for *_, size in seen) < 2 * 80_000


def test_a_diff_reads_what_changed_and_lists_rows(s3):
    """Three rows of two shards have other means: the rest of the second release is not read."""
    where = Location.parse(f"s3://{BUCKET}/compared")
    shift = np.zeros(4096)
    made_catalog.publish(where, 4096, 512, False)
    shift[[600, 601, 3000]] = 1.0  # two of them in one shard
    made_catalog.publish(where, 4096, 512, False, "release-2", shift=shift)
    with s3.watch() as seen:
        found = {name: rest for name, *rest in diff(where, "release-1", "release-2", 2)}
    assert found.pop("mean") == [3, 4096, [600, 601]]
    assert len(found) == N_ARRAYS - 1 and all(rest == [0, 4096, []] for rest in found.values())
    assert sum("/chunks/" in path for _, path, *_ in seen) <= 2 * 2 * 3 * N_ARRAYS
