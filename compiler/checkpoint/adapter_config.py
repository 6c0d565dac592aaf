"""adapter_config.json of a LoRA adapter: the keys that decide what it adds, each checked for its
type.

Names of modules in `rank_pattern` and `alpha_pattern` are regular expressions in PEFT, which fit a
module whose whole name, or the end of it after a dot, they match. The file is untrusted:
expressions that may take for ever are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ...grammar.diagnostic import MergecError, error
from ...grammar.records import dataclass
from ...grammar.source import Span

FILE = "adapter_config.json"

_REFUSED = (
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "alora_invocation_tokens",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
)
"""Keys of variants that are no plain LoRA, where they are set."""

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Values of `init_lora_weights` with which PEFT changes the model's own weights before it adds
anything."""

_PLAIN = re.compile(r"\^?[\w.-]+\$?")
_QUANTIFIERS = re.compile(r"[*+{]")
_MOST_QUANTIFIERS = 2
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """How strong an adapter is: rank and alpha, for all modules and for those that a pattern fits.

    `tied`: what is done to one of several tensors that share storage is done to all of them
    (`ensure_weight_tying`).
    """

    r: int
    alpha: float
    rank_stabilised: bool
    fan_in_fan_out: bool
    tied: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    def rank(self, module: str) -> int:
        """The rank of a module's product."""
        return next((r for key, r in self.rank_pattern.items() if fits(key, module)), self.r)

    def scale(self, module: str) -> float:
        """The factor of a module's product."""
        alpha = next((a for key, a in self.alpha_pattern.items() if fits(key, module)), self.alpha)
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def fits(key: str, module: str) -> bool:
    """Whether a key of a pattern means a module: PEFT's `(.*\\.)?(key)$`.

    >>> module = "model.layers.0.self_attn.q_proj"
    >>> fits("q_proj", module), fits("proj", module)
    (True, False)
    """
    if _PLAIN.fullmatch(key) and not key.startswith("^"):
        plain = key.removesuffix("$")
        return module == plain or module.endswith(f".{plain}")
    return re.match(rf"(.*\.)?({key})$", module[:_LONGEST]) is not None


def read_config(data: Mapping[str, Any], file: str, label: str, span: Span) -> AdapterConfig:
    """The settings in an adapter_config.json.

    Raises MergecError: E0451 for a key of the wrong type, E0452 for an adapter that is no plain
    LoRA.
    """
    check = _ConfigChecker(data, file, span)
    kind = check.value("peft_type", "LORA", _is(str), "a string")
    init = check.value("init_lora_weights", True, lambda v: isinstance(v, bool | str | None), "a boolean or a string")
    odd = [f"`peft_type` is `{ascii(kind)[1:-1]}`"] if kind != "LORA" else []
    if isinstance(init, str) and init.startswith(_CHANGES_BASE):
        odd.append(f"`init_lora_weights` is `{ascii(init)[1:-1]}`, which changes the model's own weights")
    odd.extend(f"it has `{key}`" for key in _REFUSED if data.get(key) not in (None, False, [], {}))
    if odd:
        raise error(
            "E0452",
            f"`{label}` is an adapter of a kind that can't be applied",
            span,
            "not a plain LoRA",
            notes=odd,
            help="merge it into its model with peft's `merge_and_unload`, and name the result",
            file=file,
        )
    check.value("use_dora", False, _is(bool), "a boolean")
    check.value("lora_bias", False, _is(bool), "a boolean")
    check.value("bias", "none", lambda v: v in ("none", "all", "lora_only"), '"none", "all" or "lora_only"')
    check.value("modules_to_save", None, _names, "a list of names")
    check.value("target_modules", None, lambda v: _names(v) or isinstance(v, str), "a list of names or a string")
    return AdapterConfig(
        r=check.value("r", 8, _positive, "a whole number of 1 or more"),
        alpha=float(check.value("lora_alpha", 8, _number, "a number")),
        rank_stabilised=check.value("use_rslora", False, _is(bool), "a boolean"),
        fan_in_fan_out=check.value("fan_in_fan_out", False, _is(bool), "a boolean"),
        tied=check.value("ensure_weight_tying", False, _is(bool), "a boolean"),
        rank_pattern=check.pattern("rank_pattern", _positive, "whole numbers of 1 or more"),
        alpha_pattern={k: float(v) for k, v in check.pattern("alpha_pattern", _number, "numbers").items()},
    )


@dataclass(frozen=True, slots=True)
class _ConfigChecker:
    data: Mapping[str, Any]
    file: str
    span: Span

    def value(self, key: str, default: Any, sound: Callable[[Any], bool], what: str) -> Any:
        value = self.data.get(key, default)
        if not sound(value):
            raise self.wrong(f"`{key}` is not {what}")
        return value

    def pattern(self, key: str, sound: Callable[[Any], bool], what: str) -> dict[str, Any]:
        value = self.data.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(sound(v) for v in value.values()):
            raise self.wrong(f"`{key}` does not map names of modules to {what}")
        for name in value:
            if not _harmless(name):
                raise self.wrong(f"`{key}` has the name `{ascii(name)[1:-1][:80]}`, an expression too involved to try")
        return value

    def wrong(self, message: str) -> MergecError:
        return error("E0451", message, self.span, "asked for here", file=self.file)


def _harmless(key: str) -> bool:
    """Whether an expression is sound, and quick on any name: what it repeats is single characters,
    and few times."""
    if _PLAIN.fullmatch(key):
        return True
    if len(key) > _LONGEST or "(?" in key or re.search(r"\)[*+?{]|\\[1-9]", key):
        return False
    try:
        re.compile(key)
    except (re.error, RecursionError, OverflowError):
        return False
    return len(_QUANTIFIERS.findall(key)) <= _MOST_QUANTIFIERS


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _positive(value: Any) -> bool:
    return type(value) is int and 1 <= value < 1 << 31


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e30


def _names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))
