"""What watches over all tests does watch: the guard against a stale install, and the verifier of
graphs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mergec
import pytest
from mergec.compiler import pipeline
from mergec.compiler.graph.graph import Graph, Output
from mergec.compiler.graph.verifier import BrokenGraph
from stale_install import stale

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "pyproject.toml": """
[tool.setuptools]
packages = ["mergec", "mergec.data", "mergec.kernels"]
[tool.setuptools.package-data]
mergec = ["py.typed"]
"mergec.data" = ["*.json", "*.jinja", "*.mrg", "*.toml"]
[[tool.setuptools.ext-modules]]
name = "mergec.kernels._fast"
sources = ["kernels/fast.c"]
depends = ["kernels/fast.h"]
""",
    **dict.fromkeys(
        ("__init__.py", "py.typed", "data/tables.json", "data/chat.jinja", "data/x.mrg", "data/e.toml"), "1"
    ),
    **dict.fromkeys(("kernels/fast.c", "kernels/fast.h", "kernels/load.py"), "1"),
}
NOT_INSTALLED = ("pyproject.toml", "kernels/fast.c", "kernels/fast.h")


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A source tree, and what an install of it has."""
    root, installed = tmp_path / "root", tmp_path / "installed"
    for name, text in FILES.items():
        for place in (root, installed):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
            os.utime(place / name, (1000, 1000))
    for name in NOT_INSTALLED:
        (installed / name).unlink()
    for place in (root, installed):
        (place / "kernels/_fast.cpython-311.so").write_bytes(b"")
        os.utime(place / "kernels/_fast.cpython-311.so", (1001, 1001))
    return root, installed


def test_an_install_of_this_tree_is_none_too_old(places: tuple[Path, Path]) -> None:
    root, installed = places
    assert stale(root, installed) == stale(root, root) == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "pyproject.toml"])
def test_an_edited_file_is_seen(name: str, places: tuple[Path, Path]) -> None:
    root, installed = places
    (root / name).write_text("2")
    assert stale(root, installed) == [name]
    # the tree itself is what it is, but for what is compiled of it
    assert stale(root, root) == [name] * name.startswith("kernels/fast")


def test_a_new_file_and_one_that_is_no_more_are_seen(places: tuple[Path, Path]) -> None:
    root, installed = places
    (root / "data/new.jinja").write_text("")
    (root / "data/tables.json").unlink()
    shutil.rmtree(root / "kernels")
    (root / "kernels").mkdir()
    for name in ("fast.c", "fast.h"):
        (root / "kernels" / name).write_text("")
        os.utime(root / "kernels" / name, (1000, 1000))
    assert stale(root, installed) == ["data/new.jinja", "data/tables.json", "kernels/load.py"]


def test_without_compiled_kernels_there_are_none_to_be_old(places: tuple[Path, Path]) -> None:
    root, installed = places
    (installed / "kernels/_fast.cpython-311.so").unlink()
    (root / "kernels/fast.c").write_text("2")
    assert stale(root, installed) == []


MODELS = {"a": {"tensors": {"x": ("F32", (2,)), "y": ("F32", (2,))}}}


def _twice(graph: Graph) -> Graph:
    return Graph(graph.nodes, [*graph.outputs, graph.outputs[0]])


def _of_another_shape(graph: Graph) -> Graph:
    o = graph.outputs[0]
    return Graph(graph.nodes, [Output(o.name, o.node, o.dtype, (3,), o.statement, o.span)])


def _out_of_order(graph: Graph) -> Graph:
    return Graph(graph.nodes[::-1], graph.outputs)


@pytest.mark.parametrize("broken", [_twice, _of_another_shape, _out_of_order])
def test_whatever_a_test_compiles_is_verified(
    broken: Callable[[Graph], Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled() -> mergec.Compiled:
        return mergec.compile('let a = model("a")\n* = 2*a\n', catalog=mergec.MemoryCatalog(MODELS), device="cpu")

    compiled()
    *passes, last = pipeline.PASSES
    monkeypatch.setattr(pipeline, "PASSES", (*passes, broken, last))
    with pytest.raises(BrokenGraph):
        compiled()
