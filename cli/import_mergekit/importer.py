"""A mergekit file as a recipe: its models and its named merges become lets, the last merge the
output."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from ...compiler.checkpoint.catalog import Catalog
from ...compiler.checkpoint.dtypes import FLOATS, NAMES
from ...compiler.evaluate.bindings import PLACE_WORDS
from ...compiler.evaluate.builtins import BUILTINS
from ...compiler.evaluate.standard_library import Library
from ...grammar.diagnostic import Diagnostic, Label, MergecError, collecting, error, finding
from ...grammar.literals import bare, write_string
from ...grammar.records import dataclass
from ...grammar.source import Source, Span
from ...grammar.suggest import near
from .checkpoints import Known, Shelf
from .configuration import Key, Merge, ModelRef, Scope, first_of_each
from .gradients import GRADIENT, unmatchable
from .merging import Merger, has_modules
from .methods import METHODS, Base, Reach
from .recipe_text import ArgumentOrigin, Imported, RecipeLine, write_out
from .schema import read_merge
from .tokens import chat_settings, tokenizer_settings
from .yaml_tree import YamlComment, read_documents

_WORDS = (
    "let def use output expect as if else for in by and or not true false none "
    "model lora stack tie union token zero base gradient"
)
"""Names that a model does not get: words of the language, and those that mean something in an
imported recipe."""

_DTYPES = ("bfloat16", "float16", "float32", "float64")


def import_text(source: Source, catalog: Catalog, target: Path) -> Imported:
    """The recipe of a mergekit configuration, with paths relative to the folder `target`.

    Relative paths of models are looked for in the folder of the YAML file, then in the current one.
    Raises MergecError (E07xx) with everything that is wrong.
    """
    merges: list[Merge] = []
    errors: list[Diagnostic] = []
    for document in read_documents(source):
        with collecting(errors):
            merges.append(read_merge(document))
    if errors:
        raise MergecError(errors)
    if not merges:
        raise error("E0702", "the file holds no configuration", file=source.name)
    folders = (Path(source.name).parent, Path())
    return _Writer(merges, Shelf(catalog, folders), Path(os.path.abspath(target)), Path(source.name).name).write()


@dataclass(slots=True)
class _Writer:
    merges: list[Merge]
    shelf: Shelf
    target: Path
    file: str
    names: dict[Key, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    warnings: list[Diagnostic] = field(default_factory=list)

    def write(self) -> Imported:
        named = self._named()
        final = next((m for m in self.merges if m.name is None), self.merges[-1])
        order = self._in_order(named, final)
        self.taken = {*_WORDS.split(), *PLACE_WORDS, *BUILTINS, *Library().names, *METHODS}
        template = self._template(final, named)
        models = self._models(order, named, template)
        if final.base is not None and final.base.path not in named:
            self.names[final.base.plain.key] = "base"
        for ref in models:
            self.names.setdefault(ref.key, self._fresh(ref.path))
        adapted = first_of_each(r for r in self._references(order, template) if r.lora is not None)
        for merge in order[:-1]:
            assert merge.name is not None
            self.names[_named_key(merge.name.value)] = self._fresh(merge.name.value)
        for ref in adapted:
            assert ref.lora is not None
            self.names[ref.key] = self._fresh(ref.lora.path)
        notes = _notes(order)
        lines = self._lets(models, notes) + self._adapted([r for r in adapted if r.path not in named], named, notes)
        errors: list[Diagnostic] = []
        for merge in order:
            with collecting(errors):
                if merge is final:
                    lines.extend(self._output(merge, named, template))
                else:
                    lines.append(self._let(merge, named))
                    own = [r for r in adapted if merge.name and r.path == merge.name.value]
                    lines.extend(self._adapted(own, named, notes))
        if errors:
            raise MergecError(errors)
        if any("gradient(" in line.text for line in lines):
            at = next(k for k, line in enumerate(lines) if "gradient(" in line.text)
            while at and not lines[at].gap:
                at -= 1
            lines.insert(at, RecipeLine(GRADIENT, None, gap=True))
        head = [c.text for m in self.merges for c in m.comments if c.span.end <= m.root.span.start]
        return write_out([*head, f"imported from {self.file}, a configuration of mergekit"], lines, self.warnings)

    # --- several merges

    def _named(self) -> dict[str, Merge]:
        found: dict[str, Merge] = {}
        nameless = [m for m in self.merges if m.name is None]
        if len(nameless) > 1:
            labels = [Label(m.span, "has no name") for m in nameless]
            raise error("E0711", "of several merges only one may be without a `name`", labels)
        for merge in self.merges:
            if merge.name is None:
                continue
            if merge.name.value in found:
                message = f"two merges are called `{bare(merge.name.value)}`"
                raise error("E0711", message, merge.name.span, "again here")
            found[merge.name.value] = merge
        return found

    def _in_order(self, named: dict[str, Merge], final: Merge) -> list[Merge]:
        """The merges, each after those that it uses, the final one last."""
        out: list[Merge] = []
        done: set[int] = set()

        def visit(merge: Merge, above: tuple[Merge, ...]) -> None:
            if merge in above:
                span = merge.name.span if merge.name else merge.span
                raise error("E0711", "these merges use each other in a circle", span, "uses itself through others")
            if id(merge) in done:
                return
            for ref in merge.models():
                if ref.path in named:
                    visit(named[ref.path], (*above, merge))
            done.add(id(merge))
            out.append(merge)

        for merge in (*(m for m in self.merges if m is not final), final):
            visit(merge, ())
        if out[-1] is not final:
            span = final.name.span if final.name else final.span
            raise error("E0711", "the last merge is the output, and nothing may use it", span, "another merge uses it")
        return out

    def _template(self, merge: Merge, named: dict[str, Merge]) -> ModelRef:
        ref = self._like(merge, named)
        return self._template(named[ref.path], named) if ref.path in named else ref

    def _like(self, merge: Merge, named: dict[str, Merge]) -> ModelRef:
        """The model whose configuration the output has: the base, else the first that is listed;
        of models of different kinds the first that has all modules that are named."""
        refs = merge.models()
        modules = [m for m in merge.modules if m.name is not None]
        fits = (ref for ref in refs if (known := self._known(ref, named)) is None or has_modules(known, modules))
        return next(fits, refs[0]) if modules else refs[0]

    def _known(self, ref: ModelRef, named: dict[str, Merge]) -> Known | None:
        """What is known of a model, or of a named merge, which resembles its first model except for
        its layers."""
        if ref.path not in named:
            return self.shelf.known(ref)
        merge = named[ref.path]
        like = self._known(self._like(merge, named), named)
        space = self._merger(merge, named).space()
        if like is None or space is None:
            return like
        return dataclasses.replace(like, names=space.names, depths=space.depths)

    # --- models

    def _models(self, order: Sequence[Merge], named: dict[str, Merge], template: ModelRef) -> list[ModelRef]:
        """All checkpoints, the template first."""
        refs = self._references(order, template)
        return first_of_each(r.plain for r in refs if r.path not in named)

    def _references(self, order: Sequence[Merge], template: ModelRef) -> list[ModelRef]:
        refs = [template, *(r for m in order for r in m.models())]
        for merge in order:
            if merge.tokenizer is not None:
                rows = [t.model for t in merge.tokenizer.tokens if t.model is not None]
                refs.extend(
                    [*([merge.tokenizer.source] if isinstance(merge.tokenizer.source, ModelRef) else []), *rows]
                )
        return refs

    def _fresh(self, path: str) -> str:
        """A name for a model: the last part of its path, with the one before it where that is
        taken, else a number."""
        parts = [re.sub(r"\W+", "_", p, flags=re.ASCII).strip("_") for p in re.split(r"[/\\]+", path)]
        parts = [p for p in parts if p]
        parts[-1:] = [re.sub(r"_safetensors$", "", p) for p in parts[-1:]]
        for count in (1, 2):
            name = "_".join(parts[-count:]) or "input"
            name = f"model_{name}" if name[0].isdigit() else name
            if name not in self.taken:
                break
        else:
            stem, number = parts[-1] if parts else "input", 2
            stem = f"model_{stem}" if stem[0].isdigit() else stem
            while f"{stem}_{number}" in self.taken:
                number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name

    def _region(self, ref: ModelRef, named: dict[str, Merge]) -> str:
        return self.names[_named_key(ref.path)] if ref.path in named and not ref.lora else self.names[ref.key]

    def _lets(self, models: Sequence[ModelRef], notes: Mapping[Key, list[str]]) -> list[RecipeLine]:
        out = []
        for ref in models:
            comments = notes.get(ref.key, [])
            if ref.architecture is not None:
                comments = [*comments, f"not carried over: `override_architecture: {ref.architecture}`"]
                self._warn("W0711", "`override_architecture` has no counterpart", ref.span, "left out")
            revision, left_out = self._revision(ref)
            text = f"let {self.names[ref.key]} = model({write_string(self._path(ref))}{revision})"
            out.append(RecipeLine(text, ref.span, (), (*comments, *left_out)))
        return out

    def _adapted(
        self, refs: Sequence[ModelRef], named: dict[str, Merge], notes: Mapping[Key, list[str]]
    ) -> list[RecipeLine]:
        """Models with adapters on them."""
        out = []
        for ref in refs:
            assert ref.lora is not None
            revision, left_out = self._revision(ref.lora)
            lora = f"lora({write_string(self._path(ref.lora))}{revision})"
            text = f"let {self.names[ref.key]} = {self._region(ref.plain, named)} + {lora}"
            out.append(RecipeLine(text, ref.span, (), (*notes.get(ref.key, []), *left_out)))
        return out

    def _revision(self, ref: ModelRef) -> tuple[str, tuple[str, ...]]:
        """The argument that asks for a revision, and a comment instead where mergekit too takes
        what is there."""
        if not ref.revision:
            return "", ()
        if self.shelf.locate(ref) is not None:
            return "", (f"not carried over: revision `{ref.revision}`, as this is a local folder",)
        return f", revision={write_string(ref.revision)}", ()

    def _path(self, ref: ModelRef) -> str:
        found = self.shelf.locate(ref)
        if found is None or Path(ref.path).expanduser().is_absolute():
            return ref.path
        path = Path(os.path.relpath(found, self.target)).as_posix()
        return path if path.startswith("..") else f"./{path}"

    # --- merges

    def _merger(self, merge: Merge, named: dict[str, Merge]) -> Merger:
        like = self._like(merge, named)
        return Merger(merge, like, lambda ref: self._region(ref, named), lambda ref: self._known(ref, named))

    def _let(self, merge: Merge, named: dict[str, Merge]) -> RecipeLine:
        assert merge.name is not None
        merger = self._merger(merge, named)
        value = merger.expression()
        remarks = self._remarks(merge)
        if merge.dtype or merge.out_dtype:
            remarks.append("mergekit rounds this to its dtype on the way; here it stays in float32")
        for label, given in (("tokenizer", merge.tokenizer), ("chat_template", merge.chat_template)):
            if given is not None:
                remarks.append(f"not carried over: the `{label}` of a merge that is not the output")
                self._warn("W0711", f"only the output has a {label}", given.span, "left out")
        text = f"let {self.names[_named_key(merge.name.value)]} = {value.text}"
        return RecipeLine(text, merge.method.span, value.arguments, (*remarks, *merger.remarks), gap=True)

    def _output(self, merge: Merge, named: dict[str, Merge], template: ModelRef) -> list[RecipeLine]:
        merger = self._merger(merge, named)
        errors: list[Diagnostic] = []
        lines: list[RecipeLine] = []
        settings: list[tuple[str, ArgumentOrigin]] = []
        notes: list[str] = []
        with collecting(errors):
            lines = merger.lines()
            self.warnings.extend(merger.warnings)
        first, like = self.names[template.plain.key], self._like(merge, named)
        if like.path in named or (merge.base is not None and like.key != merge.base.key):
            settings.append((f"like={first}", ArgumentOrigin(template.span)))
        with collecting(errors):
            settings.extend(self._dtypes(merge, named))
        if merger.layers is not None:
            settings.append((f"layers={merger.layers}", ArgumentOrigin(merge.modules[0].span)))
        for write in (tokenizer_settings, chat_settings):
            with collecting(errors):
                found, said = write(merge, lambda ref: self._region(ref.plain, named), self.shelf)
                settings.extend(found)
                notes.extend(said)
        if errors:
            raise MergecError(errors)
        out = []
        if settings:
            text = f"output({', '.join(t for t, _ in settings)})"
            out.append(RecipeLine(text, merge.method.span, tuple(o for _, o in settings), tuple(notes), gap=True))
            notes = []
        above = (*notes, *self._remarks(merge), *merger.remarks)
        head = lines[0]
        out.append(RecipeLine(head.text, head.span, head.arguments, above, gap=True))
        return [*out, *lines[1:]]

    def _dtypes(self, merge: Merge, named: dict[str, Merge]) -> list[tuple[str, ArgumentOrigin]]:
        for given in (merge.dtype, merge.out_dtype):
            if given is not None and given.value.removeprefix("torch.") not in _DTYPES:
                message = f"`{bare(given.value)}` is no dtype of a merge"
                notes = (f"there are {', '.join(f'`{d}`' for d in _DTYPES)}",)
                raise error("E0704", message, given.span, "unknown dtype", notes=notes)
        chosen = merge.out_dtype or merge.dtype
        out = (
            [] if chosen is None else [(f'dtype="{chosen.value.removeprefix("torch.")}"', ArgumentOrigin(chosen.span))]
        )
        if chosen is None:
            found = [self._known(ref, named) for ref in merge.models()]
            floats = {d for known in found if known for d in known.dtypes if d in FLOATS}
            if len(floats) > 1:
                wide = "F64" if "F64" in floats else "F32"
                name = next(k for k, v in NAMES.items() if v == wide)
                out.append((f'dtype="{name}"', ArgumentOrigin(merge.method.span)))
        if merge.dtype is not None and merge.dtype.value.endswith("float64"):
            out.append(('compute="float64"', ArgumentOrigin(merge.dtype.span)))
        return out

    # --- what is said

    def _remarks(self, merge: Merge) -> list[str]:
        """Comments of the YAML that belong to no model, and what is not carried over."""
        inputs = [i.lines for module in merge.modules for i in module.models]
        out = []
        for comment in merge.comments:
            if comment.span.end > merge.root.span.start and _owner(comment, inputs) is None:
                out.append(comment.text)
        for ignored in merge.ignored:
            key = bare(ignored.key)
            reason = "which stands again below" if ignored.again else "which mergekit passes over too"
            out.append(f"not carried over: `{key}`, {reason}")
            message = (
                f"`{key}` stands twice, and the last counts" if ignored.again else f"mergekit does not know `{key}`"
            )
            self._warn("W0711", message, ignored.span, "passed over")
        out.extend(self._parameters(merge))
        if merge.raw:
            out.append("mergekit-pytorch gives every tensor the first value of a list")
        method = METHODS.get(merge.method.value)
        if method is not None and method.random and _thinned(merge):
            out.append("random masks are drawn anew: as many elements are kept as in mergekit, but others")
        return list(dict.fromkeys(out))

    def _parameters(self, merge: Merge) -> Iterable[str]:
        method = METHODS.get(merge.method.value)
        if method is None:
            return
        for scope, own, base in _scopes(merge):
            for setting in scope:
                name = bare(setting.name)
                parameter = method.parameter(setting.name)
                if parameter is None:
                    yield f"not carried over: `{name}`, which `{method.name}` does not have"
                    meant = near(setting.name, [p.name for p in method.parameters])
                    message = f"`{method.name}` has no parameter `{name}`"
                    self._warn("W0711", message, setting.key_span, "passed over", meant)
                elif own and parameter.reach is Reach.SHARED:
                    yield f"not carried over: `{name}` of a single model, for it is the whole merge's"
                    self._warn("W0711", f"`{name}` is not a model's own", setting.key_span, "passed over")
                elif base and method.base is not Base.IGNORED:
                    yield f"not carried over: `{name}` of the base, which has none"
                    self._warn("W0711", f"the base has no `{name}`", setting.key_span, "passed over")
                elif parameter.ours is None:
                    yield f"`{name}` makes no difference in `{method.name}` here, and is left out"
                for branch in setting.branches:
                    if branch.filter is not None and unmatchable(branch.filter):
                        shown = write_string(branch.filter)
                        yield f"not carried over: the filter {shown} fits no name, since a filter is plain text"
                        self._warn("W0712", f"the filter {shown} fits no tensor", branch.span, "no wildcards here")

    def _warn(self, code: str, message: str, span: Span, label: str, meant: Sequence[str] = ()) -> None:
        help_ = f"did you mean {' or '.join(f'`{m}`' for m in meant)}?" if meant else ()
        found = finding(code, message, span, label, help=help_)
        if found not in self.warnings:
            self.warnings.append(found)


def _named_key(name: str) -> Key:
    """The key of a reference to a named merge."""
    return name, None, None, None


def _notes(order: Sequence[Merge]) -> dict[Key, list[str]]:
    """The comments that belong to models."""
    notes: dict[Key, list[str]] = {}
    for merge in order:
        inputs = [i for module in merge.modules for i in module.models]
        for comment in merge.comments:
            owner = _owner(comment, [i.lines for i in inputs])
            if owner is not None:
                notes.setdefault(inputs[owner].model.key, []).append(comment.text)
    return notes


def _scopes(merge: Merge) -> Iterable[tuple[Scope, bool, bool]]:
    """Every scope of a merge: (settings, whether they are one input's, whether that is the
    base)."""
    yield merge.parameters, False, False
    for module in merge.modules:
        yield module.parameters, False, False
        for entry in module.models:
            yield entry.parameters, True, merge.base is not None and entry.model.key == merge.base.key
        for part in module.slices:
            yield part.parameters, False, False
            base = part.base or merge.base
            for entry in part.sources:
                yield entry.parameters, True, base is not None and entry.model.key == base.key


def _thinned(merge: Merge) -> bool:
    """Whether a density other than 1 is given anywhere."""
    given = [s for scope, _, _ in _scopes(merge) for s in scope if s.name == "density"]
    return any(value != 1 for setting in given for branch in setting.branches for value in branch.values)


def _owner(comment: YamlComment, entries: Sequence[tuple[int, int]]) -> int | None:
    """The entry that a comment belongs to: it stands right above it, or else in it."""
    line = comment.line
    if comment.own:
        lines = comment.span.source.text.split("\n")
        while line <= len(lines) and lines[line - 1].lstrip()[:1] in ("", "#"):
            line += 1
    for k, (first, last) in enumerate(entries):
        if line == first or (first <= comment.line <= last and all(line != f for f, _ in entries)):
            return k
    return None
