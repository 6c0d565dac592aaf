"""Progress counts what a plan is said to read and write, once, however often a pass goes over its
inputs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.cli.terminal.progress import ProgressLine
from mergec.compiler.plan.plan import CHUNK, Plan
from safetensors.numpy import save_file

NUMEL = 20 * CHUNK
"""Enough for what a sample of it tells to be made use of."""


class Counting:
    def __init__(self) -> None:
        self.read = self.written = 0

    def begins(self, plan: Plan, notices: Sequence[str]) -> None: ...

    def tensor(self, index: int) -> None: ...

    def moved(self, read: int, written: int) -> None:
        self.read += read
        self.written += written

    def live(self, host: int, device: int) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        # the greatest numbers stand together, and many are equal, so that a guess from a sample is
        # wrong
        x = np.sort(rng.standard_normal(NUMEL).astype(np.float32)).round(2)
        save_file(
            {"x.weight": x, "y.weight": rng.standard_normal(100).astype(np.float32)}, root / f"{name}.safetensors"
        )
    return root


@pytest.mark.parametrize(
    ("value", "again"),
    [
        ("0.5*a + 0.5*b", False),
        ("ties(a, b, base=base, density=0.3)", True),
        ("trim(a, density=0.1)", True),
        ("a * total(b)", False),
    ],
)
def test_bytes_that_a_pass_reads_again_are_told_once(value: str, again: bool, folder: Path, tmp_path: Path) -> None:
    lets = "".join(f'let {name} = model("{folder}/{name}.safetensors")\n' for name in ("base", "a", "b"))
    plan = mergec.compile(f'{lets}output(like=base)\n"*" = {value}\n', device="cpu", lanes=2).plan
    counted = Counting()
    outcome = mergec.run(plan, tmp_path / "out", progress=counted).outcome
    assert (counted.read, counted.written) == (plan.reads, plan.writes)
    assert outcome.bytes_written == plan.writes
    assert outcome.bytes_read > plan.reads if again else outcome.bytes_read == plan.reads


def test_the_line_ends_at_the_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more bytes than there are in all: the last that is shown is all of them."""
    monkeypatch.setattr("mergec.cli.terminal.progress.PLAIN", 0.0)
    lets = "".join(f'let {name} = model("{folder}/{name}.safetensors")\n' for name in ("base", "a", "b"))
    value = "ties(a, b, base=base, density=0.3)"
    plan = mergec.compile(f'{lets}output(like=base)\n"*" = {value}\n', device="cpu", lanes=2).plan
    text = io.StringIO()
    mergec.run(plan, tmp_path / "out", progress=ProgressLine(plan, text))
    *_, last = [line for line in text.getvalue().splitlines() if " of " in line]
    done, _, whole = last.partition("%  ")[2].partition("/s")[0].partition(" of ")
    assert (last.strip().partition("%")[0], done) == ("100", whole.partition("  ")[0])
