"""What the error about a distributed checkpoint says of accelerate works on one that FSDP has
saved."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mergec
import pytest
import torch
import torch.distributed.checkpoint as dcp
from mergec.grammar.diagnostic import MergecError
from safetensors.torch import load_file


@pytest.mark.filterwarnings("ignore")
def test_merge_weights(tmp_path: Path) -> None:
    state = {f"layers.{k}.weight": torch.full((2, 3), float(k)) for k in range(3)}
    folder = tmp_path / "checkpoint-500/pytorch_model_fsdp_0"
    dcp.save({"model": state}, checkpoint_id=folder, no_dist=True)
    with pytest.raises(MergecError) as caught:
        mergec.compile(f'let a = model("{folder.parent}")\n* = a', device="cpu")
    (found,) = caught.value.diagnostics
    assert found.code == "E0462"
    command = re.search(r"`accelerate (merge-weights FOLDER OUTPUT)`", found.help[0])
    assert command is not None
    words = command[1].replace("FOLDER", str(folder)).replace("OUTPUT", str(tmp_path / "merged")).split()
    program = "from accelerate.commands.accelerate_cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
    mergec.compile(f'let a = model("{tmp_path}/merged")\n* = 2*a', device="cpu").run(tmp_path / "out")
    made = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(made[name], 2 * tensor) for name, tensor in state.items())
