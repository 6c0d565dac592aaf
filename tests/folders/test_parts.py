"""Folders below a checkpoint's that have weights of their own: modules of sentence-transformers and
components of pipelines, by hand. `tests/extras` has the same with the libraries themselves."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from mergec.grammar.diagnostic import MergecError
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.resume import keeper
from safetensors.torch import load_file, save_file
from stopping import Stop

Tensors = dict[str, torch.Tensor]
STEM = "diffusion_pytorch_model"


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def put(path: Path, tensors: Tensors, **config: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})
    if config:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


def embedder(folder: Path, seed: int, dense: tuple[int, int] | None = (3, 4)) -> dict[str, Tensors]:
    """A model of sentence-transformers; its tensors by folder."""
    shapes = {"embeddings.word_embeddings.weight": (9, 4), "encoder.layer.0.output.dense.weight": (4, 6)}
    made = {"": drawn(shapes, seed)}
    put(folder / "model.safetensors", made[""], model_type="odd", hidden_size=4)
    modules = ["", "1_Pooling", *(["2_Dense"] if dense else []), "3_Normalize"]
    listed = [{"idx": k, "name": str(k), "path": path, "type": "x"} for k, path in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "3_Normalize").mkdir()
    if dense:
        made["2_Dense"] = drawn({"linear.weight": dense, "linear.bias": dense[:1]}, seed + 50)
        put(folder / "2_Dense/model.safetensors", made["2_Dense"], in_features=dense[1], out_features=dense[0])
    return made


COMPONENTS = {"unet": STEM, "vae": STEM, "text_encoder": "model"}


def pipeline(folder: Path, seed: int, without: str = "") -> dict[str, Tensors]:
    """A pipeline whose components have tensors of the same names."""
    made = {}
    for k, (name, stem) in enumerate(COMPONENTS.items()):
        if name != without:
            made[name] = drawn({"conv_in.weight": (4, 3, 2), "mid.0.weight": (5, 5), "mid.1.weight": (5, 5)}, seed + k)
            put(folder / name / f"{stem}.safetensors", made[name], torch_dtype="float32")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_text('{"a": 0}')
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    (folder / "safety_checker").mkdir()
    index = {"_class_name": "P", "_diffusers_version": "0", "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {name: ["diffusers", "X"] for name in made} | {"tokenizer": ["transformers", "T"], "absent": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return made


def files(folder: Path) -> list[str]:
    return sorted(os.path.relpath(Path(at) / name, folder) for at, _, names in os.walk(folder) for name in names)


def assert_mean(out: Path, one: dict[str, Tensors], two: dict[str, Tensors], share: float = 0.5) -> None:
    """The weights in each folder of the output are the mean, computed in float64."""
    for folder, tensors in one.items():
        found: Tensors = {}
        for file in sorted((out / folder).glob("*.safetensors")):
            found |= load_file(file)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            wanted = (1 - share) * tensor.double() + share * two[folder][name].double()
            torch.testing.assert_close(found[name].double(), wanted, atol=1e-6, rtol=0)


def recipe(folder: Path, rest: str, more: str = "") -> str:
    return f'let a = model("{folder}/a"{more})\nlet b = model("{folder}/b"{more})\n{rest}'


def compiled(text: str, **options: Any) -> mergec.Compiled:
    return mergec.compile(text, device="cpu", **options)


def codes(caught: pytest.ExceptionInfo[MergecError]) -> list[str]:
    return [d.code for d in caught.value.diagnostics]


# --- modules of sentence-transformers ------------------------------------------------------------


def test_modules_with_weights_are_merged_and_others_copied(tmp_path: Path) -> None:
    a, b = embedder(tmp_path / "a", 1), embedder(tmp_path / "b", 2)
    made = compiled(recipe(tmp_path, "* = linear(a, b, weight=[0.25, 0.75])"))
    assert not made.diagnostics
    made.run(tmp_path / "out")
    assert_mean(tmp_path / "out", a, b, 0.75)
    assert files(tmp_path / "out") == [
        "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "README.md", "config.json",
        "mergec.json", "model.safetensors", "modules.json",
    ]  # fmt: skip
    record = json.loads((tmp_path / "out/mergec.json").read_text())
    assert set(record["weights"]) == {"model.safetensors", "2_Dense/model.safetensors"}
    assert {"2_Dense.linear.weight", "2_Dense.linear.bias"} < set(record["tensors"])
    read = ["model.safetensors", "2_Dense/model.safetensors"]
    assert [[file["name"] for file in each["files"]] for each in record["inputs"]] == [read, read]
    assert 'library_name: "sentence-transformers"' in (tmp_path / "out/README.md").read_text()


def test_a_module_by_its_place(tmp_path: Path) -> None:
    a, b = embedder(tmp_path / "a", 1), embedder(tmp_path / "b", 2)
    compiled(recipe(tmp_path, '* = a\n"2_Dense.*" = b')).run(tmp_path / "out")
    assert torch.equal(
        load_file(tmp_path / "out/2_Dense/model.safetensors")["linear.bias"], b["2_Dense"]["linear.bias"]
    )
    own = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(own[name], tensor) for name, tensor in a[""].items())


@pytest.mark.parametrize("dense", [None, (5, 4)])
def test_a_module_that_others_lack_is_the_templates(dense: tuple[int, int] | None, tmp_path: Path) -> None:
    embedder(tmp_path / "a", 1)
    embedder(tmp_path / "b", 2, dense)
    made = compiled(recipe(tmp_path, "output(like=a)\n* = linear(a, b)"))
    assert [d.code for d in made.diagnostics] == ["W0596"]
    made.run(tmp_path / "out")
    kept = (tmp_path / "out/2_Dense/model.safetensors").read_bytes()
    assert kept == (tmp_path / "a/2_Dense/model.safetensors").read_bytes()
    assert json.loads((tmp_path / "out/2_Dense/config.json").read_text())["out_features"] == 3
    assert mergec.verify(tmp_path / "out", rerun="all").ok
    # what was copied as it is counts for a later run as well
    assert compiled(recipe(tmp_path, "output(like=a)\n* = linear(a, b)")).run(tmp_path / "out").unchanged
    (tmp_path / "out/2_Dense/model.safetensors").write_bytes(kept[:-4] + b"abcd")
    assert not mergec.verify(tmp_path / "out").ok


def test_a_template_without_the_module(tmp_path: Path) -> None:
    embedder(tmp_path / "a", 1, None)
    embedder(tmp_path / "b", 2)
    made = compiled(recipe(tmp_path, "output(like=a)\n* = linear(a, b)"))
    assert [d.code for d in made.diagnostics] == ["W0503"]
    made.run(tmp_path / "out")
    assert "2_Dense/model.safetensors" not in files(tmp_path / "out")


def test_modules_of_a_router(tmp_path: Path) -> None:
    """Its documents name folders one further down."""
    made = {}
    for seed, name in enumerate("ab"):
        folder = tmp_path / name
        own = embedder(folder, seed)
        (folder / "1_Pooling/router_config.json").write_text(json.dumps({"types": {"query_0_X": "x", "../../b": "x"}}))
        own["1_Pooling/query_0_X"] = drawn({"weight": (2, 2)}, seed + 9)
        put(folder / "1_Pooling/query_0_X/model.safetensors", own["1_Pooling/query_0_X"], kind="x")
        made[name] = own
    compiled(recipe(tmp_path, "* = linear(a, b)")).run(tmp_path / "out")
    assert_mean(tmp_path / "out", made["a"], made["b"])
    assert (tmp_path / "out/1_Pooling/query_0_X/config.json").exists()


def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As old versions of sentence-transformers saved it: nothing lies in the folder itself."""
    made = {}
    for seed, name in enumerate("ab"):
        made[name] = {"0_Transformer": drawn({"w": (2, 2)}, seed)}
        put(tmp_path / name / "0_Transformer/model.safetensors", made[name]["0_Transformer"], model_type="bert")
        (tmp_path / name / "modules.json").write_text('[{"path": "0_Transformer"}]')
    compiled(recipe(tmp_path, "* = linear(a, b)")).run(tmp_path / "out")
    assert_mean(tmp_path / "out", made["a"], made["b"])


# --- pipelines of diffusers ----------------------------------------------------------------------


@pytest.mark.parametrize("size", ["", 'output(shard_size="250B")\n'])
def test_each_component_is_merged_and_others_are_copied(size: str, tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    # what many repositories have beside it, and is no part of it
    put(tmp_path / "a/sd-v1-5.safetensors", drawn({"w": (2, 2)}, 3))
    put(tmp_path / "a/unet/diffusion_pytorch_model.non_ema.safetensors", drawn({"w": (2, 2)}, 4))
    compiled(recipe(tmp_path, size + "* = linear(a, b)")).run(tmp_path / "out")
    assert_mean(tmp_path / "out", a, b)
    beside = [f for f in files(tmp_path / "out") if not f.endswith((".safetensors", ".index.json"))]
    assert beside == [
        "README.md", "mergec.json", "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
        "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json", "vae/config.json",
    ]  # fmt: skip
    if size:
        index = json.loads((tmp_path / f"out/vae/{STEM}.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(a["vae"])
        assert all((tmp_path / "out/vae" / file).exists() for file in index["weight_map"].values())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in a["vae"].values())
    assert mergec.verify(tmp_path / "out", rerun="all").ok


def test_components_by_their_places(tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    text = "* = a\nunet = linear(a, b)\nvae.mid[1] = b\nexpect shape(unet.conv_in) == [4, 3, 2]"
    compiled(recipe(tmp_path, text)).run(tmp_path / "out")
    assert_mean(tmp_path / "out", {"unet": a["unet"]}, b)
    vae = load_file(tmp_path / f"out/vae/{STEM}.safetensors")
    assert torch.equal(vae["mid.1.weight"], b["vae"]["mid.1.weight"])
    assert torch.equal(vae["mid.0.weight"], a["vae"]["mid.0.weight"])


def test_a_component_that_one_lacks_is_the_templates(tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11, without="vae")
    made = compiled(recipe(tmp_path, "* = linear(a, b)"))
    assert [d.code for d in made.diagnostics] == ["W0596"]
    made.run(tmp_path / "out")
    assert_mean(tmp_path / "out", {k: v for k, v in a.items() if k != "vae"}, b)
    assert_mean(tmp_path / "out", {"vae": a["vae"]}, a)


def test_a_component_of_another_shape_is_an_error(tmp_path: Path) -> None:
    """The template's would be nobody's merge."""
    pipeline(tmp_path / "a", 1)
    pipeline(tmp_path / "b", 11)
    put(tmp_path / f"b/unet/{STEM}.safetensors", drawn({"conv_in.weight": (5, 3, 2), "mid.0.weight": (5, 5)}, 1))
    with pytest.raises(MergecError) as caught:
        compiled(recipe(tmp_path, "* = linear(a, b)"))
    assert set(codes(caught)) == {"E0306", "E0307"}


def test_a_statement_about_a_part_says_whose_it_is(tmp_path: Path) -> None:
    a, _ = embedder(tmp_path / "a", 1), embedder(tmp_path / "b", 2, None)
    made = compiled(recipe(tmp_path, 'output(like=a)\n* = linear(a, b)\n"2_Dense.*" = 2*a'))
    assert not made.diagnostics
    made.run(tmp_path / "out")
    found = load_file(tmp_path / "out/2_Dense/model.safetensors")
    assert all(torch.equal(found[name], 2 * tensor) for name, tensor in a["2_Dense"].items())


def test_two_single_files_of_image_models_are_merged_as_any_other(tmp_path: Path) -> None:
    made = {}
    for seed, name in enumerate("ab"):
        made[name] = {"": drawn({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}, seed)}
        put(tmp_path / f"{name}.safetensors", made[name][""])
    text = f'let a = model("{tmp_path}/a.safetensors")\nlet b = model("{tmp_path}/b.safetensors")\n* = linear(a, b)'
    compiled(text).run(tmp_path / "out")
    assert_mean(tmp_path / "out", made["a"], made["b"])


def test_a_component_that_lies_elsewhere(tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    lets = f'let a = model("{tmp_path}/a")\nlet u = model("{tmp_path}/b/unet", rename={{"*": "unet.*"}})\n'
    made = compiled(lets + "* = a\nunet = linear(a, u)")
    assert not made.diagnostics
    made.run(tmp_path / "out")
    assert_mean(tmp_path / "out", {"unet": a["unet"]}, b)
    assert_mean(tmp_path / "out", {name: a[name] for name in ("vae", "text_encoder")}, a)
    # what the errors say leads there
    for source, said in ((lets, "it has `unet` alone"), (lets.replace(', rename={"*": "unet.*"}', ""), "it is what")):
        with pytest.raises(MergecError) as caught:
            compiled(source + "* = linear(a, u)")
        assert codes(caught) == ["E0478"]
        (help,) = caught.value.diagnostics[0].help
        assert help.startswith(said)
        assert help.endswith("in a statement of its own: `unet = …`")
    assert f'`model("{tmp_path}/b/unet", rename={{"*": "unet.*"}})`' in help


def test_masks_differ_between_components_of_the_same_names(tmp_path: Path) -> None:
    """A mask is keyed by the tensor's whole name, and a component's tensors have that of the
    component before theirs."""
    pipeline(tmp_path / "a", 1)
    pipeline(tmp_path / "b", 11)
    compiled(recipe(tmp_path, "* = where(keep(b, 0.5), a, 0)")).run(tmp_path / "out")
    unet, vae = (load_file(tmp_path / f"out/{name}/{STEM}.safetensors")["mid.0.weight"] for name in ("unet", "vae"))
    assert not torch.equal(unet == 0, vae == 0)


def test_a_component_that_is_quantised_is_only_copied(tmp_path: Path) -> None:
    """Its config alone says so: bits can be packed in any dtype."""
    pipeline(tmp_path / "a", 1)
    pipeline(tmp_path / "b", 11)
    for name in "ab":
        (tmp_path / name / "unet/config.json").write_text(
            json.dumps({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
        )
    with pytest.raises(MergecError) as caught:
        compiled(recipe(tmp_path, "* = linear(a, b)"))
    assert codes(caught) == ["E0456"]
    compiled(recipe(tmp_path, "* = a")).run(tmp_path / "out")


def test_the_dtype_that_a_components_config_says(tmp_path: Path) -> None:
    pipeline(tmp_path / "a", 1)
    pipeline(tmp_path / "b", 11)
    compiled(recipe(tmp_path, 'output(dtype="bfloat16")\n* = linear(a, b)')).run(tmp_path / "out")
    assert json.loads((tmp_path / "out/text_encoder/config.json").read_text()) == {"torch_dtype": "bfloat16"}
    assert mergec.verify(tmp_path / "out").ok
    (tmp_path / "out/text_encoder/config.json").write_text("{}")
    assert not mergec.verify(tmp_path / "out").ok


# --- promises that hold in folders below too -----------------------------------------------------


@pytest.mark.parametrize("damage", ["byte", "gone", "index", "strange", "config"])
def test_verify_finds_what_is_wrong_below(damage: str, tmp_path: Path) -> None:
    pipeline(tmp_path / "a", 1)
    pipeline(tmp_path / "b", 11)
    out = tmp_path / "out"
    compiled(recipe(tmp_path, 'output(shard_size="250B")\n* = linear(a, b)')).run(out)
    assert mergec.verify(out).ok
    weights = sorted((out / "unet").glob("*.safetensors"))
    match damage:
        case "byte":
            raw = weights[0].read_bytes()
            weights[0].write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        case "gone":
            weights[-1].unlink()
        case "index":
            (out / f"unet/{STEM}.safetensors.index.json").unlink()
        case "strange":
            put(out / "unet/more.safetensors", drawn({"more": (2,)}, 1))
        case "config":
            (out / "scheduler/scheduler_config.json").write_text("{}")
    assert not mergec.verify(out).ok


def test_a_run_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    text = recipe(tmp_path, "* = linear(a, b)")
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        mergec.run(compiled(text, lanes=1).plan, tmp_path / "out", progress=Stop(6, cancel), cancel=cancel)
    assert (tmp_path / ".out.partial").exists()
    report = compiled(text).run(tmp_path / "out")
    assert report.resumed > 0
    assert_mean(tmp_path / "out", a, b)
    assert mergec.verify(tmp_path / "out").ok
    assert not (tmp_path / ".out.partial").exists()


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    text = recipe(tmp_path, "* = linear(a, b)")
    compiled(text).run(tmp_path / "out")
    assert compiled(text).run(tmp_path / "out").unchanged
    before = os.stat(tmp_path / f"out/unet/{STEM}.safetensors").st_ino
    b["vae"] = drawn({name: tuple(t.shape) for name, t in b["vae"].items()}, 99)
    put(tmp_path / f"b/vae/{STEM}.safetensors", b["vae"])
    report = compiled(text).run(tmp_path / "out", force=True)
    assert report.reused == 6
    assert os.stat(tmp_path / f"out/unet/{STEM}.safetensors").st_ino == before
    assert_mean(tmp_path / "out", a, b)
    assert mergec.verify(tmp_path / "out").ok


def test_an_output_is_an_input_again(tmp_path: Path) -> None:
    a, b = pipeline(tmp_path / "a", 1), pipeline(tmp_path / "b", 11)
    compiled(recipe(tmp_path, "* = linear(a, b)")).run(tmp_path / "out")
    compiled(f'let a = model("{tmp_path}/out")\n* = a').run(tmp_path / "again")
    assert_mean(tmp_path / "again", a, b)
    kept = ("README.md", "mergec.json")
    one, two = ([f for f in files(tmp_path / name) if f not in kept] for name in ("out", "again"))
    assert one == two


def test_one_file_can_hold_no_parts(tmp_path: Path) -> None:
    pipeline(tmp_path / "a", 1)
    with pytest.raises(MergecError) as caught:
        compiled(f'let a = model("{tmp_path}/a")\n* = a', single=True)
    assert codes(caught) == ["E0485"]
    compiled(f'let a = model("{tmp_path}/a", subfolder="unet")\n* = a', single=True).run(tmp_path / "unet.safetensors")


# --- folders that are hostile, or odd ------------------------------------------------------------


@pytest.mark.parametrize("path", ["../b", "/etc", "..", ".", "a/../../b", "a\\b", "a\0b", ".hidden", 3, None, ["x"]])
def test_a_module_elsewhere_is_none(path: Any, tmp_path: Path) -> None:
    embedder(tmp_path / "b", 2)
    embedder(tmp_path / "a", 1, None)
    (tmp_path / "a/.hidden").mkdir()
    (tmp_path / "a/modules.json").write_text(json.dumps([{"path": ""}, {"path": path}, 5]))
    made = compiled(f'let a = model("{tmp_path}/a")\n* = a')
    made.run(tmp_path / "out")
    assert [f for f in files(tmp_path / "out") if "/" in f] == []


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    embedder(tmp_path / "a", 1, None)
    embedder(tmp_path / "b", 2)
    (tmp_path / "a/2_Dense").symlink_to(tmp_path / "b/2_Dense")
    (tmp_path / "a/modules.json").write_text('[{"path": ""}, {"path": "2_Dense"}]')
    with pytest.raises(MergecError) as caught:
        compiled(f'let a = model("{tmp_path}/a")\n* = a')
    assert codes(caught) == ["E0408"]


def test_a_snapshot_in_the_hubs_cache(tmp_path: Path) -> None:
    """It consists of links into the folder of blobs beside it."""
    a = pipeline(tmp_path / "plain", 1)
    repository = tmp_path / "models--org--pipe"
    snapshot = repository / "snapshots/abc"
    (repository / "blobs").mkdir(parents=True)
    for number, name in enumerate(files(tmp_path / "plain")):
        blob = repository / "blobs" / f"{number:040x}"
        (tmp_path / "plain" / name).rename(blob)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    compiled(f'let a = model("{snapshot}")\n* = 0*a + a').run(tmp_path / "out")
    assert_mean(tmp_path / "out", a, a)
    assert (tmp_path / "out/tokenizer/vocab.json").is_file()
    assert not (tmp_path / "out/tokenizer/vocab.json").is_symlink()
    # a link to another place is none of the cache's
    (tmp_path / "secret").write_text("{}")
    (snapshot / "tokenizer/vocab.json").unlink()
    (snapshot / "tokenizer/vocab.json").symlink_to(tmp_path / "secret")
    with pytest.raises(MergecError) as caught:
        compiled(f'let a = model("{snapshot}")\n* = a')
    assert codes(caught) == ["E0408"]


@pytest.mark.parametrize(
    ("name", "text"), [("modules.json", "["), ("model_index.json", "{]"), ("modules.json", "[" * 99_999)]
)
def test_a_document_that_is_no_json(name: str, text: str, tmp_path: Path) -> None:
    embedder(tmp_path / "a", 1)
    (tmp_path / "a" / name).write_text(text)
    with pytest.raises(MergecError) as caught:
        compiled(f'let a = model("{tmp_path}/a")\n* = a')
    assert codes(caught) == ["E0436"]


def test_a_tensor_that_is_called_as_one_of_a_part(tmp_path: Path) -> None:
    embedder(tmp_path / "a", 1)
    put(tmp_path / "a/model.safetensors", drawn({"2_Dense.linear.weight": (2, 2)}, 1))
    with pytest.raises(MergecError) as caught:
        compiled(f'let a = model("{tmp_path}/a")\n* = a')
    assert codes(caught) == ["E0435"]


def test_a_component_in_a_form_that_is_not_read(tmp_path: Path) -> None:
    pipeline(tmp_path / "a", 1, without="vae")
    (tmp_path / "a/vae").mkdir()
    index = json.loads((tmp_path / "a/model_index.json").read_text())
    (tmp_path / "a/model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "V"]}))
    for name, code in (("diffusion_flax_model.msgpack", "E0462"), (f"{STEM}.bin", "E0405")):
        (tmp_path / "a/vae" / name).write_bytes(b"x")
        with pytest.raises(MergecError) as caught:
            compiled(f'let a = model("{tmp_path}/a")\n* = a')
        assert codes(caught) == [code]
        (tmp_path / "a/vae" / name).unlink()
