"""What the model leaves out is told by the rest wavelengths that a band covers, whatever its name."""

import doctest

import numpy as np
import pytest
import speclite.filters

from jobs.config.run_file import RunFile
from sedflow_dist.sps import unmodelled
from sedflow_dist.sps.unmodelled import EFFECTS, warnings


def begins(effect, band, redshift):
    """Whether a band alone, at one redshift, is warned of."""
    return any(effect in line for line in warnings([band], (redshift, redshift + 1e-3)))


@pytest.mark.parametrize(
    ("effect", "band", "below", "above"),
    [  # the published redshifts at which each begins or ends to matter, within 0.05
        ("intergalactic", "galex-fuv", 0.06, 0.15),
        ("intergalactic", "galex-nuv", 0.45, 0.55),
        ("intergalactic", "sdss2010-u", 1.55, 1.65),
        ("intergalactic", "sdss2010-g", 2.15, 2.25),
        ("PAHs", "wise2010-W1", 0.20, 0.10),
        ("hot dust: wise2010-W2", "wise2010-W2", 0.25, 0.15),
        ("H alpha", "sdss2010-z", 0.26, 0.301),
        ("[O III]", "decamDR1-r", 0.26, 0.301),
    ],
)
def test_each_effect_is_told_where_it_is_known_to_matter(effect, band, below, above):
    assert not begins(effect, band, below)
    assert begins(effect, band, above)


def test_dust_and_nuclei_in_the_infrared():
    for redshift in (0.0, 0.3, 1.0):
        assert begins("active nucleus", "wise2010-W2", redshift)
        for band in ("wise2010-W3", "wise2010-W4"):
            assert begins("emission of dust: hot dust", band, redshift)
    assert not begins("emission of dust: hot dust", "wise2010-W1", 0.0)


def test_nothing_is_told_where_nothing_is_left_out():
    assert warnings([f"sdss2010-{band}" for band in "ugriz"], (0.0, 0.2)) == []
    assert warnings(["lsst2016-i", "twomass-Ks"], (0.0, 0.29)) == []


def test_a_table_with_the_emission_of_gas_has_its_lines():
    bands = [f"lsst2016-{band}" for band in "ugrizy"]
    lines = warnings(bands, (0.0, 1.5))
    assert sum("emission lines" in line for line in lines) == 2
    assert not warnings(bands, (0.0, 1.5), ("stars", "nebular"))


@pytest.mark.parametrize(
    ("component", "brings"),
    [("igm", {"intergalactic"}), ("torus", {"nucleus"}), ("nebular", {"gas"}), ("dust_emission", {"PAHs", "hot dust"})],
)
def test_what_a_component_brings_is_not_told(component, brings):
    bands = ["galex-fuv", *(f"sdss2010-{band}" for band in "ugriz"), "wise2010-W1", "wise2010-W3"]
    effects = {"intergalactic", "gas", "PAHs", "hot dust:", "nucleus"}
    told = {effect for effect in effects for line in warnings(bands, (0.0, 3.0)) if effect in line}
    left = {
        effect for effect in effects for line in warnings(bands, (0.0, 3.0), ("stars", component)) if effect in line
    }
    assert told == effects
    assert {effect.rstrip(":") for effect in told - left} == brings
    everything = ("stars", "nebular", "dust_emission", "igm", "torus")
    assert warnings(bands, (0.0, 3.0), everything) == []


def test_a_band_under_another_name_is_told_of_by_its_wavelengths():
    """A filter of somebody's own, a box at 4.0 to 5.2 micron; registered as speclite does."""
    wavelength = np.linspace(39_900, 52_100, 50)
    response = np.where((wavelength > 40_000) & (wavelength < 52_000), 1.0, 0.0)
    speclite.filters.FilterResponse(wavelength, response, {"group_name": "mine", "band_name": "odd"})
    assert begins("hot dust", "mine-odd", 0.05) and begins("PAHs", "mine-odd", 0.4)
    assert not begins("PAHs", "mine-odd", 0.1)


@pytest.mark.parametrize(("name", "told"), [("sdss", 0), ("nsa", 0), ("desi", 1), ("rubin", 0)])
def test_plan_tells_of_the_runs_that_come_along(name, told, tmp_path):
    from jobs.run.plan import left_out

    lines = left_out(RunFile.load(name, root=str(tmp_path)))
    assert len(lines) == told, lines
    assert len({effect.name for effect in EFFECTS if any(line.startswith(effect.name) for line in lines)}) == told


def test_examples_in_docstrings():
    assert doctest.testmod(unmodelled).failed == 0
