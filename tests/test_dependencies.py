"""What is imported is declared: an import that works only because another package happens to bring it breaks without notice."""

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest
from paths import HELPERS, ROOT

PACKAGES = ("sedflow_dist", "storage_schemas", "cluster", "jobs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name(requirement):
    """The distribution that a requirement names, as PyPI writes it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


CORE = {name(text) for text in PROJECT["dependencies"]}
EXTRAS = {extra: {name(text) for text in texts} for extra, texts in PROJECT["optional-dependencies"].items()}
PRODUCT = CORE.union(*(names for extra, names in EXTRAS.items() if extra != "test"))
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def imports(source):
    """Top-level names of absolute imports, and whether each stands at the top of the module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            continue
        for found in names:
            yield found.split(".")[0], node in tree.body


def undeclared(folder, allowed, top_only=None):
    """Imports of a folder that no allowed distribution has; of those at the top of modules, that none of ``top_only`` has."""
    own = set(PACKAGES)
    if folder not in PACKAGES:
        own |= {
            path.stem
            for part in (ROOT / folder, HELPERS, ROOT / "docs", ROOT / "examples")
            for path in part.rglob("*.py")
        }
    lost = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = str(path.relative_to(ROOT))
        for module, at_top in imports(path.read_text()):
            if module in sys.stdlib_module_names or module in own:
                continue
            own_extra = EXTRAS.get(path.stem, set())  # a module of an extra's name is for those who have it
            declared = top_only | own_extra if top_only and at_top else allowed
            if not {name(text) for text in DISTRIBUTIONS.get(module, [module])} & declared:
                lost.add(f"{module} ({where})")
    return sorted(lost)


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_import_of_the_packages_is_declared_and_at_the_top_only_what_is_always_installed(folder):
    assert undeclared(folder, PRODUCT, CORE) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "docs"])
def test_every_import_beside_the_packages_is_declared(folder):
    assert undeclared(folder, PRODUCT | EXTRAS["test"]) == []


def test_every_dependency_is_pinned():
    pinned = {name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert sorted((PRODUCT | EXTRAS["test"]) - pinned - {"sedflow-dist"}) == []


def test_an_import_is_found_wherever_it_hides():
    source = "import a.b\nfrom c.d import e\nfrom . import f\ndef g():\n    import h\nif True:\n    import i"
    assert dict(imports(source)) == {"a": True, "c": True, "h": False, "i": False}
