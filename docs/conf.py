"""How Sphinx makes the site of the documentation: `make docs`. Links in the pages are those that work in the repository, too."""

from importlib.metadata import version as _version

project = "sedflow-dist"
author = "the sedflow-dist developers"
copyright = "2026, the sedflow-dist developers"  # noqa: A001
version = release = _version("sedflow-dist")

extensions = ["myst_parser"]
# The source is the repository, of which these are the pages; all else that they link to comes along as a download.
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/RESULTS.md",
    "docs/*.md",
    "docs/contents.rst",
]
root_doc = "docs/contents"
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"sedflow-dist {release}"
html_static_path: list[str] = []
html_extra_path = ["site"]  # the first page, which leads to docs/index
