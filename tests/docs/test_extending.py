"""docs/extending.md: its recipes, library and package are put into files as they stand, and run."""

from __future__ import annotations

import re
from pathlib import Path

import mergec
import pytest
import torch
from checkpoints import load, make
from packages import installed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text("utf-8")
BLOCKS = {m[2]: m[1] for m in re.finditer(r"\n```\w+\n(# (\S+\.\w+)\b.*\n(?:.*\n)*?)```", PAGE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every block of the page under the name in its first line, beside three tiny models."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in BLOCKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    for seed, name in enumerate(("base", "a", "b")):
        make("llama-tied", folder / name, seed=seed)
    return folder


def _merged(folder: Path, recipe: str) -> dict[str, torch.Tensor]:
    out = folder / f"{recipe}.out"
    mergec.compile(folder / recipe, device="cpu").run(out)
    return load(out)


def test_every_block_has_a_name() -> None:
    assert len(BLOCKS) == PAGE.count("\n```") // 2 == 7


def test_a_def_and_a_library_do_the_same(folder: Path) -> None:
    base, a, b = (load(folder / name) for name in ("base", "a", "b"))
    by_def, by_library = _merged(folder, "agree.mrg"), _merged(folder, "uses_library.mrg")
    for name, first in base.items():
        deltas = [0.6 * (a[name] - first), 0.4 * (b[name] - first)]
        kept = [torch.where(d.sign() == sum(deltas).sign(), d, 0.5 * d) for d in deltas]
        torch.testing.assert_close(by_library[name], first + sum(kept))
        if "mlp" not in name:
            torch.testing.assert_close(by_def[name], by_library[name], rtol=0, atol=0)


def test_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject = BLOCKS["pyproject.toml"]
    points = pyproject.partition('"mergec.primitives"]\n')[2]
    installed(folder, monkeypatch, "mergec-shrink", "0.1", points)
    base, a = load(folder / "base"), load(folder / "a")
    merged = _merged(folder, "shrunk.mrg")
    for name, first in base.items():
        delta = (a[name] - first).double()
        if delta.ndim == 2:
            u, s, v = torch.linalg.svd(delta, full_matrices=False)
            expected = (u * (s - delta.square().mean().sqrt()).clamp(min=0)) @ v
        else:
            expected = torch.nn.functional.softshrink(delta, 0.001)
        torch.testing.assert_close(merged[name], (first + expected).float(), rtol=1e-5, atol=1e-5)
    assert '"package": "mergec-shrink 0.1"' in (folder / "shrunk.mrg.out" / "mergec.json").read_text("utf-8")
