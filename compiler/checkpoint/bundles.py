"""Tensors that mean something only together, as a packed weight and its scales do: copied together,
or not at all.

What they are is found by names, dtypes and the config: `quantised.py`, `factors.py`. That an output
keeps them together is seen to in `check/bundles_whole.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...grammar.diagnostic import Diagnostic, Label
from ...grammar.records import dataclass
from ...grammar.source import Span

APART = "E0457"
CODES = "E0456"
"""The codes of errors for what is taken apart, and for arithmetic on quantised tensors."""

Part = tuple[str, str]
"""What the name of a tensor has before and behind that of its module."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundles:
    """The bundles among the tensors of a checkpoint.

    `code` is that of arithmetic on them. `found` says what the checkpoint is, `why` why its tensors
    are no numbers to compute with, `partners` what a tensor would be copied without, `ways` lead
    out. `modules` maps the names of stored tensors to that of the module whose bundle they are of,
    `parts` each module to what the names of its tensors have before and behind it. `whole`: no
    tensor of the checkpoint may be computed with, in a bundle or not. `setting` is what its config
    says about them.
    """

    code: str
    found: str
    why: str
    partners: str
    ways: tuple[str, ...]
    modules: Mapping[str, str]
    parts: Mapping[str, frozenset[Part]]
    whole: bool = False
    setting: Any = None

    def covers(self, stored: str) -> bool:
        """Whether a stored tensor may only be copied."""
        return self.whole or stored in self.modules

    def computed(
        self, owner: str, span: Span, stored: str, dtype: str, at: Span, cast: str | None = None
    ) -> Diagnostic:
        """The error for arithmetic, at `at`, on a tensor of the model `owner`, which is opened at
        `span`.

        `cast`: the arithmetic is no more than that the tensor is written in this dtype.
        """
        module = self.modules.get(stored)
        parts = () if module is None else sorted(self.parts[module])
        beside = [name for p in parts if (name := named(p, module or "")) != stored]
        shown = f"`{stored}` is {dtype}, with `{beside[0]}` beside it" if beside else "its config says so"
        whole = f"or take all of it from one model: `* = {owner}`"
        if cast is not None:
            whole = f"or keep its dtypes: no `output(dtype=…)`, and a template such as `output(like={owner})`"
        return Diagnostic(
            self.code,
            f"`{owner}` is {self.found}: it can be copied, but not computed with",
            (Label(span, shown), Label(at, f"`{stored}` written as {cast}" if cast else f"arithmetic on `{stored}`")),
            (self.why,),
            (*self.ways, whole),
        )

    def replaced(self, owner: str, span: Span, stored: str, at: Span) -> Diagnostic:
        """The error for plain numbers, at `at`, in place of a tensor of the template `owner`."""
        return Diagnostic(
            APART,
            f"the template `{owner}` is {self.found}, and gets plain numbers for `{stored}`",
            (Label(at, "no codes"), Label(span, "the template")),
            (self.why,),
            ("name a template of plain numbers: `output(like=…)`", *self.ways),
        )


def part_of(name: str, module: str) -> Part:
    """What a tensor's name has before and behind the module that it belongs to.

    >>> part_of("blocks.0.fc.scale", "blocks.0.fc"), part_of("scales.blocks.0.fc", "blocks.0.fc")
    (('', '.scale'), ('scales.', ''))
    """
    before, _, behind = name.partition(module) if module else ("", "", name)
    return before, behind


def named(part: Part, module: str) -> str:
    """The name of a module's tensor."""
    return part[0] + module + part[1]


def parts_of(modules: Mapping[str, str]) -> dict[str, frozenset[Part]]:
    """For each module the parts that there are of it."""
    found: dict[str, set[Part]] = {}
    for name, module in modules.items():
        found.setdefault(module, set()).add(part_of(name, module))
    return {module: frozenset(parts) for module, parts in found.items()}


def codes_at(bundles: Iterable[Bundles], stored: str) -> Bundles | None:
    """The bundles of a quantised model that a stored tensor is of; None where it is a plain one."""
    return next((b for b in bundles if b.code == CODES and stored in b.modules), None)


def first_covering(bundles: Iterable[Bundles], stored: str) -> Bundles | None:
    """The first of a model's bundles that a stored tensor may not be taken out of."""
    return next((b for b in bundles if b.covers(stored)), None)
