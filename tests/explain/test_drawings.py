"""The forms of `--explain` for programs: JSON, Graphviz, Mermaid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from mergec.cli.explain import explain
from mergec.cli.explain.drawing import LARGEST, Drawing, draw
from mergec.compiler.pipeline import Compilation
from mergec.compiler.plan.codec import from_json

Compile = Callable[..., Compilation]

SMALL = """\
let base = model("base")
let a = model("a")
layers[0].mlp = ties(a, density=0.5)
norm = slerp(a, base, t=0.25)
head = tie(embed)
"""

LARGE = """\
let base = model("base")
let a = model("a")
* = ties(a, density=0.5)
norm = a
"""


def test_json_says_what_text_says(compilation: Compile) -> None:
    merged = compilation(SMALL)
    told = json.loads(explain(merged, "json"))
    assert list(told) == [
        *("version", "inputs", "output", "cost", "statements", "whole_model", "copied", "ties", "warnings", "plan"),
    ]
    assert [i["name"] for i in told["inputs"]] == ["base", "a"]
    assert told["inputs"][0]["dtypes"] == {"BF16": 612}
    assert told["output"]["parameters"] == 612
    assert told["ties"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert [(s["line"], s["place"], len(s["tensors"])) for s in told["statements"]] == [
        (3, "layers[0].mlp", 3),
        (4, "norm", 1),
        (5, "head", 0),
    ]
    assert len(told["copied"]) == 34
    assert from_json(json.dumps(told["plan"])) == merged.plan


def test_json_holds_warnings(compilation: Compile) -> None:
    told = json.loads(explain(compilation('let base = model("base")\nlet b = model("b")\n* = base'), "json"))
    assert [(w["code"], w["line"]) for w in told["warnings"]] == [("W0502", 2)]


def sound(drawing: Drawing) -> None:
    keys = [b.key for b in drawing.boxes]
    assert len(set(keys)) == len(keys)
    assert {k for edge in drawing.edges for k in edge} == set(keys)
    outputs = {b.key for b in drawing.boxes if b.shape == "output"}
    assert not outputs & {start for start, _ in drawing.edges}


def test_a_small_graph_is_drawn_whole(compilation: Compile) -> None:
    merged = compilation(SMALL)
    drawing = draw(merged)
    sound(drawing)
    assert sum(b.shape == "output" for b in drawing.boxes) == len(merged.graph.outputs)
    labels = [b.label for b in drawing.boxes]
    assert "a\nmodel.norm.weight\nBF16 [4]" in labels
    assert sum(label.startswith("ties: ") for label in labels) == 3


def test_of_a_large_graph_one_stands_for_all_that_are_computed_alike(compilation: Compile) -> None:
    merged = compilation(LARGE)
    assert len(merged.graph.written_out().nodes) > LARGEST
    drawing = draw(merged)
    sound(drawing)
    outputs = [b.label for b in drawing.boxes if b.shape == "output"]
    assert len(outputs) == 2
    assert "model.embed_tokens.weight\nlayers[0..3] (9 tensors each)\nBF16 [8, 4]" in outputs
    assert len(drawing.boxes) < 40


def test_dot_is_graphviz(compilation: Compile) -> None:
    lines = explain(compilation(SMALL), "dot").splitlines()
    assert (lines[0], lines[-1]) == ("digraph merge {", "}")
    string = r'"(?:[^"\\]|\\.)*"'
    statement = rf"  (?:[no]\d+ \[label={string}, shape=\w+(?:, style=rounded)?\]|[no]\d+ -> [no]\d+);"
    assert [line for line in lines[3:-1] if not re.fullmatch(statement, line)] == []


def test_mermaid_is_a_flowchart(compilation: Compile) -> None:
    lines = explain(compilation(SMALL), "mermaid").splitlines()
    assert lines[0] == "flowchart LR"
    text = r'"(?:[\w ._\-,:()/=+]|#\d+;|<br/>)*"'
    statement = rf"  (?:[no]\d+(?:\[{text}\]|\({text}\)|\[\[{text}\]\])|[no]\d+ --> [no]\d+)"
    assert [line for line in lines[1:] if not re.fullmatch(statement, line)] == []


def test_quotes_in_names_are_escaped(compilation: Compile) -> None:
    odd = {"tensors": {'a"]; b -> c\\': ("F32", (2,))}}
    merged = compilation('let base = model("odd")\n* = base * 2', odd=odd)
    assert '\\"]; b -> c\\\\\\n' in explain(merged, "dot")
    assert "a#34;#93;#59; b -#62; c#92;" in explain(merged, "mermaid")
