"""A parameter's rule as an expression of the language: numbers, curves and place maps.

mergekit asks a rule for one tensor after the other: the first branch whose filter is part of the
tensor's name gives the value, and a list of values runs over the layers of the slice from 0 to 1 (1
where there is one layer). Whatever is outside the layers, the head too, gets the first value of a
list.

A place map prefers the key that covers fewest tensors, whatever the order. So branches become one
flat map only where their keys are known to share no tensor; else each stands in a map of its own,
inside the `_` of the one before.
"""

from __future__ import annotations

import math
import re

from ...compiler.family.place import GlobStep, NameStep, Path
from ...compiler.family.space import Space
from ...grammar.diagnostic import MergecError, error
from ...grammar.literals import write_string
from ...grammar.records import dataclass
from ...grammar.source import Source, Span
from .configuration import Branch, Rule, Value
from .methods import MethodParameter

GRADIENT = """\
# a list of values over the layers first..last of the output, as mergekit lays it over a slice
def gradient(points, first, last) {
  let at = (layer - first) / (last - first) * (len(points) - 1)
  sum([max(0, 1 - abs(at - k)) * p for k, p in zip(range(len(points)), points)])
}"""
"""What an expression that names `gradient` needs in its recipe."""

_NOWHERE = Span(Source("", ""), 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The part of the output that a rule is written for.

    `stacks`: the layers that lists of values run over, as keys of a place map; with `part`, they
    run over these layers of the output instead. With neither there are no layers, and lists give
    their first value.

    `space` holds the output's tensors, `names` those of this part; None where the inputs are not
    available.
    """

    stacks: tuple[str, ...] = ()
    part: tuple[int, int] | None = None
    space: Space | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """A branch, its value written out, and the keys of a place map that stand for its filter."""

    branch: Branch
    text: str
    keys: tuple[str, ...]
    covers: frozenset[str]


def write_rule(rule: Rule, parameter: MethodParameter, frame: Frame, shift: int = 0) -> str:
    """The expression of a rule. `shift` is what the layers of its input are ahead of the output's.

    Raises MergecError: E0704 for a value of the wrong kind, E0705 where a tensor gets no value,
    E0709 for what has no counterpart.
    """
    branches = [b for b in rule.branches if b.filter is None or not unmatchable(b.filter)]
    if not rule.complete and parameter.default is None:
        branches.append(Branch(None, (1.0,), False, rule.span or _NOWHERE))  # a scale of 1 changes nothing
    elif not rule.complete and isinstance(parameter.default, bool | int | float):
        branches.append(Branch(None, (parameter.default,), False, rule.span or _NOWHERE))
    cases = _cases(branches, rule.span, parameter, frame, shift)
    if not cases:
        raise _missing(parameter, rule.span, "any tensor")
    if len({c.text for c in cases}) == 1 and cases[-1].branch.filter is None:
        return cases[-1].text
    return _as_map(cases, frame)


def unmatchable(filter_: str) -> bool:
    """Whether a filter fits no name: mergekit looks for the text itself, in which a `*` is no
    wildcard."""
    return "*" in filter_ or "?" in filter_


def _cases(
    branches: list[Branch], span: Span | None, parameter: MethodParameter, frame: Frame, shift: int
) -> list[_Case]:
    """The branches that give some tensor its value, in order."""
    cases: list[_Case] = []
    left = dict.fromkeys(frame.names or ())
    for branch in branches:
        covers = frozenset(n for n in left if branch.filter is None or branch.filter in _shifted(n, frame, shift))
        if frame.names is not None and not covers:
            continue
        outside = frame.names is None or frame.space is None or any(frame.space.layer_of(n) is None for n in covers)
        text = _branch(branch, parameter, frame, outside)
        cases.append(_Case(branch, text, _keys(branch, frame, shift), covers))
        for name in covers:
            del left[name]
    if left:
        raise _missing(parameter, span, next(iter(left)))
    return cases


def _shifted(name: str, frame: Frame, shift: int) -> str:
    """The name that an output tensor has in an input whose layers are `shift` ahead."""
    at = frame.space.layer_of(name) if frame.space and shift else None
    return f"{at[0].head}{at[1] + shift}.{at[2]}" if at else name


def _missing(parameter: MethodParameter, span: Span | None, tensor: str) -> MergecError:
    help_ = "end the list with a value that has no `filter`"
    return error("E0705", f"`{parameter.name}` has no value for `{tensor}`", span, "not for all tensors", help=help_)


# --- filters --------------------------------------------------------------------------------------


def _as_map(cases: list[_Case], frame: Frame) -> str:
    """Branches as a place map: flat where no two keys share a tensor, else one inside the other."""
    last = cases[-1]
    # where the tensors are known, what reaches the last branch is all that is left
    open_end = last.branch.filter is None or (frame.names is not None and len(cases) > 1)
    filtered = cases[:-1] if open_end else cases
    default = f"_: {last.text}" if open_end else ""
    if frame.space is not None and _apart(filtered, frame.space):
        entries = [f"{key}: {c.text}" for c in filtered for key in c.keys]
        return "{" + ", ".join([*entries, *([default] if default else [])]) + "}"
    text = default
    for case in reversed(filtered):
        inner = text if not text or text is default else "_: {" + text + "}"
        text = ", ".join([*(f"{key}: {case.text}" for key in case.keys), *([inner] if inner else [])])
    return "{" + text + "}"


def _apart(cases: list[_Case], space: Space) -> bool:
    seen: set[str] = set()
    for case in cases:
        covered = {name for key in case.keys for name in space.part(path_of(key))}
        if covered & seen:
            return False
        seen |= covered
    return True


def _keys(branch: Branch, frame: Frame, shift: int) -> tuple[str, ...]:
    """The keys of a place map that cover what a filter does: a role, a glob, or single names."""
    if branch.filter is None:
        return ("_",)
    glob = write_string(f"*{branch.filter}*")
    space, numbered = frame.space, re.search(r"(?<![A-Za-z_])\d", branch.filter) is not None
    if space is None:
        if numbered and shift:
            message = (
                "this filter names a layer of an input, and the inputs are not at hand to say which tensors it means"
            )
            raise error("E0709", message, branch.span, "a layer's number")
        return (glob,)
    wanted = {n for n in space.names if branch.filter in _shifted(n, frame, shift)}
    if wanted != set(space.part(path_of(glob))):
        return tuple(write_string(n) for n in (frame.names or ()) if n in wanted)
    roles = {r for stack in space.family.stacks for r in space.family.roles_of(stack.name)}
    for role in (*sorted(roles, key=len), *space.family.places):
        try:
            if set(space.part(path_of(role))) == wanted:
                return (role,)
        except MergecError:
            continue  # a role that this model has no tensors for
    return (glob,)


def path_of(key: str) -> Path:
    """The path of a place that is a role, or a glob in quotes."""
    if key.startswith('"'):
        return Path((GlobStep(key[1:-1], _NOWHERE),), _NOWHERE)
    return Path(tuple(NameStep(word, _NOWHERE) for word in key.split(".")), _NOWHERE)


# --- values ---------------------------------------------------------------------------------------


def _branch(branch: Branch, parameter: MethodParameter, frame: Frame, outside: bool) -> str:
    values = [coerce(v, parameter, branch.span) for v in branch.values]
    texts = [write_value(v) for v in values]
    alone = frame.part is not None and frame.part[0] == frame.part[1]
    if len(set(texts)) == 1 or not (frame.stacks or frame.part):
        return texts[0]
    if alone:
        return texts[-1]
    if parameter.kind is int:
        message = f"`{parameter.name}` is a whole number, and a list that runs over the layers can't be carried over"
        raise error("E0709", message, branch.span, "a list of values")
    if parameter.kind is bool:
        value = _steps(texts, frame.part)
    elif frame.part:
        value = f"gradient([{', '.join(texts)}], {frame.part[0]}, {frame.part[1]})"
    else:
        value = f"curve([{', '.join(texts)}])"
    if frame.part or not outside or (texts[0] == texts[-1] and parameter.kind is not bool):
        return value
    return "{" + ", ".join([*(f"{s}: {value}" for s in frame.stacks), f"_: {texts[0]}"]) + "}"


def _steps(texts: list[str], part: tuple[int, int] | None) -> str:
    """A list that is not interpolated: entry int(t·(m - 1)), so that the last one holds at the end
    alone."""
    position = f"(layer - {part[0]}) / {part[1] - part[0]}" if part else "depth"
    count = len(texts) - 1
    scaled = position if count == 1 else f"{position} * {count}"
    out = texts[-1]
    for k in range(count - 1, -1, -1):
        if texts[k] != out:
            out = f"{texts[k]} if {scaled} < {k + 1} else " + (f"({out})" if " " in out else out)
    return out


def coerce(value: Value, parameter: MethodParameter, span: Span) -> bool | int | float:
    """A value as the parameter's kind, by mergekit's rules: `"1e-5"` and true are numbers, "off" is
    false.

    Raises MergecError (E0704).
    """
    kind = parameter.kind
    found: bool | int | float | None = None
    if kind is bool:
        words = {"true": True, "t": True, "yes": True, "y": True, "on": True, "1": True}
        words |= {"false": False, "f": False, "no": False, "n": False, "off": False, "0": False}
        found = words.get(value.lower()) if isinstance(value, str) else (bool(value) if value in (0, 1) else None)
    else:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and (kind is float or number.is_integer()):
            whole = isinstance(value, int) and not isinstance(value, bool)
            found = int(number) if kind is int or whole else number
    if found is None:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise error("E0704", f"`{parameter.name}` must be {wanted}", span, "is not")
    return found


def write_value(value: bool | int | float) -> str:
    """A number or a boolean as the language writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
