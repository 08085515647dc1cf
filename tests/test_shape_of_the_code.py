"""Rules that no linter has: sizes, no parameter known by its number, no galaxy taken apart by hand, names of tests."""

import ast
import re

import pytest
from paths import ROOT

PACKAGES = ("sedflow_dist", "storage_schemas", "cluster", "jobs")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60

#: Arrays whose last axis is parameters or coordinates: these have names (`ParameterSpace`), never numbers.
PARAMETER_ARRAYS = {"theta", "u", "phi", "params", "parameters", "coordinates", "draws_of", "target"}
OBSERVATION = ("flux", "sigma", "mask", "redshift")


def name_of(path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def too_long(source: str) -> list[str]:
    """Functions that are too long and do not say why: by a comment `# long: reason` above them or in their signature."""
    lines, found = source.splitlines(), []
    for function in functions(ast.parse(source)):
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        beside = "\n".join(lines[max(first - 2, 0) : function.body[0].lineno - 1])
        length = function.end_lineno - first + 1
        if length > MOST_LINES_OF_A_FUNCTION and not re.search(r"# long: \w+", beside):
            found.append(f"{function.name}: {length} lines")
    return found


def parameters_by_number(source: str) -> list[str]:
    """Where a parameter is taken by its number: theta[..., 0], theta[:, 1:5], theta[1:5]."""
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript) and _name(node.value) in PARAMETER_ARRAYS and _is_number(node.slice)
    ]


def _name(node: ast.expr) -> str:
    """theta of theta, self.theta, theta[rows], theta(...) and as_tensor(theta)."""
    if isinstance(node, ast.Call):
        arguments = {_name(argument) for argument in node.args} & PARAMETER_ARRAYS
        return name if (name := _name(node.func)) in PARAMETER_ARRAYS else min(arguments, default="")
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return getattr(node, "id", getattr(node, "attr", ""))


def _is_number(index: ast.expr) -> bool:
    def literal(node):
        return isinstance(getattr(node, "operand", node), ast.Constant) and node is not None

    if isinstance(index, ast.Tuple):
        last = index.elts[-1]
        bounds = (last.lower, last.upper) if isinstance(last, ast.Slice) else (last,)
        return any(literal(bound) and getattr(bound, "value", 0) is not ... for bound in bounds)
    return isinstance(index, ast.Slice) and literal(index.lower) and literal(index.upper)


def taken_apart(source: str) -> list[str]:
    """Where flux, sigma, mask and redshift of a galaxy stand in a row: in a tuple, in the arguments of a call."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = (
            node.elts if isinstance(node, (ast.Tuple, ast.List)) else node.args if isinstance(node, ast.Call) else []
        )
        names = [getattr(part, "id", getattr(part, "attr", "")) for part in parts]
        if any(tuple(names[i : i + 4]) == OBSERVATION for i in range(len(names))):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_read_in_one_sitting(path):
    source = path.read_text()
    assert source.count("\n") <= MOST_LINES
    assert not too_long(source)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parts[-1] and name_of(p).startswith(("sedflow_dist", "jobs"))], ids=name_of
)
def test_parameters_have_names_and_galaxies_stay_in_one_piece(path):
    source = path.read_text()
    assert not parameters_by_number(source)
    assert not taken_apart(source)


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_names_of_tests_are_sentences(path):
    for function in functions(ast.parse(path.read_text())):
        if function.name.startswith("test_"):
            words = function.name.removeprefix("test_").split("_")
            assert len(words) >= 3, f"{function.name}: what does a user see?"
            keys = [
                word
                for word in words[:1]
                if re.search(r"\d", word) and word not in ("bfloat16", "float32", "bc03", "c2st")
            ]
            assert not keys, f"{function.name} begins with a key"
            assert not words[-1].isdigit() or words[-2] == "code", f"{function.name} ends with a number"


@pytest.mark.parametrize(
    "line",
    [
        "theta[..., 0]", "theta[:, 0]", "self.theta[..., 1:5]", "theta[1:5]", "u[..., :1]", "phi[:, -1]", "u[rows][..., 0]",
        "probit(torch.as_tensor(draws_of(galaxy)[..., 1:]))", "target(mocks)[:, 0]", "as_tensor(theta)[..., 2]",
    ],
)  # fmt: skip
def test_a_parameter_known_by_its_number_is_found(line):
    assert parameters_by_number(line)


@pytest.mark.parametrize(
    "line",
    [
        "theta[rows]",
        "theta[0]",
        "theta[:n]",
        "theta[..., where]",
        "u[..., space.places['gamma']]",
        "age[..., 1]",
        "u[..., :n]",
    ],
)
def test_rows_and_names_are_no_numbers_of_parameters(line):
    assert not parameters_by_number(line)


@pytest.mark.parametrize(
    "line",
    [
        "flux, sigma, mask, redshift = data",
        "flow.features(flux, sigma, mask, redshift)",
        "f(1, m.flux, m.sigma, m.mask, m.redshift, 2)",
        "[x[:3] for x in (mocks.flux, mocks.sigma, mocks.mask, mocks.redshift)]",
    ],
)
def test_a_galaxy_taken_apart_is_found(line):
    assert taken_apart(line)


def test_a_long_function_needs_a_reason_beside_it():
    body = "\n".join(["    x = 1"] * 60)
    assert too_long(f"def f():\n{body}\n")
    assert not too_long(f"# long: one table\ndef f():\n{body}\n")
    assert not too_long(f"def f():  # long: one table\n{body}\n")
    assert too_long(f"def f():\n{body}\n    # long: too far away\n")
