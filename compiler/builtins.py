"""The functions that the language itself provides; merge methods are in `stdlib/`.

Those that work on tensors become `Apply` terms; the rest work on numbers and lists while compiling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..grammar.diagnostic import Diagnostic, Label, MergecError
from ..grammar.source import Span
from .calls import REQUIRED, Parameter, kind_of
from .terms import Among, Apply, Number, PlaceMap, Present, Vary, Where, is_region

TENSOR_FORMS = frozenset(
    {"numel", "topk_mask", "rank_mask", "quantile", "bernoulli", "ndim", "row_length", "part", "model_threshold"}
)
"""Apply ops beyond `ops.OPS` that `elaborate.py` turns into nodes once shapes are known."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function of the language: parameters, a line of documentation, and how it computes its value."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    run: Callable[[dict[str, Any], Span], Any]


def resolve(value: Any, where: Where) -> Any:
    """The plain number (or boolean, string, none) that a value is at a tensor."""
    if isinstance(value, Vary):
        return value.at(where)
    if isinstance(value, PlaceMap):
        return resolve_map(value, where)
    return value


def resolve_map(mapping: PlaceMap, where: Where) -> Any:
    """The value of the key that covers the tensor; of several, the one that covers fewest tensors, the later of
    equals."""
    best: tuple[int, int] | None = None
    chosen: Any = None
    for order, (path, _, value) in enumerate(mapping.entries):
        if path is None:
            rank = (len(where.space.names) + 1, -order)
        else:
            covered = where.space.part(path)
            if where.name not in covered:
                continue
            rank = (len(covered), -order)
        if best is None or rank < best:
            best, chosen = rank, value
    if best is None:
        raise MergecError(
            Diagnostic(
                "E0314",
                f"this place map has no value for `{where.name}`",
                (Label(mapping.span, "no key covers it"),),
                help=("add a default: `_: 1`",),
            )
        )
    return resolve(chosen, where)


def once(compute: Callable[[Where], Any], span: Span, text: str) -> Vary:
    """A varying number that is worked out once a tensor, however often it is named in others."""
    last: list[tuple[Where, Any]] = []

    def value(where: Where) -> Any:
        if not last or last[0][0] is not where:
            last[:] = [(where, compute(where))]
        return last[0][1]

    return Vary(value, span, text)


def varies(value: Any) -> bool:
    return isinstance(value, Vary | PlaceMap)


def as_region(value: Any, span: Span) -> Any:
    """A number (or place map) as a region; a region as it is. Raises MergecError (E0208) for anything else."""
    if is_region(value):
        return value
    if isinstance(value, int | float | Vary | PlaceMap):
        return Number(value, span)
    raise MergecError(
        Diagnostic("E0208", f"expected a region or a number, not {kind_of(value)}", (Label(span, kind_of(value)),))
    )


def lift(
    op: str,
    function: Callable[..., Any],
    values: tuple[Any, ...],
    span: Span,
    text: str,
    operands: tuple[Span, ...] = (),
) -> Any:
    """An operation on whatever it is given: numbers at once, varying numbers later, regions as a term.

    `operands` are the spans of the values where they stand in the recipe itself.
    """
    spans = operands or (span,) * len(values)
    for v, at in zip(values, spans, strict=True):
        if not is_region(v) and not isinstance(v, int | float | Vary | PlaceMap):
            raise MergecError(
                Diagnostic("E0208", f"`{text}` can't take {kind_of(v)}", (Label(at, f"{kind_of(v)} here"),))
            )
    if any(is_region(v) for v in values):
        return Apply(op, tuple(as_region(v, at) for v, at in zip(values, spans, strict=True)), span)
    if any(varies(v) for v in values):

        def vary(where: Where) -> Any:
            return guarded(function, [resolve(v, where) for v in values], span, text, where.output)

        return once(vary, span, span.text)
    return guarded(function, list(values), span, text)


def guarded(function: Callable[..., Any], values: list[Any], span: Span, text: str, tensor: str = "") -> Any:
    """Plain arithmetic whose failures are diagnostics (E0216): division by zero, overflow, domain.

    `tensor` is the output tensor that the values were resolved for, where they vary.
    """
    odd = next((v for v in values if not isinstance(v, int | float)), 0)
    if not isinstance(odd, int | float):
        at = f" at `{tensor}`" if tensor else ""
        raise MergecError(
            Diagnostic("E0208", f"`{text}` can't take {kind_of(odd)}", (Label(span, f"{kind_of(odd)}{at}"),))
        )
    try:
        result = function(*values)
        fault = "no real number" if isinstance(result, complex) else ""
        if isinstance(result, float) and not math.isfinite(result):
            fault = "too large for a number"
        if isinstance(result, int):
            float(result)  # whole numbers are exact as far as there are floats, and end where those end
    except ZeroDivisionError:
        fault = "division by zero"
    except OverflowError:
        fault = "too large for a number"
    except ValueError:
        fault = "no real number"
    if fault:
        shown = " and ".join(f"{v:g}" for v in values)
        notes = (f"at `{tensor}`",) if tensor else ()
        raise MergecError(Diagnostic("E0216", f"`{text}` of {shown} is not a number", (Label(span, fault),), notes))
    return result


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent`; one that is clearly too large is not worked out. Raises OverflowError."""
    if isinstance(base, int) and isinstance(exponent, int) and (base.bit_length() - 1) * exponent > 1100:
        raise OverflowError
    return base**exponent


# --- the functions -------------------------------------------------------------------------------


def _unary(name: str, op: str, function: Callable[[float], float], doc: str) -> Builtin:
    return Builtin(name, (Parameter("x"),), doc, lambda given, span: lift(op, function, (given["x"],), span, name))


def _fold(name: str, op: str, function: Callable[[Any, Any], Any], doc: str, empty: Any = None) -> Builtin:
    def run(given: dict[str, Any], span: Span) -> Any:
        values = given["values"]
        if len(values) == 1 and isinstance(values[0], tuple):
            values = values[0]
        if not values:
            if empty is not None:
                return empty
            raise MergecError(Diagnostic("E0204", f"`{name}` of nothing", (Label(span, "an empty list"),)))
        total = values[0]
        for value in values[1:]:
            total = lift(op, function, (total, value), span, name)
        return total

    return Builtin(name, (Parameter("values", variadic=True),), doc, run)


def _tensor(name: str, op: str, names: tuple[str, ...], doc: str) -> Builtin:
    def run(given: dict[str, Any], span: Span) -> Any:
        return Apply(op, tuple(as_region(given[n], span) for n in names), span)

    return Builtin(name, tuple(Parameter(n) for n in names), doc, run)


def _whole(op: str, numbers: tuple[str, ...], doc: str) -> Builtin:
    """An operation on several whole tensors of one shape, given one by one or as a list, and numbers."""

    def run(given: dict[str, Any], span: Span) -> Any:
        return Apply(op, _several(given, op, span) + tuple(as_region(given[n], span) for n in numbers), span)

    return Builtin(op, (Parameter("deltas", variadic=True), *(Parameter(n) for n in numbers)), doc, run)


def _several(given: dict[str, Any], name: str, span: Span) -> tuple[Any, ...]:
    values = given["deltas"]
    if len(values) == 1 and isinstance(values[0], tuple):
        values = values[0]
    if not values:
        raise MergecError(Diagnostic("E0204", f"`{name}` of nothing", (Label(span, "an empty list"),)))
    return tuple(as_region(v, span) for v in values)


def _shared(given: dict[str, Any], span: Span) -> Any:
    deltas = _several(given, "svd_shared", span)
    packed = Apply("svd_shared", (*deltas, as_region(given["tolerance"], span)), span)
    return tuple(Apply("part", (packed,), span, (("index", i),)) for i in range(len(deltas) + 1))


def _in_layers(given: dict[str, Any], span: Span) -> Any:  # noqa: ARG001
    return Vary(lambda where: where.layer is not None, span, span.text)


def _has_vocabulary(given: dict[str, Any], span: Span) -> Any:  # noqa: ARG001
    return Vary(lambda where: where.name in where.space.family.vocabulary, span, span.text)


def _where(given: dict[str, Any], span: Span) -> Any:
    values = (given["condition"], given["then"], given["other"])
    return lift("where", lambda c, a, b: a if c else b, values, span, "where")


def _topk(given: dict[str, Any], span: Span) -> Any:
    density = as_region(given["density"], span)
    return Apply("topk_mask", (as_region(given["x"], span), density), span)


def _triangle(given: dict[str, Any], name: str, span: Span) -> tuple[Any, ...]:
    """The upper triangle of a square list of lists of numbers or regions, row by row."""
    rows = given["products"]
    square = isinstance(rows, tuple) and all(isinstance(row, tuple) and len(row) == len(rows) for row in rows)
    if not square or not rows:
        raise MergecError(
            Diagnostic("E0208", f"`{name}` takes a square list of lists", (Label(span, "not such a list"),))
        )
    return tuple(as_region(value, span) for i, row in enumerate(rows) for value in row[i:])


def _karcher(given: dict[str, Any], span: Span) -> Any:
    products = _triangle(given, "karcher_factors", span)
    weights = _each({"value": given["weight"], "models": given["products"]}, span)
    options = [as_region(given[name], span) for name in ("max_iter", "tol")]
    rest = (*options, *(as_region(w, span) for w in weights), *products)
    return tuple(Apply("karcher", (Number(i, span), *rest), span) for i in range(len(weights)))


def _median(given: dict[str, Any], span: Span) -> Any:
    products = _triangle(given, "median_factors", span)
    rest = (*(as_region(given[name], span) for name in ("maxiter", "eps", "ftol")), *products)
    return tuple(Apply("geometric_median", (Number(i, span), *rest), span) for i in range(len(given["products"])))


def _keep(given: dict[str, Any], span: Span) -> Any:
    model = as_region(given["model"], span)
    label = getattr(model, "label", None)
    if label is None:
        raise MergecError(
            Diagnostic(
                "E0222",
                "`keep` needs a region with a name: the name is part of the random mask's key",
                (Label(span, "this region has no name"),),
                help=("bind it first: `let part = …`",),
            )
        )
    attributes = (("label", label), ("stream", given["stream"]))
    return Apply("bernoulli", (model, as_region(given["density"], span)), span, attributes)


def _each(given: dict[str, Any], span: Span) -> Any:
    value, models = given["value"], given["models"]
    if not isinstance(models, tuple):
        raise MergecError(Diagnostic("E0208", "`each` needs a list of models", (Label(span, "no list here"),)))
    if not isinstance(value, tuple):
        return (value,) * len(models)
    if len(value) != len(models):
        raise MergecError(
            Diagnostic(
                "E0210",
                f"a list of {len(value)} for {len(models)} model{'s' if len(models) != 1 else ''}",
                (Label(span, "one value a model, or one for all"),),
            )
        )
    return value


def _position(given: dict[str, Any], span: Span) -> Any:
    models, number = given["models"], given["number"]
    if not isinstance(models, tuple):
        raise MergecError(Diagnostic("E0208", "`position` needs a list of models", (Label(span, "no list here"),)))
    total = models.total if isinstance(models, Present) else len(models)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < total:
        raise MergecError(
            Diagnostic(
                "E0209",
                f"there is no model number {number}" if isinstance(number, int) else "a model's number is needed",
                (Label(span, f"models are numbered 0 to {total - 1}"),),
            )
        )
    numbers = models.numbers if isinstance(models, Present) else tuple(range(total))
    if number not in numbers:
        raise MergecError(
            Diagnostic("E0470", f"the model number {number} lacks a tensor", (Label(span, "asked for here"),))
        )
    return numbers.index(number)


def _or_sole(given: dict[str, Any], span: Span) -> Any:
    models = tuple([as_region(given[name], span) for name in ("a", "b")])
    method = span.text.partition("(")[0].strip()  # inside a library the span is that of the recipe's call
    return Among(as_region(given["merged"], span), models, lambda present: models[present[0]], method, span)


def _length(given: dict[str, Any], span: Span) -> Any:
    if not isinstance(given["list"], tuple):
        raise MergecError(Diagnostic("E0208", f"`len` of {kind_of(given['list'])}", (Label(span, "not a list"),)))
    return len(given["list"])


def _zip(given: dict[str, Any], span: Span) -> Any:
    lists = given["lists"]
    if not all(isinstance(x, tuple) for x in lists):
        raise MergecError(Diagnostic("E0208", "`zip` takes lists", (Label(span, "not only lists here"),)))
    if len({len(x) for x in lists}) > 1:
        counts = " and ".join(str(len(x)) for x in lists)
        raise MergecError(Diagnostic("E0210", f"`zip` of lists of {counts}", (Label(span, "lengths differ"),)))
    return tuple(zip(*lists, strict=True))


def _range(given: dict[str, Any], span: Span) -> Any:
    count = given["count"]
    if not isinstance(count, int) or not 0 <= count <= 100_000:
        raise MergecError(
            Diagnostic("E0209", "`range` takes a whole number from 0 to 100000", (Label(span, "not such a number"),))
        )
    return tuple(range(count))


def _curve(given: dict[str, Any], span: Span) -> Any:
    points = given["points"]
    if (
        not isinstance(points, tuple)
        or not points
        or not all(isinstance(p, int | float) and not isinstance(p, bool) for p in points)
    ):
        raise MergecError(Diagnostic("E0208", "`curve` takes a list of numbers", (Label(span, "not such a list"),)))

    def value(where: Where) -> float:
        position = where.depth * (len(points) - 1)
        below = min(int(position), len(points) - 1)
        above = min(below + 1, len(points) - 1)
        share = position - below
        # rounded as mergekit does it: a density decides with int(density·n) how many elements are kept
        return float((1 - share) * points[below] + share * points[above])

    return Vary(value, span, span.text)


def _table(*rows: Builtin) -> Mapping[str, Builtin]:
    return MappingProxyType({row.name: row for row in rows})


BUILTINS: Mapping[str, Builtin] = _table(
    _unary("abs", "abs", abs, "absolute value"),
    _unary("sign", "sign", lambda x: (x > 0) - (x < 0), "-1, 0 or 1"),
    _unary("sqrt", "sqrt", math.sqrt, "square root"),
    _unary("exp", "exp", math.exp, "exponential"),
    _unary("log", "log", math.log, "natural logarithm"),
    _unary("sin", "sin", math.sin, "sine of radians"),
    _unary("cos", "cos", math.cos, "cosine of radians"),
    _unary("tanh", "tanh", math.tanh, "hyperbolic tangent"),
    _unary("acos", "acos", math.acos, "arc cosine, in radians"),
    _unary("int", "trunc", math.trunc, "a number without its fraction"),
    _fold("sum", "add", lambda a, b: a + b, "the sum of a list, tensor by tensor, in listed order", 0),
    _fold("min", "min", min, "the smallest, element by element"),
    _fold("max", "max", max, "the largest, element by element"),
    Builtin(
        "where",
        (Parameter("condition"), Parameter("then"), Parameter("other")),
        "`then` where the condition holds, else `other`, element by element",
        _where,
    ),
    _tensor("total", "sum", ("x",), "the sum of a tensor's elements: one number a tensor"),
    _tensor("dot", "dot", ("x", "y"), "the inner product of two tensors: one number a tensor"),
    _tensor("count", "count", ("mask",), "how many elements a condition holds for: one number a tensor"),
    _tensor("largest", "maximum", ("x",), "a tensor's largest element"),
    _tensor("smallest", "minimum", ("x",), "a tensor's smallest element"),
    _tensor(
        "quantile",
        "quantile",
        ("x", "q"),
        "the element with int(q·(n - 1)) others before it in ascending order: one number a tensor; `q` is from 0 to 1",
    ),
    _tensor(
        "across",
        "across_sum",
        ("x",),
        "the sum of a number a tensor over all tensors that the statement gives a value to: one number a model",
    ),
    _tensor("across_max", "across_max", ("x",), "the largest such number"),
    _tensor("across_min", "across_min", ("x",), "the smallest such number"),
    _tensor(
        "model_threshold",
        "model_threshold",
        ("x", "density"),
        "the magnitude that a share `density` of all elements reaches, over all tensors that the statement covers",
    ),
    _tensor("numel", "numel", ("x",), "a tensor's number of elements"),
    _tensor("row_length", "row_length", ("x",), "the length of a tensor's rows, its last axis"),
    _tensor("ndim", "ndim", ("x",), "a tensor's number of axes"),
    Builtin("in_layers", (), "whether the tensor belongs to a layer", _in_layers),
    Builtin(
        "has_vocabulary",
        (),
        "whether the tensor that is being made has an entry for each token, as embeddings and heads do",
        _has_vocabulary,
    ),
    _tensor("row_sum", "row_sum", ("x",), "the sum of each row (along the last axis), at each of its elements"),
    _tensor("row_max", "row_max", ("x",), "the largest of each row, at each of its elements"),
    _tensor("row_rank", "row_rank", ("x",), "each element's ascending rank in its row, from 0 to 1"),
    _tensor(
        "column_sum", "column_sum", ("x",), "the sum of each column (along the first axis), at each of its elements"
    ),
    _tensor("svd_truncate", "svd_truncate", ("x", "rank"), "a matrix with its `rank` largest singular values alone"),
    _tensor(
        "svd_nuclear",
        "svd_nuclear",
        ("x", "share"),
        "a matrix with the fewest singular values that add up to a `share` of all, scaled up to their sum",
    ),
    _tensor("svd_flatten", "svd_flatten", ("x",), "a matrix with each singular value replaced by their mean"),
    _whole("singular_merge", (), "the leading singular triplets of several matrices, made orthogonal to each other"),
    _whole(
        "isotropic_merge",
        ("common",),
        "the same of what a share `common` of their sum's leading directions leaves, with those, all at one singular"
        " value",
    ),
    Builtin(
        "svd_shared",
        (Parameter("deltas", variadic=True), Parameter("tolerance")),
        "a list: a basis of the columns of several matrices, then each one's coordinates, so that "
        "x = `matmul(basis, coordinates)`; rows of singular values up to `tolerance` are 0",
        _shared,
    ),
    _tensor("matmul", "matmul", ("x", "y"), "the product of two matrices"),
    _tensor(
        "procrustes_blend",
        "procrustes_blend",
        ("a", "b", "alignment", "alpha"),
        "the rows of `a` turned towards those of `b`; see `rotate`",
    ),
    _tensor(
        "spectral_blend",
        "spectral_blend",
        ("a", "b", "alpha", "tilt"),
        "the low frequencies of `a` and the high ones of `b`; see `crossover`",
    ),
    _whole("interference_descent", ("iters", "lr"), "steps of Adam from the sum of several matrices; see `wudi`"),
    _whole("interference_solve", (), "the least squares that `interference_descent` goes for, solved"),
    Builtin(
        "topk_mask",
        (Parameter("x"), Parameter("density", kind=None)),
        "1 for the max(1, int(density·n)) elements of largest magnitude, 0 elsewhere; of equals the first are kept",
        _topk,
    ),
    Builtin(
        "rank_mask",
        (Parameter("x"), Parameter("k", kind=None)),
        "1 for the `k` elements of largest magnitude, 0 elsewhere; `k` is a number and may come of the weights",
        lambda given, span: Apply("rank_mask", (as_region(given["x"], span), as_region(given["k"], span)), span),
    ),
    Builtin(
        "karcher_factors",
        (Parameter("products"), Parameter("weight"), Parameter("max_iter"), Parameter("tol")),
        "the factor of each of several tensors in their Karcher mean, from all their inner products (a list of lists)",
        _karcher,
    ),
    Builtin(
        "median_factors",
        (Parameter("products"), Parameter("maxiter"), Parameter("eps"), Parameter("ftol")),
        "the factor of each of several tensors in their geometric median, from all their inner products",
        _median,
    ),
    Builtin(
        "keep",
        (Parameter("model"), Parameter("density"), Parameter("stream", "", kind="string")),
        "1 with probability `density`, from a counter-based generator keyed by seed, output tensor, the model's name "
        "and `stream`",
        _keep,
    ),
    Builtin(
        "each",
        (Parameter("value"), Parameter("models")),
        "a per-model option as a list: one value for all, or a list with one a model",
        _each,
    ),
    Builtin(
        "position",
        (Parameter("models"), Parameter("number")),
        "where the model of that number stands in a list of models, some of which may have dropped out",
        _position,
    ),
    Builtin(
        "or_sole",
        (Parameter("merged"), Parameter("a"), Parameter("b")),
        "`merged`, but where a tensor is optional and one of `a` and `b` lacks it, that of the other",
        _or_sole,
    ),
    Builtin("len", (Parameter("list"),), "the length of a list", _length),
    Builtin("zip", (Parameter("lists", REQUIRED, True),), "lists of equal length, side by side", _zip),
    Builtin("range", (Parameter("count"),), "the list 0, 1, …, count - 1", _range),
    Builtin(
        "curve",
        (Parameter("points"),),
        "a number that follows the depth of the layer: piecewise linear through the points",
        _curve,
    ),
)
