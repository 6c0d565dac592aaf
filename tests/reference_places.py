"""Places for the reference interpreter of the language: what they cover in a checkpoint of the
Llama family."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROLES = {
    "attn": "self_attn",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "mlp": "mlp",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}
PLACES = {"embed": "model.embed_tokens", "head": "lm_head", "norm": "model.norm"}
EMBED, HEAD, PREFIX = "model.embed_tokens.weight", "lm_head.weight", "model.layers."


class Unjudged(Exception):
    """The page does not say, or this interpreter does not know."""


class Refused(Exception):
    """The recipe is wrong, and mergec must say so."""


@dataclass(frozen=True)
class Names:
    """The tensors of a checkpoint, or of one that is described, and its number of layers."""

    names: tuple[str, ...]
    depth: int

    def layer(self, name: str) -> int | None:
        return int(name.removeprefix(PREFIX).split(".")[0]) if name.startswith(PREFIX) else None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A stored checkpoint of the Llama family; where `tied`, the head is the embedding, stored
    once."""

    tensors: Mapping[str, Array]
    depth: int
    tied: bool
    dtype: str

    @property
    def space(self) -> Names:
        return Names((*self.tensors, *((HEAD,) if self.tied else ())), self.depth)

    def find(self, name: str) -> Array | None:
        return self.tensors.get(EMBED if self.tied and name == HEAD else name)


Coordinate = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class Selection:
    """What a place covers, each tensor with its position along the indices that pick several, and
    its name below."""

    names: dict[str, Coordinate]
    counts: tuple[int, ...]
    layers: tuple[int, ...]

    def at(self, coordinate: Coordinate) -> str | None:
        return next((name for name, own in self.names.items() if own == coordinate), None)


Step = str | tuple[Any, ...]  # a word, or an index as the layers it picks; `("glob", pattern)` for a string
EVERY = ("all",)


def select(steps: Sequence[Step], space: Names) -> Selection:
    if not steps:
        return Selection({name: ((), name) for name in space.names}, (), ())
    first = steps[0]
    if isinstance(first, tuple) and first[0] == "glob":
        found = [name for name in space.names if fnmatch.fnmatchcase(name, first[1].replace("[", "[[]"))]
        if len(steps) > 1 or not found:
            raise Refused("a glob that covers nothing")
        return Selection({name: ((), name) for name in found}, (), ())
    for pattern in _readings(steps):
        matched = [(name, m) for name in space.names if (m := _match(pattern, name)) is not None]
        if matched:
            return _numbered(pattern, matched, space)
    raise Refused("no such place")


def part(steps: Sequence[Step], space: Names) -> set[str]:
    """What a key of a place map covers: a place, or a role in all layers; a glob may cover
    nothing."""
    if steps and isinstance(steps[0], tuple) and steps[0][0] == "glob":
        try:
            return set(select(steps, space).names)
        except Refused:
            return set()
    try:
        return set(select(steps, space).names)
    except Refused:
        return set(select(["layers", EVERY, *steps], space).names)


def _readings(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """The place as module paths: first as a role of a layer, then a role of the model, then as it
    stands."""
    if steps[0] == "layers":
        rest = list(steps[1:])
        index = rest.pop(0) if rest and isinstance(rest[0], tuple) else EVERY
        for length in range(len(rest), 0, -1):
            words = rest[:length]
            role = ".".join(w for w in words if isinstance(w, str))
            if all(isinstance(w, str) for w in words) and role in ROLES:
                yield ["model", "layers", index, *ROLES[role].split("."), *rest[length:]]
        yield ["model", "layers", index, *rest]
    if isinstance(steps[0], str) and steps[0] in PLACES:
        yield [*PLACES[steps[0]].split("."), *steps[1:]]
    yield list(steps)


def _match(pattern: Sequence[Step], name: str) -> tuple[list[int], str] | None:
    """The numbers at the indices, and the rest of the name below the place."""
    words = name.split(".")
    if len(words) < len(pattern):
        return None
    numbers = []
    for step, word in zip(pattern, words, strict=False):
        if isinstance(step, tuple):
            if not word.isdigit():
                return None
            numbers.append(int(word))
        elif step != word:
            return None
    return numbers, ".".join(words[len(pattern) :])


def _numbered(pattern: Sequence[Step], matched: Sequence[tuple[str, tuple[list[int], str]]], space: Names) -> Selection:
    picked: list[list[int]] = []
    for axis, index in enumerate(step for step in pattern if isinstance(step, tuple)):
        length = max(max(numbers[axis] for _, (numbers, _) in matched) + 1, space.depth if axis == 0 else 0)
        picked.append(_picked(index, length))
    names: dict[str, Coordinate] = {}
    for name, (numbers, rest) in matched:
        if all(n in own for n, own in zip(numbers, picked, strict=True)):
            at = [own.index(n) for n, own in zip(numbers, picked, strict=True)]
            names[name] = (tuple(a for a, own in zip(at, picked, strict=True) if len(own) != 1), rest)
    if not names:
        raise Refused("covers nothing")
    return Selection(names, tuple(len(own) for own in picked if len(own) != 1), tuple(picked[0]) if picked else ())


def _picked(index: tuple[Any, ...], length: int) -> list[int]:
    if index == EVERY:
        return list(range(length))
    out: list[int] = []
    for start, stop, step in index:
        ends = [0 if start is None else start, length - 1 if stop is None else stop]
        low, high = (n + length if n < 0 else n for n in ends)
        if not (0 <= low < length and 0 <= high < length) or high < low or step < 1:
            raise Refused("out of range, backwards, or no step")
        out.extend(range(low, high + 1, step))
    if len(set(out)) != len(out):
        raise Refused("an index twice")
    return out


def names_of(space: Names, depth: int, origins: Sequence[tuple[Names, int]] | None) -> Names:
    """The names of a model of so many layers; a layer has the names of the one that it comes from,
    else of the last."""
    out = [n for n in space.names if space.layer(n) is None]
    for j in range(depth):
        source, layer = origins[j] if origins is not None and j < len(origins) else (space, min(j, space.depth - 1))
        out += [f"{PREFIX}{j}.{n.removeprefix(f'{PREFIX}{layer}.')}" for n in source.names if source.layer(n) == layer]
    return Names(tuple(out), depth)
