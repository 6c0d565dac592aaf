"""Operations on whole tensors in plans: memory as predicted, budgets, and which tensors get such an
operation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.ops.table import OPS
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.codec import from_json, to_json
from mergec.compiler.plan.plan import Opaque
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.portable.opaque import OPAQUE
from mergec.runtime.portable.whole_tensor.decompositions import polar
from mergec.runtime.session.session import run_plan
from safetensors.torch import load_file, save_file
from standin import stand_in

RECIPES = (
    "* = tsv_merge(a, b)",
    "* = iso_c(a, b)",
    "* = iso_cts(a, b)",
    "* = star(a, b)",
    "* = knots(a, b, density=0.5)",
    "* = knots(a, b, inner=sum)",
    "* = wudi(a, b, iters=3)",
    '* = wudi(a, b, solver="closed")',
    "* = base + truncate_rank(a - base) + truncate_rank(b - base)",
    "* = rotate(a, b, alignment=0.5, alpha=0.5)",
    "* = crossover(a, b, tilt=0.2)",
    "let m = slerp(a, b, t=0.4)\n* = ties(truncate_rank(m), a, density=0.4)",
    'output(dtype="bfloat16", compute="float64")\n* = iso_c(a, b)',
)


def lets(folder: Path, shapes: Sequence[tuple[int, ...]] = ((90, 101), (301, 20), (70_000,), ())) -> str:
    """Three models of these shapes, written once, and a `let` for each."""
    text = ""
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {f"x{i}": torch.randn(shape, generator=random) for i, shape in enumerate(shapes)}
        save_file(tensors, folder / f"{label}.safetensors")
        text += f'let {label} = model("{folder}/{label}.safetensors")\n'
    return text


def check(compiled: mergec.Compiled, out: Path) -> dict[str, torch.Tensor]:
    outcome = compiled.run(out).outcome
    assert outcome.peak_host == compiled.plan.peak_host
    assert outcome.peak_device == compiled.plan.peak_device == 0
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("recipe", RECIPES)
def test_predicted_is_measured(recipe: str, lanes: int, tmp_path: Path) -> None:
    compiled = mergec.compile(lets(tmp_path) + recipe, device="cpu", lanes=lanes)
    assert any(isinstance(step.action, Opaque) for step in compiled.plan.steps)
    assert from_json(to_json(compiled.plan)) == compiled.plan
    check(compiled, tmp_path / "out")


@pytest.mark.parametrize("recipe", RECIPES[::2])
def test_a_budget_is_met_or_refused(recipe: str, tmp_path: Path) -> None:
    models = lets(tmp_path)
    free = mergec.compile(models + recipe, device="cpu", lanes=4)
    tight = mergec.compile(models + recipe, device="cpu", lanes=1, memory=None)
    whole = max(s.host for s in tight.plan.steps if isinstance(s.action, Opaque))
    with pytest.raises(mergec.MergecError, match="E0317"):
        mergec.compile(models + recipe, device="cpu", lanes=4, memory=whole - 1)
    smallest = mergec.compile(models + recipe, device="cpu", lanes=4, memory=max(whole, tight.plan.peak_host))
    assert smallest.plan.peak_host <= max(whole, tight.plan.peak_host)
    made, wanted = check(smallest, tmp_path / "tight"), check(free, tmp_path / "free")
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_accelerator_has_the_same_peaks_and_bytes(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    source = Source("<recipe>", lets(tmp_path) + recipe)
    made = []
    for device in ("cpu", "cuda:0"):
        plan = compile_recipe(source, LocalCatalog(), "0", Options(device=device, check_graph=True)).plan
        outcome = run_plan(plan, tmp_path / device).outcome
        assert (outcome.peak_host, outcome.peak_device) == (plan.peak_host, plan.peak_device)
        made.append((tmp_path / device / "model.safetensors").read_bytes())
    assert made[0] == made[1]


def test_only_matrices_are_decomposed(tmp_path: Path) -> None:
    """The branch that a tensor's shape rules out leaves no trace in the plan."""
    shapes = [(6, 4), (7,), (), (2, 3, 4), (0,)]
    for method in ("tsv_merge", "iso_c", "iso_cts", "star", "knots", "wudi"):
        plan = mergec.compile(f"{lets(tmp_path, shapes)}* = {method}(a, b)", device="cpu").plan
        touched = {plan.tensors[s.tensor].name for s in plan.steps if isinstance(s.action, Opaque)}
        assert touched == {"x0"}


def test_inputs_die_with_the_operation(tmp_path: Path) -> None:
    plan = mergec.compile(f"{lets(tmp_path, [(40, 30)])}* = tsv_merge(a, b)", device="cpu").plan
    (step,) = [s for s in plan.steps if isinstance(s.action, Opaque)]
    assert isinstance(step.action, Opaque)
    assert set(step.release) == {h.buffer for h in step.action.inputs}
    assert step.host == 3 * 40 * 30 * 4 + step.action.workspace


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("svd_flatten(a)", "takes tensors of 2 axes"),
        ("svd_truncate(3, 2)", "this needs a tensor, not a number"),
        ("singular_merge([])", "of nothing"),
        ("svd_truncate(a, b)", "takes a number here"),
        ("matmul(a, a)", "these matrices have no product"),
        ('wudi(a, b, solver="best")', "`solver` of `wudi`"),
        ("star(a, eta=101)", "must lie in 0..100"),
        ("knots(base=base)", "needs a model"),
    ],
)
def test_what_is_refused(value: str, error: str, tmp_path: Path) -> None:
    shapes = [(7,)] if "flatten" in value else [(6, 4)]
    with pytest.raises(mergec.MergecError, match=error):
        mergec.compile(f"{lets(tmp_path, shapes)}output(like=base)\n* = {value}", device="cpu")


def test_a_product_of_parts_has_its_own_shape(tmp_path: Path) -> None:
    made = mergec.compile(
        f"{lets(tmp_path, [(6, 4)])}let s = svd_shared(a, b, tolerance=0)\n* = matmul(s[0], s[2])", device="cpu"
    )
    out = check(made, tmp_path / "out")
    assert torch.allclose(out["x0"], load_file(tmp_path / "b.safetensors")["x0"], atol=1e-5)


# --- kernels one by one --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
@pytest.mark.parametrize("name", sorted(op.name for op in OPS.values() if op.kind == "opaque" and op.axes == 2))
def test_of_no_elements(name: str, shape: tuple[int, int]) -> None:
    op = OPS[name]
    inputs = (torch.empty(shape), torch.empty(shape[::-1] if name == "matmul" else shape))[: op.arity - len(op.numbers)]
    inputs = inputs or (torch.empty(shape),)
    made = op.shape([tuple(x.shape) for x in inputs]) if op.shape else shape
    out = torch.empty(made)
    OPAQUE[name](inputs, (0.5,) * len(op.numbers), out, {})
    assert out.isfinite().all()
    if op.words:
        assert op.words([tuple(x.shape) for x in inputs]) >= 0


def test_polar_leaves_out_what_is_not_there() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    twice = polar(torch.cat([x, x], dim=1))
    assert torch.linalg.matrix_rank(twice.double(), rtol=1e-4) == 2
    both = polar(x)
    assert torch.allclose(both.T @ both, torch.eye(2), atol=1e-6)
    assert polar(torch.zeros(3, 2)).tolist() == [[0, 0]] * 3
