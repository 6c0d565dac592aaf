"""Recipes of all kinds, merged by mergec and evaluated by an interpreter that shares only the
parser with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mergec
import numpy as np
import pytest
import torch
from drawn_recipes import POOL, recipes
from hypothesis import HealthCheck, assume, event, given
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.diagnostic import MergecError, Severity
from mergec.grammar.parse import parse
from mergec.grammar.render import render
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from profiles import examples
from reference_language import Interpreter
from reference_places import EMBED, HEAD, PREFIX, Array, Checkpoint, Refused, Unjudged
from safetensors.torch import load_file, save_file

# what mergec finds in parts of a recipe that no tensor needs: a base that is missing, weights that
# add up to 0, indices and keys that are wrong; and models that are used whole and have another
# number of layers, though only some of them are asked for
STRICTER = {"E0113", "E0214", "E0217", "E0301", "E0303", "E0304", "E0305", "E0315"}


def _tensors(name: str, depth: int, seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {EMBED: (6, 4), "model.norm.weight": (4,)}
    for j in range(depth):
        at = f"model.layers.{j}"
        for role in "qkvo":
            shapes[f"{at}.self_attn.{role}_proj.weight"] = (4, 4)
        if name == "bias2" or (name, j) == ("some2", 1):
            shapes[f"{at}.self_attn.q_proj.bias"] = (4,)
        if name == "some2":
            shapes[f"{at}.self_attn.o_proj.bias"] = (4,)
        for role, shape in (("gate", (5, 4)), ("up", (5, 4)), ("down", (4, 5))):
            shapes[f"{at}.mlp.{role}_proj.weight"] = shape
        shapes[f"{at}.input_layernorm.weight"] = shapes[f"{at}.post_attention_layernorm.weight"] = (4,)
    if "own" in name or name in ("bias2", "half2"):
        shapes[HEAD] = (6, 4)
    dtype = torch.bfloat16 if name == "half2" else torch.float32
    return {n: torch.tensor(random.standard_normal(s), dtype=torch.float64).to(dtype) for n, s in shapes.items()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Checkpoint]]:
    """The checkpoints on disk, and as the interpreter takes them."""
    folder, out = tmp_path_factory.mktemp("pool"), {}
    for seed, name in enumerate(POOL):
        depth = 3 if name.endswith("3") else 2
        tensors = _tensors(name, depth, seed)
        tied = HEAD not in tensors
        at = folder / name
        at.mkdir()
        save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})
        # no architecture: which biases a config asks for is the last check's to know
        config = {
            "model_type": "llama",
            "num_hidden_layers": depth,
            "tie_word_embeddings": tied,
            "vocab_size": 6,
            "hidden_size": 4,
        }
        (at / "config.json").write_text(json.dumps(config))
        wide = {n: t.to(torch.float64).numpy() for n, t in tensors.items()}
        out[name] = (at, Checkpoint(wide, depth, tied, str(tensors[EMBED].dtype).removeprefix("torch.")))
    return out


def made(recipe: str, folder: Path) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as out:
        source = Source(str(folder / "recipe.mrg"), recipe)
        plan = compile_recipe(source, LocalCatalog(), "test", Options(check_graph=True, device="cpu", lanes=1)).plan
        mergec.run(plan, Path(out) / "out")
        return load_file(Path(out) / "out" / "model.safetensors")


def check(recipe: str, folder: Path, checkpoints: dict[str, Checkpoint]) -> str:
    """Holds mergec to the interpreter; says what came of it."""
    try:
        interpreter = Interpreter(parse(Source("recipe.mrg", recipe)), checkpoints)
        wanted = list(interpreter.run())
    except Unjudged as reason:
        return f"unjudged: {reason}"
    except Refused as reason:
        try:
            made(recipe, folder)
        except MergecError:
            return f"refused: {reason}"
        raise AssertionError(f"merged, though it is to be refused: {reason}") from reason
    try:
        found = made(recipe, folder)
    except MergecError as error:
        refused = error
    else:
        # a layer that the template lacks has the dtype of what it is made of
        outside = {str(t.dtype) for name, t in found.items() if not name.startswith(PREFIX)}
        assert outside == {f"torch.{interpreter.dtype}"}
        compare(found, wanted)
        return "equal"
    codes = {d.code for d in refused.diagnostics if d.severity is Severity.ERROR}
    assert codes <= STRICTER, render(refused.diagnostics)
    return "refused by mergec alone: " + min(codes)


def compare(found: Mapping[str, torch.Tensor], wanted: Sequence[tuple[str, Array, float, bool]]) -> None:
    """The same tensors, equal up to float32 arithmetic on numbers of their magnitude and one
    rounding."""
    assert set(found) == {name for name, _, _, _ in wanted}
    for name, value, magnitude, sure in wanted:
        own = found[name]
        unit = torch.finfo(own.dtype).eps / 2
        error = np.abs(own.to(torch.float64).numpy() - value)
        allowed = unit * 1.01 * np.abs(value) + torch.finfo(own.dtype).tiny + 2e-5 * magnitude
        if own.dtype == torch.float16:
            allowed = np.where(np.abs(value) > 65000, np.inf, allowed)
        assert tuple(own.shape) == value.shape, name
        assert not sure or (error <= allowed).all(), f"{name}: {own} is not {value}"


@examples(400, HealthCheck.filter_too_much)
@given(recipes())
def test_mergec_and_the_interpreter_agree(pool: dict[str, tuple[Path, Checkpoint]], recipe: str) -> None:
    folder = next(iter(pool.values()))[0].parent
    outcome = check(recipe, folder, {name: checkpoint for name, (_, checkpoint) in pool.items()})
    event(outcome)
    assume(not outcome.startswith("unjudged"))
