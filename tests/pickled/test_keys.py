"""Weights under a key of a pickle, and what else training scripts leave beside them."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
import torch
from mergec.grammar.diagnostic import MergecError
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]


def weights(seed: int) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 4, generator=random) for name in ("body.0.weight", "body.1.weight")}


def compiled(path: Path, arguments: str = "") -> mergec.Compiled:
    text = f'let a = model("{path}"{arguments})\n* = 2*a'
    return mergec.compile(text, device="cpu", allow_pickle=True, single=True)


def merged(path: Path, out: Path, arguments: str = "") -> Tensors:
    compiled(path, arguments).run(out)
    return load_file(out)


def assert_doubled(found: Tensors, of: Tensors) -> None:
    assert found.keys() == of.keys()
    assert all(torch.equal(found[name], 2 * tensor) for name, tensor in of.items())


def refused(path: Path, arguments: str = "") -> mergec.Diagnostic:
    with pytest.raises(MergecError) as caught:
        compiled(path, arguments)
    (found,) = caught.value.diagnostics
    return found


KEYS = (
    "ema", "state_dict_ema", "params_ema", "model_state_dict", "net", "state_dict", "model", "module", "params",
    "generator", "my weights",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_weights_under_one_key_alone(key: str, tmp_path: Path) -> None:
    path, state = tmp_path / "last.pth.tar", weights(1)
    torch.save({"epoch": 3, key: state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, path)
    made = compiled(path)
    assert [d.code for d in made.diagnostics] == ["W0574"]
    assert "`epoch`, `optimizer`" in made.diagnostics[0].message
    made.run(tmp_path / "out.safetensors")
    assert_doubled(load_file(tmp_path / "out.safetensors"), state)
    assert_doubled(merged(path, tmp_path / "again.safetensors", f', key="{key}"'), state)


@pytest.mark.parametrize(
    "names", [("model", "ema"), ("params", "params_ema"), ("state_dict", "state_dict_ema"), ("g", "d")]
)
def test_of_several_one_is_asked_for(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"epoch": 3, names[0]: weights(1), names[1]: weights(2)}, path)
    found = refused(path)
    assert found.code == "E0484"
    assert f"`{names[0]}` (2 entries), `{names[1]}` (2 entries)" in found.notes[-1]
    assert found.help == (f'name one: `model("…", key="{names[0]}")`',)
    for seed, name in enumerate(names, 1):
        made = compiled(path, f', key="{name}"')
        assert f"`epoch`, `{names[2 - seed]}`" in made.diagnostics[0].message
        out = tmp_path / f"{seed}.safetensors"
        made.run(out)
        assert_doubled(load_file(out), weights(seed))


def test_two_keys_of_one_file_are_two_models(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": weights(1), "ema": weights(2)}, path)
    text = f'let a = model("{path}", key="model")\nlet b = model("{path}", key="ema")\n* = a - b'
    out = tmp_path / "out.safetensors"
    mergec.compile(text, device="cpu", allow_pickle=True, single=True).run(out)
    for name, tensor in load_file(out).items():
        assert torch.equal(tensor, weights(1)[name] - weights(2)[name])


def test_verify_opens_the_key_that_the_recipe_names(tmp_path: Path) -> None:
    path, out = tmp_path / "last.pt", tmp_path / "out"
    torch.save({"model": weights(1), "ema": weights(2)}, path)
    for key in ("ema", "model"):
        text = f'let a = model("{path}", key="{key}")\n* = 2*a'
        mergec.compile(text, device="cpu", allow_pickle=True).run(out, force=True)
        assert mergec.verify(out, rerun="all", allow_pickle=True).ok
        assert_doubled(load_file(out / "model.safetensors"), weights(1 if key == "model" else 2))


@pytest.mark.parametrize("key", ["a.b.c", "x", "", "epoch", "model.body"])
def test_a_key_that_is_not_there(key: str, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"epoch": 3, "model": weights(1)}, path)
    found = refused(path, f', key="{key}"')
    assert found.code == "E0484"
    assert found.labels[0].span.text == f'"{key}"'
    assert "`model` (2 entries)" in found.notes[-1] or "none" in found.notes[-1]


def test_weights_two_levels_down(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": {"unet": weights(1), "vae.decoder": weights(2)}, "epoch": 1}, path)
    found = refused(path)
    assert found.code == "E0484"
    assert "`model.unet`" in found.notes[-1]
    assert_doubled(merged(path, tmp_path / "1.safetensors", ', key="model.unet"'), weights(1))
    assert_doubled(merged(path, tmp_path / "2.safetensors", ', key="model.vae.decoder"'), weights(2))


@pytest.mark.parametrize("key", [None, "model"])
def test_a_dict_of_its_own_class(key: str | None, tmp_path: Path) -> None:
    for kind in (Named, lambda state: collections.defaultdict(dict, state)):
        state: Any = kind(weights(1))
        torch.save({key: state, "epoch": 1} if key else state, tmp_path / "last.pt")
        assert_doubled(merged(tmp_path / "last.pt", tmp_path / "out.safetensors"), weights(1))
        (tmp_path / "out.safetensors").unlink()


def test_a_safetensors_file_has_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save(weights(1), path)
    merged(path, tmp_path / "plain.safetensors")
    assert refused(tmp_path / "plain.safetensors", ', key="ema"').code == "E0484"
    assert refused(tmp_path / "plain.safetensors", ', variant="fp16"').code == "E0483"


# --- what is beside the weights is data, whatever it is ------------------------------------------


class Mode(enum.Enum):
    TRAIN = 1


class Settings:
    """A class that the reader has never heard of."""

    def __init__(self) -> None:
        self.rate, self.where = 0.1, pathlib.PurePosixPath("/x")


class Named(dict[str, Any]):
    pass


def hyper(rate: float) -> float:
    return rate


BESIDE: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=1e-4, path=pathlib.PosixPath("/data")),
    "numpy scalar": np.float64(0.5),
    "numpy integer": np.int64(3),
    "numpy array": np.arange(5),
    "numpy state": np.random.RandomState(0).get_state(),
    "path": pathlib.PosixPath("/data/run"),
    "enum": Mode.TRAIN,
    "settings": Settings(),
    "dict of its own class": Named(a=1),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2]),
    "counter": collections.Counter("abc"),
    "date": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "function": hyper,
    "class": Settings,
    "bytes": b"\xff\x00",
    "bytearray": bytearray(b"x"),
    "complex": 1 + 2j,
    "range": range(3),
    "slice": slice(1, 2),
    "scheduler": torch.optim.lr_scheduler.ExponentialLR(torch.optim.SGD([torch.ones(1)], lr=0.1), 0.9).state_dict(),
    "module": torch.nn.Linear(2, 2),
    "random state": torch.get_rng_state(),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", BESIDE)
def test_what_is_beside_the_weights_is_passed_over(name: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"args": BESIDE[name], "state_dict": weights(1)}, path, pickle_protocol=protocol)
    made = compiled(path)
    assert made.diagnostics[0].message == "what `a` has beside its weights is passed over: `args`"
    made.run(tmp_path / "out.safetensors")
    assert_doubled(load_file(tmp_path / "out.safetensors"), weights(1))


@pytest.mark.parametrize("name", [n for n in BESIDE if n not in ("numpy array", "module", "random state")])
def test_and_among_them_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"args": BESIDE[name], **weights(1)}, path)
    assert_doubled(merged(path, tmp_path / "out.safetensors"), weights(1))


@pytest.mark.parametrize("name", ["numpy array", "module"])
def test_what_may_be_weights_is_not_passed_over_among_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"w": BESIDE[name], **weights(1)}, path)
    found = refused(path)
    assert found.code == "E0446"
    assert found.message.startswith("tensor `w` is an object of `")


@pytest.mark.parametrize("key", ["", "model"])
def test_a_whole_model_as_an_object(key: str, tmp_path: Path) -> None:
    path = tmp_path / "yolo.pt"
    module = torch.nn.Linear(2, 2)
    torch.save({key: module, "epoch": 1} if key else module, path)
    found = refused(path)
    assert found.code == "E0442"
    assert "in an object of `torch.nn.modules.linear.Linear`" in found.message
    run(found, tmp_path, "yolo.pt")
    assert_doubled(merged(tmp_path / "weights.pt", tmp_path / "out.safetensors"), dict(module.state_dict()))


# --- commands that errors print ------------------------------------------------------------------


def run(found: mergec.Diagnostic, folder: Path, name: str, which: int = 0) -> None:
    """Runs the command that an error's help prints, as a user would, on the file that it is
    about."""
    commands = [c for text in found.help for c in re.findall(r'`python -c "(.*?)"`', text)]
    code = commands[which].replace("FILE", name)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def conj(tensor: torch.Tensor) -> torch.Tensor:
    return torch.complex(tensor, tensor).conj().imag


ODD = {
    "a transposed view": (lambda t: t.t(), "E0445", lambda t: t.t()),
    "an expanded view": (lambda t: t[:1].expand(5, 4), "E0445", lambda t: t[:1].expand(5, 4)),
    "a sparse tensor": (lambda t: t.to_sparse(), "E0446", lambda t: t),
    "a lazily negated tensor": (conj, "E0446", lambda t: -t),
    "a quantised tensor": (lambda t: torch.quantize_per_tensor(t, 0.5, 0, torch.qint8), "E0446", None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["alone", "under a key", "beside a namespace"])
@pytest.mark.parametrize("name", ODD)
def test_the_command_for_a_tensor_that_is_no_range(name: str, where: str, tmp_path: Path) -> None:
    make, code, wanted = ODD[name]
    state = {**weights(1), "odd": make(weights(2)["body.0.weight"])}
    value: Any = {
        "alone": {**state, "version": 3},
        "under a key": {"epoch": 1, "params_ema": state, "params": state},
        "beside a namespace": {"args": argparse.Namespace(x=pathlib.PosixPath("/x")), "model": {**state, "step": 3}},
    }[where]
    torch.save(value, tmp_path / "last.pt")
    found = refused(tmp_path / "last.pt", ', key="params_ema"' if where == "under a key" else "")
    assert found.code == code
    run(found, tmp_path, "last.pt")
    made = load_file(tmp_path / "model.safetensors")
    assert made.keys() == state.keys()
    assert torch.equal(made["body.0.weight"], state["body.0.weight"])
    expected = state["odd"].dequantize() if wanted is None else wanted(weights(2)["body.0.weight"])
    assert torch.equal(made["odd"], expected.contiguous())
    assert_doubled(merged(tmp_path / "model.safetensors", tmp_path / "out.safetensors"), made)


@pytest.mark.parametrize("settings", [None, argparse.Namespace(x=1)])
def test_the_command_for_a_plain_pickle(settings: Any, tmp_path: Path) -> None:
    """As PyTorch wrote them before version 1.6; where it refuses what else is there, the second
    command does."""
    path = tmp_path / "old.pth.tar"
    torch.save({"model": weights(1), "ema": weights(2), "args": settings}, path, _use_new_zipfile_serialization=False)
    found = refused(path)
    assert found.code == "E0440"
    if settings is None:
        run(found, tmp_path, "old.pth.tar")
    else:
        code = re.findall(r'`python -c "(.*?)"`', found.help[0])[0].replace("FILE", "old.pth.tar")
        code = code.replace("weights_only=True", "weights_only=False")
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert_doubled(merged(tmp_path / "weights.pt", tmp_path / "out.safetensors", ', key="ema"'), weights(2))


def test_the_command_for_another_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "big.pt"
    torch.save(weights(1), path)
    raw = path.read_bytes()
    assert raw.count(b"little") == 1
    with zipfile.ZipFile(path) as z:
        records = {name: z.read(name) for name in z.namelist()}
    with zipfile.ZipFile(path, "w") as z:
        for name, data in records.items():
            swapped = np.frombuffer(data, "<f4").byteswap().tobytes() if "/data/" in name else data
            z.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    found = refused(path)
    assert found.code == "E0448"
    run(found, tmp_path, "big.pt")
    assert_doubled(merged(tmp_path / "weights.pt", tmp_path / "out.safetensors"), weights(1))


def test_the_command_for_a_program(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "script.pt")
    found = refused(tmp_path / "script.pt")
    assert found.code == "E0440"
    run(found, tmp_path, "script.pt")
    assert load_file(tmp_path / "model.safetensors")["weight"].shape == (3, 2)


@pytest.mark.parametrize("raw", [b"", b"not a checkpoint at all", b"GGUF" + bytes(60), b"<html>"])
def test_no_command_for_what_pytorch_did_not_write(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(raw)
    found = refused(tmp_path / "x.pt")
    assert found.code == "E0440"
    assert "python" not in "".join(found.help)


def test_no_command_for_what_is_no_mapping(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "x.pt")
    found = refused(tmp_path / "x.pt")
    assert found.code == "E0444"
    assert "python -c" not in "".join(found.help)
