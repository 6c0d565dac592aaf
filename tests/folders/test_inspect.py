"""What `mergec inspect` shows of a checkpoint of several parts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from mergec.cli.commands.inspect import inspect_json, inspect_text
from safetensors.torch import save_file


def test_parts_are_places(tmp_path: Path) -> None:
    tensors = {f"mid.{k}.weight": torch.ones(2, 2) for k in range(3)}
    for name in ("unet", "2_Dense"):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    save_file({"embed.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "modules.json").write_text('[{"path": "2_Dense"}, {"path": "unet"}, {"path": ""}]')
    lines = [line.split() for line in inspect_text(str(tmp_path)).splitlines()]
    assert ['"2_Dense.*"', "3", "tensors"] in lines
    assert ["unet", "3", "tensors"] in lines
    assert [line[0] for line in lines if line].count("unet") == 1
    places = json.loads(inspect_json(str(tmp_path)))["places"]
    assert places["unet"] == [f"unet.{name}" for name in tensors]
    assert set(places) == {"embed", "unet", '"2_Dense.*"'}
