"""Are the benchmark's merges right? Tiny checkpoints, and a reference that holds whole tensors in
float64.

Weights are powers of two, so that products with them are exact and the sign of a sum does not
depend on rounding. Random masks can't be predicted from outside; for them the checks are that a
second run gives the same bytes, that every element is one of the four values that two masks can
produce, and that masks keep about as many elements as asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import make_models
import torch
from check_more import WANTED, check_by_reference
from safetensors.torch import load_file

Tensors = Mapping[str, torch.Tensor]
WEIGHTS = (0.5, 0.25)
DENSITY = 0.5
LAYER = "model.layers."


def linear(_: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (WEIGHTS[0] * a + WEIGHTS[1] * b) / sum(WEIGHTS)


def slerp(_: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    t = 0.4
    cosine = ((a / a.norm()) * (b / b.norm())).sum().clamp(-1, 1)
    if cosine.abs() > 0.9995:
        return (1 - t) * a + t * b
    angle = cosine.arccos()
    merged: torch.Tensor = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    return merged


def trimmed(delta: torch.Tensor) -> torch.Tensor:
    """The `DENSITY` largest magnitudes, the lower index first where they are equal; zero
    elsewhere."""
    flat = delta.flatten()
    kept = flat.abs().sort(descending=True, stable=True).indices[: max(1, int(DENSITY * flat.numel()))]
    return torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(delta)


def elected(deltas: Sequence[torch.Tensor], normalize: bool) -> torch.Tensor:
    """The weighted sum of the deltas that have the sign of that sum, over their weights where
    `normalize`."""
    weighted = [w * d for w, d in zip(WEIGHTS, deltas, strict=True)]
    sign = torch.where(sum(weighted, torch.zeros_like(deltas[0])) >= 0, 1.0, -1.0)
    agree = [d.sign() == sign for d in weighted]
    total = sum((d * k for d, k in zip(weighted, agree, strict=True)), torch.zeros_like(deltas[0]))
    divisor = sum((w * k for w, k in zip(WEIGHTS, agree, strict=True)), torch.zeros_like(deltas[0]))
    return total / torch.where(divisor == 0, 1.0, divisor) if normalize else total


def ties(base: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return base + elected([trimmed(a - base), trimmed(b - base)], normalize=True)


ELEMENTWISE: Mapping[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "linear": linear,
    "slerp": slerp,
    "ties": ties,
}


def close(actual: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Element by element: equal, but for the last bit of a bf16."""
    return (actual.double() - wanted).abs() <= wanted.abs() * 2.0**-7 + 1e-30


def check_elementwise(method: str, out: Tensors, base: Tensors, a: Tensors, b: Tensors) -> list[str]:
    faults = []
    for name, tensor in out.items():
        wanted = ELEMENTWISE[method](base[name].double(), a[name].double(), b[name].double())
        exact = (tensor == wanted.bfloat16()).float().mean().item()
        wrong = int((~close(tensor, wanted)).sum())
        if wrong or exact < 0.99:
            faults.append(f"`{name}`: {wrong} of {tensor.numel()} elements differ, {exact:.2%} are equal to the bit")
    return faults


def check_dare_ties(out: Tensors, base: Tensors, a: Tensors, b: Tensors) -> list[str]:
    faults = []
    still = total = 0
    for name, tensor in out.items():
        origin = base[name].double()
        deltas = [a[name].double() - origin, b[name].double() - origin]
        outcomes = [
            origin + elected([deltas[0] * i / DENSITY, deltas[1] * j / DENSITY], normalize=False)
            for i in (0, 1)
            for j in (0, 1)
        ]
        possible = torch.stack([close(tensor, outcome) for outcome in outcomes]).any(0)
        if not possible.all():
            faults.append(f"`{name}`: {int((~possible).sum())} of {tensor.numel()} elements are no mask's outcome")
        distinct = (outcomes[1] != origin) & (outcomes[2] != origin) & (outcomes[3] != origin)
        distinct &= (outcomes[1].bfloat16() != origin) & (outcomes[2].bfloat16() != origin)
        distinct &= outcomes[3].bfloat16() != origin
        still += int((distinct & (tensor == origin)).sum())
        total += int(distinct.sum())
    share = still / total  # both masks drop an element with probability (1 - density)²
    if abs(share - (1 - DENSITY) ** 2) > 0.01:
        faults.append(f"{share:.1%} of the elements stayed at the base, {(1 - DENSITY) ** 2:.1%} should")
    return faults


def check_passthrough(out: Tensors, a: Tensors, b: Tensors) -> list[str]:
    faults = []
    layers = 1 + max(int(name.split(".")[2]) for name in out if name.startswith(LAYER))
    if layers != 24:
        faults.append(f"{layers} layers instead of 24")
    for name, tensor in out.items():
        source, origin = (b if name == "model.norm.weight" else a), name
        if name.startswith(LAYER):
            index, rest = name.removeprefix(LAYER).split(".", 1)
            if int(index) >= 12:
                source, origin = b, f"{LAYER}{int(index) - 8}.{rest}"
        if not torch.equal(tensor, source[origin]):
            faults.append(f"`{name}` is not a copy of `{origin}`")
    return faults


def check_copy(out: Tensors, a: Tensors) -> list[str]:
    faults = [f"`{name}` is missing" for name in sorted(a.keys() - out.keys())]
    faults += [f"`{name}` is one too many" for name in sorted(out.keys() - a.keys())]
    return faults + [f"`{name}` differs" for name in out.keys() & a.keys() if not torch.equal(out[name], a[name])]


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor below a folder."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def merge(recipe: Path, out: Path) -> None:
    """Run mergec in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "mergec.cli.main", "-q", str(recipe), "-o", str(out)]
    subprocess.run(command, check=True)


def faults(method: str, work: Path, recipes: Path, models: Sequence[Tensors]) -> list[str]:
    """What is wrong with mergec's result for `method`; empty where nothing is."""
    text = (recipes / f"{method}.mrg").read_text().replace('rescale = "l1"', 'rescale = "inv_density"')
    recipe = work / f"{method}.mrg"
    recipe.write_text(text)
    merge(recipe, work / f"{method}-out")
    out = load(work / f"{method}-out")
    if not out or "lm_head.weight" in out:
        return ["a tied head was stored" if out else "there is no output"]
    if method in ELEMENTWISE:
        return check_elementwise(method, out, *models)
    if method == "passthrough":
        return check_passthrough(out, *models[1:])
    if method == "copy":
        return check_copy(out, models[1])
    if method in WANTED:
        return check_by_reference(method, out, models[0], models[1:])
    merge(recipe, work / f"{method}-again")
    again = load(work / f"{method}-again")
    found = check_dare_ties(out, *models)
    if not all(torch.equal(out[name], again[name]) for name in out):
        found.append("a second run gave other bytes")
    return found


def check(work: Path, methods: Sequence[str], recipes: Path) -> int:
    """Merge tiny checkpoints below `work` by every method and compare; the number of methods that
    are wrong."""
    make_models.make(make_models.PRESETS["tiny"], work)
    models = [load(work / name) for name in make_models.CHECKPOINTS]
    bad = 0
    for method in methods:
        found = faults(method, work, recipes, models)
        bad += bool(found)
        print(f"{method:16} " + ("right" if not found else "WRONG: " + "; ".join(found[:5])), flush=True)
    return bad
