"""Loading folders with transformers, and comparing what was loaded."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from ..small_models import Pair, auto_class

Tensors = Mapping[str, torch.Tensor]


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """Its tensors under the names of memory, copied."""
    return {name: t.clone() for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}


def load(pair: Pair, folder: Path) -> tuple[Any, dict[str, list[str]]]:
    """The model as its users load it, and what the library found wrong with it: keys missing,
    unexpected or of another shape, and complaints in the log."""
    with _complaints() as said:
        auto = getattr(transformers, pair.classes[0]) if len(pair.classes) > 1 else auto_class(pair.head)
        try:
            model, info = _from_pretrained(auto, folder)
        except ValueError as error:
            if "Unrecognized configuration" not in str(error):
                raise
            model, info = _from_pretrained(getattr(transformers, pair.classes[0]), folder)
    found = {what: sorted(map(str, names))[:6] for what, names in info.items() if names}
    if said:
        found["logged"] = [" ".join(said[0].split())[:200]]
    return model.eval(), found


def _from_pretrained(cls: Any, folder: Path) -> Any:
    return cls.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collects what is logged about weights."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if re.search("newly initialized|MISSING|UNEXPECTED|MISMATCH|CONVERSION", record.getMessage()):
                said.append(record.getMessage())

    logger, listener = logging.getLogger("transformers"), Listener(logging.WARNING)
    logger.addHandler(listener)
    transformers.logging.set_verbosity_warning()
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        transformers.logging.set_verbosity_error()


def complaint(problems: Mapping[str, list[str]]) -> str:
    """What `load` found wrong, in a line."""
    words = {"missing_keys": "keys missing", "unexpected_keys": "keys left over", "mismatched_keys": "other shapes"}
    said = [f"{words.get(what, what)}: {', '.join(names[:2])}" for what, names in problems.items()]
    return "; ".join(said[: max(1, len(said) - ("logged" in problems))])


def differences(one: Tensors, other: Tensors, close: bool = False) -> list[str]:
    """Names whose tensors are not the same in both; `close`: up to float32's rounding of a mean."""
    return sorted(n for n in one.keys() | other.keys() if not _alike(one.get(n), other.get(n), close))


def _alike(x: torch.Tensor | None, y: torch.Tensor | None, close: bool) -> bool:
    if x is None or y is None or x.shape != y.shape or x.dtype != y.dtype:
        return False
    if close and x.is_floating_point():
        return torch.allclose(x.double(), y.double(), rtol=2e-6, atol=1e-7)
    return torch.equal(x, y)
