"""The report in a real browser, opened from its files: it draws, hears mouse and keyboard, fits, and runs nothing else."""

from itertools import pairwise

import browser
import hostile
import numpy as np
import pytest
import tiny
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from jobs.report import job

pytestmark = pytest.mark.slow

#: All elements, those in shadow roots too, in which Bokeh draws.
DEEP = """
const found = [];
const walk = (root) => { for (const e of root.querySelectorAll("*")) { found.push(e); if (e.shadowRoot) walk(e.shadowRoot); } };
walk(document);
"""
PAGES = ("index", "flags", "certificate", "results", "sky", "calibration", "worst")
WIDTHS = (375, 1400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    browser.require()
    made = hostile.run(tiny.location(tmp_path_factory.mktemp("run")))
    out = tmp_path_factory.mktemp("pages") / "report"
    job.report(made.catalog, out, run=made.run)
    return out


@pytest.fixture(scope="module")
def driver(folder):
    with browser.chromium() as driver:
        yield driver


def opened(driver, folder, page, width=1400):
    """Open a page and wait until every chart is drawn."""
    browser.width(driver, width)
    driver.get(f"file://{folder}/{page}.html")
    wanted = len(driver.find_elements(By.CSS_SELECTOR, ".chart"))
    drawn = "return window.Bokeh.documents.filter(d => d.is_idle).length"
    WebDriverWait(driver, 60).until(lambda d: d.execute_script(drawn) >= wanted)
    return wanted


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_fits_and_runs_nothing_that_it_only_shows(driver, folder, page, width):
    n_charts = opened(driver, folder, page, width)
    assert (n_charts > 0) == (page not in ("index", "worst"))
    assert browser.complaints(driver) == []
    assert (
        "caught" not in driver.title.partition("<script>")[0]
        and driver.execute_script("return document.images.length") == 0
    )
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = driver.execute_script(
        f"{DEEP} return found.filter(e => e.tagName == 'CANVAS').map(e => [e.clientWidth, e.clientHeight])"
    )
    assert sum(w > 100 and h > 100 for w, h in sizes) >= n_charts
    overlap = driver.execute_script(
        "return [...document.querySelectorAll('figure')].map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
    )
    assert all(left >= 0 and right <= width for left, right in overlap)
    picture = folder.parent / f"{page}_{width}.png"
    assert driver.save_screenshot(picture)
    assert len(np.unique(np.asarray(Image.open(picture).convert("L")))) > 20


def test_hovering_tells_the_numbers(driver, folder):
    opened(driver, folder, "results")
    chart = driver.find_element(By.CSS_SELECTOR, "#chart-redshifts")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    told = (
        f"{DEEP} return found.filter(e => e.classList.contains('bk-Tooltip')).map(e => e.shadowRoot?.textContent ?? '')"
    )

    def shown(driver):
        ActionChains(driver).move_to_element_with_offset(chart, -10, 40).pause(0.2).move_by_offset(5, 60).perform()
        return [text for text in driver.execute_script(told) if "galaxies" in text]

    (text,) = WebDriverWait(driver, 30).until(shown)
    assert "from" in text and any(character.isdigit() for character in text)


def ranges(driver, name):
    """Ends of a chart's horizontal range."""
    return driver.execute_script(
        "const root = window.Bokeh.documents.map(d => d.roots()[0]).find(r => document.getElementById('chart-' + arguments[0])"
        ".contains(window.Bokeh.index.get_by_id(r.id).el)); return [root.x_range.start, root.x_range.end]", name,
    )  # fmt: skip


def test_dragging_a_box_zooms_into_it(driver, folder):
    opened(driver, folder, "results")
    chart = driver.find_element(By.CSS_SELECTOR, "#chart-main_sequence")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    start, end = ranges(driver, "main_sequence")
    ActionChains(driver).move_to_element_with_offset(chart, -60, -40).click_and_hold().move_by_offset(
        80, 80
    ).release().perform()
    WebDriverWait(driver, 30).until(lambda d: ranges(d, "main_sequence") != [start, end])
    low, high = ranges(driver, "main_sequence")
    assert start < low < high < end and high - low < 0.5 * (end - start)
    assert browser.complaints(driver) == []


def test_the_keyboard_reaches_every_page(driver, folder):
    opened(driver, folder, "index")
    body, reached = driver.find_element(By.TAG_NAME, "body"), []
    body.send_keys(Keys.TAB)
    for _ in range(len(PAGES) + 1):
        reached.append(driver.switch_to.active_element.get_attribute("href") or "")
        driver.switch_to.active_element.send_keys(Keys.TAB)
    assert reached[0].endswith("#content")
    assert {href.rpartition("/")[2] for href in reached[1:]} == {f"{page}.html" for page in PAGES}
    link = driver.find_element(By.LINK_TEXT, "Certificate")
    link.send_keys(Keys.ENTER)
    WebDriverWait(driver, 30).until(lambda d: d.current_url.endswith("certificate.html"))


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    channels = np.array([int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_stands_out_from_its_ground(driver, folder):
    opened(driver, folder, "flags")
    colours = driver.execute_script(
        "return [...document.querySelectorAll('p, a:not(.skip), td, th, h1, h2, figcaption')].map(e => getComputedStyle(e).color)"
    )
    assert len(colours) > 20
    assert min(1.05 / (luminance(colour) + 0.05) for colour in set(colours)) >= 4.5  # on white


def test_headings_follow_one_another(driver, folder):
    opened(driver, folder, "certificate")
    levels = driver.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
