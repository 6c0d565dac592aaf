"""A config made small, from what its keys are called; whole ratios between widths are kept."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from .meanings import (
    DEPTH,
    EXPERTS,
    HEAD_WIDTH,
    HEADS,
    KEY_HEADS,
    SIDE_HEADS,
    TOKEN,
    WIDTHS_OF_MODELS,
    Meaning,
    is_int,
    is_width,
    meaning,
    width_of,
)

NOT_SHRUNK = {
    *("transformers_version", "architectures", "_name_or_path", "model_type", "dtype", "torch_dtype", "auto_map"),
    *("id2label", "label2id", "num_labels", "problem_type", "is_encoder_decoder", "use_cache", "return_dict"),
    *("output_attentions", "output_hidden_states", "chunk_size_feed_forward"),
    *("_attn_implementation", "attn_implementation"),
    *("out_features", "out_indices", "_out_features", "_out_indices", "stage_names"),
}
"""Keys that a class fills in by itself, or that have no size."""

SIDES = (
    (re.compile("vision|visual|image"), 4),
    (re.compile("audio|speech|codec"), 5),
    (re.compile("encoder(?!.*decoder)|qformer|detector|backbone|prenet|adapter|resampler|perceiver"), 2),
    (re.compile("depth_dec|predictor|draft|assistant|tokenizer"), 2),
)
"""Depths of what stands beside the main stack. None is another's, so that no stack passes for
another."""


@dataclass(frozen=True)
class Size:
    """How small. `depth` is the main stack's, others have those of SIDES; or `every` is that of
    all. `lists`: widths in lists shrink too. `widths`: False leaves widths and heads.
    `whole_heads`: heads keep their width, and there are fewer. `fill`: counts that are None become
    numbers."""

    width: int = 32
    depth: int = 3
    every: int | None = None
    vocabulary: int = 128
    lists: bool = True
    widths: bool = True
    whole_heads: bool = False
    fill: bool = False


def shrunk(config: PreTrainedConfig, size: Size) -> dict[str, Any]:
    """The values for a small config of the same class, with those of nested configs inside."""
    return _Shrinking(size, config).level(config, "")


def nested(config: PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    return {key: value for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)}


class _Shrinking:
    """`widths`: what each model's width inside this config becomes."""

    def __init__(self, size: Size, config: PreTrainedConfig) -> None:
        self.size = size
        self.widths: dict[int, int] = {}
        self.tokens = 0
        self.learn(config)

    def learn(self, config: PreTrainedConfig) -> None:
        width = width_of(vars(config))
        if width:
            self.widths.setdefault(width, self.size.width)
        for each in nested(config).values():
            self.learn(each)

    def level(self, config: PreTrainedConfig, path: str) -> dict[str, Any]:
        inside = nested(config)
        own = config.to_dict() if "to_dict" not in vars(type(config)) else dict(vars(config))
        values = {
            key: value
            for key, value in own.items()
            if key not in NOT_SHRUNK and key not in inside and (key in vars(config) or not key.startswith("_"))
        }
        made = _Level(self, values, path).made()
        for key, each in inside.items():
            made[key] = self.level(each, f"{path}.{key}".lstrip("."))
            if each.model_type:
                made[key]["model_type"] = each.model_type
        return made

    def width(self, value: int, beside: int | None) -> int:
        """A width, in the same ratio to its model's (`beside`) where that is a whole one."""
        if value in self.widths:
            return self.widths[value]
        size = self.size.width
        for known in ([beside] if beside else []) + list(self.widths):
            if value % known == 0 and value // known <= 16:
                return size * (value // known)
            if known % value == 0 and known // value <= 4:
                return max(8, size // (known // value))
        known = beside or max(self.widths, default=0)
        return min(value, max(8, round(value * size / known / 8) * 8) if known else size)

    def token(self) -> int:
        """The number of a special token, each another."""
        self.tokens += 1
        return self.size.vocabulary - 1 - self.tokens % 60


class _Level:
    """One config without those nested in it."""

    def __init__(self, whole: _Shrinking, values: Mapping[str, Any], path: str) -> None:
        self.whole, self.size, self.values = whole, whole.size, values
        self.width = width_of(values)
        self.depths = {
            key: min(value, self.depth(f"{path}.{key}".lower()))
            for key, value in values.items()
            if is_int(value) and DEPTH.fullmatch(key) and value > 1
        }

    def depth(self, path: str) -> int:
        return self.size.every or next((depth for words, depth in SIDES if words.search(path)), self.size.depth)

    def made(self) -> dict[str, Any]:
        made = {key: self.one(key, value, self.values) for key, value in self.values.items()}
        if self.size.widths:
            made |= self.attention(made)
        if self.size.fill:
            made |= self.filled(made)
        if self.depths and isinstance(self.values.get("per_layer_config"), dict):
            made["per_layer_config"] = self.last_layer(made)
        return made

    def one(self, key: str, value: Any, beside: Mapping[str, Any]) -> Any:
        if isinstance(value, list | tuple):
            return self.several(key.lower(), list(value))
        if isinstance(value, dict):
            if "rope" in key.lower() or key == "per_layer_config":
                return copy.deepcopy(value)
            return {k: self.one(k, v, {**beside, **value}) if isinstance(k, str) else v for k, v in value.items()}
        return self.number(key, value, beside) if is_int(value) else copy.deepcopy(value)

    def number(self, key: str, value: int, beside: Mapping[str, Any]) -> int:
        match meaning(key, value, beside, self.size.vocabulary):
            case Meaning.DEPTH:
                return self.depths.get(key, value)
            case Meaning.DENSE_LAYERS | Meaning.CHOSEN_GROUPS:
                return min(value, 1)
            case Meaning.VOCABULARY:
                return self.size.vocabulary
            case Meaning.TOKEN:
                return self.whole.token()
            case Meaning.EXPERTS:
                return min(value, 4)
            case Meaning.CHOSEN_EXPERTS | Meaning.EXPERT_GROUPS:
                return min(value, 2)
            case Meaning.POSITIONS:
                return 512
            case Meaning.RANK if self.size.widths:
                return min(value, 8)
            case Meaning.WIDTH if self.size.widths:
                return self.whole.width(value, self.width)
        return value

    def several(self, key: str, values: list[Any]) -> list[Any]:
        of = {self.values[name]: name for name in self.depths}
        if len(values) > 1 and len(values) in of and key != "depths":
            return one_of_each_kind(values, self.depths[of[len(values)]])
        if not values or not all(map(is_int, values)):
            return copy.deepcopy(values)
        most, words = max(values), self.size.vocabulary
        if TOKEN.search(key) and most >= words and "layer" not in key:
            return [v if v < words else words - 1 - i for i, v in enumerate(values)]
        if re.search(r"(^|_)depths$|layers_per|num_layers|_blocks$|block_repeat", key):
            return [min(v, 2) for v in values]
        if EXPERTS.search(key):
            return [min(v, 4) for v in values]
        if self.depths and re.search(r"layers?$|layer_ids$|indexes$|indices$|_idx$", key):
            last = max(self.depths.values()) - 1
            return sorted({min(v, last) for v in values}) if most > last else values
        if not self.size.widths or not self.size.lists:
            return values
        if HEADS.search(key) and most > 8:
            return [max(1, round(v * 8 / most)) for v in values]
        if is_width(key, most) and most > 64:
            unit = 8 if self.size.width <= 32 else self.size.width // 2
            return [max(unit, round(v * 2 * self.size.width / most / unit) * unit) for v in values]
        return values

    # --- attention: heads × their width is the model's width where it was

    def attention(self, made: Mapping[str, Any]) -> dict[str, int]:
        values, width = self.values, self.width
        named = {k: v for k, v in values.items() if is_int(v) and v > 0}
        across = {k: v for k, v in named.items() if HEAD_WIDTH.search(k.lower())}
        keys = {k: v for k, v in named.items() if KEY_HEADS.search(k.lower()) and k not in across}
        heads = {k: v for k, v in named.items() if HEADS.search(k.lower()) and k not in across | keys}
        main = next((k for k in heads if not SIDE_HEADS.search(k)), None)
        name = next((k for k in WIDTHS_OF_MODELS if width and values.get(k) == width), None)
        new = made[name] if name else self.size.width
        if self.size.whole_heads and main and width and width % values[main] == 0:
            return {k: max(1, round(v * new / width)) if v > 1 else v for k, v in (heads | keys).items()}
        each = max(4, new // 4)
        found = {k: min(v, each) for k, v in across.items() if k != "qk_head_dim"}
        latent = "qk_nope_head_dim" in across
        if latent and "qk_head_dim" in across:
            found["qk_head_dim"] = found["qk_nope_head_dim"] + found.get("qk_rope_head_dim", 0)
        for key, value in heads.items():
            own = self.head_width(key, across, None if SIDE_HEADS.search(key) else across.get("head_dim"))
            if own and width and not latent:
                found[key] = min(32, max(1, round(value * own / width * new / each)))
            else:
                found[key] = min(value, 4)
        for key, value in keys.items():
            queries = self.queries(key, heads, main)
            if queries is None:
                found[key] = min(value, 2)
            elif value == values[queries]:
                found[key] = found[queries]
            else:
                found[key] = 1 if value == 1 or found[queries] % 2 else max(1, found[queries] // 2)
        return found

    def head_width(self, key: str, across: Mapping[str, int], common: int | None) -> int | None:
        """The width of a head of those that `key` counts: by the words before `num` in common."""
        words = key.rsplit("num", 1)[0].rstrip("_") if "num" in key else ""
        return next((v for k, v in across.items() if words and k.startswith(words)), common)

    def queries(self, key: str, heads: Mapping[str, int], main: str | None) -> str | None:
        like = (key.replace("key_value", "attention"), key.replace("kv_heads", "heads"), key.replace("key_value_", ""))
        return next((k for k in like if k in heads), main)

    # --- what a config may leave out, and what it says of one layer alone

    def filled(self, made: Mapping[str, Any]) -> dict[str, int]:
        def empty(key: str) -> bool:
            return key in self.values and self.values[key] is None

        found = {}
        heads = next((made[k] for k in ("num_attention_heads", "n_head", "num_heads") if is_int(made.get(k))), None)
        if heads and empty("num_key_value_heads"):
            found["num_key_value_heads"] = heads
        if heads and empty("head_dim") and is_int(made.get("hidden_size")):
            found["head_dim"] = max(8, made["hidden_size"] // heads)
        if empty("vocab_size"):
            found["vocab_size"] = self.size.vocabulary
        return found

    def last_layer(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """The first exception from the config, for the last layer."""
        exception: dict[str, Any] = next(iter(self.values["per_layer_config"].values()), {})
        small = {}
        for key, value in exception.items():
            if value == self.values.get(key):
                small[key] = made[key]
            elif is_int(value) and HEAD_WIDTH.search(key):
                small[key] = 2 * made.get(key, 8)
            else:
                small[key] = 1 if is_int(value) and KEY_HEADS.search(key) else self.one(key, value, self.values)
        return {str(next(iter(self.depths.values())) - 1): small} if small else {}


def one_of_each_kind(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items in their order, of as many kinds as there are. Repeats where they are
    fewer."""
    texts = [repr(item) for item in items]
    first = [i for i, text in enumerate(texts) if text not in texts[:i]]
    chosen = sorted([*first, *(i for i in range(len(items)) if i not in first)][:count])
    return [copy.deepcopy(items[i]) for i in (chosen + chosen * count)[:count]]
