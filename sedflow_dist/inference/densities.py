"""Densities that a column shall have, read from text: distributions of `scipy.stats`, flat ones, and astronomers' relations.

In: ``tau_ism=norm(0.3,0.2)``, ``log_sfr_1gyr=flat``, ``log_mstar_surviving=leja2020(min=8)``. Out: ln of the density at draws.
Nothing of a text is evaluated as code.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float
from pydantic import ValidationError

from sedflow_dist.inference.mass_function import Leja2020
from sedflow_dist.inference.mass_metallicity import Gallazzi2005
from sedflow_dist.inference.relation import Relation

#: Distributions of scipy.stats that a new prior can be; ``flat`` is uniform over all that the old prior covers.
DISTRIBUTIONS = (
    "beta", "cauchy", "expon", "gamma", "halfnorm", "laplace", "logistic", "lognorm", "loguniform", "norm", "skewnorm", "t",
    "triang", "truncnorm", "uniform",
)  # fmt: skip
FLAT = "flat"
#: Published relations, by the name that texts have for them.
RELATIONS: dict[str, type[Relation]] = {"leja2020": Leja2020, "gallazzi2005": Gallazzi2005}

_NO_PRIOR = "is no prior such as tau_ism=norm(0.3,0.2) or log_sfr_1gyr=flat"


@dataclass(frozen=True)
class Density:
    """A density that a column shall have: a frozen distribution of `scipy.stats`, a published relation, or None for ``flat``."""

    name: str
    text: str
    distribution: Any
    relation: Relation | None = None

    @classmethod
    def parse(cls, text: str) -> Density:
        """Read ``column=distribution(numbers)``, arguments as `scipy.stats` or the relation has them; nothing is evaluated.

        >>> Density.parse("tau_ism = norm(0.3, scale=0.2)").distribution.mean()
        0.3

        Raises:
            ValueError: not of that form, or no such distribution or argument; says what is allowed.
        """
        name, _, right = (part.strip() for part in text.partition("="))
        try:
            said = ast.parse(right, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} {_NO_PRIOR} ({getattr(error, 'msg', error)})") from None
        call = said if isinstance(said, ast.Call) else ast.Call(said, [], [])
        if not name.isidentifier() or not isinstance(call.func, ast.Name):
            raise ValueError(f"{text!r} {_NO_PRIOR}")
        family = call.func.id
        if name == "redshift":
            raise ValueError(
                f"{text!r}: a prior on a redshift that is given is the same factor for all draws of a row and changes nothing. "
                "That of redshifts that are inferred is `inference: {prior: {redshift: leja2020(min=8)}}`"
            )
        if family == FLAT:
            if call.args or call.keywords:
                raise ValueError(f"{text!r}: flat takes no arguments; it covers what the old prior covers")
            return cls(name, text.strip(), None)
        if family in RELATIONS:
            return cls(name, text.strip(), None, _relation(text, name, call, family))
        if family not in DISTRIBUTIONS:
            raise ValueError(f"{text!r}: {family!r} is none of {', '.join((FLAT, *RELATIONS, *DISTRIBUTIONS))}")
        return cls(name, text.strip(), _freeze(text, call, family))

    @property
    def given(self) -> tuple[str, ...]:
        """Columns that it is conditional on."""
        return self.relation.given if self.relation else ()

    def log_pdf(
        self,
        columns: Mapping[str, Float[np.ndarray, "galaxy draw"]],
        redshift: Float[np.ndarray, "galaxy 1"],
        lo: Float[np.ndarray, "galaxy 1"],
        hi: Float[np.ndarray, "galaxy 1"],
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density of draws, by ``columns`` of theirs; a flat one lies between ``lo`` and ``hi``."""
        x = columns[self.name]
        if self.relation:
            return self.relation.log_pdf(x, columns, redshift, lo, hi)
        if self.distribution is None:
            return np.broadcast_to(-np.log(hi - lo), x.shape)
        return np.asarray(self.distribution.logpdf(x))

    def describe(self) -> str:
        """Return what was understood, in words: scipy's loc and scale are not everybody's."""
        if self.relation:
            return f"{self.name}: {self.relation.describe()}"
        if self.distribution is None:
            return f"{self.name}: flat over the range that the old prior covers"
        low, middle, high = self.distribution.ppf([0.025, 0.5, 0.975])
        return (
            f"{self.name}: {self.text.partition('=')[2].strip()}, 95 % in {low:.4g} .. {high:.4g}, median {middle:.4g}"
        )


def mass_function(text: str) -> Leja2020:
    """Read a mass function alone, ``leja2020(min=8)``: the number of galaxies at a redshift follows from it.

    Raises:
        ValueError: it is none; says what is allowed.
    """
    relation = Density.parse(f"{Leja2020.column}={text}").relation
    if not isinstance(relation, Leja2020):
        raise ValueError(f"{text!r} is no mass function such as leja2020(min=8)")
    return relation


def _relation(text: str, name: str, call: ast.Call, family: str) -> Relation:
    """The published relation with its arguments."""
    kind = RELATIONS[family]
    if name != kind.column:
        raise ValueError(f"{text!r}: {family} is a density of {kind.column}, not of {name}")
    names = list(kind.model_fields)
    usage = f"{family}({', '.join(f'{key}={field.default:g}' for key, field in kind.model_fields.items())})"
    try:
        return kind.model_validate(_arguments(text, call, names, usage))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{text!r}: {'.'.join(map(str, first['loc']))} {first['msg']}; defaults are {usage}") from None


def _freeze(text: str, call: ast.Call, family: str) -> Any:
    """The distribution with its arguments: numbers in scipy's order, or by name."""
    distribution = getattr(scipy.stats, family)
    names = [*filter(None, (distribution.shapes or "").replace(" ", "").split(",")), "loc", "scale"]
    usage = f"{family}({', '.join(names)})"
    values = _arguments(text, call, names, usage)
    if missing := [name for name in names[:-2] if name not in values]:
        raise ValueError(
            f"{text!r} lacks {', '.join(missing)}; the arguments are {usage}, loc 0 and scale 1 by default"
        )
    frozen = distribution(**values)
    if not np.isfinite(frozen.ppf(0.5)):
        raise ValueError(f"{text!r}: scipy.stats.{usage} is not defined for these numbers")
    return frozen


def _arguments(text: str, call: ast.Call, names: list[str], usage: str) -> dict[str, float]:
    """The numbers of a call by their names, whether they were given by position or by name."""
    if len(call.args) > len(names):
        raise ValueError(f"{text!r}: too many numbers; the arguments are {usage}")
    values: dict[str, float] = {}
    given = [(names[i], value) for i, value in enumerate(call.args)] + [(k.arg or "**", k.value) for k in call.keywords]
    for key, value in given:
        if key not in names or key in values:
            raise ValueError(f"{text!r}: {key!r} is no argument, or given twice; the arguments are {usage}")
        try:
            values[key] = _number(value)
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r}: {ast.unparse(value)!r} is no number; the arguments are {usage}") from None
    return values


def _number(value: ast.expr) -> float:
    """A number as it is written, with its sign, or inf; nothing is computed."""
    sign = 1.0
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub | ast.UAdd):
        sign, value = -1.0 if isinstance(value.op, ast.USub) else 1.0, value.operand
    if isinstance(value, ast.Name) and value.id == "inf":
        return sign * math.inf
    if not isinstance(value, ast.Constant) or isinstance(value.value, bool) or not isinstance(value.value, int | float):
        raise ValueError
    return sign * float(value.value)
