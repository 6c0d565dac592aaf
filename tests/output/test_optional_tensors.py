"""An optional tensor that some models lack: they drop out of the method there, and of what it
divides by."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

WIDTH = 6
BIAS = "model.layers.{}.mlp.up_proj.bias"
WEIGHT = "model.layers.{}.mlp.up_proj.weight"
HAVE = {"base": (0, 1), "a": (0,), "b": (0, 1), "c": ()}
"""The layers whose bias each model has."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llamas of two layers, of which little is there but one matrix each, with or without its
    bias."""
    root = tmp_path_factory.mktemp("optional")
    for seed, (name, layers) in enumerate(HAVE.items()):
        random = np.random.default_rng(seed)
        tensors = {"model.embed_tokens.weight": random.standard_normal((3, WIDTH)).astype(np.float32)}
        tensors["model.norm.weight"] = np.ones(WIDTH, np.float32)
        tensors |= {WEIGHT.format(i): random.standard_normal((4, WIDTH)).astype(np.float32) for i in (0, 1)}
        tensors |= {BIAS.format(i): random.standard_normal(4).astype(np.float32) for i in layers}
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}
        (root / name / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    return root


def compiled(models: Path, statement: str) -> mergec.Compiled:
    lets = "\n".join(f'let {name} = model("{models / name}")' for name in HAVE)
    return mergec.compile(f"{lets}\noutput(like=base)\n{statement}\n", device="cpu")


def merged(models: Path, out: Path, statement: str) -> dict[str, np.ndarray]:
    compiled(models, statement).run(out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    ("call", "alone"),
    [
        ("linear(a, b, c, weight=[1, 2, 4])", "linear({0}, weight={1})"),
        ("linear(a, b, c, weight=[1, 2, 4], normalize=false)", "linear({0}, weight={1}, normalize=false)"),
        ("n_average(a, b, c)", "n_average({0})"),
        ("ema(a, b, c, beta=0.7)", "ema({0}, beta=0.7)"),
        ("karcher(a, b, c)", "karcher({0})"),
        ("geometric_median(a, b, c)", "geometric_median({0})"),
        ("multislerp(a, b, c, weight=[1, 2, 4])", "multislerp({0}, weight={1})"),
        ("task_arithmetic(a, b, c, weight=[1, 2, 4])", "task_arithmetic({0}, weight={1})"),
        ("ties(a, b, c, weight=[1, 2, 4], density=[0.9, 0.5, 0.2])", "ties({0}, weight={1}, density={2})"),
        ("dare_ties(a, b, c, density=[0.9, 0.5, 0.2])", "dare_ties({0}, density={2})"),
        ("sce(a, b, c)", "sce({0})"),
        ("tsv_merge(a, b, c)", "tsv_merge({0})"),
        ("emr(a, b, c)", "emr({0})"),
        ("consensus(a, b, c, k=1)", "consensus({0}, k=1)"),
    ],
)
def test_models_without_it_drop_out(models: Path, tmp_path: Path, call: str, alone: str) -> None:
    made = merged(models, tmp_path / "out", f"* = {call}")
    weights, densities = {"a": 1, "b": 2}, {"a": 0.9, "b": 0.5}
    for layer, present in ((0, ["a", "b"]), (1, ["b"])):
        numbers = [[table[m] for m in present] for table in (weights, densities)]
        place = f'"{BIAS.format(layer)}"'
        wanted = merged(models, tmp_path / f"{layer}", f"{place} = {alone.format(', '.join(present), *numbers)}")
        np.testing.assert_array_equal(made[BIAS.format(layer)], wanted[BIAS.format(layer)])
    assert np.isfinite(made[WEIGHT.format(1)]).all()


def test_each_is_told(models: Path) -> None:
    found = compiled(models, "* = linear(a, b, c)").diagnostics
    assert [(d.code, d.message) for d in found] == [
        ("W0572", "`c` lacks 2 optional tensors, and drops out of `linear` there"),
        ("W0572", "`a` lacks an optional tensor, and drops out of `linear` there"),
    ]


@pytest.mark.parametrize(
    "call", ["slerp({}, t=0.3)", "nuslerp({}, base=base)", "nearswap({}, t=0.1)", "arcee_fusion({})"]
)
def test_methods_of_two_copy_the_one_that_has_it(models: Path, tmp_path: Path, call: str) -> None:
    b = load_file(models / "b" / "model.safetensors")
    for number, order in enumerate(("a, b", "b, a")):
        made = merged(models, tmp_path / str(number), f"* = {call.format(order)}")
        np.testing.assert_array_equal(made[BIAS.format(1)], b[BIAS.format(1)])


def test_picked_layers_and_parts_of_results(models: Path, tmp_path: Path) -> None:
    b = load_file(models / "b" / "model.safetensors")
    statements = "layers[1].mlp = linear(a.layers[1], b.layers[1], weight=[1, 3]).mlp\nlayers[0] = slerp(c, b, t=0.5)"
    made = merged(models, tmp_path / "out", statements)
    np.testing.assert_allclose(made[BIAS.format(1)], b[BIAS.format(1)], rtol=1e-6)
    np.testing.assert_array_equal(made[BIAS.format(0)], b[BIAS.format(0)])


def test_arithmetic_and_the_base_count_zero(models: Path, tmp_path: Path) -> None:
    b = load_file(models / "b" / "model.safetensors")
    made = merged(models, tmp_path / "out", "* = 0.5*b + 0.5*c\nlayers[0] = task_arithmetic(b, base=c)")
    np.testing.assert_array_equal(made[BIAS.format(1)], b[BIAS.format(1)] / 2)
    np.testing.assert_array_equal(made[BIAS.format(0)], b[BIAS.format(0)])


def test_where_none_has_it_it_is_zero(models: Path, tmp_path: Path) -> None:
    made = merged(models, tmp_path / "out", "* = linear(c, c, weight=[1, 2])")
    assert not made[BIAS.format(0)].any()


def test_a_models_own_number_is_minded(models: Path, tmp_path: Path) -> None:
    made = merged(models, tmp_path / "out", "layers[*].mlp = tall_mask(c, b, a, task=1)\nlayers[1] = base")
    wanted = merged(models, tmp_path / "wanted", f'"{BIAS.format(0)}" = tall_mask(b, a, task=0)')
    np.testing.assert_array_equal(made[BIAS.format(0)], wanted[BIAS.format(0)])


@pytest.mark.parametrize(
    ("value", "factor"),
    [
        # what lacks the bias counts as zero, whether a model is picked from or an expression
        ("a.layers[1]", 0),
        ("(2*a).layers[1]", 0),
        ("(a + b).layers[1]", 1),
        ("(b + a).layers[1]", 1),
        ("(c + 0.5*b).layers[1]", 0.5),
        # it is asked for at the layer that is picked, and not at the one that is made: there
        # `depth` is 1
        ("linear(c, (c if depth < 0.5 else b)).layers[1]", 1),
        ("linear(b, (b if depth < 0.5 else c)).layers[1]", 1),
    ],
)
def test_a_place_of_an_expression_has_the_bias_of_whichever_model_has_it(
    models: Path, tmp_path: Path, value: str, factor: float
) -> None:
    found = merged(models, tmp_path / "out", f"* = base\nlayers[0] = {value}")[BIAS.format(0)]
    own = load_file(models / "b" / "model.safetensors")[BIAS.format(1)]
    np.testing.assert_allclose(found, factor * own, rtol=1e-6)


def test_a_stack_that_is_replaced_leaves_no_names(models: Path, tmp_path: Path) -> None:
    statements = "output(like=c)\nlayers = stack(b.layers[1], b.layers[0])\n* = c"
    lets = "".join(f'let {name} = model("{models / name}")\n' for name in HAVE)
    mergec.compile(lets + statements, device="cpu").run(tmp_path / "out")
    assert sorted(load_file(tmp_path / "out" / "model.safetensors")) == sorted(
        load_file(models / "c" / "model.safetensors")
    )


@pytest.mark.parametrize("models_of_ties", ["c", "c, c", "c, a"])
def test_what_a_method_makes_of_models_that_lack_a_bias_lacks_it_too(
    models: Path, tmp_path: Path, models_of_ties: str
) -> None:
    # at layer 1, where of base, a and c the base alone has it: it drops out, whatever other biases
    # there are
    found = merged(models, tmp_path / "out", f"* = linear(b, ties({models_of_ties}, density=0.5), weight=[1, 3])")
    own = load_file(models / "b" / "model.safetensors")
    np.testing.assert_allclose(found[BIAS.format(1)], own[BIAS.format(1)], rtol=1e-6)


def bias(models: Path, name: str, layer: int) -> np.ndarray:
    """A model's bias in float64; zero where it has none."""
    tensors = load_file(models / name / "model.safetensors")
    return np.asarray(tensors.get(BIAS.format(layer), np.zeros(4)), np.float64)


def expected(models: Path, *weighted: tuple[float, str, int]) -> np.ndarray:
    """The weighted mean of the biases at those layers of those models that have one."""
    there = [(weight, name, layer) for weight, name, layer in weighted if layer in HAVE[name]]
    return sum(w * bias(models, name, layer) for w, name, layer in there) / sum(w for w, _, _ in there)


@pytest.mark.parametrize(
    ("value", "weighted"),
    [
        # a number that varies below a place follows the layers there: layer 1, not the one that is
        # made
        ("linear(c.layers[0], (b if layer == 1 else c).layers[1])", [(1, "b", 1)]),
        ("linear((c if layer == 0 else b).layers[1], base.layers[0], weight=[1, 3])", [(1, "b", 1), (3, "base", 0)]),
        # and in a model that is put together its own
        (
            "linear({layers: stack((c if layer == 1 else b).layers[0], c.layers[0]), _: c}.layers[0], base.layers[1])",
            [(1, "b", 0), (1, "base", 1)],
        ),
        ("linear({layers: stack(c.layers[0], b.layers[0]), _: c}.layers[1], base, weight=[1, 3])", None),
        # a part of several models has the bias of any
        ("{layers: stack(linear(c.layers[0], b.layers[0]), c.layers[0]), _: c}.layers[0]", [(1, "b", 0)]),
        ("{layers: stack(c.layers[0], (c if layer == 1 else b).layers[0]), _: c}.layers[1]", [(1, "b", 0)]),
        ("{mlp: b, _: c}.layers[1]", [(1, "b", 1)]),
        ("{layers: b.layers[0..1], _: c}.layers[1]", [(1, "b", 1)]),
        # and a model put together that has none drops out like any other
        ("linear({layers: stack(c.layers[1], b.layers[0]), _: b}.layers[0], base.layers[1])", [(1, "base", 1)]),
        ("linear({mlp: c, _: b}.layers[0], base.layers[0], weight=[3, 1])", [(1, "base", 0)]),
    ],
)
def test_what_has_the_bias_is_told_by_the_tensor_that_is_looked_up(
    models: Path, tmp_path: Path, value: str, weighted: list[tuple[float, str, int]] | None
) -> None:
    found = merged(models, tmp_path / "out", f"* = base\nlayers[0] = {value}")[BIAS.format(0)]
    wanted = expected(models, *(weighted if weighted is not None else [(1, "b", 0), (3, "base", 0)]))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_model_that_is_put_together_lacks_what_its_parts_lack(models: Path, tmp_path: Path) -> None:
    whole = "{layers: stack(a.layers[1], a.layers[0]), _: a}"  # its layer 1 alone has the bias
    made = merged(models, tmp_path / "one", f"* = linear(b, {whole}, weight=[1, 3])")
    np.testing.assert_allclose(made[BIAS.format(0)], bias(models, "b", 0), rtol=1e-6)
    wanted = (bias(models, "b", 1) + 3 * bias(models, "a", 0)) / 4
    np.testing.assert_allclose(made[BIAS.format(1)], wanted, rtol=1e-6)
    made = merged(models, tmp_path / "two", f"* = b + {whole}")
    np.testing.assert_allclose(made[BIAS.format(0)], bias(models, "b", 0), rtol=1e-6)


@pytest.mark.parametrize("part", ["linear(c.layers[0], b.layers[0])", "c.layers[0] + b.layers[0]"])
def test_a_stack_has_the_optional_tensors_of_all_its_models(models: Path, tmp_path: Path, part: str) -> None:
    made = merged(models, tmp_path / "out", f"* = b\nlayers = stack({part}, c.layers[0], b.layers[1])")
    np.testing.assert_allclose(made[BIAS.format(0)], bias(models, "b", 0), rtol=1e-6)
    assert BIAS.format(1) not in made
    np.testing.assert_array_equal(made[BIAS.format(2)], bias(models, "b", 1).astype(np.float32))
    names = [name for name in made if ".layers." in name]
    assert len(names) == 5


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("layers[0..1].mlp.up.bias = b.layers[0].mlp.up.bias", "E0305"),
        ("layers[0..1].mlp.up.bias = (2*b).layers[0].mlp.up.bias", "E0305"),
        ("layers[1].mlp.up.bias = linear(a, b).layers[0..1].mlp.up.bias", "E0305"),
        ("layers[0].mlp.up.bias = b.layers[0].mlp.up", "E0306"),
        ("layers[0].mlp.up.bias = (2*b).layers[0].mlp", "E0306"),
    ],
)
def test_a_place_that_does_not_correspond_is_no_absence(models: Path, statement: str, code: str) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        compiled(models, f"* = base\n{statement}")
    assert {d.code for d in caught.value.diagnostics if not d.code.startswith("W")} == {code}
