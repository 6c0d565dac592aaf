"""Which key of a place map counts for a tensor: the one of fewest tensors, of equals the first.
Numbers and regions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from merging import merge

NAMES = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{module}.weight"
        for layer in range(3)
        for module in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")
    ),
    "model.norm.weight",
    "lm_head.weight",
]
# each key with what it covers, told without the compiler
KEYS = {
    "layers[*].mlp": lambda n: ".mlp." in n,
    "mlp": lambda n: ".mlp." in n,
    '"*.mlp.*"': lambda n: ".mlp." in n,
    "layers[1]": lambda n: ".layers.1." in n,
    "model.layers.1": lambda n: ".layers.1." in n,
    "layers[0..2]": lambda n: ".layers." in n,
    "layers[0, 2].mlp.up": lambda n: "0.mlp.up" in n or "2.mlp.up" in n,
    "mlp.up": lambda n: "mlp.up" in n,
    '"*"': lambda _: True,
    "*": lambda _: True,
    "_": lambda _: True,
    '"*nothing*"': lambda _: False,
    "norm": lambda n: n == "model.norm.weight",
    "model.norm": lambda n: n == "model.norm.weight",
}


def counts(keys: tuple[str, ...], name: str) -> int:
    """The number of the key that counts, as docs/language.md says."""
    sizes = [sum(map(KEYS[key], NAMES)) + (key == "_") for key in keys]
    return min((k for k, key in enumerate(keys) if KEYS[key](name)), key=lambda k: (sizes[k], k))


def check(keys: tuple[str, ...]) -> None:
    base = {name: torch.full((2, 2), float(i + 1)) for i, name in enumerate(NAMES)}
    others = {f"m{k}": {name: t + 100.0 * (k + 1) for name, t in base.items()} for k in range(len(keys))}
    numbers = "{" + ", ".join(f"{key}: {k + 2}" for k, key in enumerate(keys)) + "}"
    regions = "{" + ", ".join(f"{key}: m{k}" for k, key in enumerate(keys)) + "}"
    varied = merge(f"output(like=base)\n* = {numbers} * base\n", {"base": base})
    built = merge(f"output(like=base)\n* = {regions}\n", {"base": base, **others})
    for name in NAMES:
        k = counts(keys, name)
        np.testing.assert_array_equal(varied[name], base[name] * (k + 2))
        np.testing.assert_array_equal(built[name], others[f"m{k}"][name])


@pytest.mark.parametrize("pair", list(itertools.permutations(["layers[*].mlp", "mlp", '"*.mlp.*"'], 2)))
def test_of_keys_that_cover_equally_many_the_first_counts(pair: tuple[str, str]) -> None:
    check((*pair, "_"))


@pytest.mark.parametrize(
    "keys",
    [
        ("*", '"*"', "_"),
        ("_", "*"),
        ("_", '"*nothing*"', "mlp"),
        ("layers[1]", "model.layers.1", "mlp", "_"),
        ("model.norm", "norm", "layers[0..2]", "_"),
        ("mlp", "mlp.up", "layers[0, 2].mlp.up", "_", "layers[1]", "*"),
        ("mlp", "mlp", "_", "_"),
        # equally many, but not the same
        ("layers[1]", "layers[0, 2].mlp.up", "norm", "mlp.up", "_"),
    ],
)
def test_the_key_that_covers_fewest_counts(keys: tuple[str, ...]) -> None:
    check(keys)
