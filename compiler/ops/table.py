"""Every primitive: what it takes and gives, what it means, in which memory. All that is known of
one stands in its row.

Kinds, by what the executor must do (methods.md calls them E, R, S):

- `elementwise`: element i of the result needs element i of the inputs. Fused into passes.
- `reduction`: one number (or threshold) per tensor; a barrier between passes.
- `opaque`: needs whole tensors at once.
- `scalar`: numbers to a number, on the host alone; for iterations on what reductions gave.

An elementwise op whose inputs are all scalars is computed once per tensor on the host, in float64.

What is one expression has its kernels made of it: `c` for the native backend
(`runtime/native/expressions.py`), `array` for the portable one (`runtime/portable/elementwise.py`).
Others have a kernel written out in either. `tests/runtime/test_operations.py` says what is missing
where.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from ...grammar.records import dataclass
from . import means, radix, scalars, shapes
from .shapes import Shape, Shapes


@dataclass(frozen=True, slots=True)
class Op:
    """A primitive.

    `takes` has a letter for every input: `v` a tensor, `m` a mask, `t` a threshold, `n` a number,
    and for any number of inputs `*`. Where an elementwise op takes a tensor, it may be given a
    number instead. `result` is `number` or `mask` for elementwise ops, `number`, `threshold` or
    `counts` for reductions. `attributes` names what must be given besides inputs. The last inputs
    of a reduction or opaque op are numbers, not tensors, if `numbers` names them; a reduction's
    kernel finds them among its attributes.

    What it means:

    - `scalar`: on plain numbers, in float64, with IEEE results instead of exceptions; masks are 0
      or 1.
    - `c`: as an expression of C in float32 numbers `x` and `y`; of a reduction by `sum`, what is
      summed, in float64.
    - `array`: the function of torch that does the same, by name; of a reduction by `sum`, what its
      inputs make.
    - `accumulator`: how a reduction puts together what it finds in the blocks of a tensor. `sum`:
      float64 sums of chunks, exactly rounded. `count`: of elements, exact. `largest`, `smallest`.
      `magnitudes`, `order` and `digits` count bit patterns, in several rounds; these have kernels
      of their own (`runtime/reduce/`).
    - `finds`: what a reduction finds out, in words, for people who ask what a merge reads.

    What the compiler may do with it:

    - `commutes`: two inputs may change places.
    - `unit`: the number that, as the last input, changes nothing; as the first neither, where
      inputs commute.
    - `zero`: the result is 0 where an input is 0 everywhere.
    - `in_place`: the result may lie over an input, as each element is read before it is written.
    - `costly`: takes longer than all others together, so that a mask made of it is held rather than
      made again.
    - `whole_model`: its inputs come of all tensors that a statement gives a value to, so outputs
      that are computed alike have none of it. Other scalar ops are of one tensor, as everything
      else is.

    What the kernel needs beyond its inputs and output, in bytes, shared by all ops of a pass unless
    said otherwise: `scratch` for every element of a block, `chunk` for every element of a chunk
    (kernels of the CPU work through a block chunk by chunk, in cache), `fixed` whatever the block.
    `device_scratch` stands for these three on an accelerator, for every element of a block. `state`
    is a reduction's own for the whole pass, on either. `workspace` is what an opaque op needs, in
    bytes for every element of its inputs, besides `fixed` and `words`: numbers of the compute
    dtype, by the shapes of its inputs.

    An opaque op's `shape` gives the shape of its result from those of its inputs (None: that of the
    first); `axes` is how many axes they must have (None: any number).
    """

    name: str
    kind: str
    takes: str
    result: str = "number"
    attributes: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    scalar: Callable[..., float] | None = None
    c: str = ""
    array: str = ""
    accumulator: str = ""
    finds: str = ""
    commutes: bool = False
    unit: float | None = None
    zero: bool = False
    in_place: bool = True
    costly: bool = False
    whole_model: bool = False
    scratch: int = 0
    chunk: int = 0
    fixed: int = 0
    device_scratch: int = 0
    state: int = 0
    workspace: int = 0
    words: Callable[[Shapes], int] | None = None
    shape: Callable[[Shapes], Shape] | None = None
    axes: int | None = None

    @property
    def arity(self) -> int:
        """How many inputs it has; -1: any number."""
        return -1 if self.takes == "*" else len(self.takes)


def _table(*rows: Op) -> Mapping[str, Op]:
    return MappingProxyType({row.name: row for row in rows})


_THRESHOLD = Op(
    "threshold",
    "reduction",
    "v",
    "threshold",
    ("k",),
    accumulator="magnitudes",
    scratch=2,
    chunk=50,
    fixed=8 << 16,
    device_scratch=16,
    state=8 << 16,
)
"""Its state is a histogram of 16 bits, one more is counted into; a chunk has bits, mask, five words
per picked one. Whatever else counts bit patterns needs the like."""


OPS: Mapping[str, Op] = _table(
    # arithmetic
    Op("add", "elementwise", "vv", commutes=True, unit=0.0, scalar=operator.add, c="x + y", array="add"),
    Op("sub", "elementwise", "vv", unit=0.0, scalar=operator.sub, c="x - y", array="sub"),
    Op("mul", "elementwise", "vv", commutes=True, unit=1.0, zero=True, scalar=operator.mul, c="x * y", array="mul"),
    Op("div", "elementwise", "vv", unit=1.0, scalar=scalars.div, c="x / y", array="div"),
    Op("pow", "elementwise", "vv", scalar=scalars.power, fixed=24 << 6),
    Op(
        "min",
        "elementwise",
        "vv",
        commutes=True,
        scalar=scalars.least,
        c="x != x ? x : y != y ? y : y < x ? y : x",
        array="minimum",
    ),
    Op(
        "max",
        "elementwise",
        "vv",
        commutes=True,
        scalar=scalars.greatest,
        c="x != x ? x : y != y ? y : y > x ? y : x",
        array="maximum",
    ),
    Op("neg", "elementwise", "v", scalar=operator.neg, c="-x", array="neg"),
    Op("abs", "elementwise", "v", scalar=abs, c="fabsf(x)", array="abs"),
    Op("sign", "elementwise", "v", scalar=scalars.sign, c="(float)((x > 0) - (x < 0))", array="sign"),
    Op("sqrt", "elementwise", "v", scalar=scalars.within(math.sqrt), c="sqrtf(x)", array="sqrt"),
    Op("trunc", "elementwise", "v", scalar=scalars.trunc, c="truncf(x)", array="trunc"),
    Op("exp", "elementwise", "v", scalar=scalars.exp, c="(float)exp_of(x)", array="exp"),
    Op("log", "elementwise", "v", scalar=scalars.log, c="(float)log_of_any(x)", array="log"),
    Op("sin", "elementwise", "v", scalar=scalars.within(math.sin), c="SIN(x, 0)", array="sin"),
    Op("cos", "elementwise", "v", scalar=scalars.within(math.cos), c="SIN(x, 1)", array="cos"),
    Op("tanh", "elementwise", "v", scalar=math.tanh, c="(float)tanh_of(x)", array="tanh"),
    Op("acos", "elementwise", "v", scalar=scalars.within(math.acos), c="(float)acos_of(x)", array="acos"),
    # comparison and choice
    Op("lt", "elementwise", "vv", "mask", scalar=scalars.truth(operator.lt), c="x < y", array="lt"),
    Op("le", "elementwise", "vv", "mask", scalar=scalars.truth(operator.le), c="x <= y", array="le"),
    Op("gt", "elementwise", "vv", "mask", scalar=scalars.truth(operator.gt), c="x > y", array="gt"),
    Op("ge", "elementwise", "vv", "mask", scalar=scalars.truth(operator.ge), c="x >= y", array="ge"),
    Op("eq", "elementwise", "vv", "mask", commutes=True, scalar=scalars.truth(operator.eq), c="x == y", array="eq"),
    Op("ne", "elementwise", "vv", "mask", commutes=True, scalar=scalars.truth(operator.ne), c="x != y", array="ne"),
    Op("and", "elementwise", "mm", "mask", commutes=True, scalar=scalars.both, c="x & y", array="logical_and"),
    Op("or", "elementwise", "mm", "mask", commutes=True, scalar=scalars.either, c="x | y", array="logical_or"),
    Op("not", "elementwise", "m", "mask", scalar=scalars.truth(operator.not_), c="!x", array="logical_not"),
    Op("where", "elementwise", "mvv", scalar=scalars.chosen, in_place=False, chunk=8),  # mask, then, other
    Op("number", "elementwise", "m", scalar=float, c="(float)x"),  # mask to 0 or 1
    Op("fill", "elementwise", "n", scalar=float),  # a number to every element
    # which elements: by rank and by chance
    # of x and a threshold: |x| ranks within its k
    Op("above", "elementwise", "vt", "mask", in_place=False, chunk=17, device_scratch=8),
    # of a probability to be kept, which may be one per element
    Op("bernoulli", "elementwise", "n", "mask", ("key",), in_place=False, chunk=16, device_scratch=16),
    # along rows: a row's result stands at each of its elements; blocks hold whole rows
    Op("row_sum", "elementwise", "v", attributes=("row",), zero=True, scratch=8, device_scratch=8),
    Op("row_max", "elementwise", "v", attributes=("row",), zero=True),
    Op("row_rank", "elementwise", "v", attributes=("row",), costly=True, chunk=24, device_scratch=24),
    # reductions
    Op("sum", "reduction", "v", c="x", accumulator="sum", finds="sums", zero=True, chunk=8, device_scratch=8),
    Op(
        "dot",
        "reduction",
        "vv",
        c="x * y",
        array="mul",
        accumulator="sum",
        finds="inner products",
        commutes=True,
        zero=True,
        chunk=16,
        device_scratch=16,
    ),
    Op("count", "reduction", "m", accumulator="count", finds="counts", zero=True),
    Op("maximum", "reduction", "v", accumulator="largest", finds="the largest"),
    Op("minimum", "reduction", "v", accumulator="smallest", finds="the smallest"),
    _THRESHOLD,
    # the same where k is known only from an earlier reduction
    replace(_THRESHOLD, name="threshold_at", takes="vn", attributes=(), numbers=("k",)),
    # the number that `k` elements precede in ascending order
    replace(
        _THRESHOLD, name="kth_smallest", result="number", accumulator="order", zero=True, scratch=0, device_scratch=17
    ),
    # counts of a digit of bit patterns (`radix.py`)
    replace(
        _THRESHOLD,
        name="digits",
        takes="vn",
        result="counts",
        attributes=("shift",),
        numbers=("prefix",),
        accumulator="digits",
        finds="a threshold, 16 bits of it",
    ),
    # along columns, the first axis: a column's sum stands at each of its elements. Room for four
    # rows of a chunk's width
    Op("column_sum", "opaque", "v", zero=True, fixed=32 << 16),
    # some rows, `first:end` with commas between, replaced by the mean of the others: what pads a
    # vocabulary
    Op("mean_rows", "opaque", "v", attributes=("rows",), zero=True, fixed=32 << 16),
    # over a whole model: numbers of all its tensors, and what follows from counts of `digits`
    Op("across_sum", "scalar", "*", scalar=scalars.total, whole_model=True),
    Op("across_max", "scalar", "*", scalar=scalars.largest, whole_model=True),
    Op("across_min", "scalar", "*", scalar=scalars.smallest, whole_model=True),
    Op("digit_of_rank", "scalar", "*", scalar=radix.digit_of_rank, whole_model=True),
    Op("rank_in_digit", "scalar", "*", scalar=radix.rank_in_digit, whole_model=True),
    Op("join_digits", "scalar", "*", scalar=radix.join_digits, whole_model=True),
    Op("number_of_digits", "scalar", "*", scalar=radix.number_of_digits, whole_model=True),
    # centers: weights of points whose inner products are given; the inputs are explained in
    # `means.py`
    Op("karcher", "scalar", "*", scalar=means.karcher),
    Op("geometric_median", "scalar", "*", scalar=means.geometric_median),
    # whole matrices, by their singular values
    Op("svd_truncate", "opaque", "vn", numbers=("rank",), words=shapes.decomposition, axes=2),
    Op("svd_nuclear", "opaque", "vn", numbers=("share",), words=shapes.decomposition, axes=2),
    Op("svd_flatten", "opaque", "v", words=shapes.decomposition, axes=2),
    Op("singular_merge", "opaque", "*", words=shapes.joined_decompositions, axes=2),
    Op("isotropic_merge", "opaque", "*", numbers=("common",), words=shapes.joined_decompositions, axes=2),
    # a basis and coordinates in one buffer, of which `part` nodes are views
    Op(
        "svd_shared",
        "opaque",
        "*",
        numbers=("tolerance",),
        words=shapes.shared_decomposition,
        shape=shapes.shared_basis,
        axes=2,
    ),
    Op("matmul", "opaque", "vv", shape=shapes.product, axes=2),
    Op("procrustes_blend", "opaque", "vvnn", numbers=("alignment", "alpha"), words=shapes.procrustes),
    Op("spectral_blend", "opaque", "vvnn", numbers=("alpha", "tilt"), words=shapes.spectra),
    # whole matrices, by iteration
    Op("interference_descent", "opaque", "*", numbers=("iters", "lr"), words=shapes.descent, axes=2),
    Op("interference_solve", "opaque", "*", words=shapes.normal_equations, axes=2),
    # of installed packages: the attributes say which, and besides these name what it needs
    # (`evaluate/extensions.py`)
    Op("installed", "elementwise", "*", attributes=("name", "kernel", "package", "numbers", "scratch"), in_place=False),
    Op("installed_whole", "opaque", "*", attributes=("name", "kernel", "package", "numbers", "workspace")),
)

SCALARS: Mapping[str, Callable[..., float]] = MappingProxyType({n: o.scalar for n, o in OPS.items() if o.scalar})
"""What ops mean on plain numbers: all scalar ones, and of elementwise ones those that look at one
element alone."""
