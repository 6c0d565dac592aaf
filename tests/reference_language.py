"""The merge language once more, naively: which statement gives a tensor of the output its value,
one tensor at a time.

What a value comes to there, whole and in float64, is `reference_evaluation.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from mergec.grammar import ast
from reference_evaluation import Evaluation, Later, Stack
from reference_functions import Where
from reference_places import (
    EMBED,
    EVERY,
    HEAD,
    PREFIX,
    Array,
    Checkpoint,
    Names,
    Refused,
    Selection,
    Unjudged,
    names_of,
    select,
)


class Interpreter:
    """A recipe over checkpoints by name (`model("NAME")`)."""

    def __init__(self, module: ast.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        self.evaluation = Evaluation()
        self.root = self.evaluation.root
        self.statements: list[ast.Assign] = []
        self.settings: dict[str, ast.Expr] = {}
        self.models: list[Checkpoint] = []
        for statement in module.statements:
            match statement:
                case ast.Let():
                    value = statement.value
                    if (
                        isinstance(value, ast.Call)
                        and isinstance(value.function, ast.Name)
                        and value.function.id == "model"
                    ):
                        name = value.arguments[0].value
                        assert isinstance(name, ast.String)
                        self.models.append(checkpoints[name.value])
                        self.root.bound[statement.name.id] = checkpoints[name.value]
                    else:
                        self.root.bound[statement.name.id] = Later(value, self.root)
                case ast.Def():
                    self.root.bound[statement.name.id] = statement
                case ast.OutputStatement():
                    self.settings = {a.name or "": a.value for a in statement.arguments}
                case ast.Assign():
                    self.statements.append(statement)
                case _:
                    raise Unjudged(type(statement).__name__)

    # --- the output

    def run(self) -> Iterator[tuple[str, Array, float, bool]]:
        """Each stored tensor of the output: its name, its value, the largest magnitude on the way
        to it, and whether it is sure which elements were picked."""
        for bound in self.root.bound.values():
            if isinstance(bound, Later):
                self.evaluation.assemblies(bound.node)  # wrong ones are, used or not
        template, named = self._template()
        space = self._outline(template)
        owner: dict[str, tuple[ast.Assign, Selection]] = {}
        for statement in self.statements:
            selection = select(self.evaluation.place(statement.place, self.root), space)
            for name in selection.names:
                owner[name] = (statement, selection)
        tied = self._tied(template, owner)
        for name in space.names:
            if name == HEAD and tied:
                continue
            self.evaluation.magnitude, self.evaluation.sure = 0.0, True
            own = owner.get(name)
            shape = self._shape(template, name)
            if own is not None:
                statement, selection = own
                where = Where(name, selection.names[name], selection.counts, space, name)
                value = self.evaluation.value(statement.value, self.root, where)
                value = self.evaluation.stacked(value, where) if isinstance(value, Stack) else value
                made = self.evaluation.region(value, where).value
            elif named and template.find(name) is not None:
                made = template.find(name)
            else:
                raise Refused("not covered")
            made = np.asarray(made, dtype=np.float64)
            if template.find(name) is None and made.shape == ():
                raise Refused("a plain number for a tensor of no known shape")
            if shape is not None and made.shape not in ((), shape):
                raise Refused("another shape")
            self.evaluation.met(made)
            value = np.broadcast_to(made, shape if shape is not None else made.shape)
            yield name, value, self.evaluation.magnitude, self.evaluation.sure

    def _template(self) -> tuple[Checkpoint, bool]:
        if "like" in self.settings:
            node = self.settings["like"]
            assert isinstance(node, ast.Name)
            return self.root.bound[node.id], True
        base = self.root.bound.get("base")
        return (base, True) if isinstance(base, Checkpoint) else (self.models[0], False)

    @property
    def dtype(self) -> str:
        """The dtype of the output's tensors."""
        given = self.settings.get("dtype")
        return given.value if isinstance(given, ast.String) else self._template()[0].dtype

    def _outline(self, template: Checkpoint) -> Names:
        """The output's names: the template's, its layers cut or repeated."""
        depth, built, origins = template.depth, 0, None
        for statement in self.statements:
            steps = self.evaluation.place(statement.place, self.root)
            root = self.evaluation.head(statement.value)
            if root != "stack" and steps in ([], ["layers"], ["layers", EVERY]):
                origins = None  # all layers of a stack have another value
            if not steps:
                found = self.evaluation.assemblies(statement.value)
                built = max((a.space.depth for a in found), default=built)
            elif steps[0] == "layers":
                index = steps[1] if len(steps) > 1 and isinstance(steps[1], tuple) else None
                if root == "stack":
                    if steps[1:] not in ([], [EVERY]):
                        continue
                    origins = self.evaluation.origins(statement.value, self.root)
                    built = len(origins)
                elif index not in (None, EVERY):
                    depth = max([depth, *(stop + 1 for _, stop, _ in index if stop is not None)])
        depth = built or depth
        if "layers" in self.settings:
            number = self.settings["layers"]
            assert isinstance(number, ast.Number)
            depth = int(number.value)
        space = names_of(template.space, depth, origins)
        if origins is None:
            return space

        def there(name: str, wider: Names) -> bool:
            for statement in reversed(self.statements):
                try:
                    selection = select(self.evaluation.place(statement.place, self.root), wider)
                except Refused:
                    continue  # said when its turn comes
                if name in selection.names:
                    where = Where(name, selection.names[name], selection.counts, wider, name)
                    value = self.evaluation.value(statement.value, self.root, where)
                    value = self.evaluation.stacked(value, where) if isinstance(value, Stack) else value
                    return self.evaluation.region(value, where).there
            return False

        def stays(name: str) -> bool:
            if not name.endswith(".bias") or space.layer(name) is None:
                return True
            state = self.evaluation.magnitude, self.evaluation.sure
            try:
                return there(name, space)
            except Refused:
                return True
            finally:
                self.evaluation.magnitude, self.evaluation.sure = state

        models = [m for statement in self.statements for m in self.evaluation.models_in(statement.value, self.root)]
        space = self.evaluation.with_biases(space, models, there)
        return Names(tuple(filter(stays, space.names)), space.depth)

    def _tied(self, template: Checkpoint, owner: Mapping[str, tuple[ast.Assign, Selection]]) -> bool:
        """Whether the output's head is its embedding."""
        own = owner.get(HEAD)
        if own is not None and self.evaluation.head(own[0].value) == "tie":
            target = self.evaluation.place(own[0].value.arguments[0].value, self.root)  # type: ignore[union-attr]
            if target != ["embed"]:
                raise Unjudged("a tie to another place")
            return True
        if not template.tied or (own is not None and EMBED not in own[1].names):
            return False
        for source in (owner.get(EMBED), own):
            if source is not None and any(not m.tied for m in self.evaluation.models_in(source[0].value, self.root)):
                raise Refused("mixed heads")
        return True

    def _shape(self, template: Checkpoint, name: str) -> tuple[int, ...] | None:
        found = template.find(name)
        if found is None and name.startswith(PREFIX):
            rest = name.removeprefix(PREFIX).partition(".")[2]
            found = template.find(f"{PREFIX}{template.depth - 1}.{rest}")
        return found.shape if found is not None else None
