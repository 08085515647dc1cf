"""A small catalog for tests of storage: mock photometry, a small flow, few draws, so that a run takes a second or two."""

from dataclasses import dataclass

import numpy as np
import zarr

from cluster.settings import DaskSettings
from jobs.config.sections import Inference
from jobs.infer import infer
from sedflow_dist.inference.settings import Routing
from storage_schemas import photometry
from storage_schemas.backend.location import Location
from storage_schemas.catalog import schema as catalog

SHARD, SEED = 20, 7
LABELS = ("u", "g", "r", "i", "z")
IDS = {"OBJID": "int64"}
ARRAYS = (*(spec.name for spec in photometry.ARRAYS), *photometry.id_arrays(IDS))
SETTINGS = Inference(
    n_draws=64, rows_per_shard=SHARD, commit_every=2, routing=Routing(share=0.0, more_draws=1), min_effective_fraction=0
)


def rows_of(mocks, n_rows):
    """Columns of a photometry store, which may be changed: the mock galaxies are other tests', too."""
    arrays = mocks.photometry[:n_rows].arrays()
    values = {name: arrays[name].copy() for name in photometry.OBSERVED}
    flags = np.zeros(n_rows, np.uint32)
    flags[5] = 1 << 3
    number = np.arange(n_rows)
    return {
        **values, "flags": flags, "ra": number / 7.0, "dec": -number / 9.0, "healpix_29": number, "input_row": number,
        "input_file": np.zeros(n_rows, np.int32), "ids/OBJID": 1000 + number, "id_missing": np.zeros((n_rows, 1), bool),
    }  # fmt: skip


@dataclass(frozen=True)
class Small:
    """A run of `infer` on ``root``/photometry into ``root``/catalog, on a running scheduler."""

    root: Location
    model: Location
    dask: str
    bands: tuple[str, ...]

    @property
    def photometry(self):
        return self.root / "photometry"

    @property
    def catalog(self):
        return self.root / "catalog"

    def write(self, values):
        """Make (or make anew) the photometry store."""
        if self.photometry.exists():
            self.photometry.remove()
        n_rows = len(values["redshift"])
        settings = {"source": "mocks", "survey": {"bands": list(self.bands)}}
        store = photometry.create(self.photometry, n_rows, SHARD, LABELS, IDS, settings)
        for chunk in range(store.n_chunks):
            store.write(chunk, {name: array[store.rows(chunk)] for name, array in values.items()})

    def brighten(self, chunk, factor=1.1):
        """Change the fluxes of one row of a chunk, as a new data release would."""
        store = photometry.open(self.photometry, "r+")
        values = store.read(chunk, ARRAYS)
        values["flux"][3] *= factor
        store.write(chunk, values)

    def infer(self, out=None, seed=SEED, model=None, **settings):
        """Run infer; ``settings`` are those of the run file's section inference."""
        settings = SETTINGS.model_copy(update=settings)
        engine = DaskSettings(address=self.dask)
        return infer(self.photometry, model or self.model, out or self.catalog, settings, seed, engine)

    def contents(self, release="main"):
        return contents(self.catalog, release)

    def from_scratch(self, **changes):
        """What a catalog made anew holds."""
        out = self.root / f"scratch-{len(list(self.root.list()))}"
        self.infer(out=out, **changes)
        return contents(out)


def contents(location, release="main"):
    """Every array of a release and everything that describes it, by name."""
    group = zarr.open_group(catalog.store(location, release), mode="r")
    found = {}
    for name, values in group.arrays():
        found[name] = np.asarray(values[...]), values.metadata.to_dict()
    return found, {k: v for k, v in group.attrs.items() if k != "run_id"}


def assert_same(one, other):
    """Bit by bit, chunks and attributes too."""
    assert one[0].keys() == other[0].keys()
    for name, (values, metadata) in one[0].items():
        assert metadata == other[0][name][1], name
        if values.dtype.kind == "T":
            assert values.tolist() == other[0][name][0].tolist(), name
        else:
            assert values.tobytes() == other[0][name][0].tobytes(), name
    assert one[1] == other[1]
