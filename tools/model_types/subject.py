"""One architecture, built small, and what its tensors are called in a file."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from ..small_models import small_config
from .classes import head_of

TIE = "tie_word_embeddings"


@dataclass(frozen=True)
class Subject:
    """`stored`: names in a file to shapes. `sources`: those of floats to what they are made of,
    each under all its names in memory."""

    kind: str
    architecture: str
    config: PreTrainedConfig
    model: PreTrainedModel
    stored: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, tuple[tuple[str, ...], ...]]

    def in_file(self, name: str) -> str:
        """What a tensor of memory is called in a file, if it were stored there."""
        return in_file(self.model, name)

    def module(self, path: str) -> str:
        """What a module with tensors of its own is called in a file."""
        tensors = [n for n in self.model.state_dict() if n.rpartition(".")[0] == path]
        named = [self.in_file(n) for n in tensors]
        found = {n.removesuffix("." + t.rpartition(".")[2]) for n, t in zip(named, tensors)}
        return found.pop() if len(found) == 1 else path

    def below(self, path: str) -> list[str]:
        """The stored tensors that are made of what lies below a module, and of nothing else; not
        those that are there only as tied to others."""
        return [
            name
            for name, sources in self.sources.items()
            if sources and all(self.primary(names).startswith(path + ".") for names in sources)
        ]

    def primary(self, names: tuple[str, ...]) -> str:
        """Of the names that one tensor has in memory the one that stands for it."""
        tied = self.model.all_tied_weights_keys
        return next((name for name in names if name not in tied), names[0])

    def container(self, path: str) -> str | None:
        """What a module with modules inside is called in a file; None where no one name covers
        it."""
        names = self.below(path)
        if not names:
            return None
        kept = {self._before(name, path) for name in names}
        common = (kept.pop() if len(kept) == 1 else None) or common_prefix(names)
        if not common or any(n.startswith(common + ".") and n not in names for n in self.sources):
            return None
        return common

    def _before(self, name: str, path: str) -> str | None:
        """What a stored name has in place of a path, where what follows it is the same."""
        for source in (each for names in self.sources[name] for each in names):
            tail = source.removeprefix(path)
            if source != tail and name.endswith(tail):
                return name.removesuffix(tail)
        return None


def common_prefix(names: Iterable[str]) -> str:
    """The longest common prefix of whole parts, without the last part of any."""
    split = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*split):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def config_of(kind: str, architecture: str) -> PreTrainedConfig:
    config = small_config(kind, head_of(kind, architecture))
    return config


def made(architecture: str, config: PreTrainedConfig, device: str = "meta") -> PreTrainedModel:
    """A model of a class. `config` is not changed. Raises TypeError for a class that takes a part
    of the config, whose type is another."""
    config = copy.deepcopy(config)
    if not issubclass(type(config), getattr(transformers, architecture).config_class):
        raise TypeError(f"{architecture} is not made from {type(config).__name__}")
    torch.manual_seed(0)
    try:
        with torch.device(device):
            model: PreTrainedModel = getattr(transformers, architecture)(config).eval()
    except Exception:
        # some can't do without weights
        if device == "cpu":
            raise
        return made(architecture, config, "cpu")
    return model


def observed(kind: str, architecture: str, config: PreTrainedConfig) -> Subject:
    model = made(architecture, config, "cpu").float()
    names = _labelled(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = {n: t for file in sorted(Path(folder).glob("*.safetensors")) for n, t in load_file(file).items()}
    sources = {
        name: tuple(tuple(names[n]) for value in tensor.unique().tolist() if (n := round(value)) in names)
        for name, tensor in saved.items()
        if tensor.is_floating_point()
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    return Subject(kind, architecture, model.config, model, shapes, sources)


def _labelled(model: nn.Module) -> dict[int, list[str]]:
    """Fills each tensor of floats with a number; the names in memory by number."""
    numbers: dict[tuple[int, torch.Size], int] = {}
    names: dict[int, list[str]] = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.numel():
                continue
            number = numbers.setdefault((tensor.data_ptr(), tensor.shape), len(numbers) + 1)
            names.setdefault(number, []).append(name)
            tensor.fill_(number)
    return names


def in_file(model: PreTrainedModel, name: str) -> str:
    tensor = model.state_dict()[name] if name in model.state_dict() else torch.zeros(1)
    try:
        return str(next(iter(revert_weight_conversion(model, {name: tensor}))))
    except Exception:
        return name


def levels(config: PreTrainedConfig, path: str = "") -> Iterator[tuple[str, PreTrainedConfig]]:
    """The configs inside a config with the keys that lead to them, itself first."""
    yield path, config
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from levels(value, f"{path}.{key}".lstrip("."))


def dotted(path: str, key: str) -> str:
    return f"{path}.{key}".lstrip(".")


def changed(config: PreTrainedConfig, values: Mapping[str, Any]) -> PreTrainedConfig:
    """A config made anew with other values of some keys, dotted where nested."""
    data = copy.deepcopy(config.to_dict())
    for path, value in values.items():
        *outer, inner = path.split(".")
        level = data
        for part in outer:
            level = level[part]
        level[inner] = value
    for key in ("transformers_version", "model_type"):
        data.pop(key, None)
    return type(config)(**data)
