"""The entry of one architecture."""

from __future__ import annotations

from typing import Any

from mergec.compiler.family.infer import roles_below
from transformers import PreTrainedConfig

from ..small_models import small_config
from .classes import head_of
from .places import places_of, table
from .stacks import Found, depth_keys, extra_key, found_stacks, per_layer_lists
from .subject import Subject, config_of, observed
from .ties import all_tied, ties_of
from .told import listed_fact, told_facts
from .vocabulary import experts_key, vocabulary_of

Entry = dict[str, Any]

_IGNORED = ("*.rotary_emb.inv_freq", "*.position_ids")
"""Buffers that older versions of the library stored."""
_TEXT = ("layers", "text.layers")
"""What the stack of a language model is called."""


def subject_of(kind: str, architecture: str) -> Subject:
    config = config_of(kind, architecture)
    try:
        return observed(kind, architecture, all_tied(config))
    except Exception:
        return observed(kind, architecture, config)


def entry_of(subject: Subject, known: dict[str, str]) -> Entry:
    """`known`: depth keys by path of stacks of other architectures of the type; those found are
    added."""
    stacks = found_stacks(subject)
    new = [stack for stack in stacks if stack.path not in known]
    known |= depth_keys(subject, new) if new else {}
    known |= {stack.path: "" for stack in new if stack.path not in known}
    embed, head = table(subject.model, "get_input_embeddings"), table(subject.model, "get_output_embeddings")
    vocab_key, vocabulary = vocabulary_of(subject, stacks, embed, head)
    tables, defaults = _stacks(subject, stacks, known)
    entry: Entry = {
        "stacks": tables,
        "defaults": defaults,
        "places": places_of(subject, stacks, embed, head),
        **_roles(stacks),
        "ties": ties_of(subject),
        "ignored": _ignored(subject),
        "vocabulary": vocabulary,
        "vocab_key": vocab_key,
        "experts_key": experts_key(subject) if any("expert" in name for name in subject.stored) else None,
    }
    return {key: value for key, value in entry.items() if value not in (None, [], {})}


def _stacks(subject: Subject, stacks: list[Found], known: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stacks, and what silence of the config about the layers means."""
    out: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    extra = extra_key(subject)
    deeper = _deeper(subject, stacks)
    for stack in stacks:
        own: dict[str, Any] = {"prefix": f"{stack.prefix}.{{i}}"}
        if known[stack.path]:
            own["depth_key"] = known[stack.path]
            if extra and stack.name in _TEXT:
                own["extra_key"] = extra
            alike = {key for s in stacks if s.depth == stack.depth and _beside(key := known[s.path], known[stack.path])}
            sure = stack.name in _TEXT and deeper is not None
            if sure or len(alike) == 1:
                lists = per_layer_lists(subject.config, deeper if sure else None, known[stack.path], stack.depth)
            else:
                lists = []
            facts, silence = told_facts(subject, stack, known[stack.path])
            told = {fact.get("items") for fact in facts}
            own["facts"] = [*facts, *(listed_fact(subject, key) for key in lists if key not in told)]
            defaults |= silence
        out[stack.name] = {key: value for key, value in own.items() if value}
    return out, defaults


def _beside(key: str, other: str) -> bool:
    """Whether two keys are in the same nested config."""
    return key.rpartition(".")[0] == other.rpartition(".")[0]


def _deeper(subject: Subject, stacks: list[Found]) -> PreTrainedConfig | None:
    """The config of a model whose main stack is one layer deeper."""
    main = next((s for s in stacks if s.main and s.name in _TEXT), None)
    if main is None:
        return None
    try:
        return small_config(subject.kind, head_of(subject.kind, subject.architecture), depth=main.depth + 1)
    except Exception:
        return None


def _roles(stacks: list[Found]) -> dict[str, Any]:
    found = {stack.name: roles_below(stack.tails) for stack in stacks}
    experts = next((experts for _, experts in found.values() if experts), None)
    tables = {name: {role: _one(paths) for role, paths in roles.items()} for name, (roles, _) in found.items()}
    out: dict[str, Any] = {"experts": experts} if experts else {}
    told = [roles for roles in tables.values() if roles]
    common = {role: paths for role, paths in told[0].items() if all(t.get(role) == paths for t in told)} if told else {}
    own = {name: {r: p for r, p in roles.items() if r not in common} for name, roles in tables.items()}
    return out | {"roles": common, "stack_roles": {name: roles for name, roles in own.items() if roles}}


def _one(paths: list[str]) -> Any:
    return paths[0] if len(paths) == 1 else paths


def _ignored(subject: Subject) -> list[str]:
    return [glob for glob in _IGNORED if not any(name.endswith(glob[1:]) for name in subject.stored)]
