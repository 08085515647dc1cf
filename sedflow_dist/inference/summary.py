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
from jaxtyping import Bool, Float, Int, Shaped, UInt8, UInt16, UInt32

from sedflow_dist.inference.settings import InferenceSettings
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
QUANTILE_NAMES = ("p025", "p16", "p50", "p84", "p975")
#: All flags but those that an answer sets anew.
_KEPT = ~np.uint32(
    int(Flag.FAILED | Flag.LOW_EFFECTIVE_FRACTION | Flag.PRIOR_EDGE | Flag.NOT_CONVERGED | Flag.PRIOR_TOO_FAR)
)


class Method(IntEnum):
    """How a row was inferred; `METHODS` has it in words."""

    NONE = 0
    FLOW = 1
    WEIGHTED = 2
    MORE_DRAWS = 3
    SHORT_MCMC = 4
    MCMC = 5
    AVERAGE = 6


METHODS = {
    Method.NONE: "none", Method.FLOW: "flow", Method.WEIGHTED: "importance-weighted flow",
    Method.MORE_DRAWS: "importance-weighted flow, more draws",
    Method.SHORT_MCMC: "short MCMC from the flow's draws", Method.MCMC: "MCMC",
    Method.AVERAGE: "average over models (catalog average)",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of a `Summary`: ``dims`` that it has beside the galaxy, what stands where nothing was inferred, UCD.

    ``asked``: the setting of `InferenceSettings` without which a catalog has no such column; none: every catalog has it.
    """

    name: str
    dtype: str
    meaning: str
    dims: tuple[str, ...] = ()
    unit: str = "1"
    ucd: str = ""
    missing: float = math.nan
    asked: str = ""

    def empty(self, n: int, sizes: Mapping[str, int]) -> Shaped[np.ndarray, "galaxy ..."]:
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
    """What is inferred of a block of galaxies, one array a column; rows without an answer are NaN and flagged.

    Fields are declared with type, meaning, dimensions beside the galaxy, unit and UCD: `COLUMNS`. Only ``flags``, uint32,
    are declared where they begin, with the photometry.
    """

    quantiles: Float[np.ndarray, "galaxy param quantile"] = field(
        metadata=_is("float32", "posterior quantiles", "param", "quantile", unit="of the parameter")
    )
    mean: Float[np.ndarray, "galaxy param"] = field(
        metadata=_is("float32", "posterior mean", "param", unit="of the parameter")
    )
    std: Float[np.ndarray, "galaxy param"] = field(
        metadata=_is("float32", "posterior standard deviation", "param", unit="of the parameter")
    )
    method: UInt8[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "uint8", f"how the row was answered: { {int(k): text for k, text in METHODS.items()} }",
            ucd="meta.code", missing=int(Method.NONE),
        )
    )  # fmt: skip
    n_bands: UInt8[np.ndarray, " galaxy"] = field(
        metadata=_is("uint8", "number of bands used", ucd="meta.number;instr.bandpass", missing=0)
    )
    effective_draws: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "independent draws that the answer is worth", ucd="meta.number")
    )
    interim_effective_draws: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32", "effective draws before the target prior took its share; NaN without one", ucd="meta.number"
        )
    )
    effective_fraction: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "effective fraction of the importance weights", ucd="stat.fit.goodness")
    )
    pareto_k: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32", "shape of the weights' tail; above 0.7 they are not to be trusted", ucd="stat.fit.goodness"
        )
    )
    log_evidence: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "ln of the Bayesian evidence (fluxes in nanomaggies)", ucd="stat.likelihood")
    )
    log_evidence_error: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "standard error of ln of the evidence", ucd="stat.error")
    )
    chi2: Float[np.ndarray, " galaxy"] = field(metadata=_is("float32", "chi^2 of the best draw", ucd="stat.fit.chi2"))
    p_value: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "posterior-predictive: of a chi^2 as large as the draws'", ucd="stat.probability")
    )
    rhat: Float[np.ndarray, " galaxy"] = field(
        metadata=_is("float32", "split R-hat of the chain, where MCMC answered", ucd="stat.fit.goodness")
    )
    log_bayes_factor: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32", "ln of the evidence under the learned likelihood of imperfect data over log_evidence's",
            ucd="stat.likelihood", asked="learned_likelihood",
        )
    )  # fmt: skip
    log_bayes_factor_error: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32", "standard error of log_bayes_factor from its draws", ucd="stat.error", asked="learned_likelihood"
        )
    )
    band_p: Float[np.ndarray, "galaxy band"] = field(
        metadata=_is(
            "float32", "posterior-predictive: of a flux as far from what the other bands predict; NaN: not to be told",
            "band", ucd="stat.probability", asked="band_tension",
        )
    )  # fmt: skip
    band_log_predictive: Float[np.ndarray, "galaxy band"] = field(
        metadata=_is(
            "float32", "ln of the evidence with the band less that without it (fluxes in nanomaggies)",
            "band", ucd="stat.likelihood", asked="band_tension",
        )
    )  # fmt: skip
    left_out: Bool[np.ndarray, "galaxy band"] = field(
        metadata=_is(
            "bool", "a band in tension with the others, which the answer does not use", "band", ucd="meta.code",
            missing=False, asked="leave_out",
        )
    )  # fmt: skip
    flags: UInt32[np.ndarray, " galaxy"]
    draws: UInt16[np.ndarray, "galaxy draw coordinate"] = field(
        metadata=_is(
            "uint16", "kept draws: prior quantile times 2^16", "draw", "coordinate", missing=0, asked="keep_draws"
        )
    )
    redshift_mode: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32",
            "where the density of the redshift is greatest",
            ucd="src.redshift.phot;stat.max",
            asked="redshift_peaks",
        )
    )
    redshift_odds: Float[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "float32",
            "probability of a redshift within 0.06 (1 + z) of the mode",
            ucd="stat.probability",
            asked="redshift_peaks",
        )
    )
    redshift_peaks: UInt8[np.ndarray, " galaxy"] = field(
        metadata=_is(
            "uint8",
            "peaks of the redshift's density that hold 5 % of it or more",
            ucd="meta.number",
            missing=0,
            asked="redshift_peaks",
        )
    )
    draw_redshift: Float[np.ndarray, "galaxy draw"] = field(
        metadata=_is("float32", "redshifts of kept draws", "draw", ucd="src.redshift", asked="keep_draws")
    )

    @classmethod
    def of(
        cls,
        photometry: Photometry,
        flags: UInt32[np.ndarray, " galaxy"],
        answers: Sequence[Answer],
        sizes: Mapping[str, int],
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


def unasked(settings: InferenceSettings) -> set[str]:
    """Return the names of columns that these settings do not ask for."""
    return {column.name for column in COLUMNS if column.asked and not getattr(settings, column.asked)}


_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True)
class Answer:
    """What one method says of some galaxies of a block.

    Attributes:
        at: the galaxies, by their places in the block
        ok: whether the method has an answer; of other rows it only says why not, by flags
        flags: bits that it sets
        columns: arrays by name; in all others a row keeps what the method before said
    """

    at: Int[np.ndarray, " row"]
    ok: Bool[np.ndarray, " row"]
    flags: UInt32[np.ndarray, " row"]
    columns: Mapping[str, Shaped[np.ndarray, "row ..."]]


def latest(
    name: str, n: int, answers: Sequence[Answer], sizes: Mapping[str, int] | None = None
) -> Shaped[np.ndarray, "galaxy ..."]:
    """Return one column of a block of ``n`` galaxies: of each what the last answer says that says anything of it."""
    values = _BY_NAME[name].empty(n, sizes or {})
    for answer in answers:
        if name in answer.columns:
            values[answer.at[answer.ok]] = answer.columns[name][answer.ok]
    return values
