"""Primitives from outside: functions of the language whose kernel is Python code of an installed
package.

A package offers a `Primitive` under an entry point of the group `mergec.primitives`, where
`runtime/catalog/` finds it. The compiler sees a signature and the kernel's address as text, and
imports nothing of the package's arithmetic. In terms, graph and plan a primitive is the operation
`installed` or `installed_whole` of `table.py`, and its attributes say which one: so a plan is
complete by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from ...grammar.diagnostic import error
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..terms.lifting import as_region
from ..terms.terms import Apply
from .builtins import Builtin
from .calls import Missing, Parameter

GROUP = "mergec.primitives"
"""The entry points' group."""

OPS_BY_KIND = {"elementwise": "installed", "opaque": "installed_whole"}
"""What there may be, and the operation that it becomes."""

INSTALLED = frozenset(OPS_BY_KIND.values())
"""The operations whose kernels are of installed packages."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KERNEL = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_KINDS = ("region", "number", "integer", "boolean", None)


class PrimitiveError(Exception):
    """An installed package promises a primitive and does not keep to it. The text says what is
    wrong."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """A function `name` of the language. Raises ValueError for what can't be one.

    Parameters of kind `region` are tensors; one of them may be variadic. All others are numbers: of
    kind `number`, `integer` or `boolean` if they are known while compiling, of kind None if they
    may come of the weights.

    `kernel` is `module:function`. With `kind` `elementwise`, element i of the result follows from
    element i of the tensors: the kernel is called block by block, as `kernel(out, tensors, numbers,
    scratch)`. `out` and `tensors` are 1-d, of one length and the compute dtype; `scratch` is memory
    of `scratch` bytes an element. With `opaque` it is called once, as `kernel(out, tensors,
    numbers)` with whole tensors of one shape; `workspace` is the memory that it takes meanwhile, in
    bytes for every element of its tensors, and `axes` how many axes they must have (None: any
    number). A kernel fills `out`, changes nothing else and gives the same bytes for the same
    arguments.

    `package` (name and version) and `code`, which gives a digest of the code that the kernel is
    made of, are filled in where the primitive is found. What was made by other code is neither
    resumed nor taken over; without `code`, nothing is that the kernel made.
    """

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    kernel: str
    kind: str = "elementwise"
    scratch: int = 0
    workspace: int = 0
    axes: int | None = None
    package: str = ""
    code: Callable[[], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        regions = [p for p in self.parameters if p.kind == "region"]
        names = [p.name for p in self.parameters]
        for holds, fault in (
            (_NAME.fullmatch(self.name), "its name is no name of the language"),
            (_KERNEL.fullmatch(self.kernel), "its kernel is not written `module:function`"),
            (self.kind in OPS_BY_KIND, f"its kind is none of {', '.join(OPS_BY_KIND)}"),
            (all(_NAME.fullmatch(n) for n in names), "a parameter's name is no name of the language"),
            (len(set(names)) == len(names), "two parameters have one name"),
            (all(p.kind in _KINDS for p in self.parameters), "a parameter is neither a region nor a number"),
            (regions, "it has no parameter of kind `region`"),
            (all(isinstance(p.default, Missing) for p in regions), "a region has a default"),
            (all(p.kind == "region" for p in self.parameters if p.variadic), "several numbers in one parameter"),
            (sum(p.variadic for p in self.parameters) <= 1, "two parameters are variadic"),
            (min(self.scratch, self.workspace) >= 0, "it takes less than no memory"),
            (self.scratch == 0 or self.kind == "elementwise", "only elementwise primitives have `scratch`"),
            (self.workspace == 0 or self.kind == "opaque", "only opaque primitives have `workspace`"),
            (self.axes is None or self.kind == "opaque", "only opaque primitives have `axes`"),
        ):
            if not holds:
                raise ValueError(f"primitive `{self.name}`: {fault}")


def as_function(primitive: Primitive) -> Builtin:
    """The primitive as a function that a recipe can call."""
    numbers = [p for p in primitive.parameters if p.kind != "region"]

    def run(given: dict[str, Any], span: Span) -> Any:
        regions = [r for p in primitive.parameters if p.kind == "region" for r in _values(p, given[p.name])]
        if not regions:
            raise error("E0204", f"`{primitive.name}` of nothing", span, "an empty list")
        args = [as_region(value, span) for value in (*regions, *(given[p.name] for p in numbers))]
        return Apply(OPS_BY_KIND[primitive.kind], tuple(args), span, _attributes(primitive, len(numbers)))

    # a region may also be a number, the same at every element: `as_region` sees to that
    parameters = [p if p.kind != "region" else Parameter(p.name, p.default, p.variadic) for p in primitive.parameters]
    return Builtin(primitive.name, tuple(parameters), primitive.doc, run)


def _values(parameter: Parameter, value: Any) -> tuple[Any, ...]:
    """What a parameter was given: of a variadic one each value, which may also come as one list."""
    if not parameter.variadic:
        return (value,)
    return value[0] if len(value) == 1 and isinstance(value[0], tuple) else tuple(value)


def _attributes(primitive: Primitive, numbers: int) -> tuple[tuple[str, int | str], ...]:
    """All that graph, schedule and runtime need to know; `numbers` counts the last inputs."""
    known: list[tuple[str, int | str]] = [
        ("name", primitive.name),
        ("kernel", primitive.kernel),
        ("package", primitive.package),
        ("numbers", numbers),
    ]
    if primitive.kind == "elementwise":
        known.append(("scratch", primitive.scratch))
    else:
        known.append(("workspace", primitive.workspace))
        known += [("axes", primitive.axes)] if primitive.axes is not None else []
    return tuple(known)
