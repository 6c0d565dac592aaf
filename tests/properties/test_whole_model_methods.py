"""Methods that look at a whole model, against naive references on the flattened model in
float64."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

LAYERS = 3
SHAPES = {f"model.layers.{i}.mlp.w.weight": (40, 30) for i in range(LAYERS)} | {"model.norm.weight": (30,)}
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        tensors = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
        save_file(tensors, made / f"{name}.safetensors")
    return made


def load(folder: Path, name: str) -> Tensors:
    return {k: v.astype(np.float64) for k, v in load_file(folder / f"{name}.safetensors").items()}


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([tensors[k].ravel() for k in SHAPES])


def merge(folder: Path, out: Path, value: str) -> Tensors:
    lets = "\n".join(f'let {n} = model("{folder / n}.safetensors")' for n in ("base", "a", "b"))
    compiled = mergec.compile(f'{lets}\n"*" = {value}\n', device="cpu")
    report = compiled.run(out, force=True)
    assert report.outcome.peak_host == compiled.plan.peak_host
    return load_file(out / "model.safetensors")


def deltas(folder: Path) -> tuple[Tensors, list[Tensors]]:
    base = load(folder, "base")
    return base, [{k: v - base[k] for k, v in load(folder, n).items()} for n in ("a", "b")]


def check(made: Tensors, expected: np.ndarray, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(flat(made), expected, rtol=rtol, atol=rtol)


def largest(x: np.ndarray, share: float) -> float:
    return float(np.sort(np.abs(x))[::-1][max(1, int(share * x.size)) - 1])


@pytest.mark.parametrize("density", [0.3, 0.01, 1])
def test_ties(folder: Path, tmp_path: Path, density: float) -> None:
    base, found = deltas(folder)
    trimmed = [np.where(np.abs(d) >= largest(d, density), d, 0) for d in map(flat, found)]
    elected = np.where(sum(trimmed) >= 0, 1, -1)
    agree = [np.sign(t) == elected for t in trimmed]
    count = sum(k.astype(int) for k in agree)
    total = sum(np.where(k, t, 0) for k, t in zip(agree, trimmed, strict=True))
    made = merge(folder, tmp_path / "out", f'ties(a, b, density={density}, scope="model")')
    check(made, flat(base) + total / np.where(count == 0, 1, count))


def test_lines(folder: Path, tmp_path: Path) -> None:
    base, found = deltas(folder)
    made = merge(folder, tmp_path / "out", "lines_merge(a, b, beta=0.5)")
    expected = {}
    for k in SHAPES:
        layer = int(k.split(".")[2]) if "layers" in k else None
        scale = 0.5 + (0.5 * layer / (LAYERS - 1) if layer is not None else 0)
        expected[k] = base[k] + scale * sum(d[k] for d in found)
    check(made, flat(expected))


def test_lines_of_another_merge(folder: Path, tmp_path: Path) -> None:
    base, found = deltas(folder)
    made = merge(folder, tmp_path / "out", "lines_merge(a, b, beta=0, merged=base + 0.3 * (a - base))")
    summed, merged = flat(found[0]) + flat(found[1]), 0.3 * flat(found[0])
    check(made, flat(base) + np.abs(summed).sum() / np.abs(merged).sum() / 2 * merged)


def test_emr_of_a_task(folder: Path, tmp_path: Path) -> None:
    base, found = deltas(folder)
    one, other = map(flat, found)
    elected = np.where(one + other > 0, 1, -1)
    unified = elected * np.maximum(0, np.maximum(elected * one, elected * other))
    agreeing = np.where(other * elected > 0, unified, 0)
    made = merge(folder, tmp_path / "out", "emr(a, b, task=1)")
    check(made, flat(base) + np.abs(other).sum() / np.abs(agreeing).sum() * agreeing)


def test_pcb(folder: Path, tmp_path: Path) -> None:
    base, found = deltas(folder)
    summed = flat(found[0]) + flat(found[1])

    def minmax(x: np.ndarray) -> np.ndarray:
        return (x - x.min()) / (x.max() - x.min())

    total, weight = np.zeros_like(summed), np.zeros_like(summed)
    for delta in map(flat, found):
        size = np.clip(np.abs(delta), largest(delta, 0.9999), largest(delta, 0.0001))
        score = np.maximum(0, np.exp(2 * minmax(size) ** 2) * np.tanh(delta * summed))
        score = minmax(np.maximum(score, largest(score, 0.1)))
        total, weight = total + np.sign(delta) * size * score, weight + score
    check(merge(folder, tmp_path / "out", "pcb(a, b)"), flat(base) + total / np.maximum(weight, 1e-12), rtol=1e-4)


def test_ramplus(folder: Path, tmp_path: Path) -> None:
    base, found = deltas(folder)
    parts = [flat(d) for d in found]
    active = [np.abs(p) > 1.2 for p in parts]
    several = (active[0] & active[1]).astype(bool)
    total = np.zeros_like(parts[0])
    for delta, mask in zip(parts, active, strict=True):
        unique, shared = (mask & ~several).sum(), (mask & several).sum()
        scale = np.where(several, 1, 1 + 0.1 * min(shared / max(unique, 1.2), 0.2))
        total += np.where(mask, scale * delta, 0)
    made = merge(folder, tmp_path / "out", 'ramplus_tl(a, b, epsilon=1.2, scope="model")')
    check(made, flat(base) + total / np.maximum(sum(m.astype(int) for m in active), 1))
