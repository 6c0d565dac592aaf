"""Tensors that are computed alike are made once: the plan is that of making each by itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import mergec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.elaborate.outputs import OutputBuilder, ValueSource
from mergec.compiler.graph.keys import output_keys
from mergec.compiler.graph.verifier import verify
from mergec.compiler.pipeline import Compilation, Options, compile_recipe
from mergec.compiler.plan.plan import Pass, Plan, Scalar
from mergec.grammar.source import Source
from method_calls import calls
from profiles import examples

LAYERS = 4


def tensors(
    dtype: str = "BF16", *, layers: int = LAYERS, odd: bool = False, bias: bool = True, steps: bool = True
) -> dict[str, Any]:
    """A model with matrices of several shapes, experts, biases and an integer buffer."""
    out: dict[str, Any] = {"model.embed_tokens.weight": (dtype, (10, 4))}
    for i in range(layers):
        head = f"model.layers.{i}"
        out[f"{head}.self_attn.q_proj.weight"] = (dtype, (4, 4))
        out[f"{head}.self_attn.k_proj.weight"] = ("F32" if odd and i == 2 else dtype, (4, 4))
        if bias:
            out[f"{head}.self_attn.q_proj.bias"] = (dtype, (4,))
        for e in range(3):
            out[f"{head}.mlp.experts.{e}.up_proj.weight"] = (dtype, (6, 4))
            out[f"{head}.mlp.experts.{e}.down_proj.weight"] = (dtype, (4, 6))
        if steps:
            out[f"{head}.mlp.steps"] = ("I64", (3,))
        out[f"{head}.input_layernorm.weight"] = (dtype, (4,))
    out["model.norm.weight"] = (dtype, (4,))
    out["lm_head.weight"] = (dtype, (10, 4))
    return out


MODELS = {
    "base": {"tensors": tensors(), "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}},
    "a": {"tensors": tensors()},
    "b": {"tensors": tensors("F16", odd=True)},
    "deep": {"tensors": tensors(layers=6, steps=False)},
    "flat": {"tensors": tensors(steps=False)},
    "bare": {"tensors": tensors(bias=False), "config": {"model_type": "llama"}},
}
SIZES = {"mlp.experts.1.up_proj.weight": ("BF16", (5, 4)), "mlp.experts.1.down_proj.weight": ("BF16", (4, 5))}
MODELS["small"] = {
    "tensors": {n: SIZES.get(n.removeprefix("model.layers.2."), entry) for n, entry in tensors().items()}
}
HEAD = "".join(f'let {name} = model("{name}")\n' for name in MODELS) + 'let again = model("a")\n'
COUNTERS = '\n"*.steps" = a'

RECIPES = {
    "copy": "* = a",
    "linear": "* = linear(a, b, weight=0.5)" + COUNTERS,
    "ties": "* = ties(a, b, base=base, density=0.5)" + COUNTERS,
    "one checkpoint twice": "* = linear(a, again, weight=[0.25, 1])" + COUNTERS,
    "nothing left": "* = a - again" + COUNTERS,
    "random": "* = dare_ties(a, b, base=base, density=0.5)" + COUNTERS,
    "whole tensors": "* = where(ndim(a) == 2, svd_truncate(a - b, 2), a)" + COUNTERS,
    "reductions": "* = a * dot(a, b) / total(abs(b) + 1)" + COUNTERS,
    "by depth": "* = slerp(a, b, t=depth)" + COUNTERS,
    "by curve": "* = linear(a, b, weight=[curve([0, 1, 0]), 1])" + COUNTERS,
    "by place": '* = linear(a, b, weight=[{attn: 0.3, "*.down_proj.weight": 0, _: 1}, 1])' + COUNTERS,
    "by layer": "* = a if layer < 2 else base\nembed = a\nhead = a\nnorm = b" + COUNTERS,
    "stack": "layers = stack(a.layers[0..2], b.layers[1..3])\nembed = a\nhead = a\nnorm = a",
    "deeper": "output(like=flat)\nlayers = stack(slerp(deep.layers[0..2], deep.layers[3..5], t=0.5), flat.layers[1])",
    "picked": (
        "output(like=base)\nlayers[0..1].attn = linear(a.layers[0..1].attn, deep.layers[4..5].attn, weight=0.5)"
    ),
    "a region at places": (
        "output(like=flat)\nlet mixed = slerp(flat, deep, t=depth)\nlayers[0..2] = mixed.layers[1..3]"
    ),
    "one layer for all": "output(like=base)\nlayers[*].norm1 = a.layers[0].norm1 if false else a",
    "later wins": "* = a\nlayers[1..2] = ties(a, b, base=base, density=0.5)\nlayers[2].attn = b" + COUNTERS,
    "absent": "output(like=base)\n* = bare * 2 + a" + COUNTERS,
    "absent in all": "output(like=base)\n* = linear(bare, bare, weight=1)" + COUNTERS,
    "among those that have it": "output(like=base)\n* = ties(bare, a, b, base=base, density=0.5)" + COUNTERS,
    "resized": 'output(like=base, resize="base")\n* = linear(small, a, weight=0.5)' + COUNTERS,
    "cut": 'output(like=base, resize="common")\n* = linear(small, a, weight=0.5)' + COUNTERS,
    "put together": (
        "output(like=base)\nlet parts = {layers: stack(a.layers[0..1], base.layers[2..3]), _: base}\n* = parts"
    ),
    "merged of what is put together": (
        "output(like=flat)\nlet parts = {layers: stack(deep.layers[3..4], flat.layers[2..3]), _: flat}\n"
        "* = slerp(parts, flat, t=depth)"
    ),
    "numbers": "output(like=base)\nlayers[*].attn = 0\nlayers[*].norm1 = 1 + depth",
    "whole model": "output(like=base)\nlayers[*].mlp.experts = a * across(total(abs(a)))",
    "trimmed over the model": '* = ties(a, b, base=base, density=0.5, scope="model")' + COUNTERS,
    "other dtypes": 'output(like=base, dtype="float16", compute="float64")\n* = linear(a, b, weight=0.5)' + COUNTERS,
    "two statements share": (
        "output(like=base)\nlayers[0] = a.layers[0] * total(abs(a.layers[0]))\n"
        "layers[1] = a.layers[0] * total(abs(a.layers[0])) * 2\nlayers[2..3] = a * total(abs(a))" + COUNTERS
    ),
    "numbers of a tensor": "* = geometric_median(a, base) + karcher(a, base) / total(abs(a))" + COUNTERS,
    "keep": 'output(like=base, seed=7)\nlayers[*].mlp.experts = a * keep(a, 0.5) + b * keep(b, 0.25, stream="s")',
}


def compiled(recipe: str, **options: Any) -> Compilation:
    return compile_recipe(Source("r.mrg", HEAD + recipe), mergec.MemoryCatalog(MODELS), "0", Options(**options))


def one_by_one(recipe: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Compilation:
    """Compiled with no tensor taken to be like another."""
    look = OutputBuilder._sight

    def alone(self: OutputBuilder, given: ValueSource, name: str) -> None:
        look(self, given, name)

    with monkeypatch.context() as patch:
        patch.setattr(OutputBuilder, "_sight", alone)
        return compiled(recipe, **options)


def settled(plan: Plan) -> list[Any]:
    """A plan's steps with scalars and buffers numbered as they come to be.

    So a number that is used for another scalar again makes no difference, and one used for the
    wrong one does.
    """
    scalars: dict[int, int] = {}
    buffers: dict[int, int] = {}
    counts = [0, 0]

    def new(known: dict[int, int], which: int, index: int) -> int:
        known[index] = counts[which]
        counts[which] += 1
        return known[index]

    def shown(value: Any) -> Any:
        if isinstance(value, Scalar):
            return ("scalar", scalars[value.index])
        if isinstance(value, tuple):
            return tuple(shown(v) for v in value)
        if not dataclasses.is_dataclass(value):
            return value
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        out = {k: shown(v) for k, v in fields.items() if k != "out"}
        for k in ("buffer", "output"):
            if k in out:
                out[k] = buffers[out[k]]
        if "out" in fields:
            is_scalar = isinstance(fields["out"], Scalar)
            out["out"] = new(scalars, 0, fields["out"].index) if is_scalar else shown(fields["out"])
        return (type(value).__name__, out)

    steps = []
    for step in plan.steps:
        for allocation in step.allocate:
            new(buffers, 1, allocation.buffer)
        steps.append((shown(step.allocate), shown(step.action), tuple(buffers[b] for b in step.release)))
        steps.append((step.tensor, step.host, step.device, step.reads, step.writes))
    return steps


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_plan_is_that_of_each_by_itself(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = compiled(RECIPES[name], device=device, check_graph=True)
    slow = one_by_one(RECIPES[name], monkeypatch, device=device)
    assert settled(quick.plan) == settled(slow.plan)
    for field in dataclasses.fields(Plan):
        if field.name not in ("steps", "scalars"):
            assert getattr(quick.plan, field.name) == getattr(slow.plan, field.name)
    assert quick.plan.scalars <= slow.plan.scalars
    assert not any(o.equivalence for o in slow.graph.outputs)


@pytest.mark.parametrize("name", RECIPES)
def test_written_out_it_is_the_graph_of_each_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = verify(compiled(RECIPES[name]).graph.written_out())
    slow = one_by_one(RECIPES[name], monkeypatch).graph
    assert len(whole.nodes) == len(slow.nodes)
    assert [(o.name, o.dtype, o.shape, o.statement) for o in whole.outputs] == [
        (o.name, o.dtype, o.shape, o.statement) for o in slow.outputs
    ]


def test_few_nodes_stand_for_many_tensors() -> None:
    many = compiled(RECIPES["ties"])
    few = {o.equivalence for o in many.graph.outputs if o.equivalence}
    # the matrices of q and k, of k where it is float32, of experts up and down, of norms and
    # biases, embedding and head
    assert len(few) <= 8
    assert sum(o.equivalence is not None for o in many.graph.outputs) >= LAYERS * 9
    assert len(many.graph.nodes) * 3 < len(many.graph.written_out().nodes)
    codes = {id(s.action.code) for s in many.plan.steps if isinstance(s.action, Pass)}
    assert len(codes) * 3 < len(many.plan.steps)


def test_what_two_outputs_read_is_made_once() -> None:
    shared = compiled(RECIPES["two statements share"])
    equal = [o.name for o in shared.graph.outputs if o.equivalence and ".self_attn." in o.name]
    assert {name.split(".")[2] for name in equal} <= {"2", "3"}
    sums = [r for s in shared.plan.steps if isinstance(s.action, Pass) for r in s.action.reductions if r.op == "sum"]
    floats = len([n for n in tensors() if ".layers.0." in n and not n.endswith("steps")])
    assert len(sums) == 3 * floats


weights = st.one_of(
    st.sampled_from(["0", "1", "depth", "layer", "curve([0, 1])", "{mlp: 0, _: depth}", "0.5 if layer == 1 else 1"]),
    st.floats(-2, 2).map(lambda x: f"{x:.3f}"),
)


@st.composite
def statements(draw: st.DrawFn) -> str:
    leaf = st.sampled_from(["a", "b", "base", "again"])
    terms = [f"({draw(weights)}) * ({draw(leaf)} - {draw(leaf)})" for _ in range(draw(st.integers(1, 3)))]
    method = draw(st.sampled_from(["{}", "topk_mask({0}, 0.4) * ({0})", "({0}) * dot({0}, a)", "keep(a, 0.5) * ({0})"]))
    place = draw(st.sampled_from(["*", "layers[*]", "layers[1..2]", "layers[*].mlp", "layers[1, 3].attn.q"]))
    return f"{place} = {draw(leaf)} + {method.format(' + '.join(terms))}"


@examples(40)
@given(st.lists(statements(), min_size=1, max_size=3), st.sampled_from([None, "float16"]))
def test_any_recipe_has_the_plan_of_each_by_itself(lines: list[str], dtype: str | None) -> None:
    recipe = (
        "\n".join([f"output(like=base{f', dtype={dtype!r}' if dtype else ''})", *lines]).replace("'", '"') + COUNTERS
    )
    with pytest.MonkeyPatch.context() as patch:
        slow = one_by_one(recipe, patch)
    quick = compiled(recipe)
    assert settled(quick.plan) == settled(slow.plan)


CODE = {"": "a digest"}


def keys(compilation: Compilation, code: str = CODE[""]) -> dict[str, str]:
    return {o.name: key for o, key in output_keys(compilation.graph, repr, {"": code})}


@pytest.mark.parametrize("name", RECIPES)
def test_keys_are_those_of_each_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = compiled(RECIPES[name]), one_by_one(RECIPES[name], monkeypatch)
    assert keys(quick) == {o.name: key for o, key in output_keys(quick.graph.written_out(), repr, CODE)}
    # what reads the same is one value, and all others have keys of their own
    values = {o.name: o.node.id for o in slow.graph.outputs}
    assert len(set(keys(quick).values())) == len(set(values.values()))


@pytest.mark.parametrize("call", calls())
def test_keys_of_every_method(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = f"let c = flat\noutput(like=base)\nlayers[0..1] = {call}{COUNTERS}"
    quick, slow = compiled(recipe, check_graph=True), one_by_one(recipe, monkeypatch)
    assert {t.name: t.key for t in quick.plan.tensors} == {t.name: t.key for t in slow.plan.tensors}


def test_a_key_tells_what_is_read_and_how() -> None:
    plain = keys(compiled(RECIPES["keep"]))
    assert keys(compiled(RECIPES["keep"])) == plain
    changed = keys(compiled(RECIPES["keep"].replace("seed=7", "seed=8")))
    assert {name for name in plain if plain[name] != changed[name]} == {n for n in plain if ".experts." in n}
    other = keys(compiled("* = linear(a, b, weight=0.5)" + COUNTERS))
    for recipe in ("* = linear(b, a, weight=0.5)", "* = linear(a, b, weight=0.25)", "* = linear(a, base, weight=0.5)"):
        changed = keys(compiled(recipe + COUNTERS))
        assert {n for n in other if other[n] == changed[n]} == {n for n in other if n.endswith("steps")}


@pytest.mark.parametrize("setting", ["", ', dtype="float16"'])
def test_the_key_of_a_copy_is_free_of_the_code_that_computes(setting: str) -> None:
    recipe = f"output(like=base{setting})\n* = linear(a, base, weight=0.5)\nlayers[1..2] = b{COUNTERS}"
    before, after = (keys(compiled(recipe), code) for code in ("one", "another"))
    # b is float16 but for one matrix, and converted to the bfloat16 of the template
    copied = {n for n in before if n.endswith("steps")}
    if setting:
        copied |= {n for n in before if ".layers.1." in n or ".layers.2." in n} - {
            "model.layers.2.self_attn.k_proj.weight"
        }
    assert {n for n in before if before[n] == after[n]} == copied


def test_a_budget_is_met_without_writing_the_plan() -> None:
    free = compiled(RECIPES["ties"])
    tight = compiled(RECIPES["ties"], host_memory=free.schedule.host)
    assert tight.plan == free.plan
    assert free.plan.peak_host == max(s.host for s in free.plan.steps)
    assert (free.plan.reads, free.plan.writes) == tuple(
        sum(getattr(s, which) for s in free.plan.steps) for which in ("reads", "writes")
    )
