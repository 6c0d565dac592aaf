"""The last check: the tensors that are written are those that the output's config.json makes a
loader expect.

What the template has otherwise than its own config expects is not the recipe's doing: such tensors
are passed over. So is everything where the recipe changes neither config nor names nor shapes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ..checkpoint.agreement import Disagreement, disagreements
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..emit.token_ids import CONFIG
from ..evaluate.settings import Settings
from ..family.config_keys import config_value, homes
from ..family.expected import Difference, Expected, differences
from ..plan.plan import Document
from .layer_kinds import misplaced, says_of_layers

_MOST_TOLD = 4
Shapes = Mapping[str, tuple[int, ...]]


def unloadable(
    elaboration: Elaboration, settings: Settings, origin: Model, documents: Sequence[Document]
) -> list[Diagnostic]:
    """Errors (E0471 to E0473) about an output whose config.json, one of its documents, expects
    other tensors than it gets."""
    text = next((d.text for d in documents if d.name == CONFIG), None)
    if text is None:
        return []
    config = json.loads(text)
    written = {o.name: o.shape for o in elaboration.graph.outputs}
    given = {name: view.shape for name, view in elaboration.template.tensors.items()}
    before = origin.config
    if written == given and _counted(config) == _counted(before):
        return []
    template = elaboration.template
    if template.bundles:
        return []  # codes have shapes of their own
    expected = template.family.expected
    if expected is None:
        found = list(_by_agreement(elaboration, settings, origin, config))
        return found if found or says_of_layers(settings.config) else list(misplaced(elaboration, origin, config))
    return list(_by_rules(expected, settings, origin, config, written, given))


def _counted(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what no tensor follows from."""
    idle = ("dtype", "torch_dtype", "transformers_version", "_name_or_path")
    return {key: value for key, value in config.items() if key not in idle and not key.endswith("_token_id")}


# --- by what the type is known to expect ---------------------------------------------------------


def _by_rules(
    expected: Expected,
    settings: Settings,
    origin: Model,
    config: Mapping[str, Any],
    written: Shapes,
    given: Shapes,
) -> Iterator[Diagnostic]:
    usual = list(differences(expected, origin.config, given.items()))
    patterns = {each.of for each in usual}
    # keys that the template itself does not follow, such as a width that its config leaves out
    doubted = {key for each in usual if each.said is not None and each.found is not None for key in each.keys}
    ignored = origin.family.is_ignored
    aliases = {alias for rule in origin.family.ties for alias in rule.aliases}
    found = [
        d
        for d in differences(expected, config, written.items())
        if d.of not in patterns and doubted.isdisjoint(d.keys) and not ignored(d.name)
        # a loader leaves a tied tensor alone that is stored by itself
        if d.of in expected.tensors or d.of not in aliases
    ]
    found = _without_renamed(found)
    if not found:
        return
    counts = [d for d in found if isinstance(d.found, int)]
    shapes = [d for d in found if d.said is not None and d.found is not None and d not in counts]
    first, *rest = [*counts, *shapes, *[d for d in found if d not in counts and d not in shapes]]
    told = [_sentence(d) for d in rest[:_MOST_TOLD]]
    if len(rest) > _MOST_TOLD:
        told.append(f"and {len(rest) - _MOST_TOLD} more")
    names = [name for key in first.keys for name in (key, *expected.aliases.get(key, ()))]
    own = [name for name in names if any(homes(settings.config, name))]
    yield finding(
        "E0471" if first.said is None or first.found is None else "E0472",
        f"the output's config.json does not fit its tensors: {_sentence(first)}",
        settings.spans["config"] if own and "config" in settings.spans else origin.span,
        "given here" if own else "its config.json goes out with the output",
        notes=[*_because(first, config, expected), *told],
        help=_ways_out(first, own),
    )


def _without_renamed(found: Sequence[Difference]) -> list[Difference]:
    """Without tensors that are there under a longer or shorter name, which a loader takes as well:
    `lm_head.weight` for `language_model.lm_head.weight`."""
    lacking = [d for d in found if d.found is None]
    beyond = [d for d in found if d.said is None]
    pairs = [(x, y) for x in lacking for y in beyond if x.of.endswith(f".{y.of}") or y.of.endswith(f".{x.of}")]
    renamed = {id(d) for pair in pairs for d in pair}
    return [d for d in found if id(d) not in renamed]


def _sentence(d: Difference) -> str:
    if isinstance(d.found, int):
        return f"`{d.name}` is to be {d.said} by it, and {d.found} are written"
    if d.said is None:
        return f"`{d.name}` is written, which it does not expect"
    if d.found is None:
        return f"it expects `{d.name}`, which is not written"
    return f"`{d.name}` is {_shown(d.said)} by it, and is written as {_shown(d.found)}"


def _shown(shape: int | tuple[int | None, ...]) -> str:
    if isinstance(shape, int):
        return str(shape)
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def _because(d: Difference, config: Mapping[str, Any], expected: Expected) -> list[str]:
    """The keys that it follows from."""
    said = []
    for key in d.keys:
        names = (key, *expected.aliases.get(key, ()))
        name = next((n for n in names if config_value(config, n) is not None), key)
        said.append(f"`{name}` {_value(config_value(config, name))}")
    rule = f", by `{d.rule}`" if d.rule is not None and len(d.keys) > 1 else ""
    return [f"{', '.join(said)}{rule}"] if said else []


def _value(said: Any) -> str:
    if said is None:
        return "is not set"
    text = json.dumps(said)
    return f"is {text if len(text) <= 60 else text[:60] + '…'}"


def _ways_out(d: Difference, own: Sequence[str]) -> list[str]:
    if own:
        keys = " and ".join(f"`{key}`" for key in own)
        return [f"leave {keys} out of `output(config=…)`"]
    keys = ", ".join(f"`{key}`" for key in d.keys)
    ways = [f"say it in `output(config={{…}})`, by {keys}"] if keys else []
    if d.said is None:
        ways.append("or pick what the output is made of so that it has the tensors of the template")
    return ways or ["pick layers and parts that the template's config.json describes"]


# --- by what is known of any model ---------------------------------------------------------------


def _by_agreement(
    elaboration: Elaboration, settings: Settings, origin: Model, config: Mapping[str, Any]
) -> Iterator[Diagnostic]:
    """What the output's config says otherwise than its tensors, and the template's does not."""
    template = elaboration.template
    views = {o.name: View(o.name, 0, o.shape) for o in elaboration.graph.outputs}
    made = dataclasses.replace(
        template,
        checkpoint=dataclasses.replace(template.checkpoint, config=config),
        tensors=views,
        aliases=elaboration.ties,
        space=elaboration.space,
    )
    usual = {_what(d) for d in disagreements(template)}
    for found in disagreements(made):
        key = _what(found)
        own = any(homes(settings.config, key))
        # of a family that is inferred no one knows which key counts what, and W0580 says so
        if key in usual or (template.family.inferred and not own):
            continue
        yield finding(
            "E0472",
            f"the output's config.json does not fit its tensors: {found.text}",
            settings.spans["config"] if own and "config" in settings.spans else origin.span,
            "given here" if own else "its config.json goes out with the output",
            help=f"leave `{key}` out of `output(config=…)`"
            if own
            else f"say it in `output(config={{…}})`: {found.fix}"
            if found.fix
            else "say in `output(config={…})` what the tensors are",
        )
        return


def _what(found: Disagreement) -> str:
    """The key or tensor that a sentence begins with."""
    parts = found.text.split("`")
    return parts[1] if len(parts) > 1 else found.text
