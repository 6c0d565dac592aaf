"""Tiny Llamas with tokenizers of their own, as a fine-tuned model's folder has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WIDTH = 8
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, np.ndarray]


def word_level(words: Iterable[str], added: Iterable[AddedToken] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return with_added(tokenizer, added)


def bpe(words: Iterable[str], added: Iterable[AddedToken] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({w: k for k, w in enumerate(words)}, [], unk_token="<unk>", fuse_unk=True))
    tokenizer.decoder = decoders.Fuse()
    return with_added(tokenizer, added)


def unigram(words: Iterable[str], added: Iterable[AddedToken] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([(w, -float(k)) for k, w in enumerate(words)], 0, False))
    return with_added(tokenizer, added)


def with_added(tokenizer: Tokenizer, added: Iterable[AddedToken]) -> Tokenizer:
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def llama(
    folder: Path,
    seed: int,
    tokenizer: Tokenizer | None,
    *,
    rows: int | None = None,
    head_rows: int | None = None,
    tied: bool = False,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    dims: tuple[int, int] = (WIDTH, 16),
) -> Tensors:
    """Writes a Llama of one layer with the files of its tokenizer; `files` are further ones, text
    or JSON.

    Returns the tensors, in which the head of a tied model is its embedding.
    """
    rows = tokenizer.get_vocab_size() if rows is None and tokenizer is not None else rows
    assert rows is not None
    rng = np.random.default_rng(seed)
    width, inner = dims

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    layer = "model.layers.0."
    tensors = {EMBED: some(rows, width), "model.norm.weight": some(width)}
    tensors |= {f"{layer}self_attn.{p}_proj.weight": some(width, width) for p in "qkvo"}
    tensors |= {f"{layer}mlp.{p}_proj.weight": some(inner, width) for p in ("gate", "up")}
    tensors |= {f"{layer}mlp.down_proj.weight": some(width, inner)}
    tensors |= {f"{layer}{n}_layernorm.weight": some(width) for n in ("input", "post_attention")}
    if not tied:
        tensors[HEAD] = some(head_rows or rows, width)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": min(rows, head_rows or rows),
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        **(config or {}),
    }
    written: dict[str, Any] = {"config.json": settings, **(files or {})}
    if tokenizer is not None:
        written.setdefault("tokenizer.json", tokenizer.to_str())
        written.setdefault("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    for name, content in written.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return {HEAD: tensors[EMBED], **tensors}


def words(count: int) -> list[str]:
    return ["<unk>", "<s>", "</s>", *(f"w{k}" for k in range(count - 3))]


def special(text: str, **flags: bool) -> AddedToken:
    return AddedToken(text, special=True, normalized=False, **flags)


def vocabulary_tensors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and head of a folder in one file; those of a tied model are the same."""
    tensors = load_file(folder / "model.safetensors")
    return tensors[EMBED], tensors.get(HEAD, tensors[EMBED])


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text("utf-8"))
