"""What a number in a config counts, told from its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any


class Meaning(Enum):
    DEPTH = auto()
    DENSE_LAYERS = auto()
    VOCABULARY = auto()
    TOKEN = auto()
    EXPERTS = auto()
    CHOSEN_EXPERTS = auto()
    EXPERT_GROUPS = auto()
    CHOSEN_GROUPS = auto()
    POSITIONS = auto()
    RANK = auto()
    HEAD_WIDTH = auto()
    KEY_HEADS = auto()
    HEADS = auto()
    WIDTH = auto()


WIDTHS_OF_MODELS = (
    "hidden_size",
    "d_model",
    "n_embd",
    "dim",
    "embed_dim",
    "hidden_dim",
    "emb_dim",
    "model_dim",
    "embedding_size",
    "encoder_hidden_size",
    "width",
    "embedding_dim",
)
"""Keys of a model's width, the likeliest first."""

_PARTS = (
    "encoder|decoder|transformer|text|vision|block|hidden|attention|backbone|local|global|qformer|predictor"
    "|draft|assistant|audio|prenet|adapter_hidden|resampler|perceiver"
)
DEPTH = re.compile(
    rf"num_hidden_layers|num_layers|n_layers?|depth|num_blocks?"
    rf"|(num_)?(\w+_)?({_PARTS})_(num_)?(hidden_)?(layers?|depth|blocks)"
)
EXPERTS = re.compile(r"(^|_)(num|n)_(\w+_)?experts$|^expert_num$")
TOKEN = re.compile(r"_(ids?|index|token|token_id|idx)$")
HEADS = re.compile(r"(^|_)n?_?(num_)?(attention_)?heads?$")
KEY_HEADS = re.compile(r"(key_value|kv)_?(attention_)?heads$|key_value_heads|^multi_query_group_num$")
HEAD_WIDTH = re.compile(
    r"(^|_)(head_dim|head_size|d_head|d_kv|kv_channels|key_head_dim|value_head_dim|attention_head_dim|head_width)s?$"
    r"|_head_dim$"
)
SIDE_HEADS = re.compile(r"linear|mamba|ssm|gdn|index|lightning|kda|rwkv|conv")
"""Heads of what stands beside a model's attention."""

_VOCABULARY = re.compile(
    r"(^|_)(n_)?vocab(ulary)?_?(size)?(_\w+)?$|^vocab_size|^num_text_tokens$|^num_embeddings$|codebook_size$"
)
_WIDTH = re.compile(
    r"(_size|_dims?|_dimension|^dim|width|^d_\w+|^n_embd|^n_inner|d_inner|_channels?|^channels|_features|_hidden"
    r"|^hidden_sizes|embed_dims|ffn|_units|_filters|planes)$|embed_dims"
)
_NOT_A_WIDTH = re.compile(
    r"image|patch|kernel|window|vocab|chunk|batch|stride|max_|min_|block_size|queue|num_labels|temporal|input_feat"
    r"|num_channels$|in_channels|in_chans|mel|sampl|frame|codebook_size|num_codebook|context|buffer|grid|downsample"
    r"|group_size|axis|sliding|ratio|pool|position|type_vocab|crop|conv_size|tile|bucket|cutoff|_token_dim|fft|hop|bins"
    r"|class|feature_size|prediction|spatial|segment|query_pre"
)
_CHOSEN = re.compile(
    r"experts_per_tok|moe_top_?k|^moe_k$|^top_?k$|num_selected_experts|num_experts_to_select|router_top_k"
    r"|top_?k_experts|num_active_experts|moe_router_topk"
)
_DENSE = re.compile(
    r"first_k_dense_replace|(num|n|first)_dense_layers|moe_layer_start_index|num_self_attends_per_block|num_nextn"
)
_RANK = re.compile(r"(^|_)(lora_)?rank$|_lora_dim$|dt_rank$")


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def width_of(values: Mapping[str, Any]) -> int | None:
    """The width of the model whose config has these values."""
    return next((values[k] for k in WIDTHS_OF_MODELS if is_int(values.get(k)) and values[k] >= 16), None)


def meaning(key: str, value: int, beside: Mapping[str, Any], vocabulary: int) -> Meaning | None:
    """What `value` counts under `key`, among the keys of `beside`; None for what any size suits."""
    key = key.lower()
    moe = any(EXPERTS.search(other) for other in beside)
    found = (
        (Meaning.DEPTH, DEPTH.fullmatch(key) and value > 1),
        (Meaning.DENSE_LAYERS, _DENSE.search(key)),
        (Meaning.VOCABULARY, _VOCABULARY.search(key) and "type_vocab" not in key and value > 400),
        (Meaning.TOKEN, TOKEN.search(key) and value >= vocabulary),
        (Meaning.EXPERTS, EXPERTS.search(key) and "shared" not in key and "_per_" not in key),
        (Meaning.CHOSEN_EXPERTS, _CHOSEN.search(key)),
        (Meaning.EXPERT_GROUPS, key in ("n_group", "num_expert_group", "n_groups") and value > 1 and moe),
        (Meaning.CHOSEN_GROUPS, key == "topk_group"),
        (Meaning.POSITIONS, key in ("max_position_embeddings", "n_positions", "max_sequence_length") and value > 4096),
        (Meaning.RANK, _RANK.search(key)),
        (Meaning.HEAD_WIDTH, HEAD_WIDTH.search(key)),
        (Meaning.KEY_HEADS, KEY_HEADS.search(key)),
        (Meaning.HEADS, HEADS.search(key)),
        (Meaning.WIDTH, is_width(key, value)),
    )
    return next((what for what, holds in found if holds), None)


def is_width(key: str, value: int) -> bool:
    return bool(_WIDTH.search(key)) and not _NOT_A_WIDTH.search(key) and value > 16
