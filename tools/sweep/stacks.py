"""The stacks of a model as transformers builds it, and the names that the documentation gives
them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

DOCUMENTED = re.compile(r"((text|vision|audio|encoder|decoder)\.)?layers")
"""What docs/language.md calls a stack."""

_MIXES = re.compile("atten|attn|mixer|mamba|ssm|rwkv|retention|recurrent")
_SIDES = {
    "codec": ("vq", "codec", "quantizer"),
    "vision": ("vision", "visual", "image", "vit", "video", "pixel"),
    "audio": ("audio", "speech", "acoustic", "sound"),
    "text": ("text", "language", "llm"),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
}


@dataclass(frozen=True)
class Stack:
    """A list of blocks. `mixes`: they have attention or the like. `side`: the part of the model
    that its path tells of."""

    path: str
    blocks: tuple[nn.Module, ...]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for block in self.blocks for p in block.parameters())

    @property
    def mixes(self) -> bool:
        parts = (f"{name} {type(module).__name__}" for block in self.blocks for name, module in block.named_modules())
        return any(_MIXES.search(part.lower()) for part in parts)

    @property
    def side(self) -> str | None:
        parts = self.path.lower().split(".")
        for side, words in _SIDES.items():
            if any(part.startswith(word) or f"_{word}" in part for part in parts for word in words):
                return side
        return None

    @property
    def weight(self) -> tuple[bool, bool, int]:
        """How much of a main stack it is."""
        return self.mixes, "cross" not in self.path, self.parameters


@dataclass(frozen=True)
class Main:
    """A stack that users mean, under the names that are right for it, the best first. None are
    where a model has so many stacks that the documentation has no name for each: any is right
    then."""

    stack: Stack
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.stack.path


def stacks_of(model: nn.Module) -> list[Stack]:
    """The outermost lists of two or more blocks, of which two are of one class."""
    found: list[Stack] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{stack.path}.") for stack in found)
        if inside or not isinstance(module, nn.ModuleList | nn.Sequential) or re.search(r"(^|\.)experts?$", path):
            continue
        blocks = tuple(block for block in module if block is not None)
        if len(blocks) < 2 or not all(any(_holds(child) for child in block.children()) for block in blocks):
            continue
        if Counter(type(block) for block in blocks).most_common(1)[0][1] > 1:
            found.append(Stack(path, blocks))
    return found


def main_stacks(stacks: list[Stack], others: list[Stack], config: Any, exotic: bool) -> list[Main]:
    """One of `stacks` for each side of the model, which has the `others` besides. `exotic`: it is
    neither a language model nor an encoder."""
    two = bool(getattr(config, "is_encoder_decoder", False))
    best: dict[str, Stack] = {}
    for stack in stacks:
        side = _side(stack, two)
        if side not in best or stack.weight > best[side].weight:
            best[side] = stack
    if not two:
        best = _one_beside_towers(best)
    mixing = [stack for stack in [*stacks, *others] if stack.mixes] or stacks
    if exotic and len(mixing) > 1:
        return [Main(stack, ()) for stack in best.values()]
    alone = len(best) == 1 and len(mixing) == 1
    return [Main(stack, _names(side, stack, alone)) for side, stack in best.items()]


def _side(stack: Stack, two: bool) -> str:
    word = re.search(r"(^|[._])(encoder|decoder)", stack.path)
    if two and (word or stack.side not in ("vision", "audio")):
        return word[2] if word else "decoder"
    return stack.side or "main"


def _one_beside_towers(best: dict[str, Stack]) -> dict[str, Stack]:
    """Beside towers what remains is the text model; without any there is one main stack. What is
    small and does not mix is no main stack, nor is a codec's where there is another."""
    best = {side: stack for side, stack in best.items() if side != "codec"} or best
    towers = {side: stack for side, stack in best.items() if side in ("vision", "audio")}
    rest = {side: stack for side, stack in best.items() if side not in towers}
    if rest:
        side = max(rest, key=lambda each: (rest[each].mixes, each == "text", *rest[each].weight))
        towers["text" if towers else "main"] = rest[side]
    total = sum(stack.parameters for stack in best.values())
    return {side: stack for side, stack in towers.items() if stack.mixes or stack.parameters >= 0.05 * total}


def _names(side: str, stack: Stack, alone: bool) -> tuple[str, ...]:
    own = "text.layers" if side == "main" else f"{side}.layers"
    others = (own, f"{stack.side or 'text'}.layers", "encoder.layers", "decoder.layers", "text.layers", "layers")
    return tuple(dict.fromkeys(("layers", *others) if alone else others))


def _holds(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
