"""The same model under a config as old files on the Hub have them: without what the class's
defaults say, without lists that transformers derives."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..small_models import ABSENT, build, small_config
from .frankenmerges import depth, kinds
from .loading import differences, tensors_in
from .outcome import PASS, Outcome, none, worst, wrong
from .places import stacks
from .recipes import inspected, merged
from .subject import Subject, few, read_config, subject_of
from .wholes import changes

_EVERY = re.compile("pattern|interval|period|every|_step$|_freq")
"""Keys that say after how many layers a kind comes again."""

_KEPT = {"model_type", "architectures", "auto_map"}


def lean(subject: Subject) -> dict[str, Outcome]:
    """What inspect says and what merges make is what it is under the whole config."""
    config = lean_config(subject)
    if config is None:
        return {"lean": none("its config says nothing that goes without saying")}
    for name in ("a", "b"):
        at = subject.folder / "lean" / name
        at.mkdir(parents=True)
        for file in (subject.folder / name).iterdir():
            if file.name != "config.json":
                os.link(file, at / file.name)
        (at / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    try:
        return {"lean": _like_the_whole(subject, subject.folder / "lean" / "a", subject.folder / "lean" / "b", config)}
    finally:
        rmtree(subject.folder / "lean")


def _like_the_whole(subject: Subject, a: Path, b: Path, config: dict[str, Any]) -> Outcome:
    seen = inspected(a)
    for what in ("family", "depths", "ties", "places"):
        if seen[what] != subject.seen[what]:
            return wrong(f"inspect tells other {what}: {json.dumps(seen[what])[:150]}")
    with merged(subject.a, subject.b, "* = linear(a, b)") as out:
        right = tensors_in(out)
    with merged(a, b, "* = linear(a, b)") as out:
        made, after = tensors_in(out), read_config(out)
    bad = differences(right, made) or changes(config, after)
    return wrong(few(bad)) if bad else PASS


def lean_kinds(subject: Subject) -> dict[str, Outcome]:
    """A model whose kinds of layers follow from a rule, by a config that has only the rule: depth
    and kinds as in `frankenmerges`."""
    config = _by_rule(subject)
    if config is None:
        return {"lean kinds": none("no list of layers that follows from other keys")}
    folder = subject.folder / "by-rule"
    try:
        ruled = subject_of(subject.pair, folder, config)
        ruled.names.update(subject.names)
        raw = lean_config(ruled)
        if raw is None:
            return {"lean kinds": none("its lists do not follow from other keys")}
        for name in ("a", "b"):
            (folder / name / "config.json").write_text(json.dumps(raw, indent=2), "utf-8")
        outcomes = [*stacks(ruled).values(), *depth(ruled).values(), *kinds(ruled).values()]
    finally:
        rmtree(folder, ignore_errors=True)
    return {"lean kinds": worst(outcomes)}


def lean_config(subject: Subject) -> dict[str, Any] | None:
    """A's config.json without all that transformers completes to the same; None where that is
    nothing."""
    whole = subject.config
    config = copy.deepcopy(whole)
    wanted = _completed(subject, config)
    if wanted is None:
        return None
    taken = [(level, key, level.pop(key)) for level, key in list(_plain_keys(config))]
    if _completed(subject, config) != wanted:
        for level, key, value in taken:
            level[key] = value
        for level, key, value in taken:
            del level[key]
            if _completed(subject, config) != wanted:
                level[key] = value
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    return None if changes(whole, config) == [] else config


def _plain_keys(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """What may be left out: keys with what the class has by default, and lists, which it may
    derive."""
    kind = config.get("model_type")
    defaults = CONFIG_MAPPING[kind]().to_dict() if kind in CONFIG_MAPPING else {}
    for key, value in config.items():
        if key in _KEPT:
            continue
        if isinstance(value, dict) and "model_type" in value:
            yield from _plain_keys(value)
        elif isinstance(value, list) or (key in defaults and defaults[key] == value):
            yield config, key


def _completed(subject: Subject, raw: dict[str, Any]) -> dict[str, Any] | None:
    folder = subject.folder / "lean-config"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw), "utf-8")
    try:
        found: dict[str, Any] = transformers.AutoConfig.from_pretrained(folder).to_dict()
    except Exception:
        return None
    return {k: v for k, v in found.items() if k not in ("_name_or_path", "transformers_version")}


def _by_rule(subject: Subject) -> PreTrainedConfig | None:
    """A small config whose lists with one item a layer come from rules that take effect in few
    layers."""
    main = subject.main
    if main is None:
        return None
    changed: dict[str, Any] = {}
    for path, key, value in _walk(subject.config, ""):
        if isinstance(value, list) and len(value) == main.stack.depth and re.search("layer|type|pattern|block", key):
            changed[path] = ABSENT
        elif isinstance(value, int) and not isinstance(value, bool) and value > 2 and _EVERY.search(key):
            changed[path] = 2
    if ABSENT not in changed.values():
        return None
    pair = subject.pair
    for pattern in ("sliding_window_pattern", None):
        more = {f"{_parent(next(p for p, v in changed.items() if v is ABSENT))}{pattern}": 2} if pattern else {}
        try:
            config = small_config(pair.kind, pair.head, depth=main.stack.depth, changes={**changed, **more})
            build(pair.kind, pair.head, config, device="meta")
        except Exception:
            continue
        return config
    return None


def _parent(path: str) -> str:
    parent, dot, _ = path.rpartition(".")
    return parent + dot


def _walk(level: dict[str, Any], at: str) -> Iterator[tuple[str, str, Any]]:
    for key, value in level.items():
        path = f"{at}.{key}".lstrip(".")
        if isinstance(value, dict) and ("model_type" in value or key.endswith("_config")):
            yield from _walk(value, path)
        else:
            yield path, key, value
