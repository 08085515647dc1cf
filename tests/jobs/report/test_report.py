"""The report: sums that do not depend on blocks, numbers that are the catalog's, pages that fetch and execute nothing else."""

import html.parser
import re

import boto3
import hostile
import numpy as np
import pandas as pd
import pytest
import tiny
from commands import sedflow
from hostile import HOSTILE, SCRIPT, N

from jobs.export.whole import whole_folder
from jobs.report import job
from jobs.report.plans import plan
from jobs.report.projection import outlines
from jobs.report.sums import TOLD, Sums, added, doubtful
from sedflow_dist.photometry.flags import DESCRIPTIONS, Flag
from sedflow_dist.photometry.surveys import healpix
from storage_schemas import open_catalog
from storage_schemas.backend.location import Location


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return hostile.run(tiny.location(tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "report"
    names = job.report(made.catalog, folder, run=made.run)
    assert {path.name for path in folder.glob("*.html")} == set(names)
    return folder


class Parsed(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, and its text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._within = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within != "script":
            self.text += data


@pytest.fixture(scope="module")
def parsed(pages):
    return {path.stem: Parsed(path.read_text()) for path in pages.glob("*.html")}


def test_every_page_runs_two_scripts_beside_it_and_fetches_nothing_from_elsewhere(pages, parsed):
    assert set(parsed) == {"index", "flags", "certificate", "results", "sky", "calibration", "worst"}
    for page in parsed.values():
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert [s["src"] for s in scripts if "src" in s] == ["bokeh.min.js", "report.js"]
        assert {s["type"] for s in scripts if "src" not in s} <= {"application/json"}
        policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
        assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'"
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ("src", "href"):
                target = attributes.get(name, "").partition("#")[0]
                assert not target or (pages / target).is_file(), target


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_identifiers_are_shown_as_text(parsed, kind):
    shown = HOSTILE[kind].replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
    assert shown in parsed["worst"].text
    assert "1337" not in parsed["worst"].text  # 7 * 191
    assert not {"\u202e", "\u2066"} & set(parsed["worst"].text)


def test_hostile_names_of_runs_columns_and_models_make_no_element(parsed):
    for page in parsed.values():
        assert SCRIPT in page.text and "{{ 7 * 191 }}" in page.text
        assert not [attributes for tag, attributes in page.elements if tag == "img" and attributes["src"] == "x"]
    assert f"ID {SCRIPT}" in parsed["worst"].text
    assert f"p-p, {SCRIPT}" in parsed["calibration"].text


def test_no_chart_is_set_as_a_formula(pages):
    for path in pages.glob("*.html"):
        for item in re.findall(r'<script type="application/json" class="item">(.*?)</script>', path.read_text()):
            assert '"TeX"' not in item and '"MathML"' not in item
            for label in re.findall(r'"axis_label": ?(\{[^}]*\}|"[^"]*")', item):
                assert "PlainText" in label


def test_numbers_beside_the_charts_are_the_catalogs(made, pages):
    data = open_catalog(made.catalog)
    maps = pd.read_csv(pages / "tables" / "sky_counts.csv")
    placed = data["healpix_29"].values[data["healpix_29"].values >= 0]
    order = int(maps["order"][0])
    pixels, counts = np.unique(placed >> 2 * (29 - order), return_counts=True)
    np.testing.assert_array_equal(maps["pixel_nested"], pixels)
    np.testing.assert_array_equal(maps["galaxies"], counts)
    flagged = pd.read_csv(pages / "tables" / "sky_flagged.csv")
    assert np.sum(flagged["flagged share"] * counts) == pytest.approx(
        np.sum(data["flags"].values[data["healpix_29"] >= 0] != 0), rel=1e-4
    )
    planes = pd.read_csv(pages / "tables" / "main_sequence.csv")
    names = list(data["param"].values)
    medians = (
        data["quantiles"].sel(quantile=0.5).values[:, [names.index("log_mstar_surviving"), names.index("log_sfr_1gyr")]]
    )
    row = planes.iloc[len(planes) // 2]
    inside = [
        (medians[:, i] >= row[f"{axis}_from"]) & (medians[:, i] < row[f"{axis}_to"]) for i, axis in enumerate("xy")
    ]
    assert abs(int(row["galaxies"]) - int(np.sum(inside[0] & inside[1]))) <= 1  # edges are written with six digits
    outside = int(re.search(r"\(outside of the plot: ([\d,]+)\)", (pages / "results.html").read_text())[1])
    assert outside < N / 10 and 0.8 * N < planes["galaxies"].sum() <= np.isfinite(medians).all(1).sum()


def test_flags_and_methods_are_told_in_words_with_their_counts(made, parsed):
    failed = int(np.sum(open_catalog(made.catalog)["flags"].values == int(Flag.FAILED)))
    assert DESCRIPTIONS[Flag.FAILED] in parsed["flags"].text
    assert f"{failed:,}" in parsed["flags"].text and f"{N - failed:,}" in parsed["certificate"].text


def test_sums_of_blocks_are_the_sums_of_the_whole(made):
    data = open_catalog(made.catalog)
    wanted = plan(data, 2)
    whole = Sums.of(data, 0, wanted)
    parts = added(Sums.of(data.isel(galaxy=slice(i, i + 700)), i, wanted) for i in range(0, N, 700))
    assert parts.rows == whole.rows == N
    for name in ("methods", "flags"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    for name in ("counts", "methods_by", "flags_by", "outside"):
        one, other = getattr(parts, name), getattr(whole, name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    pd.testing.assert_frame_equal(parts.sky, whole.sky, check_names=False)
    for reason, rows in whole.worst.items():
        pd.testing.assert_frame_equal(parts.worst[reason], rows)
    chi2 = data["chi2"].values
    assert whole.worst["chi2"].index.tolist() == np.argsort(-chi2, kind="stable")[:25].tolist()
    assert set(whole.worst["chi2"].columns) == set(TOLD)


def test_workers_of_dask_sum_up_what_threads_do(made, dask):
    from cluster.settings import DaskSettings

    wanted = plan(open_catalog(made.catalog), 2)
    one = job.summed(made.catalog, "release-1", N, wanted)
    other = job.summed(made.catalog, "release-1", N, wanted, DaskSettings(address=dask))
    np.testing.assert_array_equal(one.counts["main_sequence"], other.counts["main_sequence"])
    assert one.rows == other.rows == N


def test_a_missing_band_or_position_makes_no_answer_doubtful():
    flags = np.array([0, int(Flag.BAND_MISSING), int(Flag.BAND_MISSING | Flag.NOVEL), int(Flag.FAILED)], np.uint32)
    assert doubtful(flags).tolist() == [False, False, True, True]


@pytest.mark.parametrize("order", [2, 4, 6])
def test_outlines_lie_around_their_pixels_and_cover_equal_areas(order):
    pixels = np.arange(12 << 2 * order, dtype=np.int64)[:: max(1, 4**order // 64)]
    found = outlines(order, pixels)
    x, y = found.x, found.y
    area = 0.5 * np.abs(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), axis=1))
    expected = 4 * np.pi / (12 << 2 * order)  # Mollweide's plane has the sphere's area
    middle = np.abs(found.dec) < 60
    np.testing.assert_allclose(area[middle], expected, rtol=0.1)
    assert np.all(np.isfinite(x)) and np.all(np.isfinite(y))


@pytest.mark.parametrize(("ra", "dec", "order"), [(0.2, -3.0, 9), (150.0, 2.2, 10), (359.0, 70.0, 8)])
def test_a_small_field_fills_its_map(ra, dec, order):
    rng = np.random.default_rng(1)
    at = healpix((ra + rng.uniform(-1, 1, 500) / np.cos(np.radians(dec))) % 360, dec + rng.uniform(-1, 1, 500))
    found = outlines(order, np.unique(at >> 2 * (29 - order)))
    map_x, map_y = (np.concatenate([line[i] for line in found.grid]) for i in (0, 1))
    assert map_x.min() <= found.x.min() and found.x.max() <= map_x.max()
    assert np.ptp(found.x) > 0.3 * np.ptp(map_x) and np.ptp(found.y) > 0.3 * np.ptp(map_y)
    assert len(found.marks) >= 6


def test_pixels_have_some_galaxies_each(made):
    order = plan(open_catalog(made.catalog), 2).order
    pixel = open_catalog(made.catalog)["healpix_29"].values
    assert len(np.unique(pixel[pixel >= 0] >> 2 * (29 - order))) <= N / 5


def test_pages_in_a_bucket_are_served_as_pages(s3_server):
    where = Location.parse("s3://galaxies/report", s3_server)
    with whole_folder(where) as folder:
        (folder / "index.html").write_text("<p>")
        (folder / "report.js").write_text("1;")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    kinds = {
        name: client.head_object(Bucket="galaxies", Key=f"report/{name}")["ContentType"]
        for name in ("index.html", "report.js")
    }
    assert kinds["index.html"] == "text/html" and kinds["report.js"].endswith("javascript")


def test_a_report_replaces_nothing_and_says_so(made, pages):
    again = sedflow("report", made.catalog, "--out", pages)
    assert again.returncode == 1 and "exists already" in again.stderr
    root = sedflow("report", made.catalog, "--out", pages, "--root", "x")
    assert root.returncode == 2
