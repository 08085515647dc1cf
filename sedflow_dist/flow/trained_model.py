"""A trained model: a flow with everything needed to use it alone: features, noise, support and galaxy model.

On disk: tensors (safetensors) and a JSON specification; never a pickle. The model's id is a hash of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sedflow_dist.flow import model_spec, on_disk
from sedflow_dist.flow.conditional_flow import ConditionalFlow
from sedflow_dist.flow.features import Features
from sedflow_dist.flow.model_spec import ModelSpec
from sedflow_dist.flow.on_disk import part_of
from sedflow_dist.flow.redshift_head import RedshiftHead
from sedflow_dist.flow.support import Novelty
from sedflow_dist.magnitudes import neighbours
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.photometry.flags import MINIMUM_BANDS
from sedflow_dist.photometry.noise import NoiseModel
from sedflow_dist.quantities import Quantity
from sedflow_dist.simulation.mocks import MockSurvey
from sedflow_dist.sps import derived, filters
from sedflow_dist.sps.chosen import Chosen
from sedflow_dist.sps.chosen_columns import ChosenColumns, OwnBands
from sedflow_dist.sps.components import Composition
from sedflow_dist.sps.fixed_redshift import RedshiftModel
from sedflow_dist.sps.galaxy_model import GalaxyModel
from sedflow_dist.sps.ssp import ARRAYS, LIBRARIES, SSPTable

if TYPE_CHECKING:
    from sbi.inference.posteriors import DirectPosterior

#: How far beyond the trained redshifts a model keeps the wavelengths of its SSP table, and weighs draws.
BEYOND = 0.4
_NOISE = ("magnitude", "mean", "scatter")


class TrainedModel(nn.Module):
    """A flow q(phi | photometry, redshift) in probit space, and all that its answers need.

    A module without parameters of its own: every tensor is in its `state_dict`, under the name it is stored by, and `to` moves
    all of them to a device. What follows from tensors (the galaxy model) is made anew there.

    Args:
        spec: what it was trained for
        network: the density estimator
        features, noise: as fitted to the training data
        colour_range: 0.05 and 99.95 % of the training data's colours of neighbouring bands [mag]
        novelty: how unlikely a galaxy is among the training data
        ssp: the SSP table of its galaxy model
        head: what draws redshifts, of a model that infers them
    """

    colour_range: Float[Tensor, "colour 2"]

    def __init__(
        self,
        spec: ModelSpec,
        network: ConditionalFlow,
        features: Features,
        noise: NoiseModel,
        colour_range: Float[Tensor, "colour 2"],
        novelty: Novelty,
        ssp: SSPTable,
        head: RedshiftHead | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.network, self.features, self.noise, self.novelty, self.head = network, features, noise, novelty, head
        self.register_buffer("colour_range", colour_range)
        self.ssp = _Tensors({name: torch.as_tensor(value) for name, value in ssp.arrays.items()})
        self.eval()

    @property
    def dimensions(self) -> int:
        """All shape coordinates, with an amplitude that is learnt one more."""
        return self.network.dimensions

    @cached_property
    def composition(self) -> Composition:
        """What a galaxy is made of."""
        return self.spec.composition()

    @property
    def space(self) -> ParameterSpace:
        """Its parameters, with the priors that the flow was trained under."""
        return self.composition.space

    def with_head(self, head: RedshiftHead) -> TrainedModel:
        """Return the same model with a redshift head."""
        return self._with(self.spec.model_copy(update={"head": head.spec}), head)

    def noting(self, **facts: Any) -> TrainedModel:
        """Return the same model with more said of its training."""
        return self._with(self.spec.model_copy(update={"training": {**self.spec.training, **facts}}), self.head)

    def _with(self, spec: ModelSpec, head: RedshiftHead | None) -> TrainedModel:
        own = self.network, self.features, self.noise, self.colour_range, self.novelty, self.ssp_table
        return TrainedModel(spec, *own, head)

    def survey(self, drop_out: float = 0.0) -> MockSurvey:
        """Observe mock galaxies as the survey it was trained for would, this fraction of them without some bands."""
        return MockSurvey(self.noise, self.space.amplitude.prior.range, drop_out, band_sets=self.spec.band_sets)

    def columns(self, certificate: bool = True) -> tuple[Quantity, ...]:
        """Everything that is summarised of a galaxy: parameters, then (with the certificate) derived properties."""
        return derived.columns(self.space, self.spec.labels, certificate)

    def quantities(self, chosen: Chosen, certificate: bool = True) -> tuple[Quantity, ...]:
        """All that, what is chosen, and the redshift, of a model that infers it."""
        more = chosen.quantities(self.spec.labels) if certificate else ()
        inferred = (derived.REDSHIFT,) if self.head is not None and certificate else ()
        return (*self.columns(certificate), *more, *inferred)

    def chosen_columns(self, chosen: Chosen) -> ChosenColumns | None:
        """Return what computes chosen columns of draws; None where nothing is chosen.

        Raises:
            ValueError: the SSP table does not reach as far as a band that is chosen; says the numbers.
        """
        if chosen.is_empty:
            return None
        return ChosenColumns(chosen, OwnBands(self.spec.labels, self.spec.bands), self.redshift_model, self.ssp_table)

    @cached_property
    def ssp_table(self) -> SSPTable:
        """The SSP table of its galaxy model."""
        return SSPTable.of_arrays({name: _numpy(value) for name, value in self.ssp.named_buffers()}, self.spec.ssp)

    @cached_property
    def redshift_model(self) -> RedshiftModel:
        """The galaxy model for many draws at one redshift."""
        spec = self.spec
        model = GalaxyModel(self.ssp_table, spec.bands, self.reach, self.composition, spec.birth_cloud_age)
        return RedshiftModel(model)

    @cached_property
    def reach(self) -> float:
        """The redshift up to which its galaxy model serves, and with it the weights of draws: beyond the trained range."""
        return reach(self.spec.bands, self.spec.redshift, self.ssp_table)

    @cached_property
    def id(self) -> str:
        """Hash of weights and specification: the same id gives the same answers."""
        return on_disk.identity(*self.to_bytes())

    def to_sbi(self) -> DirectPosterior:
        """Return an sbi posterior over probit space, conditioned on `features`; prior N(0, I).

        Raises:
            ValueError: the flow's family has no form that sbi knows.
        """
        from sbi.inference.posteriors import DirectPosterior

        prior = torch.distributions.MultivariateNormal(torch.zeros(self.dimensions), torch.eye(self.dimensions))
        return DirectPosterior(self.network.to_sbi(), prior)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainedModel:
        """Forget what was made of the tensors before they move."""
        for name in ("ssp_table", "redshift_model"):
            self.__dict__.pop(name, None)
        return super()._apply(fn, recurse)

    # -- to and from bytes ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return safetensors and JSON: the same model gives the same bytes, wherever it is."""
        return on_disk.to_bytes(self, self.spec)

    @classmethod
    def from_bytes(cls, weights: bytes, spec: bytes, device: torch.device | str = "cpu") -> Self:
        """Load a model, to a device.

        Raises:
            ValueError: the bytes are not a model of this format; says what was found.
        """
        parsed = model_spec.parse(spec)
        tensors = on_disk.tensors_of(weights)
        head = parsed.head.n_weights(parsed.redshift, len(parsed.bands)) if parsed.head else 0
        least = 4 * (parsed.flow.n_weights(parsed.dimensions, parsed.n_features) + head)  # float32
        if least > len(weights):
            raise ValueError(
                f"weights do not fit the specification: a flow of {parsed.flow.settings} needs {least:,} bytes or more, "
                f"and there are {len(weights):,}"
            )
        network = parsed.build_flow(seed=0)
        _check(tensors, _shapes(parsed, network, tensors))
        own = part_of(tensors, "network")
        network.check(own)
        network.load_state_dict(own)
        ssp = SSPTable.of_arrays({name: _numpy(value) for name, value in part_of(tensors, "ssp").items()}, parsed.ssp)
        model = cls(
            parsed, network, Features(parsed.features, **part_of(tensors, "features")),
            NoiseModel(
                **part_of(tensors, "noise"), selection_band=parsed.selection_band, selection=parsed.selection,
                shallower=parsed.shallower,
            ),
            tensors["colour_range"], Novelty(**part_of(tensors, "novelty")), ssp, _head(parsed, tensors),
        )  # fmt: skip
        return model.to(device)


def reach(bands: Sequence[filters.Named], redshift: tuple[float, float], ssp: SSPTable) -> float:
    """Return the redshift up to which a model keeps and uses its SSP table: as bands and table let it, `BEYOND` its redshifts."""
    far = round(redshift[1] + BEYOND, 6)  # of decimals that people write: 0.2 + 0.4 is 0.6
    return max(min(far, filters.reach(bands, ssp.edges)), redshift[1])


class _Tensors(nn.Module):
    """Some buffers by name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def _head(spec: ModelSpec, tensors: Mapping[str, Tensor]) -> RedshiftHead | None:
    if spec.head is None:
        return None
    head = RedshiftHead.empty(spec.head, spec.redshift, len(spec.bands))
    head.load_state_dict(part_of(tensors, "head"))
    return head


def _shapes(spec: ModelSpec, network: ConditionalFlow, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor but those of the SSP table, whose own class looks at them."""
    n_bands = len(spec.bands)
    n_bins = tensors["noise.mean"].shape[-1] if "noise.mean" in tensors and tensors["noise.mean"].ndim else 0
    n_components = (
        len(tensors["novelty.weight"]) if "novelty.weight" in tensors and tensors["novelty.weight"].ndim else 0
    )
    head = RedshiftHead.empty(spec.head, spec.redshift, n_bands).state_dict() if spec.head else {}
    return {
        **{f"network.{name}": tuple(value.shape) for name, value in network.state_dict().items()},
        **{f"head.{name}": tuple(value.shape) for name, value in head.items()},
        **{f"features.{name}": (spec.n_features,) for name in ("mean", "std")},
        **{f"noise.{name}": (n_bands, n_bins) for name in _NOISE},
        "colour_range": (len(neighbours(n_bands, spec.band_sets)), 2),
        "novelty.weight": (n_components,), "novelty.mean": (n_components, 2 * n_bands),
        "novelty.covariance": (n_components, 2 * n_bands, 2 * n_bands),
        "novelty.limit": (n_bands - MINIMUM_BANDS + 1,),
    }  # fmt: skip


def _check(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a tensor is missing, is not known, has another shape or type, or is not finite.

    Types of the network's tensors are its own to look at; all others are of floats.
    """
    expected = {*shapes, *(f"ssp.{name}" for name in ARRAYS)}
    if missing := expected - set(tensors):
        raise ValueError(f"weights do not fit the specification: they lack {', '.join(sorted(missing)[:3])}")
    libraries = tuple(f"ssp.{library}_" for library in LIBRARIES)
    if extra := {name for name in set(tensors) - expected if not name.startswith(libraries)}:
        raise ValueError(f"weights do not fit the specification: {', '.join(sorted(extra)[:3])} are not in it")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"weights do not fit the specification: {name} has shape {tuple(tensors[name].shape)}, not {shape}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"weights: {name} is not finite")
    for name, value in tensors.items():
        if not name.startswith("network.") and not value.is_floating_point():
            raise ValueError(f"weights do not fit the specification: {name} is of type {value.dtype}, not of floats")


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
