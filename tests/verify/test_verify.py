"""`mergec.verify`: outputs that are right pass, and every way of damaging one is found and
named."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lora_adapters
import mergec
import pytest
import safetensors
import torch
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.compiler.checkpoint.dtypes import SIZES
from mergec.compiler.emit import content
from mergec.compiler.emit.card import RECORDED
from mergec.compiler.pack.format import FileTensor
from mergec.compiler.pack.safetensors import SAFETENSORS
from mergec.runtime.catalog import extension_code
from mergec.runtime.formats.outputs import reader_of
from mergec.runtime.resume.earlier import examine
from mergec.runtime.resume.record import DIGEST, found_record, parse_record, sealed_text
from mergec.runtime.verify import recipe as recompiling
from mergec.runtime.verify.report import Verdict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

RECIPE = """let base = model("base")
let b = model("b")
let share = 0.25
output(shard_size="20kB")
* = base + share*(b - base)
norm = base
"""
EMBED = "model.embed_tokens.weight"
MADE = "model.layers.1.mlp.up_proj.weight"
COPIED = "model.norm.weight"


def merge(folder: Path, recipe: str = RECIPE, **options: Any) -> Path:
    """Runs a recipe that lies in `folder` into `folder/out`."""
    (folder / "r.mrg").write_text(recipe)
    mergec.compile(folder / "r.mrg", device="cpu", **options).run(folder / "out", force=True)
    return folder / "out"


@pytest.fixture(scope="module")
def whole(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tied models as `base` and `b`, and their merge in several files, as
    `out`."""
    folder = tmp_path_factory.mktemp("whole")
    for seed, name in enumerate(("base", "b")):
        shutil.copytree(checkpoint("llama-tied", dtype="bfloat16", seed=seed), folder / name)
    merge(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of that to be damaged, with a record that tells of the copied inputs."""
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))

    def as_copied(data: dict[str, Any]) -> None:
        for entry in data["inputs"]:
            for file in entry["files"]:
                file["inode"] = (copy / entry["source"] / file["name"]).stat().st_ino

    edit(copy / "out" / "mergec.json", as_copied)
    return copy


def verdicts(found: mergec.Verification) -> dict[str, str]:
    return {check.name: check.verdict.value for check in found.checks}


def codes(found: mergec.Verification) -> set[str]:
    return {d.code for d in found.diagnostics}


def place(out: Path, name: str) -> tuple[Path, int, int]:
    """The file that holds a tensor, and where its bytes begin and end."""
    for path in sorted(out.glob("*.safetensors")):
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
        if name in header:
            start, end = header[name]["data_offsets"]
            return path, 8 + length + start, 8 + length + end
    raise AssertionError(name)


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(out: Path, name: str) -> Path:
    path, start, _ = place(out, name)
    patch(path, start + 5, bytes([path.read_bytes()[start + 5] ^ 4]))
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a JSON file; a record gets a new digest."""
    data = json.loads(path.read_text())
    sealed = data.pop(DIGEST, None)
    change(data)
    path.write_text(json.dumps(data) if sealed is None else sealed_text(json.dumps(data)))


def edit_header(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert len(old) == len(new)
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))


# --- outputs that are right ----------------------------------------------------------------------


def test_an_output_as_it_was_made(whole: Path) -> None:
    found = mergec.verify(whole / "out", rerun="all")
    assert found.ok
    assert set(verdicts(found).values()) == {"ok"}
    assert list(verdicts(found)) == [
        *("headers", "record", "tensors", "index", "config", "checksums"),
        *("non-finite", "inputs", "recipe", "documents", "rerun"),
    ]
    assert len(list((whole / "out").glob("*.safetensors"))) > 1


def test_an_output_of_other_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys are those of the recipe all the same; whether its numbers are, only a rerun can
    tell."""
    for module in (content, extension_code, recompiling):
        monkeypatch.setattr(module, "own_code", lambda: "another")
    found = mergec.verify(folder / "out", rerun="all", folder=folder)
    assert verdicts(found)["recipe"] == "not checked"
    (said,) = [c.detail for c in found.checks if c.name == "recipe"]
    assert said.endswith("keys; but it was made when mergec's own code was another")
    assert verdicts(found)["rerun"] == "ok"
    assert found.ok
    edit(folder / "out/mergec.json", lambda data: data.update(recipe=RECIPE.replace("0.25", "0.5")))
    found = mergec.verify(folder / "out", folder=folder)
    assert "other keys; it was made when" in next(c.detail for c in found.checks if c.name == "recipe")


@pytest.mark.parametrize("family", ["llama", "phi-old", "gpt2", "t5", "bert", "mixtral", "gemma2-other-head"])
def test_families(family: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    one, two = checkpoint(family), checkpoint(family, seed=1)
    out = merge(tmp_path, f'let a = model("{one}")\nlet b = model("{two}")\n* = linear(a, b, weight=[0.5, 0.5])\n')
    found = mergec.verify(out, rerun=3)
    assert set(verdicts(found).values()) == {"ok"}, found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_and_settings_given_outside_the_recipe(dtype: str, folder: Path) -> None:
    out = merge(folder, defines={"share": 0.5}, settings={"dtype": dtype}, strict=True)
    found = mergec.verify(out, rerun="all")
    assert set(verdicts(found).values()) == {"ok"}, found


def test_copies_alone(folder: Path) -> None:
    out = merge(folder, 'let b = model("b")\n* = b\n')
    found = mergec.verify(out)
    assert verdicts(found)["checksums"] == "not checked"
    assert found.ok
    assert mergec.verify(out, rerun="all").ok
    path = flip(out, EMBED)
    assert mergec.verify(out).ok  # nothing but the inputs tells what a copy was
    found = mergec.verify(out, rerun="all")
    assert [(d.code, d.file) for d in found.diagnostics] == [("E0658", str(path))]
    assert found.diagnostics[0].notes == ("the first difference is in byte 5 of the tensor",)


def test_one_file(folder: Path) -> None:
    out = folder / "x.safetensors"
    mergec.compile(folder / "r.mrg", device="cpu", single=True).run(out)
    assert verdicts(mergec.verify(out)) == {"headers": "ok", "record": "not checked", "non-finite": "ok"}
    out.write_bytes(out.read_bytes()[:-1])
    assert codes(mergec.verify(out)) == {"E0426"}


class Other:
    """A safetensors library that reads a file otherwise: some tensors are other ones to it (None:
    not there)."""

    def __init__(self, path: str, framework: str, changed: dict[str, Any]) -> None:
        self._changed = changed
        self._file = safe_open(path, framework=framework)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None: ...

    def keys(self) -> list[str]:
        names = list(self._file.keys())
        return [*(n for n in names if self._changed.get(n, 0) is not None), *self._changed.get("more", ())]

    def get_slice(self, name: str) -> Any:
        real = self._file.get_slice(EMBED if name in self._changed.get("more", ()) else name)
        said = {"get_dtype": real.get_dtype(), "get_shape": real.get_shape()} | (self._changed.get(name) or {})
        return SimpleNamespace(**{k: lambda v=v: v for k, v in said.items()})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {EMBED: {"get_dtype": "F16"}},
            f"tensor `{EMBED}` is BF16 [64, 32] to mergec, and F16 [64, 32] to the safetensors library",
        ),
        (
            {EMBED: {"get_shape": [4]}},
            f"tensor `{EMBED}` is BF16 [64, 32] to mergec, and BF16 [4] to the safetensors library",
        ),
        ({EMBED: None}, f"tensor `{EMBED}` is BF16 [64, 32] to mergec, and nothing to the safetensors library"),
        ({"more": ["x"]}, "tensor `x` is nothing to mergec, and BF16 [64, 32] to the safetensors library"),
    ],
)
def test_a_library_that_reads_a_file_otherwise(
    changed: dict[str, Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors, "safe_open", lambda path, framework: Other(path, framework, changed))
    out = folder / "x.safetensors"
    mergec.compile(folder / "r.mrg", device="cpu", single=True).run(out)
    (found,) = mergec.verify(out).diagnostics
    assert (found.code, found.message, found.file) == ("E0651", message, str(out))


def test_a_library_that_refuses_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, framework: str) -> None:  # noqa: ARG001
        raise SafetensorError("not to my taste")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    found = mergec.verify(folder / "out", folder=folder)
    assert verdicts(found)["headers"] == "failed"
    assert {d.message for d in found.diagnostics} == {"the safetensors library can't read this file: not to my taste"}


@pytest.mark.parametrize("dtype", sorted(SIZES))
def test_the_library_reads_every_dtype_alike(dtype: str, tmp_path: Path) -> None:
    tensors = [FileTensor(name, dtype, shape, 6 * SIZES[dtype], ()) for name, shape in (("a", (2, 3)), ("ü", (6,)))]
    empty = FileTensor("none", dtype, (3, 0), 0, ())
    placed = SAFETENSORS.place([*tensors, empty], {"format": "pt"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(placed.fixed[0].data.ljust(placed.size, b"\0"))
    read = reader_of(str(path)).reference
    assert read is not None
    assert read(str(path)) == {t.name: (dtype, t.shape) for t in (*tensors, empty)}
    assert mergec.verify(path).ok


def test_files_that_the_recipe_used_come_from_the_record(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "one.mrg").write_text('use "two.mrg"\ndef half(x, y) = mean_of(x, y)\n')
    (folder / "lib" / "two.mrg").write_text("def mean_of(x, y) = 0.5*x + 0.5*y\n")
    recipe = 'use "lib/one.mrg"\nlet base = model("base")\nlet b = model("b")\n* = half(base, b)\n'
    out = merge(folder, recipe)
    shutil.rmtree(folder / "lib")
    assert set(verdicts(mergec.verify(out, rerun=2)).values()) == {"ok"}


def test_adapters_are_inputs_too(folder: Path) -> None:
    tensors = lora_adapters.factors(load_file(folder / "base" / "model.safetensors"), [MADE.removesuffix(".weight")])
    lora_adapters.write(folder / "adapter", tensors, r=4, lora_alpha=8)
    out = merge(folder, 'let base = model("base")\nlet extra = lora("adapter")\n* = base + extra\n')
    found = mergec.verify(out, rerun="all")
    assert set(verdicts(found).values()) == {"ok"}, found
    assert found.checks[6].detail.startswith("2 of 2 ")
    shutil.rmtree(folder / "adapter")
    assert "not at hand: `extra`" in [c.detail for c in mergec.verify(out).checks]


def test_nothing_is_written(whole: Path) -> None:
    def state() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in sorted(whole.rglob("*"))}

    before = state()
    mergec.verify(whole / "out", rerun=2)
    assert state() == before


def test_the_sample_depends_on_the_seed_alone(whole: Path) -> None:
    details = [mergec.verify(whole / "out", rerun=3, seed=seed).checks[-1].detail for seed in (1, 1, 2)]
    assert details[0] == details[1]
    assert details[0].startswith("3 of 38 tensors made again")


# --- damage --------------------------------------------------------------------------------------


def test_a_flipped_bit(folder: Path) -> None:
    path = flip(folder / "out", MADE)
    found = mergec.verify(folder / "out")
    assert [(d.code, d.file) for d in found.diagnostics] == [("E0652", str(path))]
    assert f"`{MADE}`" in found.diagnostics[0].message
    assert [c.name for c in found.checks if c.verdict is Verdict.FAILED] == ["checksums"]


def test_a_truncated_file(folder: Path) -> None:
    path, _, _ = place(folder / "out", MADE)
    os.truncate(path, path.stat().st_size - 10)
    found = mergec.verify(folder / "out")
    assert ("E0426", str(path)) in [(d.code, d.file) for d in found.diagnostics]
    assert "E0651" in codes(found)


def test_a_header_with_another_dtype(folder: Path) -> None:
    path, _, _ = place(folder / "out", EMBED)
    edit_header(path, b'"dtype":"BF16"', b'"dtype":"F16" ')
    assert "E0651" in codes(mergec.verify(folder / "out"))


def test_a_header_with_another_shape(folder: Path) -> None:
    path, _, _ = place(folder / "out", EMBED)
    edit_header(path, b'"shape":[64,32]', b'"shape":[32,64]')
    found = mergec.verify(folder / "out")
    message = f"tensor `{EMBED}` is BF16 [32, 64], and was written as BF16 [64, 32]"
    assert message in [d.message for d in found.diagnostics]


def test_a_tensor_gone_and_one_too_many(folder: Path) -> None:
    path, _, _ = place(folder / "out", MADE)
    tensors = load_file(path)
    tensors["stranger"] = tensors.pop(MADE)
    save_file(tensors, path, {"format": "pt"})
    found = mergec.verify(folder / "out")
    messages = [d.message for d in found.diagnostics if d.code == "E0651"]
    assert f"tensor `{MADE}` is missing" in messages
    assert "tensor `stranger` is not one of those that were written" in messages
    assert "E0655" in codes(found)


def test_a_weight_file_beside_the_others(folder: Path) -> None:
    save_file({"extra": torch.zeros(3)}, folder / "out" / "more.safetensors")
    found = mergec.verify(folder / "out")
    assert {"E0651", "E0655"} <= codes(found)
    assert any("parameters" in d.message for d in found.diagnostics)


def test_a_missing_shard(folder: Path) -> None:
    path, _, _ = place(folder / "out", MADE)
    path.unlink()
    assert {"E0651", "E0655"} <= codes(mergec.verify(folder / "out"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_hidden_layers", 3, "`num_hidden_layers` is 3, but the tensors have 4 of `layers`"),
        ("num_hidden_layers", "4\n", "`num_hidden_layers` is '4\\n', but the tensors have 4 of `layers`"),
        ("vocab_size", 65, f"`vocab_size` is 65, but `{EMBED}` has 64 rows"),
        (
            "tie_word_embeddings",
            False,
            "`tie_word_embeddings` says that `lm_head.weight` is a tensor of its own, but it is not stored",
        ),
    ],
)
def test_config_against_tensors(key: str, value: object, said: str, folder: Path) -> None:
    place = folder / "out" / "config.json"
    edit(place, lambda config: config.__setitem__(key, value))
    found = mergec.verify(folder / "out")
    assert [(d.code, d.message, d.file) for d in found.diagnostics] == [
        ("E0653", said, str(place)),
        ("E0659", "`config.json` is not as it was written", str(place)),
    ]


def test_config_that_expects_other_tensors(folder: Path) -> None:
    config = folder / "out" / "config.json"
    edit(config, lambda config: config.update(architectures=["LlamaForCausalLM"], attention_bias=True))
    found = mergec.verify(folder / "out")
    assert "`model.layers.{i}.self_attn.q_proj.bias` is not stored, and config.json expects it" in [
        d.message for d in found.diagnostics if d.code == "E0653"
    ]


def test_a_tie_stored_twice(checkpoint: Callable[..., Path], folder: Path) -> None:
    shutil.copytree(checkpoint("llama"), folder / "untied")
    out = merge(folder, 'let a = model("untied")\n* = 2*a\n')
    edit(out / "config.json", lambda config: config.update(tie_word_embeddings=True))
    found = mergec.verify(out)
    assert codes(found) == {"E0653", "E0659"}
    assert "are tied" in found.diagnostics[0].message


def test_other_words_in_config(folder: Path) -> None:
    edit(folder / "out" / "config.json", lambda config: config.update(rope_theta=1))
    assert codes(mergec.verify(folder / "out")) == {"E0659"}


def test_an_edited_index(folder: Path) -> None:
    index = folder / "out" / "model.safetensors.index.json"
    files = sorted(p.name for p in (folder / "out").glob("*.safetensors"))

    def move(data: dict[str, Any]) -> None:
        del data["weight_map"][COPIED]
        data["weight_map"][MADE] = next(f for f in files if f != data["weight_map"][MADE])
        data["metadata"]["total_size"] += 1

    edit(index, move)
    found = mergec.verify(folder / "out")
    assert sum(d.code == "E0655" for d in found.diagnostics) == 3
    index.unlink()
    assert "E0655" in codes(mergec.verify(folder / "out"))


def test_a_planted_nan(folder: Path) -> None:
    path, start, _ = place(folder / "out", MADE)
    patch(path, start, b"\xc0\x7f")
    found = mergec.verify(folder / "out")
    assert codes(found) == {"E0652", "E0654"}
    assert verdicts(found)["non-finite"] == "failed"


def test_a_nan_that_was_there_is_told_and_no_fault(folder: Path) -> None:
    tensors = load_file(folder / "b" / "model.safetensors")
    tensors[EMBED][0, 0] = float("nan")
    save_file(tensors, folder / "b" / "model.safetensors", {"format": "pt"})
    for recipe in (RECIPE, 'let b = model("b")\n* = b\n'):
        found = mergec.verify(merge(folder, recipe), rerun=2)
        assert found.ok
        assert next(c for c in found.checks if c.name == "non-finite").detail == "1 infinities and NaNs in 1 tensors"


# --- the record ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"weights": 3}', "[" * 100_000, "\udcff"])
def test_no_record(text: str | None, folder: Path) -> None:
    record = folder / "out" / "mergec.json"
    record.unlink()
    if text is not None:
        record.write_text(text, "utf-8", "surrogateescape")
    found = mergec.verify(folder / "out", rerun=1)
    assert [(d.code, d.file) for d in found.diagnostics] == [("E0650", str(record))]


@pytest.mark.parametrize("kind", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("name", ["mergec.json", "config.json", "model.safetensors.index.json", "tokenizer.json"])
def test_no_file_where_a_file_was(kind: Callable[[Path], None], name: str, folder: Path) -> None:
    """A pipe keeps nobody waiting."""
    shutil.copy(folder / "base" / "config.json", folder / "base" / "tokenizer.json")
    merge(folder)
    (folder / "out" / name).unlink()
    kind(folder / "out" / name)
    assert codes(mergec.verify(folder / "out", rerun=1))


def test_a_pipe_beside_the_weights_of_an_input(folder: Path) -> None:
    shutil.copy(folder / "base" / "config.json", folder / "base" / "tables.json")
    merge(folder)
    (folder / "base" / "tables.json").unlink()
    os.mkfifo(folder / "base" / "tables.json")
    assert mergec.verify(folder / "out").ok  # nothing tells what it was


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output whose record is short, and has letters of all kinds in it."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "a").mkdir()
    save_file({"x.weight": torch.ones(2)}, folder / "a" / "model.safetensors", {"format": "pt"})
    recipe = 'let a = model("a")\nlet rate = 1e-5\nlet name = "é\\n"\n* = a + rate\n'
    out = merge(folder, recipe, defines={"rate": 2e-05})
    assert mergec.verify(out).ok
    assert b"2e-05" in (out / "mergec.json").read_bytes()
    return out


def test_every_bit_of_the_record_counts(small: Path) -> None:
    """Be it in a key, a digest, a number's letter `e` or between words."""
    place = small / "mergec.json"
    raw = place.read_bytes()

    def unsound(data: bytes) -> bool:
        try:
            parse_record(data.decode(), "x")
        except (CatalogError, UnicodeDecodeError):
            return True
        return False

    assert not unsound(raw)
    for byte in range(len(raw)):
        for bit in range(8):
            assert unsound(raw[:byte] + bytes([raw[byte] ^ 1 << bit]) + raw[byte + 1 :]), (byte, bit)
    assert all(unsound(raw[:end]) for end in range(len(raw)))
    assert unsound(raw + b"\n")
    try:
        for byte in range(0, len(raw), 101):
            place.write_bytes(raw[:byte] + bytes([raw[byte] ^ 1 << byte % 8]) + raw[byte + 1 :])
            assert codes(mergec.verify(small)) == {"E0650"}
            assert found_record(str(small)) is None
    finally:
        place.write_bytes(raw)
    assert mergec.verify(small).ok


def test_every_key_of_the_record_is_there(small: Path) -> None:
    place = small / "mergec.json"
    raw, data = place.read_text(), json.loads(place.read_text())
    known = {**RECORDED, "made_with": (dict,), "files": (list,), "weights": (dict,), "tensors": (dict,)}
    assert data.keys() == {*known, DIGEST}
    try:
        for key in known:
            for digest in (True, False):
                less = {k: v for k, v in data.items() if k not in (key, DIGEST)}
                place.write_text(
                    sealed_text(json.dumps(less)) if digest else json.dumps({**less, DIGEST: data[DIGEST]})
                )
                (found,) = mergec.verify(small).diagnostics
                what = f"lacks `{key}`" if digest else "has been changed since it was written"
                assert (found.code, found.message.startswith(f"`mergec.json` {what}")) == ("E0650", True)
        place.write_text(json.dumps({k: v for k, v in data.items() if k != DIGEST}))
        (found,) = mergec.verify(small).diagnostics
        assert (found.code, f"has no `{DIGEST}`" in found.message) == ("E0650", True)
    finally:
        place.write_text(raw)


def test_an_edited_recipe_in_the_record(folder: Path) -> None:
    record = folder / "out" / "mergec.json"
    edit(record, lambda data: data.update(recipe=data["recipe"].replace("0.25", "0.3")))
    found = mergec.verify(folder / "out")
    assert codes(found) == {"E0657"}
    assert len(found.diagnostics) == 37  # the copy of the norm is what it was
    edit(record, lambda data: data.update(recipe="* = "))
    assert codes(mergec.verify(folder / "out")) == {"E0657"}


def test_another_version_is_no_fault(folder: Path) -> None:
    def older(data: dict[str, Any]) -> None:
        data["mergec"] = "0.0.1"
        for entry in data["tensors"].values():
            entry[0] = "0" * 32

    edit(folder / "out" / "mergec.json", older)
    found = mergec.verify(folder / "out")
    assert found.ok
    assert verdicts(found)["recipe"] == "not checked"


@pytest.mark.parametrize("value", [None, 3, "x", [3], {"x": [[]]}])
def test_a_record_of_other_types(value: object, folder: Path) -> None:
    """It says what is wrong, whichever entry is another, and raises nothing."""
    record = folder / "out" / "mergec.json"
    raw = record.read_text()
    for key in (key for key in json.loads(raw) if key != DIGEST):
        record.write_text(raw)
        edit(record, lambda data, key=key: data.__setitem__(key, value))
        found = mergec.verify(folder / "out", rerun=1)
        same = type(value) in (RECORDED.get(key) or {"files": (list,)}.get(key, (dict,)))
        assert same or codes(found) == {"E0650"}
        examine(str(folder / "out"), mergec.compile(folder / "r.mrg", device="cpu").plan)


@pytest.mark.parametrize(
    ("change", "failed", "unchecked"),
    [
        ({"inputs": [3, {"name": 4, "files": 5}]}, set(), {"inputs", "recipe", "rerun"}),
        ({"libraries": [1, {"name": []}]}, set(), set()),
        ({"recipe": "\0"}, {"recipe"}, {"rerun"}),
        ({"made_with": {"device": [1]}}, set(), {"recipe"}),
    ],
)
def test_a_record_of_odd_content(change: dict[str, Any], failed: set[str], unchecked: set[str], folder: Path) -> None:
    edit(folder / "out" / "mergec.json", lambda data: data.update(change))
    found = verdicts(mergec.verify(folder / "out", rerun=1))
    assert {name for name, verdict in found.items() if verdict == "failed"} == failed
    assert {name for name, verdict in found.items() if verdict == "not checked"} == unchecked


def test_bytes_and_checksum_changed_alike(folder: Path) -> None:
    out = folder / "out"
    path, start, end = place(out, MADE)
    flip(out, MADE)
    from mergec.runtime.resume.checksums import Checksum

    total = Checksum(end - start)
    total.add(memoryview(path.read_bytes()[start:end]), 0)
    edit(out / "mergec.json", lambda data: data["tensors"][MADE].__setitem__(1, total.value()))
    assert mergec.verify(out).ok
    found = mergec.verify(out, rerun="all")
    assert [(d.code, d.file) for d in found.diagnostics] == [("E0658", str(path))]
    assert f"`{MADE}`" in found.diagnostics[0].message


# --- inputs --------------------------------------------------------------------------------------


def test_an_input_that_is_gone(folder: Path) -> None:
    shutil.rmtree(folder / "b")
    found = mergec.verify(folder / "out", rerun=2)
    assert found.ok
    assert {k for k, v in verdicts(found).items() if v == "not checked"} == {"inputs", "recipe", "rerun"}
    assert next(c for c in found.checks if c.name == "inputs").detail == "not at hand: `b`"


def test_an_input_with_other_tensors(folder: Path) -> None:
    path = folder / "b" / "model.safetensors"
    tensors = load_file(path)
    tensors["more"] = torch.zeros(2)
    save_file(tensors, path, {"format": "pt"})
    found = mergec.verify(folder / "out", rerun=2)
    assert codes(found) == {"E0656"}
    assert found.diagnostics[0].file == str(folder / "b")


def test_an_input_with_other_numbers(folder: Path) -> None:
    path = folder / "b" / "model.safetensors"
    save_file({k: v * 2 for k, v in load_file(path).items()}, path, {"format": "pt"})
    found = mergec.verify(folder / "out")
    assert verdicts(found)["inputs"] == "not checked"
    assert verdicts(found)["recipe"] == "ok"
    found = mergec.verify(folder / "out", rerun="all")
    assert codes(found) == {"E0658"}
    assert found.diagnostics[0].notes[1:] == ("written to or copied since the output was made: `b`",)


def test_inputs_that_have_traded_places(folder: Path) -> None:
    """Their sizes and times are the same, as of files written within one tick of the clock."""
    merge(folder)
    for at in ("base", "b"):
        for name in ("model.safetensors", "config.json"):
            os.utime(folder / at / name, ns=(10**18, 10**18))
    merge(folder)
    for old, new in (("base", "t"), ("b", "base"), ("t", "b")):
        (folder / old).rename(folder / new)
    found = mergec.verify(folder / "out")
    assert verdicts(found)["inputs"] == "not checked"
    assert codes(mergec.verify(folder / "out", rerun="all")) == {"E0658"}


def test_inputs_that_were_copied(folder: Path) -> None:
    """Times are kept, but nothing short of a rerun tells whether the bytes are."""
    for name in ("base", "b"):
        (folder / name).rename(folder / "away")
        shutil.copytree(folder / "away", folder / name)
        shutil.rmtree(folder / "away")
    found = mergec.verify(folder / "out", rerun="all")
    assert found.ok
    assert {name for name, verdict in verdicts(found).items() if verdict != "ok"} == {"inputs"}


def test_inputs_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("base", "b"):
        shutil.move(folder / name, tmp_path / "models" / name)
    assert verdicts(mergec.verify(folder / "out"))["inputs"] == "not checked"
    found = mergec.verify(folder / "out", folder=tmp_path / "models", rerun=2)
    assert set(verdicts(found).values()) == {"ok"}


def test_no_output(tmp_path: Path) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        mergec.verify(tmp_path / "none")
    assert caught.value.diagnostics[0].code == "E0401"
    assert codes(mergec.verify(tmp_path)) >= {"E0650", "E0651"}
