"""Calls with a way of their own: `model`, `lora`, `tie`, `stack`, `union`, `token` and `advise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, MergecError, error
from ..checkpoint.adapter import Adapter, read_changes
from ..checkpoint.adapter_config import FILE, read_config
from ..checkpoint.agreement import Disagreement, certain
from ..checkpoint.catalog import Catalog, CatalogError, Checkpoint
from ..checkpoint.completeness import completeness
from ..checkpoint.documents import catalog_diagnostic
from ..checkpoint.layouts import CANONICAL, Recognised, View
from ..checkpoint.model import Model, bind
from ..family.family import build
from ..family.space import Space
from ..terms.kinds import kind_of
from ..terms.map_keys import plain
from ..terms.terms import Leaf, Lora, PlaceMap, Stack, Tie, Token, Union, is_region, picks
from .advise import advise
from .bindings import CALLED
from .calls import Given, Parameter, check_kind, match
from .expressions import Expressions
from .scopes import Scope

_MODEL = (
    Parameter("source", kind="string"),
    Parameter("revision", None, kind="string"),
    Parameter("subfolder", None, kind="string"),
    Parameter("rename", None),
    Parameter("key", None, kind="string"),
    Parameter("variant", None, kind="string"),
)


_LORA = _MODEL[:3]

_TOKEN = (Parameter("model"), Parameter("text", None, kind="string"), Parameter("force", True, kind="boolean"))

_ADAPTERS = build({"name": "LoRA"})
"""Adapters have no places: what they change is found by name."""

MAX_MODELS = 1000
"""The most `model(…)` calls that a recipe can make."""


class Models:
    """Opens the checkpoints and adapters that a recipe names, each distinct one under its own
    number."""

    def __init__(self, catalog: Catalog, near: str) -> None:
        self.catalog, self.near = catalog, near
        self.opened: list[Model] = []
        self.adapters: list[Adapter] = []
        self.warnings: list[Diagnostic] = []
        self._said: dict[int, list[Disagreement]] = {}
        self._numbers: dict[tuple[str, str | None, str], int] = {}

    def form(self, expressions: Expressions, node: ast.Call, scope: Scope) -> Leaf:
        """`model(…)` without a name of its own."""
        return self.open(expressions, node, scope, None)

    def open(self, expressions: Expressions, node: ast.Call, scope: Scope, label: str | None) -> Leaf:
        """The model of a `model(…)` call, under the name that it is bound to. Raises
        MergecError."""
        given, values = _given("model", _MODEL, expressions, node, scope)
        source: str = values["source"]
        if len(self.opened) >= MAX_MODELS:
            message = f"the recipe names more than {MAX_MODELS} models"
            raise error("E0182", message, node.span, "one too many")
        try:
            checkpoint = self.catalog.open(
                source,
                revision=values.get("revision"),
                subfolder=values.get("subfolder"),
                near=self.near,
                key=values.get("key"),
                variant=values.get("variant"),
            )
        except CatalogError as fault:
            raise _unopened(fault, given) from None
        rename = None
        if isinstance(values.get("rename"), PlaceMap):
            rename = {key: str(value) for key, value in plain(values["rename"].entries).items()}
        key = (checkpoint.location, checkpoint.revision, repr((rename, *checkpoint.chosen)))
        number = self._numbers.setdefault(key, len(self._numbers))
        try:
            model, warnings = bind(
                self.catalog,
                checkpoint,
                number=number,
                label=label or _last(source),
                source=source,
                rename=rename,
                span=given["source"].span,
                known=self.opened,
            )
        except CatalogError as fault:
            raise _unopened(fault, given) from None
        self.warnings.extend(warnings)
        self.warnings.extend(self._complete(model))
        self.opened.append(model)
        return Leaf(model, None, node.span)

    def _complete(self, model: Model) -> list[Diagnostic]:
        """Warnings about a checkpoint of which some may be missing. Raises MergecError (E0461)
        where some is."""
        for other in reversed(self.opened):
            if other.recognised is model.recognised and other.checkpoint.config == model.checkpoint.config:
                said = self._said[id(other)]
                break
        else:
            said = certain(model) if model.checkpoint.config is not None else []
        self._said[id(model)] = said
        return completeness(model, said)

    def lora(self, expressions: Expressions, node: ast.Call, scope: Scope) -> Lora:
        """`lora(…)` without a name of its own."""
        return self.adapter(expressions, node, scope, None)

    def adapter(self, expressions: Expressions, node: ast.Call, scope: Scope, label: str | None) -> Lora:
        """The adapter of a `lora(…)` call, under the name that it is bound to. Raises
        MergecError."""
        given, values = _given("lora", _LORA, expressions, node, scope)
        source, span = values["source"], given["source"].span
        try:
            checkpoint = self.catalog.adapter(
                source, revision=values.get("revision"), subfolder=values.get("subfolder"), near=self.near
            )
        except CatalogError as fault:
            raise _unopened(fault, given) from None
        number = self._numbers.setdefault((checkpoint.location, checkpoint.revision, "lora"), len(self._numbers))
        shown = label or _last(source)
        config = read_config(checkpoint.config or {}, f"{checkpoint.location}/{FILE}", shown, span)
        views = {name: View(name, 0, tensor.shape) for name, tensor in checkpoint.tensors.items()}
        space = Space(_ADAPTERS, tuple(views), {}, f"`{shown}`")
        seen = Recognised(_ADAPTERS, CANONICAL, views, ())
        model = Model(number, shown, source, checkpoint, _ADAPTERS, CANONICAL, views, {}, (), space, span, seen)

        def same_bytes(first: str, second: str, *, other: Checkpoint | None = None, turned: bool = False) -> bool:
            try:
                return self.catalog.same_bytes(checkpoint, first, second, other=other, turned=turned) is True
            except CatalogError as error:
                raise MergecError(catalog_diagnostic(error, span)) from None

        changes = read_changes(checkpoint, config, same_bytes, shown, span)
        found = Adapter(model, changes, config, same_bytes)
        self.adapters.append(found)
        return Lora(found, node.span, label)


def _given(
    name: str, parameters: tuple[Parameter, ...], expressions: Expressions, node: ast.Call, scope: Scope
) -> tuple[dict[str, Given], dict[str, Any]]:
    """The arguments of a call that opens something, checked for their kinds; and their values."""
    given = match(name, parameters, expressions.arguments(node, scope), node.span)
    for p in parameters:
        if p.name in given:
            check_kind(name, p, given[p.name].value, given[p.name].span)
    return dict(given), {k: g.value for k, g in given.items()}


_BLAMED = {"E0438": "rename", "E0464": "revision", "E0483": "variant", "E0484": "key"}
"""The argument at which an error is shown, where it is given and not the source."""


def _unopened(fault: CatalogError, given: Mapping[str, Given]) -> MergecError:
    blamed = _BLAMED.get(fault.code, "source")
    return MergecError(catalog_diagnostic(fault, given[blamed if blamed in given else "source"].span))


def _last(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1]


def _tie(expressions: Expressions, node: ast.Call, scope: Scope) -> Any:
    if len(node.arguments) != 1 or node.arguments[0].name or node.arguments[0].splat:
        raise error("E0204", "`tie` takes one place of the output", node.span)
    return Tie(expressions.path(node.arguments[0].value, scope), node.span)


def _stack(expressions: Expressions, node: ast.Call, scope: Scope) -> Any:
    parts, counts = [], []
    for given in expressions.arguments(node, scope):
        if given.name is not None or not is_region(given.value):
            raise error("E0208", f"`stack` takes layers, not {kind_of(given.value)}", given.span, "no layers")
        picked, bare = picks(given.value)
        selections = [owner.space.select(path) for owner, path in picked]
        found = {len(selection.indices) for selection in selections if selection.stack}
        if bare or not found:
            shown = (bare[0].label if bare else None) or "it"
            raise error(
                "E0305",
                "each part of a `stack` says which layers it takes",
                given.span,
                f"`{shown}` has no layers picked here",
                help=f"for instance `{shown}.layers[*]`",
            )
        if len(found) > 1:
            raise error(
                "E0305",
                f"this part combines {' and '.join(str(n) for n in sorted(found))} layers",
                given.span,
                "counts differ",
            )
        parts.append(given.value)
        counts.append(found.pop())
    if not parts:
        raise error("E0204", "`stack` needs at least one part", node.span)
    return Stack(tuple(parts), tuple(counts), node.span)


def _union(expressions: Expressions, node: ast.Call, scope: Scope) -> Any:
    models = []
    for given in expressions.arguments(node, scope):
        if not isinstance(given.value, Leaf) or given.value.path is not None:
            raise error("E0208", "`union` takes models", given.span, "not a model")
        models.append(given.value.model)
    if not models:
        help_ = (f"name those whose tokens it has: `{CALLED['union']}`",)
        raise error("E0204", "`union` needs at least one model", node.span, help=help_)
    return Union(tuple(models), node.span)


def _token(expressions: Expressions, node: ast.Call, scope: Scope) -> Any:
    given, values = _given("token", _TOKEN, expressions, node, scope)
    model = values["model"]
    if model != "zero" and not (isinstance(model, Leaf) and model.path is None):
        raise error("E0208", '`token` takes a model or "zero", and a token', given["model"].span)
    source = model.model if isinstance(model, Leaf) else None
    return Token(source, values.get("text"), values.get("force", True), node.span)


FORMS = {"tie": _tie, "stack": _stack, "union": _union, "token": _token, "advise": advise}
"""The forms that need no catalog."""
