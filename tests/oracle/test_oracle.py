"""What mergekit 0.1.5 computed from tiny checkpoints, and what the recipe beside it gives.

`data/cases/<name>`: `config.yml` is the peer's configuration, `expected.safetensors` and
`peer-config.json` its output, `recipe.mrg` the same merge written by hand. The models are in
`data/models`.
"""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file

CASES = Path(__file__).parent / "data" / "cases"
DTYPE_KEYS = ("dtype", "torch_dtype")


@pytest.fixture(scope="module", params=sorted(p.name for p in CASES.iterdir()))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of a case, folder of what its recipe gives)."""
    folder = CASES / request.param
    out = tmp_path_factory.mktemp("oracle") / "out"
    mergec.compile(folder / "recipe.mrg", device="cpu").run(out)
    return folder, out


def test_the_tensors_are_the_peer_s(case: tuple[Path, Path]) -> None:
    folder, out = case
    expected, made = load_file(folder / "expected.safetensors"), load_file(out / "model.safetensors")
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        assert made[name].dtype == tensor.dtype, name
        np.testing.assert_allclose(made[name], tensor, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_config_says_what_the_tensors_are(case: tuple[Path, Path]) -> None:
    folder, out = case
    config = json.loads((out / "config.json").read_text("utf-8"))
    peer = json.loads((folder / "peer-config.json").read_text("utf-8"))
    tensors = load_file(out / "model.safetensors")
    assert {config.get(key, "float32") for key in DTYPE_KEYS} == {"float32"}
    assert config["num_hidden_layers"] == 1 + max(int(n.split(".")[2]) for n in tensors if ".layers." in n)
    assert config["tie_word_embeddings"] is ("lm_head.weight" not in tensors)
    for key, value in peer.items():
        if key not in (*DTYPE_KEYS, "transformers_version"):
            assert config.get(key) == value, key
