"""Modules as bytes: tensors (safetensors) and a JSON specification, never a pickle; the same module gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from pydantic import BaseModel
from safetensors.torch import load, save
from torch import Tensor, nn


def to_bytes(module: nn.Module, spec: BaseModel) -> tuple[bytes, bytes]:
    """Return safetensors of a module's state, wherever it is, and JSON of its specification."""
    tensors = {name: value.cpu().contiguous() for name, value in sorted(module.state_dict().items())}
    return save(tensors), json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def identity(weights: bytes, spec: bytes) -> str:
    """Return a hash of both."""
    return hashlib.sha256(weights + spec).hexdigest()[:16]


def tensors_of(weights: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        ValueError: it is none; what is said of it holds nothing that could be a secret.
    """
    try:
        return load(weights)
    except Exception as error:
        said = re.sub(r"[^ -~]|[0-9A-Za-z/+=]{25,}", ".", str(error))[:200]
        raise ValueError(f"not a safetensors file: {said}") from None


def part_of(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """Return the tensors of one module by their names in it."""
    return {name.removeprefix(f"{module}."): value for name, value in tensors.items() if name.startswith(f"{module}.")}
