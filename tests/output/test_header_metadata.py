"""The header of an output that is one file: what the template's says, and the recipe's record
beside it."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.emit import header_metadata
from safetensors import safe_open
from safetensors.torch import save_file

SAID = {
    "format": "pt",
    "modelspec.title": "mine",
    "ss_base_model_version": "sdxl_base_v1-0",
    "ss_tag_frequency": json.dumps({'a "quoted" tag, ünïcödé': 3}),
    "config": json.dumps({"transformer": {"num_layers": 2}}),
}


def write(path: Path, seed: int, said: dict[str, str] | None, **more: torch.Tensor) -> Path:
    g = torch.Generator().manual_seed(seed)
    save_file({"w": torch.randn(8, 8, generator=g), "v.weight": torch.randn(4, generator=g), **more}, path, said)
    return path


def compiled(tmp_path: Path, recipe: str, **options: object) -> mergec.Compiled:
    lets = "".join(f'let {name} = model("{tmp_path / name}.safetensors")\n' for name in "ab")
    return mergec.compile(lets + recipe, device="cpu", single=True, **options)  # type: ignore[arg-type]


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def test_the_template_s_metadata_goes_along(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 1, SAID)
    write(tmp_path / "b.safetensors", 2, {"modelspec.title": "theirs", "ss_own": "b"})
    for template in ("a", "b"):
        compiled(tmp_path, f"output(like={template}, seed=5)\n* = linear(a, b)").run(
            tmp_path / f"of-{template}.safetensors"
        )
    got = header(tmp_path / "of-a.safetensors")
    record = json.loads(got.pop("mergec"))
    assert got == SAID
    assert record["template"] == "a"
    assert record["seed"] == 5
    assert record["recipe"].endswith("* = linear(a, b)")
    assert [i["name"] for i in record["inputs"]] == ["a", "b"]
    other = header(tmp_path / "of-b.safetensors")
    assert other.keys() == {"format", "mergec", "modelspec.title", "ss_own"}
    assert other["modelspec.title"] == "theirs"


def test_the_record_is_that_of_this_merge(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 1, {**SAID, "mergec": "an earlier one", "format": "np"})
    write(tmp_path / "b.safetensors", 2, None)
    compiled(tmp_path, "* = a").run(tmp_path / "out.safetensors")
    got = header(tmp_path / "out.safetensors")
    assert json.loads(got["mergec"])["template"] == "a"
    assert got["format"] == "pt"


def test_digests_of_the_template_s_weights_are_not_said_of_others(tmp_path: Path) -> None:
    digests = {"modelspec.hash_sha256": "0xabc", "sshs_model_hash": "abc", "sshs_legacy_hash": "abc"}
    write(tmp_path / "a.safetensors", 1, SAID | digests)
    write(tmp_path / "b.safetensors", 2, None)
    compiled(tmp_path, "* = linear(a, b)").run(tmp_path / "out.safetensors")
    assert header(tmp_path / "out.safetensors").keys() == SAID.keys() | {"mergec"}


def test_formats_of_quantised_weights_hold_for_copies(tmp_path: Path) -> None:
    quantised = torch.ones(4, 4).to(torch.float8_e4m3fn)
    write(tmp_path / "a.safetensors", 1, {"_quantization_metadata": '{"layers": {"q": {}}}'}, **{"q.weight": quantised})
    write(tmp_path / "b.safetensors", 2, None)
    (header,) = compiled(tmp_path, "* = a").plan.outputs[0].fixed
    assert json.loads(header.data[8:])["__metadata__"]["_quantization_metadata"] == '{"layers": {"q": {}}}'
    with pytest.raises(mergec.MergecError, match="E0456"):
        compiled(tmp_path, 'output(dtype="bfloat16")\n* = a')


def test_a_tie_that_the_header_names_stays_true(tmp_path: Path) -> None:
    """safetensors' `save_model` stores shared tensors once, and maps the names that are left
    out."""
    write(tmp_path / "a.safetensors", 1, {"head.weight": "v.weight"})
    write(tmp_path / "b.safetensors", 2, {"head.weight": "v.weight"})
    tied = compiled(tmp_path, "* = linear(a, b)").run(tmp_path / "tied.safetensors")
    assert tied
    assert header(tmp_path / "tied.safetensors")["head.weight"] == "v.weight"
    compiled(tmp_path, '* = linear(a, b)\n"head.weight" = 2 * a').run(tmp_path / "untied.safetensors")
    assert "head.weight" not in header(tmp_path / "untied.safetensors")


def test_nor_is_a_tie_said_of_two_stored_tensors_that_differ(tmp_path: Path) -> None:
    weight = torch.full((4, 4), 2.0)
    for label in ("a", "b"):
        write(tmp_path / f"{label}.safetensors", 1, {"w2": "w1"}, w1=weight, w2=weight.clone())
    compiled(tmp_path, '* = linear(a, b)\n"w2" = 2 * a').run(tmp_path / "out.safetensors")
    assert "w2" not in header(tmp_path / "out.safetensors")


def test_a_folder_says_only_the_format(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 1, SAID)
    mergec.compile(f'* = model("{tmp_path}/a.safetensors")', device="cpu").run(tmp_path / "out")
    assert header(tmp_path / "out" / "model.safetensors") == {"format": "pt"}


def test_metadata_that_would_crowd_the_header_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_metadata, "MOST", 1000)
    write(tmp_path / "a.safetensors", 1, {"modelspec.title": "mine", "bloat": "x" * 900, "more": "y" * 300})
    write(tmp_path / "b.safetensors", 2, None)
    made = compiled(tmp_path, "* = linear(a, b)")
    (warning,) = made.diagnostics
    assert warning.code == "W0581"
    assert "`bloat`" in warning.message
    assert "more" not in warning.message
    made.run(tmp_path / "out.safetensors")
    assert header(tmp_path / "out.safetensors").keys() == {"format", "mergec", "modelspec.title", "more"}


def test_the_same_inputs_give_the_same_header(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 1, SAID)
    write(tmp_path / "b.safetensors", 2, None)
    first = compiled(tmp_path, "* = linear(a, b)").plan.outputs
    (tmp_path / "a.safetensors").touch()
    assert compiled(tmp_path, "* = linear(a, b)").plan.outputs == first
