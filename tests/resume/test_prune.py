"""A plan with less to do makes the same bytes of what is left, touches nothing else, and counts its
memory exactly."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import InputFile
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.codec import from_json, to_json
from mergec.compiler.plan.plan import Copy, Extent, Load, Opaque, Pass, Plan
from mergec.compiler.plan.prune import Found, prune, reuse
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute.executor import execute
from mergec.runtime.files.inputs import Inputs
from profiles import examples
from safetensors.torch import save_file
from standin import stand_in

RECIPES = (
    # numbers of one tensor that two need, tensors of one value, copies
    "x0 = slerp(a, b, t=0.3)\nx1 = base\nx2 = slerp(a.x0, b.x0, t=0.6)\nx3 = a\nx4 = 2*a",
    "* = ties(a, b, base=base, density=0.4)",
    "* = dare_ties(a, b, base=base, density=0.4)",
    "* = a + (sqrt(sum(b*b))/sqrt(dot(a, b)*dot(a, b) + 1))*b\nx2 = a",
    # a number of the whole model, numbers that follow from it
    "* = localize_stitch(a, b, base=base, density=0.1)",
    "* = model_stock(a, b, base=base)",
    # whole tensors in memory, and their parts
    "* = tsv_merge(a, b, base=base)\nx1 = truncate_rank(a)",
    "* = knots(a, b, base=base, density=0.5)",
    "let m = slerp(a, b, t=0.4)\n* = ties(truncate_rank(m), a, base=base, density=0.4)",
)
SHAPES = {"x0": (90, 101), "x1": (30, 20), "x2": (90, 101), "x3": (70_000,), "x4": (0,), "x5": (), "x6": (257,)}


class Outputs:
    """Files in memory that refuse to be written to twice, or where they are finished."""

    def __init__(self, plan: Plan, done: set[int]) -> None:
        self.files = [bytearray(output.size) for output in plan.outputs]
        self.free = [bytearray(output.size) for output in plan.outputs]
        for index, t in enumerate(plan.tensors):
            self.free[t.file][t.start : t.start + t.nbytes] = bytes([index not in done]) * t.nbytes

    def write(self, file: int, start: int, data: memoryview) -> None:
        stop = start + data.nbytes
        assert all(self.free[file][start:stop])
        self.free[file][start:stop] = bytes(data.nbytes)
        self.files[file][start:stop] = data

    def copy(self, inputs: Inputs, extent: Extent, file: int, start: int) -> None:
        buffer = memoryview(bytearray(extent.nbytes))
        inputs.read_into(extent.file, extent.start, buffer)
        self.write(file, start, buffer)

    def tensors(self, plan: Plan) -> list[bytes]:
        return [bytes(self.files[t.file][t.start : t.start + t.nbytes]) for t in plan.tensors]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        save_file(
            {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()},
            made / f"{label}.safetensors",
        )
    return made


@cache
def plan_of(folder: Path, recipe: str, device: str) -> Plan:
    lets = "".join(f'let {label} = model("{folder}/{label}.safetensors")\n' for label in ("base", "a", "b"))
    source = Source("<recipe>", f'{lets}output(shard_size="40kB")\n{recipe}')
    return compile_recipe(source, LocalCatalog(), "0", Options(device=device, check_graph=True)).plan


def made(plan: Plan, done: set[int]) -> list[bytes]:
    outputs = Outputs(plan, done)
    with Inputs(plan.inputs) as inputs:
        outcome = execute(plan, inputs, outputs)
    assert not any(map(any, outputs.free))
    # a pass over nothing is planned with the scratch of a lane, and takes none
    steps = [s for s in plan.steps if not (isinstance(s.action, Pass) and s.action.numel == 0)]
    assert max((s.host for s in steps), default=0) <= outcome.peak_host <= plan.peak_host
    assert max((s.device for s in steps), default=0) <= outcome.peak_device <= plan.peak_device
    return outputs.tensors(plan)


@cache
def whole(folder: Path, recipe: str, device: str) -> list[bytes]:
    return made(plan_of(folder, recipe, device), set())


def uses(plan: Plan) -> None:
    """Every number and buffer that a step reads is made by an earlier step, and everything made is
    read."""
    scalars: set[int] = set()
    read: set[int] = set()
    live: set[int] = set()
    for step in plan.steps:
        live |= {a.buffer for a in step.allocate}
        action = step.action
        if isinstance(action, Pass):
            given_ = [a for i in action.code for a in i.args] + [a for r in action.reductions for a in r.args]
            needed = {a.index for a in given_ if type(a).__name__ == "Scalar"}
            own = {r.out.index for r in action.reductions}
            assert needed <= scalars
            for scalar in action.scalars:
                needed |= {a.index for a in scalar.args if type(a).__name__ == "Scalar"}
                assert needed <= scalars | own
                own.add(scalar.out.index)
            scalars |= own
            read |= needed
            assert {o.buffer for o in action.operands if type(o).__name__ == "Held"} <= live
            assert action.stores or action.reductions or action.scalars
        elif isinstance(action, Opaque):
            read |= {s.index for s in action.scalars if type(s).__name__ == "Scalar"}
            assert {i.buffer for i in action.inputs} | {action.output} <= live
        elif isinstance(action, Load):
            assert action.buffer in live
        live -= set(step.release)
    assert not live
    assert scalars == read


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_left_is_made_as_before(
    recipe: str, device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    plan = plan_of(folder, recipe, device)
    wanted = whole(folder, recipe, device)

    @examples(8)
    @given(done=st.sets(st.integers(0, len(plan.tensors) - 1)))
    def check(done: set[int]) -> None:
        less = prune(plan, done)
        uses(less)
        assert from_json(to_json(less)) == less
        assert less.writes == sum(t.nbytes for k, t in enumerate(plan.tensors) if k not in done)
        assert less.reads <= plan.reads
        assert less.peak_host <= plan.peak_host
        assert less.peak_device <= plan.peak_device
        for index, bytes_ in enumerate(made(less, done)):
            assert bytes_ == (wanted[index] if index not in done else bytes(len(bytes_)))

    check()


def test_nothing_and_all(folder: Path) -> None:
    for recipe in RECIPES:
        plan = plan_of(folder, recipe, "cpu")
        assert prune(plan, set()) is plan
        everything = {k for k, t in enumerate(plan.tensors) if t.nbytes}
        less = prune(plan, everything)
        assert (less.reads, less.writes) == (0, 0)
        assert all(isinstance(s.action, Pass) and s.action.numel == 0 for s in less.steps)


def test_nothing_left_but_a_tensor_without_elements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    plan = plan_of(folder, "* = a + sqrt(sum(b*b))*b", "cuda:0")
    made(prune(plan, {k for k, t in enumerate(plan.tensors) if t.nbytes}), set(range(len(plan.tensors))))


def test_a_reduction_is_kept_for_another_tensor_alone(folder: Path) -> None:
    """Two slerps of one pair share their norms and dot; the numbers of a third tensor go with
    it."""
    plan = plan_of(folder, "x0 = slerp(a, b, t=0.3)\n* = base\nx2 = slerp(a.x0, b.x0, t=0.6)", "cpu")
    names = [t.name for t in plan.tensors]
    passes = [s for s in prune(plan, {names.index("x0")}).steps if isinstance(s.action, Pass)]
    assert {plan.tensors[s.tensor].name for s in passes} == {"x2"}


def test_reuse_copies_what_was_found(folder: Path, tmp_path: Path) -> None:
    recipe = RECIPES[1]
    plan = plan_of(folder, recipe, "cpu")
    wanted = whole(folder, recipe, "cpu")
    old = tmp_path / "old"
    old.write_bytes(b"ab" + b"".join(wanted))
    status = old.stat()
    file = InputFile(str(old), status.st_size, status.st_mtime_ns)
    found, at = {}, 2
    for index, bytes_ in enumerate(wanted):
        if index % 2:
            found[index] = Found(file, at)
        at += len(bytes_)
    less = reuse(plan, found)
    assert len(less.inputs) == len(plan.inputs) + 1
    assert sum(isinstance(s.action, Copy) for s in less.steps) == sum(bool(wanted[k]) for k in found)
    assert made(less, set()) == wanted
    assert reuse(plan, {}) is plan
