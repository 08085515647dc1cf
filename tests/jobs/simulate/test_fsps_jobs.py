"""FSPS in Ray actors, on the home of `test_fsps`: tables, simulations, and every way in which an actor can end.

Faults are a table: which row or metallicity, on which try, ends how. Actors get them as subclasses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import forked_ray
import mini_sps_home
import numpy as np
import pytest
import ray
import torch
from provabgs import PARAMETERS, SPACE

from cluster import ray_engine
from cluster.settings import Engines, RaySettings
from jobs import train
from jobs.config.run_file import RunFile
from jobs.config.sections import SSP, Simulation
from jobs.run.doctor import doctor
from jobs.simulate import fsps_direct, fsps_grids
from jobs.simulate import job as simulate
from jobs.simulate import ssp as build_ssp
from jobs.simulate.fsps_actor import map_fsps
from sedflow_dist.simulation.shapes import draw_parameters
from sedflow_dist.sps import fsps_engine, fsps_tables
from sedflow_dist.sps.galaxy_model import GalaxyModel
from storage_schemas import ssp_parts, ssp_table, training_set
from storage_schemas.backend.arrays import array
from storage_schemas.backend.location import LOCK, WORKING, Location

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fsps") is None, reason="python-fsps is not installed: pip install 'sedflow-dist[fsps]'"
)

N, CHUNK = 240, 120
NAN, DEADLY, KILLED = 3, 40, 150  # rows: a NaN parameter, FSPS stops on every try, SIGKILL on the first try


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The real home where there is one, else the miniature; set for this module and its Ray."""
    real = os.environ.get("SPS_HOME")
    path = Path(real) if real else mini_sps_home.write(tmp_path_factory.mktemp("jobs") / "sps_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPS_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def cluster(home):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with forked_ray.workers(), ray_engine.session(RaySettings(actors=2)):
        yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


# -- faults ---------------------------------------------------------------------------------------------------------------


def first_to_come(folder: Path, name: str) -> bool:
    """Whether no process was here before."""
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def stop(actor) -> None:
    """Let FSPS stop at its next call."""
    actor.fsps._population.params["dust_tesc"] = 1.0


def start_on_bad_data(home: Path) -> None:
    """Have this process' FSPS start on a home that its doctor does not look at."""
    os.environ["SPS_HOME"] = str(home)
    fsps_engine.check_home = lambda path: []


def use(patch: pytest.MonkeyPatch, job, actor_class: type) -> None:
    """Have a job use other actors."""
    patch.setattr(job, "map_fsps", lambda _, *arguments: map_fsps(actor_class, *arguments))


def faulty_maker(faults: Path, broken: Path) -> type:
    class Faulty(fsps_grids.SSPMaker):
        def __init__(self, *arguments):
            if first_to_come(faults, "started"):
                start_on_bad_data(broken)
            super().__init__(*arguments)

        def make(self, chunk):
            if chunk == 9:
                stop(self)
            return super().make(chunk)

    return Faulty


def faulty_simulator(faults: Path) -> type:
    class Faulty(fsps_direct.FSPSSimulator):
        def fluxes(self, row, theta, redshift):
            if row == DEADLY:
                first_to_come(faults, f"deadly-{os.getpid()}")
                stop(self)
            if row == KILLED and first_to_come(faults, "killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            if row == NAN:
                theta = theta.copy()
                theta[PARAMETERS.index("tau_ism")] = np.nan
            return super().fluxes(row, theta, redshift)

    return Faulty


@pytest.fixture(scope="module")
def broken(home, tmp_path_factory):
    """A home with an isochrone file missing: FSPS ends its process there, with exit status 0."""
    path = tmp_path_factory.mktemp("bad") / "home"
    shutil.copytree(home, path, symlinks=True)
    (path / "ISOCHRONES/MIST/isoc_feh_m100_afe_p0_vvcrit0.4_full.dat").unlink()
    return path


# -- tables ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table_of_one(cluster, tmp_path_factory):
    """Made by one actor without faults."""
    out = Location.parse(tmp_path_factory.mktemp("one") / "ssp")
    build_ssp.build_ssp("fsps", out, ray=RaySettings(actors=1))
    return out


def test_two_actors_with_faults_make_the_table_of_one_byte_for_byte(cluster, table_of_one, broken, tmp_path, capfd):
    out, two = Location.parse(tmp_path / "ssp"), RaySettings(actors=2, tries=2)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fsps_grids, faulty_maker(tmp_path, broken))
        with pytest.raises(
            RuntimeError, match=r"metallicity 9 of 13 failed 2 times; FSPS died on SSPs of .*dust_tesc<=5.5"
        ):
            build_ssp.build_ssp("fsps", out, ray=two)
    said = capfd.readouterr().err
    assert (
        f"FSPS died on setting up on {broken}; it said:" in said and "isochrone files cannot be opened" in said
    )  # the STOP of the first actor, with FSPS's words
    missing = ssp_parts.open(fsps_grids.parts_of(out)).missing()
    assert 9 in missing and 0 not in missing and not out.has("zarr.json")
    table = build_ssp.build_ssp("fsps", out, ray=two)
    assert not fsps_grids.parts_of(out).exists()
    assert not (out / WORKING).exists()
    names = sorted({*out.list()} - {LOCK})
    assert names == sorted({*table_of_one.list()} - {LOCK}) and len(names) > 5
    assert [name for name in names if out.get(name) != table_of_one.get(name)] == []
    assert table.birth_cloud_rule == "node" and table.provenance["z_solar"] == 0.019
    with pytest.raises(ValueError, match=r"made with nebular_emission = False, now \{'log_u': -2.5"):
        build_ssp.build_ssp("fsps", out, SSP(nebular=True, log_u=-2.5).fsps_settings(), two)


@pytest.mark.slow
def test_an_actor_adds_the_light_of_gas_to_young_stars_only(cluster, tmp_path):
    settings, parts = SSP(source="fsps", nebular=True, log_u=-2.0).fsps_settings(), Location.parse(tmp_path / "parts")
    store = ssp_parts.create(parts, fsps_tables.SIZES, {})
    map_fsps(fsps_grids.SSPMaker, settings, (parts,), "make", [10], RaySettings(actors=1), [].append, list, pytest.fail)
    with_gas = store.read(10, ssp_parts.NAMES)
    assert json.loads(str(with_gas["provenance"][0]))["nebular_emission"] == {"log_u": -2.0, "log_z_gas": None}
    map_fsps(
        fsps_grids.SSPMaker, SSP().fsps_settings(), (parts,), "make", [10], RaySettings(actors=1), [].append, list, pytest.fail
    )  # fmt: skip
    without = store.read(10, ssp_parts.NAMES)
    h_alpha = np.argmin(np.abs(with_gas["wavelength"][0] - 6564.6))
    ratio = with_gas["spectra"][0, :, h_alpha] / without["spectra"][0, :, h_alpha]
    age = with_gas["age"][0]
    assert (ratio[age < 0.003] > 1.05).all() and np.array_equal(ratio[age > 0.02], np.ones((age > 0.02).sum()))


def test_an_actor_makes_what_libraries_need_and_the_store_keeps_it(cluster, tmp_path):
    """Of two metallicities; what the numbers must be: tests/sedflow_dist/sps/test_fsps_tables.py."""
    parts, libraries = Location.parse(tmp_path / "parts"), ("nebular", "dust", "torus")
    store = ssp_parts.create(parts, fsps_tables.SIZES, {}, libraries)
    map_fsps(
        fsps_grids.SSPMaker, SSP().fsps_settings(), (parts, libraries), "make", [5, 6], RaySettings(actors=1), [].append, list,
        pytest.fail,
    )  # fmt: skip
    assert store.missing() == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    rows = [store.read(chunk, ssp_parts.names(libraries)) for chunk in (5, 6)]
    table = fsps_grids.put_together([{name: values[0] for name, values in row.items()} for row in rows], libraries)
    table.require(libraries)
    where = Location.parse(tmp_path / "ssp")
    ssp_table.write(where, table.arrays, table.provenance, table.checksum)
    again = build_ssp.load(where)
    assert set(again.arrays) == set(table.arrays) >= {"nebular_stars", "dust_power", "torus_luminosity"}
    with pytest.raises(ValueError, match="was made with libraries"):
        ssp_parts.create(parts, fsps_tables.SIZES, {}, ("dust",))


def test_gas_is_not_made_twice(tmp_path):
    settings = SSP(source="fsps", nebular=True).fsps_settings()
    with pytest.raises(ValueError, match="counted twice"):
        build_ssp.build_ssp("fsps", Location.parse(tmp_path / "ssp"), settings, libraries=("nebular",))
    with pytest.raises(ValueError, match="counted twice"):
        RunFile(
            name="gas", root=str(tmp_path), input="none", ssp=SSP(source="fsps", nebular=True),
            model={"components": ["stars", "nebular"]},
        )  # fmt: skip


# -- simulations ----------------------------------------------------------------------------------------------------------


def make_run(root: Path, table: Location, actors: int = 2, **simulation) -> RunFile:
    settings = Simulation().model_copy(update={"n_galaxies": N, "rows_per_chunk": CHUNK, **simulation})
    run = RunFile(
        name="fsps", root=str(root), input="none", ssp=SSP(source=table.url),
        engines=Engines(ray=RaySettings(actors=actors, tries=2)),
    )  # fmt: skip
    return run.model_copy(update={"simulation": settings})


def read(run: RunFile) -> dict[str, np.ndarray]:
    store = training_set.open(run.store("training"))
    assert store.missing() == []
    return {name: np.asarray(array(store.group, name)[:]) for name in training_set.NAMES}


@pytest.fixture(scope="module")
def simulated(cluster, table_of_one, tmp_path_factory):
    """What FSPS made of 240 galaxies, with every fault, and what was said."""
    root = tmp_path_factory.mktemp("simulated")
    run = make_run(root / "run", table_of_one, engine="fsps")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fsps_direct, faulty_simulator(root))
        for module in ("jobs.simulate.fsps_direct", "jobs.simulate.fsps_actor"):
            patch.setattr(f"{module}.say", lambda title, message: said.append(f"{title}: {message}"))
        simulate.simulate(run)
    return run, read(run), said, sorted(path.name for path in root.iterdir())


def test_killed_stopped_and_nan_rows_end_in_a_complete_store_with_flagged_rows(simulated):
    _, arrays, said, seen = simulated
    bad = np.where(~np.isfinite(arrays["per_mass"]).any(1))[0]
    assert bad.tolist() == [NAN, DEADLY]  # and KILLED was done by another actor
    assert np.isfinite(arrays["per_mass"]).all(1).sum() == N - 2 and np.isfinite(arrays["phi"]).all()
    text = "\n".join(said)
    assert f"row {NAN}: tau_ism = nan is outside" in text
    assert f"row {DEADLY}: given up after 2 tries; FSPS died on row {DEADLY}: {{'log_mstar'" in text
    assert "pset%dust_tesc<=5.5" in text and "2 rows have no fluxes" in text and "FSPS died 3 times" in text
    assert "killed" in seen and len([name for name in seen if name.startswith("deadly")]) == 2


def test_rows_are_those_of_the_table_engine_to_2_millimagnitudes(simulated, table_of_one, tmp_path):
    run, arrays, _, _ = simulated
    by_table = make_run(tmp_path, table_of_one)
    simulate.create(by_table)
    for chunk in (0, 1):
        simulate.Simulator(by_table).fill(chunk)
    expected = read(by_table)
    assert np.array_equal(arrays["phi"], expected["phi"]) and np.array_equal(arrays["redshift"], expected["redshift"])
    good = np.isfinite(arrays["per_mass"]).all(1)
    assert good.sum() >= 200
    difference = -2.5 * np.log10(expected["per_mass"][good].astype(float) / arrays["per_mass"][good])
    assert np.abs(difference).max() <= 0.002
    # The test can fail: without dust the difference is larger by far.
    _, theta, redshift = draw_parameters(SPACE, run.model.redshift, run.seed, "simulate", 0, N)
    theta[:, -3:] = 0
    clear = GalaxyModel(build_ssp.load(table_of_one), run.survey_definition.bands, 0.2).fluxes(theta, redshift)
    assert np.abs(2.5 * np.log10(clear[good].numpy() / arrays["per_mass"][good])).max() > 0.1


def test_training_leaves_out_rows_without_fluxes(simulated):
    run, arrays, _, _ = simulated
    shapes, held_out = train.load_shapes(run)
    assert (len(shapes.phi), len(held_out.phi)) == (N - 5 - 2, 5)
    assert torch.isfinite(shapes.per_mass).all() and np.array_equal(shapes.phi[3], arrays["phi"][4])


def test_a_stop_cannot_look_like_success(cluster, table_of_one, broken, tmp_path):
    class AlwaysStops(fsps_direct.FSPSSimulator):
        def __init__(self, *arguments):
            start_on_bad_data(broken)
            super().__init__(*arguments)

    run = make_run(tmp_path / "run", table_of_one, actors=1, engine="fsps")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fsps_direct, AlwaysStops)
        with pytest.raises(
            RuntimeError,
            match=r"FSPS died 2 times before its first spectrum, last: .*it said: .*isochrone files cannot be opened",
        ):
            simulate.simulate(run)
    assert training_set.open(run.store("training")).missing() == [0, 1]


def test_an_unfit_home_ends_in_the_doctors_sentence_and_no_row_is_flagged(cluster, table_of_one, broken, tmp_path):
    class Misplaced(fsps_direct.FSPSSimulator):
        def __init__(self, *arguments):
            os.environ["SPS_HOME"] = str(broken)
            super().__init__(*arguments)

    run = make_run(tmp_path / "run", table_of_one, actors=1, engine="fsps")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fsps_direct, Misplaced)
        with pytest.raises(ValueError, match=r"isoc_feh_m100.*is missing.*git clone"):
            simulate.simulate(run)
    assert training_set.open(run.store("training")).missing() == [0, 1]


def test_a_table_of_other_stars_is_refused(cluster, table_of_one):
    with pytest.raises(ValueError, match="engine fsps needs an SSP table of FSPS"):
        fsps_direct.settings_of({"code": "BC03"}, 0.01)


# -- doctor ---------------------------------------------------------------------------------------------------------------


def test_the_doctor_shows_the_home(home, broken, monkeypatch):
    def answer():
        return next((good, message) for what, good, message in doctor(None, None, None) if what == "SPS_HOME")

    good, message = answer()
    assert good and "gave a good spectrum" in message
    monkeypatch.setenv("SPS_HOME", str(broken))
    good, message = answer()
    assert not good and "missing" in message and "git clone" in message
    monkeypatch.delenv("SPS_HOME")
    good, message = answer()
    assert good and message.startswith("SPS_HOME is not set") and "export SPS_HOME" in message
