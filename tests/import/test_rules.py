"""Parameters at random: what a tensor gets in the recipe is what reading the configuration tensor
by tensor gives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from import_cases import MODELS, imported
from profiles import examples
from safetensors.numpy import load_file

FILTERS = (
    "self_attn",
    "mlp",
    "proj",
    "q_proj",
    "layers.1",
    "layers.2.mlp",
    "norm",
    "lm_head",
    "embed",
    "weight",
    "*.mlp",
)
MODEL = ("llama/a", "llama/b")

numbers = st.sampled_from((0, 1, 0.5, -2, 3.25, "1e-1"))
values = st.one_of(numbers, st.lists(numbers, min_size=1, max_size=5))
conditions = st.lists(st.fixed_dictionaries({"filter": st.sampled_from(FILTERS), "value": values}), max_size=3)
weights = st.one_of(st.none(), values, conditions)
ranges = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=3)


def read(setting: Any, name: str, t: float) -> float | None:
    """A setting for one tensor at position t, as the documentation of mergekit has it; None: ask
    the next scope."""
    if isinstance(setting, list) and setting and isinstance(setting[0], dict):
        fits = (c for c in setting if c.get("filter", "*") == "*" or c["filter"] in name)
        found = next(fits, None)
        return None if found is None else read(found["value"], name, t)
    if not isinstance(setting, list):
        return None if setting is None else float(setting)
    if not setting:
        return None
    points = [float(v) for v in setting]
    return float(np.interp(t * (len(points) - 1), range(len(points)), points))


def weight(scopes: list[Any], name: str, t: float) -> float:
    return next(w for s in [*scopes, 1] if (w := read(s, name, t)) is not None)


def check(config: dict[str, Any], expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODELS)
    recipe, printed, _ = imported(json.dumps(config))
    assert recipe, printed
    with tempfile.TemporaryDirectory() as folder:
        mergec.compile(recipe, device="cpu").run(Path(folder) / "out")
        made = load_file(Path(folder) / "out" / "model.safetensors")
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(made[name], tensor, rtol=2e-5, atol=1e-6, err_msg=f"{name}\n{recipe}")


def parameters(own: Any) -> dict[str, Any]:
    return {} if own is None else {"parameters": {"weight": own}}


@examples(25, HealthCheck.function_scoped_fixture)
@given(first=weights, second=weights, shared=weights)
def test_whole_models(first: Any, second: Any, shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"normalize": False, "weight": _ended(shared)}
    inputs = [{"model": m, **parameters(w)} for m, w in zip(MODEL, (first, second), strict=True)]
    tensors = [load_file(MODELS / m / "model.safetensors") for m in MODEL]
    expected = {}
    for name in tensors[0]:
        t = int(name.split(".")[2]) / 3 if ".layers." in name else 0
        w = [weight([own, whole["weight"]], name, t) for own in (first, second)]
        expected[name] = w[0] * tensors[0][name] + w[1] * tensors[1][name]
    check({"merge_method": "linear", "models": inputs, "parameters": whole}, expected, monkeypatch)


@examples(25, HealthCheck.function_scoped_fixture)
@given(spans=ranges, first=weights, second=weights, part=weights, shared=weights)
def test_slices(
    spans: list[tuple[int, int, int]], first: Any, second: Any, part: Any, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"normalize": False, "weight": _ended(shared)}
    tensors = [load_file(MODELS / m / "model.safetensors") for m in MODEL]
    slices, expected, reached = [], {}, 0

    def mix(names: tuple[str, str], out: str, t: float) -> None:
        w = [weight([own, part, whole["weight"]], n, t) for own, n in zip((first, second), names, strict=True)]
        expected[out] = w[0] * tensors[0][names[0]] + w[1] * tensors[1][names[1]]

    for a, b, wanted in spans:
        length = min(wanted, 4 - max(a, b))
        sources = [
            {"model": m, "layer_range": [k, k + length], **parameters(w)}
            for m, k, w in zip(MODEL, (a, b), (first, second), strict=True)
        ]
        slices.append({"sources": sources, **parameters(part)})
        for k in range(length):
            for name in (n for n in tensors[0] if n.startswith("model.layers.0.")):
                one, two, out = (name.replace(".0.", f".{n}.", 1) for n in (a + k, b + k, reached + k))
                mix((one, two), out, k / (length - 1) if length > 1 else 1)
        reached += length
    for name in (n for n in tensors[0] if ".layers." not in n):
        mix((name, name), name, 0)
    check({"merge_method": "linear", "slices": slices, "parameters": whole}, expected, monkeypatch)


def _ended(setting: Any) -> Any:
    """A setting that gives every tensor a value."""
    if isinstance(setting, list) and (not setting or isinstance(setting[0], dict)):
        return [*setting, {"value": 1}]
    return 1 if setting is None else setting
