"""The generated pages are those of the code, and the README names nothing that does not exist."""

import runpy
import subprocess

import pytest
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
    import re

    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
