"""Primitives of installed packages: found late, checked early, run like those of the language."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from mergec.cli.explain.method import explain_method
from mergec.compiler.pipeline import Options
from mergec.compiler.plan.codec import from_json, to_json
from mergec.compiler.plan.plan import Opaque
from mergec.grammar.render import render
from merging import merge
from packages import installed
from safetensors.torch import load_file, save_file

REGION, NUMBER = mergec.Parameter("x", kind="region"), mergec.Parameter("by", kind="number", low=0)


def weighted(out: torch.Tensor, tensors: Any, numbers: Any, scratch: torch.Tensor) -> None:
    """The sum of the tensors, times a number; uses its scratch, so that it had better be there."""
    room = scratch.view(out.dtype)[: out.numel()]
    room.copy_(tensors[0])
    for each in tensors[1:]:
        room += each
    torch.mul(room, numbers[0], out=out)


def flipped(out: torch.Tensor, tensors: Any, numbers: Any) -> None:
    torch.mul(tensors[0].flip(0), numbers[0], out=out)


def broken(*_: Any) -> None:
    raise ZeroDivisionError("of all things")


WEIGHTED = mergec.Primitive(
    "weighted",
    (mergec.Parameter("xs", variadic=True, kind="region"), mergec.Parameter("by", 1, kind="number", low=0)),
    "a sum times a number",
    f"{__name__}:weighted",
    scratch=4,
)
FLIPPED = mergec.Primitive(
    "flipped",
    (REGION, mergec.Parameter("by")),
    "rows in reverse order, times a number",
    f"{__name__}:flipped",
    kind="opaque",
    workspace=4,
    axes=2,
)
BROKEN = mergec.Primitive("broken", (REGION,), "fails", f"{__name__}:broken")
ABSENT = mergec.Primitive("absent", (REGION,), "is not there", f"{__name__}:nothing_of_this_name")
GIVEN = {p.name: p for p in (WEIGHTED, FLIPPED, BROKEN, ABSENT)}
SHAPES = {"layers.0.w": ("F32", (6, 4)), "layers.1.w": ("F32", (6, 4)), "norm.w": ("F32", (4,))}
CATALOG = mergec.MemoryCatalog({name: {"tensors": SHAPES} for name in ("base", "a")})
LETS = 'let base = model("base")\nlet a = model("a")\n'


def _error(recipe: str, **options: Any) -> str:
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(LETS + recipe, catalog=CATALOG, device="cpu", **options)
    return "\n".join(f"{d.code} {d.message} {d.notes} {d.help}" for d in caught.value.diagnostics)


def test_blocks_and_lanes_make_no_difference() -> None:
    torch.manual_seed(0)
    models = {name: {"w": torch.randn(500, 401)} for name in ("a", "b")}
    recipe = "* = weighted(a, b * 2, 1, by=0.5) + total(weighted([a, b])) * 0"
    results = []
    for lanes, block in ((1, 1 << 16), (3, 1 << 16), (2, 1 << 18)):
        options = Options(lanes=lanes, block=block, primitives=GIVEN, check_graph=True)
        results.append(merge(recipe, models, options)["w"])
    expected = (models["a"]["w"] + 2 * models["b"]["w"] + 1) * 0.5
    torch.testing.assert_close(results[0], expected)
    assert all(torch.equal(r, results[0]) for r in results)


def test_a_whole_tensor_and_a_number_of_the_weights() -> None:
    a = {"w": torch.arange(12.0).reshape(4, 3)}
    merged = merge("* = a + flipped(a * 2, largest(a))", {"a": a}, Options(primitives=GIVEN, check_graph=True))
    torch.testing.assert_close(merged["w"], a["w"] + 2 * a["w"].flip(0) * 11)


def test_a_plan_is_complete_by_itself(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, tmp_path / "a.safetensors")
    recipe = f'let a = model("{tmp_path}/a.safetensors")\n* = weighted(flipped(a, 1), by=2)'
    compiled = mergec.compile(recipe, primitives=GIVEN.values(), device="cpu", single=True)
    plan = from_json(to_json(compiled.plan))
    assert plan == compiled.plan
    report = mergec.run(plan, tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [[6, 8], [2, 4]]
    assert report.outcome.peak_host <= plan.peak_host


def test_scratch_and_workspace_are_in_the_plan() -> None:
    def compiled(primitive: mergec.Primitive, recipe: str) -> mergec.Compiled:
        return mergec.compile(LETS + recipe, catalog=CATALOG, device="cpu", lanes=1, primitives=[primitive])

    more = dataclasses.replace(WEIGHTED, scratch=1004)
    peaks = [compiled(p, "* = weighted(a)").plan.peak_host for p in (WEIGHTED, more)]
    assert peaks[1] - peaks[0] == 1000 * (1 << 16)
    steps = compiled(FLIPPED, "layers[*] = flipped(a, 1)").plan.steps
    assert [s.action.workspace for s in steps if isinstance(s.action, Opaque)] == [4 * 6 * 4] * 2


@pytest.mark.parametrize("primitive", [BROKEN, ABSENT])
def test_what_a_kernel_raises_is_told(primitive: mergec.Primitive, tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    recipe = f'let a = model("{tmp_path}/a.safetensors")\n* = {primitive.name}(a)'
    compiled = mergec.compile(recipe, primitives=[primitive], device="cpu")
    with pytest.raises(mergec.MergecError) as caught:
        compiled.run(tmp_path / "out")
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0615", f"the primitive `{primitive.name}` failed")
    assert re.match("ZeroDivisionError: of all things|AttributeError: .*nothing_of_this_name", found.notes[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("* = weighted(a, by=-1)", "E0209 `by` of `weighted` must lie in 0.."),
        ("* = weighted(a, by=a)", "E0208 `by` of `weighted` must be a number, not a region"),
        ("* = weighted(by=2)", "E0204 `weighted` of nothing"),
        ("* = weighted(1, 2)", "E0208 `weighted` needs a tensor, not a number"),
        ('* = weighted("a")', "E0208 expected a region or a number, not a string"),
        ("layers[*] = flipped(a, a)", "E0208 `flipped` takes a number here"),
        ("* = flipped(a, 1)", "E0307 `flipped` takes tensors of 2 axes"),
        ("* = flipped(a)", "E0204 `flipped` needs `by`"),
        ("layers[*] = weighted(a, a.norm)", "E03"),
        ("* = wieghted(a)", "E0201 no `wieghted` is known here () ('did you mean `weighted`"),
        ("def f(x) = wieghted(x)\n* = a", "E0201 no `wieghted` is known here"),
    ],
)
def test_calls_are_checked(recipe: str, expected: str) -> None:
    assert expected in _error(recipe, primitives=GIVEN.values())


def test_a_body_of_a_def_may_call_one() -> None:
    mergec.compile(LETS + "def f(x) = weighted(x)\n* = f(a)", catalog=CATALOG, device="cpu", primitives=GIVEN.values())


def test_names_of_the_language_come_first() -> None:
    other = [mergec.Primitive(name, (REGION,), "", "nowhere:at_all") for name in ("abs", "linear", "mine")]
    recipe = LETS + "def mine(x) = x\n* = abs(a) + linear(a, base) + mine(a)"
    assert not mergec.compile(recipe, catalog=CATALOG, device="cpu", primitives=other).compilation.recipe.primitives


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": "a-b"}, "its name"),
        ({"kernel": "nowhere"}, "its kernel"),
        ({"kind": "reduction"}, "its kind"),
        ({"parameters": ()}, "no parameter of kind `region`"),
        ({"parameters": (REGION, REGION)}, "one name"),
        ({"parameters": (REGION, mergec.Parameter("s", kind="string"))}, "neither a region nor a number"),
        ({"parameters": (mergec.Parameter("x", 0, kind="region"),)}, "has a default"),
        ({"parameters": (REGION, mergec.Parameter("n", variadic=True))}, "several numbers"),
        ({"scratch": -1}, "less than no memory"),
        ({"kind": "opaque", "scratch": 4}, "only elementwise"),
        ({"workspace": 4}, "only opaque"),
        ({"axes": 2}, "only opaque"),
    ],
)
def test_what_can_be_no_primitive(fields: dict[str, Any], fault: str) -> None:
    good = {"name": "f", "parameters": (REGION, NUMBER), "doc": "", "kernel": "module:function"}
    mergec.Primitive(**good)
    with pytest.raises(ValueError, match=fault):
        mergec.Primitive(**good | fields)


# --- entry points --------------------------------------------------------------------------------

MODULE = """
import mergec
X = mergec.Parameter("x", kind="region")
GOOD = mergec.Primitive("good", (X,), "", "somewhere.else:good")
OTHER = 3
"""


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("good = faulty_pkg:NOTHING", "importing `faulty_pkg:NOTHING` of faulty 2.0 fails"),
        ("good = faulty_pkg.gone:GOOD", "importing `faulty_pkg.gone:GOOD` of faulty 2.0 fails"),
        ("good = faulty_pkg:OTHER", "`faulty_pkg:OTHER` of faulty 2.0 is no `Primitive`"),
        ("well = faulty_pkg:GOOD", "`faulty_pkg:GOOD` of faulty 2.0 calls itself `good`"),
    ],
)
def test_faulty_packages(point: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_pkg.py").write_text(MODULE, "utf-8")
    installed(tmp_path, monkeypatch, "faulty", "2.0", point + "\n")
    shown = _error(f"* = {point.split()[0]}(a)")
    assert shown.startswith(f"E0439 the primitive `{point.split()[0]}` can't be used")
    assert expected in shown


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice_pkg.py").write_text(MODULE, "utf-8")
    for version in "12":
        (tmp_path / version).mkdir()
        installed(tmp_path / version, monkeypatch, f"twice-{version}", version, "good = twice_pkg:GOOD\n")
    assert "several packages offer it: twice-1 1, twice-2 2" in _error("* = good(a)")


def test_the_error_points_at_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "faulty", "2.0", "gone = no_such_package:X\n")
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(LETS + "* = gone(a)", catalog=CATALOG, device="cpu")
    assert render(caught.value.diagnostics).splitlines()[:4] == [
        "error[E0439]: the primitive `gone` can't be used",
        " --> <recipe>:3:5",
        "  |",
        "3 | * = gone(a)",
    ]


def test_packages_are_searched_only_for_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: searched.append(group) or [])
    mergec.compile(LETS + "* = ties(a, density=0.5)", catalog=CATALOG, device="cpu")
    assert searched == []
    _error("* = unheard(a) + unheard_of(a)")
    assert searched == ["mergec.primitives"]


def test_a_primitive_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told_pkg.py").write_text(MODULE.replace('""', '"does good"', 1), "utf-8")
    points = "good = told_pkg:GOOD\nlost = told_pkg:NOTHING\n"
    installed(tmp_path, monkeypatch, "told", "1", points)
    assert explain_method("good") == "good(x)\n  does good\n"
    with pytest.raises(mergec.MergecError, match="E0439"):
        explain_method("lost")


def test_compiling_imports_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "light_pkg.py").write_text(MODULE, "utf-8")
    installed(tmp_path, monkeypatch, "light", "1", "good = light_pkg:GOOD\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import mergec
catalog = mergec.MemoryCatalog({{"a": {{"tensors": {{"w": ("F32", (2,))}}}}}})
mergec.compile('let a = model("a")\\n* = abs(a)', catalog=catalog, device="cpu")
assert "importlib.metadata" not in sys.modules  # slow to import
plan = mergec.compile('let a = model("a")\\n* = good(a)', catalog=catalog, device="cpu").plan
(known,) = [dict(i.attributes) for s in plan.steps for i in s.action.code if i.op == "installed"]
assert (known["package"], known["kernel"]) == ("light 1", "somewhere.else:good"), known
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
