"""`output(resize=…)`: tensors of unequal sizes, cut to what is common or brought to the template's
size."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.compiler.elaborate.resize import units
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[np.float32]
SHAPES = {
    "rows": ((5, 4), (7, 4)),
    "columns": ((5, 4), (5, 6)),
    "both": ((5, 6), (7, 4)),
    "channels": ((6, 9, 3, 3), (6, 4, 3, 3)),
    "vector": ((5,), (3,)),
    "same": ((3, 2), (3, 2)),
    "large": ((300, 500), (350, 451)),
}
"""What base has, and what a and b have."""


def numbers(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, Array]]:
    found = {}
    for seed, label in enumerate(("base", "a", "b")):
        found[label] = {name: numbers(seed, shapes[label != "base"]) for name, shapes in SHAPES.items()}
        save_file(found[label], tmp_path / f"{label}.safetensors")
    return found


def merged(folder: Path, setting: str, value: str, **options: int) -> dict[str, Array]:
    lets = "".join(f'let {name} = model("{folder / name}.safetensors")\n' for name in ("base", "a", "b"))
    mergec.compile(f'{lets}output({setting})\n"*" = {value}\n', device="cpu", **options).run(folder / "out", force=True)
    return load_file(folder / "out" / "model.safetensors")


def block(*shapes: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, min(sizes)) for sizes in zip(*shapes, strict=True))


def test_to_the_size_of_the_template(tmp_path: Path, models: dict[str, dict[str, Array]]) -> None:
    made = merged(tmp_path, 'resize="base"', "add_difference(base, a - b, alpha=0.5)")
    for name, base in models["base"].items():
        shared = block(base.shape, models["a"][name].shape)
        wanted = base.copy()
        # where a and b have nothing both are the base, so their difference is zero there
        wanted[shared] += 0.5 * (models["a"][name] - models["b"][name])[shared]
        np.testing.assert_allclose(made[name], wanted, rtol=1e-6, atol=1e-6)


def test_a_copy_is_filled_up_with_the_template(tmp_path: Path, models: dict[str, dict[str, Array]]) -> None:
    made = merged(tmp_path, 'like=base, resize="base"', "a")
    for name, base in models["base"].items():
        wanted = base.copy()
        shared = block(base.shape, models["a"][name].shape)
        wanted[shared] = models["a"][name][shared]
        np.testing.assert_array_equal(made[name], wanted)


def test_cut_to_what_is_common(tmp_path: Path, models: dict[str, dict[str, Array]]) -> None:
    made = merged(tmp_path, 'resize="common"', "slerp(base, a, t=0.3)")
    for name, base in models["base"].items():
        a = models["a"][name]
        shared = block(base.shape, a.shape)
        save_file({"x": base[shared].copy()}, tmp_path / "one.safetensors")
        save_file({"x": a[shared].copy()}, tmp_path / "two.safetensors")
        lets = "".join(f'let {x} = model("{tmp_path / x}.safetensors")\n' for x in ("one", "two"))
        mergec.compile(f'{lets}"*" = slerp(one, two, t=0.3)\n', device="cpu").run(tmp_path / "cut", force=True)
        np.testing.assert_array_equal(made[name], load_file(tmp_path / "cut" / "model.safetensors")["x"])


def test_the_same_bytes_whatever_the_blocks(tmp_path: Path, models: dict[str, dict[str, Array]]) -> None:
    del models
    one = merged(tmp_path, 'resize="base"', "ties(a, b, density=0.5)", lanes=1)
    two = merged(tmp_path, 'resize="base"', "ties(a, b, density=0.5)", lanes=3)
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("setting", ["", 'resize="error"'])
def test_without_it_it_is_an_error(tmp_path: Path, models: dict[str, dict[str, Array]], setting: str) -> None:
    del models
    with pytest.raises(mergec.MergecError) as caught:
        merged(tmp_path, setting, "linear(a, base)")
    assert {d.code for d in caught.value.diagnostics} == {"E0307"}
    assert any("resize" in way for way in caught.value.diagnostics[0].help)


@pytest.mark.parametrize("seed", range(40))
def test_units_of_any_shapes(seed: int) -> None:
    random = np.random.default_rng(seed)
    axes = int(random.integers(1, 5))
    shape, target = (tuple(int(n) for n in random.integers(0 if seed % 4 == 0 else 1, 5, axes)) for _ in range(2))
    if shape == target:
        return
    one, two = numbers(1, shape), numbers(2, target)
    width, runs = units(shape, target)
    parts = [(one, two)[s].ravel()[u * width : (u + n) * width] for n, ((s, u),) in runs]
    made = np.concatenate([*parts, np.zeros(0, np.float32)]).reshape(target)
    wanted = two.copy()
    wanted[block(shape, target)] = one[block(shape, target)]
    np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ("a.layers[1] + (b + c).layers[1]", 3),
        ("linear(a.layers[1], (b if layer == 1 else c).layers[1])", 3),
        ("linear(a.layers[0], (c if layer == 1 else b).layers[1])", 5),
        ("a.layers[0] + {layers: stack(c.layers[0], (b + c).layers[1]), _: a}.layers[1]", 3),
    ],
)
def test_what_is_common_to_the_tensors_that_are_looked_up(tmp_path: Path, value: str, rows: int) -> None:
    """Whatever layers they are picked at, by a place of an expression too; not those of the other
    branch."""
    for seed, (name, sizes) in enumerate({"a": (5, 5), "b": (9, 3), "c": (6, 7)}.items()):
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": numbers(seed, (n, 4)) for i, n in enumerate(sizes)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    lets = "".join(f'let {name} = model("{tmp_path / name}.safetensors")\n' for name in "abc")
    recipe = f'{lets}output(like=a, resize="common")\n* = a\nlayers[0] = {value}\n'
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].shape == (rows, 4)
