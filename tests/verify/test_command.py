"""`mergec verify` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.cli.main import main
from pickled_files import saved, state, tensor
from safetensors.numpy import load_file, save_file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    save_file({f"w{k}": np.arange(16, dtype=np.float32) for k in range(20)}, tmp_path / "a.safetensors")
    recipe = tmp_path / "r.mrg"
    recipe.write_text('let a = model("a.safetensors")\n"*" = 2*a\n')
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    return tmp_path / "out"


def _spoil(out: Path) -> None:
    tensors = load_file(out / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, out / "model.safetensors", {"format": "pt"})


def test_text(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(out), "--rerun"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[0] == str(out)
    assert lines[3] == "tensors ok 20 tensors, 320 parameters, as recorded"
    assert lines[4] == "config not checked there is no config.json"
    assert lines[-1] == "rerun ok 8 of 20 tensors made again, 512 bytes"


def test_inputs_in_pickles_need_leave(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(saved(state(w=tensor())))
    (tmp_path / "r.mrg").write_text('let a = model("a")\n"*" = 2*a\n')
    mergec.compile(tmp_path / "r.mrg", device="cpu", allow_pickle=True).run(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "not at hand: `a` (weights in pickle format are read with `--allow-pickle`)" in capfd.readouterr().out
    assert main(["verify", str(tmp_path / "out"), "--allow-pickle"]) == 0
    assert "not at hand" not in capfd.readouterr().out


def test_what_is_wrong(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _spoil(out)
    assert main(["verify", str(out)]) == 3
    printed = capfd.readouterr()
    assert "checksums   failed" in printed.out
    assert printed.err.count("error[E0652]") == 10
    assert "10 more of the check `checksums`: `--format json` lists them" in printed.err


def test_json(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--format", "json", str(out)]) == 0
    assert json.loads(capfd.readouterr().out)["ok"]
    _spoil(out)
    assert main(["verify", "--format", "json", "--rerun", "all", str(out)]) == 3
    printed = capfd.readouterr()
    told = json.loads(printed.out)
    assert printed.err == ""
    assert not told["ok"]
    findings = {c["name"]: [d["code"] for d in c["findings"]] for c in told["checks"]}
    assert (findings["checksums"], findings["rerun"]) == (["E0652"] * 20, ["E0658"] * 20)


@pytest.mark.parametrize("sample", ["0", "some", "-1"])
def test_a_sample_that_is_none(sample: str, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(out), f"--rerun={sample}"]) == 2
    assert "error[E0002]" in capfd.readouterr().err


def test_an_output_before_the_number(out: Path) -> None:
    assert main(["verify", "--rerun", "2", str(out)]) == 0
