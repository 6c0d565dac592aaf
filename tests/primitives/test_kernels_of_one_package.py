"""Two kernels of one package share its code, and are two all the same."""

from __future__ import annotations

from pathlib import Path

import mergec
import pytest
from packages import installed

MODULE = """
import mergec
import torch

X, BY = mergec.Parameter("x", kind="region"), mergec.Parameter("by", 1, kind="number")
WIDE = mergec.Primitive("wide", (X, BY), "x times a number", "pair_of_kernels:wide", scratch=4)
DEEP = mergec.Primitive("deep", (X, BY), "x and a number", "pair_of_kernels:deep", scratch=4)


def wide(out, tensors, numbers, scratch):
    torch.mul(tensors[0], numbers[0], out=out)


def deep(out, tensors, numbers, scratch):
    torch.add(tensors[0], numbers[0], out=out)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pair_of_kernels.py").write_text(MODULE, "utf-8")
    points = "wide = pair_of_kernels:WIDE\ndeep = pair_of_kernels:DEEP\n"
    installed(tmp_path, monkeypatch, "pair-of-kernels", "0.1", points)


@pytest.mark.usefixtures("package")
def test_their_keys_differ() -> None:
    values = ["wide(a)", "deep(a)", "wide(a, by=2)", "deep(a, by=2)", "wide(deep(a))", "deep(wide(a))", "a + 1"]
    # number of the whole model too, which has a key of its own
    values += ["a * across(total(wide(a)))", "a * across(total(deep(a)))"]
    keys = []
    for value in values:
        spec = {"a": {"tensors": {"x.weight": ("F32", (4,))}}}
        recipe = f'let a = model("a")\n"*" = {value}\n'
        made = mergec.compile(recipe, catalog=mergec.MemoryCatalog(spec), device="cpu")
        keys.append(made.plan.tensors[0].key)
    assert len(set(keys)) == len(values)
