"""Who may import whom: the science knows no engine and no store; these know neither each other nor the jobs.

Inside the science, arrows go one way too; jobs use what other jobs offer, never their private names; nothing imports in a
circle.
"""

import ast
import graphlib
import subprocess
import sys

import pytest
from paths import ROOT

import sedflow_dist

#: Top-level packages that the modules of a folder must not import, at the top or inside a function.
FORBIDDEN = {
    "sedflow_dist": {
        "ray", "dask", "distributed", "zarr", "icechunk", "obstore", "xarray", "jobs", "cluster", "storage_schemas",
    },
    "storage_schemas": {"cluster", "jobs", "ray", "dask", "distributed"},
    "cluster": {"storage_schemas", "jobs"},
}  # fmt: skip
#: What a module may import all the same, inside functions only: the notebook's surface hands out xarray; who imports the science
#: alone does not get it.
INSIDE_FUNCTIONS = {"sedflow_dist/notebook.py": {"xarray"}}
#: The only modules that know what the family "maf" is made of.
MAF = (
    "sedflow_dist.flow.maf",
    "sedflow_dist.flow.maf_flow",
    "sedflow_dist.flow.maf_inverse",
    "sedflow_dist.flow.maf_compiled",
)
MODULES = [path for folder in FORBIDDEN for path in sorted((ROOT / folder).rglob("*.py"))]
ALL_MODULES = [*MODULES, *sorted((ROOT / "jobs").rglob("*.py"))]
#: Floors of the science, from the ground: a module imports from its own sub-package and from lower floors only; sub-packages
#: of one floor do not know each other. Modules of sedflow_dist itself that stand on none are the roof: what a notebook imports.
FLOORS = (
    {"keyed_random", "priors", "quantities", "parameters", "magnitudes", "curves", "compiled"},
    {"photometry", "sps"},
    {"simulation"},
    {"flow"},
    {"inference"},
    {"population", "validation"},
)
ROOF = len(FLOORS)


def imported(source: str) -> set[str]:
    """Top-level names of all absolute imports, and of modules imported by name."""
    return {name.split(".")[0] for name in imported_names(ast.parse(source))}


def imported_names(tree: ast.AST, when_loaded: bool = False) -> set[str]:
    """Full names of all absolute imports (package.module.name); ``when_loaded``: only of those that loading a module runs."""
    names = set()
    for node in _run_by_loading(tree) if when_loaded else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module", "__import__",
        ):  # fmt: skip
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            names |= set(texts)
    return names


def _run_by_loading(tree: ast.AST):
    """All nodes but those inside functions and behind `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not is_function and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from _run_by_loading(node)


def module_name(path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def within(name: str, modules: set[str]) -> str | None:
    """The module that an imported name is, or stands in."""
    return name if name in modules else parent if (parent := name.rpartition(".")[0]) in modules else None


def floor(name: str) -> int:
    part = name.split(".")[1]
    return next((i for i, parts in enumerate(FLOORS) if part in parts), ROOF)


def climbs(module: str, tree: ast.AST) -> set[str]:
    """What a module of sedflow_dist imports, anywhere in it, from a floor that is not below its own.

    Under the roof stand those that know what a notebook does, the names that sedflow_dist itself has.
    """
    others = {name for name in imported_names(tree) if name.startswith("sedflow_dist.")}
    foreign = {name for name in others if name.split(".")[1] != module.split(".")[1]}
    if floor(module) == ROOF:
        foreign -= {f"sedflow_dist.{name}" for name in sedflow_dist.__all__}
    return {name for name in foreign if not (floor(name) < floor(module) or floor(name) == 0 == floor(module))}


def private_names(module: str, tree: ast.AST) -> set[str]:
    """Private names of other packages and jobs that a module imports, or reaches for through a module that it imports."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = {
        f"{bound[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
    }
    ours = {name for name in imported_names(tree) | used if name.split(".")[0] in {*FORBIDDEN, "jobs"}}
    package = module.rpartition(".")[0]
    return {
        name
        for name in ours
        if name.rpartition(".")[0].rpartition(".")[0] != package
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_what_their_layer_may(path):
    forbidden = FORBIDDEN[path.relative_to(ROOT).parts[0]] - INSIDE_FUNCTIONS.get(str(path.relative_to(ROOT)), set())
    assert not imported(path.read_text()) & forbidden


@pytest.mark.parametrize("path", [p for p in MODULES if "sedflow_dist" in p.parts], ids=module_name)
def test_the_science_is_built_from_the_ground_up(path):
    module = module_name(path)
    if module not in ("sedflow_dist", "sedflow_dist.__main__"):  # what a notebook imports, and what a pipeline starts
        assert not climbs(module, ast.parse(path.read_text()))


def test_every_folder_of_the_science_stands_on_a_floor():
    folders = {path.name for path in (ROOT / "sedflow_dist").iterdir() if (path / "__init__.py").exists()}
    assert folders <= set().union(*FLOORS)


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_no_module_uses_the_private_names_of_another_package(path):
    assert not private_names(module_name(path), ast.parse(path.read_text()))


def test_nothing_imports_in_a_circle():
    modules = {module_name(path) for path in ALL_MODULES}
    graph = {}
    for path in ALL_MODULES:
        names = imported_names(ast.parse(path.read_text()), when_loaded=True)
        graph[module_name(path)] = {other for name in names if (other := within(name, modules))} - {module_name(path)}
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sedflow_dist.photometry.x", "from sedflow_dist.sps import filters"),
        ("sedflow_dist.flow.x", "def f():\n    from sedflow_dist.inference.posterior import Posterior"),
        ("sedflow_dist.parameters", "from sedflow_dist.sps.dust import Screen"),
        ("sedflow_dist.inference.x", "from sedflow_dist.notebook import load_model"),
    ],
)
def test_a_step_upwards_is_found(module, source):
    assert climbs(module, ast.parse(source))
    assert not climbs("sedflow_dist.notebook", ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "from jobs.simulate.ssp import _grid",
        "from jobs.simulate import ssp\nssp._grid()",
        "from jobs.simulate import ssp as table\nx = table._grid",
        "from sedflow_dist.inference.cascade import _tensors",
    ],
)
def test_a_private_name_of_another_job_is_found(source):
    assert private_names("jobs.validate.job", ast.parse(source))


def test_names_within_a_package_are_its_own():
    assert not private_names("jobs.simulate.job", ast.parse("from jobs.simulate.ssp import _grid, __all__"))


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
