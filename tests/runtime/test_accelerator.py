"""Plans for an accelerator, carried out on a stand-in: the host's memory, treated as a device's.

What a real one does in its own way (streams, pinned memory) is left out; staging, loads, held
buffers, eviction and the accounting of two memories are the same code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import Load, Pass
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.session.session import run_plan
from safetensors.numpy import save_file
from standin import stand_in

RECIPES = {
    "linear": "linear(a, b, weight=[0.6, 0.4])",
    "slerp": "slerp(a, b, t=0.4)",
    "ties": "ties(a, b, density=0.4)",
    "dare": "dare_ties(a, b, density=0.5)",
    "rows": "row_rank(a) + row_sum(b)",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        tensors = {
            "big.weight": rng.standard_normal((1200, 1000)).astype(np.float32),
            "small.bias": rng.standard_normal(7).astype(np.float16),
        }
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("device_memory", [None, 9 << 20])
def test_same_bytes_and_exact_peaks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, device_memory: int | None
) -> None:
    """With a budget too small to hold the inputs, they are streamed as on the CPU."""
    stand_in(monkeypatch)
    lets = "\n".join(f'let {name} = model("{folder / name}.safetensors")' for name in ("base", "a", "b"))
    source = Source("<recipe>", f'{lets}\n"*" = {RECIPES[method]}\n')
    outputs = []
    for device in ("cpu", "cuda:0"):
        options = Options(device=device, lanes=1, block=1 << 16, device_memory=device_memory, check_graph=True)
        made = compile_recipe(source, LocalCatalog(), "0", options)
        report = run_plan(made.plan, folder / device)
        assert report.outcome.peak_host == made.plan.peak_host
        assert report.outcome.peak_device == made.plan.peak_device
        assert (made.plan.peak_device > 0) == (device != "cpu")
        outputs.append((folder / device / "model.safetensors").read_bytes())
        if device != "cpu":
            reduced = any(isinstance(s.action, Pass) and s.action.reductions for s in made.plan.steps)
            loads = [s for s in made.plan.steps if isinstance(s.action, Load) and s.reads > 1 << 20]
            assert bool(loads) == (reduced and device_memory is None)
            assert device_memory is None or made.plan.peak_device <= device_memory
    assert outputs[0] == outputs[1]
