"""Checks of merges of whole models: values, loading, config.json, `verify`, the command line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from .loading import Tensors, complaint, differences, load, state_of, tensors_in
from .outcome import PASS, Outcome, Status, none, verdict, wrong
from .recipes import by_command, findings, merged
from .subject import Subject, few, read_config, told


def linear(subject: Subject) -> dict[str, Outcome]:
    """`* = linear(a, b)`: values, and all that stands around them."""
    with merged(subject.a, subject.b, "* = linear(a, b)") as out:
        found = findings(out)
        return {
            "linear": verdict(_values(subject, out, lambda x, y: 0.5 * x + 0.5 * y)),
            "config": verdict(few(changes(subject.config, read_config(out)), 6) or lost_files(subject, out)),
            "verify": verdict(few(found)),
            "load": loads(subject, out, _mean(subject)),
            "command": _command(subject, out),
        }


def slerp(subject: Subject) -> dict[str, Outcome]:
    with merged(subject.a, subject.b, "* = slerp(a, b, t=0.5)") as out:
        return {"slerp": verdict(_values(subject, out, slerp64))}


def slerp64(x: torch.Tensor, y: torch.Tensor, t: float = 0.5) -> torch.Tensor:
    """Over whole tensors of float64; linear between nearly parallel ones, and at zero."""
    lengths = x.norm() * y.norm()
    if not x.numel() or float(lengths) == 0 or abs(cosine := float((x * y).sum() / lengths)) > 0.9995:
        return (1 - t) * x + t * y
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    return (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)


def _values(subject: Subject, out: Path, reference: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> str | None:
    got, a, b = tensors_in(out), subject.saved_a, subject.saved_b
    problem = other_layout(got, a)
    if problem:
        return problem
    bad = []
    for name, x in a.items():
        if x.is_floating_point():
            x, y = x.double(), b[name].double()
            room = 1e-6 * (x.abs() + y.abs()) + 1e-12
            right = bool(((got[name].double() - reference(x, y)).abs() <= room).all())
        else:
            right = torch.equal(got[name], x)
        if not right:
            bad.append(name)
    return f"values: {few(bad)}" if bad else None


def other_layout(got: Tensors, wanted: Tensors) -> str | None:
    """How names, shapes and dtypes differ."""
    if got.keys() != wanted.keys():
        missing, more = sorted(wanted.keys() - got.keys()), sorted(got.keys() - wanted.keys())
        return f"missing {few(missing) or 'nothing'}, besides {few(more) or 'nothing'}"
    bad = [n for n in got if (got[n].shape, got[n].dtype) != (wanted[n].shape, wanted[n].dtype)]
    return f"shape or dtype: {few(bad)}" if bad else None


def _mean(subject: Subject) -> Tensors:
    b = subject.state_b
    return {n: 0.5 * t + 0.5 * b[n] if t.is_floating_point() else t for n, t in subject.state_a.items()}


def loads(subject: Subject, out: Path, expected: Tensors) -> Outcome:
    """Whether transformers loads an output as cleanly as A, and finds the expected state."""
    if "raised" in subject.peer:
        return Outcome(Status.PEER, subject.peer["raised"][0])
    try:
        loaded, problems = load(subject.pair, out)
    except Exception as error:
        return wrong(f"raises {told(error)}")
    if problems != subject.peer:
        return wrong(complaint(problems)[:300])
    bad = [n for n in differences(state_of(loaded), expected, close=True) if n not in subject.peer_state]
    if bad:
        return wrong(f"the loaded state differs: {few(bad)}")
    if subject.peer or subject.peer_state:
        return Outcome(Status.PEER, complaint(subject.peer) or few(subject.peer_state))
    return PASS


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Keys of a config that differ, with their values. The version of transformers may, and a dtype
    may go by either name."""
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = (_comparable(each, path) for each in (before, after))
        keys = sorted(before.keys() | after.keys())
        return [c for k in keys for c in changes(before.get(k, "∅"), after.get(k, "∅"), f"{path}.{k}".lstrip("."))]
    return [] if before == after else [f"{path}: {json.dumps(before)[:60]} → {json.dumps(after)[:60]}"]


def _comparable(config: dict[str, Any], path: str) -> dict[str, Any]:
    if path:
        return config
    dtype = config.get("dtype", config.get("torch_dtype", "float32"))
    return {k: v for k, v in config.items() if k not in ("transformers_version", "torch_dtype")} | {"dtype": dtype}


def lost_files(subject: Subject, out: Path) -> str | None:
    lost = sorted({file.name for file in subject.a.glob("*.json")} - {file.name for file in out.glob("*.json")})
    return f"lost: {few(lost)}" if lost else None


def _command(subject: Subject, out: Path) -> Outcome:
    """One pair in forty also by the command line: the same bytes."""
    if zlib.crc32(subject.pair.name.encode()) % 40:
        return none("one in forty")
    other = subject.folder / "by-command"
    by_command(subject.a, subject.b, "* = linear(a, b)", other)
    one, two = tensors_in(out), tensors_in(other)
    rmtree(other)
    return verdict(few(differences(one, two)))
