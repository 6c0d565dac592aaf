"""Rules that say what was seen: a length, a count, or whether something is there, by the config and
the number of the layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from mergec.compiler.family.config_rules import Undecided, rule
from mergec.grammar.records import dataclass

Values = tuple[Any, ...]
_LARGEST = 24


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where something was seen: a config, and a layer of a stack of `n`."""

    config: Mapping[str, Any]
    i: int | None = None
    n: int | None = None

    def lookup(self, key: str) -> Any:
        at: Any = self.config
        for part in key.split("."):
            if not isinstance(at, Mapping) or part not in at:
                raise KeyError(key)
            at = at[part]
        return at


def values_of(text: str, points: Sequence[Point]) -> Values:
    """What a rule comes to at each point; None where it does not apply."""
    parsed = rule(text)
    out = []
    for point in points:
        try:
            out.append(parsed.value(point.lookup, i=point.i, n=point.n))
        except Undecided:
            out.append(None)
    return tuple(out)


def keys_of(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if not isinstance(key, str) or not key.isidentifier():
            continue
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Fitter:
    """Rules over the keys that matter at some points. All that it returns holds at all of them."""

    def __init__(self, points: Sequence[Point], keys: Iterable[str]) -> None:
        self.points = points
        self.layered = any(p.i is not None for p in points)
        self.keys = sorted(keys, key=lambda k: (k.count("."), len(k), k))
        self.seen = {key: self._column(key) for key in self.keys}

    def _column(self, key: str) -> Values:
        out = []
        for point in self.points:
            try:
                out.append(point.lookup(key))
            except KeyError:
                out.append(None)
        return tuple(out)

    def _kept(self, texts: Iterable[str]) -> dict[Values, str]:
        """Rules by what they come to: of those that never differ the first."""
        out: dict[Values, str] = {}
        for text in texts:
            column = values_of(text, self.points)
            try:
                out.setdefault(column, text)
            except TypeError:
                continue
        return out

    # --- lengths

    def length(self, wanted: Values, *, split: bool = True) -> str | None:
        """A rule for a number at each point; None where none was found."""
        if len(set(wanted)) == 1 and not self.keys:
            return str(wanted[0])
        atoms = {
            text: column
            for column, text in self._kept(self._numbers()).items()
            if all(_number(v) for v in column) and len(set(column)) > 1
        }
        if len(set(wanted)) == 1:
            return str(wanted[0])
        return _sum_of_products(atoms, wanted, split) or (self._either(wanted) if split else None)

    def _either(self, wanted: Values) -> str | None:
        """One rule where a test holds, and another elsewhere."""
        tests = {c: t for c, t in self._kept(self._tests()).items() if all(isinstance(v, bool) for v in c)}
        for column, test in sorted(tests.items(), key=lambda each: len(each[1]))[:60]:
            parts = []
            for side in (True, False):
                at = [k for k, v in enumerate(column) if v is side]
                some = Fitter([self.points[k] for k in at], self.keys)
                parts.append(some.length(tuple(wanted[k] for k in at), split=False) if len(at) > 1 else None)
                if parts[-1] is None:
                    break
            if None not in parts:
                return f"{parts[0]} if {test} else {parts[1]}"
        return None

    def _numbers(self) -> Iterator[str]:
        for key in self.keys:
            column = [v for v in self.seen[key] if v is not None]
            if all(_number(v) for v in column):
                yield key
        for key in self.keys:
            column = [v for v in self.seen[key] if v is not None]
            if column and all(isinstance(v, (list, tuple)) for v in column):
                yield f"len({key})"
                if any(_number(v) for c in column for v in c):
                    yield f"{key}[0]"
                    yield f"{key}[-1]"
                    if self.layered:
                        yield from (f"{key}[i]", f"{key}[i - 1]")
                    shortest = min((len(c) for c in column), default=0)
                    yield from (f"{key}[{at}]" for at in range(1, min(shortest, 8)))
        if self.layered:
            yield from ("i", "n")
        numbers = [k for k in self.keys if all(_number(v) for v in self.seen[k])]
        for above, below in itertools.permutations(numbers[:14], 2):
            if all(isinstance(v, int) and v > 0 for v in self.seen[below]):
                yield f"{above} // {below}"

    # --- conditions

    def condition(self, wanted: tuple[bool, ...]) -> str | None:
        """A rule that holds at just those points; None where none was found."""
        if all(wanted):
            return "True"
        if not any(wanted):
            return "False"
        atoms = {c: t for c, t in self._kept(self._tests()).items() if all(isinstance(v, bool) for v in c)}
        return _conjunction(atoms, wanted) or _disjunction(atoms, wanted) or _both(atoms, wanted)

    def _tests(self) -> Iterator[str]:
        numbers = []
        for key in self.keys:
            column = self.seen[key]
            kinds = {type(v) for v in column}
            words = sorted({v for v in column if isinstance(v, str)})
            if kinds <= {bool, type(None)} and bool in kinds:
                yield from (f"not not {key}" if type(None) in kinds else f"{key} is True", f"not {key}")
            if type(None) in kinds and len(kinds) > 1:
                yield from (f"{key} is not None", f"{key} is None")
            if kinds & {int, float} and not kinds - {int, float, type(None), bool}:
                if kinds <= {int, float}:
                    numbers.append(key)
                    yield from (f"{key} > 0", f"{key} == 0", f"{key} > 1", f"{key} <= 1")
                yield from (f"{key} == {v!r}" for v in sorted({v for v in column if type(v) is int})[:8])
                yield f"not {key}"
                yield f"not not {key}"
            for word in words:
                yield from (f"{key} == {word!r}", f"{key} != {word!r}")
            if list in kinds or tuple in kinds:
                yield f"len({key}) > 0"
                if self.layered:
                    yield from self._items(key)
        if self.layered:
            yield from _positions(numbers)
        for one, other in itertools.combinations(numbers[:12], 2):
            yield from (f"{one} == {other}", f"{one} != {other}")

    def _items(self, key: str) -> Iterator[str]:
        items = [v for c in self.seen[key] if isinstance(c, (list, tuple)) for v in c]
        if all(type(v) is int for v in items):
            yield from (f"i in {key}", f"i not in {key}")
            yield from (f"{key}[i] > 0", f"{key}[i] == 0")
        found: list[Any] = []
        for item in items:
            if item not in found and not isinstance(item, (list, dict)):
                found.append(item)
        for item in found[:8]:
            yield from (f"{key}[i] == {item!r}", f"{key}[i] != {item!r}")


def _positions(numbers: Sequence[str]) -> Iterator[str]:
    yield from ("i == 0", "i > 0", "i == n - 1", "i < n - 1", "i % 2 == 0", "i % 2 == 1")
    for key in numbers:
        yield from (f"i < {key}", f"i >= {key}", f"i < n - {key}", f"i >= n - {key}")
        yield from (f"(i + 1) % {key} == 0", f"(i + 1) % {key} != 0", f"i % {key} == 0", f"i % {key} != 0")
    for one, other in itertools.permutations(numbers[:8], 2):
        yield from (f"i % {one} == {other}", f"i % {one} != {other}")
        yield from (f"(i - {other}) % {one} == 0", f"(i - {other}) % {one} != 0")


def _conjunction(atoms: Mapping[Values, str], wanted: tuple[bool, ...], most: int = 4) -> str | None:
    """Tests that all hold at the points that are wanted, and not all at any other."""
    able = [(c, t) for c, t in atoms.items() if all(v for v, w in zip(c, wanted, strict=True) if w)]
    open_ = {k for k, w in enumerate(wanted) if not w}
    chosen: list[str] = []
    while open_:
        best = max(able, key=lambda a: (sum(not a[0][k] for k in open_), -len(a[1])), default=None)
        gone = {k for k in open_ if best is not None and not best[0][k]}
        if best is None or not gone or len(chosen) == most:
            return None
        chosen.append(best[1])
        open_ -= gone
    return " and ".join(chosen)


def _disjunction(atoms: Mapping[Values, str], wanted: tuple[bool, ...]) -> str | None:
    """Tests of which none holds at a point that is not wanted, and at each other some do."""
    able = [(c, t) for c, t in atoms.items() if not any(v for v, w in zip(c, wanted, strict=True) if not w)]
    open_ = {k for k, w in enumerate(wanted) if w}
    chosen: list[str] = []
    while open_:
        best = max(able, key=lambda a: (sum(bool(a[0][k]) for k in open_), -len(a[1])), default=None)
        gone = {k for k in open_ if best is not None and best[0][k]}
        if best is None or not gone or len(chosen) == 4:
            return None
        chosen.append(best[1])
        open_ -= gone
    return " or ".join(chosen)


def _both(atoms: Mapping[Values, str], wanted: tuple[bool, ...]) -> str | None:
    """A conjunction in which tests may be pairs of alternatives; else the reverse."""
    if len(atoms) > 160:
        return None
    pairs = dict(atoms)
    for (c, t), (d, u) in itertools.combinations(atoms.items(), 2):
        either = tuple(x or y for x, y in zip(c, d, strict=True))
        if all(v for v, w in zip(either, wanted, strict=True) if w):
            pairs.setdefault(either, f"({t} or {u})")
    found = _conjunction(pairs, wanted, 3)
    if found is not None:
        return found
    pairs = dict(atoms)
    for (c, t), (d, u) in itertools.combinations(atoms.items(), 2):
        both = tuple(x and y for x, y in zip(c, d, strict=True))
        if not any(v for v, w in zip(both, wanted, strict=True) if not w):
            pairs.setdefault(both, f"({t} and {u})")
    return _disjunction(pairs, wanted)


# --- sums of products ----------------------------------------------------------------------------


def _sum_of_products(atoms: Mapping[str, Values], wanted: Values, thorough: bool) -> str | None:
    names = sorted(atoms, key=lambda a: (" // " in a, a.count("."), len(a)))[:40]
    for factor in ("", *names[:16]):
        column = atoms.get(factor)
        rest: Values = wanted
        if column is not None:
            if any(not v for v in column) or any(w % v for w, v in zip(wanted, column, strict=True)):
                continue
            rest = tuple(_div(w, v) for w, v in zip(wanted, column, strict=True))
        for size in (1, 2) if factor and thorough else (1,):
            found = _terms(atoms, names, rest, size)
            if found is not None:
                return _render(factor, found)
    for size in (2, 3) if thorough else ():
        found = _terms(atoms, names, wanted, size)
        if found is not None:
            return _render("", found)
    return None


def _div(a: Any, b: Any) -> Any:
    found = Fraction(a) / Fraction(b)
    return int(found) if found.denominator == 1 else found


def _terms(
    atoms: Mapping[str, Values], names: Sequence[str], wanted: Values, size: int
) -> list[tuple[Fraction, tuple[str, ...]]] | None:
    """Coefficients of `size` products whose sum it is."""
    if len(set(wanted)) == 1:
        return [(Fraction(wanted[0]), ())] if size == 1 else None
    products: list[tuple[tuple[str, ...], Values]] = []
    few = names if size == 1 else names[:12]
    if size == 3:
        few = [name for name in names if " // " not in name and name not in ("i", "n")][:9]
    for width in (1, 2, 3) if size == 1 and len(few) <= 16 else (1, 2):
        for some in itertools.combinations_with_replacement(few, width):
            if len({s for s in some if " // " in s}) > 1:
                continue
            column: Values = atoms[some[0]]
            for name in some[1:]:
                column = tuple(x * y for x, y in zip(column, atoms[name], strict=True))
            products.append((some, column))
    if size == 1:
        for some, column in products:
            ratio = _ratio(column, wanted)
            if ratio is not None and _fine(ratio):
                return [(ratio, some)]
        return None
    products = products[:80] if size == 2 else products[:54]
    products.append(((), tuple(1 for _ in wanted)))
    some_points = range(0, len(wanted), max(1, len(wanted) // 50))
    table = np.array([[float(column[k]) for k in some_points] for _, column in products])
    goal = np.array([float(wanted[k]) for k in some_points])
    for chosen in _solvable(table, goal, size):
        solved = _exact([products[k][1] for k in chosen], wanted)
        if solved is not None and all(_fine(c) for c in solved):
            return [(c, products[k][0]) for c, k in zip(solved, chosen, strict=True)]
    return None


def _solvable(table: Any, goal: Any, size: int) -> Iterator[tuple[int, ...]]:
    """Sets of rows of which the goal is a sum, by floating point."""
    chosen = np.array(list(itertools.combinations(range(len(table)), size)))
    if not len(chosen):
        return
    rows = table[chosen]  # sets × size × points
    gram = rows @ rows.transpose(0, 2, 1)
    side = rows @ goal
    scale = np.sqrt(np.einsum("kii->ki", gram)) + 1e-30
    gram = gram / (scale[:, :, None] * scale[:, None, :])
    fit = np.abs(np.linalg.det(gram)) > 1e-9
    chosen, rows, gram, side, scale = chosen[fit], rows[fit], gram[fit], side[fit], scale[fit]
    if not len(chosen):
        return
    found = np.linalg.solve(gram, (side / scale)[:, :, None])[:, :, 0] / scale
    off = np.abs(np.einsum("ks,ksp->kp", found, rows) - goal).max(axis=1)
    for k in np.flatnonzero(off < 1e-6 * (1 + np.abs(goal).max())):
        yield tuple(int(c) for c in chosen[k])


def _fine(ratio: Fraction) -> bool:
    return ratio != 0 and ratio.denominator <= 8 and abs(ratio.numerator) <= _LARGEST


def _ratio(column: Values, wanted: Values) -> Fraction | None:
    if not column[0]:
        return None
    ratio = Fraction(wanted[0]) / Fraction(column[0])
    return ratio if all(Fraction(c) * ratio == w for c, w in zip(column, wanted, strict=True)) else None


def _exact(columns: Sequence[Values], wanted: Values) -> list[Fraction] | None:
    """The coefficients, exactly, that give what is wanted at all points."""
    size = len(columns)
    rows = [[Fraction(c[k]) for c in columns] + [Fraction(w)] for k, w in enumerate(wanted)]
    reduced: list[list[Fraction]] = []
    for row in rows:
        for done in reduced:
            lead = next(k for k, v in enumerate(done) if v)
            row = [a - row[lead] * b for a, b in zip(row, done, strict=True)] if row[lead] else row
        lead_ = next((k for k, v in enumerate(row) if v), None)
        if lead_ is None:
            continue
        if lead_ == size:
            return None
        row = [v / row[lead_] for v in row]
        reduced = [[a - done[lead_] * b for a, b in zip(done, row, strict=True)] for done in reduced]
        reduced.append(row)
    if len(reduced) < size:
        return None
    found = {next(k for k, v in enumerate(row) if v): row[size] for row in reduced}
    return [found[k] for k in range(size)]


def _render(factor: str, terms: Sequence[tuple[Fraction, tuple[str, ...]]]) -> str:
    """`(a + 2 * b) * factor`."""
    parts: list[str] = []
    for ratio, names in sorted(terms, key=lambda t: not t[1]):
        shown = [f"({n})" if " // " in n and (len(names) > 1 or factor) else n for n in names]
        amount = abs(ratio)
        text = " * ".join([*([str(amount.numerator)] if amount.numerator != 1 or not shown else []), *shown])
        if amount.denominator != 1:
            text = f"{text} // {amount.denominator}"
        parts.append(("- " if ratio < 0 else "+ ") + text)
    parts.sort(key=lambda p: p.startswith("-"))
    whole = " ".join(parts).removeprefix("+ ")
    if whole.startswith("- "):
        whole = f"-{whole[2:]}"
    if not factor:
        return whole
    if whole == "1":
        return factor
    by = f"({factor})" if " // " in factor else factor
    if len(parts) > 1:
        return f"({whole}) * {by}"
    if " // " in whole:
        return f"{shown} * {whole}" if "(" not in whole and whole.split(" // ")[-1].isdigit() else f"({whole}) * {by}"
    return f"{whole} * {by}"
