"""A small run at the level of the store, for many processes at once: stage, write, publish, again until it won.

``python racer.py URL ENDPOINT SEED`` writes a catalog in which every value is SEED, and prints its release and how often
another run was faster. ``python racer.py URL ENDPOINT read`` reads ``main`` over and over until the object ``stop`` is
there, and prints the values seen; it fails on a release that is not whole.
"""

import json
import sys

import numpy as np

from storage_schemas import open_catalog
from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.location import Location
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog
from storage_schemas.catalog.schema import Layout

FILLED = ("chi2", "log_evidence", "effective_draws")
LAYOUT = Layout(
    60,
    20,
    ["p"],
    ["1"],
    [0.5],
    ["c"],
    ["u"],
    0,
    {},
    inferred=[ArraySpec(name, ("galaxy",), "float32") for name in FILLED],
)


def attempt(location, seed):
    """Fill what is missing and publish: the release's name; RuntimeError where another run was faster."""
    repo = catalog.repository(location, create=True)
    main = repo.lookup_branch(catalog.MAIN)
    branch = releases.stage(repo, f"{seed}", LAYOUT, {"seed": seed}, (b"weights", b"{}"))
    for shard in releases.missing(repo, branch, [seed] * 3):
        session = repo.writable_session(branch)
        fork = session.fork()
        values = {name: np.full(20, seed, np.float32) for name in FILLED}
        catalog.write_shard(fork, LAYOUT.shards.rows(shard), shard, seed, values)
        session.merge(fork)
        releases.commit(session, f"shard {shard}")
    return releases.publish(repo, branch, main)


def race(location, seed):
    """Attempt until it is won, as a user who runs the same command again."""
    lost = 0
    while True:
        try:
            return attempt(location, seed), lost
        except RuntimeError as error:
            assert "run the same command again" in str(error)
            lost += 1


def read(location, control):
    """Read whole releases until told to stop; return the values seen, in order."""
    seen = []
    while True:
        stop = "stop" in set(control.list())
        data = open_catalog(location)
        values = np.concatenate([data[name].values for name in FILLED])
        found = {*np.unique(values).tolist(), float(data.attrs["run"]["seed"])}
        assert len(found) == 1 and len(values) == 180, found
        seen += found
        if stop:
            return seen


if __name__ == "__main__":
    place = Location.parse(sys.argv[1], sys.argv[2])
    result = (
        read(place / "catalog", place / "control")
        if sys.argv[3] == "read"
        else race(place / "catalog", int(sys.argv[3]))
    )
    print(json.dumps(result))
