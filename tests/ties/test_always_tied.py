"""A family whose embeddings are always one: what E0310 advises does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.grammar.diagnostic import MergecError
from safetensors.numpy import load_file, save_file

CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "num_layers": 1,
    "d_model": 6,
    "vocab_size": 8,
}


def model(folder: Path, seed: int, *own: str) -> dict[str, np.ndarray]:
    """A T5 of one layer; the `own` sides have an embedding of their own."""
    draw = np.random.default_rng(seed)
    shapes = {"shared.weight": (8, 6)}
    for side in ("encoder", "decoder"):
        if side in own:
            shapes[f"{side}.embed_tokens.weight"] = (8, 6)
        shapes[f"{side}.block.0.layer.0.SelfAttention.q.weight"] = (6, 6)
        shapes[f"{side}.final_layer_norm.weight"] = (6,)
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return tensors


def test_both_ways_out(tmp_path: Path) -> None:
    p, q = model(tmp_path / "p", 1), model(tmp_path / "q", 2, "encoder")
    recipe = f'let p = model("{tmp_path}/p")\nlet q = model("{tmp_path}/q")\noutput(like=p)\n* = linear(p, q)\n'
    with pytest.raises(MergecError) as caught:
        mergec.compile(recipe, device="cpu")
    (refused,) = (d for d in caught.value.diagnostics if d.code == "E0310")
    ways = [way.partition(": ")[2].replace("` and `", "\n").strip("`") for way in refused.help]
    for way, second in zip(ways, (q["shared.weight"], q["encoder.embed_tokens.weight"]), strict=True):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        mergec.compile(recipe + way + "\n", device="cpu").run(out)
        made = load_file(out / "model.safetensors")["shared.weight"]
        np.testing.assert_allclose(made, (p["shared.weight"] + second) / 2, rtol=1e-6)
