"""Parts that are models of their own: the language model of a multimodal one.

A place `text` holds what a language model is as a whole, under names with other wrapping. What
corresponds has the same place in both: the same layer of the same stack and the same name below it,
the embedding, the final norm, the head, or the same name below the module that holds all of these.

    language_model.model.layers.3.mlp.up_proj.weight     text.layers[3] of LLaVA
    model.layers.3.mlp.up_proj.weight                    layers[3] of Llama
"""

from __future__ import annotations

import functools

from ...grammar.records import dataclass
from .family import Family, LayerStack, stack_index
from .patterns import enclosing

MODALITIES = ("text", "vision", "audio")
"""The places of a multimodal model's parts."""

_ENDS = ("embed", "norm", "head")


@dataclass(frozen=True, slots=True)
class _Wrapping:
    """How a language model's tensors are called: by stack, by place outside the stacks, and below
    `root`, the module that holds the stacks, embedding and norm."""

    stacks: dict[str, LayerStack]
    ends: dict[str, tuple[str, ...]]
    root: str

    def tells(self, other: _Wrapping) -> bool:
        """Whether tensors that correspond have other names in the other one."""
        return (self.stacks, self.ends, self.root) != (other.stacks, other.ends, other.root)


def is_multimodal(family: Family) -> bool:
    """Whether the family's models have a language model among their parts."""
    return any(stack.name.startswith("text.") for stack in family.stacks)


def renamed(name: str, of: Family, to: Family) -> str:
    """What a model of family `to` calls the tensor that one of family `of` calls `name`, where
    either is the language model of the other, or both have one; else `name` itself."""
    if of is to:
        return name
    pair = _wrappings(of, to)
    if pair is None:
        return name
    own, other = pair
    at = stack_index(of, name)
    if at is not None:
        stack = other.stacks.get(_plain(at[0].name)) if _plain(at[0].name) in own.stacks else None
        return f"{stack.head}{at[1]}.{at[2]}" if stack is not None else name
    for role, modules in own.ends.items():
        for module, same in zip(modules, other.ends.get(role, ()), strict=False):
            if _below(name, module):
                return same + name[len(module) :]
    if own.root and other.root and _below(name, own.root):
        return other.root + name[len(own.root) :]
    return name


def stack_renamed(stack: str, of: Family, to: Family) -> str:
    """The same for the name of a stack."""
    pair = _wrappings(of, to) if of is not to else None
    found = pair[1].stacks.get(_plain(stack)) if pair is not None and _plain(stack) in pair[0].stacks else None
    return found.name if found is not None else stack


@functools.lru_cache(maxsize=64)
def _wrappings(of: Family, to: Family) -> tuple[_Wrapping, _Wrapping] | None:
    """How two families call a language model's tensors; None where they are called alike, or where
    neither holds one as a part."""
    if not is_multimodal(of) and not is_multimodal(to):
        return None
    own, other = _wrapping(of), _wrapping(to)
    return (own, other) if own is not None and other is not None and own.tells(other) else None


def _wrapping(family: Family) -> _Wrapping | None:
    part = is_multimodal(family)
    stacks = {
        _plain(stack.name): stack
        for stack in family.stacks
        if (stack.name.startswith("text.") if part else stack.name.partition(".")[0] not in MODALITIES)
    }
    if not stacks:
        return None
    places = family.places
    ends = {role: modules for role in _ENDS if (modules := places.get(f"text.{role}") or places.get(role))}
    held = [stack.head.rstrip(".") for stack in stacks.values()]
    held += [module for role in ("embed", "norm") for module in ends.get(role, ())]
    return _Wrapping(stacks, ends, ".".join(enclosing(*held)))


def _plain(stack: str) -> str:
    return stack.removeprefix("text.")


def _below(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")
