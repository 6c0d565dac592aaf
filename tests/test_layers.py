"""The house: imports between rooms point one way, there is no circle of files, and a room is
entered by its door.

A room is a folder of the package. Its `__init__` says in `__all__` which of its modules other rooms
may use. Heavy libraries stay in their part of the house.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = (
    "grammar",
    "stdlib",
    "compiler/family",
    "compiler/family/families",
    "compiler/checkpoint",
    "compiler/ops",
    "compiler/terms",
    "compiler/evaluate",
    "compiler/graph",
    "compiler/graph/passes",
    "compiler/elaborate",
    "compiler/plan",
    "compiler/pack",
    "compiler/schedule",
    "compiler/emit",
    "compiler/emit/chat_templates",
    "compiler/check",
    "compiler",
    "runtime/files",
    "runtime/formats",
    "runtime/formats/pickled",
    "runtime/catalog",
    "runtime/machine",
    "runtime/reduce",
    "runtime/stream",
    "runtime/portable/whole_tensor",
    "runtime/portable",
    "runtime/native",
    "runtime/execute",
    "runtime/resume",
    "runtime/output",
    "runtime/session",
    "runtime/verify",
    "runtime",
    "cli/terminal",
    "cli/formatter",
    "cli/explain",
    "cli/import_mergekit",
    "cli/commands",
    "cli",
    "",
)
"""A module may import from its own room and from rooms before it; `""` is the package's root."""

LARGEST = 20
"""As many modules as a room may have, so that one sees what it is for."""

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
    ("cli/commands/merge.py", "cli"),
    ("runtime/api.py", "runtime.session"),
    ("runtime/execute/executor.py", "runtime.execute.engine"),
    ("runtime/execute/engine.py", "runtime.portable"),
    ("runtime/execute/engine.py", "runtime.machine.accelerator"),
    ("runtime/catalog/weights.py", "runtime.formats.pickled"),
)
"""(prefix of the file, prefix of what it imports) allowed inside a function: what loads torch or
numpy, or only a run needs, is loaded when needed."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `target` is a dotted name from the root of the package, or of another
    distribution."""

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
    def room(self) -> str:
        return self.file.parent.as_posix().removeprefix(".")

    @property
    def target_room(self) -> str:
        """The room of what is imported, where it is our own."""
        path = self.target.replace(".", "/")
        return next((r for r in sorted(ROOMS, key=len, reverse=True) if f"{path}/".startswith(f"{r}/")), "")

    @property
    def entered(self) -> str:
        """What is imported of that room: a module of it, or a name of its `__init__`."""
        return self.target[len(self.target_room) :].lstrip(".").partition(".")[0]

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
        """The dotted name from the package's root or of another distribution, and whether it is the
        package's own."""
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
    for folder in ("grammar", "stdlib", "compiler", "runtime", "cli"):
        yield from (p.relative_to(ROOT) for p in sorted((ROOT / folder).rglob("*.py")))


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(found for file in sources() for found in read(file, (ROOT / file).read_text("utf-8")))


def upward(found: Import) -> bool:
    return found.own and ROOMS.index(found.target_room) > ROOMS.index(found.room)


@functools.cache
def doors(room: str) -> frozenset[str]:
    """What a room's `__init__` lists for other rooms."""
    for node in ast.parse((ROOT / room / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def through_the_wall(found: Import) -> bool:
    """Whether another room's module is used that is its own affair."""
    inside = not found.own or found.target_room in ("", found.room)
    return not inside and found.entered not in doors(found.target_room)


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


def test_every_folder_is_a_room_that_is_not_too_large() -> None:
    found: dict[str, int] = {}
    for file in sources():
        room = file.parent.as_posix().removeprefix(".")
        found[room] = found.get(room, 0) + (file.name != "__init__.py")
    assert found.keys() == set(ROOMS)
    assert not {room: count for room, count in found.items() if count > LARGEST}


def test_every_room_is_in_the_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    assert set(packages) == {".".join(filter(None, ("mergec", *room.split("/")))) for room in ROOMS}


def test_rooms_are_entered_by_their_doors() -> None:
    assert not [str(i) for i in imports() if through_the_wall(i)]
    used = {(i.target_room, i.entered) for i in imports() if i.own and i.target_room != i.room}
    assert not [(room, name) for room in filter(None, ROOMS) for name in doors(room) if (room, name) not in used]


def test_there_is_no_circle_of_files() -> None:
    modules = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in sources()}
    graph: dict[Path, set[Path]] = {}
    for found in imports():
        target = found.target if found.target in modules else found.target.rpartition(".")[0]
        if found.own and target in modules and modules[target] != found.file:
            graph.setdefault(found.file, set()).add(modules[target])
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" -> ".join(map(str, circle.args[1])))


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
        ("grammar/parse.py", "from ..compiler.graph.graph import Node", upward),
        ("compiler/ops/table.py", "from ..graph.graph import Node", upward),
        ("cli/main.py", "from ..runtime.native.select import Code", through_the_wall),
        ("grammar/parse.py", "from .. import compiler", upward),
        ("compiler/graph/passes/fuse.py", "from ....runtime.execute import engine", upward),
        ("compiler/graph/graph.py", "import mergec.cli.main", upward),
        ("compiler/graph/graph.py", "import torch", misplaced),
        ("cli/main.py", "def f():\n    import torch.nn", misplaced),
        ("compiler/graph/graph.py", "from lark import Lark", misplaced),
        ("compiler/graph/graph.py", "import importlib\nimportlib.import_module('torch')", misplaced),
        ("compiler/graph/graph.py", "def f():\n    from ..ops.table import OPS", hidden),
        ("compiler/graph/graph.py", "def f():\n    import_module('..ops.table', __package__)", hidden),
        ("compiler/graph/graph.py", "import_module('...runtime.execute.engine', __package__)", upward),
    ],
)
def test_each_rule_sees_its_breach(file: str, text: str, rule: object) -> None:
    assert callable(rule)
    assert [i for i in read(Path(file), text) if rule(i)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "compiler/graph/passes/fuse.py",
            "from ..graph import Node\nfrom ....grammar.source import Span\nimport networkx",
        ),
        ("runtime/execute/executor.py", "from ...compiler.plan.plan import Plan\nimport torch"),
        ("cli/main.py", "def run():\n    from ..runtime.execute.executor import execute"),
        ("__init__.py", "from .compiler.pipeline import compile_text"),
    ],
)
def test_what_is_allowed_passes(file: str, text: str) -> None:
    assert not [i for i in read(Path(file), text) if upward(i) or misplaced(i) or hidden(i)]


COMPILE = """
import sys
import mergec
from mergec.compiler.checkpoint.catalog import MemoryCatalog
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
def test_what_few_runs_need_is_not_loaded(code: str) -> None:
    loaded = "print(sorted({'torch', 'transformers', 'safetensors', 'networkx'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{loaded}"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
