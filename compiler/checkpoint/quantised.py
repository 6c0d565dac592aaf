"""Quantised checkpoints: what they hold are codes, which mean something only with the scales stored
beside them.

Two things show one, each by itself:

- its config says so (`quantization_config`, the header's `_quantization_metadata`), whatever the
  tensors look like. bitsandbytes can keep packed bits as bfloat16, and AWQ moves scales into norms,
  so none is taken for a plain tensor;
- a weight of eight bits, or of integers, has a scale in its module, whatever that is called:

      X.weight F8_E4M3, X.weight_scale_inv          X.qweight I32, X.qzeros, X.scales, X.g_idx
      X.weight F8_E4M3, X.scale                     X.weight I8, X.SCB
      X.linear.weight F8_E4M3, X.scale              X.weight F8_E4M3, X.any_name [rows, 1]
      X.weight U8, X.weight.absmax, X.weight.quant_map         X_blocks U8, X_scales U8

Weights that are merely cast to float8 have no scales, and are plain numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .bundles import CODES, Bundles, parts_of
from .catalog import Checkpoint, StoredTensor

_WIDE = frozenset({"F16", "BF16", "F32", "F64", "BOOL"})
"""Dtypes that no weight is packed in, unless a config says so."""

_SCALE = re.compile(
    r"scal(e|es|ing|er)\d*(?![a-z])|absmax|amax|\bscb\b|zero|quant|codebook|centroid|biases|(^|_)(lut|meta|tables?)\d*$",
    re.IGNORECASE,
)
"""What names of scales, zero points, code books and the like have behind their module."""

_LEARNED = re.compile(
    r"(logit|layer|skip|res|residual|attn|attention|embed\w*|norm|dim|pos|time|output_multiplier)_?scale"
    r"|scale_?(and_?)?shift|shift_?scale|bias$",
    re.IGNORECASE,
)
"""Scales that models learn beside their weights."""

_OF_CHILD = re.compile(
    r"\.?(weights?_|qweight_|q|w_)?(scales?|scaling_factor|amax|absmax)(_inv|_weights?)?", re.IGNORECASE
)
"""What the scale of a weight is called in the module above that of the weight, where others can be
learned."""

_COUNTED = re.compile(
    r"(^|[_.])(index|indices|idx|ids?|masks?|masked|positions?|counts?|num|steps?|lengths?|offsets?|sizes?|shape|version"
    r"|tracked|buckets?|bias|embeddings?)($|[_.])",
    re.IGNORECASE,
)
"""Integers that are no weights."""

_PACKED = re.compile(r"(^|[._])q?weights?(?![a-z])|packed|qzeros", re.IGNORECASE)
"""What integers of 64 bits are called where weights are packed in them, which ids and counts have
too."""

_MAIN = (".weight", ".kernel")
"""What the weight of a module is called, beside which any other name can be its scale's."""

_MLX, _MLX_BITS = "quantization", "bits"
SETTINGS = ("quantization_config", "compression_config", _MLX)
"""The keys of config.json under which tools say how its weights are quantised."""
_METADATA = "_quantization_metadata"
_DOCUMENTS = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
}
"""Files beside the weights in which older tools keep the config, and whose they are."""

_TITLES = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "eetq": "EETQ",
    "fbgemm_fp8": "FBGEMM fp8",
    "fp_quant": "FP-Quant",
    "gptq": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "quark": "Quark",
    "spqr": "SpQR",
    "vptq": "VPTQ",
}
"""How methods write their names, where it is not as configs do."""

_CONFIGS = {
    "fp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
    "compressed-tensors": "CompressedTensorsConfig",
}
"""Methods that transformers undoes as it loads, by the class that tells it to."""

_FP8 = "fp8"
"""What codes are called that nothing but their dtype tells of."""

_DEEPEST = 4
_LONGEST = 40


def quantisation(checkpoint: Checkpoint) -> Bundles | None:
    """What is quantised in a checkpoint, and how; None for one of plain numbers."""
    configs = {f"{folder} config": config for folder, config in checkpoint.below.items()}
    setting = _setting({**configs, **(checkpoint.config or {})}, _DEEPEST)
    whole = setting is not None or _METADATA in checkpoint.metadata
    if not whole and not any(map(_narrow, checkpoint.tensors.values())):
        return None
    modules = _modules(checkpoint.tensors, whole)
    if not whole and not modules:
        return None
    document = next((name for name in _DOCUMENTS if name in checkpoint.extras), None)
    title = _title(setting or {}) or _by_names(checkpoint.tensors, modules)
    if document is not None and (title is None or setting is None):
        title = _DOCUMENTS[document]
    return Bundles(
        CODES,
        f"quantised ({title})" if title else "quantised",
        "stored codes mean something only with the scales that belong to them, and the mean of codes is nobody's mean",
        "its scales",
        (
            *_dequantised(setting or {}),
            *(("if its weights are plain numbers after all, remove `quantization_config` from config.json",)
              if whole and not modules and checkpoint.config is not None else ()),
            *(("if it is a plain cast to float8 after all, and learned those tensors, cast it to bfloat16 first",)
              if not whole and title == _FP8 else ()),
            "merge the models that these were made of, and quantise the result",
        ),
        modules,
        parts_of(modules),
        whole or document is not None,
        setting or checkpoint.metadata.get(_METADATA),
    )  # fmt: skip


# --- what the config says -------------------------------------------------------------------------


def _setting(config: Any, depth: int) -> Mapping[str, Any] | None:
    """The settings of quantisation at the top level of a config, or in the nested config of a
    part."""
    if not isinstance(config, Mapping) or not depth:
        return None
    for key in SETTINGS:
        value = config.get(key)
        if isinstance(value, Mapping) and value and not _off(value) and (key != _MLX or _MLX_BITS in value):
            return value
    nested = (v for k, v in config.items() if isinstance(k, str) and k.endswith("config") and isinstance(v, Mapping))
    return next((found for value in nested if (found := _setting(value, depth - 1)) is not None), None)


def _off(setting: Mapping[str, Any]) -> bool:
    """Whether settings of bitsandbytes say that nothing is packed."""
    said = [setting[key] for key in ("load_in_4bit", "load_in_8bit") if key in setting]
    return bool(said) and not any(said)


def _method(setting: Mapping[str, Any]) -> str:
    method = setting.get("quant_method")
    return method if isinstance(method, str) else ""


def _title(setting: Mapping[str, Any]) -> str | None:
    """The name of the method that settings tell, with the width of its codes."""
    method = _method(setting)
    bits = next((setting[k] for k in ("bits", "w_bit", "nbits", "weight_bits") if type(setting.get(k)) is int), None)
    if setting.get("load_in_4bit") is True or setting.get("load_in_8bit") is True:
        method, bits = method or "bitsandbytes", 4 if setting.get("load_in_4bit") is True else 8
    if not method:
        return f"{bits}-bit" if bits else None
    shown = _TITLES.get(method.lower()) or ascii(method)[1:-1][:_LONGEST]
    return f"{shown} {bits}-bit" if bits else shown


def _dequantised(setting: Mapping[str, Any]) -> tuple[str, ...]:
    """How transformers makes plain weights of these, where it can."""
    save = "and `save_pretrained(FOLDER, save_original_format=False)`"
    method = _method(setting).lower()
    if method in _CONFIGS:
        how = f"from_pretrained(…, quantization_config={_CONFIGS[method]}(dequantize=True))"
    elif method == "bitsandbytes" or "load_in_4bit" in setting or "load_in_8bit" in setting:
        how = "from_pretrained(…).dequantize()"
    else:
        return ()
    return (f"make plain weights of each model first, with transformers: `{how}` {save}",)


# --- what the tensors show ------------------------------------------------------------------------


def _modules(tensors: Mapping[str, StoredTensor], whole: bool) -> dict[str, str]:
    """The tensors that are codes, or belong to codes, with the modules that they are of.

    `whole`: the config says that weights are packed, so their dtype says nothing.
    """
    codes: dict[str, list[str]] = {}
    others: list[str] = []
    for name, tensor in tensors.items():
        module, leaf = _split(name, tensors)
        packed = _narrow(tensor) or (whole and leaf == ".weight")
        if packed and math.prod(tensor.shape) > 1 and not _SCALE.search(leaf) and not _COUNTED.search(leaf):
            codes.setdefault(module, []).append(name)
        else:
            others.append(name)
    scaled: dict[str, list[str]] = {}
    below = _only_below(codes)
    for name in others:
        home = _home(name, tensors, codes, below)
        if home is not None:
            scaled.setdefault(home, []).append(name)
    found: dict[str, str] = {}
    for module, weights in codes.items():
        beside = scaled.get(module, [])
        coded = [tensors[w] for w in weights]
        if any(_is_scale(tensors[b], module, coded) for b in beside) or _scale_among(coded):
            # a scale above its module is of a name that the module's is no part of
            bundle = module if all(module in b for b in beside) else module.rpartition(".")[0]
            found |= {name: bundle for name in (*weights, *beside) if not name.endswith("bias")}
    return found


def _narrow(tensor: StoredTensor) -> bool:
    """Whether a tensor can be of codes by its dtype and name."""
    if tensor.dtype in ("I64", "U64"):
        return _PACKED.search(tensor.name) is not None
    return tensor.dtype not in _WIDE


def _split(name: str, tensors: Mapping[str, StoredTensor]) -> tuple[str, str]:
    """A tensor's module, and what its name has behind it. What lies below a weight is of that
    weight's module."""
    module = name.rpartition(".")[0]
    above = module
    while above:
        if above in tensors or above.endswith(".weight"):
            module = above.rpartition(".")[0]
        above = above.rpartition(".")[0]
    return module, name[len(module) :]


def _only_below(codes: Iterable[str]) -> dict[str, str]:
    """By the modules with codes right below them, and none elsewhere below: the module that has
    those."""
    found: dict[str, set[str]] = {}
    for module in codes:
        above = module
        while above := above.rpartition(".")[0]:
            found.setdefault(above, set()).add(module)
    return {above: one for above, (one, *more) in found.items() if not more and one.rpartition(".")[0] == above}


def _home(
    name: str, tensors: Mapping[str, StoredTensor], codes: Mapping[str, list[str]], below: Mapping[str, str]
) -> str | None:
    """The module with codes that a tensor which is none belongs to, by its name; None for none.

    `X.qkv_scale`, `X.qkv.quantizer.scale` and `scales.X.qkv.weight` are of `X.qkv`, and so is
    `X.scale` where no other module right below `X` has codes.
    """
    module, _ = _split(name, tensors)
    if module in codes:
        return module
    if _LEARNED.search(name[module.rfind(".") + 1 :]):
        return None
    end = len(name)
    while (end := name.rfind("_", module.rfind(".") + 1, end)) > 0:
        if name[:end] in codes and _SCALE.search(name, end):
            return name[:end]
    above = module
    while above := above.rpartition(".")[0]:
        if above in codes and _SCALE.search(module, len(above)):
            return above
    first, _, rest = name.partition(".")
    while rest:
        if _SCALE.search(first):
            found = next((m for m in (rest, rest.rpartition(".")[0]) if m in codes), None)
            if found:
                return found
        first, _, rest = rest.partition(".")
    child = below.get(module)
    if child is None or not _OF_CHILD.fullmatch(name, len(module)):
        return None
    return child if any(_blocks(tensors[name].shape, tensors[w].shape) for w in codes[child]) else None


def _is_scale(tensor: StoredTensor, module: str, weights: list[StoredTensor]) -> bool:
    """Whether a tensor scales one of the weights of its module."""
    leaf = tensor.name[len(module) :] if tensor.name.startswith(module) else tensor.name
    if _SCALE.search(leaf) and not _LEARNED.search(leaf):
        return any(tensor.dtype != w.dtype or tensor.dtype == "U8" or _kept(tensor.shape, w.shape) for w in weights)
    # another name, beside a module's weight or with its name: one number, or one for each block or
    # row of it
    return any(
        tensor.dtype in ("F32", "F16", "BF16")
        and (w.name.endswith(_MAIN) or tensor.name.startswith((f"{w.name}_", f"{w.name}.")))
        and _blocks(tensor.shape, w.shape)
        for w in weights
    ) and not _COUNTED.search(leaf)


def _scale_among(weights: list[StoredTensor]) -> bool:
    """Whether one of the tensors of codes has a number for each row or column of another, in its
    dtype."""
    return any(_kept(s.shape, w.shape) for s in weights for w in weights if w.name.endswith(_MAIN))


def _kept(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether a shape is another with some dimensions reduced to 1, as sums over those leave
    them."""
    return (
        1 < len(scale) == len(weight)
        and scale != weight
        and 1 in scale
        and all(s in (1, w) for s, w in zip(scale, weight, strict=True))
    )


def _blocks(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    if math.prod(scale) == 1:
        return True
    if len(scale) == 1 < len(weight):
        return scale[0] in weight
    return len(scale) == len(weight) > 1 and all(0 < s <= w for s, w in zip(scale, weight, strict=True))


_SIGNS: tuple[tuple[str, str], ...] = (
    (r"quant_state\.bitsandbytes", "bitsandbytes 4-bit"),
    (r"\.absmax$", "bitsandbytes 4-bit"),
    (r"\.SCB$", "bitsandbytes 8-bit"),
    (r"\.weight_packed$", "compressed-tensors"),
    (r"\.codebooks$", "AQLM"),
    (r"\.W_q$", "HQQ"),
    (r"\.g_idx$", "GPTQ"),
    (r"\.qweight$", "GPTQ or AWQ"),
    (r"\.weight\._data$", "quanto"),
    (r"_blocks$", "mxfp4"),
    (r"\.(centroids|res_centroids)\.", "VPTQ"),
)
"""Names that show a method, the most telling first."""


def _by_names(tensors: Mapping[str, StoredTensor], modules: Mapping[str, str]) -> str | None:
    """The name of the method by the tensors, or else the dtype of the codes."""
    names = "\n".join(modules)
    for sign, title in _SIGNS:
        if re.search(sign, names, re.MULTILINE):
            return title
    dtypes: Iterator[str] = (tensors[n].dtype for n in modules if tensors[n].dtype not in _WIDE)
    first = next(dtypes, None)
    if first is None:
        return None
    return _FP8 if first.startswith("F8") else {"I8": "int8", "U8": "uint8"}.get(first, f"codes in {first}")
