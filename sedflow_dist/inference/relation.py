"""What a published relation is as a prior: the density of one column of draws, given others and the redshift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

#: Numbers of any shapes that broadcast.
Numbers = Float[np.ndarray, "..."] | float


class Relation(BaseModel):
    """A density of ``column``, given the columns ``given`` and the redshift; its fields are the arguments that texts have.

    ``given`` have to be independent of ``column`` under the interim prior, so that the density of one is not changed by
    that of the other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    column: ClassVar[str]
    given: ClassVar[tuple[str, ...]] = ()

    def log_pdf(
        self,
        x: Float[np.ndarray, "galaxy draw"],
        given: Mapping[str, Float[np.ndarray, "galaxy draw"]],
        redshift: Float[np.ndarray, "galaxy 1"],
        lo: Float[np.ndarray, "galaxy 1"],
        hi: Float[np.ndarray, "galaxy 1"],
    ) -> Float[np.ndarray, "galaxy draw"]:
        """Return ln of the density at ``x``; -inf where it is zero. ``lo`` to ``hi`` is where ``x`` can be."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return source and settings, in words."""
        raise NotImplementedError
