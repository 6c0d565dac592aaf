"""Infinities and NaNs: counted, or an error that leaves no output."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
import pytest
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
    assert (found.code, found.notes, caught.value.exit) == ("E0614", ("3 in `x.weight`",), mergec.Exit.RUN)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json"]
    assert not list(tmp_path.glob(".out*"))


def test_a_setting_that_is_neither(models: str) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(f'{models}\noutput(on_nonfinite="ignore")\n"*" = a\n', device="cpu")
    assert [d.code for d in caught.value.diagnostics] == ["E0208"]
