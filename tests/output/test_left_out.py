"""Which tensors of an input a warning calls left out (W0503): those that nothing in the output is
made of."""

from __future__ import annotations

from typing import Any

import mergec
import pytest

LANGUAGE: dict[str, tuple[str, tuple[int, ...]]] = {
    f"model.layers.{i}.{m}.weight": ("F32", (4, 4)) for i in range(3) for m in ("attn.q_proj", "mlp.up_proj")
}
LANGUAGE |= {"model.embed_tokens.weight": ("F32", (8, 4)), "model.norm.weight": ("F32", (4,))}
VISION = {f"visual.blocks.{i}.attn.qkv.weight": ("F32", (4, 4)) for i in range(2)}
MODELS: dict[str, dict[str, Any]] = {
    "vlm": {"tensors": LANGUAGE | VISION, "config": {"model_type": "unheard_vl"}},
    "llm": {"tensors": LANGUAGE | {"mtp.weight": ("F32", (4, 4))}, "config": {"model_type": "unheard"}},
    "inner": {
        "tensors": {f"inner.{name}": tensor for name, tensor in LANGUAGE.items()} | VISION,
        "config": {"model_type": "unheard_inner"},
    },
}
LETS = "".join(f'let {name} = model("{name}")\n' for name in MODELS)


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        # merged under the same names, by models of unlike families
        ('* = vlm\n"model.**" = linear(vlm, llm)', {"llm": "mtp.weight"}),
        # read from another place
        ("* = vlm\ntext.layers = linear(vlm.text.layers, llm.layers)", {"llm": "mtp.weight"}),
        (
            "* = vlm\ntext.layers = inner.text.layers",
            {"inner": "inner.model.embed_tokens.weight, inner.model.norm.weight"},
        ),
        ("* = vlm\ntext.layers[0] = inner.text.layers[0]\nnorm = inner.norm", {"inner": None}),
    ],
)
def test_what_is_read_is_not_left_out(statement: str, left_out: dict[str, str | None]) -> None:
    compiled = mergec.compile(LETS + statement, catalog=mergec.MemoryCatalog(MODELS), device="cpu")
    found = {d.message.split("`")[1]: d.labels[0].text for d in compiled.diagnostics if d.code == "W0503"}
    assert found.keys() == left_out.keys()
    for name, listed in left_out.items():
        if listed is None:
            assert "layers[0]" not in found[name]
            assert "norm" not in found[name]
            assert "embed_tokens" in found[name]
        else:
            assert found[name] == f"left out: {listed}"
