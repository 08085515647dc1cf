"""Who may import whom: the science knows no engine and no store; these know neither each other nor the jobs."""

import ast
import subprocess
import sys

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
#: What a module may import all the same, inside functions only: the notebook's surface reads a model from wherever it is, and
#: hands out xarray; who imports the science alone gets neither.
INSIDE_FUNCTIONS = {"sedflow_dist/notebook.py": {"storage_schemas", "xarray"}}
#: The only modules that know what the family "maf" is made of.
MAF = (
    "sedflow_dist.flow.maf",
    "sedflow_dist.flow.maf_flow",
    "sedflow_dist.flow.maf_inverse",
    "sedflow_dist.flow.maf_bfloat16",
)
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
    forbidden = FORBIDDEN[path.relative_to(ROOT).parts[0]] - INSIDE_FUNCTIONS.get(str(path.relative_to(ROOT)), set())
    assert not imported(path.read_text()) & forbidden


@pytest.mark.parametrize("name", INSIDE_FUNCTIONS)
def test_exceptions_are_used_inside_functions(name):
    source = (ROOT / name).read_text()
    assert INSIDE_FUNCTIONS[name] <= imported(source)  # no exception that nobody needs
    tree = ast.parse(source)
    outside = [
        n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef) and "TYPE_CHECKING" not in ast.dump(n)
    ]
    classes = [
        n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body if not isinstance(n, ast.FunctionDef)
    ]
    text = "\n".join(map(ast.unparse, outside + classes))
    assert not imported(text) & INSIDE_FUNCTIONS[name]


def test_the_science_alone_loads_neither_storage_nor_engines():
    code = "import sys, sedflow_dist, sedflow_dist.inference.cascade, sedflow_dist.flow.training; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & FORBIDDEN["sedflow_dist"]


def test_only_its_own_modules_know_what_the_shipped_family_of_flows_is_made_of():
    inside = {*(ROOT / "sedflow_dist/flow").glob("maf*.py"), ROOT / "sedflow_dist/flow/__init__.py"}
    modules = [p for folder in (*FORBIDDEN, "jobs") for p in (ROOT / folder).rglob("*.py") if p not in inside]
    assert len(modules) > 100
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            assert not names & set(MAF), path


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
