"""Tensors of medium size, each made by one lane: the same bytes as when lanes share each, and
whatever stops a run."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import mergec
import pytest
import torch
from compiled import skip_without_a_compiler
from mergec.compiler.plan import concurrency as rule
from mergec.compiler.plan.concurrency import ConcurrentOutputs
from mergec.compiler.plan.plan import CHUNK, Stream
from mergec.grammar.diagnostic import MergecError
from mergec.runtime.execute import engine
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.files.inputs import Inputs
from mergec.runtime.resume import keeper
from mergec.runtime.stream.batching import parts
from resume_models import plan_of, weights
from safetensors.torch import save_file
from stopping import Stop

METHODS = (
    "* = linear(a, b, weight=[0.3, 0.7])",
    "* = slerp(a, b, t=0.3)",
    "* = ties(a, b, base=base, density=0.4)",
    '* = dare_ties(a, b, base=base, density=0.5, rescale="l1")',
    '* = della(a, b, base=base, density=0.5, epsilon=0.1, rescale="l1")',
    "* = sce(a, b, base=base, select_topk=0.5)",
    "* = arcee_fusion(a, b)",
    '* = base + (a - base)*total(abs(b - base))/(1 + total(abs(b)))\n"*.1.*" = b\n"*.2.*" = karcher(a, b)',
)
SHAPES = {"q.weight": (300, 304), "o.weight": (301, 300), "up.weight": (64, 2048 + 5), "norm.weight": (37,)}
LAYERS = 4


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


def write_models(folder: Path, *, spoilt: str | None = None) -> Path:
    """Three models of tensors of several chunks, some of which are computed alike, and a small one
    in each layer."""
    folder.mkdir()
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {
            f"layers.{layer}.{name}": torch.randn(shape, generator=random).to(
                torch.bfloat16 if layer % 2 else torch.float32
            )
            for layer in range(LAYERS)
            for name, shape in SHAPES.items()
        }
        tensors["head.weight"] = torch.randn(70, 6000, generator=random)
        if spoilt is not None and label == "a":
            tensors[spoilt].view(-1)[2] = float("nan")
        save_file(tensors, folder / f"{label}.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("medium") / "m")


@pytest.fixture
def concurrent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors ran side by side, each time that any did."""
    found: list[int] = []
    whole = engine.Engine.run_concurrently

    def told(self: engine.Engine, group: ConcurrentOutputs) -> None:
        found.append(len(group.members))
        whole(self, group)

    monkeypatch.setattr(engine.Engine, "run_concurrently", told)
    return found


@pytest.mark.parametrize("recipe", METHODS)
def test_the_same_bytes_as_when_lanes_share_a_tensor(
    recipe: str, folder: Path, concurrent: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lanes in (2, 4):
        plan = plan_of(folder, recipe, lanes=lanes)
        outcome = mergec.run(plan, tmp_path / f"{lanes}").outcome
        assert outcome.peak_host == plan.peak_host
        assert outcome.bytes_written == plan.writes
    assert max(concurrent) >= 3 * (LAYERS - 2)
    monkeypatch.setattr(rule, "MEDIUM", 0)
    concurrent.clear()
    mergec.run(plan_of(folder, recipe, lanes=3), tmp_path / "shared")
    mergec.run(plan_of(folder, recipe, lanes=1), tmp_path / "one")
    assert not concurrent
    made = weights(tmp_path / "2")
    assert all(weights(tmp_path / name) == made for name in ("4", "shared", "one"))


@pytest.mark.parametrize("recipe", METHODS)
def test_no_more_memory_than_the_plan_says(recipe: str, folder: Path, tmp_path: Path) -> None:
    """With little memory lanes can't all have as much as a tensor needs, and then they share it."""
    mergec.run(plan_of(folder, recipe, lanes=1), tmp_path / "wanted")
    least = plan_of(folder, recipe, lanes=1, block=CHUNK).peak_host
    for budget in (least, 2 * least + 1, 3 * least):
        plan = plan_of(folder, recipe, lanes=3, host_memory=budget)
        outcome = mergec.run(plan, tmp_path / "out", force=True, fresh=True).outcome
        assert outcome.peak_host <= plan.peak_host <= budget
        assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


def test_numbers_of_the_whole_model_are_there_before(folder: Path, concurrent: list[int], tmp_path: Path) -> None:
    recipe = '* = ties(a, b, base=base, density=0.3, scope="model")'
    for lanes in (1, 3):
        mergec.run(plan_of(folder, recipe, lanes=lanes), tmp_path / f"{lanes}")
    assert not concurrent
    assert weights(tmp_path / "1") == weights(tmp_path / "3")


def test_few_tensors_are_shared(folder: Path, concurrent: list[int], tmp_path: Path) -> None:
    mergec.run(plan_of(folder, METHODS[1], lanes=8), tmp_path / "out")
    assert not concurrent


def test_what_is_not_finite_is_counted_for_its_tensor(concurrent: list[int], tmp_path: Path) -> None:
    name = "layers.3.up.weight"
    folder = write_models(tmp_path / "m", spoilt=name)
    found = mergec.run(plan_of(folder, METHODS[0], lanes=3), tmp_path / "out").outcome.non_finite
    assert concurrent
    assert found == {name: 1}


def test_a_read_that_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane's fault stops the others, and the next run goes on from what is finished."""
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    plan = plan_of(folder, METHODS[2], lanes=2)
    mergec.run(plan, tmp_path / "wanted")
    (members,) = [p.members for p in parts(plan, None, lambda _: True) if isinstance(p, ConcurrentOutputs)]
    operand = members[-1].steps[0].action.operands[1]
    assert isinstance(operand, Stream)
    extent = operand.extents[0]
    read, borrowed, run = Inputs.read_into, Inputs.borrowed, engine.Engine.run_concurrently
    broken = threading.Event()

    def failing(self: Inputs, file: int, start: int, view: memoryview) -> None:
        if broken.is_set():
            raise self.fault(file, OSError(errno.EIO, "input/output error"), extent.start)
        read(self, file, start, view)

    def refused(self: Inputs, files: list[int]) -> object:
        # without descriptors, the lane asks `read_into`
        return borrowed(self, [] if broken.is_set() else files)

    def late(self: engine.Engine, group: ConcurrentOutputs) -> None:
        run(self, ConcurrentOutputs(group.members[:-1], group.lanes))
        broken.set()
        run(self, ConcurrentOutputs(group.members[-1:], group.lanes))

    with monkeypatch.context() as patch:
        patch.setattr(Inputs, "read_into", failing)
        patch.setattr(Inputs, "borrowed", refused)
        patch.setattr(engine.Engine, "run_concurrently", late)
        with pytest.raises(MergecError) as caught:
            mergec.run(plan, tmp_path / "out")
    assert caught.value.diagnostics[0].code == "E0611"
    report = mergec.run(plan, tmp_path / "out")
    assert 0 < report.resumed < len(plan.tensors)
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


@pytest.mark.parametrize("after", [0, 6, 12])
def test_cancelled_in_the_midst(after: int, folder: Path, tmp_path: Path) -> None:
    plan, cancel = plan_of(folder, METHODS[3], lanes=3), threading.Event()
    mergec.run(plan, tmp_path / "wanted")
    with pytest.raises(Cancelled):
        mergec.run(plan, tmp_path / "out", progress=Stop(after, cancel), cancel=cancel)
    assert not (tmp_path / "out").exists()
    mergec.run(plan, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")
