"""One galaxy as a figure or a page: named by row or identifier, with the draws that the catalog's answer is made of."""

import made_catalog
import numpy as np
import pytest
import tiny
from commands import sedflow

from jobs.catalog.draws import drawn, engine, replay
from jobs.report import galaxy
from sedflow_dist.photometry.flags import DESCRIPTIONS, Flag, names
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.sps.cosmology import age_gyr
from storage_schemas import open_catalog


@pytest.fixture(scope="module")
def run(filled_run, tmp_path_factory):
    """A small catalog whose identifiers are 1000 and on."""
    made = filled_run(tiny.location(tmp_path_factory.mktemp("galaxy")), 20)
    made.infer()
    return made


@pytest.fixture(scope="module")
def data(run):
    return open_catalog(run.catalog)


@pytest.fixture(scope="module")
def row(data):
    """An answered row that bears a flag."""
    good = (data["method"].values > 0) & (data["flags"].values != 0)
    return int(np.flatnonzero(good)[0])


@pytest.fixture(scope="module")
def shown(data, row):
    return galaxy.of_row(data, row)


def test_its_figure_has_corner_plot_spectrum_history_and_flags(shown, data, row):
    labels = [axes.get_xlabel() for axes in shown.figure.axes]
    assert len(labels) == len(galaxy.CORNER) ** 2 + 2
    assert "observed wavelength [Å]" in labels and "lookback time [Gyr]" in labels
    words = " ".join(text.get_text() for text in shown.figure.texts).replace("\n", " ")
    found = names(int(data["flags"].values[row]))
    assert found and all(name in words for name in found)
    assert shown.flags == [(name, DESCRIPTIONS[Flag[name]]) for name in found]


def test_what_is_drawn_are_the_catalogs_own_draws(data, row, shown):
    """The history's columns change no draw of the others."""
    (draws,), columns = replay(data, [row], 4000)
    place = columns.index("log_mstar_surviving")
    low, middle, high = np.quantile(draws[:, place], [0.16, 0.5, 0.84])
    lines = [line.get_xdata()[0] for line in shown.figure.axes[0].lines]
    np.testing.assert_allclose(lines, [low, middle, high], rtol=1e-6)


def test_rates_times_times_are_the_mass_formed(data, row):
    """The history that is drawn belongs to the draws beside it."""
    router = engine(data, more=Chosen(star_formation_history=galaxy.HISTORY))
    (draws,) = drawn(data, router, [row], 50)
    columns = router.posterior.columns
    rates = draws[:, [i for i, name in enumerate(columns) if name.startswith("sfr_")]]
    edges = np.array(galaxy.HISTORY)
    at = columns.index("log_mstar")
    age = age_gyr(data["redshift"].values[row])  # at which the last bins are cut
    mass = 1e9 * rates @ np.clip(np.minimum(edges[1:], age) - edges[:-1], 0, None)
    np.testing.assert_allclose(mass, 10 ** draws[:, at], rtol=5e-3)


def test_a_page_is_one_file_without_any_script(run, tmp_path):
    out = tmp_path / "galaxy.html"
    done = sedflow("show", run.catalog, "--id", "1003", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"row 3: {out}\n")
    text = out.read_text()
    assert "<script" not in text and "default-src 'none'" in text and "log_mstar_surviving" in text and "OBJID" in text
    assert 'src="data:image/png;base64,iVBOR' in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--row", "3", "--out", "x.gif"], ".png, .pdf, .html"),
        (["--row", "77"], "rows 0 to 19"),
        (["--id", "77"], "no row with OBJID = 77"),
        (["--id", "abc"], "a whole number"),
        (["--id", "OBJID=abc"], "a whole number"),
        ([], "one of them"),
        (["--row", "1", "--id", "1001"], "one of them"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(run, tmp_path, arguments, says):
    done = sedflow("show", run.catalog, *arguments, cwd=tmp_path)
    assert done.returncode != 0 and says in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_identifiers_of_several_columns_are_named(tmp_path):
    where = tiny.location(tmp_path / "catalog")
    made_catalog.publish(where, 60, 30, False, name_rows=True)
    catalog = open_catalog(where)
    assert galaxy.row_of(catalog, f"objectId={10_000_000_007 * 5 % 2**40},NAME=galaxy 5") == 5
    with pytest.raises(ValueError, match="objectId=VALUE,NAME=VALUE"):
        galaxy.row_of(catalog, "5")
