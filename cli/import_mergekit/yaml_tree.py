"""YAML as a tree in which everything knows its place, and the comments between."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from ...grammar.diagnostic import MergecError, error
from ...grammar.error_codes import Exit
from ...grammar.records import dataclass
from ...grammar.source import Source, Span


@dataclass(frozen=True, slots=True)
class YamlScalar:
    """A single value, resolved as YAML 1.1 does (`on` is true, `1e-5` is text)."""

    value: bool | int | float | str | None
    span: Span


@dataclass(frozen=True, slots=True)
class YamlSequence:
    items: tuple[Tree, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class YamlEntry:
    key: str
    key_span: Span
    value: Tree


@dataclass(frozen=True, slots=True)
class YamlMapping:
    """Keys are unique: of several equal ones the last counts, and the others are `dropped`."""

    entries: tuple[YamlEntry, ...]
    span: Span
    dropped: tuple[YamlEntry, ...] = ()

    def get(self, key: str) -> YamlEntry | None:
        return next((e for e in self.entries if e.key == key), None)


Tree = YamlScalar | YamlSequence | YamlMapping


@dataclass(frozen=True, slots=True)
class YamlComment:
    """`text` is without the `#`; `line` counts from 1; `own`: it has a line of its own, and is not
    at the end of another."""

    text: str
    line: int
    own: bool
    span: Span


@dataclass(frozen=True, slots=True)
class YamlDocument:
    root: Tree
    comments: tuple[YamlComment, ...]


MAX_LENGTH = 1 << 18
"""The most characters of a file that are read: a configuration has some thousands."""

MAX_NODES = 50_000
"""The most values that a document may have with every alias written out: a few lines of aliases of
aliases name billions."""


def read_documents(source: Source) -> tuple[YamlDocument, ...]:
    """The documents of a YAML file without the empty ones.

    Raises MergecError: E0701 for what is not YAML, or only a bomb made of it; E0480 for too much
    text.
    """
    if len(source.text) > MAX_LENGTH:
        message = f"the file has {len(source.text)} characters, over the limit of {MAX_LENGTH}"
        raise error("E0480", message, file=source.name, exit=Exit.RECIPE)
    try:
        builder = _Builder(source)
        nodes = [n for n in yaml.compose_all(source.text, Loader=yaml.SafeLoader) if n is not None]
        roots = [builder.tree(n, ()) for n in nodes]
        comments = list(_comments(source))
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        raise _malformed(source, mark.index if mark else 0, fault.problem or "not YAML") from None
    except yaml.reader.ReaderError as fault:
        raise _malformed(source, fault.position, "a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError):
        raise _malformed(source, 0, "not YAML") from None
    except RecursionError:
        raise _malformed(source, 0, "nested too deeply") from None
    ends = [n.end_mark.index for n in nodes]
    owned: list[list[YamlComment]] = [[] for _ in roots]
    for comment in comments:
        owner = next((k for k, end in enumerate(ends) if comment.span.start < end), len(roots) - 1)
        if roots:
            owned[owner].append(comment)
    return tuple(YamlDocument(root, tuple(mine)) for root, mine in zip(roots, owned, strict=True))


def _malformed(source: Source, offset: int, problem: str) -> MergecError:
    offset = min(offset, len(source.text))
    return error("E0701", "this is not valid YAML", Span(source, offset, min(offset + 1, len(source.text))), problem)


# How PyYAML fails at a word that does not fit its tag: `!!int ""`, `!!bool x`, `!!timestamp x`,
# `59:59:…:59.0`.
_UNFIT = (ValueError, OverflowError, IndexError, KeyError, AttributeError, TypeError)

_MERGE = "tag:yaml.org,2002:merge"


class _Builder:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._loader: Any = yaml.SafeLoader("")
        self._done: dict[int, Tree] = {}
        self._sizes: dict[int, int] = {}

    def tree(self, node: Any, above: tuple[int, ...]) -> Tree:
        """A node of PyYAML as a tree; one that an alias names twice is made once."""
        if id(node) in above:
            raise yaml.MarkedYAMLError(problem="an alias inside of what it names", problem_mark=node.start_mark)
        if id(node) not in self._done:
            tree = self._make(node, (*above, id(node)))
            self._done[id(node)] = tree
            if self._size(tree) > MAX_NODES:
                problem = f"more than {MAX_NODES} values with all aliases written out"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return self._done[id(node)]

    def _make(self, node: Any, above: tuple[int, ...]) -> Tree:
        if isinstance(node, yaml.ScalarNode):
            return YamlScalar(self._value(node), self._span(node))
        if isinstance(node, yaml.SequenceNode):
            items = tuple([self.tree(n, above) for n in node.value])
            return YamlSequence(items, self._around(node, [i.span for i in items]))
        brought: list[YamlEntry] = []
        given: list[YamlEntry] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is not a word", problem_mark=key.start_mark)
            if key.tag == _MERGE:
                brought.extend(self._merged(value, above))
            else:
                given.append(YamlEntry(str(key.value), self._span(key), self.tree(value, above)))
        entries: dict[str, YamlEntry] = {}
        dropped: list[YamlEntry] = []
        for entry in (*brought, *given):
            if entry.key in entries and self._inside(entries[entry.key].key_span, node):
                dropped.append(entries[entry.key])
            entries[entry.key] = entry
        own = [e.value.span for e in entries.values() if self._inside(e.key_span, node)]
        return YamlMapping(tuple(entries.values()), self._around(node, own), tuple(dropped))

    def _merged(self, node: Any, above: tuple[int, ...]) -> list[YamlEntry]:
        """The entries that `<<: *defaults` brings in, each key once; of a list of mappings the
        first takes precedence."""
        tree = self.tree(node, above)
        mappings = tree.items if isinstance(tree, YamlSequence) else (tree,)
        entries: dict[str, YamlEntry] = {}
        for mapping in reversed(mappings):
            if not isinstance(mapping, YamlMapping):
                raise yaml.MarkedYAMLError(problem="`<<` takes mappings", problem_mark=node.start_mark)
            entries.update((entry.key, entry) for entry in mapping.entries)
        return list(entries.values())

    def _size(self, tree: Tree) -> int:
        """How many values a tree has, those that are named twice counted twice."""
        if isinstance(tree, YamlScalar):
            return 1
        if id(tree) not in self._sizes:
            below = tree.items if isinstance(tree, YamlSequence) else [entry.value for entry in tree.entries]
            self._sizes[id(tree)] = 1 + sum(self._size(each) for each in below)
        return self._sizes[id(tree)]

    def _inside(self, span: Span, node: Any) -> bool:
        """Whether something stands in a node itself, and was not brought in by `<<`."""
        return bool(node.start_mark.index <= span.start < node.end_mark.index)

    def _around(self, node: Any, parts: list[Span]) -> Span:
        """The span of a list or mapping; a block ends with its last part, not with the comments
        below."""
        span = self._span(node)
        ends = [p.end for p in parts if span.start <= p.start < span.end]
        return span if node.flow_style or not ends else Span(span.source, span.start, max(ends))

    def _value(self, node: Any) -> bool | int | float | str | None:
        try:
            value = self._loader.construct_object(node)
        except _UNFIT:
            return str(node.value)
        return value if value is None or isinstance(value, bool | int | float | str) else str(node.value)

    def _span(self, node: Any) -> Span:
        start, end = node.start_mark.index, node.end_mark.index
        text = self._source.text[start:end]
        return Span(self._source, start, start + len(text.rstrip()) if text.strip() else end)


def _comments(source: Source) -> Iterator[YamlComment]:
    """What stands behind `#` between the tokens of YAML."""
    reached = 0
    for token in yaml.scan(source.text, Loader=yaml.SafeLoader):
        gap = source.text[reached : max(reached, token.start_mark.index)]
        for found in re.finditer(r"#([^\r\n]*)", gap):
            start, end = reached + found.start(), reached + found.end()
            line, column = source.position(start)
            own = not source.line(line)[: column - 1].strip()
            yield YamlComment(found[1].strip(), line, own, Span(source, start, end))
        reached = max(reached, token.end_mark.index)
