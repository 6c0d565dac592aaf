"""Every primitive's signature: kind, arity, result and scratch. Kernels are in `runtime/portable/`.

Kinds, by what the executor must do (methods.md calls them E, R, S):

- `elementwise`: element i of the result needs element i of the inputs. Fused into passes.
- `reduction`: one number (or threshold) a tensor; a barrier between passes.
- `opaque`: needs whole tensors at once.
- `scalar`: numbers to a number, on the host alone; for iterations on what reductions gave.

An elementwise op whose inputs are all scalars is computed once a tensor on the host, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ...grammar.records import dataclass
from . import shapes
from .shapes import Shape, Shapes


@dataclass(frozen=True, slots=True)
class Op:
    """A primitive's signature.

    `arity` counts inputs (-1: any number of them). `result` is `number` or `mask` for elementwise ops, `number` or
    `threshold` for reductions. `attributes` names what must be given besides inputs. A reduction's last inputs are
    numbers a tensor, not tensors, if `numbers` names them; its kernel finds them among its attributes.

    What the kernel needs beyond its inputs and output, in bytes, shared by all ops of a pass unless said otherwise:
    `scratch` for every element of a block, `chunk` for every element of a chunk (kernels of the CPU work
    through a block chunk by chunk, in cache), `fixed` whatever the block. `device_scratch` stands for these three on an
    accelerator, for every element of a block. `state` is a reduction's own for the whole pass, on either. `workspace`
    is what an opaque op needs, in bytes for every element of its inputs, besides `fixed` and `words`: numbers of the
    compute dtype, by the shapes of its inputs.

    An opaque op's `shape` gives the shape of its result from those of its inputs (None: that of the first); `axes` is
    how many axes they must have (None: any number). Its last inputs are numbers if `numbers` names them.

    `whole_model`: its inputs come of all tensors that a statement gives a value to, so outputs that are computed alike
    have none of it. Other scalar ops are of one tensor, as everything else is.
    """

    name: str
    kind: str
    arity: int
    result: str = "number"
    attributes: tuple[str, ...] = ()
    scratch: int = 0
    chunk: int = 0
    fixed: int = 0
    device_scratch: int = 0
    state: int = 0
    commutes: bool = False
    numbers: tuple[str, ...] = ()
    workspace: int = 0
    words: Callable[[Shapes], int] | None = None
    shape: Callable[[Shapes], Shape] | None = None
    axes: int | None = None
    whole_model: bool = False


def _table(*rows: Op) -> Mapping[str, Op]:
    return MappingProxyType({row.name: row for row in rows})


OPS: Mapping[str, Op] = _table(
    # arithmetic
    Op("add", "elementwise", 2, commutes=True),
    Op("sub", "elementwise", 2),
    Op("mul", "elementwise", 2, commutes=True),
    Op("div", "elementwise", 2),
    Op("pow", "elementwise", 2, fixed=64 << 12),
    Op("min", "elementwise", 2, commutes=True),
    Op("max", "elementwise", 2, commutes=True),
    Op("neg", "elementwise", 1),
    Op("abs", "elementwise", 1),
    Op("sign", "elementwise", 1),
    Op("sqrt", "elementwise", 1),
    # eight numbers of float64 for every element of a piece of 4096 (`runtime/portable/transcendental.py`)
    Op("exp", "elementwise", 1, fixed=64 << 12),
    Op("log", "elementwise", 1, fixed=64 << 12),
    Op("sin", "elementwise", 1, fixed=64 << 12),
    Op("cos", "elementwise", 1, fixed=64 << 12),
    Op("tanh", "elementwise", 1, fixed=64 << 12),
    Op("acos", "elementwise", 1, fixed=64 << 12),
    Op("trunc", "elementwise", 1),
    # comparison and choice
    Op("lt", "elementwise", 2, result="mask"),
    Op("le", "elementwise", 2, result="mask"),
    Op("gt", "elementwise", 2, result="mask"),
    Op("ge", "elementwise", 2, result="mask"),
    Op("eq", "elementwise", 2, result="mask", commutes=True),
    Op("ne", "elementwise", 2, result="mask", commutes=True),
    Op("and", "elementwise", 2, result="mask", commutes=True),
    Op("or", "elementwise", 2, result="mask", commutes=True),
    Op("not", "elementwise", 1, result="mask"),
    Op("where", "elementwise", 3, chunk=8),  # mask, then, other
    Op("number", "elementwise", 1),  # mask to 0 or 1
    Op("fill", "elementwise", 1),  # a number to every element
    # which elements: by rank and by chance
    Op("above", "elementwise", 2, result="mask", chunk=17, device_scratch=8),  # x, threshold: |x| ranks within its k
    # argument: keep probability
    Op("bernoulli", "elementwise", 1, result="mask", attributes=("key",), chunk=16, device_scratch=16),
    # along rows: a row's result stands at each of its elements; blocks hold whole rows
    Op("row_sum", "elementwise", 1, attributes=("row",), scratch=8, device_scratch=8),
    Op("row_max", "elementwise", 1, attributes=("row",)),
    Op("row_rank", "elementwise", 1, attributes=("row",), chunk=24, device_scratch=24),
    # reductions
    Op("sum", "reduction", 1, chunk=8, device_scratch=8),
    Op("dot", "reduction", 2, chunk=16, device_scratch=16, commutes=True),
    Op("count", "reduction", 1),  # of a mask
    Op("maximum", "reduction", 1),
    Op("minimum", "reduction", 1),
    # its state is a histogram of 16 bits, another is counted into; a chunk has bits, mask, five words an element picked
    Op(
        "threshold",
        "reduction",
        1,
        result="threshold",
        attributes=("k",),
        scratch=2,
        chunk=50,
        fixed=8 << 16,
        device_scratch=16,
        state=8 << 16,
    ),
    # the same where k is known only from an earlier reduction
    Op(
        "threshold_at",
        "reduction",
        2,
        result="threshold",
        scratch=2,
        chunk=50,
        fixed=8 << 16,
        device_scratch=16,
        state=8 << 16,
        numbers=("k",),
    ),
    # the number that `k` elements precede in ascending order; its state and scratch are those of `threshold`
    Op(
        "kth_smallest",
        "reduction",
        1,
        attributes=("k",),
        chunk=50,
        fixed=8 << 16,
        device_scratch=17,
        state=8 << 16,
    ),
    # along columns, the first axis: a column's sum stands at each of its elements. Room for four rows of a chunk's
    # width
    Op("column_sum", "opaque", 1, fixed=32 << 16),
    # some rows, `first:end` with commas between, replaced by the mean of the others: what pads a vocabulary
    Op("mean_rows", "opaque", 1, attributes=("rows",), fixed=32 << 16),
    # over a whole model: numbers of all its tensors, and counts of a digit of bit patterns (`compiler/ops/radix.py`)
    Op("across_sum", "scalar", -1, whole_model=True),
    Op("across_max", "scalar", -1, whole_model=True),
    Op("across_min", "scalar", -1, whole_model=True),
    Op("digits", "reduction", 2, "counts", ("shift",), 2, 50, 8 << 16, 16, 8 << 16, numbers=("prefix",)),
    Op("digit_of_rank", "scalar", -1, whole_model=True),
    Op("rank_in_digit", "scalar", -1, whole_model=True),
    Op("join_digits", "scalar", -1, whole_model=True),
    Op("number_of_digits", "scalar", -1, whole_model=True),
    # centers: weights of points whose inner products are given; the inputs are explained in `compiler/ops/means.py`
    Op("karcher", "scalar", -1),
    Op("geometric_median", "scalar", -1),
    # whole matrices, by their singular values
    Op("svd_truncate", "opaque", 2, numbers=("rank",), words=shapes.decomposition, axes=2),
    Op("svd_nuclear", "opaque", 2, numbers=("share",), words=shapes.decomposition, axes=2),
    Op("svd_flatten", "opaque", 1, words=shapes.decomposition, axes=2),
    Op("singular_merge", "opaque", -1, words=shapes.joined_decompositions, axes=2),
    Op("isotropic_merge", "opaque", -1, numbers=("common",), words=shapes.joined_decompositions, axes=2),
    # a basis and coordinates in one buffer, of which `part` nodes are views
    Op(
        "svd_shared",
        "opaque",
        -1,
        numbers=("tolerance",),
        words=shapes.shared_decomposition,
        shape=shapes.shared_basis,
        axes=2,
    ),
    Op("matmul", "opaque", 2, shape=shapes.product, axes=2),
    Op("procrustes_blend", "opaque", 4, numbers=("alignment", "alpha"), words=shapes.procrustes),
    Op("spectral_blend", "opaque", 4, numbers=("alpha", "tilt"), words=shapes.spectra),
    # whole matrices, by iteration
    Op("interference_descent", "opaque", -1, numbers=("iters", "lr"), words=shapes.descent, axes=2),
    Op("interference_solve", "opaque", -1, words=shapes.normal_equations, axes=2),
    # of installed packages: the attributes say which, and besides these name what it needs (`evaluate/extensions.py`)
    Op("installed", "elementwise", -1, attributes=("name", "kernel", "package", "numbers", "scratch")),
    Op("installed_whole", "opaque", -1, attributes=("name", "kernel", "package", "numbers", "workspace")),
)
