"""From a YAML document to a `Merge`: what must be there, of which kind, and what mergekit would not
look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from ...grammar.diagnostic import Diagnostic, Label, MergecError, collecting, error, finding
from ...grammar.literals import bare, write_string
from ...grammar.source import Span
from ...grammar.suggest import near
from .configuration import (
    Branch,
    Ignored,
    Input,
    Merge,
    ModelRef,
    ModuleSpec,
    Scope,
    ScopedParameter,
    Slice,
    Text,
    TokenizerSpec,
    TokenRule,
    Value,
)
from .yaml_tree import Tree, YamlDocument, YamlEntry, YamlMapping, YamlScalar, YamlSequence

_T = TypeVar("_T")

_KEYS = {
    "merge": (
        *("name", "merge_method", "models", "slices", "modules", "base_model", "dtype", "out_dtype"),
        *("parameters", "tokenizer", "tokenizer_source", "chat_template"),
    ),
    "module": ("models", "slices", "parameters"),
    "slice": ("sources", "base_model", "parameters"),
    "source": ("model", "layer_range", "parameters"),
    "model": ("model", "parameters"),
    "reference": ("model", "lora", "override_architecture"),
    "path": ("path", "revision"),
    "condition": ("value", "filter"),
    "tokenizer": ("source", "tokens", "pad_to_multiple_of"),
    "token": ("source", "force"),
    "row": ("kind", "model", "token", "token_id"),
}
"""What mergekit knows at each level; it passes over anything else in silence."""

_RAW = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)$")


def read_merge(document: YamlDocument) -> Merge:
    """A document's merge. Raises MergecError (E0702, E0704) with everything that is wrong in it."""
    return _Reader().merge(document)


class _Reader:
    def __init__(self) -> None:
        self._errors: list[Diagnostic] = []
        self._ignored: list[Ignored] = []

    def merge(self, document: YamlDocument) -> Merge:
        root = document.root
        if not isinstance(root, YamlMapping):
            raise _wrong("a configuration is a mapping of keys", root.span, "not one")
        self._look(root, "merge")
        given = [e for k in ("models", "slices", "modules") if (e := _there(root, k))]
        if not given and (experts := _there(root, "experts")):
            message = "this is a configuration of mergekit-moe, which makes a mixture of experts"
            help_ = "merge its experts' models one by one, or let mergekit-moe make the mixture"
            raise error("E0702", message, experts.key_span, "models that become experts", help=help_)
        if len(given) != 1:
            labels = [Label(e.key_span, "one of them") for e in given] or [Label(_first_line(root))]
            found = "give one alone" if given else "none of them is given"
            raise error("E0702", f"what is merged stands under `models`, `slices` or `modules`: {found}", labels)
        method = _there(root, "merge_method")
        if method is None:
            meant = next((e for e in root.entries if near(e.key, ["merge_method"])), None)
            if meant is not None:
                message = f"`merge_method` is missing, and `{bare(meant.key)}` is not known"
                raise error("E0702", message, meant.key_span, "not a key", help="did you mean `merge_method`?")
            raise _wrong("`merge_method` is missing", _first_line(root), "in this configuration")
        modules = self._modules(given[0])
        source, tokenizer = _there(root, "tokenizer_source"), _there(root, "tokenizer")
        if source and tokenizer:
            labels = [Label(tokenizer.key_span), Label(source.key_span)]
            self._errors.append(finding("E0702", "`tokenizer` and `tokenizer_source` exclude each other", labels))
        merge = Merge(
            name=self._text(_there(root, "name")),
            method=self._text(method) or Text("", method.key_span),
            modules=modules,
            base=self._reference_at(_there(root, "base_model")),
            dtype=self._text(_there(root, "dtype")),
            out_dtype=self._text(_there(root, "out_dtype")),
            tokenizer=self._tokenizer(tokenizer) if tokenizer else self._tokenizer_source(source),
            chat_template=self._text(_there(root, "chat_template")),
            parameters=self._parameters(root),
            raw=all(_RAW.search(i.model.path) and i.layers is None for m in modules for i in _inputs_of(m)),
            ignored=tuple(self._ignored),
            comments=document.comments,
            root=root,
            span=_first_line(root),
        )
        if self._errors:
            raise MergecError(self._errors)
        return merge

    # --- inputs

    def _modules(self, given: YamlEntry) -> tuple[ModuleSpec, ...]:
        if given.key == "modules":
            return tuple([self._module(e.key, e.value) for e in self._entries(given)])
        models = self._inputs(given, self._model) if given.key == "models" else ()
        slices = tuple(self._each(given, self._slice)) if given.key == "slices" else ()
        return (ModuleSpec(None, models, slices, (), given.key_span),)

    def _module(self, name: str, tree: Tree) -> ModuleSpec:
        if not isinstance(tree, YamlMapping):
            raise _wrong(f"the module `{bare(name)}` is a mapping with `models` or `slices`", tree.span, "not one")
        self._look(tree, "module")
        models, slices = _there(tree, "models"), _there(tree, "slices")
        if bool(models) == bool(slices):
            raise _wrong(f"the module `{bare(name)}` has either `models` or `slices`", _first_line(tree), "here")
        return ModuleSpec(
            name,
            self._inputs(models, self._model) if models else (),
            tuple(self._each(slices, self._slice)) if slices else (),
            self._parameters(tree),
            _first_line(tree),
        )

    def _inputs(self, entry: YamlEntry, read: Callable[[Tree], Input]) -> tuple[Input, ...]:
        return tuple(self._each(entry, read))

    def _each(self, entry: YamlEntry, read: Callable[[Tree], _T]) -> list[_T]:
        """The items of a list, those that are wrong reported and skipped."""
        if not isinstance(entry.value, YamlSequence) or not entry.value.items:
            self._note(f"`{entry.key}` is a list", entry.key_span, "no list follows")
            return []
        out = []
        for item in entry.value.items:
            with collecting(self._errors):
                out.append(read(item))
        return out

    def _slice(self, tree: Tree) -> Slice:
        sources = _there(tree, "sources") if isinstance(tree, YamlMapping) else None
        if not isinstance(tree, YamlMapping) or sources is None:
            raise _wrong("a slice is a mapping with `sources`", _first_line(tree), "has none")
        self._look(tree, "slice")
        base = self._reference_at(_there(tree, "base_model"))
        return Slice(self._inputs(sources, self._source), base, self._parameters(tree), _first_line(tree))

    def _source(self, tree: Tree) -> Input:
        found = self._model(tree, "source")
        assert isinstance(tree, YamlMapping)
        given = _there(tree, "layer_range")
        if given is None:
            raise _wrong("a source needs `layer_range: [first, end]`", _first_line(tree), "has none")
        items = given.value.items if isinstance(given.value, YamlSequence) else ()
        bounds = [_integer(i) for i in items]
        if len(bounds) != 2 or None in bounds:
            raise _wrong("a `layer_range` is two whole numbers", given.value.span, "not such a range")
        first, end = bounds[0] or 0, bounds[1] or 0
        if not 0 <= first <= end:
            message = f"the layer range {first} to {end} runs backwards" if first > end else "layers count from 0"
            notes = ("a range leaves out its end: `[0, 4]` is the layers 0 to 3",)
            raise error("E0707", message, given.value.span, "no layers", notes=notes)
        return Input(found.model, (first, end), found.parameters, found.lines, found.span)

    def _model(self, tree: Tree, level: str = "model") -> Input:
        entry = _there(tree, "model") if isinstance(tree, YamlMapping) else None
        if not isinstance(tree, YamlMapping) or entry is None:
            raise _wrong("an input is a mapping with `model`", _first_line(tree), "has none")
        self._look(tree, level)
        source = tree.span.source
        lines = source.position(tree.span.start)[0], source.position(tree.span.end)[0]
        return Input(self._reference(entry.value), None, self._parameters(tree), lines, _first_line(tree))

    def _reference_at(self, entry: YamlEntry | None) -> ModelRef | None:
        if entry is None:
            return None
        with collecting(self._errors):
            return self._reference(entry.value)
        return None

    def _reference(self, tree: Tree) -> ModelRef:
        if isinstance(tree, YamlMapping) and _there(tree, "model"):
            self._look(tree, "reference")
            inner, lora = _there(tree, "model"), _there(tree, "lora")
            assert inner is not None
            path, revision = self._path(inner.value)
            adapter = ModelRef(*self._path(lora.value), None, None, lora.value.span) if lora else None
            architecture = self._text(_there(tree, "override_architecture"))
            return ModelRef(path, revision, adapter, architecture.value if architecture else None, tree.span)
        text = tree.value if isinstance(tree, YamlScalar) else None
        if not isinstance(text, str | int | float) or isinstance(text, bool):
            raise _wrong("a model is named by a path", tree.span, "no path")
        head, *adapters = tree.span.text.strip("'\"").split("+") if not isinstance(text, str) else text.split("+")
        if len(adapters) > 1:
            raise _wrong("a model has one adapter at most: `model+adapter`", tree.span, "more than one `+`")
        path, revision = _at(head, tree.span)
        adapter = ModelRef(*_at(adapters[0], tree.span), None, None, tree.span) if adapters else None
        return ModelRef(path, revision, adapter, None, tree.span)

    def _path(self, tree: Tree) -> tuple[str, str | None]:
        if isinstance(tree, YamlMapping):
            self._look(tree, "path")
            path, revision = self._text(_there(tree, "path")), self._text(_there(tree, "revision"))
            if path is not None:
                return path.value, revision.value if revision else None
        elif isinstance(tree, YamlScalar) and isinstance(tree.value, str):
            return _at(tree.value, tree.span)
        raise _wrong("a model is named by a path", tree.span, "no path")

    # --- parameters

    def _parameters(self, tree: YamlMapping) -> Scope:
        entry = _there(tree, "parameters")
        if entry is None:
            return ()
        out = []
        for e in self._entries(entry):
            with collecting(self._errors):
                branches = self._branches(e.value)
                if branches:  # an empty list leaves it to the next scope
                    out.append(ScopedParameter(e.key, branches, e.key_span, e.value.span))
        return tuple(out)

    def _branches(self, tree: Tree) -> tuple[Branch, ...]:
        if isinstance(tree, YamlMapping):
            return (self._condition(tree),)
        if isinstance(tree, YamlSequence) and any(isinstance(i, YamlMapping) for i in tree.items):
            return tuple([self._condition(i) for i in tree.items])
        values, gradient = self._values(tree)
        return (Branch(None, values, gradient, tree.span),) if values else ()

    def _condition(self, tree: Tree) -> Branch:
        entry = tree.get("value") if isinstance(tree, YamlMapping) else None
        if not isinstance(tree, YamlMapping) or entry is None:
            raise _value("a condition is `filter` and `value`", tree.span, "has no `value`")
        self._look(tree, "condition")
        values, gradient = self._values(entry.value)
        if not values:
            raise _value("a condition without a value can't be carried over", entry.value.span, "an empty list")
        chosen = self._text(_there(tree, "filter"))
        filter_ = chosen.value if chosen else None
        return Branch(None if filter_ in ("*", "") else filter_, values, gradient, tree.span)

    def _values(self, tree: Tree) -> tuple[tuple[Value, ...], bool]:
        items = tree.items if isinstance(tree, YamlSequence) else (tree,)
        out: list[Value] = []
        for item in items:
            if not isinstance(item, YamlScalar) or item.value is None:
                raise _value("a parameter is a value, a list of values, or conditions", item.span, "none of these")
            out.append(item.value)
        return tuple(out), isinstance(tree, YamlSequence)

    # --- tokenizer

    def _tokenizer_source(self, entry: YamlEntry | None) -> TokenizerSpec | None:
        return TokenizerSpec(self._vocabulary(entry), (), None, entry.value.span) if entry else None

    def _vocabulary(self, entry: YamlEntry | None) -> str | ModelRef:
        if entry is None:
            return "union"
        if isinstance(entry.value, YamlScalar) and entry.value.value in ("union", "base"):
            return str(entry.value.value)
        return self._reference_at(entry) or "base"

    def _tokenizer(self, entry: YamlEntry) -> TokenizerSpec | None:
        tree = entry.value
        if not isinstance(tree, YamlMapping):
            self._note("`tokenizer` is a mapping", tree.span, "not one")
            return None
        self._look(tree, "tokenizer")
        tokens, pad = _there(tree, "tokens"), _there(tree, "pad_to_multiple_of")
        size = _integer(pad.value) if pad else None
        if pad and (size is None or size < 1):
            self._errors.append(finding("E0704", "`pad_to_multiple_of` is a whole number", pad.value.span, "not one"))
        rules = [self._token(e) for e in self._entries(tokens)] if tokens else []
        return TokenizerSpec(self._vocabulary(_there(tree, "source")), tuple(rules), size, entry.key_span)

    def _token(self, entry: YamlEntry) -> TokenRule:
        tree, force, source = entry.value, False, None
        if isinstance(tree, YamlMapping):
            self._look(tree, "token")
            given = _there(tree, "force")
            force = given is not None and isinstance(given.value, YamlScalar) and given.value.value is True
            source = _there(tree, "source")
        if source is None:
            self._note(f"the token {write_string(entry.key)} needs a `source`", entry.key_span, "has none")
            return TokenRule(entry.key, None, None, None, True, force, entry.key_span)
        inner = source.value
        if isinstance(inner, YamlMapping) and _there(inner, "kind"):
            self._look(inner, "row")
            kind = self._text(_there(inner, "kind"))
            if kind and kind.value == "zero":
                return TokenRule(entry.key, None, None, None, True, force, entry.key_span)
            token, number = self._text(_there(inner, "token")), _there(inner, "token_id")
            model = self._reference_at(_there(inner, "model"))
            id_ = _integer(number.value) if number else None
            if model is None or (token is None) == (id_ is None):
                self._note("a row is named by a `model` and either a `token` or a `token_id`", inner.span, "here")
            return TokenRule(entry.key, model, token.value if token else None, id_, False, force, entry.key_span)
        return TokenRule(entry.key, self._reference_at(source), None, None, False, force, entry.key_span)

    # --- words

    def _entries(self, entry: YamlEntry) -> tuple[YamlEntry, ...]:
        if isinstance(entry.value, YamlMapping):
            self._repeated(entry.value)
            return entry.value.entries
        self._note(f"`{entry.key}` is a mapping", entry.value.span, "not one")
        return ()

    def _text(self, entry: YamlEntry | None) -> Text | None:
        if entry is None:
            return None
        if not isinstance(entry.value, YamlScalar) or isinstance(entry.value.value, bool):
            self._note(f"`{entry.key}` is a word", entry.value.span, "not one")
            return None
        return Text(str(entry.value.value), entry.value.span)

    def _note(self, message: str, span: Span, label: str) -> None:
        """Notes what is wrong, and goes on."""
        self._errors.append(finding("E0702", message, span, label))

    def _look(self, tree: YamlMapping, level: str) -> None:
        """Notes the keys that mergekit would pass over, and those that another of the same name
        replaces."""
        self._repeated(tree)
        self._ignored.extend(Ignored(e.key, False, e.key_span) for e in tree.entries if e.key not in _KEYS[level])

    def _repeated(self, tree: YamlMapping) -> None:
        self._ignored.extend(Ignored(e.key, True, e.key_span) for e in tree.dropped)


def _inputs_of(module: ModuleSpec) -> tuple[Input, ...]:
    return module.models + tuple([source for part in module.slices for source in part.sources])


def _there(tree: Tree, key: str) -> YamlEntry | None:
    """The entry of a key, unless its value is null."""
    found = tree.get(key) if isinstance(tree, YamlMapping) else None
    return None if found is None or (isinstance(found.value, YamlScalar) and found.value.value is None) else found


def _at(text: str, span: Span) -> tuple[str, str | None]:
    path, *revisions = text.split("@")
    if len(revisions) > 1 or not path:
        raise _wrong(f"`{bare(text)}` is not of the form `path` or `path@revision`", span, "not a model")
    return path, revisions[0] if revisions else None


def _integer(tree: Tree) -> int | None:
    value = tree.value if isinstance(tree, YamlScalar) else None
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first_line(tree: Tree) -> Span:
    """The first line of a block, which is enough to point at it."""
    head = tree.span.text.split("\n", 1)[0].rstrip()
    return Span(tree.span.source, tree.span.start, tree.span.start + max(1, len(head)))


def _wrong(message: str, span: Span, label: str) -> MergecError:
    return error("E0702", message, span, label)


def _value(message: str, span: Span, label: str) -> MergecError:
    return error("E0704", message, span, label)
