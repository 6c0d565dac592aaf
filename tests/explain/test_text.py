"""The text forms of `--explain`, word for word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from mergec.cli.explain import explain
from mergec.compiler.pipeline import Compilation
from mergec.compiler.plan.plan import Pass
from mergec.grammar.diagnostic import Exit, MergecError

Compile = Callable[..., Compilation]

PARTIAL = """\
let base = model("base")
let a = model("a")
output(like=base)
layers[0..1].mlp = 0.5 * a + 0.5 * base
norm = a
head = tie(embed)
"""

PARTIAL_TEXT = """\
inputs
  name  family  layout     dtype  parameters     size  tied          from
  base  llama   canonical  BF16          612  1.22 kB  head = embed  base
  a     llama   canonical  BF16          612  1.22 kB  head = embed  a

output
  parameters  612 in 38 tensors, 1.22 kB
  dtype       BF16, as in `base`
  ties        head = embed
  layers      4 layers
  template    `base`
  files       1 file, model.safetensors

cost
  read     1.51 kB from 2 files
  written  1.22 kB
  memory   … MiB at most on the host
  work     6 passes, 32 copies of bytes, on cpu with 2 lanes

statements
  line  place             tensors  value
     4  layers[0..1].mlp        6  0.5 * a + 0.5 * base
     5  norm                    1  a
     6  head                 tied  tie(embed)
        (the rest)             31  copied from `base`: model.embed_tokens.weight, layers[0..3] (6
                                   tensors each), layers[2..3].mlp.gate_proj.weight,
                                   layers[2..3].mlp.up_proj.weight,
                                   layers[2..3].mlp.down_proj.weight
"""

MIXED = """\
let base = model("own-head")
let chat = model("chat")
norm = chat
* = ties(chat, base=base, density=0.5)
layers[*].attn = base + {attn.q: 0.25, _: 0.5} * (chat - base)
"""

MIXED_TEXT = """\
inputs
  name  family  layout     dtype  parameters     size  tied          from
  base  llama   canonical  BF16          644  1.29 kB  no            own-head
  chat  llama   canonical  BF16          612  1.22 kB  head = embed  chat

output
  parameters  644 in 39 tensors, 1.29 kB
  dtype       BF16, as in `base`
  ties        no
  layers      4 layers
  template    `base`
  files       1 file, model.safetensors

cost
  read     4.13 kB from 2 files
  written  1.29 kB
  memory   … MiB at most on the host
  work     62 passes, on cpu with 2 lanes

statements
  line  place           tensors  value
     3  norm                  0  chat
     4  *                    23  ties(chat, base=base, density=0.5)
     5  layers[*].attn       16  base + {attn.q: 0.25, _: 0.5} * (chat - base)

warnings

warning[W0501]: the statement for `norm` has no effect
 --> <recipe>:3:1
  |
3 | norm = chat
  | ^^^^ covered whole by later statements
4 | * = ties(chat, base=base, density=0.5)
  | - covers it
  |
  = help: later statements win: put the general one first
"""

PLACE_TEXT = """\
model.layers.1.mlp.gate_proj.weight
  statement   <recipe>:4  layers[0..1].mlp = 0.5 * a + 0.5 * base
  shape       [6, 4], 24 elements
  dtype       BF16, computed in float32 and rounded once
  written to  model.safetensors, bytes 4,152 to 4,200 (48 B)

inputs
  a
    tensor  model.layers.1.mlp.gate_proj.weight, BF16 [6, 4]
    file    memory:a
            bytes 672 to 720 (48 B)
  base
    tensor  model.layers.1.mlp.gate_proj.weight, BF16 [6, 4]
    file    memory:base
            bytes 672 to 720 (48 B)

value
  %1  a
  %2  0.5 * %1
  %3  base
  %4  0.5 * %3
  %5  %2 + %4

steps
  1  reads 96 B in blocks of 65,536 elements on 2 lanes, 3 operations an element, writes 48 B;
     … MiB

3 tensors at this place, of which this is the first
  layers[1].mlp.gate_proj.weight, layers[1].mlp.up_proj.weight, layers[1].mlp.down_proj.weight
"""


def plain(text: str) -> str:
    """Scratch memory is not what these tests are about."""
    return re.sub(r"[\d.]+ [KM]iB", "… MiB", text)


def test_a_partial_merge(compilation: Compile) -> None:
    assert plain(explain(compilation(PARTIAL))) == PARTIAL_TEXT


def test_a_merge_with_a_warning(compilation: Compile) -> None:
    assert plain(explain(compilation(MIXED))) == MIXED_TEXT


def test_the_story_of_a_place(compilation: Compile) -> None:
    assert plain(explain(compilation(PARTIAL), place="layers[1].mlp")) == PLACE_TEXT


def test_a_tied_place_is_told_through_what_is_stored(compilation: Compile) -> None:
    told = explain(compilation(PARTIAL), place="head")
    assert told.startswith("model.embed_tokens.weight\n  statement   none: copied from the template, `base`\n")
    assert "`lm_head.weight` is stored as this tensor" in told
    assert "1  copies 64 B byte for byte" in told


def test_numbers_are_shown_as_they_are_resolved_at_the_tensor(compilation: Compile) -> None:
    merged = compilation(MIXED)
    assert "0.25 * %3" in explain(merged, place="layers[2].attn.q")
    assert "0.5 * %3" in explain(merged, place="layers[2].attn.k")
    assert "k=16 of 32" in explain(merged, place="head")


def test_a_part_of_a_stored_tensor_says_where_it_lies(compilation: Compile) -> None:
    old = {
        "config": {"model_type": "phi", "num_hidden_layers": 1},
        "tensors": {
            "transformer.embd.wte.weight": ("F16", (8, 4)),
            "transformer.h.0.ln.weight": ("F16", (4,)),
            "transformer.h.0.mixer.Wqkv.weight": ("F16", (12, 4)),
            "lm_head.linear.weight": ("F16", (8, 4)),
        },
    }
    told = explain(compilation('let base = model("old")\n* = base * 2', old=old), place="layers[0].attn.k")
    assert "transformer.h.0.mixer.Wqkv.weight [12, 4], elements from 16 on" in told
    assert "bytes 104 to 136 (32 B)" in told


def test_an_unknown_place_is_an_error_that_points_into_it(compilation: Compile) -> None:
    with pytest.raises(MergecError) as caught:
        explain(compilation(PARTIAL), place="layers[0].mpl")
    (found,) = caught.value.diagnostics
    assert (found.code, found.labels[0].span.text) == ("E0301", "mpl")
    assert found.labels[0].span.source.text == "layers[0].mpl"


@pytest.mark.parametrize("text", ["head; norm", "layers[1", "f(3)", "let x", "", "a\nb", "head = norm"])
def test_text_that_is_no_place(compilation: Compile, text: str) -> None:
    with pytest.raises(MergecError) as caught:
        explain(compilation(PARTIAL), place=text)
    assert [d.code for d in caught.value.diagnostics] == ["E0108"]


def test_a_place_goes_with_text_alone(compilation: Compile) -> None:
    with pytest.raises(MergecError) as caught:
        explain(compilation(PARTIAL), "json", "head")
    assert ([d.code for d in caught.value.diagnostics], caught.value.exit) == (["E0002"], Exit.USAGE)


def test_no_line_is_wider_than_a_hundred(compilation: Compile) -> None:
    long = 'let base = model("base")\n' + "* = linear(" + ", ".join(["base"] * 40) + ")"
    for text in (explain(compilation(long)), explain(compilation(long), place="embed")):
        assert max(map(len, text.splitlines())) <= 100


def test_names_from_inputs_are_escaped(compilation: Compile) -> None:
    evil = {"tensors": {"w\x1b[2J": ("F32", (2,))}}
    merged = compilation('let base = model("evil")\n* = base * 2', evil=evil)
    for text in (explain(merged), explain(merged, place="*"), explain(merged, "dot"), explain(merged, "mermaid")):
        assert "\x1b" not in text


WHOLE = """\
let base = model("base")
let a = model("a")
let b = model("b")
* = linear(a, b)
layers[0] = ties(a, b, density=0.5, scope="model")
layers[1] = lines_merge(a, b)
layers[2].mlp = ramplus_tl(a, b, scope="model")
"""

WHOLE_TEXT = """\
whole model, read before the pass that writes
  line  pass  reads  of                        for                         statement
     5     1  864 B  27 tensors of base, a, b  a threshold, 16 bits of it  ties(a, b, density=0.5, …
     5     2  864 B  27 tensors of base, a, b  a threshold, 16 bits of it  ties(a, b, density=0.5, …
     6     1  864 B  27 tensors of base, a, b  sums                        lines_merge(a, b)
     7     1  432 B  9 tensors of base, a, b   counts                      ramplus_tl(a, b, scope="…
"""


def test_passes_over_the_whole_model(compilation: Compile) -> None:
    made = compilation(WHOLE)
    assert explain(made, "text").endswith("\n\n" + WHOLE_TEXT)
    # what it says is what the plan reads in passes that write nothing
    told = json.loads(explain(made, "json"))["whole_model"]
    planned = sum(s.reads for s in made.plan.steps if isinstance(s.action, Pass) and not s.action.stores)
    assert sum(each["bytes"] for each in told) == planned
    assert [(each["statement"], each["finds"]) for each in told[2:]] == [(2, ["sums"]), (3, ["counts"])]
    assert "whole model" not in explain(compilation(PARTIAL), "text")
