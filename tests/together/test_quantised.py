"""Formats of quantised weights, module by module as tools store them: codes are copied with their
scales or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mergec
import pytest
from mergec.grammar.diagnostic import MergecError

Tensors = dict[str, tuple[str, tuple[int, ...]]]

F8, F8X = ("F8_E4M3", (64, 64)), ("F8_E5M2", (64, 64))
ONE, ROW, GROUPS, BLOCKS = ("F32", (1,)), ("F32", (64,)), ("F16", (2, 64)), ("BF16", (1, 1))

FORMATS: dict[str, tuple[str, Tensors]] = {
    # name: what the error says, and a module
    "block fp8": ("fp8", {"X.weight": F8, "X.weight_scale_inv": BLOCKS}),
    "DeepSeek's own": ("fp8", {"X.weight": F8, "X.scale": ("F32", (1, 1))}),
    "Mistral's own": ("fp8", {"X.weight": F8, "X.qscale_weight": ("BF16", ()), "X.qscale_act": ("BF16", ())}),
    "image models": ("fp8", {"X.weight": F8, "X.scale_weight": ("F32", ()), "X.scale_input": ("F32", ())}),
    "wide fp8": ("fp8", {"X.weight": F8X, "X.weight_scale": ("F32", (64, 1))}),
    "TensorRT-LLM": ("fp8", {"X.weight": F8, "X.weights_scaling_factor": ONE, "X.activation_scaling_factor": ONE}),
    "a scale called otherwise": ("fp8", {"X.weight": F8, "X.s": ONE}),
    "blocks called otherwise": ("fp8", {"X.weight": F8, "X.inv": ("F32", (8, 8))}),
    "beside the module": ("fp8", {"X.weight": F8, "X_scale": ONE}),
    "beside the module, of the weight": ("fp8", {"X.weight": F8, "X_weight_scale_inv": BLOCKS}),
    "scales of their own": ("fp8", {"X.weight": F8, "scales.X.weight": ONE}),
    "scales of their own, further down": ("fp8", {"X.weight": F8, "q.scales.X.weight": ONE}),
    "fused experts": ("fp8", {"X.gate_up": ("F8_E4M3", (4, 64, 64)), "X.gate_up_scale_inv": ("F32", (4, 1, 1))}),
    "mxfp8": ("fp8", {"X.weight": F8, "X.weight_scale": ("U8", (64, 2))}),
    "nvfp4": (
        "uint8",
        {"X.weight": ("U8", (64, 32)), "X.weight_scale": ("F8_E4M3", (64, 4)), "X.weight_scale_2": ("F32", ())},
    ),
    "mxfp4": ("mxfp4", {"X.up_blocks": ("U8", (4, 64, 2, 16)), "X.up_scales": ("U8", (4, 64, 2))}),
    "bitsandbytes, 4 bits": (
        "bitsandbytes 4-bit",
        {
            "X.weight": ("U8", (2048, 1)),
            "X.weight.absmax": ROW,
            "X.weight.quant_map": ("F32", (16,)),
            "X.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
        },
    ),
    "bitsandbytes, nested": (
        "bitsandbytes 4-bit",
        {"X.weight": ("U8", (2048, 1)), "X.weight.absmax": ("U8", (64,)), "X.weight.nested_absmax": ONE},
    ),
    "bitsandbytes, 8 bits": (
        "bitsandbytes 8-bit",
        {"X.weight": ("I8", (64, 64)), "X.SCB": ROW, "X.weight_format": ("U8", ())},
    ),
    "GPTQ": (
        "GPTQ",
        {"X.qweight": ("I32", (8, 64)), "X.qzeros": ("I32", (2, 8)), "X.scales": GROUPS, "X.g_idx": ("I32", (64,))},
    ),
    "AWQ": ("AWQ", {"X.qweight": ("I32", (64, 8)), "X.qzeros": ("I32", (2, 8)), "X.scales": GROUPS}),
    "compressed-tensors": (
        "compressed-tensors",
        {"X.weight_packed": ("I32", (64, 8)), "X.weight_scale": GROUPS, "X.weight_shape": ("I64", (2,))},
    ),
    "HQQ": ("HQQ", {"X.W_q": ("U8", (32, 64)), "X.scale": GROUPS, "X.zero": GROUPS, "X.nbits": ("I64", (1,))}),
    "quanto": (
        "quanto",
        {"X.weight._data": ("I8", (64, 64)), "X.weight._scale": ("F32", (64, 1)), "X.input_scale": ONE},
    ),
    "torchao": ("int8", {"X._weight_qdata": ("I8", (64, 64)), "X._weight_scale": ("F32", (64,))}),
    "AQLM": (
        "AQLM",
        {"X.codes": ("I8", (8, 8, 1)), "X.codebooks": ("F16", (1, 256, 1, 8)), "X.scales": ("F16", (8, 1))},
    ),
    "EETQ": ("int8", {"X.weight": ("I8", (64, 64)), "X.weight_scales": ("F16", (64,))}),
    "BitNet": ("uint8", {"X.weight": ("U8", (16, 64)), "X.weight_scale": ("BF16", (1,))}),
    "MLX": ("U32", {"X.weight": ("U32", (64, 8)), "X.scales": GROUPS, "X.biases": GROUPS}),
    "rows called otherwise": ("fp8", {"X.weight": F8, "X.s": ROW}),
    "a kernel's": ("fp8", {"X.kernel": F8, "X.s": ONE}),
    "experts called otherwise": ("fp8", {"X.w1": ("F8_E4M3", (4, 64, 64)), "X.w1_s": ("F32", (4, 1, 1))}),
    "a quantizer below": ("fp8", {"X.weight": F8, "X.weight_quantizer._amax": ONE}),
    "a scale with a weight": ("fp8", {"X.weight": F8, "X.scale.weight": ROW}),
    "a scale with a weight, beside the module": ("fp8", {"X.weight": F8, "X_scale.weight": ROW}),
    "packed in 64 bits": ("GPTQ or AWQ", {"X.qweight": ("I64", (4, 64)), "X.scales": GROUPS}),
    "above the module": ("fp8", {"X.linear.weight": F8, "X.scale": ONE}),
    "above the module, of rows": ("fp8", {"X.linear.weight": F8, "X.weight_scale": ("F32", (64, 1))}),
    "rows of what a model may learn": ("fp8", {"X.weight": F8, "X.layer_scale": ("F32", (64, 1))}),
    "one number of what a model may learn": ("fp8", {"X.weight": F8, "X.logit_scale": ONE}),
    "rows in the dtype of the codes": ("fp8", {"X.weight": F8, "X.scale": ("F8_E4M3", (64, 1))}),
    "rows in the dtype of the codes, called otherwise": ("fp8", {"X.weight": F8, "X.s": ("F8_E4M3", (64, 1))}),
    "columns in the dtype of the codes": ("fp8", {"X.weight": F8, "X.scale": ("F8_E4M3", (1, 64))}),
    "GGUF's": ("int8", {"X.weight": ("I8", (64, 64)), "X.d": ("F16", (64, 2))}),
}  # fmt: skip


def model(module: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """A checkpoint of two such modules beside tensors of plain numbers."""
    tensors: Tensors = {"embed.weight": ("BF16", (8, 4)), "norm.weight": ("BF16", (4,)), "blocks.0.fc.bias": ROW}
    for layer in range(2):
        tensors |= {name.replace("X", f"blocks.{layer}.fc"): tensor for name, tensor in module.items()}
    return {"tensors": tensors}


def errors(recipe: str, models: dict[str, Any]) -> list[Any]:
    """The errors of a recipe; none where it compiles."""
    lets = "".join(f'let {name} = model("{name}")\n' for name in models)
    try:
        mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog(models), device="cpu")
    except MergecError as error:
        return [d for d in error.diagnostics if d.code.startswith("E")]
    return []


@pytest.mark.parametrize("name", FORMATS)
def test_arithmetic_on_codes(name: str) -> None:
    said, module = FORMATS[name]
    both = {"a": model(module), "b": model(module)}
    for value in ("linear(a, b)", "0.5 * a", "slerp(a, b, t=0.5)", "ties(a, b, base=a)"):
        found = errors(f"* = {value}", both)
        assert {d.code for d in found} <= {"E0456", "E0309"}, found
        first = next(d for d in found if d.code == "E0456")
        assert said in first.message
        assert "quantised" in first.message
        assert not any("copy it from" in help for d in found for help in d.help)


@pytest.mark.parametrize("name", FORMATS)
def test_each_tensor_of_a_module_is_refused_by_itself(name: str) -> None:
    _, module = FORMATS[name]
    for part in module:
        stored = part.replace("X", "blocks.0.fc")
        found = errors(f'* = a\n"{stored}" = 0.5 * a', {"a": model(module)})
        assert [d.code for d in found] == ["E0456"], stored


@pytest.mark.parametrize("name", FORMATS)
def test_copies(name: str) -> None:
    _, module = FORMATS[name]
    both = {"a": model(module), "b": model(module)}
    assert errors("* = a", both) == []
    beside = [part.replace("X", "blocks.1.fc") for part in module if not part.startswith("X")]
    place = "blocks" if beside else "layers"
    rest = "".join(f'\n"{name}" = b' for name in beside)
    assert errors(f"* = a\n{place}[1] = b{rest}", both) == []
    for part in module:
        stored = part.replace("X", "blocks.0.fc")
        found = errors(f'* = a\n"{stored}" = b', both)
        assert [d.code for d in found] == ["E0457"], stored


PLAIN: dict[str, Tensors] = {
    "a cast to float8": {"X.weight": F8, "X.bias": ("F8_E4M3", (64,))},
    "a cast that leaves norms": {"X.weight": F8, "X.norm.scale": ROW},
    "a cast with norms called scale": {"X.weight": F8, "X.norm.scale": ("F8_E4M3", (64,))},
    "a cast with what a model learns": {"X.proj": F8, "X.logit_scale": ("F32", ()), "X.layer_scale": ROW},
    "a cast of a codebook": {"X.weight": F8, "X.cluster_size": ROW},
    "a cast with a table": {"X.pos": F8, "X.scale_shift_table": ("F32", (6, 64))},
    "a cast beside several modules": {"X.q.weight": F8, "X.k.weight": F8, "X.scale": ONE},
    "a cast of a module further down": {"X.q.conv.weight": F8, "X.scale": ROW},
    "a cast of weights with norms of their own": {
        "X.parametrizations.weight.original0": ("F8_E4M3", (64, 1)), "X.parametrizations.weight.original1": F8,
    },
    "a cast with an embedding beside": {"X.weight": F8, "X.eoi_embedding": ROW},
    "a cast of tokens": {"X.cls_token": ("F8_E4M3", (1, 1, 64)), "X.register_tokens": ("F8_E4M3", (1, 8, 64))},
    "a cast of factors": {"X.weight": F8, "X.down": ("F8_E4M3", (8, 64)), "X.up": ("F8_E4M3", (64, 8))},
    "a cast of a norm over batches": {
        "X.weight": ("F8_E4M3", (64,)), "X.running_mean": ROW, "X.running_var": ROW,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_numbers(name: str) -> None:
    both = {"a": model(PLAIN[name]), "b": model(PLAIN[name])}
    assert errors("* = linear(a, b)", both) == []


COUNTED: dict[str, Tensors] = {
    "positions": {"X.weight": ("F32", (64, 64)), "X.token_ids": ("I64", (1, 64))},
    "counters": {"X.weight": ROW, "X.num_batches_tracked": ("I64", ())},
    "indices beside a scale that is learned": {
        "X.logit_scale": ("F32", (4, 1, 1)), "X.relative_position_index": ("I64", (64, 64)),
    },
    "short indices": {"X.scale": ROW, "X.relative_position_index": ("I32", (64, 64))},
    "a mask": {"X.weight": F8, "X.bias": ("U8", (1, 1, 8, 8)), "X.masked_bias": ("F32", ())},
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_integers_that_are_no_weights(name: str) -> None:
    module = COUNTED[name]
    both = {"a": model(module), "b": model(module)}
    counted = [part for part, (dtype, _) in module.items() if dtype[0] in "IU"]
    copies = "".join(f'"blocks.{layer}.fc{part[1:]}" = a\n' for part in counted for layer in range(2))
    assert errors(f"* = linear(a, b)\n{copies}", both) == []


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ 4-bit"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "bitsandbytes 8-bit"),
    ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes 4-bit"),
    ({"quantization_config": {"quant_method": "a\x1b new one"}}, r"a\x1b new one"),
    ({"quantization_config": {"bits": 2}}, "2-bit"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, "mxfp4"),
    ({"thinker_config": {"text_config": {"quantization_config": {"quant_method": "awq"}}}}, "AWQ"),
    ({"quantization": {"group_size": 64, "bits": 4}}, "4-bit"),
]


@pytest.mark.parametrize(("config", "said"), CONFIGS)
def test_a_config_that_says_so(config: dict[str, Any], said: str) -> None:
    """Whatever the tensors look like: none of them is computed with."""
    tensors = {"fc.weight": ("BF16", (4, 4)), "norm.weight": ("BF16", (4,))}
    both = {name: {"tensors": tensors, "config": {"model_type": "odd", **config}} for name in "ab"}
    for recipe in ("* = linear(a, b)", '* = a\n"norm.weight" = 0.5*a + 0.5*b'):
        found = errors(recipe, both)
        assert {d.code for d in found} == {"E0456"}
        assert f"quantised ({said})" in found[0].message
    assert errors('* = a\n"norm.weight" = b', both) == []


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": None},
        {"quantization_config": {}},
        {"quantization_config": "fp8"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}},
        {"quantization": {"codebooks": 8}},
    ],
)
def test_a_config_that_says_nothing_of_the_kind(config: dict[str, Any]) -> None:
    tensors = {"fc.weight": ("BF16", (4, 4))}
    both = {name: {"tensors": tensors, "config": {"model_type": "odd", **config}} for name in "ab"}
    assert errors("* = linear(a, b)", both) == []


def test_header_metadata_that_says_so() -> None:
    spec = {"tensors": {"fc.weight": ("BF16", (4, 4))}, "metadata": {"_quantization_metadata": "{}"}}
    assert [d.code for d in errors("* = 0.5*a", {"a": spec})] == ["E0456"]


@pytest.mark.parametrize(
    ("document", "said"),
    [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ"), ("hf_quant_config.json", "ModelOpt")],
)
def test_a_document_that_says_so(document: str, said: str) -> None:
    spec = {**model(FORMATS["AWQ"][1]), "documents": {document: "{}"}}
    found = errors('* = a\n"norm.weight" = 0.5*a', {"a": spec})
    assert [d.code for d in found] == ["E0456"]
    assert said in found[0].message


def test_a_norm_beside_codes_that_no_config_tells_of() -> None:
    """Files without a config mark their codes by scales; what has none is a number like any
    other."""
    both = {"a": model(FORMATS["image models"][1]), "b": model(FORMATS["image models"][1])}
    assert errors('* = a\n"norm.weight" = 0.5*a + 0.5*b', both) == []


def test_rows_of_a_plain_embedding_may_move() -> None:
    """Gathering rows is no arithmetic, but of codes it would part them from their scales."""
    words = '{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}'
    turned = '{"model": {"vocab": {"b": 0, "a": 1}}, "added_tokens": []}'
    config = {"model_type": "llama", "vocab_size": 2, "num_hidden_layers": 1, "tie_word_embeddings": True}
    quantised = config | {"quantization_config": {"quant_method": "fp8"}}
    body = {"model.layers.0.mlp.up_proj.weight": F8, "model.layers.0.mlp.up_proj.weight_scale_inv": BLOCKS}
    plain = {"model.embed_tokens.weight": ("BF16", (2, 64)), **body}
    coded = {"model.embed_tokens.weight": ("I8", (2, 64)), "model.embed_tokens.SCB": ("F32", (2,)), **body}
    other = {"tensors": plain, "config": quantised, "documents": {"tokenizer.json": turned}}
    for tensors, codes in ((plain, []), (coded, ["E0456"])):
        spec = {"tensors": tensors, "config": quantised, "documents": {"tokenizer.json": words}}
        found = errors("output(like=a, tokenizer=b)\n* = a", {"a": spec, "b": other})
        assert [d.code for d in found] == codes


def test_a_tied_head_needs_no_scales_of_its_own() -> None:
    tensors = {
        "model.embed_tokens.weight": F8,
        "model.embed_tokens.weight_scale": ONE,
        "lm_head.weight": F8,
        "lm_head.weight_scale": ONE,
        "model.layers.0.mlp.up_proj.weight": ("BF16", (4, 4)),
    }
    config = {"model_type": "llama", "num_hidden_layers": 1, "tie_word_embeddings": True}
    equal = [("model.embed_tokens.weight", "lm_head.weight")]
    assert errors("* = a", {"a": {"tensors": tensors, "config": config, "equal": equal}}) == []


def test_codes_have_names_and_shapes_of_their_own() -> None:
    """Whether a quantised checkpoint is complete is not told by the names and rows that plain
    weights have."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 3,
        "tie_word_embeddings": False,
        "vocab_size": 64,
        "quantization_config": {"quant_method": "gptq", "bits": 4, "lm_head": True},
    }
    tensors: Tensors = {"model.embed_tokens.weight": ("U8", (16, 64)), "model.norm.weight": ROW}
    for module in ("model.layers.1.mlp.up_proj", "model.layers.2.mlp.up_proj", "lm_head"):
        tensors |= {name.replace("X", module): tensor for name, tensor in FORMATS["GPTQ"][1].items()}
    tensors["model.layers.0.mlp.up_proj.weight"] = ("F16", (64, 64))
    assert errors("* = a", {"a": {"tensors": tensors, "config": config}}) == []
    assert [
        d.code for d in errors("* = a", {"a": {"tensors": tensors, "config": config | {"num_hidden_layers": 4}}})
    ] == ["E0461"]


@pytest.mark.parametrize("name", ["block fp8", "GPTQ"])
def test_plain_layers_do_not_go_where_the_template_has_codes(name: str) -> None:
    """Beyond its depth too: its config.json speaks of all layers."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
    }
    module, plain = FORMATS[name][1], {"X.weight": ("BF16", (64, 64))}

    def llama(module: Mapping[str, tuple[str, tuple[int, ...]]], **more: Any) -> dict[str, Any]:
        tensors: Tensors = {"model.embed_tokens.weight": ("BF16", (8, 64)), "model.norm.weight": ("BF16", (64,))}
        for layer in range(2):
            tensors |= {part.replace("X", f"model.layers.{layer}.mlp.up_proj"): t for part, t in module.items()}
        return {"tensors": tensors, "config": config | more}

    said = {"quantization_config": {"quant_method": "fp8" if name == "block fp8" else "gptq"}}
    models = {"a": llama(module, **said), "b": llama(plain), "c": llama(module, **said)}
    for second, codes in (("b", ["E0457"]), ("c", [])):
        for layers in (f"a.layers[0], {second}.layers[1]", f"a.layers[*], {second}.layers[0]"):
            found = errors(f"output(like=a)\n* = a\nlayers = stack({layers})", models)
            assert [d.code for d in found] == codes, layers


def test_settings_that_differ_have_no_way_out_in_another_template() -> None:
    module = FORMATS["block fp8"][1]
    config = {"model_type": "odd", "quantization_config": {"quant_method": "fp8"}}
    other = {"model_type": "odd", "quantization_config": {"quant_method": "fp8", "weight_block_size": [1, 1]}}
    models = {"a": {**model(module), "config": config}, "b": {**model(module), "config": other}}
    (found,) = errors("* = a\nlayers[1] = b", models)
    assert found.code == "E0457"
    assert not any("like=" in help for help in found.help)
