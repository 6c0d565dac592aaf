"""Sections as TOML: sorted, a line an item. Tables stand after the other items of theirs; but the
rules of a layout, whose order counts, are a line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 120
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def written(sections: Mapping[str, Mapping[str, Any]], header: str) -> str:
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for kind in sorted(sections):
        lines += ["", *_table([kind], sections[kind])]
    return "\n".join(lines) + "\n"


def key(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def value(what: Any) -> str:
    """On one line."""
    if isinstance(what, Mapping):
        return "{ " + ", ".join(f"{key(k)} = {value(v)}" for k, v in what.items()) + " }" if what else "{}"
    if isinstance(what, list | tuple):
        return "[" + ", ".join(map(value, what)) + "]"
    if isinstance(what, bool):
        return "true" if what else "false"
    return json.dumps(what, ensure_ascii=False)


def _table(path: list[str], table: Mapping[str, Any], double: bool = False) -> Iterator[str]:
    dotted = ".".join(map(key, path))
    heading = f"[[{dotted}]]" if double else f"[{dotted}]"
    lines, inner = [], []
    for name, what in table.items():
        line = f"{key(name)} = {value(what)}"
        tables = isinstance(what, list) and what and all(isinstance(each, Mapping) for each in what)
        if (tables and len(path) == 1) or (isinstance(what, Mapping) and len(line) > _WIDTH and path[-1] != "rules"):
            inner.append((name, what))
        elif isinstance(what, list) and len(line) > _WIDTH:
            lines += [f"{key(name)} = [", *(f"    {value(each)}," for each in what), "]"]
        else:
            lines.append(line)
    if lines or double or len(path) == 1 or not table:
        yield heading
        yield from lines
    for name, what in inner:
        if isinstance(what, Mapping):
            yield from _table([*path, name], what)
        else:
            for each in what:
                yield from _table([*path, name], each, double=True)
