"""Kernels of installed packages, called with what they are promised
(`compiler/evaluate/extensions.py`)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from ...grammar.diagnostic import error
from ..catalog.extension_code import kernel_code
from ..reduce.reducer import Attributes
from .values import BlockValue, ScalarValue, Value, tensor


def installed(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """An elementwise primitive on one block."""
    split = len(args) - int(attributes["numbers"])
    numbers = tuple(a.value for a in args[split:] if isinstance(a, ScalarValue))
    scratch = block.shared[: int(attributes["scratch"]) * block.count]
    _call(attributes, out, tuple(map(tensor, args[:split])), numbers, scratch)


def installed_whole(
    inputs: tuple[torch.Tensor, ...], numbers: tuple[float, ...], output: torch.Tensor, attributes: Attributes
) -> None:
    """An opaque primitive on whole tensors."""
    _call(attributes, output, inputs, numbers)


def _call(attributes: Attributes, *args: Any) -> None:
    """Calls the kernel. Raises MergecError (E0615) for whatever it raises."""
    try:
        kernel(str(attributes["kernel"]), str(attributes["package"]))(*args)
    except Exception as fault:
        owner = f" of {attributes['package']}" if attributes["package"] else ""
        message = f"the primitive `{attributes['name']}`{owner} failed"
        note = f"{type(fault).__name__}: {fault}"
        help_ = "the fault is in that package, or in how it is installed"
        raise error("E0615", message, notes=note, help=help_) from fault


def kernel(address: str, package: str) -> Callable[..., None]:
    """The function at `module:function`, as its module is imported now. Raises ImportError,
    AttributeError."""
    module, _, name = address.partition(":")
    new = module not in sys.modules
    found: Callable[..., None] = getattr(importlib.import_module(module), name)
    if new:
        # what counts as its code from now on, however this run ends
        kernel_code(address, package)
    return found
