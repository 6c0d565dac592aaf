"""Operations along rows: values, and the same bytes whatever the blocks and lanes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.session.session import run_plan
from safetensors.numpy import load_file, save_file

SHAPES = {
    "matrix": (700, 300),
    "wide": (3, 70_001),
    "vector": (1000,),
    "cube": (4, 5, 6),
    "column": (9, 1),
    "none": (0, 5),
}


def run(tmp_path: Path, statement: str, options: Options | None = None) -> dict[str, np.ndarray]:
    recipe = f'let a = model("{tmp_path / "a.safetensors"}")\n"*" = {statement}\n'
    made = compile_recipe(Source("<recipe>", recipe), LocalCatalog(), "0", options or Options(check_graph=True))
    run_plan(made.plan, tmp_path / "out", force=True)
    return load_file(tmp_path / "out" / "model.safetensors")


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    save_file(made, tmp_path / "a.safetensors")
    return made


def as_rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)


def test_sum_and_max(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    sums, largest = run(tmp_path, "row_sum(a)"), run(tmp_path, "row_max(a)")
    for name, x in tensors.items():
        rows = as_rows(x)
        expected = np.broadcast_to(rows.sum(1, dtype=np.float64)[:, None], rows.shape).reshape(x.shape)
        np.testing.assert_allclose(sums[name], expected, rtol=1e-6, atol=1e-6)
        if x.size:
            top = np.broadcast_to(rows.max(1)[:, None], rows.shape).reshape(x.shape)
            np.testing.assert_array_equal(largest[name], top)


def test_rank(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    ranks = run(tmp_path, "row_rank(abs(a))")
    for name, x in tensors.items():
        rows = np.abs(as_rows(x))
        if rows.shape[1] == 1:
            np.testing.assert_array_equal(ranks[name], np.full(x.shape, 0.5))
            continue
        order = np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1, kind="stable")
        np.testing.assert_allclose(ranks[name], (order / (rows.shape[1] - 1)).reshape(x.shape), rtol=1e-6)


def test_same_bytes_for_any_blocks(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    del tensors
    statement = "where(topk_mask(a, 0.3), row_sum(a*a) / row_max(abs(a)), row_rank(a)) + total(row_sum(a))"
    first = run(tmp_path, statement, Options(lanes=1))
    for lanes, block in ((2, 1 << 16), (3, 1 << 17)):
        other = run(tmp_path, statement, Options(lanes=lanes, block=block))
        assert all(first[name].tobytes() == other[name].tobytes() for name in first)
