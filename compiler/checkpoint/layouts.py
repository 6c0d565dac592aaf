"""Layouts: from the names in a file to the family's canonical tensors, and back.

The exporters of a family differ in names and in what they keep in one tensor. Every conversion
known here leaves the bytes of a canonical tensor together, so that it is a contiguous range of a
stored one:

    stored                        canonical
    …3.mixer.Wqkv.weight [3n, n]  …3.self_attn.q_proj.weight [n, n], elements 0 .. n²
                                  …3.self_attn.k_proj.weight [n, n], elements n² .. 2n²
                                  …3.self_attn.v_proj.weight [n, n], elements 2n² .. 3n²
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import field

from ...grammar.records import dataclass
from ..family.family import Family, Layout, LayoutRule
from ..family.patterns import (
    Template,
    has_marks,
    kind_of,
    mark,
    number_of,
    pattern,
    split,
    substitute,
    template,
    variables_of,
)
from .catalog import CatalogError, Checkpoint, StoredTensor

CANONICAL = "canonical"
"""The name of the layout in which stored and canonical names are the same."""

Shape = tuple[int, ...]

_MOST_EXPERTS = 1 << 16  # more in one tensor is a header made to exhaust memory


@dataclass(frozen=True, slots=True)
class View:
    """A canonical tensor: a row-major range of the tensor stored as `stored`, from element `first`
    on."""

    stored: str
    first: int
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """A checkpoint under its family: `views` by canonical name, in the file's order.

    `layout` is `canonical` or a layout's name. `ignored` are stored names that are no parameters
    (buffers), `buffers` what they hold, by canonical name.
    """

    family: Family
    layout: str
    views: Mapping[str, View]
    ignored: tuple[str, ...]
    buffers: Mapping[str, View] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor to be stored: the canonical tensors `parts`, one after the other, are its bytes.

    The parts must be of one dtype.
    """

    name: str
    shape: Shape
    parts: tuple[str, ...]


def layout_names(family: Family) -> tuple[str, ...]:
    """The layouts in which the family can be stored, canonical first."""
    return (CANONICAL, *(layout.name for layout in family.layouts))


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Action:
    """What becomes of all stored names of one kind. No parts: the name is canonical already."""

    parts: tuple[Template, ...]
    over: bool
    ignored: bool


def recognise(checkpoint: Checkpoint, family: Family) -> Recognised:
    """Recognises the layout and gives the canonical tensors.

    Never fails: a name that no rule knows, a tensor that does not divide as its rule says, and one
    whose canonical name is taken already are passed through under their stored names.
    """
    kinds: dict[tuple[str, ...], str] = {}
    names = []
    for name, tensor in checkpoint.tensors.items():
        texts, numbers = split(name)
        if texts not in kinds:
            kinds[texts] = kind_of(texts)
        names.append((name, texts, numbers, tensor.shape))
    layout = _detect(family, kinds.values())
    actions = {texts: _action(family, layout, texts, kind) for texts, kind in kinds.items()}
    views: dict[str, View] = {}
    ignored: list[str] = []
    buffers: dict[str, View] = {}
    for name, texts, numbers, shape in names:
        action = actions[texts]
        into = buffers if action.ignored else views
        if action.ignored:
            ignored.append(name)
        found = _views(action, name, numbers, shape) if action.parts else None
        if found is None or any(part in into or part in checkpoint.tensors for part in found):
            into[name] = View(name, 0, shape)
        else:
            into.update(found)
    return Recognised(family, layout.name if layout else CANONICAL, views, tuple(ignored), buffers)


def _detect(family: Family, kinds: Collection[str]) -> Layout | None:
    for layout in family.layouts:
        detector = pattern(layout.detector)
        if any(detector.match(kind) is not None for kind in kinds):
            return layout
    return None


def _action(family: Family, layout: Layout | None, texts: tuple[str, ...], kind: str) -> _Action:
    # a name that contains the marks themselves can't be told from its kind: it is nobody's, and
    # passed through
    if has_marks(texts):
        return _Action((), False, False)
    for rule in layout.rules if layout else ():
        found = pattern(rule.stored).match(kind)
        if found is not None:
            if rule.over:
                found[rule.over] = mark(len(texts) - 1)
            parts = [substitute(part, found) for part in rule.parts]
            ignored = any(family.is_ignored(part) for part in parts)
            return _Action(tuple(template(part) for part in parts), rule.over is not None, ignored)
    return _Action((), False, family.is_ignored(kind))


def _views(action: _Action, name: str, numbers: tuple[str, ...], shape: Shape) -> dict[str, View] | None:
    """The canonical tensors in one stored tensor; None where it does not divide as the rule
    says."""
    count = len(action.parts)
    if not action.over:
        if count == 1:
            return {action.parts[0].fill(numbers): View(name, 0, shape)}
        if not shape or shape[0] % count:
            return None
        inner = (shape[0] // count, *shape[1:])
        size = math.prod(inner)
        return {part.fill(numbers): View(name, k * size, inner) for k, part in enumerate(action.parts)}
    if len(shape) < 2 or shape[1] % count or shape[0] > _MOST_EXPERTS:
        return None
    inner = (shape[1] // count, *shape[2:])
    size = math.prod(inner)
    return {
        part.fill((*numbers, e)): View(name, (e * count + k) * size, inner)
        for e in range(shape[0])
        for k, part in enumerate(action.parts)
    }


# --- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where canonical names of one kind go: into `stored` as part `part` of `rule`, number `over`
    saying which one."""

    rule: LayoutRule
    stored: Template
    part: int
    over: int | None


def pack(family: Family, layout: str, canonical: Mapping[str, Shape]) -> tuple[Packed, ...]:
    """The tensors to store for an output in `layout`, in the order in which their first parts
    appear in `canonical`.

    A tensor of which parts are missing or differ in shape can't be put together: what there is of
    it is stored under canonical names. Raises ValueError for a layout that is not among
    `layout_names(family)`.
    """
    rules = _rules(family, layout)
    if not rules:
        return tuple([Packed(name, shape, (name,)) for name, shape in canonical.items()])
    origins: dict[tuple[str, ...], _Origin | None] = {}
    origin_of: dict[str, tuple[str, tuple[int, int], LayoutRule]] = {}
    for name in canonical:
        texts, numbers = split(name)
        if texts not in origins:
            origins[texts] = None if has_marks(texts) else _origin(rules, kind_of(texts))
        origin = origins[texts]
        if origin is not None:
            expert = 0 if origin.over is None else int(numbers[origin.over])
            origin_of[name] = (origin.stored.fill(numbers), (expert, origin.part), origin.rule)
    groups: dict[str, dict[tuple[int, int], str]] = {}
    whose: dict[str, LayoutRule] = {}
    for name in canonical:
        stored, key, rule = origin_of.get(name, (name, (0, 0), None))
        # a file that mixes layouts may hold another tensor by the name that this one would get
        if rule is None or (stored in canonical and stored not in origin_of):
            groups[name] = {(0, 0): name}
        else:
            groups.setdefault(stored, {})[key] = name
            whose[stored] = rule
    out: list[Packed] = []
    for stored, parts in groups.items():
        packed = _join(stored, whose.get(stored), parts, canonical)
        out.extend([packed] if packed else (Packed(name, canonical[name], (name,)) for name in parts.values()))
    return tuple(out)


def _rules(family: Family, layout: str) -> tuple[LayoutRule, ...]:
    for known in family.layouts:
        if known.name == layout:
            return known.rules
    if layout != CANONICAL:
        raise ValueError(f"family `{family.name}` has no layout `{layout}`")
    return ()


def _origin(rules: tuple[LayoutRule, ...], kind: str) -> _Origin | None:
    for rule in rules:
        for k, part in enumerate(rule.parts):
            found = pattern(part).match(kind)
            if found is not None:
                over = number_of(found[rule.over]) if rule.over else None
                return _Origin(rule, template(substitute(rule.stored, found)), k, over)
    return None


def _join(
    stored: str, rule: LayoutRule | None, parts: Mapping[tuple[int, int], str], canonical: Mapping[str, Shape]
) -> Packed | None:
    """One stored tensor out of its parts, by (number, part); None where that can't be."""
    names = tuple(parts[key] for key in sorted(parts))
    inner = canonical[names[0]]
    count = len(rule.parts) if rule else 1
    if rule is None or (count == 1 and not rule.over):
        return Packed(stored, inner, names)
    experts = len(parts) // count
    whole = sorted(parts) == [(e, k) for e in range(experts) for k in range(count)]
    if not whole or not inner or any(canonical[name] != inner for name in names):
        return None
    shape = (count * inner[0], *inner[1:])
    return Packed(stored, (experts, *shape) if rule.over else shape, names)


# --- the user's own way out ----------------------------------------------------------------------


def rename_stored(checkpoint: Checkpoint, rename: Mapping[str, str]) -> Checkpoint:
    """The checkpoint with its tensors under other names: `rename=` of `model(...)`, before any
    recognition.

    Keys and values are patterns (`{"old.{i}.name": "new.{i}.name"}`): `{i}` is a number anywhere in
    a name, `*` any text, and the first key that matches counts. Only the keys of `tensors` change;
    `StoredTensor.name` stays the file's. Raises CatalogError E0438 where a pattern is malformed or
    matches nothing, or two tensors would get one name.
    """
    rules = []
    for old, new in rename.items():
        try:
            compiled = pattern(old, "[0-9]+")
        except ValueError as error:
            raise _refused(str(error)) from None
        unknown = [v for v in variables_of(new) if v not in compiled.variables]
        if unknown:
            shown = unknown[0] if unknown[0] == "*" else f"{{{unknown[0]}}}"
            raise _refused(f"`{new}` uses `{shown}`, which `{old}` does not have")
        rules.append((compiled, new))
    used: set[str] = set()
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        target = name
        for compiled, new in rules:
            found = compiled.match(name)
            if found is not None:
                target = substitute(new, found)
                used.add(compiled.text)
                break
        if target in tensors:
            first, second, both = (ascii(n)[1:-1] for n in (tensors[target].name, name, target))
            raise _refused(f"`{first}` and `{second}` would both be called `{both}`")
        tensors[target] = tensor
    for compiled, _ in rules:
        if compiled.text not in used:
            raise _refused(f"no tensor matches `{compiled.text}`")
    return dataclasses.replace(checkpoint, tensors=tensors)


def _refused(message: str) -> CatalogError:
    return CatalogError("E0438", f"rename: {message}")
