"""What is inferred of each galaxy: every column declared once; answers of the methods in, one summary of a block out.

The catalog's schema, its exports, the plan and the docs follow from the declarations here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
QUANTILE_NAMES = ("p025", "p16", "p50", "p84", "p975")
#: All flags but those that an answer sets anew.
_KEPT = ~np.uint32(int(Flag.FAILED | Flag.LOW_EFFECTIVE_FRACTION | Flag.PRIOR_EDGE | Flag.NOT_CONVERGED))


class Method(IntEnum):
    """How a row was inferred; `METHODS` has it in words."""

    NONE = 0
    FLOW = 1
    WEIGHTED = 2
    MORE_DRAWS = 3
    SHORT_MCMC = 4
    MCMC = 5


METHODS = {
    Method.NONE: "none", Method.FLOW: "flow", Method.WEIGHTED: "importance-weighted flow",
    Method.MORE_DRAWS: "importance-weighted flow, more draws",
    Method.SHORT_MCMC: "short MCMC from the flow's draws", Method.MCMC: "MCMC",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of a `Summary`: ``dims`` that it has beside the galaxy, what stands where nothing was inferred, UCD."""

    name: str
    dtype: str
    meaning: str
    dims: tuple[str, ...] = ()
    unit: str = "1"
    ucd: str = ""
    missing: float = math.nan

    def empty(self, n: int, sizes: Mapping[str, int]) -> np.ndarray:
        """Return the column of ``n`` galaxies of which nothing was inferred."""
        return np.full((n, *(sizes[dim] for dim in self.dims)), self.missing, self.dtype)

    def row_bytes(self, sizes: Mapping[str, int]) -> int:
        """Return the bytes of a row in memory."""
        return self.empty(1, sizes).nbytes


def _is(dtype: str, meaning: str, *dims: str, **more: Any) -> dict[str, Any]:
    """Return the declaration of a column but for its name."""
    return {"dtype": dtype, "meaning": meaning, "dims": dims, **more}


@dataclass(frozen=True)
class Summary:
    """What is inferred of a block of galaxies, one array a column, (galaxy, ...); rows without an answer are NaN and flagged.

    Fields are declared with type, meaning, dimensions beside the galaxy, unit and UCD: `COLUMNS`. Only ``flags``, uint32,
    are declared where they begin, with the photometry.
    """

    quantiles: np.ndarray = field(
        metadata=_is("float32", "posterior quantiles", "param", "quantile", unit="of the parameter")
    )
    mean: np.ndarray = field(metadata=_is("float32", "posterior mean", "param", unit="of the parameter"))
    std: np.ndarray = field(metadata=_is("float32", "posterior standard deviation", "param", unit="of the parameter"))
    method: np.ndarray = field(
        metadata=_is(
            "uint8", f"how the row was answered: { {int(k): text for k, text in METHODS.items()} }",
            ucd="meta.code", missing=int(Method.NONE),
        )
    )  # fmt: skip
    n_bands: np.ndarray = field(
        metadata=_is("uint8", "number of bands used", ucd="meta.number;instr.bandpass", missing=0)
    )
    effective_draws: np.ndarray = field(
        metadata=_is("float32", "independent draws that the answer is worth", ucd="meta.number")
    )
    effective_fraction: np.ndarray = field(
        metadata=_is("float32", "effective fraction of the importance weights", ucd="stat.fit.goodness")
    )
    pareto_k: np.ndarray = field(
        metadata=_is(
            "float32", "shape of the weights' tail; above 0.7 they are not to be trusted", ucd="stat.fit.goodness"
        )
    )
    log_evidence: np.ndarray = field(
        metadata=_is("float32", "ln of the Bayesian evidence (fluxes in nanomaggies)", ucd="stat.likelihood")
    )
    log_evidence_error: np.ndarray = field(
        metadata=_is("float32", "standard error of ln of the evidence", ucd="stat.error")
    )
    chi2: np.ndarray = field(metadata=_is("float32", "chi^2 of the best draw", ucd="stat.fit.chi2"))
    p_value: np.ndarray = field(
        metadata=_is("float32", "posterior-predictive: of a chi^2 as large as the draws'", ucd="stat.probability")
    )
    rhat: np.ndarray = field(
        metadata=_is("float32", "split R-hat of the chain, where MCMC answered", ucd="stat.fit.goodness")
    )
    flags: np.ndarray
    draws: np.ndarray = field(
        metadata=_is("uint16", "kept draws: prior quantile times 2^16", "draw", "coordinate", missing=0)
    )

    @classmethod
    def of(
        cls, photometry: Photometry, flags: np.ndarray, answers: Sequence[Answer], sizes: Mapping[str, int]
    ) -> Summary:
        """Merge the answers of a block's methods, the later ones first; ``flags`` are those from before any of them."""
        values = {column.name: latest(column.name, len(flags), answers, sizes) for column in COLUMNS}
        flags = flags.copy()
        for answer in answers:
            flags[answer.at[answer.ok]] &= _KEPT
            flags[answer.at] |= answer.flags
        return cls(**{**values, "flags": flags, "n_bands": photometry.n_bands.numpy().astype(np.uint8)})


#: All columns but the flags, in the order of an export.
COLUMNS = tuple(Column(f.name, **f.metadata) for f in fields(Summary) if f.metadata)
_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True)
class Answer:
    """What one method says of some galaxies of a block.

    Attributes:
        at: the galaxies, by their places in the block, (row,)
        ok: whether the method has an answer, (row,); of other rows it only says why not, by flags
        flags: bits that it sets, uint32, (row,)
        columns: arrays (row, ...) by name; in all others a row keeps what the method before said
    """

    at: np.ndarray
    ok: np.ndarray
    flags: np.ndarray
    columns: Mapping[str, np.ndarray]


def latest(name: str, n: int, answers: Sequence[Answer], sizes: Mapping[str, int] | None = None) -> np.ndarray:
    """Return one column of a block of ``n`` galaxies: of each what the last answer says that says anything of it."""
    values = _BY_NAME[name].empty(n, sizes or {})
    for answer in answers:
        if name in answer.columns:
            values[answer.at[answer.ok]] = answer.columns[name][answer.ok]
    return values
