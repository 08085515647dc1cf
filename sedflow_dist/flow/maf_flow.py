"""The family "maf": sbi's masked autoregressive flow with our arithmetic for its density and our inverse for its draws."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sedflow_dist.flow import maf
from sedflow_dist.flow.conditional_flow import ConditionalFlow, register
from sedflow_dist.flow.maf_inverse import Sampler


class MAFSettings(BaseModel):
    """Size of a masked autoregressive flow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transforms: int = Field(ge=1, le=100, description="MADE blocks")
    hidden: int = Field(ge=2, le=4096, description="tanh units in each of two layers")
    embedding: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (),
        max_length=16,
        description="units in each layer of a network that looks at the features first; none: there is no such",
    )


@register("maf")
class MaskedAutoregressiveFlow(ConditionalFlow):
    """MADE blocks of two hidden layers, each followed by a fixed permutation; see `maf.build`."""

    Settings = MAFSettings

    def __init__(self, dimensions: int, features: int, settings: MAFSettings, seed: int) -> None:
        super().__init__(dimensions, features, settings, seed)
        self.features, self.settings = features, settings
        self.net: Any = maf.build(
            dimensions, features, settings.transforms, settings.hidden, seed, settings.embedding
        ).net
        for module in self.modules():
            for name in ("mask", "degrees"):  # they follow from the sizes: nothing of them is stored, or read
                if name in module._buffers:
                    module.register_buffer(name, module.get_buffer(name), persistent=False)
        # Where all its tensors stand, so that looking at each costs no walk through the modules.
        self._tensors = [store for module in self.modules() for store in (module._parameters, module._buffers)]
        self._sampler: tuple[tuple[int, ...], Sampler] | None = None

    def log_prob(
        self, phi: Float[Tensor, "row dimension"], context: Float[Tensor, "row feature"]
    ) -> Float[Tensor, " row"]:
        """Return ln q(phi | context): equal to sbi's to float32 rounding."""
        return maf.log_prob(maf.blocks(self), phi, self.net._embedding_net(context))

    def sample_with_log_prob(
        self, base: Float[Tensor, "galaxy draw dimension"], context: Float[Tensor, "galaxy feature"]
    ) -> tuple[Float[Tensor, "galaxy draw dimension"], Float[Tensor, "galaxy draw"]]:
        """Map base points to draws with the fast exact inverse; see `maf_inverse`."""
        with torch.no_grad():
            return self.sampler(base, self.net._embedding_net(context))

    def memory(self, n_rows: int) -> int:
        """Return the most bytes that drawing so many rows needs."""
        return self.sampler.memory(n_rows)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse weights whose orders of dimensions are none: used as indices, they could ask for any amount of memory."""
        super().check(tensors)
        for name, ours in self.named_buffers():
            if name.endswith("_permutation") and not torch.equal(tensors[name].sort().values, torch.arange(len(ours))):
                raise ValueError(f"weights do not fit the specification: {name} is not that of a flow of these sizes")

    @property
    def sampler(self) -> Sampler:
        """The inverse of the weights as they are now.

        In evaluation mode it is kept until a weight is loaded, moved or changed in place. While training nothing is kept:
        a fused optimizer changes weights unseen by PyTorch's own counter.
        """
        tensors = (tensor for store in self._tensors for tensor in store.values() if tensor is not None)
        state = tuple(number for tensor in tensors for number in (tensor.data_ptr(), tensor._version))
        if self.training or self._sampler is None or self._sampler[0] != state:
            with torch.no_grad():
                self._sampler = state, Sampler(maf.blocks(self))
        return self._sampler[1]

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, and forget the inverse of the weights so far."""
        self._sampler = None
        return super().train(mode)

    def to_sbi(self) -> Any:
        """Return sbi's own estimator with these weights."""
        size = self.settings
        estimator = maf.build(self.dimensions, self.features, size.transforms, size.hidden, 0, size.embedding)
        estimator.load_state_dict({**estimator.state_dict(), **self.state_dict()})
        return estimator.eval()

    @classmethod
    def n_weights(cls, dimensions: int, features: int, settings: MAFSettings) -> int:
        """Count the two hidden layers, the first one's share of inputs and context, scales and shifts, and the embedding."""
        hidden, embedded = settings.hidden, sum((a + 1) * b for a, b in pairwise([features, *settings.embedding]))
        features += settings.embedding[-1] if settings.embedding else 0
        return embedded + settings.transforms * (
            2 * hidden**2 + hidden * (3 * dimensions + features + 4) + 2 * dimensions
        )
