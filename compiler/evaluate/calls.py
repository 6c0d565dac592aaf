"""Calls: matching arguments to parameters, and checking what parameters declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import error
from ...grammar.records import dataclass
from ...grammar.source import Span
from ...grammar.suggest import near
from ..terms.kinds import KINDS, article, kind_of
from ..terms.map_keys import given_twice
from ..terms.terms import PlaceMap, Vary, Where, is_region


@dataclass(frozen=True, slots=True)
class Missing:
    """The default of a parameter that must be given."""


REQUIRED = Missing()

_BOUNDED = ("number", "integer")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`kind` is one of `KINDS`, or None for anything."""

    name: str
    default: Any = REQUIRED
    variadic: bool = False
    kind: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """An argument with its value: `span` is the value's, `key` the name's where there is one.

    Of a variadic parameter `parts` are the spans of its values.
    """

    name: str | None
    value: Any
    span: Span
    key: Span | None = None
    parts: tuple[Span, ...] = ()

    @property
    def where(self) -> Span:
        """The name, or the value of an argument without one."""
        return self.key or self.span


def match(function: str, parameters: Sequence[Parameter], given: Sequence[Given], span: Span) -> dict[str, Given]:
    """Parameter name to argument, those left to their defaults missing; a variadic parameter gets a
    tuple.

    Raises MergecError for unknown, repeated, surplus and missing arguments.
    """
    named = {p.name: p for p in parameters}
    out: dict[str, Given] = {}
    positional = [p for p in parameters if not p.variadic]
    rest = next((k for k, p in enumerate(parameters) if p.variadic), None)
    before = [p for k, p in enumerate(parameters) if not p.variadic and (rest is None or k < rest)]
    surplus: list[Given] = []
    unnamed = iter([g for g in given if g.name is None])
    for parameter, argument in zip(before, unnamed, strict=False):
        out[parameter.name] = argument
    taken = len(out)
    surplus = [g for g in given if g.name is None][taken:]
    if surplus and rest is None:
        count = f"{len(positional)} argument{'s' if len(positional) != 1 else ''}"
        raise error("E0205", f"`{function}` takes {count}", surplus[0].span, "one too many")
    if rest is not None:
        joined = surplus[0].span.to(surplus[-1].span) if surplus else span
        values, parts = tuple(g.value for g in surplus), tuple(g.span for g in surplus)
        out[parameters[rest].name] = Given(None, values, joined, parts=parts)
    for argument in given:
        if argument.name is None:
            continue
        if argument.name not in named or named[argument.name].variadic:
            likely = near(argument.name, named, 1, 0.5)
            known = ", ".join(f"`{p.name}`" for p in parameters if not p.variadic)
            raise error(
                "E0203",
                f"`{function}` has no parameter `{argument.name}`",
                argument.where,
                "unknown parameter",
                notes=f"its parameters are {known}" if known else (),
                help=f"did you mean `{likely[0]}`?" if likely else (),
            )
        if argument.name in out:
            raise given_twice(argument.name, argument.where, out[argument.name].where)
        out[argument.name] = argument
    absent = [p.name for p in positional if p.name not in out and isinstance(p.default, Missing) and p.name != "base"]
    if absent:
        raise error(
            "E0204",
            f"`{function}` needs {' and '.join(f'`{a}`' for a in absent[:5])}{' and more' if absent[5:] else ''}",
            span,
            f"no `{absent[0]}` here",
        )
    return out


def check_declared(parameters: Sequence[ast.ParameterDeclaration]) -> None:
    """Raises MergecError (E0223) for a kind that there is not, or that has no bounds."""
    for kind in [p.kind for p in parameters if p.kind is not None]:
        if kind.name not in KINDS:
            meant = near(kind.name, KINDS, 1)
            help_ = f"did you mean `{meant[0]}`?" if meant else "the kinds are " + ", ".join(f"`{k}`" for k in KINDS)
            raise error("E0223", f"no kind `{kind.name}`", kind.span, "no such kind", help=help_)
        if kind.name not in _BOUNDED and (kind.low is not None or kind.high is not None):
            raise error("E0223", f"{article(kind.name)} has no bounds", kind.span, "only numbers have them")


def check_kind(function: str, parameter: Parameter, value: Any, span: Span, tensor: str = "") -> Any:
    """The value, or one that checks itself when it is resolved for a tensor. Raises MergecError
    (E0208, E0209).

    `tensor` is the output tensor that a number which varies was resolved for.
    """
    if parameter.kind is None or (value is None and parameter.default is None):
        return value
    if isinstance(value, tuple) and (parameter.variadic or parameter.kind in ("number", "integer", "boolean")):
        return tuple(check_kind(function, parameter, v, span) for v in value)
    if isinstance(value, Vary | PlaceMap) and parameter.kind in ("number", "integer", "boolean"):
        if isinstance(value, PlaceMap):
            entries = tuple((p, k, check_kind(function, parameter, v, span)) for p, k, v in value.entries)
            return PlaceMap(entries, value.span)

        def checked(where: Where, inner: Vary = value) -> Any:
            return check_kind(function, parameter, inner.at(where), span, where.output)

        return Vary(checked, value.span, value.text)
    fits = {
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "region": is_region(value),
    }[parameter.kind]
    if not fits:
        raise error(
            "E0208",
            f"`{parameter.name}` of `{function}` must be {article(parameter.kind)}, not {kind_of(value)}",
            span,
            f"this is {kind_of(value)}",
            help=_instead_of_a_region(function, value) if parameter.kind == "region" else (),
        )
    low, high = parameter.low, parameter.high
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
        raise error(
            "E0209",
            f"`{parameter.name}` of `{function}` must lie in {bounds}",
            span,
            f"this is {value:g}" + (f" at `{tensor}`" if tensor else ""),
        )
    return value


def _instead_of_a_region(function: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return ('a checkpoint is opened with `model("…")`',)
    return (f"models are given one by one: `{function}(a, b)`",) if isinstance(value, tuple) else ()
