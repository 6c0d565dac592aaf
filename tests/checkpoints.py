"""Tiny checkpoints of many families, made with transformers, and the logits of a folder as
transformers loads it.

Weights are random with a spread large enough for logits to differ clearly between models. The
variants that people meet in the wild (a redundant head, Phi-2's old layout) are made by rewriting
the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

VOCABULARY = 64
LAYERS = 4
WIDTH = 32
DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**DECODER, "num_key_value_heads": 2}


def _llama(tied: bool) -> transformers.PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED, tie_word_embeddings=tied))


def _qwen2() -> transformers.PreTrainedModel:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED, tie_word_embeddings=True))


def _gemma2() -> transformers.PreTrainedModel:
    config = transformers.Gemma2Config(**GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=16)
    return transformers.Gemma2ForCausalLM(config)


def _gemma() -> transformers.PreTrainedModel:
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**GROUPED, head_dim=8))


def _gemma3() -> transformers.PreTrainedModel:
    config = transformers.Gemma3TextConfig(
        **GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, sliding_window_pattern=2
    )
    return transformers.Gemma3ForCausalLM(config)


def _mistral() -> transformers.PreTrainedModel:
    return transformers.MistralForCausalLM(transformers.MistralConfig(**GROUPED, tie_word_embeddings=False))


def _qwen3() -> transformers.PreTrainedModel:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GROUPED, head_dim=8, tie_word_embeddings=True))


def _phi3() -> transformers.PreTrainedModel:
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**GROUPED, tie_word_embeddings=False))


def _gpt_neox() -> transformers.PreTrainedModel:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**DECODER, tie_word_embeddings=False))


def _stablelm() -> transformers.PreTrainedModel:
    return transformers.StableLmForCausalLM(transformers.StableLmConfig(**GROUPED, tie_word_embeddings=False))


def _phi() -> transformers.PreTrainedModel:
    return transformers.PhiForCausalLM(transformers.PhiConfig(**DECODER, partial_rotary_factor=0.5))


def _gpt2() -> transformers.PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=LAYERS, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def _t5() -> transformers.PreTrainedModel:
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=LAYERS,
        num_decoder_layers=LAYERS - 1,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def _bert() -> transformers.PreTrainedModel:
    config = {k: v for k, v in DECODER.items() if k not in ("bos_token_id", "eos_token_id")}
    return transformers.BertForMaskedLM(transformers.BertConfig(**config))


def _mixtral() -> transformers.PreTrainedModel:
    config = transformers.MixtralConfig(
        **GROUPED, num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False
    )
    return transformers.MixtralForCausalLM(config)


MODELS: Mapping[str, Callable[[], transformers.PreTrainedModel]] = MappingProxyType(
    {
        "llama-tied": lambda: _llama(True),
        "llama": lambda: _llama(False),
        "qwen2": _qwen2,
        "gemma": _gemma,
        "gemma2": _gemma2,
        "gemma3": _gemma3,
        "gpt_neox": _gpt_neox,
        "mistral": _mistral,
        "phi3": _phi3,
        "qwen3": _qwen3,
        "stablelm": _stablelm,
        "phi": _phi,
        "gpt2": _gpt2,
        "t5": _t5,
        "bert": _bert,
        "mixtral": _mixtral,
    }
)
"""Constructors by family."""

VARIANTS: Mapping[str, str] = MappingProxyType(
    {"gemma2-copied-head": "gemma2", "gemma2-other-head": "gemma2", "phi-old": "phi", "t5-untied": "t5"}
)
"""Rewritten checkpoints, and the family that each is made from."""


def make(family: str, folder: Path, *, dtype: str = "float32", seed: int = 0) -> None:
    """Write a checkpoint of `family` (of `MODELS` or `VARIANTS`) to `folder`; equal seeds give
    equal weights."""
    torch.manual_seed(seed)
    model = MODELS[VARIANTS.get(family, family)]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if family == "gemma2-copied-head":
        store_head(folder, "model.embed_tokens.weight")
    elif family == "gemma2-other-head":
        store_head(folder, "model.embed_tokens.weight", noise=0.1)
    elif family == "t5-untied":  # as the T5 1.1 checkpoints on the Hub are; the library itself no longer writes this
        store_head(folder, "shared.weight", noise=0.1)
        edit_config(folder, tie_word_embeddings=False, scale_decoder_outputs=None)
    elif family == "phi-old":
        to_old_phi(folder)


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor below a folder, or of one file."""
    files = [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def store(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Replace a folder's weights by `tensors`, in one file."""
    for old in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        old.unlink()
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    """Set keys of config.json; a value of None removes the key."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}, indent=2) + "\n", "utf-8")


def parameters(folder: Path) -> int:
    """Elements in all stored tensors, from the headers."""
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as header:
            names = list(header.keys())
            count += sum(torch.Size(header.get_slice(name).get_shape()).numel() for name in names)
    return count


def store_head(folder: Path, source: str, noise: float = 0.0) -> None:
    """Store `lm_head.weight` beside the embedding `source`: a copy of it, plus noise of that
    scale."""
    tensors = load(folder)
    embedding = tensors[source]
    generator = torch.Generator().manual_seed(1)
    tensors["lm_head.weight"] = embedding + (noise * torch.randn(embedding.shape, generator=generator)).to(
        embedding.dtype
    )
    store(tensors, folder)


OLD_PHI: tuple[tuple[str, str], ...] = (
    (r"model\.embed_tokens\.weight", "transformer.embd.wte.weight"),
    (r"model\.layers\.(\d+)\.input_layernorm\.(weight|bias)", r"transformer.h.\1.ln.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.dense\.(weight|bias)", r"transformer.h.\1.mixer.out_proj.\2"),
    (r"model\.layers\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)", r"transformer.h.\1.mlp.\2.\3"),
    (r"model\.final_layernorm\.(weight|bias)", r"lm_head.ln.\1"),
    (r"lm_head\.(weight|bias)", r"lm_head.linear.\1"),
)
"""Patterns of Phi-2's names in the library's layout, and the names before its port."""


def to_old_phi(folder: Path) -> None:
    """Rewrite a Phi checkpoint as Microsoft first published it: other names, q, k and v in one
    `Wqkv`."""
    tensors = load(folder)
    old: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"model\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            old[f"transformer.h.{match[1]}.mixer.Wqkv.{match[2]}"] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", name):
            old[_renamed(name)] = tensor
    store(old, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    edit_config(
        folder,
        model_type="phi-msft",
        n_embd=config["hidden_size"],
        n_layer=config["num_hidden_layers"],
        n_head=config["num_attention_heads"],
        n_inner=config["intermediate_size"],
        n_positions=config["max_position_embeddings"],
        rotary_dim=int(0.5 * config["hidden_size"] / config["num_attention_heads"]),
        architectures=["PhiForCausalLM"],
        **dict.fromkeys(
            ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        ),
    )


def _renamed(name: str) -> str:
    for pattern, replacement in OLD_PHI:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    raise ValueError(f"no old name for {name}")


def finetune(folder: Path, out: Path, *, seed: int, scale: float = 0.02) -> None:
    """A copy of `folder` with `scale` times N(0, 1) added to every float tensor, rounded to its
    dtype.

    Names that are stored stay stored, in the same layout; tied ones stay tied.
    """
    out.mkdir(parents=True)
    for file in folder.iterdir():
        if file.suffix != ".safetensors" and not file.name.endswith(".index.json"):
            (out / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for name, tensor in sorted(load(folder).items()):
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor = (tensor.float() + scale * noise).to(tensor.dtype)
        changed[name] = tensor
    store(changed, out)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What transformers made of a folder.

    `logits` is (2, 8, vocabulary), float32. The name lists are what it complained about; for a
    folder that is right all are empty.
    """

    logits: torch.Tensor
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)


def logits(folder: Path) -> Loaded:
    """Load a folder with `from_pretrained` and run it on a fixed input, in float32 on the CPU."""
    config = transformers.AutoConfig.from_pretrained(folder)
    architecture = getattr(transformers, config.architectures[0])
    model, report = architecture.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    ids = torch.arange(3, 19).reshape(2, 8) % config.vocab_size
    inputs = {"input_ids": ids}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    with torch.no_grad():
        out = model.eval()(**inputs).logits.float()
    return Loaded(
        logits=out,
        missing=tuple(sorted(map(str, report["missing_keys"]))),
        unexpected=tuple(sorted(map(str, report["unexpected_keys"]))),
        mismatched=tuple(sorted(map(str, report["mismatched_keys"]))),
    )
