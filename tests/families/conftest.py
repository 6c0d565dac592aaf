"""Tiny checkpoints of every family, made by transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from mergec.compiler.checkpoint.catalog import Checkpoint, InputFile, StoredTensor
from mergec.compiler.checkpoint.layouts import Recognised
from safetensors.numpy import load_file

COMMON = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
}
PLAIN = {k: v for k, v in COMMON.items() if k not in ("num_key_value_heads", "head_dim")}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2}
DEEPSEEK = PLAIN | {
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 6,
    "kv_lora_rank": 5,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

# case: family, class of the model, its config
CASES: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "llama": ("llama", "LlamaForCausalLM", lambda: tf.LlamaConfig(**COMMON)),
    "llama-tied": (
        "llama",
        "LlamaForCausalLM",
        lambda: tf.LlamaConfig(**COMMON, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    ),
    "llama-bare": ("llama", "LlamaModel", lambda: tf.LlamaConfig(**COMMON)),
    "llama-classifier": ("llama", "LlamaForSequenceClassification", lambda: tf.LlamaConfig(**COMMON)),
    "mistral": ("mistral", "MistralForCausalLM", lambda: tf.MistralConfig(**COMMON)),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", lambda: tf.Qwen2Config(**COMMON)),
    "qwen2-tied": ("qwen2", "Qwen2ForCausalLM", lambda: tf.Qwen2Config(**COMMON, tie_word_embeddings=True)),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", lambda: tf.Qwen3Config(**COMMON)),
    "gemma": ("gemma", "GemmaForCausalLM", lambda: tf.GemmaConfig(**COMMON)),
    "gemma2": ("gemma2", "Gemma2ForCausalLM", lambda: tf.Gemma2Config(**COMMON)),
    "gemma3": ("gemma3", "Gemma3ForCausalLM", lambda: tf.Gemma3TextConfig(**COMMON)),
    "gemma3-vision": (
        "gemma3_vision",
        "Gemma3ForConditionalGeneration",
        lambda: tf.Gemma3Config(text_config=dict(COMMON), vision_config=dict(VISION), mm_tokens_per_image=4),
    ),
    "phi": ("phi", "PhiForCausalLM", lambda: tf.PhiConfig(**PLAIN)),
    "phi-norms": ("phi", "PhiForCausalLM", lambda: tf.PhiConfig(**PLAIN, qk_layernorm=True)),
    "phi3": ("phi3", "Phi3ForCausalLM", lambda: tf.Phi3Config(**COMMON, pad_token_id=0)),
    "gpt2": ("gpt2", "GPT2LMHeadModel", lambda: tf.GPT2Config(**GPT2)),
    "gpt2-bare": ("gpt2", "GPT2Model", lambda: tf.GPT2Config(**GPT2)),
    "gpt2-cross": ("gpt2", "GPT2LMHeadModel", lambda: tf.GPT2Config(**GPT2, add_cross_attention=True)),
    "gpt2-classifier": ("gpt2", "GPT2ForSequenceClassification", lambda: tf.GPT2Config(**GPT2)),
    "gpt_neox": ("gpt_neox", "GPTNeoXForCausalLM", lambda: tf.GPTNeoXConfig(**COMMON)),
    "stablelm": (
        "stablelm",
        "StableLmForCausalLM",
        lambda: tf.StableLmConfig(**COMMON, use_qkv_bias=True, qk_layernorm=True),
    ),
    "bert": ("bert", "BertForMaskedLM", lambda: tf.BertConfig(**PLAIN)),
    "bert-pretraining": ("bert", "BertForPreTraining", lambda: tf.BertConfig(**PLAIN)),
    "bert-classifier": ("bert", "BertForSequenceClassification", lambda: tf.BertConfig(**PLAIN)),
    "bert-bare": ("bert", "BertModel", lambda: tf.BertConfig(**PLAIN)),
    "t5": ("t5", "T5ForConditionalGeneration", lambda: tf.T5Config(**T5)),
    "t5-gated": ("t5", "T5ForConditionalGeneration", lambda: tf.T5Config(**T5, feed_forward_proj="gated-gelu")),
    "mt5": ("t5", "MT5ForConditionalGeneration", lambda: tf.MT5Config(**T5)),
    "umt5": ("t5", "UMT5ForConditionalGeneration", lambda: tf.UMT5Config(**T5)),
    "deepseek_v3-plain": (
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        lambda: tf.DeepseekV3Config(**(DEEPSEEK | {"q_lora_rank": None})),
    ),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3ForCausalLM", lambda: tf.DeepseekV3Config(**DEEPSEEK)),
    "mixtral": ("mixtral", "MixtralForCausalLM", lambda: tf.MixtralConfig(**COMMON, num_local_experts=3)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A saved model: the checkpoint as the compiler sees it, the stored values, and the ties in
    memory."""

    family: str
    model: Any
    checkpoint: Checkpoint
    values: Mapping[str, np.ndarray]
    tied: Mapping[str, str]


def checkpoint_of(values: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint in memory that stores these arrays."""
    tensors = {name: StoredTensor(name, "F32", v.shape, 0, 0, v.nbytes) for name, v in values.items()}
    return Checkpoint("memory:sample", (InputFile("memory:sample", 0, 0),), tensors, config)


def canonical_values(seen: Recognised, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the views of a recognised checkpoint hold."""
    return {
        name: values[view.stored].reshape(-1)[view.first :][: int(np.prod(view.shape))].reshape(view.shape)
        for name, view in seen.views.items()
    }


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    """Makes the sample of a case, once."""
    made: dict[str, Sample] = {}

    def make(case: str) -> Sample:
        if case not in made:
            family, kind, config = CASES[case]
            torch.manual_seed(0)
            model = getattr(tf, kind)(config())
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter)
            folder: Path = tmp_path_factory.mktemp(case)
            model.save_pretrained(folder)
            values = load_file(folder / "model.safetensors")
            saved = json.loads((folder / "config.json").read_text("utf-8"))
            made[case] = Sample(family, model, checkpoint_of(values, saved), values, model.all_tied_weights_keys)
        return made[case]

    return make
