"""Checkpoints that PyTorch pickled give what the same ones give as safetensors."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import commands
import lora_adapters
import mergec
import pytest
import torch
from mergec.cli.main import main
from mergec.compiler.checkpoint.catalog import Checkpoint
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.formats.pickled.header import read_pickle
from mergec.runtime.native import backend
from pickled_files import unaligned
from safetensors.torch import load_file, save_file

Make = Callable[..., Path]
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
]  # fmt: skip


def stored(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a pickled file as its header says: dtype, shape and bytes."""
    raw = path.read_bytes()
    return {n: (t.dtype, t.shape, raw[t.start : t.end]) for n, t in read_pickle(str(path)).tensors.items()}


def as_safetensors(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The same of the same tensors, written by the safetensors library."""
    save_file({n: t.detach().contiguous().clone() for n, t in tensors.items()}, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    data = raw[8 + length :]
    return {n: (e["dtype"], tuple(e["shape"]), data[slice(*e["data_offsets"])]) for n, e in header.items()}


def saved(value: Any, path: Path, protocol: int = 2) -> Path:
    torch.save(value, path, pickle_protocol=protocol)
    return path


def opened(source: Path) -> Checkpoint:
    catalog = LocalCatalog(allow_pickle=True)
    return catalog.open(str(source), revision=None, subfolder=None, near="r.mrg")


def to_bin(folder: Path, to: Path, *, shards: int = 1) -> Path:
    """A copy of a checkpoint's folder with its weights pickled, as transformers used to write
    them."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = list(checkpoints.load(folder).items())
    if shards == 1:
        torch.save(dict(tensors), to / "pytorch_model.bin")
        return to
    listed = {}
    for k in range(shards):
        name = f"pytorch_model-{k + 1:05}-of-{shards:05}.bin"
        part = tensors[k * len(tensors) // shards : (k + 1) * len(tensors) // shards]
        torch.save(dict(part), to / name)
        listed |= {key: name for key, _ in part}
    (to / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return to


# --- what is in one file -------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_protocol(protocol: int, tmp_path: Path) -> None:
    tensors = {str(d).removeprefix("torch."): torch.arange(6).reshape(2, 3).to(d) for d in DTYPES}
    path = saved(tensors, tmp_path / "x.bin", protocol)
    assert stored(path) == as_safetensors(tensors, tmp_path / "x.safetensors")
    assert not read_pickle(str(path)).shared


def test_kinds_of_tensors(tmp_path: Path) -> None:
    big = torch.arange(24.0)
    tensors = {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "empty inside": torch.zeros(3, 0),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "buffer": torch.nn.Buffer(torch.randn(2)),
        "slice": big[4:10],
        "rows": big.reshape(6, 4)[2:4],
        "single column": big.reshape(24, 1)[:, 0],
        "odd stride of one": big.as_strided((1, 4), (99, 1)),
        "whole": big,
        "no gradient": torch.ones(2, requires_grad=True).detach(),
        "a\nname\x1b[31m": torch.ones(1),
    }
    path = saved(tensors, tmp_path / "x.bin")
    assert stored(path) == as_safetensors(tensors, tmp_path / "x.safetensors")


def test_a_parameter_with_attributes(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = "kept"  # type: ignore[attr-defined]
    assert stored(saved({"w": parameter}, tmp_path / "x.pt"))["w"][1] == (2,)


def test_a_state_dict_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    path = saved(module.state_dict(), tmp_path / "x.pth")
    assert stored(path) == as_safetensors(module.state_dict(), tmp_path / "x.safetensors")
    assert opened(path).passed_over == ()


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_a_training_checkpoint(key: str, tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    value = {"epoch": 3, "loss": 0.5, key: module.state_dict(), "optimizer": optimizer.state_dict(), "tags": {"a", "b"}}
    path = saved(value, tmp_path / "last.ckpt")
    assert stored(path) == as_safetensors(module.state_dict(), tmp_path / "x.safetensors")
    compiled = mergec.compile(f'let a = model("{path}")\n* = 2*a', device="cpu", allow_pickle=True)
    (found,) = compiled.diagnostics
    assert found.code == "W0574"
    assert found.message == ("what `a` has beside its weights is passed over: `epoch`, `loss`, `optimizer`, `tags`")


def test_large_archives_have_64_bit_ends(tmp_path: Path) -> None:
    """PyTorch writes them always; other writers where they must. Both are read."""
    path = saved({"w": torch.arange(4.0)}, tmp_path / "x.bin")
    assert b"PK\x06\x06" in path.read_bytes()
    before = stored(path)
    unaligned(path)
    assert b"PK\x06\x06" not in path.read_bytes()
    assert stored(path) == before


def test_64_bit_sizes_of_a_record(tmp_path: Path) -> None:
    path = saved({"w": torch.arange(4.0)}, tmp_path / "x.bin")
    before = stored(path)
    with zipfile.ZipFile(path) as z:
        records = {name: z.read(name) for name in z.namelist()}
    with zipfile.ZipFile(path, "w") as z:
        for name, data in records.items():
            with z.open(name, "w", force_zip64=True) as record:
                record.write(data)
    assert stored(path) == before


# --- merging -------------------------------------------------------------------------------------


def outputs(recipe: str, sources: Mapping[str, Path], out: Path) -> dict[str, bytes]:
    lets = "".join(f'let {name} = model("{path}")\n' for name, path in sources.items())
    mergec.compile(lets + recipe, device="cpu", allow_pickle=True).run(out)
    return {file.name: file.read_bytes() for file in out.iterdir() if file.suffix in (".safetensors", ".json")}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi-old", "t5"])
def test_a_folder(family: str, shards: int, checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    sources = {"base": checkpoint(family), "a": finetuned(family, 1)}
    pickled = {name: to_bin(path, tmp_path / name, shards=shards) for name, path in sources.items()}
    (pickled["base"] / "training_args.bin").write_bytes(b"\x80\x02c__main__\nx\n.")
    recipe = "* = base + 0.5*(a - base)"
    made = outputs(recipe, pickled, tmp_path / "from-bin")
    expected = outputs(recipe, sources, tmp_path / "from-safetensors")
    assert made["model.safetensors"] == expected["model.safetensors"]
    assert made["config.json"] == expected["config.json"]
    assert not [file for file in (tmp_path / "from-bin").iterdir() if ".bin" in file.name]
    if family != "phi-old":  # which transformers no longer loads
        assert checkpoints.logits(tmp_path / "from-bin").clean


@pytest.mark.parametrize("kernels", ["compiled", "portable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_unaligned_storages(dtype: torch.dtype, kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch pads its records so that numbers are aligned; others need not, and bytes are read
    from any place."""
    if kernels == "portable":
        monkeypatch.setattr(backend, "kernels", lambda: None)
    plain, pickled = {}, {}
    for seed, name in enumerate(("base", "a", "b")):
        generator = torch.Generator().manual_seed(seed)
        shapes = {"x": (301, 257), "y": (7,), "z": (2, 65, 101)}
        tensors = {k: torch.randn(s, generator=generator).to(dtype) for k, s in shapes.items()}
        plain[name] = tmp_path / f"{name}.safetensors"
        save_file(tensors, plain[name])
        pickled[name] = saved(tensors, tmp_path / f"{name}.bin")
        unaligned(pickled[name])
    starts = {t.start % 8 for path in pickled.values() for t in read_pickle(str(path)).tensors.values()}
    assert starts - {0}, "the test's own files are aligned"
    recipe = "x = ties(a, b, base=base, density=0.4)\ny = slerp(a, b, t=0.3)\nz = a"
    made = outputs(recipe, pickled, tmp_path / "from-bin")
    assert made["model.safetensors"] == outputs(recipe, plain, tmp_path / "from-plain")["model.safetensors"]


def test_safetensors_win(checkpoint: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("llama"), tmp_path / "both")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    made = outputs("* = a", {"a": folder}, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir() if ".bin" in file.name] == []
    assert made["model.safetensors"]


def test_a_folder_of_metas(tmp_path: Path) -> None:
    """`consolidated.00.pth` beside a params.json; a second part of the same tensors is refused."""
    tensors = {"tok_embeddings.weight": torch.randn(8, 4), "output.weight": torch.randn(8, 4)}
    saved(tensors, tmp_path / "consolidated.00.pth")
    assert list(opened(tmp_path).tensors) == list(tensors)
    saved(tensors, tmp_path / "consolidated.01.pth")
    with pytest.raises(mergec.CatalogError) as caught:
        opened(tmp_path)
    assert caught.value.code == "E0435"


# --- ties ----------------------------------------------------------------------------------------


def tied_llama(folder: Path, to: Path, **flags: object) -> Path:
    """A pickled llama whose head is its embedding, under both names and in one storage."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = checkpoints.load(folder)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(dict(sorted(tensors.items())), to / "pytorch_model.bin")
    if flags:
        checkpoints.edit_config(to, **flags)
    return to


@pytest.mark.parametrize("flag", [True, False])
def test_one_storage_is_one_tensor(flag: bool, checkpoint: Make, tmp_path: Path) -> None:
    plain = checkpoint("llama-tied")
    folder = tied_llama(plain, tmp_path / "bin", tie_word_embeddings=flag)
    compiled = mergec.compile(f'let a = model("{folder}")\n* = 2*a', device="cpu", allow_pickle=True)
    nodes = {o.name: o.node for o in compiled.compilation.graph.outputs}
    head, embed = "lm_head.weight", "model.embed_tokens.weight"
    compiled.run(tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    if flag:
        assert compiled.parameters == checkpoints.parameters(plain)
        assert dict(compiled.compilation.elaboration.ties) == {head: embed}
        assert head not in out
    else:
        # the config says that there are two, so there have to be
        assert nodes[head] is nodes[embed]
        assert torch.equal(out[head], out[embed])
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is flag
    assert checkpoints.logits(tmp_path / "out").clean


def test_names_for_one_range_in_an_unknown_family(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    path = saved({"enc.weight": weight, "dec.weight": weight, "part": weight[:2]}, tmp_path / "x.pt")
    assert opened(path).shared
    compiled = mergec.compile(f'let a = model("{path}")\n* = 2*a', device="cpu", allow_pickle=True)
    compiled.run(tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    # whoever loads it looks for both names
    assert made.keys() == {"enc.weight", "dec.weight", "part"}
    assert torch.equal(made["enc.weight"], 2 * weight)
    assert torch.equal(made["dec.weight"], 2 * weight)
    assert torch.equal(made["part"], 2 * weight[:2])
    nodes = {o.name: o.node for o in compiled.compilation.graph.outputs}
    assert nodes["enc.weight"] is nodes["dec.weight"]


def test_layers_that_share_can_still_be_merged_apart(tmp_path: Path) -> None:
    weight, other = torch.randn(4, 3), torch.randn(4, 3)
    names = [f"layers.{i}.w.weight" for i in range(3)]
    a = saved(dict.fromkeys(names, weight), tmp_path / "a.pt")
    b = saved({n: other + i for i, n in enumerate(names)}, tmp_path / "b.pt")
    made = {}
    for template in ("a", "b"):
        recipe = f'let a = model("{a}")\nlet b = model("{b}")\noutput(like={template})\n* = a\nlayers[1] = b\n'
        mergec.compile(recipe, device="cpu", allow_pickle=True).run(tmp_path / template)
        made[template] = load_file(tmp_path / template / "model.safetensors")
    assert torch.equal(made["b"]["layers.1.w.weight"], other + 1)
    assert torch.equal(made["a"]["layers.1.w.weight"], other + 1)
    assert torch.equal(made["b"]["layers.2.w.weight"], weight)


# --- adapters ------------------------------------------------------------------------------------


def test_an_adapter(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    factors = lora_adapters.factors(checkpoints.load(base), ["model.layers.0.self_attn.q_proj"])
    adapter = lora_adapters.write(tmp_path / "adapter", factors, r=4, lora_alpha=8)
    recipe = f'let base = model("{base}")\n* = base + lora("{adapter}")'
    mergec.compile(recipe, device="cpu").run(tmp_path / "plain")
    weights = adapter / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu")
    assert caught.value.diagnostics[0].code == "E0405"
    mergec.compile(recipe, device="cpu", allow_pickle=True).run(tmp_path / "pickled")
    made, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("pickled", "plain"))
    assert made == expected


# --- commands ------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x.weight": torch.arange(6.0).reshape(2, 3)}, "a.bin")
    Path("r.mrg").write_text('let a = model("a.bin")\n* = 2*a\n', "utf-8")
    assert main(["--check", "r.mrg"]) == 3
    refused = capfd.readouterr().err
    assert "E0405" in refused
    assert "`--allow-pickle`" in refused
    for words in (
        ("--check", "r.mrg"),
        ("--explain", "r.mrg"),
        ("r.mrg", "-o", "out"),
        ("inspect", "a.bin"),
        ("verify", "out", "--rerun"),
    ):
        assert main([*words, "--allow-pickle"]) == 0
    made = load_file("out/model.safetensors")["x.weight"]
    assert torch.equal(made, torch.tensor([[0.0, 2, 4], [6, 8, 10]]))
    assert re.search(r"^ *rerun +ok", capfd.readouterr().out, re.MULTILINE)
    main(["verify", "out", "--rerun"])
    assert re.search(r"^ *rerun +not checked", capfd.readouterr().out, re.MULTILINE)
    assert main(["inspect", "a.bin"]) == 3


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(3)}, tmp_path / "a.bin")
    (tmp_path / "r.mrg").write_text('let a = model("a.bin")\n* = 2*a\n')
    start = "from mergec.cli.main import main; main(); assert 'torch' not in sys.modules"
    done = commands.mergec("--check", "r.mrg", "--allow-pickle", folder=tmp_path, start=start)
    assert done.returncode == 0, done.stderr


def test_infinities_are_traced_to_a_pickle(tmp_path: Path) -> None:
    path = saved({"x": torch.tensor([1.0, float("inf")])}, tmp_path / "a.bin")
    recipe = f'let a = model("{path}")\noutput(on_nonfinite="error")\n* = 2*a'
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu", allow_pickle=True).run(tmp_path / "out")
    assert any(f"`{path}` has 1 in `x`" in note for note in caught.value.diagnostics[0].notes)
