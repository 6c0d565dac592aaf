"""Adapters of models whose embedding and head are one tensor: each of the two gets what the adapter
does to it.

The reference is the model with its adapter beside it, as PEFT runs it: nothing is merged into a
weight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import checkpoints
import lora_adapters
import mergec
import pytest
import torch
import transformers
from lora_adapters import Tensors, normal
from merging import compile_folders, merge_folders

Make = Callable[..., Path]
EMBED, HEAD = "model.embed_tokens", "lm_head"
ROWS, WIDTH = 64, 32
CONFIG = {"r": 4, "lora_alpha": 8}


def embedding_factors(seed: int, module: str = EMBED) -> Tensors:
    a, b = normal(4, ROWS, seed=seed) * 0.1, normal(WIDTH, 4, seed=seed + 1) * 0.1
    return {f"{module}.lora_embedding_A": a, f"{module}.lora_embedding_B": b}


def head_factors(seed: int) -> Tensors:
    a, b = normal(4, WIDTH, seed=seed) * 0.1, normal(ROWS, 4, seed=seed + 1) * 0.1
    return {f"{HEAD}.lora_A.weight": a, f"{HEAD}.lora_B.weight": b}


def as_the_embedding(tensors: Tensors) -> Tensors:
    """The embedding's factors for the head, whose weight has its inputs along the other axis."""
    a, b = tensors[f"{EMBED}.lora_embedding_A"], tensors[f"{EMBED}.lora_embedding_B"]
    return {f"{HEAD}.lora_A.weight": b.T, f"{HEAD}.lora_B.weight": a.T}


def whole(module: str, seed: int) -> Tensors:
    return {f"{module}.weight": normal(ROWS, WIDTH, seed=seed) * 0.3}


def unmerged(base: Path, *adapters: Tensors, scale: float = 2.0) -> torch.Tensor:
    """Logits of a tied model with adapters of its embedding and head beside it, in float64."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base).double().eval()
    ids = torch.arange(3, 19).reshape(2, 8) % ROWS
    with torch.no_grad():
        sides = [model.model.embed_tokens.weight.data] * 2
        for adapter in adapters:
            sides = [adapter.get(f"{m}.weight", w).double() for m, w in zip((EMBED, HEAD), sides, strict=True)]
        rows = sides[0][ids]
        for adapter in adapters:
            if f"{EMBED}.lora_embedding_A" in adapter:
                a, b = (adapter[f"{EMBED}.lora_embedding_{x}"].double() for x in "AB")
                rows = rows + scale * a.T[ids] @ b.T
        hidden = model.model(inputs_embeds=rows).last_hidden_state
        logits = hidden @ sides[1].T
        for adapter in adapters:
            if f"{HEAD}.lora_A.weight" in adapter:
                a, b = (adapter[f"{HEAD}.lora_{x}.weight"].double() for x in "AB")
                logits = logits + scale * hidden @ a.T @ b.T
    return logits


def weights(base: Path, adapter: Tensors, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding and head, each with its own change, in float64."""
    old = checkpoints.load(base)[f"{EMBED}.weight"]
    made = lora_adapters.applied(
        {f"{EMBED}.weight": old, f"{HEAD}.weight": old}, adapter, {"r": 1, "lora_alpha": scale} | CONFIG
    )
    return torch.from_numpy(made[f"{EMBED}.weight"]), torch.from_numpy(made[f"{HEAD}.weight"])


def ways_out(recipe: str, **folders: Path) -> list[str]:
    """The statements that the help of E0310 shows, in its order."""
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders(recipe, **folders)
    (error,) = caught.value.diagnostics
    assert error.code == "E0310"
    found = [re.search("`(.+)`", text) for text in error.help]
    assert all(found)
    return [match[1] for match in found if match]


def sides(out: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    made = checkpoints.load(out)
    head = made.get(f"{HEAD}.weight")
    tied = json.loads((out / "config.json").read_text("utf-8"))["tie_word_embeddings"]
    assert tied == (head is None)
    return made[f"{EMBED}.weight"].double(), head.double() if head is not None else None


def close(made: torch.Tensor | None, wanted: torch.Tensor) -> None:
    assert made is not None
    torch.testing.assert_close(made.double(), wanted.double(), rtol=2e-6, atol=2e-6)


ONE_SIDED: dict[str, Tensors] = {
    "head": head_factors(1),
    "embedding": embedding_factors(3),
    "both": {**head_factors(5), **embedding_factors(7)},
    "other scales of equal factors": {
        **embedding_factors(9),
        **{k: t * 2 for k, t in as_the_embedding(embedding_factors(9)).items()},
    },
    "whole embedding": whole(EMBED, 11),
    "whole head": whole(HEAD, 12),
    "two whole": {**whole(EMBED, 13), **whole(HEAD, 14)},
    "whole head, factors of the embedding": {**whole(HEAD, 15), **embedding_factors(16)},
}


@pytest.mark.parametrize("kind", ONE_SIDED)
def test_an_adapter_of_one_side_is_an_error_with_two_ways_out(kind: str, checkpoint: Make, tmp_path: Path) -> None:
    base, tensors = checkpoint("llama-tied"), ONE_SIDED[kind]
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    recipe = f'let tuned = base + lora("{folder}")\n* = tuned\n'
    embed, head = weights(base, tensors)
    accept, untie = ways_out(recipe, base=base)
    merge_folders(recipe + accept, tmp_path / "tied", base=base)
    close(sides(tmp_path / "tied")[0], embed)
    assert sides(tmp_path / "tied")[1] is None
    merge_folders(recipe + untie, tmp_path / "untied", base=base)
    made = sides(tmp_path / "untied")
    close(made[0], embed)
    close(made[1], head)
    loaded = checkpoints.logits(tmp_path / "untied")
    assert loaded.clean
    torch.testing.assert_close(loaded.logits.double(), unmerged(base, tensors), rtol=1e-4, atol=1e-5)


def copies(base: Path) -> Tensors:
    """What PEFT saves beside the factors of an embedding and a head: the weights below them."""
    old = checkpoints.load(base)[f"{EMBED}.weight"]
    return {f"{m}.base_layer.weight": old.clone() for m in (EMBED, HEAD)}


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        ({**embedding_factors(1), **as_the_embedding(embedding_factors(1))}, {}),
        ({**embedding_factors(1), **as_the_embedding(embedding_factors(1))}, {"ensure_weight_tying": True}),
        (embedding_factors(1), {"ensure_weight_tying": True}),
        (head_factors(1), {"ensure_weight_tying": True}),
        ({**whole(EMBED, 3), **whole(HEAD, 3)}, {}),
        (whole(EMBED, 3), {"ensure_weight_tying": True}),
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_equal_changes_of_both_sides_count_once(
    tensors: Tensors, config: dict[str, bool], copied: bool, checkpoint: Make, tmp_path: Path
) -> None:
    base = checkpoint("llama-tied")
    if copied and any("lora_" in name for name in tensors):
        more = {k: t for k, t in copies(base).items() if any(n.startswith(k.split(".base")[0]) for n in tensors)}
        tensors = {**tensors, **more}
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG, **config)
    merge_folders(f'* = base + lora("{folder}")', tmp_path / "out", base=base)
    made, untied = sides(tmp_path / "out")
    assert untied is None
    embed, head = weights(base, tensors)
    old = checkpoints.load(base)[f"{EMBED}.weight"].double()
    close(made, embed if (embed != old).any() else head)
    recipe = f'let tuned = base + lora("{folder}")\n* = tuned\nhead = tuned'
    merge_folders(recipe, tmp_path / "untied", base=base)
    close(sides(tmp_path / "untied")[0], made)
    close(sides(tmp_path / "untied")[1], made)


def test_one_adapter_for_each_side(checkpoint: Make, tmp_path: Path) -> None:
    base, one, two = checkpoint("llama-tied"), head_factors(1), embedding_factors(3)
    for name, tensors in (("one", one), ("two", two)):
        lora_adapters.write(tmp_path / name, tensors, **CONFIG)
    value = f'base + lora("{tmp_path}/one") + lora("{tmp_path}/two")'
    accept, untie = ways_out(f"* = {value}", base=base)
    assert (accept, untie) == ("head = tie(embed)", f"head = {value}")
    merge_folders(f"* = {value}\n{untie}", tmp_path / "out", base=base)
    loaded = checkpoints.logits(tmp_path / "out")
    torch.testing.assert_close(loaded.logits.double(), unmerged(base, one, two), rtol=1e-4, atol=1e-5)


def test_what_is_added_of_an_adapter(checkpoint: Make, tmp_path: Path) -> None:
    base, tensors = checkpoint("llama-tied"), head_factors(1)
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    value = f'base + 0.5*lora("{folder}")'
    _, untie = ways_out(f"* = {value}", base=base)
    merge_folders(f"* = {value}\n{untie}", tmp_path / "out", base=base)
    loaded = checkpoints.logits(tmp_path / "out")
    torch.testing.assert_close(loaded.logits.double(), unmerged(base, tensors, scale=1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("* = linear(on_head, on_embed)", None),
        ("* = ties(on_head, on_embed, density=1)", None),
        ("* = linear(on_head, on_embed)\nhead = linear(on_head, on_embed)", "halves"),
        ("* = base\nembed = on_embed", None),
        ("* = base\nembed = on_embed.embed", None),
        ("* = on_head\nembed = base", None),
        ("output(like=base)\nembed = on_embed.embed", None),
        ("* = on_embed\nembed = base", "base base"),
        ("* = on_head\nhead = base", "base base"),
        ("* = on_embed\nhead = base", "embed base"),
        ("* = base\nhead = on_head", "base head"),
        ("* = base\nembed = on_embed.embed\nhead = base", "embed base"),
        ("* = base\nembed = on_head.head", "head head"),
        ("* = on_head\nembed = on_head.head", "head head"),
        ("* = on_head\nembed = on_head.head\nhead = tie(embed)", "head head"),
        ("* = {layers: on_head.layers, _: base}", "base base"),
        ("* = base if depth < 0.5 else on_head", None),
        ("* = on_head if layer >= 0 else base", None),
        ("* = on_head if depth < 0.5 else base", None),
        ("* = base if depth < 0.5 else on_head\nhead = on_head", "base head"),
        ("output(like=other)\n* = on_both", "embed head"),
    ],
)
def test_statements_over_one_side(statements: str, expected: str | None, checkpoint: Make, tmp_path: Path) -> None:
    base, head, embed = checkpoint("llama-tied"), head_factors(1), embedding_factors(3)
    lets = f'let other = model("{checkpoint("llama")}")\n' if "other" in statements else ""
    for name, tensors in (("head", head), ("embed", embed), ("both", {**head, **embed})):
        lora_adapters.write(tmp_path / name, tensors, **CONFIG)
        if f"on_{name}" in statements:
            lets += f'let on_{name} = base + lora("{tmp_path}/{name}")\n'
    recipe = lets + statements
    if expected is None:
        _, untie = ways_out(recipe, base=base)
        compile_folders(f"{recipe}\n{untie}", base=base)
        return
    merge_folders(recipe, tmp_path / "out", base=base)
    changed = weights(base, {**head, **embed})
    known = {"base": checkpoints.load(base)[f"{EMBED}.weight"].double(), "embed": changed[0], "head": changed[1]}
    made = sides(tmp_path / "out")
    if expected == "halves":
        close(made[0], (known["base"] + known["embed"]) / 2)
        close(made[1], (known["base"] + known["head"]) / 2)
        return
    first, second = expected.split()
    close(made[0], known[first])
    close(made[0] if made[1] is None else made[1], known[second])


def test_names_that_nothing_unties(checkpoint: Make, tmp_path: Path) -> None:
    """T5 keeps one embedding for encoder and decoder: one of the two gives it its change."""
    base = checkpoint("t5")
    tensors = embedding_factors(1, "encoder.embed_tokens")
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    recipe = f'let tuned = base + lora("{folder}")\n* = tuned\n'
    accept, pick = ways_out(recipe, base=base)
    assert accept == "encoder.embed = tie(embed)"
    assert pick.split("` and `") == ["embed = tuned.encoder.embed", accept]
    more = "decoder.embed = tie(embed)\nhead = tie(embed)\n"
    old = checkpoints.load(base)["shared.weight"].double()
    a, b = (t.double() for t in tensors.values())
    for statement, wanted in ((accept, old), (pick.replace("` and `", "\n"), old + 2 * (b @ a).T)):
        merge_folders(recipe + more + statement, tmp_path / "out", base=base)
        close(checkpoints.load(tmp_path / "out")["shared.weight"], wanted)


def test_a_head_that_a_later_statement_hides(checkpoint: Make, tmp_path: Path) -> None:
    """A model's own head is no less dropped where the statement for the embedding is another
    one."""
    base, own = checkpoint("llama-tied"), tmp_path / "own"
    checkpoints.finetune(base, own, seed=1)
    checkpoints.store_head(own, f"{EMBED}.weight", noise=0.1)
    checkpoints.edit_config(own, tie_word_embeddings=False)
    recipe = "output(like=base)\n* = own\nembed = base"
    accept, untie = ways_out(recipe, base=base, own=own)
    assert (accept, untie) == ("head = tie(embed)", "head = own")
    merge_folders(f"{recipe}\n{untie}", tmp_path / "out", base=base, own=own)
    assert torch.equal(checkpoints.load(tmp_path / "out")[f"{HEAD}.weight"], checkpoints.load(own)[f"{HEAD}.weight"])
