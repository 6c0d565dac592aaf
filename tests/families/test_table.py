"""The table against what transformers really stores."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from mergec.compiler.checkpoint.layouts import recognise
from mergec.compiler.family.family import Family, families, family_for, stack_index
from mergec.compiler.family.patterns import variables_of

from .conftest import CASES, Sample

Samples = Callable[[str], Sample]


def under(name: str, path: str) -> bool:
    return name == path or name.startswith(path + ".")


def config_at(config: object, key: str) -> object:
    return functools.reduce(lambda level, part: level[part], key.split("."), config)  # type: ignore[index]


def in_role(family: Family, name: str) -> bool:
    """Whether a canonical name is under some place, role or expert."""
    at = stack_index(family, name)
    if at is None:
        return any(under(name, path) for paths in family.places.values() for path in paths)
    stack, _, rest = at
    paths = [p for role, ps in family.roles_of(stack.name).items() if not role.startswith("experts.") for p in ps]
    return any(under(rest, path) for path in paths)


@pytest.mark.parametrize("case", CASES)
def test_every_stored_tensor_has_a_place(case: str, sample: Samples) -> None:
    made = sample(case)
    family = family_for(made.checkpoint.config, made.checkpoint.tensors)
    seen = recognise(made.checkpoint, family)
    assert family.name == made.family
    assert not family.inferred
    assert seen.ignored == ()
    assert seen.layout == ("bare" if case.endswith("-bare") else "canonical")
    assert [name for name in seen.views if not in_role(family, name)] == []


@pytest.mark.parametrize("case", CASES)
def test_depth_keys_give_the_length_of_their_stacks(case: str, sample: Samples) -> None:
    made = sample(case)
    family = family_for(made.checkpoint.config, made.checkpoint.tensors)
    depths: dict[str, int] = {}
    for name in recognise(made.checkpoint, family).views:
        at = stack_index(family, name)
        if at is not None:
            depths[at[0].name] = max(depths.get(at[0].name, 0), at[1] + 1)
    assert depths == {s.name: config_at(made.checkpoint.config, s.depth_key or "") for s in family.stacks}


@pytest.mark.parametrize("case", CASES)
def test_vocabulary_axes(case: str, sample: Samples) -> None:
    made = sample(case)
    family = family_for(made.checkpoint.config, made.checkpoint.tensors)
    views = recognise(made.checkpoint, family).views
    size = config_at(made.checkpoint.config, family.vocab_key or "")
    stored = {name: views[name].shape[axis] for name, axis in family.vocabulary.items() if name in views}
    assert set(stored.values()) == {size}
    with_size = {name for name, view in views.items() if size in view.shape}
    assert with_size == set(stored)


@pytest.mark.parametrize("case", [c for c in CASES if not c.endswith(("-bare", "-classifier"))])
def test_ties_are_those_of_transformers(case: str, sample: Samples) -> None:
    made = sample(case)
    config = made.checkpoint.config or {}
    family = family_for(config, made.checkpoint.tensors)
    expected = dict(made.tied)
    if made.family == "gemma3_vision":  # whose names in memory are not those in the file
        expected = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}
    tied = {
        alias: rule.primary
        for rule in family.ties
        if rule.config_key is None or config.get(rule.config_key, rule.default)
        for alias in rule.aliases
    }
    assert tied == expected
    assert not any(alias in made.checkpoint.tensors for alias in tied)


@pytest.mark.parametrize("case", [c for c in CASES if not c.endswith(("-bare", "-classifier"))])
def test_tie_defaults_are_those_of_transformers(case: str, sample: Samples) -> None:
    made = sample(case)
    family = family_for(made.checkpoint.config, made.checkpoint.tensors)
    default = type(made.model.config)().tie_word_embeddings
    assert {rule.default for rule in family.ties if rule.config_key} == {default}


@pytest.mark.parametrize("name", sorted(families()))
def test_roles_and_places_point_at_tensors(name: str, sample: Samples) -> None:
    family = families()[name]
    made = [sample(case) for case in CASES if CASES[case][0] == name]
    names = {n for m in made for n in recognise(m.checkpoint, family).views} | {t for m in made for t in m.tied}
    if name == "gemma3_vision":
        names.add("language_model.lm_head.weight")
    for stack in family.stacks:
        rests = {at[2] for n in names if (at := stack_index(family, n)) and at[0] == stack}
        for role, paths in family.roles_of(stack.name).items():
            prefix = f"{family.experts}.".replace("{e}", "0") if role.startswith("experts.") else ""
            missing = [p for p in paths if not any(under(rest, prefix + p) for rest in rests)]
            assert missing == [] or (name, role) == ("gpt2", "norm_cross"), role
    for place, paths in family.places.items():
        found = any(under(n, p) for n in names for p in paths)
        assert found or place == "classifier", place


def test_optional_tensors_are_those_that_configs_turn_off(sample: Samples) -> None:
    family = families()["llama"]
    with_bias = set(recognise(sample("llama-tied").checkpoint, family).views)
    without = set(recognise(sample("llama").checkpoint, family).views)
    assert with_bias - without
    assert all(family.is_optional(name) for name in with_bias - without)
    assert not any(family.is_optional(name) for name in without)


@pytest.mark.parametrize("family", families().values(), ids=lambda f: f.name)
def test_entries_are_well_formed(family: Family) -> None:
    assert families()[family.name] is family
    assert family.model_types
    assert family.architectures
    for stack in family.stacks:
        assert stack.prefix.endswith(".{i}")
    assert set(family.stack_roles) <= {s.name for s in family.stacks}
    for rule in family.ties:
        assert {rule.primary, *rule.aliases} <= set(family.vocabulary)
    assert len({layout.name for layout in family.layouts}) == len(family.layouts)
    for layout in family.layouts:
        for rule in layout.rules:
            assert len(rule.parts) == 1 or "*" not in variables_of(rule.stored)


def test_no_name_belongs_to_two_families() -> None:
    types = [t for f in families().values() for t in f.model_types]
    architectures = [a for f in families().values() for a in f.architectures]
    assert len(types) == len(set(types))
    assert len(architectures) == len(set(architectures))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.mlp.up_proj.weight", ("layers", 0, "mlp.up_proj.weight")),
        ("model.layers.31.x", ("layers", 31, "x")),
        ("model.layers.3", None),
        ("model.layers.03.x", None),
        ("model.layers.-1.x", None),
        ("model.layers.².x", None),
        ("model.layers.99999999999999999999.x", None),
        ("model.norm.weight", None),
    ],
)
def test_stack_index(name: str, expected: tuple[str, int, str] | None) -> None:
    at = stack_index(families()["llama"], name)
    assert (at and (at[0].name, at[1], at[2])) == expected
