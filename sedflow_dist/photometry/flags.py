"""Quality flags of a catalog's rows: one bit each. A row without an answer has at least one that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag

import numpy as np
from jaxtyping import Bool, Float, UInt32


class Flag(IntFlag):
    """Why a row deserves care. `REASONS` are those for which no answer is given."""

    BAND_MISSING = 1 << 0
    TOO_FEW_BANDS = 1 << 1
    BAD_FLUX = 1 << 2
    BAD_ERROR = 1 << 3
    BAD_REDSHIFT = 1 << 4
    REDSHIFT_OUTSIDE_MODEL = 1 << 5
    ABSURD_COLOUR = 1 << 6
    NEGATIVE_FLUX = 1 << 7
    NOISE_OUTSIDE_TRAINING = 1 << 8
    COLOUR_OUTSIDE_TRAINING = 1 << 9
    LOW_EFFECTIVE_FRACTION = 1 << 10
    PRIOR_EDGE = 1 << 11
    FAILED = 1 << 12
    NOVEL = 1 << 13
    NOT_CONVERGED = 1 << 14
    DUPLICATE = 1 << 15
    QUALITY_CUT = 1 << 16
    NO_ID = 1 << 17
    BAD_EXTINCTION = 1 << 18
    NOT_A_GALAXY = 1 << 19
    NO_MATCH = 1 << 20
    PRIOR_TOO_FAR = 1 << 21
    MODEL_MISSING = 1 << 22
    MODEL_UNRELIABLE = 1 << 23
    MODELS_DISAGREE = 1 << 24
    BAND_IN_TENSION = 1 << 25
    REDSHIFT_UNCERTAIN = 1 << 26
    REDSHIFT_INFERRED = 1 << 27


DESCRIPTIONS = {
    Flag.BAND_MISSING: "a band was not measured; the answer uses the others",
    Flag.TOO_FEW_BANDS: "fewer than three usable bands: no answer",
    Flag.BAD_FLUX: "a flux, or its correction, is not finite or impossible; that band counts as missing",
    Flag.BAD_ERROR: "an uncertainty is not finite or not positive; that band counts as missing",
    Flag.BAD_REDSHIFT: "redshift not finite or not positive, or three of its errors reach zero or beyond the model: no answer",
    Flag.REDSHIFT_OUTSIDE_MODEL: "redshift beyond the range the model was trained on: no answer unless weights or MCMC serve",
    Flag.ABSURD_COLOUR: "a colour no galaxy has (photometry failed); answered, not to be trusted",
    Flag.NEGATIVE_FLUX: "a flux is negative: a measurement of a faint band, used as it is",
    Flag.NOISE_OUTSIDE_TRAINING: "an uncertainty above the noise model's mean + 3 sigma",
    Flag.COLOUR_OUTSIDE_TRAINING: "a colour outside the range of the training data",
    Flag.LOW_EFFECTIVE_FRACTION: "effective fraction of the importance weights below the threshold; draws unweighted",
    Flag.PRIOR_EDGE: "the posterior of the mass is cut by an edge of the prior",
    Flag.FAILED: "the computation gave no finite result: no answer",
    Flag.NOVEL: "colours, uncertainties and redshift together less likely than those of 99.9 % of the training data",
    Flag.NOT_CONVERGED: "answered by MCMC whose chain is not converged (split R-hat above 1.1) at its longest",
    Flag.DUPLICATE: "an earlier row has the same identifiers (without any: the same position and fluxes); answered",
    Flag.QUALITY_CUT: "one of the survey's quality cuts hits the row; answered, not to be trusted",
    Flag.NO_ID: "an identifier is missing; answered, and no other row's duplicate",
    Flag.BAD_EXTINCTION: "an extinction that no band can have; that band counts as missing",
    Flag.NOT_A_GALAXY: "a star or a QSO by the survey's class; answered by the flow alone, as if it were a galaxy",
    Flag.NO_MATCH: "no row of the joined table fits; what comes from there (a redshift) is missing",
    Flag.PRIOR_TOO_FAR: "the target prior leaves fewer than 20 effective draws: no answer",
    Flag.MODEL_MISSING: "averaged over models, of which one or more lack an answer or an evidence: the others' average",
    Flag.MODEL_UNRELIABLE: "averaged over models; an evidence has an error above 0.5 in ln, or a Pareto k above 0.7 or unknown",
    Flag.MODELS_DISAGREE: "averaged over models; more of the variance of the surviving mass lies between them than within",
    Flag.BAND_IN_TENSION: "a band disagrees with what the others predict of it (band_p)",
    Flag.REDSHIFT_UNCERTAIN: "the redshift has an error above 0.5 % of it; the answer is integrated over it, and no MCMC follows",
    Flag.REDSHIFT_INFERRED: "no redshift was given; it is inferred with the galaxy, and no MCMC follows",
}

#: Flags for which the flow alone is no answer: values are NaN, unless weights or MCMC serve (a redshift outside the model).
REASONS = Flag.TOO_FEW_BANDS | Flag.BAD_REDSHIFT | Flag.REDSHIFT_OUTSIDE_MODEL | Flag.FAILED | Flag.PRIOR_TOO_FAR
MINIMUM_BANDS = 3


def names(value: int) -> list[str]:
    """Return the names of the flags set in ``value``.

    >>> names(3)
    ['BAND_MISSING', 'TOO_FEW_BANDS']
    """
    return [flag.name or "" for flag in Flag if value & flag]


def bits(n: int, found: Mapping[Flag, Bool[np.ndarray, " galaxy"]]) -> UInt32[np.ndarray, " galaxy"]:
    """Return the flags of ``n`` rows from whether each row has each of some flags."""
    values = np.zeros(n, np.uint32)
    for flag, rows in found.items():
        values[np.asarray(rows)] |= np.uint32(int(flag))
    return values


def of_photometry(
    flux: Float[np.ndarray, "galaxy band"],
    mask: Bool[np.ndarray, "galaxy band"],
    redshift: Float[np.ndarray, " galaxy"],
    band_sets: Sequence[Sequence[int]] = (),
) -> dict[Flag, Bool[np.ndarray, " galaxy"]]:
    """Return which galaxies lack bands, too many of them, or a redshift, or have a negative flux.

    ``mask`` says which bands are measured; of ``band_sets`` (by number; none: all bands) a galaxy has one at most, and it
    misses nothing with one of them whole.
    """
    sets = band_sets or [range(mask.shape[1])]
    whole = np.any([mask[:, list(bands)].all(1) for bands in sets], axis=0)
    return {
        Flag.BAND_MISSING: ~whole,
        Flag.TOO_FEW_BANDS: mask.sum(1) < MINIMUM_BANDS,
        Flag.NEGATIVE_FLUX: (mask & (flux <= 0)).any(1),
        Flag.BAD_REDSHIFT: ~(np.isfinite(redshift) & (redshift > 0)),
    }
