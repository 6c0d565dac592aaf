"""Every recipe of examples/ and benchmarks/ and every method of the standard library compiles and
runs, on tiny checkpoints."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import lora_adapters
import mergec
import pytest
import torch
from checkpoints import load, make
from mergec.compiler.checkpoint.catalog import Checkpoint
from mergec.compiler.evaluate.names import bound_and_free
from mergec.compiler.evaluate.standard_library import Library, standard_module, standard_texts
from mergec.compiler.terms.terms import Tie
from mergec.grammar import ast
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted([*ROOT.glob("examples/*.mrg"), *ROOT.glob("benchmarks/recipes/*.mrg")])
OLD_PHI = ("./phi-2-dolphin", "./phi-2-orca")
WIDTH, WORDS = 16, 32


def llama(folder: Path, seed: int, *, layers: int) -> None:
    """A tied Llama of almost no width: few bytes and as many layers as wanted, with a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    kv, inner = (WIDTH // 2, WIDTH), (2 * WIDTH, WIDTH)
    shapes = {
        **{f"self_attn.{x}_proj": (WIDTH, WIDTH) for x in "qo"},
        **{f"self_attn.{x}_proj": kv for x in "kv"},
        "mlp.gate_proj": inner,
        "mlp.up_proj": inner,
        "mlp.down_proj": inner[::-1],
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
    }
    sizes = {"model.embed_tokens.weight": (WORDS, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(layers):
        sizes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    tensors = {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in sizes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "vocab_size": WORDS,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    vocabulary = {f"t{k}": k for k in range(WORDS)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}), "utf-8")


class Tiny(LocalCatalog):
    """Instead of each checkpoint that a recipe names, at any revision, a tiny one of its kind: 16
    layers of a Llama, or Phi-2."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def open(
        self,
        source: str,
        *,
        revision: str | None,
        subfolder: str | None,
        near: str,
        key: str | None = None,
        variant: str | None = None,
    ) -> Checkpoint:
        del revision
        assert (subfolder, key, variant) == (None, None, None)
        folder = self._folder / source.replace("/", "_").strip(".")
        if not folder.exists():
            seed = zlib.crc32(source.encode())
            if "phi" in source:
                make("phi-old" if source in OLD_PHI else "phi", folder, dtype="float16", seed=seed)
            else:
                llama(folder, seed, layers=16)
        return super().open(str(folder), revision=None, subfolder=None, near=near)

    def adapter(self, source: str, *, revision: str | None, subfolder: str | None, near: str) -> Checkpoint:
        del revision
        assert subfolder is None
        folder = self._folder / source.replace("/", "_").strip(".")
        if not folder.exists():
            shapes = {
                f"model.layers.{k}.self_attn.{x}_proj.weight": torch.empty(WIDTH, WIDTH) for k in (0, 5) for x in "qo"
            }
            modules = [name.removesuffix(".weight") for name in shapes]
            tensors = lora_adapters.factors(shapes, modules, seed=zlib.crc32(source.encode()), dtype=torch.bfloat16)
            lora_adapters.write(folder, tensors, r=4, lora_alpha=8)
        return super().adapter(str(folder), revision=None, subfolder=None, near=near)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.parent.name}-{r.stem}")
def test_recipe(recipe: Path, tiny: Tiny, tmp_path: Path) -> None:
    compiled = mergec.compile(recipe, catalog=tiny, device="cpu", strict=True)
    # every statement gives a value to something; a tie is no value of its own
    assignments = [a for a in compiled.compilation.recipe.assignments if not isinstance(a.value, Tie)]
    assert {a.number for a in assignments} == {o.statement for o in compiled.compilation.graph.outputs} - {None}
    report = compiled.run(tmp_path / "out")
    assert report.outcome.non_finite == {}
    stored = {t.name: t.shape for t in compiled.plan.tensors}
    merged = load(tmp_path / "out")
    assert {name: tuple(t.shape) for name, t in merged.items()} == stored
    assert all(bool(t.isfinite().all()) for t in merged.values())
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["num_hidden_layers"] in (4, 16, 24)


# --- the standard library ------------------------------------------------------------------------

DEFS = {s.name.id: s for f in standard_texts() for s in standard_module(f).statements if isinstance(s, ast.Def)}
METHODS = {n: d for n, d in DEFS.items() if any(p.kind and p.kind.name == "region" for p in d.parameters)}
"""A method declares which of its parameters are models; the other functions are helpers of
methods."""


def call(method: ast.Def) -> str:
    """A call of a method with models for its regions, 0.5 for what else must be given, and
    defaults."""
    models, given = iter("abcd"), []
    for parameter in method.parameters:
        if parameter.variadic:
            given += [next(models) for _ in range(2)]
        elif parameter.default is None and parameter.name.id != "base":
            region = parameter.kind is not None and parameter.kind.name == "region"
            given.append(next(models) if region else f"{parameter.name.id}=0.5")
    return f"{method.name.id}({', '.join(given)})"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp("llamas") / name for name in ("base", "a", "b", "c", "d")}
    for seed, folder in enumerate(found.values()):
        llama(folder, seed, layers=2)
    return found


@pytest.mark.parametrize("method", sorted(METHODS))
def test_method_with_its_defaults(method: str, folders: dict[str, Path], tmp_path: Path) -> None:
    lets = "".join(f'let {name} = model("{folder}")\n' for name, folder in folders.items())
    value = call(METHODS[method])
    if method in MATRICES_ALONE:  # the others stay as they are
        value = f"where(ndim(a) == 2, {value}, a)"
    recipe = f'{lets}output(like=base, dtype="float32")\n* = {value}\n'
    report = mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    assert report.outcome.non_finite == {}
    merged = load(tmp_path / "out")
    for name, first in load(folders["base"]).items():
        assert merged[name].shape == first.shape
        assert bool(merged[name].isfinite().all())
    changed = [name for name, t in merged.items() if not torch.equal(t, load(folders["a"])[name].float())]
    assert changed or method in COPIES


MATRICES_ALONE = {"truncate_rank"}
COPIES = {"passthrough", "lines"}
"""Methods that with their defaults give back their first model."""


def test_the_library_has_all_functions_and_each_helper_has_a_use() -> None:
    assert list(Library().names) == list(DEFS)
    called = {name.id for d in DEFS.values() for name in bound_and_free(d.body)[1]}
    assert set(DEFS) - set(METHODS) <= called
