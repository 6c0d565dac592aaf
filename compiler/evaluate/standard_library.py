"""The standard library: which function is in which file, parsed when first asked for; and
primitives from outside."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from ...grammar import ast
from ...grammar.parse import parse
from ...grammar.source import Source
from .builtins import Builtin
from .extensions import Primitive, as_function
from .scopes import Function, Scope

_DEF = re.compile(r"^def ([A-Za-z_]\w*)", re.MULTILINE)


class Library:
    """Parsed library files: the standard library by function name, `use`d files by path.

    `primitives` are the functions of installed packages, `used` those that were called for.
    """

    def __init__(self, primitives: Mapping[str, Primitive] | None = None) -> None:
        self.primitives: Mapping[str, Primitive] = {} if primitives is None else primitives
        self.used: dict[str, Primitive] = {}
        self._texts = standard_texts()
        self._where = {name: file for file, text in self._texts.items() for name in _DEF.findall(text)}
        self._scopes: dict[str, Scope] = {}
        self._modules: dict[tuple[str, str], ast.Module] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The functions of the standard library."""
        return tuple(self._where)

    def source(self, name: str) -> tuple[str, str] | None:
        """File name and text of the standard library file that defines a function."""
        file = self._where.get(name)
        return None if file is None else (file, self._texts[file])

    def function(self, name: str) -> Function | None:
        """A function of the standard library; its own calls see the standard library alone."""
        file = self._where.get(name)
        if file is None:
            return None
        if file not in self._scopes:
            module = standard_module(file)
            scope = Scope({})
            for statement in module.statements:
                if isinstance(statement, ast.Def):
                    scope.values[statement.name.id] = Function(statement, scope, True)
            self._scopes[file] = scope
        found = self._scopes[file].values[name]
        assert isinstance(found, Function)
        return found

    def primitive(self, name: str) -> Builtin | None:
        """A function of an installed package. Raises PrimitiveError where that does not keep to
        what it promises."""
        found = self.primitives.get(name)
        if found is None:
            return None
        self.used[name] = found
        return as_function(found)

    def parse(self, name: str, text: str) -> ast.Module:
        """A file's syntax tree, parsed once. Raises MergecError."""
        key = (name, text)
        if key not in self._modules:
            self._modules[key] = parse(Source(name, text))
        return self._modules[key]


@functools.cache
def standard_texts() -> Mapping[str, str]:
    """File name to text of every `stdlib/*.mrg`."""
    files = sorted((Path(__file__).resolve().parents[2] / "stdlib").glob("*.mrg"))
    return {file.name: file.read_text("utf-8") for file in files}


@functools.cache
def standard_module(file: str) -> ast.Module:
    """The syntax tree of a standard library file: the same for every recipe of a process."""
    return parse(Source(f"stdlib/{file}", standard_texts()[file]))
