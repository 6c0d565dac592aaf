"""The functions that the language itself provides; merge methods are in `stdlib/`.

Those that work on tensors become `Apply` terms; the rest work on numbers and lists while compiling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ...grammar.diagnostic import MergecError, error
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..ops.sorting_network import comparators
from ..terms.lifting import as_region, lift
from ..terms.terms import Among, Apply, NumberTerm, Vary
from . import lists
from .calls import Parameter


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function of the language: parameters, a line of documentation, and how it computes its
    value."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    run: Callable[[dict[str, Any], Span], Any]


def _unary(name: str, function: Callable[[float], float], doc: str, op: str = "") -> Builtin:
    def run(given: dict[str, Any], span: Span) -> Any:
        return lift(op or name, function, (given["x"],), span, name)

    return Builtin(name, (Parameter("x"),), doc, run)


def _fold(name: str, op: str, function: Callable[[Any, Any], Any], doc: str, empty: Any = None) -> Builtin:
    def run(given: dict[str, Any], span: Span) -> Any:
        values = _listed(given["values"])
        if not values:
            if empty is not None:
                return empty
            raise _nothing(name, span)
        total = values[0]
        for value in values[1:]:
            total = lift(op, function, (total, value), span, name)
        return total

    return Builtin(name, (Parameter("values", variadic=True),), doc, run)


def _sorted(given: dict[str, Any], span: Span) -> Any:
    values = list(_listed(given["values"]))
    for i, j in comparators(len(values)):
        pair = (values[i], values[j])
        values[i] = lift("min", min, pair, span, "sorted")
        values[j] = lift("max", max, pair, span, "sorted")
    return tuple(values)


def _tensor(name: str, names: tuple[str, ...], doc: str, op: str = "") -> Builtin:
    """A function that is an operation on tensors: `op`, or the one of its name."""

    def run(given: dict[str, Any], span: Span) -> Any:
        return Apply(op or name, tuple(as_region(given[n], span) for n in names), span)

    return Builtin(name, tuple(Parameter(n) for n in names), doc, run)


def _whole(op: str, numbers: tuple[str, ...], doc: str) -> Builtin:
    """An operation on several whole tensors of one shape, given one by one or as a list, and
    numbers."""

    def run(given: dict[str, Any], span: Span) -> Any:
        return Apply(op, _several(given, op, span) + tuple(as_region(given[n], span) for n in numbers), span)

    return Builtin(op, (Parameter("deltas", variadic=True), *(Parameter(n) for n in numbers)), doc, run)


def _several(given: dict[str, Any], name: str, span: Span) -> tuple[Any, ...]:
    values = _listed(given["deltas"])
    if not values:
        raise _nothing(name, span)
    return tuple(as_region(v, span) for v in values)


def _listed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments given one by one or as one list."""
    return values[0] if len(values) == 1 and isinstance(values[0], tuple) else values


def _nothing(name: str, span: Span) -> MergecError:
    return error("E0204", f"`{name}` of nothing", span, "an empty list")


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


def _triangle(given: dict[str, Any], name: str, span: Span) -> tuple[Any, ...]:
    """The upper triangle of a square list of lists of numbers or regions, row by row."""
    rows = given["products"]
    square = isinstance(rows, tuple) and all(isinstance(row, tuple) and len(row) == len(rows) for row in rows)
    if not square or not rows:
        raise error("E0208", f"`{name}` takes a square list of lists", span, "not such a list")
    return tuple(as_region(value, span) for i, row in enumerate(rows) for value in row[i:])


def _karcher(given: dict[str, Any], span: Span) -> Any:
    products = _triangle(given, "karcher_factors", span)
    weights = lists.each({"value": given["weight"], "models": given["products"]}, span)
    options = [as_region(given[name], span) for name in ("max_iter", "tol")]
    rest = (*options, *(as_region(w, span) for w in weights), *products)
    return tuple(Apply("karcher", (NumberTerm(i, span), *rest), span) for i in range(len(weights)))


def _median(given: dict[str, Any], span: Span) -> Any:
    products = _triangle(given, "median_factors", span)
    rest = (*(as_region(given[name], span) for name in ("maxiter", "eps", "ftol")), *products)
    return tuple(Apply("geometric_median", (NumberTerm(i, span), *rest), span) for i in range(len(given["products"])))


def _keep(given: dict[str, Any], span: Span) -> Any:
    model = as_region(given["model"], span)
    label = getattr(model, "label", None)
    if label is None:
        raise error(
            "E0222",
            "`keep` needs a region with a name: the name is part of the random mask's key",
            span,
            "this region has no name",
            help="bind it first: `let part = …`",
        )
    attributes = (("label", label), ("stream", given["stream"]))
    return Apply("bernoulli", (model, as_region(given["density"], span)), span, attributes)


def _or_sole(given: dict[str, Any], span: Span) -> Any:
    models = tuple([as_region(given[name], span) for name in ("a", "b")])
    method = span.text.partition("(")[0].strip()  # inside a library the span is that of the recipe's call
    return Among(as_region(given["merged"], span), models, lambda present: models[present[0]], method, span)


def _table(*rows: Builtin) -> Mapping[str, Builtin]:
    return MappingProxyType({row.name: row for row in rows})


BUILTINS: Mapping[str, Builtin] = _table(
    _unary("abs", abs, "absolute value"),
    _unary("sign", lambda x: (x > 0) - (x < 0), "-1, 0 or 1"),
    _unary("sqrt", math.sqrt, "square root"),
    _unary("exp", math.exp, "exponential"),
    _unary("log", math.log, "natural logarithm"),
    _unary("sin", math.sin, "sine of radians"),
    _unary("cos", math.cos, "cosine of radians"),
    _unary("tanh", math.tanh, "hyperbolic tangent"),
    _unary("acos", math.acos, "arc cosine, in radians"),
    _unary("int", math.trunc, "a number without its fraction", op="trunc"),
    _fold("sum", "add", lambda a, b: a + b, "the sum of a list, tensor by tensor, in listed order", 0),
    _fold("min", "min", min, "the smallest, element by element"),
    _fold("max", "max", max, "the largest, element by element"),
    Builtin(
        "sorted",
        (Parameter("values", variadic=True),),
        "a list in ascending order; of regions it is put in order element by element",
        _sorted,
    ),
    Builtin(
        "where",
        (Parameter("condition"), Parameter("then"), Parameter("other")),
        "`then` where the condition holds, else `other`, element by element",
        _where,
    ),
    _tensor("total", ("x",), "the sum of a tensor's elements: one number per tensor", op="sum"),
    _tensor("dot", ("x", "y"), "the inner product of two tensors: one number per tensor"),
    _tensor("count", ("mask",), "how many elements a condition holds for: one number per tensor"),
    _tensor("largest", ("x",), "a tensor's largest element", op="maximum"),
    _tensor("smallest", ("x",), "a tensor's smallest element", op="minimum"),
    _tensor(
        "quantile",
        ("x", "q"),
        "the element with int(q·(n - 1)) others before it in ascending order: one number per tensor; `q` from 0 to 1",
    ),
    _tensor(
        "across",
        ("x",),
        "the sum of one number per tensor over all tensors that the statement gives a value to: one number per model",
        op="across_sum",
    ),
    _tensor("across_max", ("x",), "the largest such number"),
    _tensor("across_min", ("x",), "the smallest such number"),
    _tensor(
        "model_threshold",
        ("x", "density"),
        "the magnitude that a share `density` of all elements reaches, over all tensors that the statement covers",
    ),
    _tensor("numel", ("x",), "a tensor's number of elements"),
    _tensor("row_length", ("x",), "the length of a tensor's rows, its last axis"),
    _tensor("ndim", ("x",), "a tensor's number of axes"),
    Builtin("in_layers", (), "whether the tensor belongs to a layer", _in_layers),
    Builtin(
        "has_vocabulary",
        (),
        "whether the tensor that is being made has an entry for each token, as embeddings and heads do",
        _has_vocabulary,
    ),
    _tensor("row_sum", ("x",), "the sum of each row (along the last axis), at each of its elements"),
    _tensor("row_max", ("x",), "the largest of each row, at each of its elements"),
    _tensor("row_rank", ("x",), "each element's ascending rank in its row, from 0 to 1"),
    _tensor("column_sum", ("x",), "the sum of each column (along the first axis), at each of its elements"),
    _tensor("svd_truncate", ("x", "rank"), "a matrix with its `rank` largest singular values alone"),
    _tensor(
        "svd_nuclear",
        ("x", "share"),
        "a matrix with the fewest singular values that add up to a `share` of all, scaled up to their sum",
    ),
    _tensor("svd_flatten", ("x",), "a matrix with each singular value replaced by their mean"),
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
    _tensor("matmul", ("x", "y"), "the product of two matrices"),
    _tensor(
        "procrustes_blend",
        ("a", "b", "alignment", "alpha"),
        "the rows of `a` turned towards those of `b`; see `rotate`",
    ),
    _tensor(
        "spectral_blend",
        ("a", "b", "alpha", "tilt"),
        "the low frequencies of `a` and the high ones of `b`; see `crossover`",
    ),
    _whole("interference_descent", ("iters", "lr"), "steps of Adam from the sum of several matrices; see `wudi`"),
    _whole("interference_solve", (), "the least squares that `interference_descent` goes for, solved"),
    _tensor(
        "topk_mask",
        ("x", "density"),
        "1 for the max(1, int(density·n)) elements of largest magnitude, 0 elsewhere; of equals the first are kept",
    ),
    _tensor(
        "rank_mask",
        ("x", "k"),
        "1 for the `k` elements of largest magnitude, 0 elsewhere; `k` is a number and may come of the weights",
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
        "a per-model option as a list: one value for all, or a list with one value per model",
        lists.each,
    ),
    Builtin(
        "position",
        (Parameter("models"), Parameter("number")),
        "where the model of that number stands in a list of models, some of which may have dropped out",
        lists.position,
    ),
    Builtin(
        "or_sole",
        (Parameter("merged"), Parameter("a"), Parameter("b")),
        "`merged`, but where a tensor is optional and one of `a` and `b` lacks it, that of the other",
        _or_sole,
    ),
    Builtin("len", (Parameter("list"),), "the length of a list", lists.length),
    Builtin("zip", (Parameter("lists", variadic=True),), "lists of equal length, side by side", lists.side_by_side),
    Builtin("range", (Parameter("count"),), "the list 0, 1, …, count - 1", lists.counting),
    Builtin(
        "curve",
        (Parameter("points"),),
        "a number that follows the depth of the layer: piecewise linear through the points",
        lists.curve,
    ),
)
