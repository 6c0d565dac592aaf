"""Whatever is edited between two runs, a run onto the earlier output makes the folder that a run
from nothing makes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lora_adapters
import mergec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from safetensors.torch import load_file, save_file

WIDTH, ROWS, LAYERS = 4, 6, 2
MODELS = ("base", "a", "b")


@dataclasses.dataclass
class Recipe:
    """What is written into the recipe, and asked for on the command line."""

    share: str = "0.5"
    density: str = "0.5"
    seed: str = "0"
    dtype: str = '"float32"'
    shard_size: str = '"1kB"'
    tokenizer: str = "base"
    chat: str = '"chatml"'
    rows: str = "3"
    license: str = '"mit"'
    names: tuple[str, ...] = ("base", "a", "b")
    method: str = "ties"
    remark: str = ""
    defines: dict[str, Any] = dataclasses.field(default_factory=dict)

    def text(self, folder: Path) -> str:
        lets = "".join(f'let {m} = model("{folder / name}")\n' for m, name in zip(MODELS, self.names, strict=True))
        settings = f"like=base, dtype={self.dtype}, seed={self.seed}, shard_size={self.shard_size}, "
        settings += f"tokenizer={self.tokenizer}, chat_template={self.chat}, pad_vocab_to={self.rows}, "
        return f"""# {self.remark}
{lets}let pickled = model("{folder}/pickled")
let tuned = base + lora("{folder}/adapter")
let share = {self.share}
output({settings}license={self.license})
* = {self.method}(a, b, base=base, density={self.density})
layers[0].attn = tuned
layers[1].attn.q = dare_linear(tuned, b, base=base, density={self.density})
layers[1].mlp = share * a + (1 - share) * b
layers[1].mlp.down = pickled
norm = b
"""


def tensors(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    out = {"model.embed_tokens.weight": torch.randn(ROWS, WIDTH, generator=random)}
    for k in range(LAYERS):
        for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"):
            out[f"model.layers.{k}.{part}_proj.weight"] = torch.randn(WIDTH, WIDTH, generator=random)
        for part in ("input", "post_attention"):
            out[f"model.layers.{k}.{part}_layernorm.weight"] = torch.randn(WIDTH, generator=random)
    return out | {"model.norm.weight": torch.randn(WIDTH, generator=random)}


def shards(seed: int) -> list[dict[str, torch.Tensor]]:
    whole = tensors(seed)
    return [{n: t for n, t in whole.items() if ("layers.1" in n) == bool(k)} for k in range(2)]


def name_of(shard: int) -> str:
    return f"model-0000{shard + 1}-of-00002.safetensors"


def put(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def edit(path: Path, **changes: Any) -> None:
    put(path, json.loads(path.read_text()) | changes)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(MODELS):
        (folder / name).mkdir()
        weights = {}
        for k, part in enumerate(shards(seed)):
            save_file(part, folder / name / name_of(k))
            weights |= dict.fromkeys(part, name_of(k))
        put(folder / name / "model.safetensors.index.json", {"weight_map": weights})
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
        config |= {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1, "rope_theta": 1e4}
        put(folder / name / "config.json", config | {"num_hidden_layers": LAYERS, "vocab_size": ROWS})
        vocab = {f"t{k}": k for k in range(ROWS - 1)} | {f"<{name}>": ROWS - 1}
        model = {"type": "BPE", "vocab": vocab, "merges": []}
        put(folder / name / "tokenizer.json", {"version": "1.0", "added_tokens": [], "model": model})
        put(folder / name / "tokenizer_config.json", {"chat_template": f"of {name}"})
        put(folder / name / "generation_config.json", {"eos_token_id": 1})
    factors = lora_adapters.factors(tensors(0), [f"model.layers.{k}.self_attn.q_proj" for k in range(LAYERS)], 2)
    lora_adapters.write(folder / "adapter", factors, r=2, lora_alpha=4, target_modules=["q_proj"])
    shutil.copytree(folder / "base", folder / "pickled", ignore=shutil.ignore_patterns("*.safetensors*"))
    pickle(folder, 9)
    return folder


def pickle(folder: Path, seed: int) -> None:
    torch.save(tensors(seed), folder / "pickled/pytorch_model.bin")


# --- edits ---------------------------------------------------------------------------------------

Edit = Callable[[Path, Recipe], None]


def other_weights(name: str, shard: int, seed: int) -> Edit:
    return lambda folder, recipe: save_file(
        shards(seed)[shard], folder / recipe.names[MODELS.index(name)] / name_of(shard)
    )


def one_bit(name: str, shard: int, offset: int) -> Edit:
    """A bit of the last tensors of a file, whose time of writing stays."""

    def run(folder: Path, recipe: Recipe) -> None:
        path = folder / recipe.names[MODELS.index(name)] / name_of(shard)
        status = path.stat()
        data = bytearray(path.read_bytes())
        data[-offset] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return run


def traded(folder: Path, recipe: Recipe) -> None:
    one, two = (folder / recipe.names[k] / name_of(0) for k in (1, 2))
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)


def moved(folder: Path, recipe: Recipe) -> None:
    old = recipe.names[1]
    (folder / old).rename(folder / f"{old}x")
    recipe.names = (recipe.names[0], f"{old}x", recipe.names[2])


def document(name: str, file: str, **changes: Any) -> Edit:
    def run(folder: Path, recipe: Recipe) -> None:
        path = folder / recipe.names[MODELS.index(name)] / file
        edit(path, **changes) if path.exists() else put(path, changes)

    return run


def removed(name: str, file: str) -> Edit:
    return lambda folder, recipe: (folder / recipe.names[MODELS.index(name)] / file).unlink(missing_ok=True)


def adapter(**changes: Any) -> Edit:
    return lambda folder, recipe: edit(folder / "adapter/adapter_config.json", **changes)  # noqa: ARG005


def other_factors(seed: int) -> Edit:
    def run(folder: Path, recipe: Recipe) -> None:  # noqa: ARG001
        path = folder / "adapter/adapter_model.safetensors"
        random = torch.Generator().manual_seed(seed)
        save_file({n: torch.randn(t.shape, generator=random) for n, t in load_file(path).items()}, path)

    return run


def written(**changes: Any) -> Edit:
    def run(folder: Path, recipe: Recipe) -> None:  # noqa: ARG001
        for field, value in changes.items():
            setattr(recipe, field, value)

    return run


named, seeds = st.sampled_from(MODELS), st.integers(20, 30)
EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(other_weights, named, st.integers(0, 1), seeds),
    st.builds(one_bit, named, st.integers(0, 1), st.integers(1, 60)),
    st.sampled_from([traded, moved]),
    seeds.map(lambda seed: lambda folder, recipe: pickle(folder, seed)),  # noqa: ARG005
    seeds.map(other_factors),
    st.sampled_from([1, 2, 8]).map(lambda alpha: adapter(lora_alpha=alpha)),
    st.booleans().map(lambda given: adapter(use_rslora=given)),
    st.sampled_from([1e4, 5e5]).map(lambda theta: document("base", "config.json", rope_theta=theta)),
    st.builds(lambda m, v: document(m, "generation_config.json", eos_token_id=v), named, st.integers(1, 3)),
    st.builds(lambda m, v: document(m, "tokenizer_config.json", chat_template=v), named, st.sampled_from(["x", "y"])),
    st.builds(lambda m, v: document(m, "special_tokens_map.json", pad_token=v), named, st.sampled_from(["t1", "t2"])),
    st.builds(lambda m, v: document(m, "preprocessor_config.json", size=v), named, st.integers(1, 3)),
    st.builds(
        removed,
        named,
        st.sampled_from(["generation_config.json", "special_tokens_map.json", "preprocessor_config.json"]),
    ),
    st.sampled_from(["0.5", "0.25", "1", "depth"]).map(lambda x: written(share=x)),
    st.sampled_from([{}, {"share": 0.75}, {"share": 0.5}]).map(lambda x: written(defines=x)),
    st.sampled_from(["0.5", "0.7"]).map(lambda x: written(density=x)),
    st.sampled_from(["0", "1"]).map(lambda x: written(seed=x)),
    st.sampled_from(['"float32"', '"bfloat16"', '"float16"']).map(lambda x: written(dtype=x)),
    st.sampled_from(['"1kB"', '"2kB"', '"1GB"']).map(lambda x: written(shard_size=x)),
    st.sampled_from(["base", "a", "union(base, a)", "union(b, a)"]).map(lambda x: written(tokenizer=x)),
    st.sampled_from(['"chatml"', "a", '"{% of its own %}"']).map(lambda x: written(chat=x)),
    st.sampled_from(["3", "5"]).map(lambda x: written(rows=x)),
    st.sampled_from(['"mit"', '"other"']).map(lambda x: written(license=x)),
    st.sampled_from(["ties", "della", "pcb_"]).map(lambda x: written(method=x.replace("pcb_", "dare_ties"))),
    st.sampled_from(["one remark", "another"]).map(lambda x: written(remark=x)),
    st.just(lambda folder, recipe: os.utime(folder / recipe.names[1] / name_of(0))),
)


def compiled(folder: Path, recipe: Recipe) -> mergec.Compiled:
    text = recipe.text(folder)
    return mergec.compile(text, device="cpu", lanes=2, defines=recipe.defines, allow_pickle=True)


def contents(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = {p.name: p.read_bytes() for p in out.iterdir()}
    record = json.loads(found.pop("mergec.json"))
    del record["record_sha256"]
    record["weights"] = {name: size for name, (size, *_) in record["weights"].items()}
    # what was copied within the kernel has no checksum, and its numbers were not looked at
    record["tensors"] = {name: (key, *rest) for name, (key, _, _, *rest) in record["tensors"].items()}
    return found | {"mergec.json": record}


@examples(6)
@given(st.lists(EDITS, min_size=5, max_size=5))
def test_an_edited_folder_is_made_as_from_nothing(
    inputs: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[Edit]
) -> None:
    folder = tmp_path_factory.mktemp("edited")
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    recipe, out, fresh = Recipe(), folder / "out", folder / "fresh"
    compiled(folder, recipe).run(out)
    for change in edits:
        change(folder, recipe)
        made = compiled(folder, recipe)
        made.run(out, force=True)
        made.run(fresh, force=True, fresh=True)
        assert contents(out) == contents(fresh)
        assert made.run(out).unchanged
    shutil.rmtree(folder)


def test_a_paper_that_is_no_more(inputs: Path, tmp_path: Path) -> None:
    """A file beside the weights of an input that is gone goes from the output too."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    compiled(tmp_path, Recipe()).run(tmp_path / "out")
    (tmp_path / "base/generation_config.json").unlink()
    report = compiled(tmp_path, Recipe()).run(tmp_path / "out", force=True)
    assert not report.unchanged
    assert report.outcome.bytes_written == 0
    assert not (tmp_path / "out/generation_config.json").exists()
