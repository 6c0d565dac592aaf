"""The plan: plain frozen data, all that the executor gets.

A plan lists the input files by range, the output files with what is no tensor in them, and steps in
order. A step streams over elements in blocks (`Pass`), moves bytes (`Copy`), brings a tensor into
memory whole (`Load`) or runs an operation that needs whole tensors (`Opaque`). Values live in three
kinds of places: output files, held buffers (whole tensors in memory, from `Step.allocate` to
`Step.release`), and scalars. Everything else is scratch of one step.

Elements are numbered row-major within a tensor. Blocks are multiples of `CHUNK` elements, and sums
are defined as the exactly rounded sum (`math.fsum`) of float64 partial sums over chunks, so that
results depend on neither block size nor the number of lanes.
"""

from __future__ import annotations

from ...grammar.records import dataclass
from ..checkpoint.catalog import InputFile

CHUNK = 1 << 16
"""Elements in the unit of blocking and of deterministic summation."""

PRODUCT_ROWS = 8
"""Rows of a `Product` that are multiplied at once. Blocks are multiples of them, for the same sums
whatever the block."""

# --- what a pass reads ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extent:
    """`nbytes` bytes from byte `start` of input file `file`."""

    file: int
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Stream:
    """`numel` elements of `dtype` read from files: the extents, one after the other."""

    dtype: str
    numel: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """`numel` elements of `dtype` in held buffer `buffer`, beginning at element `first`."""

    dtype: str
    numel: int
    buffer: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """`rows` successive output rows, each the mean of one row of every term; no term: zeros.

    A term (source, row) starts at that row of that source and advances with the output.
    """

    rows: int
    terms: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Gather:
    """Rows of `width` elements picked from several sources: a vocabulary axis after
    reconciliation."""

    numel: int
    width: int
    sources: tuple[Stream, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A product of two matrices in held buffers: `left` of rows times `inner`, `right` of `inner`
    times columns.

    `turned`: the product's transpose. Either way it has rows of `width` elements.
    """

    numel: int
    width: int
    inner: int
    left: Held
    right: Held
    turned: bool


Operand = Stream | Held | Gather | Product


def held_in(operand: Operand) -> tuple[Held, ...]:
    """What an operand reads of held buffers."""
    match operand:
        case Held():
            return (operand,)
        case Product():
            return (operand.left, operand.right)
        case _:
            return ()


# --- what a pass computes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Register:
    """A block of numbers in the plan's compute dtype."""

    index: int


@dataclass(frozen=True, slots=True)
class Mask:
    """A block of booleans, one byte each."""

    index: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number per tensor, made by a reduction or a `ScalarCode`; float64, or a `Threshold`."""

    index: int


@dataclass(frozen=True, slots=True)
class Constant:
    value: float


Argument = Register | Mask | Scalar | Constant


@dataclass(frozen=True, slots=True)
class Instruction:
    """`out = op(args)` over one block; the ops are `compiler/ops/table.py`'s elementwise ones, and
    `load`.

    `load` has no args and one attribute, `operand`, an index into the pass's operands.
    """

    op: str
    out: Register | Mask
    args: tuple[Argument, ...]
    attributes: tuple[tuple[str, int | float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reduction:
    """`out = op(args)` over all blocks; the ops are `compiler/ops/table.py`'s reductions.

    Numbers among the args (those that the op calls `numbers`, they stand last) are known before the
    pass begins.
    """

    op: str
    out: Scalar
    args: tuple[Argument, ...]
    attributes: tuple[tuple[str, int | float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class ScalarCode:
    """`out = op(args)` on numbers, on the host in float64, after the pass's reductions."""

    op: str
    out: Scalar
    args: tuple[Scalar | Constant, ...]


@dataclass(frozen=True, slots=True)
class ToFile:
    """Rounded to `dtype` and written to output file `file` from byte `start`."""

    value: Register
    dtype: str
    file: int
    start: int


@dataclass(frozen=True, slots=True)
class ToBuffer:
    """Kept in held buffer `buffer`: numbers in the compute dtype, a mask as bits (dtype BITS)."""

    value: Register | Mask
    buffer: int


Store = ToFile | ToBuffer

# --- steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """One streaming pass: for every block the code runs and stores happen; then reductions end,
    then scalars.

    `registers` and `masks` count the scratch blocks that the code uses. `block` is in elements.
    `nbytes` is the scratch of one lane, `lanes` how many blocks are in flight at most.
    """

    numel: int
    block: int
    lanes: int
    operands: tuple[Operand, ...]
    registers: int
    masks: int
    code: tuple[Instruction, ...]
    reductions: tuple[Reduction, ...]
    scalars: tuple[ScalarCode, ...]
    stores: tuple[Store, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes from input files to output file `file` at `start`, unchanged."""

    extents: tuple[Extent, ...]
    file: int
    start: int


@dataclass(frozen=True, slots=True)
class Load:
    """Brings a stream, in its stored dtype, into held buffer `buffer`."""

    source: Stream
    buffer: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """`op` over whole held buffers; shapes are those of the inputs and outputs."""

    op: str
    inputs: tuple[Held, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    scalars: tuple[Scalar | Constant, ...]
    output: int
    output_shape: tuple[int, ...]
    attributes: tuple[tuple[str, int | float | str], ...]
    workspace: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """A held buffer comes to life: `numel` elements of `dtype` on the plan's device."""

    buffer: int
    dtype: str
    numel: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step with the held buffers that appear before it and disappear after it.

    `host` and `device` are the bytes live while it runs, scratch of all lanes included. `tensor` is
    the index of the output tensor that it works for, for messages and progress; `reads` and
    `writes` are bytes of files.
    """

    action: Pass | Copy | Load | Opaque
    allocate: tuple[Allocation, ...]
    release: tuple[int, ...]
    tensor: int
    host: int
    device: int
    reads: int
    writes: int


# --- the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FixedBytes:
    """Bytes from byte `start` of an output file on that are no tensor's: a header, a table of the
    tensors."""

    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """An output weight file: its name, its size in bytes, what stands in it besides tensors. The
    rest is zeros."""

    name: str
    size: int
    fixed: tuple[FixedBytes, ...]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A stored tensor of the output and where its bytes lie; `aliases` are tied names that are not
    stored.

    `key` names its value across runs (`content.py`); it is empty where that is not known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int
    start: int
    nbytes: int
    aliases: tuple[str, ...]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A small text file of the output folder."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Tagalong:
    """A companion file, copied from beside an input's weights: absolute source path, name in the
    output folder."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Code:
    """Code that makes values, as it was when the plan was made: mergec's own (`kernel` is empty),
    or that of a kernel of an installed package, by the kernel's address and the package's name and
    version.

    `digest` is empty where nothing tells: then keys of what it makes are like no others.
    """

    kernel: str
    package: str
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the executor needs. Bytes unless said otherwise.

    `on_nonfinite` is `report` or `error`: whether infinities and NaNs fail the run; copies are
    looked at only then. `device` is `cpu`, `cuda:0`, …; `compute` is `F32` or `F64`; `single` says
    that the target is one file (`-o x.safetensors`) instead of a folder. `peak_host` and
    `peak_device` are the largest `Step.host` and `Step.device`. `folders` are the inputs that are
    folders, by their absolute paths: no output may lie in one. `made_by` is the code that the keys
    of `tensors` tell of.
    """

    version: str
    device: str
    compute: str
    lanes: int
    single: bool
    on_nonfinite: str
    inputs: tuple[InputFile, ...]
    outputs: tuple[PlannedOutput, ...]
    tensors: tuple[OutputTensor, ...]
    documents: tuple[Document, ...]
    tagalongs: tuple[Tagalong, ...]
    scalars: int
    steps: tuple[Step, ...]
    peak_host: int
    peak_device: int
    reads: int
    writes: int
    folders: tuple[str, ...] = ()
    made_by: tuple[Code, ...] = ()
