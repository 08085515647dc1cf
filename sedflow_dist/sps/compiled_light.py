"""What `native/light.cpp` computes, called with tensors: light of draws through bands, and light behind a screen of dust.

What it is told has the form of its structures, in their order.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from sedflow_dist.compiled import call, library_for
from sedflow_dist.sps.ladder import BetweenRungs, Cells
from sedflow_dist.sps.populations import BURST, CUT, N_FIXED, N_POPULATIONS, Populations

if TYPE_CHECKING:
    from sedflow_dist.sps.drawn import Tables
    from sedflow_dist.sps.stars import Stars


@dataclass(frozen=True)
class OpticalDepth:
    """An optical depth of galaxies, in a form that compiled functions know: ``tau`` times a curve over wavelength; or, with a
    ``slope`` n, tau exp(n ln lambda) (curve + strength bump), of the curves (curve, bump, ln lambda)."""

    tau: Float[Tensor, "*batch"]
    slope: Float[Tensor, "*batch"] | None = None
    strength: Float[Tensor, "*batch"] | None = None


@dataclass(frozen=True)
class Dimming:
    """A screen's optical depth, its curves, and whether it is before stars in birth clouds alone."""

    depth: OpticalDepth
    curves: tuple[Tensor, ...]
    of_clouds: bool


@dataclass(frozen=True)
class Glow:
    """A source's light: how much of each template draws have, and whether that shines inside birth clouds."""

    amount: Float[Tensor, "galaxy draw row"]
    templates: Cells
    inside: bool


_Pointer, _Whole = ctypes.c_void_p, ctypes.c_int64


class _Stars(ctypes.Structure):
    _fields_ = (
        *((name, _Whole) for name in (
            "populations", "fixed", "cut", "burst", "young", "first_old", "metallicities", "ages",
        )),
        ("log_metallicity", _Pointer), ("log_age", _Pointer), ("in_cloud", _Pointer), ("cloud_age", ctypes.c_float),
        ("cloud_rows", _Whole),
    )  # fmt: skip


class _Table(ctypes.Structure):
    _fields_ = (("first", _Pointer), ("apart", _Whole), ("rung", _Pointer), ("fraction", _Pointer))

    @classmethod
    def of(cls, table: Cells) -> _Table:
        """Return where tables begin and how far apart they are: not at all where there is one for all galaxies.

        ``table`` must be kept.
        """
        if isinstance(table, BetweenRungs):
            steps = table.ladder
            assert steps.is_contiguous() and table.runs.tolist() == [[0, steps.shape[-1]]]
            return cls(steps.data_ptr(), steps[0].numel(), table.rung.data_ptr(), table.fraction.data_ptr())
        assert table.is_contiguous()
        return cls(table.data_ptr(), table[0].numel() if len(table) > 1 else 0, None, None)


class _Ladder(ctypes.Structure):
    _fields_ = (
        ("first", _Pointer), ("rows", _Whole), ("columns", _Whole), ("rung", _Pointer), ("fraction", _Pointer),
        ("shared", _Whole), ("runs", _Pointer), ("n_runs", _Whole),
    )  # fmt: skip

    @classmethod
    def of(cls, nodes: BetweenRungs) -> _Ladder:
        """Return where a ladder is and what of it is meant; ``nodes`` must be kept."""
        assert all(x.is_contiguous() for x in vars(nodes).values())
        return cls(
            nodes.ladder.data_ptr(), *nodes.ladder.shape[1:], nodes.rung.data_ptr(), nodes.fraction.data_ptr(),
            len(nodes.rung) == 1, nodes.runs.data_ptr(), len(nodes.runs),
        )  # fmt: skip


class _Source(ctypes.Structure):
    _fields_ = (("amount", _Pointer), ("rows", _Whole), ("in_clouds", _Whole), ("templates", _Table))


class _Screen(ctypes.Structure):
    _fields_ = (
        ("curve", _Pointer), ("bump", _Pointer), ("log_wavelength", _Pointer), ("apart", _Whole), ("tau", _Pointer),
        ("slope", _Pointer), ("strength", _Pointer), ("of_clouds", _Whole),
    )  # fmt: skip


class _Cells(ctypes.Structure):
    _fields_ = (
        ("cells", _Whole), ("bins", _Table), ("nodes", _Ladder), ("sources", _Whole), ("screens", _Whole),
        ("source", _Pointer), ("screen", _Pointer),
    )  # fmt: skip


class _Held:
    """Tensors that structures point at, kept while they are used, their numbers side by side."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self._kept.append(x.contiguous())
        return self._kept[-1]

    def screen(self, dimming: Dimming, shape: Sequence[int]) -> _Screen:
        """Return a screen before draws (or galaxies) of this shape."""
        depth, (curve, *of_slope) = dimming.depth, dimming.curves
        cells = curve.shape[-1]

        def address(x: Tensor | None) -> int | None:
            return None if x is None else self(x).data_ptr()

        bump, log_wavelength = of_slope if depth.slope is not None else (None, None)
        numbers = (None if x is None else x.expand(shape) for x in (depth.tau, depth.slope, depth.strength))
        return _Screen(
            address(curve), address(bump), address(log_wavelength), cells if curve.numel() > cells else 0,
            *map(address, numbers), dimming.of_clouds,
        )  # fmt: skip


class CompiledLight:
    """Light of draws through bands, for a model's ``stars``, by this ``library``."""

    def __init__(self, stars: Stars, library: ctypes.CDLL) -> None:
        assert library.light_most_populations() >= N_POPULATIONS
        self._library = library
        #: Of what the number of cells of a table must be a multiple: a row then begins where a line of the cache does.
        self.cells_at_once = int(library.light_cells_at_once())
        by_node = stars.birth_cloud_rule == "node"
        self._held = [stars.log_metallicity, stars.log_age, stars.node_in_cloud.long()]
        metallicities, ages, in_cloud = (x.data_ptr() for x in self._held)
        self._stars = _Stars(
            N_POPULATIONS, N_FIXED, CUT, BURST, stars.n_young, stars.first_old, stars.n_metallicities, len(stars.log_age),
            metallicities, ages, in_cloud if by_node else None, stars.birth_cloud_age, stars.cloud_rows,
        )  # fmt: skip

    def __call__(
        self, populations: Populations, tables: Tables, sources: Sequence[Glow], screens: Sequence[Dimming]
    ) -> Float[Tensor, "galaxy draw band"]:
        """Return fluxes, before the distance."""
        cells = tables.n_cells
        assert cells % self.cells_at_once == 0
        held, shape = _Held(), populations.mass.shape[:2]
        of_sources = (_Source * len(sources))(
            *(_Source(held(s.amount).data_ptr(), s.amount.shape[-1], s.inside, _Table.of(s.templates)) for s in sources)
        )
        of_screens = (_Screen * len(screens))(*(held.screen(each, shape) for each in screens))
        told = _Cells(
            cells, _Table.of(tables.bins), _Ladder.of(tables.nodes), len(sources), len(screens),
            ctypes.addressof(of_sources), ctypes.addressof(of_screens),
        )  # fmt: skip
        out = populations.mass.new_empty(*shape, len(tables.end))
        call(
            self._library.light, self._stars, told, populations.mass.contiguous(), populations.metallicity.contiguous(),
            populations.age.contiguous(), tables.galaxy, *shape, tables.end, len(tables.end), out,
        )  # fmt: skip
        return out


def dim(light: Float[Tensor, "*batch wavelength"], dimming: Dimming) -> bool:
    """Multiply light by what a screen transmits, in place; False: nothing is done, as no compiled function can."""
    depth, curves = dimming.depth, dimming.curves
    found = library_for(light, *curves, *(x for x in vars(depth).values() if x is not None))
    if found is None or not light.is_contiguous() or curves[0].ndim > 1:
        return False
    held, cells = _Held(), light.shape[-1]
    call(found.dim, held.screen(dimming, light.shape[:-1]), light.numel() // max(cells, 1), cells, light)
    return True
