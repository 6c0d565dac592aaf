"""Folders that lie: indexes and links that point outside, shards that disagree, configs that are no
configs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.numpy import save_file

ONE = {"a": np.zeros(2, np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, without an index; a third file lies outside."""
    inside = tmp_path / "model"
    inside.mkdir()
    save_file(ONE, inside / "one.safetensors")
    save_file({"b": ONE["a"]}, inside / "two.safetensors")
    save_file({"c": ONE["a"]}, tmp_path / "outside.safetensors")
    return inside


def refusal(folder: Path) -> tuple[str, str, str | None]:
    with pytest.raises(CatalogError) as caught:
        LocalCatalog().open(str(folder), revision=None, subfolder=None, near="r.mrg")
    return caught.value.code, caught.value.message, caught.value.file


def index(folder: Path, content: Any) -> str:
    path = folder / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../outside.safetensors",
        "..\\outside.safetensors",
        "./one.safetensors",
        "/outside.safetensors",
        "one.bin",
        "one\0.safetensors",
        "one\n.safetensors",
        "x/../one.safetensors",
        "x//one.safetensors",
    ],
)
def test_index_names_a_file_elsewhere(folder: Path, name: str) -> None:
    path = index(folder, {"weight_map": {"a": name}})
    shown = name.encode("unicode_escape").decode().replace("\\\\", "\\")
    assert refusal(folder) == (
        "E0432",
        f"index names `{shown}`, which is not a safetensors file inside the folder",
        path,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "JSON is not an object"),
        ("{}", "`weight_map` does not map tensor names to file names"),
        ('{"weight_map": {"a": 1}}', "`weight_map` does not map tensor names to file names"),
        ('{"weight_map": ' + "[" * 100_000, "JSON is nested too deeply"),
        ('{"weight_map": ' + "[" * 65 + "]" * 65 + "}", "JSON is nested more than 64 deep"),
    ],
)
def test_index_is_no_index(folder: Path, content: str, message: str) -> None:
    path = index(folder, content)
    assert refusal(folder) == ("E0431", message, path)


def test_missing_shard(folder: Path) -> None:
    path = index(folder, {"weight_map": {"a": "one.safetensors", "b": "three.safetensors", "c": "four.safetensors"}})
    assert refusal(folder) == ("E0433", "`four.safetensors` is missing, and 1 more files", path)


def test_tensor_in_another_shard(folder: Path) -> None:
    path = index(folder, {"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}})
    message = "the index puts tensor `a` in `two.safetensors`, but it is in `one.safetensors`"
    assert refusal(folder) == ("E0434", message, path)


def test_tensor_in_no_shard(folder: Path) -> None:
    path = index(folder, {"weight_map": {"a": "one.safetensors", "x\x07": "two.safetensors"}})
    message = r"the index puts tensor `x\x07` in `two.safetensors`, but it is in no file"
    assert refusal(folder) == ("E0434", message, path)


def test_tensor_in_two_files(folder: Path) -> None:
    save_file(ONE, folder / "two.safetensors")
    message = "tensor `a` is in both `one.safetensors` and `two.safetensors`"
    assert refusal(folder) == ("E0435", message, str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "model.safetensors.index.json"])
def test_link_out_of_the_folder(folder: Path, name: str) -> None:
    secret = folder.parent / "secret"
    secret.write_text('{"weight_map": {"a": "one.safetensors"}}')
    (folder / name).symlink_to(secret)
    assert refusal(folder) == ("E0408", f"`{name}` is a link that leaves the model's folder", str(folder / name))


def test_link_into_another_blobs_folder(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    save_file(ONE, blobs / ("0" * 64))
    (folder / "one.safetensors").unlink()
    (folder / "one.safetensors").symlink_to(blobs / ("0" * 64))
    assert refusal(folder)[0] == "E0408"


def test_link_within_the_folder_is_fine(folder: Path) -> None:
    (folder / "one.safetensors").rename(folder / "data")
    (folder / "one.safetensors").symlink_to("data")
    assert sorted(LocalCatalog().open(str(folder), revision=None, subfolder=None, near="r.mrg").tensors) == ["a", "b"]


def test_link_in_a_circle(folder: Path) -> None:
    (folder / "model.safetensors").symlink_to("model.safetensors")
    assert refusal(folder)[0] == "E0403"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "file is not UTF-8 at byte 0"),
        (b"[1]", "JSON is not an object"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a":' * 100_000, "JSON is nested too deeply"),
        (b'{"a":' * 64 + b"[]" + b"}" * 64, "JSON is nested more than 64 deep"),
        (b'{"a":"' + bytes(10 << 20) + b'"}', "file has 10485768 bytes, over the limit of 10485760"),
    ],
)
def test_config_is_no_config(folder: Path, content: bytes, message: str) -> None:
    path = folder / "config.json"
    path.write_bytes(content)
    assert refusal(folder) == ("E0430", message, str(path))


def test_config_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "config.json")
    assert refusal(folder) == ("E0430", "not a regular file", str(folder / "config.json"))


# --- sets of files that are not complete


MISSING = "by their names the weights are {} files, of which {} here"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model-1-of-2"], MISSING.format(2, "1 is")),
        (["model-00001-of-00004", "model-00004-of-00004"], MISSING.format(4, "2 are")),
        (["model-00000-of-00003", "model-00001-of-00003"], MISSING.format(3, "2 are")),
        (["w_1_of_3.fp16", "w_3_of_3.fp16"], MISSING.format(3, "2 are")),
        (["w.1.of.3", "w.3.of.3"], MISSING.format(3, "2 are")),
        (["w 1 Of 3", "w 3 Of 3"], MISSING.format(3, "2 are")),
        (["consolidated.01"], "`consolidated.01.safetensors` is here, but not `consolidated.00.safetensors`"),
        (["w-00001", "w-00003"], "`w-00003.safetensors` is here, but not `w-00002.safetensors`"),
        # those of two checkpoints, of which one is complete
        (["model-00001-of-00002", "model-00002-of-00002", "model-00003-of-00003"], MISSING.format(3, "1 is")),
        (["model-00001-of-00002", "model-00005-of-00002"], "`model-00005-of-00002.safetensors` is not one of 2 files"),
        (["model-00001-of-999999999"], MISSING.format(999999999, "1 is")),
    ],
)
def test_shards_that_are_missing(tmp_path: Path, names: list[str], message: str) -> None:
    for number, name in enumerate(names):
        save_file({f"t{number}": ONE["a"]}, tmp_path / f"{name}.safetensors")
    assert refusal(tmp_path) == ("E0460", message, str(tmp_path))


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model-00003-of-00007.safetensors")
    with pytest.raises(CatalogError) as caught:
        LocalCatalog().open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert caught.value.notes == (
        "missing: `model-00001-of-00007.safetensors`, `model-00002-of-00007.safetensors`,"
        " `model-00004-of-00007.safetensors` and 3 more",
    )


def test_an_index_of_some_of_the_shards(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model-00001-of-00003.safetensors")
    save_file({"b": ONE["a"]}, tmp_path / "model-00003-of-00003.safetensors")
    listed = {"a": "model-00001-of-00003.safetensors", "b": "model-00003-of-00003.safetensors"}
    index(tmp_path, {"weight_map": listed})
    message = "by their names the weights are 3 files, of which 2 are in the index"
    assert refusal(tmp_path) == ("E0460", message, str(tmp_path))


def test_pickled_shards_that_are_missing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(CatalogError) as caught:
        LocalCatalog(allow_pickle=True).open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert caught.value.code == "E0460"


@pytest.mark.parametrize(
    "names",
    [
        ["model-00001-of-00001"],
        ["x-00000-of-00002", "x-00001-of-00002"],
        ["best-of-3"],
        ["a-1-of-2", "a-2-of-2"],
        ["consolidated.00"],
        ["consolidated.00", "consolidated.01"],
        ["w-01", "w-02"],
        ["w-01"],
        ["w-15", "w-21"],
        ["epoch-0500"],
        ["a1", "a3"],
        ["sd_xl_1.0", "b-02"],
    ],
)
def test_sets_that_are_complete(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        save_file({f"t{number}": ONE["a"]}, tmp_path / f"{name}.safetensors")
    opened = LocalCatalog().open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert len(opened.tensors) == len(names)


def test_shards_beside_the_whole_model_are_passed_over(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "model.safetensors")
    save_file({"b": ONE["a"]}, tmp_path / "model-00001-of-00002.safetensors")
    assert list(LocalCatalog().open(str(tmp_path), revision=None, subfolder=None, near="r.mrg").tensors) == ["a"]


# --- weights in containers that are not read


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([".metadata", "__0_0.distcp", "config.json"], "distributed checkpoint"),
        (["pytorch_model_fsdp_0/__0_0.distcp", "optimizer.bin", "random_states_0.pkl"], "`pytorch_model_fsdp_0/__0_0"),
        (["global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest", "zero_to_fp32.py"], "DeepSpeed"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
        (["iter_10/mp_rank_00/model_optim_rng.pt", "latest_checkpointed_iteration.txt"], "Megatron"),
        ([".metadata", "config.json"], "distributed checkpoint"),
        (["weights.00.npz", "config.json"], "MLX"),
        (["model.Q4_K_M.gguf"], "GGUF"),
        (["tf_model.h5"], "TensorFlow"),
        (["flax_model.msgpack"], "Flax"),
        (["model.onnx"], "ONNX"),
        (["openvino_model.xml", "openvino_model.bin.part"], "OpenVINO"),
        (["model.nemo"], "NeMo"),
    ],
)
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_containers_are_named(tmp_path: Path, files: list[str], named: str, allow_pickle: bool) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(CatalogError) as caught:
        LocalCatalog(allow_pickle=allow_pickle).open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert caught.value.code == "E0462"
    assert named in caught.value.message
    assert caught.value.help


def test_states_of_deepspeed_by_themselves(tmp_path: Path) -> None:
    """Where pickles are allowed, one of them may well be read: it has the weights under a key."""
    torch = pytest.importorskip("torch")
    torch.save({"module": {"a": torch.zeros(2)}, "dp_world_size": 1}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(CatalogError) as caught:
        LocalCatalog().open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert caught.value.code == "E0462"
    assert "DeepSpeed" in caught.value.message
    opened = LocalCatalog(allow_pickle=True).open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    assert list(opened.tensors) == ["a"]


def test_pickles_beside_other_formats_are_the_weights(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (tmp_path / name).write_bytes(b"")
    assert refusal(tmp_path)[0] == "E0405"
