"""Functions in C++ for what PyTorch's operators cannot do without going through memory between any two of them: the library that
was built for this processor, or None, where callers have operators that do the same.

`pip install` builds the sources (`sedflow_dist/native`) once for each set of instructions (pyproject.toml). They are plain C++ with
the vectors of GCC and Clang and are called through ctypes: no header of Python or PyTorch is needed, no version of either is built
against, and nothing is compiled when a process starts, which numba and `torch.compile` do. Which of several libraries suits is what
PyTorch says of the processor, so that its ATEN_CPU_CAPABILITY holds for ours too.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

#: Libraries by what PyTorch calls the processor, the best first; ``any`` has no instructions but those of every processor.
_LIBRARIES = {"AVX512": ("avx512", "avx2", "any"), "AVX2": ("avx2", "any")}
#: What compiled functions compute with, and memory.
_KINDS = (torch.float32, torch.int64, torch.uint8)


def instructions() -> str | None:
    """Return the name of the instructions that the library of this process is built for; None: there is no library."""
    return _chosen(torch.backends.cpu.get_cpu_capability())[0]


def library_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """Return the library for this processor, if it can compute with such tensors: float32, on the CPU, without gradients.

    None: it cannot, or nothing that suits the processor was built.
    """
    if any(x.dtype != torch.float32 or not x.is_cpu or x.requires_grad for x in tensors):
        return None
    return _chosen(torch.backends.cpu.get_cpu_capability())[1]


def call(function: Callable[..., object], *arguments: Tensor | ctypes.Structure | int) -> None:
    """Call a compiled function with tensors and structures, which are passed as addresses, and whole numbers.

    Raises:
        ValueError: a tensor is not in this process's memory, its numbers do not lie side by side, or are of another kind
    """
    for each in arguments:
        if isinstance(each, Tensor) and not (each.is_contiguous() and each.is_cpu and each.dtype in _KINDS):
            raise ValueError(
                f"a compiled function was given a tensor {tuple(each.shape)} of {each.dtype} on {each.device}, strides "
                f"{each.stride()}; its numbers must be float32 or int64 and lie side by side on the CPU"
            )
    function(*map(_passed, arguments))


def _passed(argument: Tensor | ctypes.Structure | int) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else ctypes.c_int64(argument)


@functools.cache
def _chosen(processor: str) -> tuple[str | None, ctypes.CDLL | None]:
    """Name and library of the best instructions for a processor that were built: looked for once, as samplers ask at every step."""
    name = next((name for name in _LIBRARIES.get(processor, ("any",)) if _path(name).exists()), None)
    return name, ctypes.CDLL(str(_path(name))) if name else None


def _path(name: str) -> Path:
    return Path(__file__).parent / "native" / f"_{name}{EXTENSION_SUFFIXES[0]}"
