"""What a config makes transformers expect: found out by changing one key after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from mergec.compiler.family.config_rules import Undecided, rule
from mergec.grammar.records import dataclass
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .facts import Fact, Lists, by_itself, position_rules
from .names import Seen, read, runs_of
from .probes import Data, Make, Path, Probe, Prober, get
from .rules import Fitter, Point, keys_of, values_of

_MOST_KEYS = 14
_SMALL = 16  # a length that no key was seen to change


@dataclass(slots=True, eq=False)
class Expectations:
    """`runs`: how many of what is numbered; `tensors`: shape and condition of each pattern;
    `defaults` and `derived`: what a config that is silent about a key means. `unknown`: patterns
    for which no rule was found."""

    runs: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, list[Fact]] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def expectations(config_class: type[PreTrainedConfig], make: Make, base: Data) -> Expectations:
    """The expectations of one architecture: `base` is a small config of the type, rich in parts."""
    prober = Prober(config_class, make, base)
    prober.run()
    return _Reader(prober).read() if prober.probes else Expectations()


Where = tuple[int, int | None]
"""The number of a probe and of a layer in it."""


class _Reader:
    def __init__(self, prober: Prober) -> None:
        self.prober = prober
        self.probes: Sequence[Probe] = prober.probes
        self.runs = runs_of([p.tensors for p in self.probes])
        read_ = [read(p.tensors, self.runs) for p in self.probes]
        self.seen: list[dict[str, Seen]] = [r[0] for r in read_]
        self.counts = [r[1] for r in read_]
        self.flat = [dict(keys_of(p.config)) for p in self.probes]
        self.singles = [k for k, p in enumerate(self.probes) if p.single]
        self.moved = {k: self._differ(k, p.base) for k, p in enumerate(self.probes)}
        self.memo: dict[Any, str | None] = {}
        self.fitters: dict[Any, Fitter] = {}
        self.out = Expectations()

    def read(self) -> Expectations:
        for head in sorted(self.runs):
            found = self._count(head)
            if found is None:
                self.out.unknown.append(head)
            else:
                self.out.runs[head] = found
        for text in dict.fromkeys(text for seen in self.seen for text in seen):
            if any(text.startswith(f"{head}.{{") for head in self.out.unknown):
                continue
            made = self._tensor(text)
            if made is None:
                self.out.unknown.append(text)
            else:
                self.out.tensors[text] = made
        self._facts()
        self._derive()
        self._silence()
        self.out.aliases = aliases(self.prober.config_class, self.prober.base, self._keys())
        return self.out

    def _differ(self, k: int, base: int) -> set[str]:
        """The keys in which two probes differ."""
        here, there = self.flat[k], self.flat[base]
        return {key for key in here.keys() | there.keys() if here.get(key) != there.get(key) and not _idle(key)}

    # --- single things

    def _count(self, head: str) -> str | None:
        wanted: dict[Where, Any] = {}
        for k, counts in enumerate(self.counts):
            for i, count in counts.get(head, {}).items():
                wanted[k, i] = count
        return self._fit(head, wanted, lengths=True)

    def _layers(self, k: int, text: str) -> range | tuple[None]:
        """The layers in which a pattern could be, in a probe."""
        if "{i}" not in text:
            return (None,)
        return range(self.counts[k].get(text.split(".{i}", 1)[0], {}).get(None, 0))

    def _tensor(self, text: str) -> tuple[str, str | None] | None:
        present: dict[Where, Any] = {}
        shapes: dict[Where, Any] = {}
        for k, seen in enumerate(self.seen):
            at = seen[text].at if text in seen else {}
            for i in self._layers(k, text):
                present[k, i] = i in at
                if i in at and at[i] is not None:
                    shapes[k, i] = at[i]
        ranks = {len(s) for s in shapes.values()}
        if len(ranks) != 1:
            return None
        condition = self._fit(text, present, lengths=False)
        if condition is None:
            return None
        dims = []
        for axis in range(ranks.pop()):
            found = self._fit(text, {w: s[axis] for w, s in shapes.items()}, lengths=True)
            if found is None or (found.isdigit() and int(found) > _SMALL and self._unmoved(int(found))):
                found = "?"
            dims.append(found)
        return ", ".join(dims), None if condition == "True" else condition

    def _unmoved(self, value: int) -> bool:
        """Whether a key that could not be changed, or changed nothing, holds this number."""
        moved = set().union(*(self.moved[k] for k in self.singles)) if self.singles else set()
        return any(type(v) is int and v == value and key not in moved for key, v in self.flat[0].items())

    # --- rules

    def _fit(self, text: str, wanted: Mapping[Where, Any], *, lengths: bool) -> str | None:
        if not wanted:
            return None
        relevant = self._relevant(wanted)
        found = self._with(text, wanted, relevant, lengths)
        if found is None:
            more = relevant | self._relevant_at_all(wanted)
            if more != relevant and len(more) <= _MOST_KEYS:
                found = self._with(text, wanted, more, lengths)
        return found

    def _relevant(self, wanted: Mapping[Where, Any]) -> frozenset[str]:
        """Keys whose change alone changes it."""
        keys: set[str] = set()
        own: dict[int, dict[int | None, Any]] = {}
        for (k, i), v in wanted.items():
            own.setdefault(k, {})[i] = v
        for k in self.singles:
            each, first = own.get(k, {}), own.get(self.probes[k].base, {})
            if any(i in each and each[i] != v for i, v in first.items()) or (
                first and each and len(each) > len(first) and set(each.values()) != set(first.values())
            ):
                keys |= self.moved[k]
        for base, first in own.items():
            if self.probes[base].base == base and len(set(first.values())) > 1:
                for key, v in self.flat[base].items():
                    if isinstance(v, (list, tuple)) and len(v) >= len(first) > 1 and not _idle(key):
                        keys.add(key)
        return frozenset(keys)

    def _relevant_at_all(self, wanted: Mapping[Where, Any]) -> frozenset[str]:
        """Keys of each probe in which it differs from its base."""
        keys: set[str] = set()
        for (k, i), v in wanted.items():
            base = self.probes[k].base
            if wanted.get((base, i), v) != v and len(self.moved[k]) < 6:
                keys |= self.moved[k]
        return frozenset(keys)

    def _with(self, text: str, wanted: Mapping[Where, Any], keys: frozenset[str], lengths: bool) -> str | None:
        at = tuple(wanted)
        ask = (keys, at, tuple(wanted.values()), lengths)
        if ask in self.memo:
            return self.memo[ask]
        pool: dict[Any, Where] = {}
        sizes = {key for key in keys if type(self.flat[0].get(key)) is int} if lengths else set()
        for (k, i), v in wanted.items():
            if any(self.flat[k].get(key) is None for key in sizes):
                continue  # see `_derive`
            mark = (
                tuple(repr(self.flat[k].get(key)) for key in sorted(keys)),
                i,
                self._n(k, text) if i is not None else None,
                v,
            )
            pool.setdefault(mark, (k, i))
        chosen = list(pool.values())[:400]
        points = [Point(self.probes[k].config, i, self._n(k, text) if i is not None else None) for k, i in chosen]
        values = tuple(wanted[w] for w in chosen)
        fitter = Fitter(points, keys)
        found = fitter.length(values) if lengths else fitter.condition(values)
        if found is not None and values_of(found, points) != values:
            found = None
        self.memo[ask] = found
        return found

    def _n(self, k: int, text: str) -> int | None:
        return self.counts[k].get(text.split(".{i}", 1)[0], {}).get(None)

    # --- what layers are by themselves

    def _facts(self) -> None:
        for head, count in self.out.runs.items():
            keys = rule(count).keys
            if "{i}" in head or len(keys) != 1:
                continue
            level, _, key = keys[0].rpartition(".")
            found: list[Fact] = []
            if count == keys[0]:
                lists = Lists(self.prober, tuple(level.split(".")) if level else (), key)
                found += lists.facts()
                self.out.defaults |= lists.defaults
                self._numbers(head, lists)
            elif count == f"len({keys[0]})":
                found.append((keys[0], None))
            points = [
                Point(p.config, i, n)
                for k, p in enumerate(self.probes)
                if (n := self.counts[k].get(head, {}).get(None))
                for i in range(n)
            ]
            own = [c for text, (_, c) in self.out.tensors.items() if c and text.startswith(f"{head}.{{i}}.")]
            items = self._items(
                [
                    c
                    for text, (s, c) in self.out.tensors.items()
                    if text.startswith(f"{head}.{{i}}.")
                    for c in (*s.split(", "), c or "?")
                    if c != "?"
                ],
            )
            found += [(each, None) for each in items if each not in {f for f, _ in found}]
            rules = by_itself(points, position_rules(own))
            found += [(None, text) for text in rules]
            found += [(None, text) for text in self._marks(head, found)]
            if found:
                self.out.facts[head] = found

    def _numbers(self, head: str, lists: Lists) -> None:
        """Lists of layer numbers that the class makes by a rule where a config has none."""
        below = [text for text, (_, c) in self.out.tensors.items() if text.startswith(f"{head}.{{i}}.") and c]
        named = {key for text in below for key in rule(self.out.tensors[text][1] or "").keys}
        for key in sorted(named):
            if not any(f"in {key}" in (self.out.tensors[text][1] or "") for text in below):
                continue
            made = lists.membership(key.rpartition(".")[2])
            if made is None:
                continue
            for text in below:
                shape, condition = self.out.tensors[text]
                either = f"(i in {key} if {key} is not None else {made})"
                new = re.sub(rf"\bi not in {re.escape(key)}(?![\w.])", f"not {either}", condition or "")
                new = re.sub(rf"(?<!\()\bi in {re.escape(key)}(?![\w.])", either, new)
                self.out.tensors[text] = shape, new

    def _items(self, texts: Sequence[str]) -> list[str]:
        """Lists of which rules read the item of a layer."""
        return sorted({key for text in texts for key in rule(text).keys if f"{key}[i]" in text})

    def _marks(self, head: str, known: Sequence[Fact]) -> list[str]:
        """Rules for what the modules of layers differ in and nothing else tells."""
        lists = [items for items, _ in known if items]
        rules = [text for items, text in known if items is None and text]
        out: list[str] = []
        done: set[Any] = set()
        for mark in sorted({m for p in self.probes for m in p.marks.get(head, {})}):
            wanted: dict[Where, Any] = {}
            for k, probe in enumerate(self.probes):
                values = probe.marks.get(head, {}).get(mark)
                n = self.counts[k].get(head, {}).get(None)
                if n is None or (values is not None and len(values) != n):
                    continue
                wanted |= {(k, i): v for i, v in enumerate(values or ())}
            told: dict[Any, Any] = {}
            alike = True
            for (k, i), v in wanted.items():
                at = Point(self.probes[k].config, i, self.counts[k][head][None])
                seen = (k, *(_item(at, items, i) for items in lists), *values_of_rules(rules, at))
                alike = alike and told.setdefault(seen, v) == v
            if alike:
                continue
            marked = tuple((w, repr(v)) for w, v in wanted.items())
            if marked in done or len({repr(v) for v in wanted.values()}) > 4:
                continue
            done.add(marked)
            kinds = sorted({repr(v) for v in wanted.values()})
            for kind in kinds[:-1]:
                text = self._fit(f"{head}.{{i}}", {w: repr(v) == kind for w, v in wanted.items()}, lengths=False)
                if text is None:
                    self.out.unknown.append(f"{head}.{{i}}: {mark}")
                    break
                if text not in out and text not in ("True", "False") and _varies(text):
                    out.append(text)
                    rules.append(text)
        return out

    # --- what a silent config means

    def _keys(self) -> set[str]:
        """The keys that the rules read."""
        texts = [*self.out.runs.values()]
        for shape, condition in self.out.tensors.values():
            texts += [*shape.split(", "), condition or "?"]
        texts += [text for facts in self.out.facts.values() for _, text in facts if text]
        return {key for text in texts if text != "?" for key in rule(text).keys}

    def _derive(self) -> None:
        """What a number is where the config has none, by the lengths that then result."""
        keys = {k for p in range(len(self.probes)) for k, v in self.flat[p].items() if v is None}
        keys |= {".".join(path) for path in self.prober.without}
        for key in sorted(keys & self._keys()):
            if type(self.flat[0].get(key)) is not int:
                continue
            points: list[Point] = []
            values: list[int] = []
            for probe in self.prober.silent(tuple(key.split("."))):
                for at, value in self._implied(key, probe):
                    points.append(at)
                    values.append(value)
            if not points:
                continue
            level = key.rpartition(".")[0]
            columns = [dict(keys_of(p.config)) for p in points]
            beside = [
                k
                for k, v in columns[0].items()
                if type(v) is int and k.rpartition(".")[0] == level and len({repr(c.get(k)) for c in columns}) > 1
            ]
            found = Fitter(points, beside).length(tuple(values))
            if found is not None and not found.isdigit():
                self.out.derived[key] = found

    def _implied(self, key: str, probe: Probe) -> list[tuple[Point, int]]:
        """The value of a key, by the first length that it is in."""
        seen, counts = read(probe.tensors, self.runs)
        for text, (shape, _) in self.out.tensors.items():
            for axis, length in enumerate(shape.split(", ")):
                if text not in seen or length == "?" or key not in rule(length).keys or " if " in length:
                    continue
                i, dims = next(iter(seen[text].at.items()))
                n = counts.get(text.split(".{i}", 1)[0], {}).get(None)
                at = Point(probe.config, i, n)
                value = _solved(length, key, at, dims[axis]) if dims is not None else None
                if value is not None:
                    return [(at, value)]
        return []

    def _silence(self) -> None:
        self.said: set[str] = set()
        for key in sorted(self._keys()):
            if not any(f"{key} is not None else" in (c or "") for _, c in self.out.tensors.values()):
                self._silent(key, tuple(key.split(".")))
            else:
                self.said.add(key)
        self.out.unsaid = sorted(self._keys() - self.said - self.out.defaults.keys() - self.out.derived.keys())

    def _silent(self, key: str, path: Path) -> None:
        """What a key means where it is absent."""
        points: list[Point] = []
        values: list[Any] = []
        done: set[str] = set()
        for probe in self.probes:
            given = _without(probe.given, path)
            if given is None or repr(given) in done:
                continue
            done.add(repr(given))
            config = self.prober.complete(given)
            if config is None:
                continue
            try:
                value = get(config, path)
            except (KeyError, TypeError):
                continue
            points.append(Point(config))
            values.append(value)
            if len(points) > 150:
                break
        if not values:
            return
        first = values[0]
        if all(type(v) is type(first) and v == first for v in values):
            if first is None:
                self.said.add(key)
            elif isinstance(first, (int, float, bool, str)):
                self.out.defaults[key] = first
            elif isinstance(first, (list, tuple)) and all(isinstance(v, (int, float, str)) for v in first):
                self.out.defaults[key] = list(first)
            return
        if all(type(v) is int for v in values):
            flat = [dict(keys_of(p.config)) for p in points]
            moving = {
                k
                for f, v in zip(flat, values, strict=True)
                if v != first
                for k, w in f.items()
                if flat[0].get(k) != w and k != key and not _idle(k)
            }
            beside = {k for k in moving if k.rpartition(".")[0] == key.rpartition(".")[0]}
            for some in (beside, moving):
                some = {k for k in some if len({f.get(k) for f in flat if not isinstance(f.get(k), (list, dict))}) > 1}
                if 0 < len(some) <= 24:
                    fitted = Fitter(points, some).length(tuple(values))
                    if fitted is not None and values_of(fitted, points) == tuple(values):
                        self.out.derived.setdefault(key, fitted)
                        return


def aliases(config_class: type[PreTrainedConfig], given: Data, keys: Iterable[str]) -> dict[str, list[str]]:
    """By which other names a class knows its keys."""
    out: dict[str, list[str]] = {}
    for key in sorted(keys):
        *level, last = key.split(".")
        kind: Any = config_class
        for name in level:
            nested = get(given, tuple(level))
            kind = getattr(kind, "sub_configs", {}).get(name)
            kind = CONFIG_MAPPING.get(nested.get("model_type", ""), kind) if isinstance(nested, dict) else kind
        names = [alias for alias, real in getattr(kind, "attribute_map", {}).items() if real == last]
        if names:
            out[key] = [".".join((*level, name)) for name in names]
    return out


def _item(at: Point, items: str, i: int | None) -> Any:
    try:
        return repr(at.lookup(items)[i])
    except (KeyError, TypeError, IndexError):
        return None


def values_of_rules(rules: Sequence[str], at: Point) -> tuple[Any, ...]:
    return tuple(values_of(text, [at])[0] for text in rules)


def _varies(text: str) -> bool:
    return bool(position_rules([text]))


def _solved(length: str, key: str, at: Point, wanted: int) -> int | None:
    """The value of a key for which a rule gives this length."""
    parsed = rule(length)

    def with_(value: int) -> Any:
        return parsed.value(lambda k: value if k == key else at.lookup(k), i=at.i, n=at.n)

    try:
        none, one = with_(0), with_(1)
    except Undecided:
        return None
    step = one - none
    if not step or (wanted - none) % step:
        return None
    return int((wanted - none) // step)


def _without(given: Data, path: Path) -> Data | None:
    if not path:
        return None
    if path[0] not in given:
        return given if len(path) == 1 else None
    if len(path) == 1:
        return {k: v for k, v in given.items() if k != path[0]}
    inner = given[path[0]]
    if not isinstance(inner, dict):
        return None
    below = _without(inner, path[1:])
    return None if below is None else {**given, path[0]: below}


def _idle(key: str) -> bool:
    last = key.rpartition(".")[2]
    return last in {
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "_name_or_path",
        "id2label",
        "label2id",
    }
