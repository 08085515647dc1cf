"""The generated pages are those of the code, and the README names nothing that does not exist."""

import re
import runpy
import subprocess
import sys
import tomllib

import pytest
import yaml
from paths import ROOT

PAGES = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_up_to_date(name):
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run: python docs/generate.py"


def test_every_shipped_run_file_is_valid():
    from jobs.config.run_file import RunFile

    names = sorted(path.stem for path in (ROOT / "jobs" / "runs").glob("*.yaml"))
    assert {"demo", "nsa"} <= set(names)
    for name in names:
        assert RunFile.load(name).name == name


@pytest.mark.slow
def test_every_module_gets_a_page(tmp_path):
    made = subprocess.run(["make", "api", f"BUILD={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    packages = ("sedflow_dist", "storage_schemas", "cluster", "jobs")
    modules = [path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")]
    pages = {path.relative_to(tmp_path / "api").with_suffix(".py") for path in (tmp_path / "api").rglob("*.html")}
    lost = {path for path in modules if path.name not in ("__init__.py", "__main__.py")} - pages
    assert not lost and "Photometry" in (tmp_path / "api" / "sedflow_dist.html").read_text()


def test_links_of_the_documentation_exist():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path):
    made = subprocess.run(["make", "docs", f"BUILD={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    site = tmp_path / "docs"
    pages = {path.stem for path in (site / "docs").glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
    first = re.search(r'url=([^"]+)"', (site / "index.html").read_text())[1]
    assert "A job is a pure function" in (site / first).read_text()
    for path in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert fetched == [], path


@pytest.mark.slow
@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](index.md#no-such-heading)", "[x](../no/such/file.py)"])
def test_a_broken_link_fails_the_build_of_the_site(tmp_path, link):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "contents.rst").write_text("Contents\n========\n\n.. toctree::\n\n   index\n")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "--fail-on-warning",
        "--nitpicky",
        "-c",
        ROOT / "docs",
        tmp_path,
        tmp_path / "site",
    ]
    page = tmp_path / "docs" / "index.md"
    for text, code in (("# Title\n\n[x](index.md#title)\n", 0), (f"# Title\n\n{link}\n", 1)):
        page.write_text(text)
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode != 0) == bool(code), done.stderr


def test_versions_are_told_alike_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["version"] == version
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == version
