"""What expressions evaluate to while compiling: numbers that may vary over the output, and regions.

A region is a symbolic map from places to tensors; `elaborate.py` asks it for one tensor at a time.
Nothing here knows a weight or makes a graph node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.adapter import Adapter
from ..checkpoint.model import Model
from ..family.place import Path
from ..family.space import Coordinate, Space


@dataclass(frozen=True, slots=True)
class Where:
    """The tensor that is asked for.

    `name` is canonical in `space`; `coordinate` its position under the left-hand place of the
    statement. `output` is the name of the output's tensor that is made, which keys random masks.
    """

    name: str
    coordinate: Coordinate
    counts: tuple[int, ...]
    space: Space
    output: str

    @property
    def layer(self) -> int | None:
        """The number of its layer; None outside the layers."""
        at = self.space.layer_of(self.name)
        return at[1] if at else None

    @property
    def layers(self) -> int:
        """The depth of its stack, outside the layers of the first."""
        at, depths = self.space.layer_of(self.name), self.space.depths
        return depths.get(at[0].name, 0) if at else next(iter(depths.values()), 0)

    @property
    def depth(self) -> float:
        """0 at the first layer and before the layers, 1 at the last and after them."""
        layer, layers = self.layer, self.layers
        if layer is None:
            return 0.0 if before_layers(self.space, self.name) else 1.0
        return layer / (layers - 1) if layers > 1 else 1.0

    def at(
        self,
        *,
        coordinate: Coordinate,
        counts: tuple[int, ...] = (),
        name: str | None = None,
        space: Space | None = None,
    ) -> Where:
        """What a change of place asks for instead: the tensor `name` of `space`, where these
        differ."""
        return Where(name or self.name, coordinate, counts, space or self.space, self.output)


def where_of(space: Space, names: Mapping[str, Coordinate], counts: tuple[int, ...], name: str) -> Where:
    """The output's tensor `name`, of a statement that covers `names` and as many layers and experts
    as `counts` say."""
    return Where(name, names.get(name, ((), name)), counts, space, name)


def before_layers(space: Space, name: str) -> bool:
    """Whether a tensor outside the layers comes before them: the embeddings do, norm and head do
    not."""
    places = space.family.places
    if any(name.startswith(module) for role in ("head", "norm") for module in places.get(role, ())):
        return False
    return any(name.startswith(m) for m in places.get("embed", ())) or any(w in name for w in ("embed", "wte", "wpe"))


@dataclass(frozen=True, slots=True, eq=False)
class Vary:
    """A number (or boolean) that depends on the output tensor; `text` shows it to people."""

    at: Callable[[Where], Any]
    span: Span
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class PlaceMap:
    """`{attn: 0.3, _: 0.5}`: as a number the most specific key wins; as a setting a plain map.

    Keys are a path, a string, or None for `_`.
    """

    entries: tuple[tuple[Path | None, str, Any], ...]
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """`token(a, "<x>")`: that model's row for that token; zeros without a model, the same token
    without another.

    Unless `force`d, models that have the token keep their own rows.
    """

    model: Model | None
    token: str | None
    force: bool
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """`union(a, b)`: all tokens of several models, the first one's ids unchanged."""

    models: tuple[Model, ...]
    span: Span


# --- regions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A model, or a model at a place."""

    model: Model
    path: Path | None
    span: Span

    @property
    def label(self) -> str:
        return self.model.label

    @property
    def space(self) -> Space:
        return self.model.space


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """`lora("./adapter")`: what an adapter adds, 0 where that is nothing; added to a model, that
    model with the adapter applied."""

    adapter: Adapter
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NumberTerm:
    """A number where a region is needed: the same at every element."""

    value: Any
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """An operation on the tensors at the same place.

    `op` is one of `ops.OPS`, or of those that `instantiate.py` makes of them once shapes are known,
    such as `numel`.
    """

    op: str
    args: tuple[Region, ...]
    span: Span
    attributes: tuple[tuple[str, Any], ...] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`then if condition else other` where the condition varies over the output."""

    condition: Any
    then: Region
    other: Region
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Among:
    """What a function makes of several models, of which some may lack a tensor that their family
    marks optional.

    `full` is its value where all of `models` have the tensor, or none; where some have it, `again`
    gives the value for those, by their numbers. `function` is its name.
    """

    full: Region
    models: tuple[Region, ...]
    again: Callable[[tuple[int, ...]], Region]
    function: str
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class At:
    """A region that has no explicit places of its own, looked at from a place."""

    region: Region
    path: Path
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Layers put one after the other; `counts` are the lengths of the parts."""

    parts: tuple[Region, ...]
    counts: tuple[int, ...]
    span: Span
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Tie:
    """`tie(place)`: the left-hand place shares storage with another place of the output."""

    path: Path
    span: Span
    label: str | None = None


Origins = list[tuple[Model, int]]
"""For each layer of a stack: a model and its layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """`{layers: stack(…), _: base}`: a model put together from parts (path, key, region), with
    tensors of its own.

    `model` is the one that it has its family from; `origins` by stack. `assembly.py` makes it and
    asks it.
    """

    parts: tuple[tuple[Path | None, str, Region], ...]
    model: Model
    space: Space
    origins: Mapping[str, Origins]
    span: Span
    label: str | None = None


Region = Leaf | Lora | NumberTerm | Apply | Choice | Among | At | Stack | Tie | Assembly


def is_region(value: object) -> bool:
    return isinstance(value, Region)


def named(region: Region, label: str) -> Region:
    """The region under its first `let` name, which keys random masks."""
    if region.label is not None or isinstance(region, Leaf):
        return region
    return dataclasses.replace(region, label=label)


def children(region: Region) -> tuple[Region, ...]:
    if isinstance(region, Apply):
        return region.args
    if isinstance(region, Choice):
        return (region.then, region.other)
    if isinstance(region, Among):
        return (region.full,)
    if isinstance(region, At):
        return (region.region,)
    if isinstance(region, Stack):
        return region.parts
    if isinstance(region, Assembly):
        return tuple([value for _, _, value in region.parts])
    return ()


def walk(region: Region, below: Callable[[Region], Sequence[Region]] = children) -> Iterator[Region]:
    """The region and all below it, each once; `below` says what comes next after a region."""
    seen: set[int] = set()
    todo: list[Region] = [region]
    while todo:
        term = todo.pop()
        if id(term) not in seen:
            seen.add(id(term))
            yield term
            todo.extend(reversed(below(term)))


def leaves(region: Region) -> list[Leaf]:
    return [t for t in walk(region) if isinstance(t, Leaf)]


def models_in(value: object) -> list[Model]:
    """The models that a value is made of, each once; none for a plain number."""
    found = leaves(value) if isinstance(value, Region) else []
    return list({leaf.model.number: leaf.model for leaf in found}.values())


def has_adapter(value: object) -> bool:
    """Whether a value is made with an adapter."""
    return isinstance(value, Region) and any(isinstance(term, Lora) for term in walk(value))


def adapters_on(region: Region) -> tuple[Region, list[Lora]]:
    """What adapters are added to, side by side, and these in the order of the text; none where the
    region is no sum with an adapter."""
    found: list[Lora] = []
    while isinstance(region, Apply) and region.op == "add" and any(isinstance(a, Lora) for a in region.args):
        first, second = region.args
        region, lora = (first, second) if isinstance(second, Lora) else (second, first)
        assert isinstance(lora, Lora)
        found.append(lora)
    return region, found[::-1]


def owners(region: Region) -> list[Leaf | Assembly]:
    """The models that a region takes tensors from, in the order of the text; one that is put
    together counts as one."""
    found = walk(region, lambda term: () if isinstance(term, Assembly) else children(term))
    return [term for term in found if isinstance(term, Leaf | Assembly)]


def picks(region: Region) -> tuple[list[tuple[Model | Assembly, Path]], list[Leaf | Assembly]]:
    """The places that a region was picked at, each with the model whose layers they number; and
    models taken whole."""
    picked: list[tuple[Model | Assembly, Path]] = []
    whole: list[Leaf | Assembly] = []
    for term in walk(region, lambda term: () if isinstance(term, Assembly | At) else children(term)):
        if isinstance(term, Leaf) and term.path is not None:
            picked.append((term.model, term.path))
        elif isinstance(term, Leaf | Assembly):
            whole.append(term)
        elif isinstance(term, At):
            for owner in owners(term.region)[:1]:
                picked.append((owner.model if isinstance(owner, Leaf) else owner, term.path))
    return picked, whole


class Present(tuple[Any, ...]):
    """The models that a function is called with, where others of its call lack the tensor.

    `numbers` are their numbers in the call, `total` is how many it lists.
    """

    numbers: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, models: tuple[Any, ...], numbers: tuple[int, ...], total: int) -> Present:
        present = cls(models)
        present.numbers, present.total = numbers, total
        return present
