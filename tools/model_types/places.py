"""The parts of an architecture beside its layers: by what transformers calls its embeddings and
heads, and by where modules stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from .stacks import Found
from .subject import Subject

_PROJECTOR = re.compile("project|connector|merger|aligner|multi_modal|multimodal|mm_|adapter|bridge|resampl")
_CLASSES = re.compile("classif|score|qa_outputs|logits|summary|head|fc")
_PARTS = ("encoder", "decoder", "text", "vision", "audio")


def table(model: nn.Module, method: str) -> str | None:
    """The path of the embedding or head as the library tells it; None where it has no weight of its
    own."""
    try:
        found = getattr(model, method)()
    except Exception:
        return None
    if not hasattr(getattr(found, "weight", None), "shape"):
        return None
    return next((name for name, module in model.named_modules() if module is found), None)


def places_of(subject: Subject, stacks: Sequence[Found], embed: str | None, head: str | None) -> dict[str, Any]:
    """By place the module, as files call it."""
    model = subject.model
    places: dict[str, Any] = {}
    if embed is not None:
        places["embed"] = subject.module(embed)
    if head is not None:
        places["head"] = subject.module(head)
    mains = [stack for stack in stacks if stack.main]
    norms = {stack.name: norm for stack in mains if (norm := final_norm(model, stack.path)) is not None}
    main = next((s for s in mains if s.name in ("layers", "text.layers", "decoder.layers")), None)
    if main is not None and main.name in norms:
        places["norm"] = subject.module(norms[main.name])
    if embed is not None:
        places |= beside(subject, embed)
    sides = {stack.name.partition(".")[0]: stack for stack in mains if stack.name.partition(".")[0] in _PARTS}
    for side in _PARTS:
        if side not in sides:
            continue
        stack = sides[side]
        holder = holder_of(stack.path, [s.path for s in mains if s is not stack])
        if holder:
            named = subject.container(holder)
            if named:
                places[side] = named
        if stack.name in norms:
            places[f"{side}.norm"] = subject.module(norms[stack.name])
        own = side_embedding(model, holder, stack.path) if side in ("vision", "audio") and holder else None
        if own and (named := subject.container(own)):
            places[f"{side}.embed"] = named
    if {"vision", "audio"} & set(sides):
        projector = projectors(subject, [s.path for s in mains])
        if projector:
            places["projector"] = projector if len(projector) > 1 else projector[0]
    classifier = classifiers(subject)
    if head is None and "lm_head" in classifier:
        places["head"] = "lm_head"
    elif head is None and classifier:
        places["classifier"] = classifier if len(classifier) > 1 else classifier[0]
    return places


def holder_of(path: str, others: Sequence[str]) -> str | None:
    """The outermost module around a stack that holds none of the others."""
    parts = path.split(".")
    for depth in range(1, len(parts)):
        holder = ".".join(parts[:depth])
        if not any(other.startswith(holder + ".") for other in others):
            return holder
    return None


def final_norm(model: nn.Module, stack: str) -> str | None:
    """The norm beside a stack: of the modules around it the innermost that has just one norm of its
    own after it. None where none has one, or one has several."""
    parts = stack.split(".")
    base = getattr(model, "base_model", None)
    for depth in range(len(parts) - 1, -1, -1):
        holder = model.get_submodule(".".join(parts[:depth]))
        children = list(holder.named_children())
        after = children[[name for name, _ in children].index(parts[depth]) + 1 :]
        norms = [name for name, module in after if _is_norm(name, module)]
        if norms:
            return ".".join([*parts[:depth], norms[0]]) if len(norms) == 1 else None
        if holder is base:
            return None
    return None


def _is_norm(name: str, module: nn.Module) -> bool:
    holds = any(True for _ in module.parameters()) and not any(True for _ in module.children())
    return holds and "norm" in type(module).__name__.lower() and not re.search("pre|embeddings?$", name.lower())


def beside(subject: Subject, embed: str) -> dict[str, str]:
    """Tables of positions and segments beside that of tokens."""
    holder, _, _ = embed.rpartition(".")
    found: dict[str, str] = {}
    for name, module in subject.model.get_submodule(holder).named_children():
        path = f"{holder}.{name}".lstrip(".")
        if path == embed or not isinstance(getattr(module, "weight", None), nn.Parameter):
            continue
        if re.search("token_type|segment", name):
            found.setdefault("segments", subject.module(path))
        elif re.fullmatch("position_embeddings?|embed_positions?|wpe|pos_emb|positions_embed", name):
            found.setdefault("positions", subject.module(path))
    return found


def side_embedding(model: nn.Module, holder: str, stack: str) -> str | None:
    """What stands before a tower's stack and is called an embedding."""
    parts = stack.split(".")
    for depth in range(len(parts) - 1, len(holder.split(".")) - 1, -1):
        outer = ".".join(parts[:depth])
        for name, module in model.get_submodule(outer).named_children():
            if name == parts[depth]:
                break
            if "embed" in name and any(True for _ in module.parameters()):
                return f"{outer}.{name}"
    return None


def projectors(subject: Subject, mains: Sequence[str]) -> list[str]:
    """What stands between a tower and the text model, the outermost modules that are called so."""
    found: list[str] = []
    for path, module in subject.model.named_modules():
        name = path.rpartition(".")[2]
        inside = any(path.startswith(f"{each}.") for each in (*found, *map(str, mains))) or any(
            main.startswith(f"{path}.") or main == path for main in mains
        )
        holds = any(True for _ in module.parameters()) and not isinstance(module, nn.ModuleList)
        if not inside and _PROJECTOR.search(name) and holds:
            found.append(path)
    named = [subject.container(path) or subject.module(path) for path in found]
    return [n for n in dict.fromkeys(named) if any(s == n or s.startswith(n + ".") for s in subject.stored)]


def classifiers(subject: Subject) -> list[str]:
    """What a model without an output embedding has beside its base."""
    model = subject.model
    base = getattr(model, "base_model_prefix", "")
    if not base or model.base_model is model:
        return []
    found = [
        name
        for name, module in model.named_children()
        if name != base and _CLASSES.search(name) and any(True for _ in module.parameters())
    ]
    named = [subject.container(name) or subject.module(name) for name in found]
    return [n for n in named if any(s.startswith(n + ".") for s in subject.stored)]
