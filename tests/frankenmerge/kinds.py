"""Models whose layers are of several kinds: how to build them small, in which order their layers
are put together, and what a published config.json of the type does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BASE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXPERTS = {
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_local_experts": 4,
    "shared_expert_intermediate_size": 16,
}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_WINDOW = {"sliding_window": 4}


@dataclass(frozen=True)
class Kind:
    """A model type: `config` beside BASE; `parts` of the stack, first and last layers; `unsaid`
    keys that published configs lack, `said` what they have in their place. `facts` are (key of the
    list, rule) and `defaults` what silence means, for a type whose knowledge is not in the tables
    yet."""

    type: str
    layers: int
    config: Mapping[str, Any]
    parts: Sequence[tuple[int, int]]
    unsaid: Sequence[str] = ()
    said: Mapping[str, Any] = field(default_factory=dict)
    facts: Sequence[tuple[str | None, str]] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> list[int]:
        return [layer for first, last in self.parts for layer in range(first, last + 1)]


def _period(kind: str, other: str, count: str) -> str:
    return f"'{kind}' if (i + 1) % {count} else '{other}'"


_SLIDING = "sliding_attention", "full_attention"
_LAST_WINDOWS = "'sliding_attention' if sliding_window is not None and i >= max_window_layers else 'full_attention'"
_DENSE_FIRST = (None, "i >= first_k_dense_replace")
_SPARSE = (None, "num_experts > 0 and i not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0")
_TWO, _FOUR = [(0, 2), (2, 4)], [(0, 3), (2, 4)]
_TYPES = ["layer_types"]

KINDS = [
    Kind("gemma2", 5, _WINDOW, _TWO, _TYPES),
    Kind("gemma3_text", 8, _WINDOW, [(0, 5), (3, 7)], _TYPES, {"sliding_window_pattern": 6}),
    Kind("qwen2", 5, {**_WINDOW, "use_sliding_window": True, "max_window_layers": 3}, _FOUR, _TYPES),
    Kind("qwen3", 5, {**_WINDOW, "use_sliding_window": True, "max_window_layers": 3}, _FOUR, _TYPES),
    Kind(
        "cohere2",
        5,
        _WINDOW,
        _FOUR,
        _TYPES,
        {"sliding_window_pattern": 4},
        [("layer_types", _period(*_SLIDING, "sliding_window_pattern"))],
        {"sliding_window_pattern": 4},
    ),
    Kind("olmo3", 5, _WINDOW, _FOUR, _TYPES, facts=[("layer_types", _period(*_SLIDING, "4"))]),
    Kind(
        "exaone4",
        5,
        {**_WINDOW, "sliding_window_pattern": 4},
        _FOUR,
        _TYPES,
        facts=[("layer_types", _period(*_SLIDING, "sliding_window_pattern"))],
        defaults={"sliding_window_pattern": 4},
    ),
    Kind("gpt_oss", 5, {**_WINDOW, **_EXPERTS}, _TWO, _TYPES, facts=[("layer_types", _period(*_SLIDING, "2"))]),
    Kind(
        "smollm3",
        5,
        {**_WINDOW, "use_sliding_window": True, "no_rope_layer_interval": 4},
        _FOUR,
        ["layer_types", "no_rope_layers"],
        {},
        [
            ("no_rope_layers", "1 if (i + 1) % no_rope_layer_interval else 0"),
            (
                "layer_types",
                "'sliding_attention' if use_sliding_window and sliding_window is not None and not no_rope_layers[i]"
                " else 'full_attention'",
            ),
        ],
        {"no_rope_layer_interval": 4, "use_sliding_window": False},
    ),
    Kind(
        "modernbert",
        5,
        {"local_attention": 4, "global_attn_every_n_layers": 3},
        [(0, 2), (1, 4)],
        _TYPES,
        {"global_attn_every_n_layers": 3},
        [("layer_types", "'sliding_attention' if i % global_attn_every_n_layers else 'full_attention'")],
        {"global_attn_every_n_layers": 3},
    ),
    Kind(
        "minimax",
        5,
        _EXPERTS,
        _TWO,
        _TYPES,
        facts=[("layer_types", _period("full_attention", "linear_attention", "2"))],
    ),
    Kind(
        "lfm2",
        4,
        {"layer_types": ["conv", "full_attention", "conv", "conv"]},
        [(0, 2), (1, 3)],
        _TYPES,
        {"full_attn_idxs": [1]},
        [("layer_types", "'full_attention' if full_attn_idxs is None or i in full_attn_idxs else 'conv'")],
    ),
    Kind(
        "lfm2_moe",
        5,
        {
            "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"],
            "num_dense_layers": 1,
            **_EXPERTS,
        },
        [(0, 0), (0, 2), (1, 3)],
        facts=[("layer_types", "layer_types[i]"), (None, "i >= num_dense_layers")],
    ),
    Kind(
        "qwen3_next",
        5,
        {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "mlp_only_layers": [1],
            **_EXPERTS,
        },
        _FOUR,
        _TYPES,
        {"full_attention_interval": 4},
        [("layer_types", _period("linear_attention", "full_attention", "full_attention_interval")), _SPARSE],
        {"full_attention_interval": 4, "decoder_sparse_step": 1, "mlp_only_layers": [], "num_experts": 512},
    ),
    Kind(
        "qwen3_moe",
        4,
        {"mlp_only_layers": [1], **_EXPERTS},
        [(0, 2), (1, 3)],
        facts=[_SPARSE],
        defaults={"decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    Kind(
        "qwen2_moe",
        5,
        {**_WINDOW, **_EXPERTS, "use_sliding_window": True, "max_window_layers": 4, "decoder_sparse_step": 2},
        _TWO,
        _TYPES,
        facts=[
            (
                "layer_types",
                "'sliding_attention' if (i + 1) % 2 and i < max_window_layers and use_sliding_window"
                " else 'full_attention'",
            ),
            _SPARSE,
        ],
        defaults={
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "use_sliding_window": False,
            "max_window_layers": 28,
        },
    ),
    Kind(
        "deepseek_v3",
        4,
        {
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
            **_EXPERTS,
        },
        [(0, 0), (0, 2), (1, 3)],
    ),
    Kind("glm4_moe", 4, {"first_k_dense_replace": 1, **_EXPERTS}, [(0, 0), (0, 2), (1, 3)], facts=[_DENSE_FIRST]),
    Kind(
        "dots1",
        5,
        {**_WINDOW, "first_k_dense_replace": 1, "max_window_layers": 3, **_EXPERTS},
        [(0, 0), (0, 3), (2, 4)],
        _TYPES,
        facts=[("layer_types", _LAST_WINDOWS), _DENSE_FIRST],
    ),
    Kind(
        "ernie4_5_moe",
        4,
        {
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 3,
            "moe_layer_interval": 1,
            "moe_num_experts": 4,
            "moe_k": 2,
        }
        | {"moe_intermediate_size": 16},
        [(0, 0), (0, 2), (1, 3)],
        facts=[
            (
                None,
                "(i + 1) % moe_layer_interval == 0 and i >= moe_layer_start_index"
                " and i <= (n - 1 if moe_layer_end_index == -1 else moe_layer_end_index)",
            )
        ],
    ),
    Kind(
        "llama4_text",
        5,
        {
            "attention_chunk_size": 4,
            "no_rope_layer_interval": 4,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 48,
            **_EXPERTS,
        },
        _FOUR,
        ["layer_types", "no_rope_layers", "moe_layers"],
        {},
        [
            ("no_rope_layers", "1 if (i + 1) % no_rope_layer_interval else 0"),
            (
                "layer_types",
                "'chunked_attention' if no_rope_layers[i] and attention_chunk_size is not None else 'full_attention'",
            ),
            (
                None,
                "i in moe_layers if moe_layers is not None else (i + 1) % interleave_moe_layer_step == 0",
            ),
        ],
    ),
    Kind(
        "jamba",
        4,
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
            **_EXPERTS,
        },
        [(1, 2), (1, 2)],
        facts=[
            (None, "i % attn_layer_period == attn_layer_offset"),
            (None, "i % expert_layer_period == expert_layer_offset"),
        ],
    ),
    Kind(
        "bamba", 4, {"attn_layer_indices": [1], **_MAMBA}, [(0, 2), (1, 3)], facts=[(None, "i in attn_layer_indices")]
    ),
    Kind(
        "granitemoehybrid",
        4,
        {
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
            "shared_intermediate_size": 16,
            **_MAMBA,
            **_EXPERTS,
        },
        [(0, 2), (1, 3)],
        facts=[("layer_types", "'linear_attention'")],
    ),
    Kind(
        "nemotron_h",
        4,
        {
            "layer_types": ["linear_attention", "mlp", "full_attention", "mlp"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
        },
        [(0, 2), (1, 3)],
        _TYPES,
        {"hybrid_override_pattern": "M-*-", "num_hidden_layers": 4},
        [
            (
                "layer_types",
                "'linear_attention' if hybrid_override_pattern[i] == 'M' else"
                " 'full_attention' if hybrid_override_pattern[i] == '*' else"
                " 'moe' if hybrid_override_pattern[i] == 'E' else 'mlp'",
            )
        ],
    ),
    Kind(
        "recurrent_gemma",
        5,
        {"lru_width": 32, "attention_window_size": 4},
        _FOUR,
        facts=[(None, "block_types[i % len(block_types)]")],
    ),
    Kind("falcon_h1", 3, {**_MAMBA, "mamba_d_ssm": 64}, [(0, 1), (1, 2)]),
    Kind(
        "gemma3n_text",
        5,
        {
            **_WINDOW,
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": 64,
            "hidden_size_per_layer_input": 8,
            "altup_num_inputs": 2,
            "laurel_rank": 4,
            "intermediate_size": [48, 40, 48, 40, 56],
            "activation_sparsity_pattern": [0.5, 0.0, 0.5, 0.0, 0.0],
        },
        # as many layers as before: tensors outside of them have a part for each
        [(0, 1), (4, 4), (2, 3)],
        _TYPES,
        facts=[("layer_types", _period(*_SLIDING, "5"))],
    ),
    Kind(
        "gpt_neo",
        4,
        {"attention_types": [[["global", "local"], 2]], "num_heads": 4, "window_size": 4},
        [(0, 2), (2, 3)],
        ["attention_layers"],
        {},
        [("attention_layers", "attention_types[0][0][i % len(attention_types[0][0])]")],
    ),
]
