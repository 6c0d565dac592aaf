"""Imports point one way (grammar <- compiler <- runtime <- cli), and heavy libraries stay in their layer."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = {"grammar": 0, "stdlib": 0, "compiler": 1, "runtime": 2, "cli": 3, "": 4}
"""Rank of each folder; a module may import from its own folder and from those of lower rank. `""` is the root."""

HEAVY = {
    "lark": "grammar",
    "networkx": "compiler",
    "torch": "runtime",
    "safetensors": "runtime",
    "huggingface_hub": "runtime",
}
"""The one folder that may import each of these."""

LAZY = (
    ("", "runtime"),
    ("cli/", "runtime"),
    ("cli/main.py", "cli"),
    ("runtime/api.py", "runtime.session"),
    ("runtime/executor.py", "runtime.engine"),
    ("runtime/engine.py", "runtime.portable"),
    ("runtime/engine.py", "runtime.devices"),
    ("runtime/weights.py", "runtime.pickled"),
)
"""(prefix of the file, prefix of what it imports) allowed inside a function: what loads torch or numpy, or only a run
needs, is loaded when needed."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `target` is a dotted name from the root of the package, or of another distribution."""

    file: Path
    line: int
    target: str
    own: bool
    nested: bool
    typing_only: bool

    @property
    def folder(self) -> str:
        """The top folder of the importing module; empty for the package's root."""
        return self.file.parts[0] if len(self.file.parts) > 1 else ""

    @property
    def target_folder(self) -> str:
        """The top folder of what is imported, where it is our own."""
        head = self.target.split(".")[0]
        return head if head in LAYERS else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.target}"


class _Reader(ast.NodeVisitor):
    """Collects the imports of one module."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: list[Import] = []
        self._functions = 0
        self._typing = 0

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        typing = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        self._typing += typing
        for child in node.body:
            self.visit(child)
        self._typing -= typing
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node.lineno, *self._resolved(alias.name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        name = "." * node.level + (node.module or "")
        for alias in node.names:
            self._add(node.lineno, *self._resolved(name, alias.name))

    def visit_Call(self, node: ast.Call) -> None:
        """`import_module("…")` counts as an import of its literal argument."""
        if ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__") and node.args:
            literal = node.args[0]
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                self._add(node.lineno, *self._resolved(literal.value))
        self.generic_visit(node)

    def _resolved(self, name: str, *rest: str) -> tuple[str, bool]:
        """The dotted name from the package's root or of another distribution, and whether it is the package's own."""
        bare = name.lstrip(".")
        level = len(name) - len(bare)
        path = [part for part in bare.split(".") if part]
        own = level > 0 or path[:1] == ["mergec"]
        if level:
            package = self.file.parent.parts
            path = [*package[: len(package) - level + 1], *path]
        elif own:
            path = path[1:]
        return ".".join([*path, *rest]), own

    def _add(self, line: int, target: str, own: bool) -> None:
        self.found.append(Import(self.file, line, target, own, self._functions > 0, self._typing > 0))


def read(file: Path, text: str) -> list[Import]:
    """The imports in a module's text; `file` is relative to the package's root."""
    reader = _Reader(file)
    reader.visit(ast.parse(text))
    return reader.found


def sources() -> Iterator[Path]:
    """Every module of the package, relative to its root."""
    yield from (p.relative_to(ROOT) for p in sorted(ROOT.glob("*.py")))
    for folder in sorted(filter(None, LAYERS)):
        yield from (p.relative_to(ROOT) for p in sorted((ROOT / folder).rglob("*.py")))


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(found for file in sources() for found in read(file, (ROOT / file).read_text("utf-8")))


def upward(found: Import) -> bool:
    return found.own and LAYERS[found.target_folder] > LAYERS[found.folder]


def misplaced(found: Import) -> bool:
    home = None if found.own else HEAVY.get(found.target.split(".")[0])
    return home is not None and home != found.folder


def hidden(found: Import) -> bool:
    lazy = any(
        found.target.startswith(target) and (found.file.as_posix().startswith(file) if file else not found.folder)
        for file, target in LAZY
    )
    return found.own and found.nested and not lazy


def test_imports_point_downwards() -> None:
    assert not [str(i) for i in imports() if upward(i)]


def test_heavy_libraries_stay_in_their_layer() -> None:
    assert not [str(i) for i in imports() if misplaced(i)]


def test_no_import_hides_in_a_function() -> None:
    assert not [str(i) for i in imports() if hidden(i)]


def test_inside_the_package_imports_are_relative() -> None:
    files = {i.file for i in imports()}
    assert not [str(f) for f in files if "mergec" in absolute_roots((ROOT / f).read_text("utf-8"))]


def absolute_roots(text: str) -> set[str]:
    """The first parts of all absolute imports in a module's text."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def test_nothing_imports_tests() -> None:
    assert not [
        str(i) for i in imports() if not i.own and i.target.split(".")[0] in ("tests", "benchmarks", "examples")
    ]


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("grammar/parse.py", "from ..compiler.graph import Node", upward),
        ("grammar/parse.py", "from .. import compiler", upward),
        ("compiler/passes/fuse.py", "from ...runtime import reader", upward),
        ("compiler/graph.py", "import mergec.cli.main", upward),
        ("compiler/graph.py", "import torch", misplaced),
        ("cli/main.py", "def f():\n    import torch.nn", misplaced),
        ("compiler/graph.py", "from lark import Lark", misplaced),
        ("compiler/graph.py", "import importlib\nimportlib.import_module('torch')", misplaced),
        ("compiler/graph.py", "def f():\n    from .ops import OPS", hidden),
        ("compiler/graph.py", "def f():\n    import_module('.ops', __package__)", hidden),
        ("compiler/graph.py", "import_module('..runtime.reader', __package__)", upward),
    ],
)
def test_each_rule_sees_its_breach(file: str, text: str, rule: object) -> None:
    assert callable(rule)
    assert [i for i in read(Path(file), text) if rule(i)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("compiler/passes/fuse.py", "from ..graph import Node\nfrom ...grammar.source import Span\nimport networkx"),
        ("runtime/executor.py", "from ..compiler.plan import Plan\nimport torch"),
        ("cli/main.py", "def run():\n    from ..runtime.executor import execute"),
        ("__init__.py", "from .compiler.pipeline import compile_text"),
    ],
)
def test_what_is_allowed_passes(file: str, text: str) -> None:
    assert not [i for i in read(Path(file), text) if upward(i) or misplaced(i) or hidden(i)]


COMPILE = """
import sys
import mergec
from mergec.compiler.catalog import MemoryCatalog
shapes = {"embed.weight": ("BF16", (64, 32)), "layers.0.mlp.weight": ("BF16", (32, 32))}
catalog = MemoryCatalog({"a": {"tensors": shapes}, "b": {"tensors": shapes}})
mergec.compile('let a = model("a")\\nlet b = model("b")\\noutput(like=a)\\n* = linear(a, b)\\n', catalog=catalog)
"""


def test_help_does_without_parser_and_compiler() -> None:
    code = """
import contextlib, sys
from mergec.cli.main import main
with contextlib.suppress(SystemExit):
    main(["--help"])
heavy = {"lark", "networkx", "numpy", "torch", "mergec.grammar.parse", "mergec.compiler.pipeline", "mergec.runtime.api"}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("code", ["import sys, mergec, mergec.cli.main", COMPILE], ids=["import", "compile"])
def test_torch_is_not_loaded(code: str) -> None:
    loaded = "print(sorted({'torch', 'transformers', 'safetensors'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{loaded}"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
