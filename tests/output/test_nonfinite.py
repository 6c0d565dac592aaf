"""Infinities and NaNs: counted, or an error that leaves no output."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
import pytest
import torch
from mergec.compiler.checkpoint.dtypes import SIZES
from mergec.runtime.machine.accelerator import torch_dtype
from mergec.runtime.stream.nonfinite import PATTERNS, count_nonfinite
from safetensors.numpy import load_file, save_file


@pytest.fixture
def models(tmp_path: Path) -> str:
    for name, bad in (("a", 3), ("b", 0)):
        x = np.ones((4, 5), np.float32)
        x.flat[:bad] = [np.nan, np.inf, -np.inf][:bad]
        save_file({"x.weight": x, "y.weight": np.ones(3, np.float32)}, tmp_path / f"{name}.safetensors")
    return "\n".join(f'let {n} = model("{tmp_path / n}.safetensors")' for n in ("a", "b"))


def test_they_are_counted(tmp_path: Path, models: str) -> None:
    report = mergec.compile(f'{models}\n"*" = linear(a, b)\n', device="cpu").run(tmp_path / "out")
    assert report.outcome.non_finite == {"x.weight": 3}
    assert np.isfinite(load_file(tmp_path / "out" / "model.safetensors")["x.weight"]).sum() == 17


@pytest.mark.parametrize("how", ["setting", "strict"])
def test_they_can_be_an_error(tmp_path: Path, models: str, how: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    setting = 'output(on_nonfinite="error")' if how == "setting" else ""
    compiled = mergec.compile(f'{models}\n{setting}\n"*" = linear(a, b)\n', device="cpu", strict=how == "strict")
    with pytest.raises(mergec.MergecError) as caught:
        compiled.run(tmp_path / "out", force=True)
    (found,) = caught.value.diagnostics
    notes = ("3 in `x.weight`", f"of the inputs, `{tmp_path}/a.safetensors` has 3 in `x.weight`")
    assert (found.code, found.notes, caught.value.exit) == ("E0614", notes, mergec.Exit.RUN)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json"]
    assert not list(tmp_path.glob(".out*"))


def test_a_setting_that_is_neither(models: str) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(f'{models}\noutput(on_nonfinite="ignore")\n"*" = a\n', device="cpu")
    assert [d.code for d in caught.value.diagnostics] == ["E0208"]


@pytest.mark.parametrize("how", ["setting", "strict"])
def test_those_of_copied_tensors_are_an_error_too(tmp_path: Path, models: str, how: str) -> None:
    """A copy is not looked at, unless it could fail the run."""
    recipe = f'{models}\n"*" = linear(b, a, weight=[1, 0])\nx.weight = a\n'
    compiled = mergec.compile(recipe, device="cpu")
    assert compiled.run(tmp_path / "out").outcome.non_finite == {}
    setting = {"settings": {"on_nonfinite": "error"}} if how == "setting" else {}
    recipe = f'{models}\n"*" = linear(a, b)\nx.weight = a\n'
    compiled = mergec.compile(recipe, device="cpu", strict=how == "strict", **setting)
    with pytest.raises(mergec.MergecError) as caught:
        compiled.run(tmp_path / "out2")
    (found,) = caught.value.diagnostics
    notes = ("3 in `x.weight`", f"of the inputs, `{tmp_path}/a.safetensors` has 3 in `x.weight`")
    assert (found.code, found.notes) == ("E0614", notes)
    assert not (tmp_path / "out2").exists()


def test_those_that_the_merge_makes(tmp_path: Path, models: str) -> None:
    recipe = f'{models}\noutput(on_nonfinite="error", dtype="float16")\n"*" = b * 1e6\n'
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    (found,) = caught.value.diagnostics
    assert (found.code, found.notes) == ("E0614", ("20 in `x.weight`", "3 in `y.weight`"))
    assert not (tmp_path / "out").exists()
    assert found.help[0].startswith("the inputs of these tensors have none")


@pytest.mark.parametrize("dtype", PATTERNS)
def test_bits_agree_with_torch(dtype: str) -> None:
    """Over all patterns of one and two bytes, and random ones of more."""
    size = SIZES[dtype]
    if size <= 2:
        raw = np.arange(1 << 8 * size, dtype=f"u{size}").tobytes()
    else:
        raw = np.random.default_rng(0).bytes(size << 16) + np.array([np.inf, -np.inf, np.nan], f"f{size}").tobytes()
    elements = torch.frombuffer(bytearray(raw), dtype=torch_dtype(dtype))
    wanted = int((~torch.isfinite(elements if size > 1 else elements.float())).sum())
    assert count_nonfinite(memoryview(raw), dtype) == wanted > 0
    assert count_nonfinite(memoryview(raw), "I8") == 0
