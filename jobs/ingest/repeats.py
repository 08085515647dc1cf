"""Identifiers that repeat: pairs of rows that bear the same one in, whether they are one galaxy and what to do if not, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sedflow_dist.photometry import duplicates
from storage_schemas import photometry
from storage_schemas.backend.printable import shortened

#: Where the report of an ingest says it.
KEY = "repeated_ids"


@dataclass(frozen=True)
class Repeats:
    """Where codes of duplicates are written; how many pairs of them were compared, those that are unlike, and one such."""

    codes: str
    pairs: int = 0
    unlike: int = 0
    example: str = ""

    @classmethod
    def of(cls, codes: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], ids: Iterable[str]) -> Repeats:
        """Compare pairs of rows (1,) with the same identifiers ``ids``; each also says its ``file`` and ``row``."""
        unlike = [pair for pair in pairs if duplicates.are_unlike(*pair)]
        if not unlike:
            return cls(codes, len(pairs))
        first, later = unlike[0]
        said = ", ".join(f"{name} {shortened(first[photometry.id_array(name)][0])}" for name in ids)
        places = " and ".join(f"row {one['row']:,} of file {one['file']}" for one in (first, later))
        return cls(codes, len(pairs), len(unlike), f"{said}: {places}")


def summary(found: Sequence[Repeats], ids: Iterable[str]) -> dict[str, Any]:
    """Return what a report says of them: nothing where all pairs are alike."""
    unlike = [one for one in found if one.unlike]
    if not unlike:
        return {}
    pairs, n_unlike = sum(one.pairs for one in found), sum(one.unlike for one in found)
    return {KEY: {"ids": list(ids), "pairs": pairs, "unlike": n_unlike, "example": unlike[0].example}}


def explain(said: Mapping[str, Any]) -> str:
    """Return the sentence that tells a user what repeats, and how to name galaxies so that none does."""
    ids = ", ".join(map(shortened, said["ids"]))
    return (
        f"{ids} {'repeats' if len(said['ids']) == 1 else 'repeat'} in different galaxies: of {said['pairs']:,} pairs of rows of "
        f"one {ids} that were compared, {said['unlike']:,} are not one galaxy ({said['example']}). All but the first of each are "
        "flagged DUPLICATE. If it counts objects within a field, a tile or a file, name the column that says which as well, as "
        f"`ids: [FIELD, {ids}]` of the survey in the run file; or `ids: []`: then positions and fluxes tell"
    )
