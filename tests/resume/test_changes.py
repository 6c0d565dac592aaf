"""What a key covers, and what it doesn't: one thing changes between two runs, the second of which
must make the bytes of a run from nothing, and no more tensors again than docs/reliability.md says.

Drawn are values (of every method and operation of the library), the numbers before them, and how
the first run ended. `MERGEC_TEST_EXPLORE=20 pytest tests/resume/test_changes.py` draws others, and
twenty times as many.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import mergec
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from in_step import in_step, told
from mergec.compiler.emit import content
from mergec.compiler.evaluate.extensions import INSTALLED
from mergec.compiler.graph.graph import Node, Output, below, value_of
from mergec.compiler.pipeline import Compilation, Options, compile_recipe
from mergec.grammar.source import Source
from mergec.runtime.catalog import extension_code
from mergec.runtime.catalog.extensions import Primitives
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.resume import environment, keeper
from method_calls import VALUES
from profiles import examples
from resume_models import Told
from safetensors.torch import save_file
from standin import stand_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
MODELS = ("base", "a", "b", "c")
PARTS = {"q": (8, 8), "k": (8, 8), "norm": (8,)}
SHARDS = {"q": 0, "k": 1, "norm": 0}
"""In which file of its model a tensor is."""
LAYERS = 4
KERNELS = {
    "halved": "def halved(out, tensors, numbers, scratch):\n    out.copy_(tensors[0] * {})\n",
    "turned": "def turned(out, tensors, numbers):\n    out.copy_(tensors[0].flip(0) * {})\n",
}
"""Two packages, each with one kernel, whose code has a number in it."""


@dataclass(frozen=True)
class World:
    """All that an output is made of, and how."""

    values: tuple[str, ...]
    numbers: tuple[str, ...]
    factors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KERNELS, 0.5))
    contents: dict[tuple[str, int], int] = field(default_factory=dict)
    settings: str = "seed=1"
    remark: str = "as it was"
    labels: tuple[str, ...] = MODELS
    backwards: bool = False
    version: str = "1"
    torch: str = "of today"
    code: str = "of today"
    options: Options = field(default_factory=lambda: Options(lanes=1))


class Place:
    """Folders in which a world is laid out, run and changed."""

    def __init__(self, folder: Path, world: World, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.world, self._patch = folder, world, patch
        self.out = folder / "out"
        for name in MODELS:
            (folder / name).mkdir()
        patch.syspath_prepend(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        self.lay_out(World((), ()))

    def lay_out(self, before: World) -> None:
        """Makes what lies on the disk, and what the process is, that of the world."""
        world = self.world
        for name in MODELS:
            for shard in range(2):
                seed = world.contents.get((name, shard), 0)
                if not before.values or before.contents.get((name, shard), 0) != seed:
                    self._weights(name, shard, seed)
        for name, text in KERNELS.items():
            (self.folder / f"drawn_{name}.py").write_text(text.format(world.factors[name]))
            sys.modules.pop(f"drawn_{name}", None)
        importlib.invalidate_caches()
        self._patch.setattr(environment, "_machine", lambda: {"torch": self.world.torch})
        for module in (content, extension_code):
            self._patch.setattr(module, "own_code", lambda: self.world.code)

    def _weights(self, name: str, shard: int, seed: int) -> None:
        random = torch.Generator().manual_seed(2 * MODELS.index(name) + shard)
        tensors = {
            f"layers.{k}.{part}.weight": torch.randn(shape, generator=random)
            for k in range(LAYERS)
            for part, shape in PARTS.items()
            if SHARDS[part] == shard
        }
        # one bit of one tensor, which is all that is another
        tensors[f"layers.1.{'qk'[shard]}.weight"].view(-1)[3] += seed / 4
        save_file(tensors, self.folder / name / f"model-{shard + 1:05}-of-00002.safetensors")

    def compiled(self) -> Compilation:
        world, folder = self.world, self.folder
        lets = [f'let {label} = model("{folder / name}")' for label, name in zip(world.labels, MODELS, strict=True)]
        lines = [f"layers[{k}] = {number} * ({value})" for k, (number, value) in enumerate(self._statements())]
        text = "\n".join([f"# {world.remark}", *lets, f"output(like={world.labels[0]}, {world.settings})"])
        parameter = (mergec.Parameter("x", kind="region"),)
        kinds = {"halved": "elementwise", "turned": "opaque"}
        given = [mergec.Primitive(n, parameter, "", f"drawn_{n}:{n}", kind=kind) for n, kind in kinds.items()]
        options = replace(world.options, primitives=Primitives(given))
        text = "\n".join([text, *(lines[::-1] if world.backwards else lines)]) + "\n"
        return compile_recipe(Source("<recipe>", text), LocalCatalog(), world.version, options)

    def _statements(self) -> list[tuple[str, str]]:
        names = dict(zip(MODELS, self.world.labels, strict=True))
        renamed = [re.sub(r"\b(base|a|b|c)\b(?!=)", lambda m: names[m[1]], value) for value in self.world.values]
        return list(zip(self.world.numbers, renamed, strict=True))


Change = Callable[[World], World]
Touched = Callable[[Output, Sequence[Node]], bool]
"""Whether an output, whose value is made of these nodes, has to be made again."""


def _setting(text: str) -> Change:
    return lambda world: replace(world, settings=f"{world.settings}, {text}")


def _reads(model: str, shard: int) -> Touched:
    def touched(_: Output, nodes: Sequence[Node]) -> bool:
        ranges = [node.attribute("range") for node in nodes if node.op == "source"]
        return any(r.model == MODELS.index(model) and SHARDS[r.stored.split(".")[2]] == shard for r in ranges)

    return touched


def _has(op: str) -> Touched:
    return lambda _, nodes: any(node.op == op for node in nodes)


def _calls(kernel: str) -> Touched:
    return lambda _, nodes: any(n.op in INSTALLED and n.attribute("name") == kernel for n in nodes)


def _all(output: Output, nodes: Sequence[Node]) -> bool:  # noqa: ARG001
    return True


def _none(output: Output, nodes: Sequence[Node]) -> bool:  # noqa: ARG001
    return False


CHANGES: dict[str, list[tuple[Change, Touched]]] = {
    "a file of an input, be it one number in it": [
        (lambda w: replace(w, contents={("a", 0): 1}), _reads("a", 0)),
        (lambda w: replace(w, contents={("base", 1): 1}), _reads("base", 1)),
        (lambda w: replace(w, contents={("c", 1): 1}), _reads("c", 1)),
    ],
    "a number, or anything else, in a statement": [
        (lambda w: replace(w, numbers=(w.numbers[0], "0.75", *w.numbers[2:])), lambda o, _: ".1." in o.name),
        (lambda w: replace(w, values=(*w.values[:3], "a - b + c")), lambda o, _: ".3." in o.name),
    ],
    "the dtype of the output, or that of arithmetic": [
        (_setting('dtype="bfloat16"'), _all),
        (_setting('compute="float64"'), _all),
    ],
    "the seed, or what the recipe calls a model": [
        (lambda w: replace(w, settings="seed=2"), _has("bernoulli")),
        (lambda w: replace(w, labels=("base", "x", "y", "z")), _has("bernoulli")),
    ],
    '`on_nonfinite="error"`, or no longer': [(_setting('on_nonfinite="error"'), lambda o, _: o.node.op == "source")],
    "the code of a package's kernel": [
        (lambda w: replace(w, factors=w.factors | {"halved": 0.25}), _calls("halved")),
        (lambda w: replace(w, factors=w.factors | {"turned": 0.25}), _calls("turned")),
    ],
    "mergec's own code": [(lambda w: replace(w, code="another"), lambda _, nodes: [n.op for n in nodes] != ["source"])],
    "lanes, blocks, budgets of memory": [
        (lambda w: replace(w, options=Options(lanes=3)), _none),
        (lambda w: replace(w, options=Options(lanes=2, block=1 << 12, host_memory=1 << 30)), _none),
    ],
    "the size of weight files": [(_setting('shard_size="1kB"'), _none)],
    "remarks, the order of statements, the licence": [
        (lambda w: replace(w, remark="another", backwards=True), _none),
        (_setting('license="mit"'), _none),
    ],
}
"""What changes, by the words of docs/reliability.md, and what has to be made again."""

SURROUNDINGS: dict[str, list[Change]] = {
    "the version of mergec, numpy, torch or the C library; the processor": [
        lambda w: replace(w, version="2"),
        lambda w: replace(w, torch="another"),
    ],
    "the kind of device": [lambda w: replace(w, options=Options(device="cuda:0", lanes=1))],
}
"""What keys don't have in them, as it concerns all tensors alike: the run sees to it that nothing
is taken over."""

KEEPS_JOURNAL = (
    "lanes, blocks, budgets of memory",
    "remarks, the order of statements, the licence",
)
"""After which a stopped run is gone on with."""

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Four values are few enough to look at; to find fewer that fail takes minutes."""

ENDINGS = ("it came to its end", "it was stopped", "it was stopped over an earlier output")


def rows() -> list[str]:
    """The first column of the table of docs/reliability.md."""
    table = PAGE.read_text("utf-8").partition("| has changed | is computed again |")[2].partition("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_the_table_of_the_page_is_what_is_tried_here() -> None:
    assert rows() == [*CHANGES, *SURROUNDINGS]


@pytest.mark.parametrize("row", [*CHANGES, *SURROUNDINGS])
def test_one_thing_has_changed(row: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    start = 9 * [*CHANGES, *SURROUNDINGS].index(row)
    touched = dict(CHANGES.get(row, ()))
    changes = list(touched) or SURROUNDINGS[row]

    @settings(examples(len(changes) + 1), phases=QUICK)
    @given(
        st.lists(st.integers(0, len(VALUES) - 1), min_size=LAYERS, max_size=LAYERS, unique=True),
        st.tuples(*[st.sampled_from(["1", "0.5", "depth"])] * LAYERS),
        st.integers(0, len(changes) - 1),
        st.sampled_from(ENDINGS),
        st.integers(1, 10),
    )
    def holds(chosen: list[int], numbers: tuple[str, ...], which: int, ending: str, after: int) -> None:
        values = [VALUES[(start + k) % len(VALUES)] for k in chosen]
        if "kernel" in row:
            values[1:3] = ["halved(a - b) + turned(c)", "b * total(turned(a))"]
        with pytest.MonkeyPatch.context() as patch:
            stand_in(patch)
            in_step(patch.setattr)
            patch.setattr(keeper, "SECONDS", 0.0)
            place = Place(tmp_path_factory.mktemp("changed"), World(tuple(values), numbers), patch)
            change = changes[which]
            if ending == ENDINGS[0]:
                onto_an_output(place, change, touched.get(change))
            else:
                after_a_stopped_run(place, change, after, row in KEEPS_JOURNAL, earlier=ending == ENDINGS[2])

    holds()


def onto_an_output(place: Place, change: Change, touched: Touched | None) -> None:
    """`touched` is None where nothing is taken over."""
    before = place.compiled()
    mergec.run(before.plan, place.out)
    after = _changed(place, change)
    report = mergec.run(after.plan, place.out, force=True)
    _as_from_nothing(place, after)
    if touched is None:
        assert report.reused == 0
        return
    known = {t.key for t in before.plan.tensors}
    anew = {t.name for t in after.plan.tensors if t.key not in known}
    outputs = after.graph.outputs
    assert anew == {o.name for o in outputs if touched(o, below([value_of(o)]))}
    assert report.reused == len(outputs) - len(anew)


def after_a_stopped_run(place: Place, change: Change, after: int, keeps: bool, *, earlier: bool) -> None:
    """The run before the change is stopped when it begins its tensor of number `after`."""
    if earlier:
        world = place.world
        place.world = replace(world, numbers=("0.125", *world.numbers[1:]))
        mergec.run(place.compiled().plan, place.out)
        place.world = world
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        mergec.run(place.compiled().plan, place.out, force=True, progress=Told(after, cancel.set), cancel=cancel)
    there = told(place.out)
    made = _changed(place, change)
    report = mergec.run(made.plan, place.out, force=True)
    assert report.resumed == (there if keeps else 0)
    _as_from_nothing(place, made)


def _changed(place: Place, change: Change) -> Compilation:
    before = place.world
    place.world = change(before)
    place.lay_out(before)
    return place.compiled()


def _as_from_nothing(place: Place, made: Compilation) -> None:
    fresh = place.folder / "fresh"
    mergec.run(made.plan, fresh, fresh=True)
    weights = [{p.name: p.read_bytes() for p in out.glob("*.safetensors")} for out in (place.out, fresh)]
    assert weights[0] == weights[1]
    assert mergec.run(made.plan, place.out).unchanged
