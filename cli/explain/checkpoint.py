"""What an explanation says about one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...compiler.checkpoint.dtypes import SIZES
from ...compiler.checkpoint.model import Model
from ...compiler.family.family import Family
from ...grammar.render import escape


def numel(shape: tuple[int, ...]) -> int:
    """The number of elements of a shape."""
    n = 1
    for size in shape:
        n *= size
    return n


def dtypes(model: Model) -> dict[str, int]:
    """Elements by dtype, the most frequent first."""
    found: dict[str, int] = {}
    for view in model.tensors.values():
        dtype = model.dtype(view)
        found[dtype] = found.get(dtype, 0) + numel(view.shape)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def nbytes(model: Model) -> int:
    """Bytes of the parameters, tied ones counted once."""
    return sum(SIZES[dtype] * n for dtype, n in dtypes(model).items())


def place_of(family: Family, name: str) -> str:
    """The family's word for a tensor outside the layers, such as `head`; the tensor's own name
    where it has none."""
    for role, modules in family.places.items():
        if any(name == m or name.startswith(m + ".") for m in modules):
            siblings = name.rsplit(".", 1)[-1]
            return role if siblings == "weight" or name in modules else f"{role}.{siblings}"
    return name


def ties_text(family: Family, aliases: Mapping[str, str]) -> str:
    """`head = embed`, one for each name that shares another's storage; `no` where none does."""
    shown = dict.fromkeys(f"{place_of(family, a)} = {place_of(family, p)}" for a, p in aliases.items())
    return escape(listed(shown)) or "no"


def depths_text(depths: Mapping[str, int]) -> str:
    """`16 layers`, or each stack with its length."""
    return ", ".join(f"{n} {stack.removesuffix('s') if n == 1 else stack}" for stack, n in depths.items()) or "none"


def listed(texts: Iterable[str], most: int = 4) -> str:
    """The texts with commas, those beyond `most` counted only."""
    shown = list(texts)
    more = f" and {len(shown) - most:,} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def family_text(model: Model) -> str:
    """The family's name, and where what is known of it is from, unless a table written by hand has
    it."""
    family = model.family
    if family.inferred:
        return f"{family.name} (inferred)"
    return f"{family.name} (as in transformers {family.version})" if family.version else family.name


def guesses(model: Model) -> list[str]:
    """What is but likely of a model whose family is inferred from the names of its tensors: where
    its stacks are and what counts them, which module is the embedding and which the head, which
    tensors are one."""
    family = model.family
    if not family.inferred:
        return []
    found = []
    for stack in family.stacks:
        key = f"counted by `{stack.depth_key}`" if stack.depth_key else "counted by no key that is known"
        found.append(f"`{stack.name}` is `{stack.prefix.removesuffix('.{i}')}`, {key}")
    for place in ("embed", "head", "norm"):
        modules = family.places.get(place)
        found.append(f"`{place}` is " + " and ".join(f"`{m}`" for m in modules) if modules else f"no `{place}`")
    ties = [f"`{alias}` is `{primary}`" for alias, primary in model.aliases.items()]
    found += ties or ["no ties"]
    unknown = [stack.name for stack in family.stacks if not {"attn", "mlp"} & set(family.roles_of(stack.name))]
    found += [f"no roles below `{stack}`" for stack in unknown]
    return found
