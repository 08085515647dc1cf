"""Tables on a ladder of redshifts: rungs in, tables at redshifts between two of them out, all of their rows or some."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sedflow_dist.compiled import call, library_for

#: Numbers behind a ladder that may be read with its last ones.
_ROOM = 16


@dataclass(frozen=True)
class BetweenRungs:
    """Some columns of tables at redshifts between ``rung`` and the next, of a ladder with `room`: those of `runs`.

    A ladder of one rung: the table that all galaxies share, with all its columns.
    """

    ladder: Float[Tensor, "rung row column"]
    rung: Int[Tensor, " galaxy"]
    fraction: Float[Tensor, " galaxy"]
    runs: Int[Tensor, "run 2"]

    @classmethod
    def shared(cls, table: Float[Tensor, "1 row column"]) -> BetweenRungs:
        """Return a table that all galaxies have."""
        return cls(table, torch.zeros(1, dtype=torch.int64), table.new_zeros(1), runs(torch.arange(table.shape[-1])))

    def __getitem__(self, galaxy: Int[Tensor, " row"]) -> BetweenRungs:
        """Return the same for some galaxies; what all share stays so."""
        if len(self.ladder) == 1:
            return self
        return BetweenRungs(self.ladder, self.rung[galaxy], self.fraction[galaxy], self.runs)

    def tables(self) -> Float[Tensor, "galaxy row kept"]:
        """Return the tables, or the one that all share."""
        if len(self.ladder) == 1:
            return self.ladder
        found = library_for(self.ladder, self.fraction)
        if found is None:
            kept = torch.cat([torch.arange(i, i + n) for i, n in self.runs.tolist()])
            low, high = (self.ladder[at].index_select(-1, kept) for at in (self.rung, self.rung + 1))
            return low.lerp_(high, self.fraction[:, None, None])
        out = self.ladder.new_empty(len(self.rung), self.ladder.shape[1], int(self.runs[:, 1].sum()))
        call(
            found.between_rungs, self.ladder, *self.ladder.shape[1:], self.rung, self.fraction, len(self.rung), self.runs,
            len(self.runs), out,
        )  # fmt: skip
        return out


#: Tables of galaxies, or the one that all share; or on a ladder, where there are too many for tables of their own.
Cells = Float[Tensor, "_galaxy _row cell"] | BetweenRungs


def runs(kept: Int[Tensor, " kept"]) -> Int[Tensor, "run 2"]:
    """Return the runs of columns that lie side by side, (first, number), of columns in increasing order."""
    begins = torch.cat([torch.ones(1, dtype=torch.bool), kept.diff() != 1]).nonzero().squeeze(1)
    number = torch.cat([begins, begins.new_tensor([len(kept)])]).diff()
    return torch.stack([kept[begins], number], -1)


def room(ladder: Float[Tensor, "rung row column"]) -> Float[Tensor, "rung row column"]:
    """Return a ladder behind which a vector may be read that begins in it."""
    return torch.cat([ladder.flatten(), ladder.new_zeros(_ROOM)])[:-_ROOM].view(ladder.shape)
