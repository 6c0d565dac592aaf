"""What a config settles for each layer of a stack by itself: lists with an item a layer with the
rules that a silent config means, and rules that no list says."""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mergec.compiler.family.config_rules import rule
from transformers import PreTrainedConfig

from .probes import IDLE, Data, Path, Prober, get
from .rules import Fitter, Point, keys_of, values_of

Fact = tuple[str | None, str | None]
"""The key of a list with an item a layer, and the rule where the config has no such list."""

_DEPTHS = (3, 4, 5, 6, 7, 9, 12, 13)
_INTS = (0, 1, 2, 3, 4, 5, 7)
_NUMBERS: tuple[list[int], ...] = ([], [0], [1], [0, 2], [1, 2, 5])
_LAYERS = re.compile(r"(idxs|indices|indexes|layers|layer_ids)$")
_READ = re.compile(r"""(?:kwargs\.(?:pop|get)|getattr|hasattr)\(\s*(?:self\s*,\s*)?["'](\w+)["']""")
_POSITION = re.compile(r"(?<![\w.])i(?![\w.])")


class Lists:
    """The lists of one config, nested at `level`, that go with the depth `key`."""

    def __init__(self, prober: Prober, level: Path, key: str) -> None:
        self.prober, self.level, self.key = prober, level, key
        self.base = prober.base
        own = get(self.base, level)
        full = get(prober.probes[0].config, level)
        self.keys = [
            k
            for k, v in full.items()
            if k not in IDLE
            and isinstance(v, (int, bool))
            and k.isidentifier()
            and not k.startswith("_")
            and not re.search(r"_id$|_token", k)
        ]
        self.numbers = [k for k, v in full.items() if _LAYERS.search(k) and (v is None or isinstance(v, list))]
        self.old = [k for k in _old_keys(prober, level) if k not in full]
        self.own = own
        self.defaults: dict[str, Any] = {}

    def facts(self) -> Iterator[Fact]:
        bare = {k: v for k, v in self.own.items() if not isinstance(v, list)}
        grown = {d: self._complete({**bare, self.key: d}) for d in _DEPTHS}
        found = {}
        for name in {n for c in grown.values() if c for n, v in c.items() if isinstance(v, list)}:
            lengths = {d: len(c[name]) for d, c in grown.items() if c and isinstance(c.get(name), list)}
            numbers = any(c[name] == list(range(d)) for d, c in grown.items() if c)
            if len(lengths) > 2 and all(d == n for d, n in lengths.items()) and not numbers:
                found[name] = self._rule(name, bare)
        for name in sorted(found):
            yield self._dotted(name), found[name]
        self.known = set(found)

    def _dotted(self, key: str) -> str:
        return ".".join((*self.level, key))

    def _complete(self, own: Data) -> Data | None:
        given = copy.deepcopy(self.base)
        if self.level:
            above = get(given, self.level[:-1])
            above[self.level[-1]] = own
        else:
            given = own
        made = self.prober.complete(given)
        return None if made is None else get(made, self.level)

    def _rule(self, name: str, bare: Data) -> str | None:
        """What each item is, by the numbers beside it and those that the class also reads."""
        rows: list[tuple[Data, list[Any]]] = []
        single: dict[str, list[tuple[Data, list[Any]]]] = {}

        def look(changes: Mapping[str, Any]) -> tuple[Data, list[Any]] | None:
            made = self._complete({**bare, **changes})
            items = made.get(name) if made else None
            if made is None or not isinstance(items, list) or len(items) != made.get(self.key, changes.get(self.key)):
                return None
            return {**made, **changes}, items

        start = look({self.key: 12}) or look({})
        if start is None:
            return None
        depth = len(start[1])
        flips: list[Data] = [{}]
        for flip in flips:
            now = look({self.key: depth, **flip})
            if now is None:
                continue
            for key in (*self.keys, *self.numbers, *self.old):
                said = now[0].get(key)
                if key == self.key or key in flip:
                    continue
                for value in (not said,) if isinstance(said, bool) else _NUMBERS if key in self.numbers else _INTS:
                    made = look({self.key: depth, **flip, key: value}) if value != said else None
                    if made is not None and made[1] != now[1]:
                        single.setdefault(key, []).append(made)
                        if isinstance(said, bool) and not flip:
                            flips.append({key: value})
        for key in [k for k in single if k in self.old]:
            usual = next(
                (
                    c[key]
                    for v in (*_INTS, 6, 8, 12)
                    for d in (12,)
                    if (m := look({self.key: d, key: v})) is not None and m[1] == start[1]
                    for c in (m[0],)
                ),
                None,
            )
            if usual is None:
                single.pop(key)
            else:
                self.defaults[self._dotted(key)] = usual
        some = list(single)[:5]
        values = {
            k: _different([*(m[0][k] for m in single[k] if k in m[0]), *([start[0][k]] if k in start[0] else [])])[:5]
            for k in some
        }
        for d in _DEPTHS:
            for chosen in itertools.islice(itertools.product(*values.values()), 60):
                made = look({self.key: d, **dict(zip(some, chosen, strict=True))})
                if made is not None:
                    rows.append(made)
            made = look(
                {self.key: d, **{k: self.defaults[self._dotted(k)] for k in some if self._dotted(k) in self.defaults}}
            )
            if made is not None:
                rows.append(made)
        points, wanted = [], []
        for config, items in rows[:160]:
            for i, item in enumerate(items):
                points.append(Point(config, i, len(items)))
                wanted.append(item)
        found = fitted(points, some, wanted)
        return None if found is None else _under(found, self.level)

    def membership(self, name: str) -> str | None:
        """By which rule a list of layer numbers is made where the config has none."""
        bare = {k: v for k, v in self.own.items() if k != name and not isinstance(v, list)}
        points, wanted = [], []
        moving: set[str] = set()
        start = self._complete({**bare, self.key: 12})
        if (
            start is None
            or not isinstance(start.get(name), list)
            or start[name] == (self.prober.usual or {}).get(name) == []
        ):
            return None
        for d in _DEPTHS:
            for key in (None, *self.keys):
                for value in (None,) if key is None else _INTS[1:]:
                    made = self._complete(
                        {**bare, self.key: d, **({key: value} if key is not None and key != self.key else {})}
                    )
                    if made is None or not isinstance(made.get(name), list):
                        continue
                    reference = self._complete({**bare, self.key: d})
                    if key is not None and (reference is None or reference.get(name) == made[name]):
                        continue
                    moving |= {key} if key is not None else set()
                    for i in range(d):
                        points.append(Point(made, i, d))
                        wanted.append(i in made[name])
        found = Fitter(points[:500], moving).condition(tuple(wanted[:500])) if points else None
        return None if found is None or values_of(found, points) != tuple(wanted) else _under(found, self.level)


def _different(values: Sequence[Any]) -> list[Any]:
    return list({repr(v): v for v in values}.values())


def fitted(points: Sequence[Point], keys: Iterable[str], wanted: Sequence[Any]) -> str | None:
    """A rule for what each layer is."""
    if any(isinstance(w, (list, dict)) for w in wanted):
        return None
    kinds: list[Any] = []
    for w in wanted:
        if w not in kinds or type(w) not in {type(k) for k in kinds if k == w}:
            kinds.append(w)
    if len(kinds) == 1:
        return repr(kinds[0])
    if len(kinds) > 6:
        return None
    kinds.sort(key=lambda k: sum(w == k for w in wanted))
    out = repr(kinds[-1])
    fitter = Fitter(points, keys)
    for kind in reversed(kinds[:-1]):
        test = fitter.condition(tuple(w == kind for w in wanted))
        if test is None:
            return None
        out = f"{kind!r} if {test} else {out}"
    if set(kinds) == {True, False}:
        holds = fitter.condition(tuple(bool(w) for w in wanted))
        if holds is not None:
            # a list of numbers takes no truth values
            out = holds if all(isinstance(kind, bool) for kind in kinds) else f"1 if {holds} else 0"
    return out if values_of(out, points) == tuple(wanted) else None


def _under(text: str, level: Path) -> str:
    """A rule over the keys of a nested config as one over the whole."""
    if not level:
        return text
    head = ".".join(level)
    for key in sorted(rule(text).keys, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.']){re.escape(key)}(?![\w'])", f"{head}.{key}", text)
    return text


def _old_keys(prober: Prober, level: Path) -> list[str]:
    """Keys that the class reads though it has no such field: what older configs say."""
    kind: Any = prober.config_class
    for key in level:
        kind = getattr(kind, "sub_configs", {}).get(key)
        nested = get(prober.base, level).get("model_type") if isinstance(get(prober.base, level), dict) else None
        if nested:
            from transformers.models.auto.configuration_auto import CONFIG_MAPPING

            kind = CONFIG_MAPPING[nested]
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedConfig):
        return []
    try:
        return list(dict.fromkeys(_READ.findall(inspect.getsource(kind))))
    except (OSError, TypeError):
        return []


def position_rules(conditions: Iterable[str]) -> list[str]:
    """Of the conditions of tensors what depends on the number of the layer, other than by an item
    of a list."""
    found: dict[str, None] = {}
    for text in conditions:
        tree = ast.parse(text, mode="eval").body
        parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
        own = [ast.unparse(_positional(p)) for p in parts if _by_position(p)]
        if own:
            found[" and ".join(own)] = None
    return list(found)


def _by_position(tree: ast.expr) -> bool:
    return _POSITION.search(re.sub(r"\[i\]", "", ast.unparse(tree))) is not None


def _positional(tree: ast.expr) -> ast.expr:
    """Of alternatives those that depend on the position."""
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.Or):
        own = [part for part in tree.values if _by_position(part)]
        return own[0] if len(own) == 1 else ast.BoolOp(ast.Or(), own)
    return tree


def by_itself(points: Sequence[Point], rules: Sequence[str]) -> list[str]:
    """Rules of which none says the same as another, or the contrary."""
    seen: set[tuple[Any, ...]] = set()
    out = []
    for text in sorted(rules, key=lambda r: (" or " in r, len(r))):
        column = values_of(text, points)
        contrary = tuple(not v for v in column)
        if column in seen or contrary in seen or len(set(column)) == 1:
            continue
        seen.add(column)
        out.append(text)
    return out


Keys = Mapping[str, Any]
__all__ = ["Fact", "Lists", "by_itself", "fitted", "keys_of", "position_rules"]
