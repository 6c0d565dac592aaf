"""Tensors of equal keys: whichever of them is taken over, the bytes are those of a run from
nothing."""

from __future__ import annotations

import os
from pathlib import Path

import mergec
import numpy as np
import pytest
from resume_models import weights
from safetensors.numpy import load_file, save_file

SHAPE = (30, 40)
NAMES = [f"layers.{k}.w.weight" for k in range(4)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        rng = np.random.default_rng(seed)
        tensors = {n: rng.standard_normal(SHAPE).astype(np.float32) for n in NAMES}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


def compiled(models: Path, recipe: str) -> mergec.Compiled:
    lets = "".join(f'let {n} = model("{models / n}.safetensors")\n' for n in "ab")
    # two tensors a file
    return mergec.compile(
        f'{lets}output(like=a, shard_size="{2 * 4 * SHAPE[0] * SHAPE[1]}B")\n{recipe}\n', device="cpu"
    )


TWICE = "* = linear(a, b)\nlayers[2] = linear(a, b).layers[0]\nlayers[3] = linear(a, b).layers[1]"


def test_equal_values_have_equal_keys_and_others_have_not(models: Path) -> None:
    keys = {t.name: t.key for t in compiled(models, TWICE).plan.tensors}
    assert keys[NAMES[0]] == keys[NAMES[2]] != keys[NAMES[1]] == keys[NAMES[3]]
    # which model comes first counts where it makes a difference
    keys = {t.name: t.key for t in compiled(models, "* = a - b\nlayers[1] = (b - a).layers[0]").plan.tensors}
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    "changed", ["layers[0]", "layers[1]", "layers[2]", "layers[3]", "layers[0..1]", "layers[2..3]"]
)
@pytest.mark.parametrize("touched", [None, 0, 1], ids=["as it was", "first file touched", "second file touched"])
def test_any_of_them_is_taken_over(changed: str, touched: int | None, models: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    compiled(models, TWICE).run(out)
    if touched is not None:
        # looked at with doubt, and found right by its checksums
        os.utime(sorted(out.glob("*.safetensors"))[touched], ns=(10**18, 10**18))
    recipe = f"{TWICE}\n{changed} = 2*b"
    again = compiled(models, recipe).run(out, force=True)
    compiled(models, recipe).run(fresh)
    assert weights(out) == weights(fresh)
    # what is new is computed, and nothing else: of each pair of equal ones, one is left in any case
    assert again.outcome.bytes_read <= sum(2 * 4 * np.prod(SHAPE) for _ in NAMES)


def test_damage_to_one_of_them_does_not_spread(models: Path, tmp_path: Path) -> None:
    """The first has other bytes than were written, and the second is sound: what is made is
    sound."""
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    compiled(models, TWICE).run(out)
    compiled(models, TWICE).run(fresh)
    first = sorted(out.glob("*.safetensors"))[0]
    raw = bytearray(first.read_bytes())
    raw[-1] ^= 1
    first.write_bytes(raw)
    compiled(models, TWICE).run(out, force=True)
    assert weights(out) == weights(fresh)
    tensors = load_file(first)
    assert all(np.isfinite(t).all() for t in tensors.values())
