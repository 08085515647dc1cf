"""Published catalogs of any size, filled with numbers instead of inference; every column tells its rows apart."""

import numpy as np
from provabgs import SPACE

from jobs.columns import INFERRED
from sedflow_dist.inference.summary import QUANTILES
from sedflow_dist.photometry.surveys import healpix
from sedflow_dist.quantities import described
from sedflow_dist.sps import derived
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.schema import Layout
from storage_schemas.photometry import ID_MISSING, id_array

LABELS = tuple("ugriz")
PARAMS, UNITS, MEANINGS, UCDS = described(derived.columns(SPACE, LABELS))
UNANSWERED = 17  # every 17th row has no answer, every 41st no position
NO_POSITION = 41


def positions(n, seed=3):
    """Right ascension and declination [deg] of galaxies all over the sky, many of them in two clusters."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    for at, (ra_0, dec_0, width) in {2: (0.0, 10.0, 1.0), 3: (200.0, 89.9, 0.3)}.items():
        ra[::at], dec[::at] = ra_0 + rng.normal(0, width, len(ra[::at])), dec_0 + rng.normal(0, width, len(ra[::at]))
    dec = np.where(np.abs(dec) > 90, 180 - dec, dec)
    lost = np.arange(n) % NO_POSITION == 0
    return np.where(lost, np.nan, ra % 360), np.where(lost, np.nan, dec)


def publish(
    where, n, rows_per_shard, in_healpix_order, release="release-1", name_rows=False, shift=None, more_ids=None,
    labels=LABELS, meanings=MEANINGS, model="made",
):  # fmt: skip
    """Publish a catalog of ``n`` rows, which may bear names beside their objectId; ``shift`` (n,) is added to the means.

    ``more_ids`` are other identifiers by name: dtype, values and which are missing. ``labels`` of bands, ``meanings`` of
    parameters and the ``model`` may be any text.
    """
    more_ids = more_ids or {}
    ra, dec = positions(n)
    pixel = healpix(ra, dec)
    order = np.argsort(pixel, kind="stable") if in_healpix_order else np.arange(n)
    ids = {"objectId": "int64", **({"NAME": "str"} if name_rows else {})}
    ids |= {name: dtype for name, (dtype, _, _) in more_ids.items()}
    layout = Layout(
        n, rows_per_shard, PARAMS, UNITS, QUANTILES, ["c"], labels, 0, ids, meanings, UCDS, inferred=INFERRED
    )
    repo = catalog.repository(where, create=True)
    main = repo.lookup_branch(catalog.MAIN)
    branch = releases.stage(repo, release, layout, {"model": model, "seed": 1}, (b"weights", b"{}"))
    session = repo.writable_session(branch)
    fork = session.fork()
    for shard in range(len(layout.shards)):
        rows = layout.shards.rows(shard)
        at = order[rows]
        moved = 0 if shift is None else shift[at]
        values = _answers(at)
        values["mean"] += np.reshape(moved, (-1, 1))
        values |= {"ra": ra[at], "dec": dec[at], "healpix_29": pixel[at], "ids/objectId": 10_000_000_007 * at % 2**40}
        if name_rows:
            values["ids/NAME"] = np.array([f"galaxy {i}" for i in at], np.dtypes.StringDType())
        values[ID_MISSING] = np.zeros((len(at), len(ids)), bool)
        for name, (_, column, missing) in more_ids.items():
            values[id_array(name)] = column[at]
            values[ID_MISSING][:, list(ids).index(name)] = missing[at]
        catalog.write_shard(fork, rows, shard, 1 + int(np.any(moved)), values)
    session.merge(fork)
    session.commit("shards")
    assert releases.publish(repo, branch, main) == release


def _answers(at):
    m, width = len(at), len(PARAMS)
    rng = np.random.default_rng(int(at.sum()) % 2**32)
    values = {
        spec.name: rng.normal(size=(m, 5) if "band" in spec.dims else m).astype(spec.dtype)
        for spec in catalog.arrays(INFERRED, {})
        if spec.dtype == "float32" and not {"param", "draw"} & set(spec.dims)
    }
    answered = (at % UNANSWERED != 0)[:, None]
    mean = at[:, None] / 8 + np.arange(width)
    values["mean"] = np.where(answered, mean, np.nan).astype(np.float32)
    values["std"] = np.where(answered, np.ones((m, width)), np.nan).astype(np.float32)
    steps = np.array([-2, -1, 0, 1, 2]) + 0.25 * rng.random((m, width, 5))
    values["quantiles"] = np.where(answered[..., None], mean[..., None] + steps, np.nan).astype(np.float32)
    values |= {"method": np.where(answered[:, 0], 2, 0).astype(np.uint8), "n_bands": np.full(m, 5, np.uint8)}
    values |= {"flags": np.where(answered[:, 0], 0, 4096).astype(np.uint32), "mask": np.ones((m, 5), bool)}
    values |= {"input_file": (at % 3).astype(np.int32), "input_row": at.astype(np.int64)}
    return values
