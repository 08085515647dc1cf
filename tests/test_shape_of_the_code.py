"""One observation, one shape: photometry travels as `Photometry`, never as loose fluxes, uncertainties, masks and redshifts."""

import ast

import pytest
from paths import ROOT

PARTS = {"flux", "sigma", "mask", "redshift"}
#: Where photometry is made of its parts, or a store names its arrays: module and name of the function, class or variable.
MAY = {
    ("sedflow_dist/photometry/photometry.py", "of"), ("sedflow_dist/photometry/photometry.py", "Photometry"),
    ("sedflow_dist/photometry/surveys.py", "calibrate"), ("storage_schemas/photometry.py", "OBSERVED"),
}  # fmt: skip
#: What takes all parts because it makes photometry of them.
MAKERS = {"Photometry", "of", "replace", "changed"}
FOLDERS = ("sedflow_dist", "storage_schemas", "cluster", "jobs", "benchmarks", "docs", "tests")
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def word(node):
    """The part of an observation that an expression is: ``flux``, ``mocks.flux[rows].numpy()``, ``data["flux"]``, "flux"."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name) | ast.arg(arg=name) | ast.keyword(arg=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return name if name in PARTS else word(value)
        case ast.Subscript(value=value, slice=index):
            return found if (found := word(index)) in PARTS else word(value)
        case ast.Call(func=ast.Attribute() as function, args=[]):
            return word(function)
        case ast.Call(args=[one]):
            return word(one)
        case ast.Starred(value=value):
            return word(value)
    return None


def groups(node):
    """What stands side by side in a node: elements of a tuple, arguments, parameters, fields."""
    match node:
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            yield elements
        case ast.Call(func=function, args=arguments, keywords=keywords):
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if called not in MAKERS:
                yield [*arguments, *keywords]
        case ast.FunctionDef(args=a) | ast.Lambda(args=a):
            yield [*a.posonlyargs, *a.args, *a.kwonlyargs]
        case ast.ClassDef(body=body):
            yield [line.target for line in body if isinstance(line, ast.AnnAssign)]


def taken_apart(source):
    """Names of the functions, classes and variables of a module in which an observation is in parts, three or four."""

    def look(node, inside):
        name = getattr(node, "name", None)
        if isinstance(node, ast.Assign) and not inside and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        inside = name or inside
        for parts in groups(node):
            if len({word(part) for part in parts} & PARTS) >= 3:
                yield inside
        for child in ast.iter_child_nodes(node):
            yield from look(child, inside)

    return set(look(ast.parse(source), ""))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_observation_is_taken_apart(path):
    module = path.relative_to(ROOT).as_posix()
    if path.name == "test_shape_of_the_code.py":
        return
    assert not {name for name in taken_apart(path.read_text()) if (module, name) not in MAY}


@pytest.mark.parametrize(
    "source",
    [
        "def f(flux, sigma, mask, redshift): pass",
        "def f(a, *, sigma: Tensor, flux: Tensor, mask: Tensor): pass",
        "class A:\n    flux: Tensor\n    sigma: Tensor\n    mask: Tensor",
        "def f():\n    flux, sigma, mask, z = data",
        "def f():\n    data = (x[at] for x in (mocks.flux, mocks.sigma, mocks.mask, mocks.redshift))",
        "def f():\n    data = [a['flux'], a['sigma'], a['mask'][rows]]",
        "def f():\n    data = [a[name] for name in ('flux', 'sigma', 'mask', 'redshift')]",
        "def f():\n    g(torch.as_tensor(flux), torch.as_tensor(sigma), mask.numpy())",
        "def f():\n    return posterior.draw(flux=a, sigma=b, mask=c, redshift=d)",
        "f = lambda flux, sigma, redshift: 0",
    ],
)
def test_parts_are_found_however_they_are_written(source):
    assert taken_apart(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(photometry):\n    return photometry.flux / photometry.sigma",
        "Photometry.of(flux, sigma, redshift, mask)",
        "replace(photometry, flux=flux, sigma=sigma, mask=mask)",
        "def f(flux, sigma): pass",
    ],
)
def test_photometry_may_be_made_and_read(source):
    """Two parts of it are no observation."""
    assert not taken_apart(source)
