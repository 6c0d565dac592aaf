"""`mergec inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mergec
import pytest
from error_cases import shared_models
from mergec.cli.commands.inspect import inspect_json, inspect_text, parse_words
from mergec.cli.main import main
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.error_codes import Exit

BASE = """\
memory:base
  family      llama
  layout      canonical
  parameters  612 in 38 tensors, 1.22 kB
  dtypes      612 BF16
  ties        head = embed
  layers      4 layers
  files       1 weight file, 1.22 kB

places
  embed               model.embed_tokens.weight
  layers[*].attn.q    [0..3].self_attn.q_proj.weight
  layers[*].attn.k    [0..3].self_attn.k_proj.weight
  layers[*].attn.v    [0..3].self_attn.v_proj.weight
  layers[*].attn.o    [0..3].self_attn.o_proj.weight
  layers[*].mlp.gate  [0..3].mlp.gate_proj.weight
  layers[*].mlp.up    [0..3].mlp.up_proj.weight
  layers[*].mlp.down  [0..3].mlp.down_proj.weight
  layers[*].norm1     [0..3].input_layernorm.weight
  layers[*].norm2     [0..3].post_attention_layernorm.weight
  norm                model.norm.weight
"""


@pytest.fixture
def catalog() -> mergec.MemoryCatalog:
    return mergec.MemoryCatalog(shared_models())


def test_text(catalog: mergec.MemoryCatalog) -> None:
    assert inspect_text("base", catalog) == BASE


def test_warnings_are_part_of_it(catalog: mergec.MemoryCatalog) -> None:
    assert "warning[W0504]" in inspect_text("unequal", catalog)


def test_json(catalog: mergec.MemoryCatalog) -> None:
    told = json.loads(inspect_json("t5", catalog))
    assert told["depths"] == {"encoder.layers": 2, "decoder.layers": 2}
    assert told["ties"]["lm_head.weight"] == "shared.weight"
    assert told["tensors"]["shared.weight"] == {"dtype": "F32", "shape": [8, 4], "stored": "shared.weight", "first": 0}


def test_places_that_are_shown_are_places(catalog: mergec.MemoryCatalog) -> None:
    told = json.loads(inspect_json("base", catalog))
    for place in told["places"]:
        mergec.compile(f'let base = model("base")\n{place} = base * 2', catalog=catalog, device="cpu")


def test_a_real_folder(checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint("llama-tied")
    assert main(["inspect", str(folder)]) == 0
    assert "ties        head = embed" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "llama"


def test_what_is_not_there(catalog: mergec.MemoryCatalog, tmp_path: Path) -> None:
    with pytest.raises(MergecError) as caught:
        inspect_text("bose", catalog)
    assert caught.value.diagnostics[0].code == "E0401"
    (tmp_path / "model.safetensors").write_bytes(b"\0")
    with pytest.raises(MergecError) as caught:
        inspect_text(str(tmp_path))
    assert (caught.value.diagnostics[0].code, caught.value.exit) == ("E0410", Exit.INPUT)


def test_a_wrong_option_is_a_usage_error() -> None:
    with pytest.raises(MergecError) as caught:
        parse_words(["--frobnicate"])
    assert ([d.code for d in caught.value.diagnostics], caught.value.exit) == (["E0002"], Exit.USAGE)
