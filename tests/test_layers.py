"""Who may import whom: the science knows no engine and no store; these know neither each other nor the jobs."""

import ast

import pytest
from paths import ROOT

#: Top-level packages that the modules of a folder must not import, at the top or inside a function.
FORBIDDEN = {
    "sedflow_dist": {
        "ray", "dask", "distributed", "zarr", "icechunk", "obstore", "xarray", "jobs", "cluster", "storage_schemas",
    },
    "storage_schemas": {"cluster", "jobs", "ray", "dask", "distributed"},
    "cluster": {"storage_schemas", "jobs"},
}  # fmt: skip
MODULES = [path for folder in FORBIDDEN for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(source: str) -> set[str]:
    """Top-level names of all absolute imports, and of modules imported by name."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module", "__import__",
        ):  # fmt: skip
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            names |= {text.split(".")[0] for text in texts}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_what_their_layer_may(path):
    forbidden = FORBIDDEN[path.relative_to(ROOT).parts[0]]
    assert not imported(path.read_text()) & forbidden


def test_every_layer_was_looked_at():
    counts = {folder: sum(path.is_relative_to(ROOT / folder) for path in MODULES) for folder in FORBIDDEN}
    assert counts["sedflow_dist"] >= 20
    assert min(counts.values()) >= 3


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import ray.train as t",
        "from ray.data import x",
        "def f():\n    import ray",
        "if TYPE_CHECKING:\n  import ray",
        "importlib.import_module('ray.train')",
        "__import__('ray')",
    ],
)
def test_imports_are_found_wherever_they_hide(source):
    assert "ray" in imported(source)


def test_other_text_is_no_import():
    assert imported('"""import ray"""\nfrom . import dask\nx = "import zarr"') == set()
