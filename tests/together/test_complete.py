"""Checkpoints that are whole although a part has another name or is left out by design, and others
that are not."""

from __future__ import annotations

from typing import Any

import mergec
import pytest
from mergec.grammar.diagnostic import MergecError

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "tie_word_embeddings": False,
    "vocab_size": 8,
}
HEAD, PRUNED = "lm_head.weight", "model.layers.2.self_attn.q_proj.weight"


def errors(head: str, without: str | None = None, **more: Any) -> list[str]:
    names = ["model.embed_tokens.weight", "model.norm.weight", head]
    names += [f"model.layers.{n}.{m}.weight" for n in range(4) for m in ("self_attn.q_proj", "mlp.up_proj")]
    shapes = {name: (8,) if name.endswith(("norm.weight", "bias")) else (8, 8) for name in names if name != without}
    tensors = {name: ("BF16", shape) for name, shape in shapes.items()}
    catalog = mergec.MemoryCatalog({"a": {"tensors": tensors, "config": CONFIG | more}})
    try:
        mergec.compile('* = model("a")', catalog=catalog, device="cpu")
    except MergecError as error:
        return [d.code for d in error.diagnostics]
    return []


@pytest.mark.parametrize("head", [HEAD, "lm_head.linear.weight", "lm_head.weight_packed"])
def test_a_head_in_a_form_of_its_own(head: str) -> None:
    assert errors(head) == []


def test_a_head_of_which_its_bias_is_left() -> None:
    assert errors("lm_head.bias") == ["E0461"]


def test_layers_that_lack_a_part() -> None:
    """Lost where transformers' code makes the model; where code beside the weights does, that may
    prune its layers."""
    assert errors(HEAD, PRUNED) == ["E0461"]
    assert errors(HEAD, PRUNED, auto_map={"AutoModelForCausalLM": "modeling.PrunedForCausalLM"}) == []
