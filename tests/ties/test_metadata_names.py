"""Names that a header's metadata maps to one another are one tensor; whatever else it says is no
name."""

from __future__ import annotations

from typing import Any

import mergec
import pytest

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def model(metadata: dict[str, str], more: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Any:
    tensors = {EMBED: ("F32", (8, 4)), "model.norm.weight": ("F32", (4,)), **(more or {})}
    made: dict[str, Any] = {"tensors": tensors, "metadata": metadata}
    return made if config is None else made | {"config": config}


def aliases(spec: Any, recipe: str = '"*" = a') -> dict[str, str]:
    made = mergec.compile(f'let a = model("a")\n{recipe}\n', catalog=mergec.MemoryCatalog({"a": spec}), device="cpu")
    return dict(made.compilation.recipe.models[0].aliases)


def test_a_name_for_another_tensor() -> None:
    spec = model({"format": "pt", HEAD: EMBED})
    assert aliases(spec) == {HEAD: EMBED}
    # and so it is a place: what is given to the output is the embedding
    compiled = mergec.compile(
        f'let a = model("a")\nlet b = model("b")\noutput(like=b)\n"*" = b\n"{HEAD}" = 2*a."{HEAD}"\n',
        catalog=mergec.MemoryCatalog({"a": spec, "b": model({}, {HEAD: ("F32", (8, 4))})}),
        device="cpu",
    )
    assert HEAD in {t.name for t in compiled.plan.tensors}
    assert compiled.plan.reads == 4 * (8 * 4 + 8 * 4 + 4)


@pytest.mark.parametrize(
    ("metadata", "more"),
    [
        # a value that happens to be a tensor's name, under a key that is none
        ({"format": "pt"}, {"pt": ("F32", (4,))}),
        ({"modelspec": EMBED}, None),
        # a tensor that isn't there
        ({HEAD: "model.embed.weight"}, None),
        # stored, so one of its own
        ({HEAD: EMBED}, {HEAD: ("F32", (8, 4))}),
        ({"model.norm.weight": EMBED}, None),
    ],
)
def test_what_is_no_other_name(metadata: dict[str, str], more: dict[str, Any] | None) -> None:
    assert aliases(model(metadata, more)) == {}


def test_the_config_s_tie_comes_first() -> None:
    """The family's own pair is settled before, and metadata adds others alone."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    found = aliases(model({HEAD: "model.norm.weight", "model.other.weight": EMBED}, config=config))
    assert found == {HEAD: EMBED, "model.other.weight": EMBED}
