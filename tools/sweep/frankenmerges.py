"""Checks of the main stack put together anew: its blocks are the right ones, transformers loads
them as what they are, and the logits are those of the model assembled by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .loading import complaint, load, state_of
from .outcome import PASS, Outcome, Status, none, worst, wrong
from .recipes import Refused, findings, merged
from .restacked import by_config, by_hand, logits, only_numbers_differ, shared_outside
from .stacks import Main
from .subject import Subject, few, told

HEADS = ("CausalLM", "MaskedLM", "ImageTextToText", "Seq2SeqLM")
"""Heads whose models answer to a text."""

Ranges = Sequence[tuple[int, int]]


def depth(subject: Subject) -> dict[str, Outcome]:
    """`stack(a.layers[0..1], a.layers[0..1])`: another depth."""
    return {"depth": _checked(subject, ((0, 1), (0, 1)))}


def kinds(subject: Subject) -> dict[str, Outcome]:
    """The whole stack twice, and all but the first layer: kinds of layers stand in an order that is
    not the model's own."""
    main = subject.main
    last = main.stack.depth - 1 if main else 0
    outcomes = [_checked(subject, ((0, last), (0, last))), _checked(subject, ((1, last),))]
    return {"kinds": worst(outcomes)}


def _checked(subject: Subject, ranges: Ranges) -> Outcome:
    main = subject.main
    if subject.pair.head not in HEADS or main is None:
        return none("no language model" if main else "no main stack")
    order = [i for first, last in ranges for i in range(first, last + 1)]
    if max(order) >= main.stack.depth or order == list(range(main.stack.depth)):
        return none(f"only {main.stack.depth} layers")
    try:
        problem = _problem(subject, main, ranges, order)
    except Refused as error:
        return _refused(subject, main, order, error)
    return wrong(f"{order}: {problem}") if problem else PASS


def _refused(subject: Subject, main: Main, order: Sequence[int], error: Refused) -> Outcome:
    """Rightly, where there is no config of such a model: one that builds it, and answers as it
    should."""
    model = by_config(subject, main, order)
    if model is not None:
        right, got = logits(by_hand(subject, main, order)), logits(model)
        if right is None or (got is not None and alike(right, got)):
            return Outcome(Status.REFUSED, f"{order}: {error}"[:300])
    return Outcome(Status.BARRED, f"{order}: {error}"[:300])


def _problem(subject: Subject, main: Main, ranges: Ranges, order: Sequence[int]) -> str | None:
    name = subject.names.get(main.path, main.names[0])
    parts = ", ".join(f"a.{name}[{first}..{last}]" for first, last in ranges)
    with merged(subject.a, subject.b, f"* = a\n{name} = stack({parts})") as out:
        found = findings(out)
        if found:
            return f"verify: {few(found)}"
        return _loaded(subject, main, out, order)


def _loaded(subject: Subject, main: Main, out: Path, order: Sequence[int]) -> str | None:
    try:
        loaded, problems = load(subject.pair, out)
    except Exception as error:
        return f"loading raises {told(error)}"
    if {k: v for k, v in problems.items() if k != "logged"} and problems != subject.peer:
        return complaint(problems)[:250]
    state = state_of(loaded)
    blocks = len(list(loaded.get_submodule(main.path)))
    if blocks != len(order):
        return f"loads with {blocks} blocks"
    bad = []
    for position, source in enumerate(order):
        start = f"{main.path}.{position}."
        for name in [n for n in state if n.startswith(start)]:
            wanted = f"{main.path}.{source}.{name.removeprefix(start)}"
            expected = subject.state_a.get(wanted)
            if wanted not in subject.peer_state and (expected is None or not torch.equal(expected, state[name])):
                bad.append(name)
    if bad:
        return f"blocks differ: {few(bad)}"
    return _answers(subject, main, loaded, order)


def _answers(subject: Subject, main: Main, loaded: Any, order: Sequence[int]) -> str | None:
    if subject.peer_state or shared_outside(subject.model, main):
        return None
    assembled = by_hand(subject, main, order)
    right, got = logits(assembled), logits(loaded)
    if right is None or (got is not None and alike(right, got)):
        return None
    if got is not None and only_numbers_differ(assembled.get_submodule(main.path), loaded.get_submodule(main.path)):
        return None
    return "the logits are not those of the model assembled by hand" if got is not None else "no logits"


def alike(right: torch.Tensor, got: torch.Tensor) -> bool:
    return right.shape == got.shape and torch.allclose(right.double(), got.double(), rtol=1e-4, atol=1e-5)
