"""Which saved tensor belongs to which part of a model, by transformers alone: every weight of a
part is filled with a number that stands for the part, and the model is saved. Whatever the library
does to names and tensors on the way is in the file then."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .loading import tensors_in
from .stacks import Stack

Part = tuple[str, int]
"""A part of the model: (the path of a stack, the index of a block), or a word and 0."""

EMBED: Part = ("embed", 0)
EMBED_BESIDE: Part = ("beside the embedding's weight", 0)
HEAD: Part = ("head", 0)
HEAD_BIAS: Part = ("bias of the head", 0)
NORM: Part = ("norm", 0)
NORM_BESIDE: Part = ("norm of another main stack", 0)
SHARED: Part = ("of several parts", 0)


@dataclass(frozen=True)
class Truth:
    """`parts`: name of a saved tensor to the parts that it is made of. `ties`: names that are not
    saved, each to the saved one with its storage. `embeds`: the input embedding is a table."""

    parts: Mapping[str, frozenset[Part]]
    ties: Mapping[str, str]
    has_head: bool
    head_tied: bool
    embedding: str | None
    embeds: bool

    def of(self, *parts: Part) -> set[str]:
        """The tensors that belong to one of these parts and to no other."""
        return {name for name, found in self.parts.items() if len(found) == 1 and found <= set(parts)}

    def mixed(self, part: Part) -> set[str]:
        """The tensors that belong to this part and another."""
        return {name for name, found in self.parts.items() if part in found and len(found) > 1}


def unique_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors of floats, each storage once."""
    seen = set()
    for tensor in model.state_dict().values():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield tensor


def truth_of(model: Any, stacks: Sequence[Stack], norms: Sequence[str | None], folder: Path) -> Truth:
    """Fills the model's weights. `norms`: paths of the final norms, the main stack's first. The
    folder is used and removed."""
    labels = _Labels()
    embed, head = _module(model, "get_input_embeddings"), _module(model, "get_output_embeddings")
    with torch.no_grad():
        for tensor in unique_tensors(model):
            tensor.zero_()
        for stack in stacks:
            for index, block in enumerate(stack.blocks):
                labels.put((stack.path, index), block.state_dict().values())
        if embed is not None:
            labels.put(EMBED, [embed.weight], anew=True)
            labels.put(EMBED_BESIDE, (t for n, t in embed.state_dict().items() if n != "weight"), anew=True)
        if head is not None:
            labels.put(HEAD, [head.weight], anew=True)
            labels.put(HEAD_BIAS, (t for n, t in head.state_dict().items() if n != "weight"), anew=True)
        for norm, part in zip(norms, (NORM, NORM_BESIDE, NORM_BESIDE), strict=False):
            if norm:
                labels.put(part, model.get_submodule(norm).state_dict().values(), anew=True)
    model.save_pretrained(folder)
    saved = tensors_in(folder)
    shutil.rmtree(folder)
    return Truth(
        parts={name: labels.in_(tensor) for name, tensor in saved.items() if tensor.is_floating_point()},
        ties=_ties(model, set(saved)),
        has_head=head is not None,
        head_tied=head is not None and _owners(model, head.weight) > 1,
        embedding=None if embed is None else type(embed).__name__,
        embeds=isinstance(embed, nn.Embedding),
    )


class _Labels:
    def __init__(self) -> None:
        self.parts: list[Part] = [("none", 0), SHARED]
        self.at: dict[int, int] = {}

    def put(self, part: Part, tensors: Iterable[Any], anew: bool = False) -> None:
        """Fills tensors of a part. Those of another before it are SHARED, or stay (`anew`)."""
        number = len(self.parts)
        self.parts.append(part)
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
                continue
            before = self.at.get(tensor.data_ptr())
            if before is not None and anew:
                continue
            self.at[tensor.data_ptr()] = number if before in (None, number) else 1
            tensor.fill_(self.at[tensor.data_ptr()])

    def in_(self, tensor: torch.Tensor) -> frozenset[Part]:
        """The parts in a saved tensor; a number that no part has comes from computing on saving."""
        found = {round(value) for value in tensor.unique().tolist()}
        return frozenset(self.parts[n] for n in found if 0 < n < len(self.parts))


def final_norm(model: Any, main: Stack) -> str | None:
    """The path of the norm beside the main stack: of the modules that hold the stack the innermost
    one that has just one norm of its own after it. None where the model has none, or several."""
    parts = main.path.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        holder = model.get_submodule(".".join(parts[:depth]))
        children = list(holder.named_children())
        after = children[[name for name, _ in children].index(parts[depth]) + 1 :]
        norms = [name for name, module in after if _is_norm(name, module)]
        if norms:
            return ".".join([*parts[:depth], norms[0]]) if len(norms) == 1 else None
        if depth and holder is getattr(model, "base_model", None):
            return None
    return None


def _is_norm(name: str, module: nn.Module) -> bool:
    holds = any(True for _ in module.parameters()) and not any(True for _ in module.children())
    return holds and bool(re.search("norm", type(module).__name__.lower())) and not re.search("pre|emb", name.lower())


def _module(model: Any, method: str) -> Any:
    """The embedding or head as the library tells it; None where it has no weight of its own."""
    try:
        found = getattr(model, method)()
    except Exception:
        return None
    return found if isinstance(getattr(found, "weight", None), torch.Tensor) else None


def _owners(model: nn.Module, weight: torch.Tensor) -> int:
    tensors = (t for t in model.state_dict().values() if isinstance(t, torch.Tensor))
    return sum(tensor.data_ptr() == weight.data_ptr() for tensor in tensors)


def _ties(model: Any, saved: set[str]) -> dict[str, str]:
    from transformers.core_model_loading import revert_weight_conversion

    def in_file(name: str, tensor: torch.Tensor) -> str:
        try:
            return str(next(iter(revert_weight_conversion(model, {name: tensor}))))
        except Exception:
            return name

    groups: dict[tuple[int, torch.Size], list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            groups.setdefault((tensor.data_ptr(), tensor.shape), []).append((name, tensor))
    found: dict[str, str] = {}
    for group in groups.values():
        names = [in_file(*each) for each in group] if len(group) > 1 else []
        kept = [name for name in names if name in saved]
        if kept:
            found |= {name: kept[0] for name in names if name not in kept}
    return found
