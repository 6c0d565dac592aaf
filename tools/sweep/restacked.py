"""The main stack in another order, by transformers alone: the model assembled by hand from the same
blocks, and whether any config says what it is."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig

from ..small_models import build
from .loading import Tensors, state_of
from .stacks import Main
from .subject import Subject

IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8]])

DEPTH = re.compile(r"^(num_(hidden_|decoder_)?layers|n_layers?|decoder_layers|num_(transformer|text)_layers|depth)$")
NUMBERS = re.compile(
    "(only|moe|attention|attn|full|dense|sparse|global)_(attn_|attention_)?(layers?|layer_i.*|idxs|indices)$"
)
"""Keys of lists that name layers by their numbers."""

BESIDE = re.compile("vision|audio|rope|encoder")
"""Nested configs that are not of the main stack."""


def logits(model: Any) -> torch.Tensor | None:
    """What a model answers to a text; None where a text alone is not enough, or no number comes of
    it."""
    asked: dict[str, Any] = {"input_ids": IDS}
    if getattr(model.config, "is_encoder_decoder", False):
        asked["decoder_input_ids"] = IDS[:, :5]
    model = model.eval()
    try:
        # some draw noise
        torch.manual_seed(0)
        with torch.no_grad():
            try:
                found = model(**asked, use_cache=False)
            except TypeError:
                found = model(**asked)
    except Exception:
        return None
    found = getattr(found, "logits", None)
    return found if isinstance(found, torch.Tensor) and bool(found.isfinite().all()) else None


def by_hand(subject: Subject, main: Main, order: Sequence[int]) -> Any:
    """A's model with its blocks in another order, each as it was made: of the kind of the layer
    that it comes from. Its config says the same where a config can."""
    model = copy.deepcopy(_with_state(subject))
    blocks, chosen = list(model.get_submodule(main.path)), []
    for position, source in enumerate(order):
        block = copy.deepcopy(blocks[source])
        for module in block.modules():
            for name in ("layer_idx", "layer_id", "layer_number", "block_idx"):
                if getattr(module, name, None) == source:
                    setattr(module, name, position)
        chosen.append(block)
    holder, _, name = main.path.rpartition(".")
    setattr(model.get_submodule(holder), name, nn.ModuleList(chosen))
    for every in (False, True):
        try:
            config = reordered_config(subject, main, order, every)
        except Exception:
            continue
        _become(model.config, config)
        break
    return model


def shared_outside(model: Any, main: Main) -> bool:
    """Whether tensors of the stack are also those of another part, which would have to follow."""
    state = {name: t.data_ptr() for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    inside = {pointer for name, pointer in state.items() if name.startswith(f"{main.path}.")}
    return any(pointer in inside for name, pointer in state.items() if not name.startswith(f"{main.path}."))


def _with_state(subject: Subject) -> Any:
    """`subject.model` with A's weights."""
    with torch.no_grad():
        for name, tensor in subject.model.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                tensor.copy_(subject.state_a[name])
    return subject.model


def _become(config: PreTrainedConfig, other: PreTrainedConfig) -> None:
    """Gives a config the values of another, in place: modules hold the same object."""
    for key, value in vars(other).items():
        mine = vars(config).get(key)
        if isinstance(value, PreTrainedConfig) and isinstance(mine, PreTrainedConfig):
            _become(mine, value)
        elif not key.startswith("_attn"):
            vars(config)[key] = value


def by_config(subject: Subject, main: Main, order: Sequence[int]) -> Any:
    """A model of a config that differs from A's in depth and in lists with one item a layer, with
    A's weights; None where there is none whose blocks are what A's are."""
    for every in (False, True):
        try:
            model = build(subject.pair.kind, subject.pair.head, reordered_config(subject, main, order, every))
            model.load_state_dict(_reordered_state(state_of(model), subject.state_a, main, order))
            return model
        except Exception:
            continue
    return None


def only_numbers_differ(blocks: nn.Module, others: nn.Module) -> bool:
    """Whether blocks are alike but for numbers that a class computes from a layer's place in the
    stack (a scale that grows with depth): those are of the place, and no kind of layer."""
    pairs = zip(blocks.named_modules(), others.named_modules())
    found = [
        (vars(one).get(key), value)
        for (path, one), (_, other) in pairs
        for key, value in vars(other).items()
        if path and isinstance(value, bool | int | float | str | None)
    ]
    unlike = [pair for pair in found if pair[0] != pair[1]]
    return bool(unlike) and all(type(each) in (int, float) for pair in unlike for each in pair)


def _reordered_state(wanted: Tensors, state: Tensors, main: Main, order: Sequence[int]) -> dict[str, torch.Tensor]:
    """Raises ValueError where a block is of another kind than the one that it comes from."""
    found = {name: tensor for name, tensor in state.items() if not name.startswith(f"{main.path}.")}
    for position, source in enumerate(order):
        start = f"{main.path}.{source}."
        for name, tensor in state.items():
            if name.startswith(start):
                found[f"{main.path}.{position}.{name.removeprefix(start)}"] = tensor
    unlike = sorted(n for n in found.keys() | wanted.keys() if _shape(found, n) != _shape(wanted, n))
    if unlike:
        raise ValueError(f"blocks of another kind: {unlike[0]}")
    return found


def _shape(tensors: Tensors, name: str) -> Any:
    return tensors[name].shape if name in tensors else None


def reordered_config(subject: Subject, main: Main, order: Sequence[int], every: bool) -> PreTrainedConfig:
    """`every`: all lists as long as the stack is deep, not only those that are called like
    layers."""
    raw = _reordered(copy.deepcopy(subject.config), main.stack.depth, order, every)
    folder = subject.folder / "config"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw), "utf-8")
    config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(folder)
    return config


def _reordered(level: dict[str, Any], depth: int, order: Sequence[int], every: bool) -> dict[str, Any]:
    for key, value in level.items():
        if key == "per_layer_config" and isinstance(value, dict):
            level[key] = {str(at): value[str(source)] for at, source in enumerate(order) if str(source) in value}
        elif isinstance(value, dict):
            if not BESIDE.search(key):
                _reordered(value, depth, order, every)
        elif isinstance(value, list) and NUMBERS.search(key) and _numbers(value, depth):
            level[key] = [at for at, source in enumerate(order) if source in value]
        elif isinstance(value, list) and len(value) == depth:
            named = re.search("layer|block|type|pattern|index|ratio|freq", key)
            if (every or named) and not re.search("vision|token_id", key):
                level[key] = [value[i] for i in order]
        elif value == depth and not isinstance(value, bool) and DEPTH.match(key):
            level[key] = len(order)
    return level


def _numbers(value: list[Any], depth: int) -> bool:
    """Whether these can be numbers of layers."""
    return len(set(map(repr, value))) == len(value) and all(type(v) is int and 0 <= v < depth for v in value)
