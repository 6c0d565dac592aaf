"""Each pass over the graph, by text: tests/passes/PASS.txt has recipes, and the graph before and
after the pass.

=== what is shown
* = 1*a + 0*b
--- before
%0 = source a
…
x = %6
--- after
%0 = source a
x = %0

Passes change what is computed, and nothing that comes of it: every case is run with them and
without.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from error_cases import Case, read_cases, update
from mergec.compiler import pipeline
from mergec.compiler.graph.graph import Graph, Node
from mergec.compiler.graph.verifier import verify
from method_calls import calls
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent
MODELS = ("base", "a", "b", "c")
PLAIN = tuple(run for run in pipeline.PASSES if run is not verify)
"""The passes, whatever is looked at in between."""


CASES = [(run, case) for run in PLAIN for case in read_cases(FOLDER / f"{run.__name__}.txt")]


def _id(value: Any) -> str | None:
    return value.title.replace(" ", "-").replace(",", "") if isinstance(value, Case) else None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models of one matrix each, with zeros and equal elements in them."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(MODELS):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        x[1, 2], x[2] = 0.0, x[2, 0]
        save_file({"x": x}, folder / f"{name}.safetensors")
    return folder


def compiled(models: Path, recipe: str) -> mergec.Compiled:
    lets = "".join(f'let {name} = model("{models}/{name}.safetensors")\n' for name in MODELS)
    return mergec.compile(lets + recipe, device="cpu", lanes=1)


def text_of(graph: Graph) -> str:
    """The nodes that an output needs, a line each, and the outputs."""
    nodes = graph.live()
    numbers = {node.id: k for k, node in enumerate(nodes)}
    lines = [f"%{numbers[node.id]} = {_formula(node, numbers)}" for node in nodes]
    return "\n".join([*lines, *(f"{o.name} = %{numbers[o.node.id]}" for o in graph.outputs)]) + "\n"


def _formula(node: Node, numbers: dict[int, int]) -> str:
    attributes = dict(node.attributes)
    if node.op == "source":
        return f"source {MODELS[attributes['range'].model]}"
    if node.op == "const":
        return f"const {attributes['value']:g}"
    shown = [f"{k}={'…' if k == 'key' else v}" for k, v in attributes.items()]
    return " ".join([node.op, *(f"%{numbers[i.id]}" for i in node.inputs), *shown])


def before(run: Callable[[Graph], Graph], models: Path, recipe: str, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """The graph as the passes before `run` leave it."""
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "PASSES", PLAIN[: PLAIN.index(run)])
        return compiled(models, recipe).compilation.graph


def test_every_pass_has_cases() -> None:
    assert {run.__name__ for run in PLAIN} == {file.stem for file in FOLDER.glob("*.txt")}


@pytest.mark.parametrize(("run", "case"), CASES, ids=_id)
def test_before_and_after(
    run: Callable[[Graph], Graph],
    case: Case,
    models: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = before(run, models, case.recipe, monkeypatch)
    after = verify(run(verify(first)))
    found = [("", case.recipe), ("before", text_of(first)), ("after", text_of(after))]
    if request.config.getoption("--update-golden", default=False):
        case.sections = found
        update(case)
        return
    assert [(heading, text.rstrip("\n") + "\n") for heading, text in case.sections] == found
    again = run(after)
    assert text_of(again) == text_of(after), "a second time it finds more"


@pytest.mark.parametrize(("run", "case"), CASES, ids=_id)
def test_the_bytes_are_those_without_passes(
    run: Callable[[Graph], Graph],  # noqa: ARG001
    case: Case,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled(models, case.recipe).run(tmp_path / "with")
    monkeypatch.setattr(pipeline, "PASSES", (verify,))
    compiled(models, case.recipe).run(tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


def test_the_methods_make_the_same_without_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, with weights of 0 and 1 among those that vary with depth."""
    values = [f"(1 - depth) * {call} + depth * (0.5 + depth) * a" for call in calls()]
    for seed, name in enumerate(MODELS):
        random = torch.Generator().manual_seed(seed)
        save_file(
            {f"layers.{k}.x": torch.randn(4, 4, generator=random) for k in range(len(values))},
            tmp_path / f"{name}.safetensors",
        )
    recipe = "output(like=base)\n" + "".join(f"layers[{k}] = {value}\n" for k, value in enumerate(values))
    compiled(tmp_path, recipe).run(tmp_path / "with")
    monkeypatch.setattr(pipeline, "PASSES", (verify,))
    compiled(tmp_path, recipe).run(tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


def weights(folder: Path) -> dict[str, bytes]:
    """The numbers of each tensor; a zero has no sign, as that of `0 * x` is nobody's concern."""
    return {name: (x + 0.0).numpy().tobytes() for name, x in load_file(folder / "model.safetensors").items()}
