"""Checks of what inspect tells, and of places: `PLACE = b` takes just the tensors of that part."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from shutil import rmtree

import torch

from ..small_models import build
from .loading import complaint, differences, load, state_of, tensors_in
from .outcome import PASS, Outcome, Status, none, verdict, worst, wrong
from .recipes import Refused, merged
from .stacks import DOCUMENTED, Main
from .subject import Subject, few, spread, told
from .truth import EMBED, EMBED_BESIDE, HEAD, HEAD_BIAS, NORM, NORM_BESIDE
from .wholes import other_layout


def stacks(subject: Subject) -> dict[str, Outcome]:
    """The depth of each main stack under a documented name."""
    depths = subject.seen["depths"]
    if not subject.mains:
        return {"stacks": none("no list of blocks")}
    lacking = [
        f"{main.path} is {main.stack.depth} deep"
        for main in subject.mains
        if main.stack.depth not in [depths.get(name) for name in main.names or depths]
    ]
    return {"stacks": verdict(f"{few(lacking)}; said: {json.dumps(depths)}" if lacking else None)}


def ties(subject: Subject) -> dict[str, Outcome]:
    """Shared tensors. Names of a layout are mergec's own, so they are compared by their ends."""
    said, true = subject.seen["ties"], subject.truth.ties

    def unmatched(some: dict[str, str], others: dict[str, str]) -> list[str]:
        return [k for k, v in some.items() if not any(_ends(k, x) and _ends(v, y) for x, y in others.items())]

    missing, phantom = unmatched(dict(true), said), unmatched(said, dict(true))
    if phantom:
        return {"ties": wrong(f"says of {few(phantom)} that it is tied" + (f"; {few(missing)} is" if missing else ""))}
    return {"ties": verdict(f"does not know that {few(missing)} is tied" if missing else None)}


def _ends(one: str, other: str) -> bool:
    return f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}") or _bare(one) == _bare(other)


def _bare(name: str) -> str:
    for prefix in ("base_model.", "model.", "language_model.", "transformer.", "module.") * 2:
        name = name.removeprefix(prefix)
    return name


def layer(subject: Subject) -> dict[str, Outcome]:
    """`layers[0] = b`, in each main stack: block 0."""
    found = [_layer(subject, main) for main in subject.mains]
    return {"layer": worst(found) if found else none("no list of blocks")}


def _layer(subject: Subject, main: Main) -> Outcome:
    block = (main.path, 0)
    expected = subject.truth.of(block)
    mixed = subject.truth.mixed(block)
    if mixed or not expected:
        return none(f"one tensor for several blocks: {few(mixed)}" if mixed else "nothing is saved of block 0")
    others = [name for name in subject.seen["depths"] if name not in main.names[:1]]
    first = None
    for name in [*main.names[:1], *others]:
        outcome = _exactly(subject, f"{name}[0]", expected)
        if outcome.status is Status.PASS:
            subject.names[main.path] = name
            if first is None or (DOCUMENTED.fullmatch(name) and main.names[:1] != ("layers",)):
                return PASS
            return Outcome(Status.NAMED, f"{main.path}: as `{name}`; {first.why}")
        first = first or outcome
    return first or wrong("no stack has a name")


def embed(subject: Subject) -> dict[str, Outcome]:
    truth = subject.truth
    if not truth.embeds:
        return {"embed": none(f"the input embedding is {truth.embedding}")}
    expected = truth.of(EMBED)
    if not expected:
        return {"embed": none("the embedding is no tensor of its own")}
    outcome = _exactly(subject, "embed", expected)
    if outcome.status is not Status.PASS and truth.of(EMBED_BESIDE):
        whole = _exactly(subject, "embed", truth.of(EMBED, EMBED_BESIDE))
        outcome = whole if whole.status is Status.PASS else outcome
    return {"embed": outcome}


def norm(subject: Subject) -> dict[str, Outcome]:
    """The norm beside the main stack; of an encoder and a decoder `norm` may be both."""
    truth = subject.truth
    if not truth.of(NORM):
        return {"norm": none("no one norm beside the main stack")}
    outcome = _exactly(subject, "norm", truth.of(NORM))
    if outcome.status is Status.WRONG and getattr(subject.model.config, "is_encoder_decoder", False):
        both = _exactly(subject, "norm", truth.of(NORM, NORM_BESIDE))
        outcome = both if both.status is Status.PASS else outcome
    return {"norm": outcome}


def head(subject: Subject) -> dict[str, Outcome]:
    truth = subject.truth
    if not truth.has_head:
        return {"head": none("no output embedding")}
    if truth.head_tied:
        return {"head": _untied(subject)}
    if not truth.of(HEAD):
        return {"head": none("the head is no tensor of its own")}
    return {"head": _exactly(subject, "head", truth.of(HEAD, HEAD_BIAS))}


def _exactly(subject: Subject, place: str, expected: set[str]) -> Outcome:
    """`PLACE = b` in a copy of A: the expected tensors are B's, all others A's."""
    a, b = subject.saved_a, subject.saved_b
    try:
        with merged(subject.a, subject.b, f"* = a\n{place} = b") as out:
            made = tensors_in(out)
    except Refused as error:
        return Outcome(Status.REFUSED, str(error)[:300])
    problem = other_layout(made, a)
    if problem:
        return wrong(problem)
    neither = [n for n, t in made.items() if not torch.equal(t, a[n]) and not torch.equal(t, b[n])]
    if neither:
        return wrong(f"neither A's nor B's: {few(neither)}")
    taken = {n for n, t in made.items() if not torch.equal(t, a[n])}
    if taken == expected:
        return PASS
    missed, more = sorted(expected - taken), sorted(taken - expected)
    return wrong(f"`{place}` misses {few(missed) or 'nothing'}, takes besides {few(more) or 'nothing'}")


def _untied(subject: Subject) -> Outcome:
    """`head = b` where the head is tied: it has a tensor of its own then, and the rest is A's."""
    try:
        with merged(subject.a, subject.b, "* = a\nhead = b") as out:
            problem = _not_untied(subject, out)
    except Refused as error:
        return Outcome(Status.REFUSED if _unties(subject) else Status.PEER, str(error)[:300])
    if problem and (subject.peer or not _unties(subject)):
        return Outcome(Status.PEER, f"transformers does not untie it: {problem}"[:300])
    return verdict(problem)


def _not_untied(subject: Subject, out: Path) -> str | None:
    try:
        loaded, problems = load(subject.pair, out)
    except Exception as error:
        return f"raises {told(error)}"
    if problems != subject.peer:
        return complaint(problems)[:300]
    path = subject.path_of(subject.model.get_output_embeddings())
    state = state_of(loaded)
    if not torch.equal(state[f"{path}.weight"], subject.state_b[f"{path}.weight"]):
        return "the loaded head is not B's"
    expected = {**subject.state_a, f"{path}.weight": subject.state_b[f"{path}.weight"]}
    bad = [n for n in differences(state, expected) if n not in subject.peer_state]
    # a head's bias may be a tensor of its own, of which `head` is then the whole, or not
    bad = [n for n in bad if not (n.endswith("bias") and torch.equal(state[n], subject.state_b[n]))]
    return f"differs besides: {few(bad)}" if bad else None


def _unties(subject: Subject) -> bool:
    """Whether transformers loads an untied model of this class as it saved it."""
    folder = subject.folder / "untied"
    try:
        config = copy.deepcopy(subject.model.config)
        for level in [config, *(v for v in vars(config).values() if hasattr(v, "tie_word_embeddings"))]:
            if hasattr(level, "tie_word_embeddings"):
                level.tie_word_embeddings = False
        model = build(subject.pair.kind, subject.pair.head, config)
        if model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr():
            return False
        spread(model, 3)
        wanted = model.get_output_embeddings().weight.clone()
        model.save_pretrained(folder)
        loaded, _ = load(subject.pair, folder)
        return torch.equal(loaded.get_output_embeddings().weight, wanted)
    except Exception:
        return False
    finally:
        rmtree(folder, ignore_errors=True)
