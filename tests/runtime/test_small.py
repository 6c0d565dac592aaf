"""Small tensors made many at a time: the same bytes as one by one, whatever they are of, and
whatever stops a run."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from pathlib import Path

import mergec
import numpy as np
import pytest
import torch
from compiled import skip_without_a_compiler
from draft_plans import Draft, MemoryInputs, MemoryOutputs
from hypothesis import given, settings
from hypothesis import strategies as st
from mergec.compiler.plan.plan import (
    CHUNK,
    Copy,
    Instruction,
    Mask,
    Reduction,
    Register,
    Scalar,
    Step,
    Stream,
)
from mergec.grammar.diagnostic import MergecError
from mergec.runtime.execute import engine
from mergec.runtime.execute.executor import Cancelled, execute
from mergec.runtime.files.inputs import Inputs
from mergec.runtime.stream import batching
from mergec.runtime.stream.batching import Alone, Batchable, Copies, SmallOutput, parts
from resume_models import plan_of, weights
from safetensors.torch import load_file, save_file
from stopping import Stop

METHODS = (
    "* = linear(a, b, weight=[0.3, 0.7])",
    "* = slerp(a, b, t=0.3)",
    "* = ties(a, b, base=base, density=0.4)",
    '* = dare_ties(a, b, base=base, density=0.5, rescale="l1")',
    "* = dare_linear(a, b, base=base, density=[0.2, 0.7])",
    "* = della(a, b, base=base, density=0.5, epsilon=0.1)",
    "* = breadcrumbs(a, b, base=base, density=0.7, gamma=0.1)",
    "* = model_stock(a, b, base=base)",
    "* = nearswap(a, b, t=0.001)",
    "* = sce(a, b, base=base, select_topk=0.5)",
    "* = base",
    '* = ties(a, b, base=base, density=0.5)\n"*.1.*" = slerp(a, b, t=curve([0, 1]))\n"*.2.*" = base\nhead = a + b',
)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


def write_models(folder: Path, *, spoilt: str | None = None) -> Path:
    """Three models of many small tensors, of mixed dtypes and shapes, and a few that are not
    small."""
    folder.mkdir()
    shapes = {"embed.weight": (40, 9), "head.weight": (9, 40), "wide.weight": (3, CHUNK), "chunk.weight": (64, 1024)}
    for k in range(30):
        shapes |= {f"layers.{k}.q.weight": (9, 9), f"layers.{k}.norm.weight": (7,), f"layers.{k}.scale": (1,)}
        shapes[f"layers.{k}.up.weight"] = (33, 31)
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {
            name: torch.randn(shape, generator=random).to(DTYPES[n % 3 if "layers" in name else 0])
            for n, (name, shape) in enumerate(shapes.items())
        }
        # coarse numbers, many of which are equal, and a layer that nothing was done to
        tensors["layers.5.up.weight"] = tensors["layers.5.up.weight"].round()
        tensors["layers.6.up.weight"] = torch.zeros(33, 31, dtype=torch.bfloat16)
        if spoilt is not None and label == "a":
            tensors[spoilt].view(-1)[2] = float("nan")
        save_file(tensors, folder / f"{label}.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("small") / "m")


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many steps ran by themselves, and how many members together."""
    found: Counter[str] = Counter()
    run, together = engine.Engine.run, engine.Engine.run_batchable

    def alone(self: engine.Engine, step: Step) -> None:
        found["alone"] += 1
        run(self, step)

    def several(self: engine.Engine, members: tuple[SmallOutput | Step, ...], watched: set[int]) -> None:
        found["together"] += len(members)
        together(self, members, watched)

    monkeypatch.setattr(engine.Engine, "run", alone)
    monkeypatch.setattr(engine.Engine, "run_batchable", several)
    return found


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", METHODS)
def test_the_same_bytes_as_one_by_one(
    recipe: str, folder: Path, kinds: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lanes in (1, 3):
        plan = plan_of(folder, recipe, lanes=lanes)
        outcome = mergec.run(plan, tmp_path / f"{lanes}").outcome
        assert outcome.peak_host == plan.peak_host
        assert outcome.bytes_written == plan.writes
    assert kinds["together"] > 2 * 100 or recipe == "* = base"
    monkeypatch.setattr(batching, "SMALL", 0)
    kinds.clear()
    mergec.run(plan_of(folder, recipe), tmp_path / "single")
    assert not kinds["together"]
    assert weights(tmp_path / "1") == weights(tmp_path / "3") == weights(tmp_path / "single")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 2.0, 1e-45, 3e38, float("inf"), float("nan")]),
        min_size=1,
        max_size=80,
    ),
    st.floats(-2, 90),
    st.integers(1, 3),
)
def test_a_threshold_is_the_one_of_a_sort(values: list[float], k: float, tensors: int) -> None:
    """Of several tensors in one batch, each begins elsewhere in the same values."""
    draft, numel = Draft("F32"), len(values)
    wanted = []
    for turn in range(tensors):
        x = torch.tensor(values[turn % numel :] + values[: turn % numel])
        stream = draft.input(x)
        draft.add(numel, [stream], [], reductions=[Reduction("threshold", Scalar(turn), (Register(0),), (("k", k),))])
        above = Instruction("above", Mask(0), (Register(0), Scalar(turn)))
        number = Instruction("number", Register(0), (Mask(0),))
        draft.add(numel, [stream], [above, number], stores=[draft.output(0, "F32", numel)])
        order = np.argsort(-(x.numpy().view(np.uint32) & 0x7FFFFFFF).astype(np.int64), kind="stable")
        kept = np.zeros(numel, np.float32)
        kept[order[: int(min(max(k, 0), numel))]] = 1
        wanted.append(kept.tobytes())
    _, made = draft.run()
    assert made == wanted


def test_copies_between_small_tensors_go_along(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, '* = linear(a, b, weight=0.5)\n"*.norm*" = b\nwide = a')
    found = list(parts(plan, lambda _: 0))
    together = [p for p in found if isinstance(p, Batchable)]
    copies = [m for p in together for m in p.members if isinstance(m, Step)]
    assert len(copies) == 30
    assert all(isinstance(c.action, Copy) for c in copies)
    mergec.run(plan, tmp_path / "out")
    made, given = (load_file(p) for p in (tmp_path / "out" / "model.safetensors", folder / "b.safetensors"))
    assert all(torch.equal(made[name], given[name]) for name in given if "norm" in name)


def test_every_step_is_in_one_part(folder: Path) -> None:
    for recipe in METHODS:
        plan = plan_of(folder, recipe)
        seen: list[object] = []
        for part in parts(plan, lambda _: 0):
            match part:
                case Alone(step):
                    seen.append(step.action)
                case Copies(steps):
                    seen.extend(step.action for step in steps)
                case Batchable(members):
                    for m in members:
                        seen.extend(m.passes if isinstance(m, SmallOutput) else [m.action])
        assert list(map(id, seen)) == [id(step.action) for step in plan.steps]


def test_a_scalar_that_is_read_elsewhere_keeps_its_steps_apart() -> None:
    draft = Draft("F32")
    x, y = torch.arange(8.0), torch.ones(8)
    first, second = draft.input(x), draft.input(y)
    total = [Reduction("sum", Scalar(0), (Register(0),))]
    draft.add(8, [first], [], reductions=total, stores=[draft.output(0, "F32", 8)])
    scaled = Instruction("mul", Register(0), (Register(0), Scalar(0)))
    draft.add(8, [second], [scaled], stores=[draft.output(0, "F32", 8)])
    assert [type(p) for p in parts(draft.plan(), lambda _: 0)] == [Alone, Alone]
    _, made = draft.run()
    assert np.frombuffer(made[1], np.float32).tolist() == [28.0] * 8


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["* = linear(a, b, weight=0.5)", "* = ties(a, b, base=base, density=0.5)", "* = a"])
@pytest.mark.parametrize("error", [False, True])
def test_what_is_not_finite_is_counted_for_its_tensor(recipe: str, error: bool, tmp_path: Path) -> None:
    name = "layers.17.up.weight"
    folder = write_models(tmp_path / "m", spoilt=name)
    mixed = recipe + "\nembed = base - a"
    plan = plan_of(folder, ('output(on_nonfinite="error")\n' if error else "") + mixed)
    if error:
        with pytest.raises(MergecError) as caught:
            mergec.run(plan, tmp_path / "out")
        assert name in str(caught.value.diagnostics[0])
        return
    found = mergec.run(plan, tmp_path / "out").outcome.non_finite
    assert found == ({} if recipe == "* = a" else {name: 1})


def test_a_read_that_fails_for_one_tensor(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished before is kept, and the next run goes on from there."""
    plan = plan_of(folder, METHODS[2], lanes=1)
    mergec.run(plan, tmp_path / "wanted")
    last = [p for p in parts(plan, lambda _: 0) if isinstance(p, Batchable)][-1]
    output = [m for m in last.members if isinstance(m, SmallOutput)][-1]
    operand = output.passes[0].operands[1]
    assert isinstance(operand, Stream)
    extent = operand.extents[0]
    whole = Inputs.read_into

    def failing(self: Inputs, file: int, start: int, view: memoryview) -> None:
        if file == extent.file and start <= extent.start < start + len(view):
            raise self.fault(file, OSError(errno.EIO, "input/output error"), extent.start)
        whole(self, file, start, view)

    with monkeypatch.context() as patch:
        patch.setattr(Inputs, "read_into", failing)
        with pytest.raises(MergecError) as caught:
            mergec.run(plan, tmp_path / "out")
    assert caught.value.diagnostics[0].code == "E0611"
    assert f"at byte {extent.start}" in caught.value.diagnostics[0].message
    report = mergec.run(plan, tmp_path / "out")
    assert 0 < report.resumed < len(plan.tensors)
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("after", [0, 20, 60, 90])
def test_cancelled_in_the_midst(after: int, lanes: int, folder: Path, tmp_path: Path) -> None:
    plan, cancel = plan_of(folder, METHODS[-1], lanes=lanes), threading.Event()
    mergec.run(plan, tmp_path / "wanted")
    with pytest.raises(Cancelled):
        mergec.run(plan, tmp_path / "out", progress=Stop(after, cancel), cancel=cancel)
    assert not (tmp_path / "out").exists()
    mergec.run(plan, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


def test_a_batch_holds_no_more_than_one_tensor_may(folder: Path) -> None:
    """Memory is shared out to lanes; where it is too little for that, there are fewer of them."""
    for recipe in (METHODS[2], METHODS[5]):
        plan = plan_of(folder, recipe, lanes=4)
        inputs = MemoryInputs([Path(i.path).read_bytes() for i in plan.inputs])
        outcome = execute(plan, inputs, MemoryOutputs([o.size for o in plan.outputs]))
        assert outcome.peak_host == plan.peak_host
