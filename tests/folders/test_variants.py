"""Which files of a folder are its weights, and what those of the output are called."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import pytest
import torch
from mergec.grammar.diagnostic import MergecError
from safetensors.torch import load_file, save_file

STEM = "diffusion_pytorch_model"


def fill(folder: Path, names: list[str]) -> None:
    """Weight files of these names, each of which says in its numbers which one it is. The files of
    an index are those behind it: `INDEX: FILE, FILE`."""
    folder.mkdir()
    for number, name in enumerate(names):
        name, _, listed = name.partition(": ")
        if not listed:
            save_file({"w": torch.full((2, 2), float(number))}, folder / name, {"format": "pt"})
            continue
        files = listed.split(", ")
        for k, file in enumerate(files):
            save_file({f"w{k}": torch.full((2, 2), float(number))}, folder / file, {"format": "pt"})
        index = {"metadata": {}, "weight_map": {f"w{k}": file for k, file in enumerate(files)}}
        (folder / name).write_text(json.dumps(index))


def merged(folder: Path, out: Path, more: str = "") -> tuple[list[str], float, list[str]]:
    """The output's weight files, what is in them, and the codes of warnings."""
    made = mergec.compile(f'let a = model("{folder}"{more})\n* = a', device="cpu")
    made.run(out)
    files = sorted(f.name for f in out.glob("*.safetensors"))
    numbers = {float(t.max()) for f in files for t in load_file(out / f).values()}
    assert len(numbers) == 1
    assert mergec.verify(out).ok
    return files, numbers.pop(), [d.code for d in made.diagnostics]


def refused(folder: Path, more: str = "") -> mergec.Diagnostic:
    with pytest.raises(MergecError) as caught:
        mergec.compile(f'let a = model("{folder}"{more})\n* = a', device="cpu")
    (found,) = caught.value.diagnostics
    return found


SHARDS = f"{STEM}.fp16-00001-of-00002.safetensors, {STEM}.fp16-00002-of-00002.safetensors"
OLD_SHARDS = f"{STEM}-00001-of-00002.fp16.safetensors, {STEM}-00002-of-00002.fp16.safetensors"
PLAIN_SHARDS = f"{STEM}-00001-of-00002.safetensors, {STEM}-00002-of-00002.safetensors"
CHOICES = {
    "plain": ([f"{STEM}.safetensors"], None, [f"{STEM}.safetensors"], 0),
    "plain beside variants": (
        [f"{STEM}.fp16.safetensors", f"{STEM}.safetensors", f"{STEM}.non_ema.safetensors"],
        None, [f"{STEM}.safetensors"], 1,
    ),
    "the variant": ([f"{STEM}.fp16.safetensors", f"{STEM}.safetensors"], "fp16", [f"{STEM}.fp16.safetensors"], 0),
    "a variant of transformers": (
        ["model.safetensors", "model.bf16.safetensors"], "bf16", ["model.bf16.safetensors"], 1,
    ),
    "a variant in shards": (
        [f"{STEM}.safetensors.index.fp16.json: {SHARDS}", f"{STEM}.safetensors.index.json: {PLAIN_SHARDS}"],
        "fp16", [f"{STEM}.fp16.safetensors"], 0,
    ),
    "one in shards of old names": (
        [f"{STEM}.safetensors.index.fp16.json: {OLD_SHARDS}", f"{STEM}.safetensors"],
        "fp16", [f"{STEM}.fp16.safetensors"], 0,
    ),
    "plain shards beside a variant": (
        [f"{STEM}.safetensors.index.fp16.json: {SHARDS}", f"{STEM}.safetensors.index.json: {PLAIN_SHARDS}"],
        None, [f"{STEM}.safetensors"], 1,
    ),
    "another name alone": (["sdxl.safetensors"], None, ["model.safetensors"], 0),
    "another name beside an adapter": (
        ["sdxl.safetensors", "adapter_model.safetensors"], None, ["model.safetensors"], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_which_files_are_read_and_what_the_output_calls_them(name: str, tmp_path: Path) -> None:
    names, variant, called, number = CHOICES[name]
    fill(tmp_path / "a", names)
    more = f', variant="{variant}"' if variant else ""
    assert merged(tmp_path / "a", tmp_path / "out", more) == (called, float(number), [])


@pytest.mark.parametrize(
    "name", [f"{STEM}.fp16.safetensors", "model.fp16.safetensors", f"{STEM}.safetensors.index.fp16.json: {SHARDS}"]
)
def test_a_variant_that_is_all_there_is(name: str, tmp_path: Path) -> None:
    fill(tmp_path / "a", [name])
    files, _, warned = merged(tmp_path / "a", tmp_path / "out")
    assert (len(files), warned) == (1, ["W0595"])
    assert ".fp16." in files[0]


def test_shards_of_a_variant_without_an_index(tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"x.json: {SHARDS}"])
    assert merged(tmp_path / "a", tmp_path / "out")[::2] == ([f"{STEM}.fp16.safetensors"], ["W0595"])


def test_several_shards_of_a_variant_are_indexed_as_diffusers_does(tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"{STEM}.safetensors.index.fp16.json: {SHARDS}"])
    text = f'let a = model("{tmp_path}/a", variant="fp16")\noutput(shard_size="16B")\n* = a'
    mergec.compile(text, device="cpu").run(tmp_path / "out")
    found = {f.name for f in (tmp_path / "out").iterdir()} & {f.name for f in (tmp_path / "a").iterdir()}
    assert found == {*SHARDS.split(", "), f"{STEM}.safetensors.index.fp16.json"}
    assert mergec.verify(tmp_path / "out").ok


def test_several_variants_and_nothing_plain(tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"{STEM}.fp16.safetensors", f"{STEM}.bf16.safetensors"])
    found = refused(tmp_path / "a")
    assert found.code == "E0483"
    assert "`bf16`, `fp16`" in found.message
    assert found.help == ('name one: `variant="bf16"`',)
    assert merged(tmp_path / "a", tmp_path / "out", ', variant="bf16"')[:2] == ([f"{STEM}.bf16.safetensors"], 1.0)


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"{STEM}.safetensors"])
    found = refused(tmp_path / "a", ', variant="fp16"')
    assert found.code == "E0483"
    assert found.labels[0].span.text == '"fp16"'
    assert found.help == ("leave `variant` out: the plain weights are read",)
    fill(tmp_path / "b", [f"{STEM}.bf16.safetensors"])
    found = refused(tmp_path / "b", ', variant="fp16"')
    assert found.help == ('name one: `variant="bf16"`',)


def test_one_file_of_a_module_keeps_its_name(tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"{STEM}.safetensors"])
    assert merged(tmp_path / "a" / f"{STEM}.safetensors", tmp_path / "out")[0] == [f"{STEM}.safetensors"]


def test_weights_in_folders_below_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a/unet", [f"{STEM}.safetensors"])
    found = refused(tmp_path / "a")
    assert found.code == "E0406"
    assert found.help == ('there are weights in folders below: `unet`; name one, `subfolder="unet"`',)
    assert merged(tmp_path / "a", tmp_path / "out", ', subfolder="unet"')[0] == [f"{STEM}.safetensors"]


@pytest.mark.parametrize("variant", ["../x", "", "a/b", "fp16\0"])
def test_a_variant_that_is_no_name(variant: str, tmp_path: Path) -> None:
    fill(tmp_path / "a", [f"{STEM}.safetensors"])
    (tmp_path / "x").mkdir()
    escaped = variant.replace("\0", "\\u0000")
    assert refused(tmp_path / "a", f', variant="{escaped}"').code == "E0483"
