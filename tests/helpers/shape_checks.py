"""Shapes in annotations, checked at every call: what `Float[Tensor, "galaxy band"]` says holds in the test run.

jaxtyping's import hook, with beartype, for those functions and dataclasses of the four packages whose annotations name an
array or a tensor. Others are left as they are: mypy has looked at them, numba must see its functions bare, and every wrapper
costs time. Processes that a test starts (workers of Dask and Ray, commands) are without it.
"""

import ast
import importlib._bootstrap_external
from functools import partial
from importlib.machinery import SourceFileLoader
from unittest.mock import patch

import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from jaxtyping import _import_hook as jaxtyping_hook

PACKAGES = ("sedflow_dist", "storage_schemas", "cluster", "jobs")
ARRAYS = {"Float", "Bool", "Int", "Tensor", "ndarray"}
#: An integer is a float, as for mypy, and numbers of numpy are numbers. The hook finds the checker by this name.
checked = beartype(
    conf=BeartypeConf(
        hint_overrides=BeartypeHintOverrides({int: int | np.integer, float: float | int | np.number}),
    )
)


def names_an_array(*annotations: ast.expr | None) -> bool:
    """Whether one of the annotations has an array in it, also deeper inside: tuple[Float[Tensor, "draw"], int]."""
    nodes = (node for annotation in annotations if annotation for node in ast.walk(annotation))
    return any(getattr(node, "id", getattr(node, "attr", "")) in ARRAYS for node in nodes)


class _ArrayFunctions(jaxtyping_hook.JaxtypingTransformer):
    def visit_FunctionDef(self, node):  # noqa: N802  ast's name
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        if names_an_array(node.returns, *(argument.annotation for argument in arguments if argument)):
            return super().visit_FunctionDef(node)
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node):  # noqa: N802
        if names_an_array(*(part.annotation for part in node.body if isinstance(part, ast.AnnAssign))):
            return super().visit_ClassDef(node)
        self.generic_visit(node)
        return node


class _OwnBytecodeOnly(jaxtyping_hook._JaxtypingLoader):
    """jaxtyping's loader, which keeps the bytecode of a checked module under a name of its own, but of that module alone.

    jaxtyping's renames while the module is executed, and so for every module that it imports: torch, pandas and Ray would be
    compiled anew in every process.
    """

    def get_code(self, fullname):
        own_name = partial(jaxtyping_hook._optimized_cache_from_source, self._typechecker.get_hash())
        with patch.object(importlib._bootstrap_external, "cache_from_source", own_name):
            return super().get_code(fullname)

    def exec_module(self, module):
        SourceFileLoader.exec_module(self, module)


def switch_on():
    """Check the shapes of all modules of the packages that are imported from now on."""
    jaxtyping_hook.JaxtypingTransformer = _ArrayFunctions
    jaxtyping_hook._JaxtypingLoader = _OwnBytecodeOnly
    jaxtyping_hook.install_import_hook(PACKAGES, "shape_checks.checked")
