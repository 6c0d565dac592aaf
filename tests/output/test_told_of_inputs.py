"""What is told of inputs: of each what is not used of it, and no warning where there is nothing to
warn of."""

from __future__ import annotations

import json
from typing import Any

import mergec
import pytest

WIDTH = 4
MATRIX = ("F32", (WIDTH, WIDTH))


def model(*more: str, rows: int = 8, layers: int = 2, **config: Any) -> dict[str, Any]:
    tensors = {"model.embed_tokens.weight": ("F32", (rows, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    tensors |= {f"model.layers.{i}.mlp.up_proj.weight": MATRIX for i in range(layers)}
    told = {"model_type": "llama", "num_hidden_layers": layers, "vocab_size": rows, "tie_word_embeddings": True}
    return {"tensors": tensors | dict.fromkeys(more, MATRIX), "config": told | config}


def compiled(recipe: str, models: dict[str, Any]) -> mergec.Compiled:
    lets = "".join(f'let {name} = model("{name}")\n' for name in models)
    return mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog(models), device="cpu")


def told(recipe: str, models: dict[str, Any]) -> list[tuple[str, str]]:
    return [(d.code, d.message) for d in compiled(recipe, models).diagnostics]


@pytest.mark.parametrize("first", ["template", "used", "idle", "odd"])
def test_each_input_in_its_turn(first: str) -> None:
    """A template of which nothing is used is used as a template; it says nothing of those after
    it."""
    models = {"template": model(), "used": model(), "idle": model(), "odd": model("model.more.weight")}
    models = {first: models[first], **models}
    found = told("output(like=template)\n* = linear(used, odd)", models)
    assert sorted(found) == [
        ("W0502", "nothing of `idle` is used"),
        ("W0503", "1 tensor of `odd` has no place in the output"),
    ]


def test_one_and_several_left_out() -> None:
    more = [f"model.more{k}.weight" for k in range(8)]
    models = {"a": model(), "odd": model(*more)}
    (found,) = compiled("output(like=a)\n* = linear(a, odd)", models).diagnostics
    assert found.message == "8 tensors of `odd` have no place in the output"
    assert found.labels[0].text == "left out: " + ", ".join(sorted(more)[:6]) + " …"


@pytest.mark.parametrize(
    ("recipe", "message", "note"),
    [
        ("layers = a\nembed = a", "1 tensor of the output has no value", "not covered: model.norm.weight"),
        (
            "layers[1] = a\nembed = a",
            "2 tensors of the output have no value",
            "not covered: layers[0].mlp.up_proj.weight, model.norm.weight",
        ),
        (
            "norm = a\nembed = a",
            "3 tensors of the output have no value",
            "not covered: layers[0..2].mlp.up_proj.weight",
        ),
        ("layers[0,2] = a\nembed = a\nnorm = a", "1 tensor of the output has no value", None),
    ],
)
def test_what_has_no_value(recipe: str, message: str, note: str | None) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        compiled(recipe, {"a": model(layers=2 if "[1]" in recipe else 3)})
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0308", message)
    assert note is None or found.notes == (note,)
    assert found.help[-1] == "or copy what is left from a template: `output(like=a)`"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"<a>": 7}, None),
        ({"<a>": 3, "<b>": 7}, None),
        ({"<a>": 8}, "the output's tokenizer has 1 token without a row: `<a>`"),
        ({"<a>": 7, "<b>": 8, "<c>": 9}, "the output's tokenizer has 2 tokens without a row: `<b>`, `<c>`"),
    ],
)
@pytest.mark.parametrize("file", ["tokenizer.json", "added_tokens.json", "tokenizer_config.json"])
def test_tokens_without_a_row(added: dict[str, int], said: str | None, file: str) -> None:
    """Rows are those of the vocabulary's tensors; a norm has fewer, and means nothing."""
    texts = {
        "tokenizer.json": {"added_tokens": [{"id": n, "content": t} for t, n in added.items()], "model": {}},
        "added_tokens.json": added,
        "tokenizer_config.json": {"added_tokens_decoder": {str(n): {"content": t} for t, n in added.items()}},
    }
    a = model() | {"documents": {file: json.dumps(texts[file])}}
    found = [m for code, m in told("* = 2*a", {"a": a}) if code == "W0584"]
    assert found == ([said] if said else [])
