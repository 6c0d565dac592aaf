"""One model type with one head, as the checks meet it: two saved models, and what is true of
them."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..small_models import BARE, Pair, build, is_encoder, small_config
from .loading import Tensors, differences, load, state_of, tensors_in
from .recipes import inspected
from .stacks import Main, Stack, main_stacks, stacks_of
from .truth import Truth, final_norm, truth_of, unique_tensors


@dataclass(frozen=True)
class Subject:
    """`model` is of the class and config, its weights are of no meaning. `state_a` is what A holds
    in memory, `peer` and `peer_state` what is wrong when transformers itself loads A again. `names`
    are those by which the check of layers found main stacks, by their paths."""

    pair: Pair
    folder: Path
    model: Any
    stacks: tuple[Stack, ...]
    mains: tuple[Main, ...]
    truth: Truth
    state_a: Tensors
    state_b: Tensors
    peer: dict[str, list[str]]
    peer_state: list[str]
    names: dict[str, str] = field(default_factory=dict)

    @property
    def a(self) -> Path:
        return self.folder / "a"

    @property
    def b(self) -> Path:
        return self.folder / "b"

    @cached_property
    def saved_a(self) -> Tensors:
        return tensors_in(self.a)

    @cached_property
    def saved_b(self) -> Tensors:
        return tensors_in(self.b)

    @cached_property
    def config(self) -> dict[str, Any]:
        """A's config.json."""
        return read_config(self.a)

    @cached_property
    def seen(self) -> dict[str, Any]:
        """What mergec says of A. Raises Refused."""
        return inspected(self.a)

    @property
    def main(self) -> Main | None:
        """The stack that holds most of the language model: the text's, or the decoder's."""
        for part in ("", "text.", "decoder.", "encoder."):
            for main in self.mains:
                if main.names and main.names[0] == f"{part}layers":
                    return main
        return None

    def path_of(self, module: Any) -> str:
        return next(name for name, each in self.model.named_modules() if each is module)


def subject_of(pair: Pair, folder: Path, config: PreTrainedConfig | None = None) -> Subject:
    """Builds and saves. Raises NotBuilt, and what transformers raises where it can't save."""
    config = config if config is not None else small_config(pair.kind, pair.head)
    model = build(pair.kind, pair.head, config)
    folder.mkdir(parents=True, exist_ok=True)
    states: list[Tensors] = []
    for seed, name in ((1, "a"), (2, "b")):
        spread(model, seed)
        states.append(state_of(model))
        model.save_pretrained(folder / name)
    every = stacks_of(model)
    stacks = own_stacks(every)
    others = [stack for stack in every if stack not in stacks]
    mains = main_stacks(stacks, others, model.config, pair.head == BARE and not is_encoder(pair.kind))
    first = sorted(mains, key=lambda main: main.names[:1] not in (("layers",), ("text.layers",), ("decoder.layers",)))
    norms = [final_norm(model, main.stack) if main.names else None for main in first]
    truth = truth_of(model, stacks, norms, folder / "labels")
    try:
        loaded, peer = load(pair, folder / "a")
        peer_state = differences(state_of(loaded), states[0])
    except Exception as error:
        peer, peer_state = {"raised": [told(error)]}, []
    return Subject(pair, folder, model, tuple(stacks), tuple(mains), truth, states[0], states[1], peer, peer_state)


def spread(model: Any, seed: int) -> None:
    """Random weights, far enough apart that two models differ in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in unique_tensors(model):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + 0.01)


def own_stacks(stacks: list[Stack]) -> list[Stack]:
    """Those with tensors that only one block of all has."""

    @functools.cache
    def pointers(stack: Stack) -> list[set[int]]:
        return [{t.data_ptr() for t in block.parameters()} for block in stack.blocks]

    uses = Counter(pointer for stack in stacks for block in pointers(stack) for pointer in block)
    return [stack for stack in stacks if any(uses[pointer] == 1 for block in pointers(stack) for pointer in block)]


def read_config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:250]}"


def few(names: Any, count: int = 3) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:count]) + (f", … ({len(names)})" if len(names) > count else "")
