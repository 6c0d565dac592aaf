"""What goes wrong at many tensors in the same way is told once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field

from ...grammar.diagnostic import Diagnostic, Label, MergecError, finding
from ...grammar.literals import write_string
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.model import Model
from ..checkpoint.renames import rename_to
from ..family.folding import globs, listed
from ..family.parts import is_multimodal, renamed
from ..family.place import NameStep, Path
from ..family.space import Space

_MOST_STATEMENTS = 4

Retell = Callable[[Sequence[str], Space], Diagnostic]
"""The diagnostic for several tensors of the output, which is the space; the first is the one at
which it was found."""


class Fault(MergecError):
    """An error at a tensor of the output that others may have too, for the same reason."""

    def __init__(self, plain: Diagnostic, retell: Retell) -> None:
        super().__init__(plain)
        self.retell = retell


@dataclass(slots=True, eq=False)
class Found:
    """An error, and all tensors at which it was found."""

    diagnostic: Diagnostic
    retell: Retell | None
    names: dict[str, None] = field(default_factory=dict)


class Faults:
    """Collects errors, once for each code and place."""

    def __init__(self, errors: list[Diagnostic], space: Space) -> None:
        self.errors, self._space = errors, space
        self._found: dict[tuple[str, Span | None], Found] = {}

    def report(self, diagnostic: Diagnostic, name: str, retell: Retell | None = None) -> Found:
        """Enters what was found at a tensor of the output."""
        where = diagnostic.labels[0].span if diagnostic.labels else None
        found = self._found.get((diagnostic.code, where))
        if found is None:
            found = self._found[diagnostic.code, where] = Found(diagnostic, retell)
            if not any(d.code == diagnostic.code and d.labels and d.labels[0].span == where for d in self.errors):
                self.errors.append(diagnostic)
        found.names[name] = None
        return found

    def finish(self) -> None:
        """Tells of all tensors what was told of the first."""
        for found in self._found.values():
            names = tuple(found.names)
            if found.retell is not None:
                whole = found.retell(names, self._space)
            elif found.diagnostic.code == "E0306" and len(names) > 1:
                note = f"so it is at {len(names)} tensors: {listed(names, self._space)}"
                whole = dataclasses.replace(found.diagnostic, notes=(*found.diagnostic.notes, note))
            else:
                continue
            self.errors[:] = [whole if d is found.diagnostic else d for d in self.errors]


def with_label(retell: Retell, label: Label) -> Retell:
    """The same with another label."""

    def told(names: Sequence[str], space: Space) -> Diagnostic:
        diagnostic = retell(names, space)
        return dataclasses.replace(diagnostic, labels=(*diagnostic.labels, label))

    return told


# --- what is said of several ----------------------------------------------------------------------


def several(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - 1
    return f"`{names[0]}`" + (f" and {more} more" if more else "")


def statements(names: Collection[str], space: Space, value: str) -> str:
    """Statements that give these tensors of the output, and no others, a value: by place where a
    place is just these, else by glob."""
    left = dict.fromkeys(names)
    found: list[str] = []
    # of the widest places, those within them need no statement
    wide = [role for role in space.family.places if "." not in role]
    for role in sorted(wide, key=lambda role: -len(_covered(role, space))):
        covered = _covered(role, space)
        if covered and left.keys() >= covered:
            found.append(f"{role} = {value}")
            left = {name: None for name in left if name not in covered}
    wanted = set(names)
    others = [name for name in space.names if name not in wanted]
    found += [f"{_place(glob, space)} = {value}" for glob in (globs(list(left), others) if left else ())]
    shown = " and ".join(f"`{each}`" for each in found[:_MOST_STATEMENTS])
    return shown + (f" and {len(found) - _MOST_STATEMENTS} more" if len(found) > _MOST_STATEMENTS else "")


def _place(glob: str, space: Space) -> str:
    """A glob as a recipe writes it: a module's as the module."""
    module = glob.removesuffix(".*")
    roles = {role.partition(".")[0] for role in (*space.family.places, *(s.name for s in space.family.stacks))}
    plain = all(part.isidentifier() for part in module.split(".")) and module.partition(".")[0] not in roles
    return module if plain and module != glob else write_string(glob)


def _covered(role: str, space: Space) -> set[str]:
    modules = space.family.places[role]
    return {name for name in space.names if any(name == m or name.startswith(m + ".") for m in modules)}


def integers(model: Model, dtype: str, span: Span) -> Retell:
    """E0309 for arithmetic on integers of a model."""

    def told(names: Sequence[str], space: Space) -> Diagnostic:
        one = len(names) == 1
        return finding(
            "E0309",
            f"{several(names)} of `{model.label}` {'is' if one else 'are'} {dtype} and may only be copied",
            span,
            "arithmetic on integers",
            help=f"copy {'it' if one else 'them'} from one model: {statements(names, space, model.label)}",
        )

    return told


def unequal(plain: Diagnostic, template: Model) -> Retell:
    """E0307 and E0311 for tensors of unequal shapes; outside the layers one model may give them."""

    def told(names: Sequence[str], space: Space) -> Diagnostic:
        notes = (*plain.notes, _more(len(names) - 1)) if len(names) > 1 else plain.notes
        helps = plain.help
        if not any(space.layer_of(name) for name in names):
            one = f"those of one model: {statements(names, space, template.label)}"
            helps = (*helps, f"or keep {one}") if plain.code == "E0311" else (f"take {one}", *helps)
        return dataclasses.replace(plain, notes=notes, help=helps)

    return told


def _more(count: int) -> str:
    return f"{count} more tensors differ" if count > 1 else "1 more tensor differs"


def lacking(model: Model, template: Model, plain: Diagnostic) -> Retell:
    """E0306 where a model has no tensor of a name; `plain` is what is said of a single one.

    Where most that it is asked for is missing, its tensors have other names: then E0478, with a
    `rename` that was tried, or with the places that both have.
    """

    def told(names: Sequence[str], space: Space) -> Diagnostic:
        here = [name for name in space.names if renamed(name, space.family, model.family) in model.tensors]
        if len(here) < len(names):
            return _otherwise_named(model, template, plain, names, space)
        if len(names) == 1 or model.bundles:
            return plain
        label = Label(plain.labels[0].span, f"it lacks {listed(names, space)}")
        help_ = f"leave them to another model, in later statements: {statements(names, space, '…')}"
        if is_multimodal(space.family) and not is_multimodal(model.family):
            help_ = f"`{model.label}` is a language model, which corresponds to `text`: `text = …`"
        return dataclasses.replace(
            plain,
            message=f"`{model.label}` has no tensor for {several(names)} of the output",
            labels=(label, *plain.labels[1:]),
            help=(help_,),
        )

    return told


def _otherwise_named(
    model: Model, template: Model, plain: Diagnostic, names: Sequence[str], space: Space
) -> Diagnostic:
    known = {renamed(name, space.family, model.family) for name in space.names}
    own = next((n for n in model.tensors if n not in known), next(iter(model.tensors), "none at all"))
    found, back = rename_to(model.checkpoint, template.tensors), rename_to(template.checkpoint, model.tensors)
    helps: list[str] = []
    notes = [f"of the output it has no {several(names)}"]
    picks = _common_places(model, template, space)
    component = _as_component(model, template)
    # names that a table knows stay, and wrappers go
    if component is not None:
        helps.append(component)
    elif back is not None and (found is None or (template.family.inferred and not back[1].inferred)):
        helps.append(_rename(template, back[0]))
    elif found is not None:
        helps.append(_rename(model, found[0]))
    elif picks:
        shown = ", ".join(f"`{model.label}.{place}` for `{place}`" for place in picks)
        helps.append(f"pick what corresponds, each in a statement of its own: {shown}")
    elif model.family.name != space.family.name:
        notes.append(f"`{model.label}` is of the family `{model.family.name}`, the output of `{space.family.name}`")
    return dataclasses.replace(
        plain,
        code="E0478",
        message=f"the tensors of `{model.label}` have other names than those of the output",
        labels=(Label(model.span, f"has `{own}`"), *plain.labels[1:]),
        notes=tuple(notes),
        help=tuple(helps),
    )


def _as_component(model: Model, template: Model) -> str | None:
    """What to do about a model that is one component of a pipeline, which is the template."""
    if not template.checkpoint.is_pipeline or model.checkpoint.is_pipeline:
        return None
    for part in template.checkpoint.parts:
        inside = [name.removeprefix(part.prefix) for name in template.tensors if name.startswith(part.prefix)]
        place = _place(f"{part.prefix}*", template.space)
        alone = f"give it to that in a statement of its own: `{place} = …`"
        if all(part.prefix + name in model.tensors for name in inside):
            return f"it has `{part.folder}` alone: {alone}"
        if all(name in model.tensors for name in inside):
            rename = _rename(model, {"*": f"{part.prefix}*"})
            return f"it is what `{part.folder}` is of `{template.label}`: {rename}, and {alone}"
    return None


def _rename(model: Model, rename: Mapping[str, str]) -> str:
    rules = ", ".join(f"{write_string(old)}: {write_string(new)}" for old, new in rename.items())
    return f"rename the tensors of `{model.label}`: `model({write_string(model.source)}, rename={{{rules}}})`"


def _common_places(model: Model, template: Model, space: Space) -> list[str]:
    """Places that mean tensors of the same names and shapes in a model and in the output; none
    where no stack is among them."""
    found = []
    stacks = [stack.name for stack in space.family.stacks]
    words = [*stacks, "embed", "norm", "head"]
    for word in words:
        path = Path(tuple(NameStep(part, model.span) for part in word.split(".")), model.span)
        one, two = model.space.find(path), space.find(path)
        if one is None or two is None or one.counts != two.counts:
            continue
        if one.by_coordinate.keys() == two.by_coordinate.keys() and all(
            _shape(model, one.by_coordinate[at]) == _shape(template, name) for at, name in two.by_coordinate.items()
        ):
            found.append(word)
    return found if set(found) & set(stacks) else []


def _shape(model: Model, name: str) -> tuple[int, ...] | None:
    found = model.find(name)
    return found[1].shape if found is not None else None
