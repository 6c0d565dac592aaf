"""What the error about a container says to do, done: the commands are run on what is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mergec
import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from mergec.grammar.diagnostic import MergecError
from safetensors.torch import load_file


def told(folder: Path) -> str:
    """The help of the error about a folder."""
    with pytest.raises(MergecError) as caught:
        mergec.compile(f'let a = model("{folder}")\n* = a', device="cpu")
    (found,) = caught.value.diagnostics
    assert found.code == "E0462"
    return found.help[0]


def state(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {f"layers.{k}.weight": torch.randn(3, 4, generator=random) for k in range(3)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_distributed_checkpoint(wrapped: bool, tmp_path: Path) -> None:
    """As FSDP saves it: the weights under `model`, the optimizer beside them."""
    saved = {"model": state(1), "step": torch.ones(1)} if wrapped else state(1)
    dcp.save(saved, checkpoint_id=tmp_path / "ck", no_dist=True)
    found = re.search(r"`python (-m torch.*?)`", told(tmp_path / "ck"))
    assert found is not None
    words = found[1].replace("FOLDER", "ck").split()
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
    text = f'let a = model("{tmp_path}/model.pt")\n* = 2*a'
    mergec.compile(text, device="cpu", allow_pickle=True, single=True).run(tmp_path / "out.safetensors")
    made = load_file(tmp_path / "out.safetensors")
    assert made.keys() == state(1).keys()
    assert all(torch.equal(made[name], 2 * tensor) for name, tensor in state(1).items())


def test_arrays_of_numpy(tmp_path: Path) -> None:
    (tmp_path / "ck").mkdir()
    np.savez(tmp_path / "ck/weights.npz", **{name: tensor.numpy() for name, tensor in state(1).items()})
    found = re.search(r'`python -c "(.*?)"`', told(tmp_path / "ck"))
    assert found is not None
    code = found[1].replace("FILE", "weights.npz")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "ck", check=True)
    mergec.compile(f'let a = model("{tmp_path}/ck")\n* = 2*a', device="cpu").run(tmp_path / "out")
    made = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(made[name], 2 * tensor) for name, tensor in state(1).items())
