"""Places: from `layers[0..15].mlp` to the tensors that it covers in a checkpoint or in the output.

A `Path` (`place.py`) is a place with its indices evaluated, still symbolic. A `Space` is the set of
canonical tensor names that paths are resolved against. A `Selection` maps each covered tensor to
its coordinate: the position along every index of the path, and the rest of its name below the path.
Tensors of two selections correspond where the coordinates agree.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field

from ...grammar.diagnostic import MergecError, error
from ...grammar.records import dataclass
from ...grammar.suggest import near
from .family import Family, LayerStack, stack_index
from .place import GlobStep, IndexStep, NameStep, Path

_MOST_NUMBERED = 1_000_000  # a name is free to claim any number, and what it claims is listed
_MOST_GLOBS = 3  # in one place: a long name can be split between more in too many ways

Coordinate = tuple[tuple[int, ...], str]
"""Positions along the indices of the path (but for those of length one), and the rest of the
name."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a path covers: name to coordinate, in the space's order, and back.

    `counts` are the lengths of the indices that select more than one; `indices` the selected
    numbers of the first index (the layers, for a place in a stack).
    """

    names: Mapping[str, Coordinate]
    by_coordinate: Mapping[Coordinate, str]
    counts: tuple[int, ...]
    indices: tuple[int, ...]
    stack: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to read a path: names that match `pattern`, groups being the indices and then the
    rest."""

    pattern: re.Pattern[str]
    indices: tuple[IndexStep, ...]
    stack: str | None


@dataclass(slots=True, eq=False)
class Space:
    """The canonical tensor names of a checkpoint (or of the output) under a family, in order.

    `depths` gives the length of each stack. `stored` maps names of the checkpoint's own layout to
    the canonical names they hold, so that those are accepted as module paths too. `owner` is for
    messages.
    """

    family: Family
    names: tuple[str, ...]
    depths: Mapping[str, int]
    owner: str
    stored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _selections: dict[str, Selection] = field(default_factory=dict)
    _found: dict[str, Selection | None] = field(default_factory=dict)
    _parts: dict[str, Collection[str]] = field(default_factory=dict)
    _layers: dict[str, tuple[LayerStack, int, str] | None] = field(default_factory=dict)

    def select(self, path: Path) -> Selection:
        """The tensors that a path covers. Raises MergecError where it covers none, or where an
        index is out of range."""
        key = path.text
        if key not in self._selections:
            self._selections[key] = self._select(path)
        return self._selections[key]

    def find(self, path: Path) -> Selection | None:
        """The tensors that a path covers; None where it is no place, such as a role without its
        layers."""
        key = path.text
        if key not in self._found:
            try:
                self._found[key] = self.select(path)
            except MergecError:
                self._found[key] = None
        return self._found[key]

    def part(self, path: Path) -> Collection[str]:
        """What a key of a place map covers: a place, or a role (`attn`, `mlp.gate`) in the layers
        of every stack.

        A glob may cover nothing, so that one map serves several families. Raises MergecError for an
        unknown place.
        """
        key = path.text
        if key not in self._parts:
            self._parts[key] = self._part(path)
        return self._parts[key]

    def _part(self, path: Path) -> Collection[str]:
        if path.steps and isinstance(path.steps[0], GlobStep):
            try:
                return self.select(path).names
            except MergecError as error:
                if any(d.code != "E0304" for d in error.diagnostics):
                    raise
                return ()
        try:
            return self.select(path).names
        except MergecError:
            every = IndexStep((), path.span)
            found: dict[str, None] = {}
            for stack in self.family.stacks:
                steps = tuple(NameStep(word, path.span) for word in stack.name.split("."))
                try:
                    found |= dict.fromkeys(self.select(Path((*steps, every, *path.steps), path.span)).names)
                except MergecError:
                    continue
            if not found:
                raise
            return found

    def layer_of(self, name: str) -> tuple[LayerStack, int, str] | None:
        """The stack, layer number and name below the layer of a tensor; None outside the stacks."""
        if name not in self._layers:
            self._layers[name] = stack_index(self.family, name)
        return self._layers[name]

    def slot(self, name: str) -> tuple[str, str]:
        """A tensor's place without its layer's number: the stack, empty outside the stacks, and its
        name there."""
        at = self.layer_of(name)
        return (at[0].name, at[2]) if at else ("", name)

    def over(
        self, names: tuple[str, ...], depths: Mapping[str, int], owner: str, stored: Mapping[str, tuple[str, ...]]
    ) -> Space:
        """The space of other names under the same family, many of them the same ones."""
        return Space(self.family, names, depths, owner, stored, _layers=self._layers)

    # --- resolution

    def _select(self, path: Path) -> Selection:
        if not path.steps:
            return _selection([((), name, name) for name in self.names], (), (), None)
        first = path.steps[0]
        if isinstance(first, GlobStep):
            return self._glob(path, first)
        if sum(isinstance(step, GlobStep) for step in path.steps) > _MOST_GLOBS:
            raise error("E0301", f"a place has at most {_MOST_GLOBS} globs", path.span, "more than that")
        candidates = self._candidates(path)
        for candidate in candidates:
            found = self._match(candidate)
            if found:
                return self._number(path, candidate, found)
        raise self._unknown(path)

    def _glob(self, path: Path, step: GlobStep) -> Selection:
        if len(path.steps) > 1:
            raise error("E0301", "a glob covers full tensor names and takes no further parts", path.span)
        pattern = glob_pattern(step.pattern)
        found = dict.fromkeys(name for name in self.names if pattern.fullmatch(name))
        for stored, canonical in self.stored.items():
            if pattern.fullmatch(stored):
                found.update(dict.fromkeys(canonical))
        if not found:
            raise error(
                "E0304",
                f"no tensor of {self.owner} matches `{step.pattern}`",
                step.span,
                "matches nothing",
                help=_near(step.pattern, self.names, "did you mean"),
            )
        return _selection([((), name, name) for name in found], (), (), None)

    def _candidates(self, path: Path) -> list[_Candidate]:
        """Ways to read the path, in order of preference: stacks and roles, model-level roles,
        module paths."""
        out: list[_Candidate] = []
        words = [s.name if isinstance(s, NameStep) else None for s in path.steps]
        for stack in self.family.stacks:
            parts = stack.name.split(".")
            if words[: len(parts)] == parts:
                out.extend(self._in_stack(path, stack, len(parts)))
        for role, modules in self.family.places.items():
            parts = role.split(".")
            if words[: len(parts)] == parts:
                out.append(self._below(modules, "", path.steps[len(parts) :], (), None))
        out.append(self._below(("",), "", path.steps, (), None))
        return out

    def _in_stack(self, path: Path, stack: LayerStack, used: int) -> list[_Candidate]:
        rest = path.steps[used:]
        index = IndexStep((), path.span)
        if rest and isinstance(rest[0], IndexStep):
            index, rest = rest[0], rest[1:]
        prefix = re.escape(stack.prefix).replace(r"\{i\}", r"(\d+)")
        if not rest:
            return [_Candidate(re.compile(rf"{prefix}\.(.+)"), (index,), stack.name)]
        roles = self.family.roles_of(stack.name)
        words = [s.name if isinstance(s, NameStep) else None for s in rest]
        out = []
        for length in range(len(words), 0, -1):
            head = words[:length]
            if None in head:
                continue
            modules = roles.get(".".join(w for w in head if w))
            if modules:
                out.append(self._below(modules, prefix, rest[length:], (index,), stack.name))
        experts = self.family.experts
        if experts and words[0] == "experts" and len(rest) > 1 and isinstance(rest[1], IndexStep):
            inner = re.escape(experts).replace(r"\{e\}", r"(\d+)")
            below = rest[2:]
            names = [s.name if isinstance(s, NameStep) else None for s in below]
            for length in range(len(names), 0, -1):
                modules = roles.get(".".join(["experts", *[w or "?" for w in names[:length]]]))
                if modules:
                    out.append(
                        self._below(modules, rf"{prefix}\.{inner}", below[length:], (index, rest[1]), stack.name)
                    )
            out.append(self._below(("",), rf"{prefix}\.{inner}", below, (index, rest[1]), stack.name))
        out.append(self._below(("",), prefix, rest, (index,), stack.name))
        return out

    def _below(
        self,
        modules: tuple[str, ...],
        prefix: str,
        steps: tuple[NameStep | IndexStep | GlobStep, ...],
        indices: tuple[IndexStep, ...],
        stack: str | None,
    ) -> _Candidate:
        """`prefix`, then one of the modules, then further module names and indices."""
        tail, more = "", list(indices)
        for step in steps:
            if isinstance(step, IndexStep):
                tail += r"\.(\d+)"
                more.append(step)
            elif isinstance(step, NameStep):
                tail += r"\." + re.escape(step.name)
            else:
                tail += r"\.(?:" + glob_pattern(step.pattern).pattern + ")"
        branches = "|".join(re.escape(m).replace(r"\{e\}", r"\d+") for m in modules if m)
        # with one module the rest starts below it; with several the module's name tells them apart
        if len(modules) > 1:
            lead = rf"{prefix}\." if prefix else ""
            pattern = rf"{lead}(?P<rest>(?:{branches}){tail}(?:\..+)?)"
        else:
            join = r"\." if prefix and branches else ""
            pattern = rf"{prefix}{join}(?:{branches}){tail}" if branches else rf"{prefix}{tail}"
            if not prefix and not branches:
                pattern = pattern.removeprefix(r"\.")
            pattern += r"(?:\.(?P<rest>.+))?"
        return _Candidate(re.compile(pattern), tuple(more), stack)

    def _match(self, candidate: _Candidate) -> list[tuple[tuple[int, ...], str, str]]:
        found = []
        width = len(candidate.indices)
        for name in self.names:
            m = candidate.pattern.fullmatch(name)
            if m:
                groups = m.groups()
                numbers = tuple([int(g) for g in groups[:width]])
                found.append((numbers, groups[width] or "", name))
        if not found and self.stored:
            for stored, canonical in self.stored.items():
                m = candidate.pattern.fullmatch(stored)
                if m:
                    numbers = tuple([int(g) for g in m.groups()[:width]])
                    found.extend((numbers, name, name) for name in canonical)
        return found

    def _number(self, path: Path, candidate: _Candidate, found: list[tuple[tuple[int, ...], str, str]]) -> Selection:
        chosen: list[list[int]] = []
        for axis, step in enumerate(candidate.indices):
            length = max(numbers[axis] for numbers, _, _ in found) + 1
            if length > _MOST_NUMBERED:
                message = f"{self.owner} has a part here that is numbered {_MOST_NUMBERED} or higher"
                raise error("E0303", message, step.span, "not to be listed")
            if axis == 0 and candidate.stack:
                length = max(length, self.depths.get(candidate.stack, 0))
            chosen.append(_positions(step, length, self.owner))
        orders = [{n: k for k, n in enumerate(c)} for c in chosen]
        placed = []
        for numbers, rest, name in found:
            at = [order.get(n) for order, n in zip(orders, numbers, strict=True)]
            if None not in at:
                placed.append((tuple([a for a in at if a is not None]), rest, name))
        if not placed:
            raise error("E0304", f"`{path}` covers no tensor of {self.owner}", path.span, "covers nothing")
        counts = tuple(len(c) for c in chosen)
        return _selection(placed, counts, tuple(chosen[0]) if chosen else (), candidate.stack)

    def _meant(self, path: Path) -> list[str]:
        """Places that a path without its first part may stand for: below the layers, or under the
        word that a module goes by."""
        first, *rest = path.steps
        if not isinstance(first, NameStep):
            return []
        found = []
        for stack in self.family.stacks:
            front = tuple([NameStep(word, path.span) for word in stack.name.split(".")])
            below = Path((*front, IndexStep((), path.span), *path.steps), path.span)
            if self._covers(below):
                found.append(below.text)
        roles = self.family.places.items()
        called = [role for role, modules in roles if any(m.rpartition(".")[2] == first.name for m in modules)]
        places = [Path((NameStep(role, path.span), *rest), path.span) for role in called if "." not in role]
        return found or [place.text for place in places if self._covers(place)]

    def _covers(self, path: Path) -> bool:
        return any(self._match(candidate) for candidate in self._candidates(path))

    def _places(self) -> list[str]:
        """The documented places, stacks first, that cover a tensor."""
        roles = self.family.places.items()
        have = [role for role, modules in roles if any(_holds(m, name) for m in modules for name in self.names)]
        return [*(s.name for s in self.family.stacks if self.depths.get(s.name)), *have]

    def _unknown(self, path: Path) -> MergecError:
        first = path.steps[0]
        assert isinstance(first, NameStep | IndexStep)
        word = first.name if isinstance(first, NameStep) else "["
        stacks = [s.name for s in self.family.stacks]
        if word == "layers" and stacks and "layers" not in stacks:
            return error(
                "E0302",
                f"{self.owner} has several layer stacks, so `layers` alone is ambiguous",
                first.span,
                "which one?",
                help="use " + " or ".join(f"`{s}[…]`" for s in stacks),
            )
        meant = self._meant(path)
        if meant:
            ways = f"did you mean {' or '.join(f'`{m}`' for m in meant)}?"
            return error("E0301", f"{self.owner} has no place `{path.text}`", first.span, "no such place", help=ways)
        known = [*stacks, *self.family.places, *sorted({n.split(".")[0] for n in self.names})]
        label, help_ = "no such place", _near(word, known, "did you mean")
        places = self._places()
        if word not in places and (word in self.family.places or word in _USUAL):
            have = ", ".join(f"`{place}`" for place in places)
            message = f"{self.owner} has no `{word}`"
            return error("E0301", message, first.span, label, notes=f"it has {have}" if have else ())
        if word in {s.split(".")[0] for s in known}:
            known = [r for s in self.family.stacks for r in self.family.roles_of(s.name)]
            later = next((s for s in path.steps[1:] if isinstance(s, NameStep)), first)
            label, help_ = (
                "nothing is called this here",
                _near(later.name if isinstance(later, NameStep) else "", known, "did you mean"),
            )
            fused = _fused(path.steps[-1], known)
            if fused:
                help_ = (fused,)
            if isinstance(later, NameStep) and later.name.isdigit():
                help_ = (f"an index stands in brackets: `{word}[{later.name}]`",)
            return error(
                "E0301",
                f"{self.owner} has no place `{path.text}`",
                later.span,
                label,
                notes=f"roles of family `{self.family.name}`: {', '.join(known)}" if known else (),
                help=help_,
            )
        if word == "text" and "layers" in stacks:
            left = ".".join(path.text.split(".")[1:]) or ("*" if self.owner == "the output" else self.owner.strip("`"))
            help_ = (f"{self.owner} is not made of parts: `{left}` is all that `{path.text}` could be",)
        elif self.owner == "the output" and len(path.steps) == 1 and isinstance(first, NameStep):
            help_ = (*help_, f"to bind a name: `let {word} = …`")
        return error("E0301", f"{self.owner} has no place `{path.text}`", first.span, label, help=help_)


def _holds(module: str, name: str) -> bool:
    return name == module or name.startswith(module + ".")


_USUAL = ("embed", "norm", "head", "classifier")
"""Places that models mostly have."""


def _fused(step: NameStep | IndexStep | GlobStep, known: list[str]) -> str:
    """A word of help where q, k and v (or gate and up) are stored as one tensor."""
    word = step.name if isinstance(step, NameStep) else ""
    if word in ("q", "k", "v") and "attn.qkv" in known:
        return "this family stores q, k and v in one tensor: use `attn.qkv`"
    if word in ("gate", "up") and "mlp.gate_up" in known:
        return "this family stores gate and up in one tensor: use `mlp.gate_up`"
    return ""


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """`*` and `**` match any run of characters, dots included; `?` one character; all else
    itself."""
    first, *later = ["".join("." if c == "?" else re.escape(c) for c in part) for part in re.split(r"\*+", pattern)]
    # what stands between two stars is taken where it comes first and never given back, which finds
    # a match if there is one, and keeps a name of many repetitions from being split in every way
    # there is
    middle = "".join(f"(?>.*?{part})" for part in later[:-1])
    return re.compile(f"(?s:{first}{middle}" + (f".*{later[-1]})" if later else ")"))


def _positions(step: IndexStep, length: int, owner: str) -> list[int]:
    """The numbers that an index selects out of `length`, in order."""
    if not step.intervals:
        return list(range(length))
    out: list[int] = []
    for interval in step.intervals:
        start = 0 if interval.start is None else interval.start
        stop = length - 1 if interval.stop is None else interval.stop
        start, stop = (n + length if n < 0 else n for n in (start, stop))
        for n in (start, stop):
            if not 0 <= n < length:
                shown = n if n >= 0 else n - length
                raise error(
                    "E0303",
                    f"index {shown} is out of range: {owner} has {length} here, 0 to {length - 1}",
                    interval.span,
                    f"not in 0..{length - 1}",
                )
        if stop < start:
            raise error(
                "E0303",
                f"the range {start}..{stop} is empty",
                interval.span,
                "runs backwards",
                help=f"ranges include both ends: `{stop}..{start}`",
            )
        out.extend(range(start, stop + 1, interval.step))
    if len(set(out)) != len(out):
        raise error("E0303", "an index is selected twice", step.span, "overlaps itself")
    return out


def _selection(
    placed: Sequence[tuple[tuple[int, ...], str, str]],
    counts: tuple[int, ...],
    indices: tuple[int, ...],
    stack: str | None,
) -> Selection:
    wide = [k for k, n in enumerate(counts) if n != 1]
    names: dict[str, Coordinate] = {}
    back: dict[Coordinate, str] = {}
    for at, rest, name in placed:
        coordinate = (tuple([at[k] for k in wide]) if at else (), rest)
        names[name] = coordinate
        back[coordinate] = name
    return Selection(names, back, tuple(counts[k] for k in wide), indices, stack)


def _near(word: str, known: list[str] | tuple[str, ...], lead: str) -> tuple[str, ...]:
    found = near(word, known)
    return (f"{lead} {' or '.join(f'`{f}`' for f in found)}?",) if found else ()
