"""Local checkpoints: which files are used, which are refused, and with what words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mergec.compiler.checkpoint.catalog import CatalogError, Checkpoint
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.numpy import save_file


def ones(*names: str) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.full((2, 3), i, np.float32) for i, name in enumerate(names)}


def write_index(folder: Path, weight_map: Mapping[str, Any]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder in Hugging Face layout, one file."""
    folder = tmp_path / "math-1b"
    folder.mkdir()
    save_file(ones("embed", "head"), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "llama", "limits": [0.0, Infinity]}')
    (folder / "tokenizer.json").write_text('{"é": 1}', encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (folder / ".gitattributes").write_text("")
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    save_file(ones("a", "b"), folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file(ones("c"), folder / "model-00002-of-00002.safetensors", {"note": "x"})
    first, last = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write_index(folder, {"a": first, "b": first, "c": last})
    return folder


def opened(source: str | Path, near: str | Path = "recipe.mrg", subfolder: str | None = None) -> Checkpoint:
    return LocalCatalog().open(str(source), revision=None, subfolder=subfolder, near=str(near))


def refused(source: str | Path, near: str | Path = "recipe.mrg", subfolder: str | None = None) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        opened(source, near, subfolder)
    return caught.value


def test_folder(model: Path) -> None:
    checkpoint = opened("./math-1b", model.parent / "recipe.mrg")
    status = (model / "model.safetensors").stat()
    assert checkpoint.location == str(model)
    assert [(f.path, f.size, f.mtime_ns) for f in checkpoint.files] == [
        (str(model / "model.safetensors"), status.st_size, status.st_mtime_ns)
    ]
    assert sorted(checkpoint.tensors) == ["embed", "head"]
    assert checkpoint.config == {"model_type": "llama", "limits": [0.0, float("inf")]}
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.extras == ("config.json", "tokenizer.json")


def test_shards(sharded: Path) -> None:
    checkpoint = opened(sharded)
    assert [os.path.basename(f.path) for f in checkpoint.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert {name: t.file for name, t in checkpoint.tensors.items()} == {"a": 0, "b": 0, "c": 1}
    assert checkpoint.metadata == {"format": "pt", "note": "x"}
    assert checkpoint.config is None
    assert checkpoint.extras == ()


def test_single_file(model: Path) -> None:
    checkpoint = opened("math-1b/model.safetensors", model.parent / "recipe.mrg")
    assert checkpoint.location == str(model / "model.safetensors")
    assert (checkpoint.config, checkpoint.extras) == (None, ())


def test_loose_files_without_adapters(tmp_path: Path) -> None:
    save_file(ones("b"), tmp_path / "two.safetensors")
    save_file(ones("a"), tmp_path / "one.safetensors")
    save_file(ones("b"), tmp_path / "adapter_model.safetensors")
    assert [os.path.basename(f.path) for f in opened(tmp_path).files] == ["one.safetensors", "two.safetensors"]


def test_index_of_another_name(tmp_path: Path) -> None:
    save_file(ones("a"), tmp_path / "diffusion_pytorch_model-1.safetensors")
    save_file(ones("a"), tmp_path / "other.safetensors")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "diffusion_pytorch_model-1.safetensors"}}))
    assert [os.path.basename(f.path) for f in opened(tmp_path).files] == ["diffusion_pytorch_model-1.safetensors"]


def test_subfolder(model: Path) -> None:
    assert opened(model.parent, subfolder="math-1b").location == str(model)
    error = refused(model.parent, subfolder="math-2b")
    assert (error.code, error.file, error.help) == ("E0401", None, ("did you mean `math-1b`?",))
    assert refused(model, subfolder="../math-1b").code == "E0407"


def test_home_is_expanded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert opened("~/math-1b").location == str(model)


def test_opened_once(model: Path) -> None:
    catalog = LocalCatalog()
    first = catalog.open(str(model), revision=None, subfolder=None, near="r.mrg")
    assert catalog.open(str(model) + "/", revision=None, subfolder=None, near="r.mrg") is first


def test_hub_cache_links(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--acme--tiny"
    snapshot, blobs = repository / "snapshots" / "9f2c1e", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file(ones("a"), blobs / ("0" * 64))
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{'0' * 64}")
    checkpoint = opened(snapshot)
    assert checkpoint.files[0].path == str(snapshot / "model.safetensors")
    assert list(checkpoint.tensors) == ["a"]


def test_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.integers(0, 256, 3_000_001, np.uint8)
    late = big.copy()
    late[2_999_999] ^= 1
    save_file({"big": big, "again": big.copy(), "late": late}, tmp_path / "a.safetensors")
    save_file({"shaped": big.reshape(1, -1), "short": big[:-1].copy(), "none": big[:0]}, tmp_path / "b.safetensors")
    catalog = LocalCatalog()
    checkpoint = catalog.open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    answers = {name: catalog.same_bytes(checkpoint, "big", name) for name in sorted(checkpoint.tensors)}
    assert answers == {"again": True, "big": True, "late": False, "none": False, "shaped": True, "short": False}
    assert catalog.same_bytes(checkpoint, "none", "none") is True
    one = catalog.open(str(tmp_path / "b.safetensors"), revision=None, subfolder=None, near="r.mrg")
    assert catalog.same_bytes(checkpoint, "big", "shaped", other=one) is True
    assert catalog.same_bytes(checkpoint, "late", "shaped", other=one) is False
    os.utime(tmp_path / "a.safetensors", ns=(1, 1))
    with pytest.raises(CatalogError, match="file has changed since its header was read") as caught:
        catalog.same_bytes(checkpoint, "big", "again")
    assert caught.value.code == "E0409"


@pytest.mark.parametrize("shape", [(3, 5), (1, 4), (4, 1), (7, 400_001)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_transposed_bytes(shape: tuple[int, int], dtype: type, tmp_path: Path) -> None:
    if shape[1] > 1000 and dtype is not np.float16:
        return
    matrix = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    turned = np.ascontiguousarray(matrix.T)
    late = turned.copy()
    late[-1, -1] += 1
    tensors = {"m": matrix, "turned": turned, "late": late, "cut": np.ascontiguousarray(turned.reshape(-1)[:-1])}
    save_file(tensors | {"deep": matrix.reshape(*shape, 1, 1)}, tmp_path / "a.safetensors")
    catalog = LocalCatalog()
    checkpoint = catalog.open(str(tmp_path), revision=None, subfolder=None, near="r.mrg")
    answers = {name: catalog.same_bytes(checkpoint, "m", name, turned=True) for name in ("turned", "late", "cut")}
    assert answers == {"turned": True, "late": False, "cut": False}
    assert catalog.same_bytes(checkpoint, "deep", "turned", turned=True) is True
    assert catalog.same_bytes(checkpoint, "m", "m", turned=True) is (1 in shape and shape[0] == shape[-1])


def test_documents(model: Path) -> None:
    catalog = LocalCatalog()
    checkpoint = catalog.open(str(model), revision=None, subfolder=None, near="r.mrg")
    assert catalog.document(checkpoint, "tokenizer.json") == '{"é": 1}'
    assert catalog.document(checkpoint, "LICENSE") is None
    assert catalog.document(checkpoint, "../math-1b/tokenizer.json") is None
    (model / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(CatalogError, match="file is not UTF-8 at byte 0") as caught:
        catalog.document(checkpoint, "tokenizer.json")
    assert caught.value.code == "E0436"


def test_library(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.mrg").write_text("def f(x) = x\n")
    catalog = LocalCatalog()
    path, text = catalog.library("lib/mine.mrg", near=str(tmp_path / "recipe.mrg"))
    assert (path, text) == (str(tmp_path / "lib" / "mine.mrg"), "def f(x) = x\n")
    with pytest.raises(CatalogError) as caught:
        catalog.library("lib/mien.mrg", near=str(tmp_path / "recipe.mrg"))
    assert (caught.value.code, caught.value.help) == ("E0402", ("did you mean `lib/mine.mrg`?",))


def test_missing_path_offers_near_names(model: Path) -> None:
    error = refused("./math-lb", model.parent / "recipe.mrg")
    assert (error.code, error.message, error.file) == ("E0401", "no checkpoint at `./math-lb`", None)
    assert error.help == ("did you mean `./math-1b`?",)


def test_missing_folder(tmp_path: Path) -> None:
    error = refused("./no/such", tmp_path / "recipe.mrg")
    assert (error.code, error.help) == ("E0401", (f"there is no folder `{tmp_path / 'no'}`",))


def test_hub_id(tmp_path: Path) -> None:
    error = refused("meta-llama/Llama-3.2-1B", tmp_path / "recipe.mrg")
    assert error.code == "E0404"
    assert error.help == (
        "download it with `hf download meta-llama/Llama-3.2-1B --local-dir Llama-3.2-1B` "
        'and write `model("./Llama-3.2-1B")`',
    )
    asked = LocalCatalog().open, LocalCatalog().adapter
    for ask in asked:
        with pytest.raises(CatalogError) as caught:
            ask("org/name", revision="9f 2c", subfolder=None, near=str(tmp_path / "recipe.mrg"))
        assert caught.value.code == "E0404"
        assert "`hf download org/name --local-dir name --revision '9f 2c'`" in caught.value.help[0]


def test_what_is_local_has_no_revisions(model: Path, tmp_path: Path) -> None:
    for source in (model, model / "model.safetensors"):
        for ask in (LocalCatalog().open, LocalCatalog().adapter):
            with pytest.raises(CatalogError) as caught:
                ask(str(source), revision="main", subfolder=None, near=str(tmp_path / "recipe.mrg"))
            assert (caught.value.code, caught.value.file) == ("E0464", None)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").write_bytes(b"")
    assert refused(tmp_path).code == "E0406"
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    error = refused(tmp_path)
    assert (error.code, error.message) == (
        "E0405",
        "weights are in pickle format (`pytorch_model.bin`), which can run code when it is read",
    )
    assert refused(tmp_path / "pytorch_model.bin").code == "E0405"


def test_folders_without_weights(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "E0406"
    save_file(ones("b"), tmp_path / "adapter_model.safetensors")
    assert "adapter" in refused(tmp_path).help[0]


def test_other_formats(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    error = refused(tmp_path / "model.gguf")
    assert (error.code, error.message) == ("E0407", "`model.gguf` is not a safetensors file")


def test_starting_needs_no_torch_and_no_hub() -> None:
    code = (
        "import sys, mergec.runtime.catalog.local, mergec.runtime.output.target, mergec.runtime.output.writer\n"
        "print([m for m in ('torch', 'safetensors', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
