"""A reduction that two outputs need is made once, and each computes its own numbers from it."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
from mergec.compiler.plan.plan import Pass
from safetensors.numpy import load_file, save_file


def test_two_slerps_of_one_pair(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        tensors = {f"model.layers.{i}.mlp.weight": rng.standard_normal((5, 7)).astype(np.float32) for i in range(2)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    recipe = f"""
let a = model("{tmp_path}/a.safetensors")
let b = model("{tmp_path}/b.safetensors")
layers = stack(slerp(a.layers[0], b.layers[0], t=0.3), slerp(a.layers[0], b.layers[0], t=0.6))
"""
    compiled = mergec.compile(recipe, device="cpu")
    reductions = [r.op for s in compiled.plan.steps if isinstance(s.action, Pass) for r in s.action.reductions]
    assert sorted(reductions) == ["dot", "dot", "dot"]
    compiled.run(tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    a, b = (
        load_file(tmp_path / f"{n}.safetensors")["model.layers.0.mlp.weight"].astype(np.float64) for n in ("a", "b")
    )
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    for layer, t in ((0, 0.3), (1, 0.6)):
        expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(made[f"model.layers.{layer}.mlp.weight"], expected, rtol=1e-5, atol=1e-6)
