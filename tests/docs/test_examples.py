"""Every recipe in docs/language.md and docs/methods.md compiles, or fails as the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mergec
import pytest
from mergec.grammar.diagnostic import MergecError

DOCS = Path(__file__).resolve().parents[2] / "docs"

PRELUDE = 'let base = model("./base")\nlet a = model("./a")\nlet b = model("./b")\n'
"""What the page says that its later examples leave out."""

WIDTH = 32
LAYERS = [f"model.layers.{i}.self_attn.q_proj" for i in range(4)]


@dataclass(frozen=True, slots=True)
class Example:
    """A fenced block of a page: `kind` is what follows `mrg` in the fence."""

    page: str
    line: int
    kind: str
    text: str


def examples(page: str) -> list[Example]:
    text = (DOCS / page).read_text("utf-8")
    found = re.finditer(r"^```mrg *(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Example(page, text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in found]


EXAMPLES = [*examples("language.md"), *examples("methods.md")]


def llama(*, layers: int = 16, words: int = 128, head: bool = False, prefix: str = "model.layers.") -> dict[str, Any]:
    """A Llama-style checkpoint; tied where it has no head of its own."""
    width, tensors = WIDTH, {"model.embed_tokens.weight": ("BF16", (words, WIDTH))}
    shapes = {
        **{f"self_attn.{x}_proj": (width, width) for x in "qo"},
        **{f"self_attn.{x}_proj": (width // 2, width) for x in "kv"},
        **{f"mlp.{x}_proj": (2 * width, width) for x in ("gate", "up")},
        "mlp.down_proj": (width, 2 * width),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    for i in range(layers):
        tensors |= {f"{prefix}{i}.{name}.weight": ("BF16", shape) for name, shape in shapes.items()}
    tensors["model.norm.weight"] = ("BF16", (width,))
    if head:
        tensors["lm_head.weight"] = ("BF16", (words, width))
    vocabulary = {f"t{k}": k for k in range(words)}
    return {
        "tensors": tensors,
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": layers,
            "vocab_size": words,
            "tie_word_embeddings": not head,
        },
        "documents": {"tokenizer.json": json.dumps({"model": {"vocab": vocabulary}})},
    }


def lora(modules: Sequence[str] = LAYERS, outputs: int = WIDTH) -> dict[str, Any]:
    """An adapter of such a checkpoint's modules."""
    factors = {"lora_A": (4, WIDTH), "lora_B": (outputs, 4)}
    names = {f"base_model.model.{module}.{x}.weight": shape for module in modules for x, shape in factors.items()}
    tensors = {name: ("F32", shape) for name, shape in names.items()}
    return {"tensors": tensors, "config": {"peft_type": "LORA", "r": 4, "lora_alpha": 8}}


def llava() -> dict[str, Any]:
    """A multimodal checkpoint whose language model is that of `llama`."""
    text, tower = llama(), {"norm1": (WIDTH,), "attention.q_proj": (WIDTH, WIDTH)}
    tensors = {f"language_model.{name}": tensor for name, tensor in text["tensors"].items()}
    for i in range(2):
        tensors |= {f"vision_tower.layers.{i}.{name}.weight": ("BF16", shape) for name, shape in tower.items()}
    tensors["multi_modal_projector.linear_1.weight"] = ("BF16", (WIDTH, WIDTH))
    config = {"model_type": "llava", "text_config": text["config"], "vision_config": {"num_hidden_layers": 2}}
    return text | {"tensors": tensors, "config": config}


@pytest.fixture(scope="module")
def catalog() -> mergec.MemoryCatalog:
    models = {f"./{name}": llama() for name in ("base", "a", "b")}
    others = {"./untied": llama(head=True), "./chat": llama(words=130), "./odd": llama(prefix="h.")}
    others |= {"./vlm": llava(), "./chat-lora": lora(), "./math-lora": lora(), "./head-lora": lora(["lm_head"], 128)}
    return mergec.MemoryCatalog(models | others)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}-{e.line}")
def test_example(example: Example, catalog: mergec.MemoryCatalog) -> None:
    kind, _, code = example.kind.partition(" ")
    if kind == "fragment":
        mergec.parse(example.text)
        return
    recipe = example.text if 'model("./base")' in example.text else PRELUDE + example.text
    if kind == "error":
        with pytest.raises(MergecError) as caught:
            mergec.compile(recipe, catalog=catalog, device="cpu")
        assert code in [d.code for d in caught.value.diagnostics]
    else:
        assert kind == ""
        mergec.compile(recipe, catalog=catalog, device="cpu")


def test_virtual_models_vary_over_their_own_layers(catalog: mergec.MemoryCatalog) -> None:
    recipe = next(e.text for e in EXAMPLES if "ramp.layers[15]" in e.text)
    graph = mergec.compile(PRELUDE + recipe, catalog=catalog, device="cpu").compilation.graph
    node = next(o.node for o in graph.outputs if o.name == "model.layers.0.mlp.up_proj.weight")
    assert node.op == "source"
    assert node.attribute("range").stored == "model.layers.15.mlp.up_proj.weight"


def test_there_are_examples_of_every_kind() -> None:
    assert len(EXAMPLES) > 15
    assert {e.kind.partition(" ")[0] for e in EXAMPLES} == {"", "fragment", "error"}
