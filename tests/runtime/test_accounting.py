"""Memory in merges of unlike steps: adapters of several ranks, decompositions, held masks, gathered
rows, copies.

Whatever stands beside whatever, a run holds no more than its plan says, never fails for it, and
makes the same bytes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lora_adapters
import mergec
import pytest
import torch
from compiled import skip_without_a_compiler
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan import concurrency
from mergec.compiler.plan.concurrency import ConcurrentOutputs, Series, reserved, side_by_side
from mergec.compiler.plan.plan import CHUNK, Plan
from mergec.compiler.plan.prune import prune
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute import engine
from mergec.runtime.execute.executor import Cancelled
from profiles import examples
from resume_models import plan_of as models_plan_of
from resume_models import weights
from safetensors.torch import save_file
from standin import stand_in
from stopping import Stop

LAYERS = 3
WIDTH = 256
SHAPES = {
    # three blocks, two of them whole rows and chunks at once; the whole tensor; less than a block
    "self_attn.q_proj": (700, WIDTH),
    "self_attn.k_proj": (300, WIDTH),
    "mlp.up_proj": (301, WIDTH),
    "mlp.down_proj": (WIDTH, 301),
    "self_attn.v_proj": (40, WIDTH),
}
MODULES = [f"model.layers.{k}.{name}" for k in range(LAYERS) for name in SHAPES]
RANKS = (1, 4, 16, 96)
METHODS = (
    "linear({0}, {1}, weight=[0.3, 0.7])",
    "slerp({0}, {1}, t=0.3)",
    "ties({0}, {1}, base=base, density=0.4)",
    "task_arithmetic({0}, {1}, base=base, weight=[0.5, 0.5])",
    'della({0}, {1}, base=base, density=0.5, epsilon=0.1, rescale="l1")',
    "karcher({0}, {1})",
    "{0} + 0.5*({1} - base)*total(abs({1} - base))/70000",
    "{0}",
)
WHOLE = "base + truncate_rank({0} - {1}, rank=3)"
MODELS = ("a", "b", "one", "other", "both", "tuned")


def _vocabulary(number: int, rows: int) -> str:
    """A tokenizer whose words are those of model 0 in another order, and some of its own."""
    words = [f"w{(k * 7 + number) % (rows - number)}" for k in range(rows - number)]
    vocabulary = {word: k for k, word in enumerate([*words, *(f"own{number}.{k}" for k in range(number))])}
    assert len(vocabulary) == rows
    made = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    return json.dumps(made)


@pytest.fixture(scope="module")
def lets(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three models of unlike vocabularies, and adapters of every rank for some modules of each
    kind."""
    folder = tmp_path_factory.mktemp("models")
    text = ""
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        rows = 275 + k
        tensors = {f"{m}.weight": torch.randn(SHAPES[m.split(".", 3)[3]], generator=random) for m in MODULES}
        tensors["model.embed_tokens.weight"] = torch.randn(rows, WIDTH, generator=random)
        tensors["model.norm.weight"] = torch.randn(WIDTH, generator=random)
        (folder / label).mkdir()
        save_file({n: t.bfloat16() if k == 2 else t for n, t in tensors.items()}, folder / label / "model.safetensors")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS}
        (folder / label / "config.json").write_text(
            json.dumps(config | {"tie_word_embeddings": True, "vocab_size": rows})
        )
        (folder / label / "tokenizer.json").write_text(_vocabulary(k, rows))
        text += f'let {label} = model("{folder}/{label}")\n'
        for number, rank in enumerate(RANKS):
            made = lora_adapters.factors(tensors, MODULES[number % 2 :: number % 3 + 1], rank, seed=10 * k + number)
            lora_adapters.write(folder / f"{label}-{rank}", made, r=rank, lora_alpha=3)
            text += f'let {label}{rank} = lora("{folder}/{label}-{rank}")\n'
    return text


@st.composite
def recipes(draw: st.DrawFn) -> str:
    """A few statements for places that overlap, of models with and without adapters."""
    names = [f"{draw(st.sampled_from(['base', 'a', 'b']))}{draw(st.sampled_from(RANKS))}" for _ in range(4)]
    text = f"let one = base + {names[0]}\nlet other = a + {names[1]}\nlet both = base + {names[2]} + 0.5*{names[3]}\n"
    text += "let tuned = base + base4\noutput(tokenizer=base)\n"
    places = ["*", "layers[1]", '"*.q_proj.*"', '"*.up_proj.*"', '"*.down_proj.*"', '"*.k_proj.*"', "embed"]
    for place in ("*", *draw(st.lists(st.sampled_from(places[1:]), max_size=4, unique=True))):
        method = draw(st.sampled_from(METHODS))
        text += f"{place} = " + method.format(*draw(st.permutations(MODELS))) + "\n"
    if draw(st.booleans()):
        text += '"*.v_proj.*" = ' + WHOLE.format(*draw(st.permutations(MODELS))) + "\n"
    return text


def plan_of(text: str, **options: object) -> Plan:
    return compile_recipe(Source("<recipe>", text), LocalCatalog(), "0", Options(**options)).plan  # type: ignore[arg-type]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[ConcurrentOutputs]:
    """What ran abreast."""
    found: list[ConcurrentOutputs] = []
    whole = engine.Engine.run_concurrently

    def told(self: engine.Engine, group: ConcurrentOutputs) -> None:
        found.append(group)
        whole(self, group)

    monkeypatch.setattr(engine.Engine, "run_concurrently", told)
    return found


def test_no_more_than_the_plan_says(
    lets: str, tmp_path: Path, groups: list[ConcurrentOutputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: set[int] = set()

    @examples(12)
    @given(
        recipe=recipes(), lanes=st.sampled_from([2, 3, 5]), medium=st.sampled_from([80_000, 1 << 24]), data=st.data()
    )
    def check(recipe: str, lanes: int, medium: int, data: st.DataObject) -> None:
        monkeypatch.setattr(concurrency, "MEDIUM", medium)
        text = lets + recipe
        one, free = plan_of(text, lanes=1), plan_of(text, lanes=lanes)
        least = plan_of(text, lanes=1, block=CHUNK).peak_host
        budget = data.draw(st.integers(min(least, free.peak_host), free.peak_host))
        tight = plan_of(text, lanes=lanes, host_memory=budget)
        assert tight.peak_host <= budget
        made = []
        for plan in (one, free, tight):
            groups.clear()
            outcome = mergec.run(plan, tmp_path / "out", force=True, fresh=True).outcome
            assert outcome.peak_host <= plan.peak_host
            assert max(s.host for s in plan.steps) <= plan.peak_host
            ran.update(sum(len(s.allocate) for s in m.steps) for group in groups for m in group.members)
            made.append(weights(tmp_path / "out"))
        assert made[0] == made[1] == made[2]
        done = data.draw(st.sets(st.integers(0, len(free.tensors) - 1)))
        less = prune(free, done)
        assert max((s.host for s in less.steps), default=0) <= less.peak_host <= free.peak_host

    check()
    skip_without_a_compiler()
    assert max(ran) >= 4


def test_an_accelerator_holds_no_more(lets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)

    @examples(4)
    @given(recipe=recipes(), lanes=st.sampled_from([1, 3]), data=st.data())
    def check(recipe: str, lanes: int, data: st.DataObject) -> None:
        text = lets + recipe
        free = plan_of(text, lanes=lanes, device="cuda:0")
        least = plan_of(text, lanes=1, block=CHUNK, device="cuda:0").peak_device
        budget = data.draw(st.integers(min(least, free.peak_device), free.peak_device))
        for plan in (free, plan_of(text, lanes=lanes, device="cuda:0", device_memory=budget)):
            outcome = mergec.run(plan, tmp_path / "out", force=True, fresh=True).outcome
            assert outcome.peak_host <= plan.peak_host
            assert outcome.peak_device <= plan.peak_device

    check()


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", METHODS[:4])
def test_adapters_keep_all_lanes(
    rank: int, method: str, lets: str, tmp_path: Path, groups: list[ConcurrentOutputs]
) -> None:
    """Each lane has factors of its own, for which the plan has the memory."""
    skip_without_a_compiler()
    text = lets + f"let tuned = base + base{rank}\nembed = base\nnorm = base\nlayers = {method.format('tuned', 'a')}\n"
    plan = plan_of(text, lanes=3)
    outcome = mergec.run(plan, tmp_path / "out").outcome
    assert outcome.peak_host <= plan.peak_host <= 2 * max(s.host for s in plan.steps)
    assert sum(len(g.members) for g in groups if g.lanes == 3) >= 3 * LAYERS
    (tmp_path / "out").rename(tmp_path / "three")
    mergec.run(plan_of(text, lanes=1), tmp_path / "out")
    assert weights(tmp_path / "three") == weights(tmp_path / "out")


def test_memory_that_others_hold_takes_lanes(lets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that has less than it should: lanes go down to one, and all is made."""
    skip_without_a_compiler()
    text = lets + "let tuned = base + base16\n* = ties(tuned, b, base=base, density=0.4)\noutput(tokenizer=base)\n"
    plan = plan_of(text, lanes=3)
    mergec.run(plan, tmp_path / "wanted")
    whole = engine.Engine.run_concurrently
    used: list[int] = []
    for share in (1.0, 0.7, 0.4, 0.0):

        def poor(self: engine.Engine, group: ConcurrentOutputs, share: float = share) -> None:
            self._plan = replace(self._plan, peak_host=int(share * group.lanes * group.needs))
            spread = self._lanes.spread

            def told(items: int, work: Callable[[int, int], None], most: int) -> None:
                used.append(most)
                spread(items, work, most)

            monkeypatch.setattr(self._lanes, "spread", told)
            whole(self, group)

        with monkeypatch.context() as patch:
            patch.setattr(engine.Engine, "run_concurrently", poor)
            mergec.run(plan, tmp_path / "out", force=True, fresh=True)
        assert weights(tmp_path / "out") == weights(tmp_path / "wanted")
    assert set(used) == {3, 2, 1}


@pytest.mark.parametrize("after", [0, 4, 9])
def test_stopped_and_gone_on_with(after: int, lets: str, tmp_path: Path) -> None:
    """What is left of a plan holds no more than all of it, in arenas that are cut for what is
    left."""
    text = (
        lets + 'output(tokenizer=base, shard_size="600kB")\nlet tuned = base + base96\n* = ties(tuned, b, base=base)\n'
    )
    plan, cancel = plan_of(text, lanes=3), threading.Event()
    mergec.run(plan, tmp_path / "wanted")
    with pytest.raises(Cancelled):
        mergec.run(plan, tmp_path / "out", progress=Stop(after, cancel), cancel=cancel)
    report = mergec.run(plan, tmp_path / "out")
    assert report.outcome.peak_host <= plan.peak_host
    assert weights(tmp_path / "out") == weights(tmp_path / "wanted")


# --- the rule by itself ---------------------------------------------------------------------------


def _series(sizes: Sequence[tuple[int, int]]) -> list[Series]:
    return [Series((), frozenset(), needs, sharing) for needs, sharing in sizes]


SIZES = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 9)), max_size=60)


@given(sizes=SIZES, lanes=st.integers(1, 9), room=st.integers(0, 4000))
def test_what_runs_side_by_side_fits(sizes: list[tuple[int, int]], lanes: int, room: int) -> None:
    series = _series(sizes)
    found = side_by_side(series, lanes, room)
    members = [id(m) for group in found for m in group.members]
    assert len(members) == len(set(members))
    assert set(members) <= set(map(id, series))
    for group in found:
        assert 2 <= group.lanes <= lanes
        assert group.lanes * max(m.needs for m in group.members) <= room
        assert len(group.members) >= concurrency.ENOUGH * group.lanes
    if len(sizes) >= 2 * concurrency.ENOUGH * lanes and lanes > 1 and lanes * max(n for n, _ in sizes) <= room:
        wanted = [s for s in series if s.sharing <= lanes]
        assert members == list(map(id, wanted)) or len(wanted) < concurrency.ENOUGH * lanes


def test_memory_for_outputs_that_are_computed_alike(tmp_path: Path, groups: list[ConcurrentOutputs]) -> None:
    """Their masks are held in each lane; the plan has the steps of one of them before it has those
    of all."""
    skip_without_a_compiler()
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {f"layers.{i}.up.weight": torch.randn(800, 256, generator=random) for i in range(8)}
        save_file(tensors, tmp_path / f"{label}.safetensors")
    plan = models_plan_of(tmp_path, METHODS[4].format("a", "b").join(("* = ", "\n")), lanes=3)
    assert plan.peak_host > max(s.host for s in plan.steps)
    outcome = mergec.run(plan, tmp_path / "out").outcome
    assert outcome.peak_host == plan.peak_host
    assert [(len(g.members), g.lanes) for g in groups] == [(8, 3)]


def test_nothing_is_reserved_for_nothing() -> None:
    assert reserved([], 3, 100) == 100
    assert reserved([], 1, 0) == 0
