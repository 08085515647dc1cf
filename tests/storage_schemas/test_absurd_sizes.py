"""What a store or a model says of its sizes is looked at before anything is read or made."""

import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from sedflow_dist.flow.trained_model import TrainedModel
from storage_schemas import photometry, ssp_table, validation
from storage_schemas.backend.arrays import ArraySpec
from storage_schemas.backend.chunked import ChunkedStore
from storage_schemas.backend.location import Location

SPECS = (ArraySpec("flux", ("row", "band"), "float32"), ArraySpec("z", ("row",), "float32"))


@pytest.fixture(autouse=True)
def soon():
    """Nothing here may begin to count to 10^15."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 20


@pytest.fixture
def store(tmp_path):
    made = ChunkedStore.create(Location.parse(tmp_path / "s"), "test", SPECS, {"row": 10, "band": 5}, 4, {}, {})
    made.write(0, {"flux": np.ones((4, 5)), "z": np.ones(4)})
    return made


def tamper(folder, name, **changes):
    """Change the metadata of an array, or, with no name, the attributes of the group."""
    file = folder / name / "zarr.json"
    content = json.loads(file.read_text())
    if name:
        grid = changes.pop("chunk_shape", None)
        content |= changes
        if grid:
            content["chunk_grid"]["configuration"]["chunk_shape"] = grid
    else:
        content["attributes"] |= changes
    file.write_text(json.dumps(content))


HUGE = 10**15


@pytest.mark.parametrize("change", [
    {"n_rows": HUGE}, {"rows_per_chunk": 0}, {"n_rows": -1}, {"n_rows": "many"}, {"n_rows": 1e15}, {"n_rows": None},
    {"rows_per_chunk": HUGE},
], ids=str)  # fmt: skip
def test_numbers_of_rows_that_cannot_be_are_refused(store, tmp_path, change):
    tamper(tmp_path / "s", "", **change)
    with pytest.raises(ValueError, match="no number from"):
        ChunkedStore(store.location, "test")


@pytest.mark.parametrize("name", ["flux", "z", "chunk_digest"])
@pytest.mark.parametrize("how", ["rows", "one chunk", "chunks of one"])
def test_arrays_of_absurd_shapes_are_refused(store, tmp_path, name, how):
    rest = [5] if name == "flux" else []
    tamper(tmp_path / "s", name, shape=[HUGE if how != "chunks of one" else 1 << 39, *rest],
           chunk_shape=[{"rows": 4, "one chunk": HUGE, "chunks of one": 1}[how], *rest])  # fmt: skip
    with pytest.raises(ValueError, match="says that it has shape"):
        opened = ChunkedStore(store.location, "test")
        opened.read(0, [name])


def test_a_store_without_one_of_its_arrays_says_so(store, tmp_path):
    import shutil

    shutil.rmtree(tmp_path / "s" / "z")
    with pytest.raises(ValueError, match="lacks the array z"):
        ChunkedStore(store.location, "test").read(0, ["z"])
    with pytest.raises(ValueError, match="array z, rows 0 to 3: the stored object is gone"):
        store.read(0, ["z"])  # who knows the array already


def test_tables_that_are_read_whole_are_small(local, tmp_path):
    import shutil

    for name, read, array in (("ssp", ssp_table.read, "spectra"), ("validation", validation.read, "truth")):
        shutil.copytree(local.store(name).url, tmp_path / name)
        shape = json.loads((tmp_path / name / array / "zarr.json").read_text())["shape"]
        tamper(tmp_path / name, array, shape=[1 << 36, *shape[1:]], chunk_shape=[1 << 20, *shape[1:]][: len(shape)])
        with pytest.raises(ValueError, match=r"at most [\d,]+ (rows|are read)"):
            read(Location.parse(tmp_path / name))
    shutil.copytree(local.store("photometry").url, tmp_path / "photometry")
    tamper(tmp_path / "photometry", "", n_rows=HUGE)
    with pytest.raises(ValueError, match="n_rows = 1000000000000000"):
        photometry.open(Location.parse(tmp_path / "photometry"))


def of_network(tensors, ending):
    return next(name for name in tensors if name.startswith("network.") and name.endswith(ending))


@pytest.mark.parametrize(
    ("ending", "change"),
    [
        ("initial_layer.degrees", lambda t: t.fill_(5_000_000_000)),
        ("final_layer.degrees", lambda t: t.fill_(5_000_000_000)),
        ("initial_layer.degrees", lambda t: t.fill_(-1)),
        ("initial_layer.degrees", lambda t: t.flip(0).contiguous()),
        ("initial_layer.mask", lambda t: t * 0 + 1),
        ("initial_layer.mask", lambda t: t * 1e30),
        ("_permutation", lambda t: t * 0),
        ("_permutation", lambda t: t + 5_000_000_000),
        ("_permutation", lambda t: t.to(torch.float64)),
        ("initial_layer.weight", lambda t: t.to(torch.float64)),
        ("initial_layer.weight", lambda t: t.to(torch.complex64)),
    ],
)  # fmt: skip
def test_what_the_sizes_of_a_network_fix_is_compared(flow, ending, change):
    weights, spec = flow.to_bytes()
    tensors = load(weights)
    if ending.endswith(("mask", "degrees")):  # not stored: who says what they are is refused, whatever they are
        layer, _, what = ending.rpartition(".")
        name = of_network(tensors, f"{layer}.weight").removesuffix("weight") + what
        tensors[name] = flow.network.get_buffer(name.removeprefix("network."))
    else:
        name = of_network(tensors, ending)
    tensors[name] = change(tensors[name].clone())
    with pytest.raises(ValueError, match=r"weights do not fit the specification|is not finite"):
        TrainedModel.from_bytes(save(tensors), spec)


@pytest.mark.parametrize(
    "change",
    [{"redshift": [0.0, 1e9]}, {"redshift": [0.0, 1e300]}, {"birth_cloud_age": 0.0}, {"birth_cloud_age": -1.0}],
    ids=str,
)
def test_specifications_of_no_galaxy_model_are_refused(flow, change):
    weights, spec = flow.to_bytes()
    with pytest.raises(ValueError, match="not the specification of a flow"):
        TrainedModel.from_bytes(weights, json.dumps({**json.loads(spec), **change}).encode())


def test_the_shipped_model_and_ours_are_read(flow):
    from jobs.config import shipped
    from storage_schemas import model as model_store

    for name in shipped.names():
        assert TrainedModel.from_bytes(*model_store.read(shipped.model(name))).spec.bands
    assert TrainedModel.from_bytes(*flow.to_bytes()).id == flow.id
