"""One application of a merge method as a call of ours: inputs, parameters, and what mergekit
demands of both."""

from __future__ import annotations

from collections.abc import Sequence

from ...grammar.diagnostic import Diagnostic, MergecError, error, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from .configuration import Branch, Input, ModelRef, Rule, Scope, rule_for
from .gradients import Frame, coerce, write_rule, write_value
from .methods import Base, Method, MethodParameter, Reach, Required
from .recipe_text import ArgumentOrigin, Written


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of a call: `region` is how the recipe names it, `own` the parameters that only it
    has.

    `shift` is what its layers are ahead of the output's.
    """

    region: str
    model: ModelRef
    own: Scope
    span: Span
    shift: int = 0


def operands_of(inputs: Sequence[Input], base: ModelRef | None, append: bool) -> list[tuple[ModelRef, Input | None]]:
    """The inputs in listed order; with `append` the base at the end where it is not among them."""
    out: list[tuple[ModelRef, Input | None]] = [(i.model, i) for i in inputs]
    if append and base is not None and all(m.key != base.key for m, _ in out):
        out.append((base, None))
    return out


def check_inputs(method: Method, models: Sequence[ModelRef], base: ModelRef | None, span: Span) -> list[Diagnostic]:
    """What mergekit demands of the inputs of a slice (E0706)."""
    found: list[Diagnostic] = []
    keys = [m.key for m in models]
    for k, model in enumerate(models):
        if model.key in keys[:k]:
            found.append(_unfit(f"`{model}` stands twice among the inputs of one slice", model.span, "again here"))
    has_base = base is not None and base.key in keys
    name = method.name
    if method.base is not Base.IGNORED and base is not None and not has_base:
        found.append(_unfit(f"`{name}` works on its base, and `{base}` is no source here", span, "not among these"))
    elif method.base is Base.REQUIRED and base is None:
        found.append(_unfit(f"`{name}` needs a `base_model`", span, "none is given"))
    if len(keys) < method.least or (method.most is not None and len(keys) > method.most):
        exact = method.least == method.most
        wanted = f"exactly {method.least}" if exact else f"at least {method.least}"
        if not exact and len(keys) > method.least:
            wanted = f"at most {method.most}"
        plural = "" if wanted.endswith(" 1") else "s"
        found.append(
            _unfit(f"`{name}` takes {wanted} input{plural}, not {len(keys)}", span, f"{len(keys)} with the base")
        )
    others = len(keys) - (has_base and method.base is not Base.IGNORED)
    if method.others is not None and others != method.others:
        found.append(_unfit(f"`{name}` takes {method.others} inputs besides a base, not {others}", span, "here"))
    return found


def _unfit(message: str, span: Span, label: str) -> Diagnostic:
    return finding("E0706", message, span, label)


def write_call(
    method: Method,
    operands: Sequence[Operand],
    base: ModelRef | None,
    scopes: Sequence[Scope],
    frame: Frame,
    span: Span,
) -> Written:
    """The call of a method. `scopes` are those around the inputs, the nearest first; `span` is the
    method's own.

    Raises MergecError (E0704, E0705, E0709).
    """
    special = method.base is not Base.IGNORED
    root = next((o for o in operands if special and base is not None and o.model.key == base.key), None)
    others = [o for o in operands if o is not root]
    if root is not None and not others:
        return Written(root.region)
    if method.name in ("multislerp", "karcher") and len(others) == 1:
        return Written(others[0].region)  # a mean of one
    positional = [root, *others] if method.base_first and root is not None else others
    parts = [(o.region, ArgumentOrigin(o.span)) for o in positional]
    if root is not None and not method.base_first and (method.base is Base.OPTIONAL or root.region != "base"):
        parts.append((f"base={root.region}", ArgumentOrigin(root.model.span)))
    choice: tuple[str, ArgumentOrigin] | None = None
    for parameter in method.parameters:
        if parameter.ours is None:
            continue
        if parameter.norm:
            text, origin = _norm(parameter, scopes, frame, span)
            if text in ('"l1"', "none"):
                parts.append((f"{parameter.ours}={text}", origin))
            elif text:
                choice = text, origin
            continue
        members = operands if parameter.reach is Reach.INPUT else others
        if parameter.reach is Reach.SHARED:
            found = _shared(method, parameter, scopes, frame, span)
        else:
            found = _per_model(method, parameter, members, scopes, frame)
        if found is not None:
            parts.append((f"{parameter.ours}={found[0]}", found[1]))
    parts.extend((f"{name}={value}", ArgumentOrigin(span)) for name, value in method.extra)
    if method.name == "passthrough" and [text for text, _ in parts[1:]] in ([], ["scale=1"], ["scale=1.0"]):
        return Written(parts[0][0])
    if choice is None:
        return Written(_call(method, parts), tuple(o for _, o in parts))
    # the name of a norm can't vary over the output, but the region can
    one, two = ([*parts, (f"rescale={norm}", choice[1])] for norm in ('"l1"', "none"))
    text = f"{_call(method, one)} if {choice[0]} else {_call(method, two)}"
    return Written(text, tuple(o for _, o in (*one, *two)))


def _call(method: Method, parts: Sequence[tuple[str, ArgumentOrigin]]) -> str:
    return f"{method.name}({', '.join(text for text, _ in parts)})"


def _norm(parameter: MethodParameter, scopes: Sequence[Scope], frame: Frame, span: Span) -> tuple[str, ArgumentOrigin]:
    """The norm that is restored, or a condition on which it is `l1`; empty where ours is the same
    unasked."""
    rule = rule_for(parameter.name, scopes)
    if rule.span is None and not parameter.always:
        return "", ArgumentOrigin(span)
    text = write_rule(rule, parameter, frame)
    return {"true": '"l1"', "false": "none"}.get(text, text), ArgumentOrigin(rule.span or span)


def _shared(
    method: Method, parameter: MethodParameter, scopes: Sequence[Scope], frame: Frame, span: Span
) -> tuple[str, ArgumentOrigin] | None:
    rule = rule_for(parameter.name, scopes)
    if rule.span is None:
        if isinstance(parameter.default, Required):
            raise _missing(method, parameter, span, "nowhere given")
        return None
    return write_rule(_bounded(rule, parameter), parameter, frame), ArgumentOrigin(rule.span)


def _per_model(
    method: Method, parameter: MethodParameter, members: Sequence[Operand], scopes: Sequence[Scope], frame: Frame
) -> tuple[str, ArgumentOrigin] | None:
    rules = [rule_for(parameter.name, (o.own, *scopes)) for o in members]
    missing: list[Diagnostic] = []
    texts: list[str] = []
    for operand, rule in zip(members, rules, strict=True):
        if rule.span is None and isinstance(parameter.default, Required):
            missing.extend(_missing(method, parameter, operand.span, f"none for `{operand.model}`").diagnostics)
            continue
        texts.append(write_rule(_bounded(rule, parameter), parameter, frame, operand.shift))
    if missing:
        raise MergecError(missing)
    if all(rule.span is None for rule in rules):
        return None
    spans = tuple([rule.span or o.span for rule, o in zip(rules, members, strict=True)])
    whole = next(rule.span for rule in rules if rule.span)
    if len(set(texts)) == 1:
        return texts[0], ArgumentOrigin(whole)
    return f"[{', '.join(texts)}]", ArgumentOrigin(whole, spans)


def _bounded(rule: Rule, parameter: MethodParameter) -> Rule:
    """A density outside 0 to 1 does there what the bound does here."""
    if parameter.name != "density":
        return rule
    out = []
    for branch in rule.branches:
        values = [coerce(v, parameter, branch.span) for v in branch.values]
        if not branch.gradient:
            values = [v if 0 <= v <= 1 else float(v > 1) for v in values]
        out.append(Branch(branch.filter, tuple(values), branch.gradient, branch.span))
    return Rule(tuple(out), rule.complete, rule.span)


def _missing(method: Method, parameter: MethodParameter, span: Span, label: str) -> MergecError:
    help_ = (f"`parameters: {{{parameter.name}: {write_value(1.0)}}}` gives it to all",)
    message = f"`{method.name}` needs a `{parameter.name}`"
    return error("E0705", message, span, label, help=help_)
