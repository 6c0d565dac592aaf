"""The plan: plain frozen data, all that the executor gets.

A plan lists the input files by range, the output files by header, and steps in order. A step streams over
elements in blocks (`Pass`), moves bytes (`Copy`), brings a tensor into memory whole (`Load`) or runs an operation
that needs whole tensors (`Opaque`). Values live in three kinds of places: output files, held buffers (whole
tensors in memory, from `Step.allocate` to `Step.release`), and scalars. Everything else is scratch of one step.

Elements are numbered row-major within a tensor. Blocks are multiples of `CHUNK` elements, and sums are defined as
the exactly rounded sum (`math.fsum`) of float64 partial sums over chunks, so that results depend on neither
block size nor the number of lanes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ...grammar.records import dataclass
from ..checkpoint.catalog import InputFile

CHUNK = 1 << 16
"""Elements in the unit of blocking and of deterministic summation."""

PRODUCT_ROWS = 8
"""Rows of a `Product` that are multiplied at once. Blocks are multiples of them, for the same sums whatever the
block."""

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
    """Rows of `width` elements picked from several sources: a vocabulary axis after reconciliation."""

    numel: int
    width: int
    sources: tuple[Stream, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A product of two matrices in held buffers: `left` of rows times `inner`, `right` of `inner` times columns.

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
    """A number a tensor, made by a reduction or a `ScalarCode`; float64, or a `Threshold`."""

    index: int


@dataclass(frozen=True, slots=True)
class Constant:
    value: float


Argument = Register | Mask | Scalar | Constant


@dataclass(frozen=True, slots=True)
class Instruction:
    """`out = op(args)` over one block; the ops are `compiler/ops/table.py`'s elementwise ones, and `load`.

    `load` has no args and one attribute, `operand`, an index into the pass's operands.
    """

    op: str
    out: Register | Mask
    args: tuple[Argument, ...]
    attributes: tuple[tuple[str, int | float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reduction:
    """`out = op(args)` over all blocks; the ops are `compiler/ops/table.py`'s reductions.

    Numbers among the args (those that the op calls `numbers`, they stand last) are known before the pass begins.
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
    """One streaming pass: for every block the code runs and stores happen; then reductions end, then scalars.

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

    `host` and `device` are the bytes live while it runs, scratch of all lanes included. `tensor` is the index of the
    output tensor that it works for, for messages and progress; `reads` and `writes` are bytes of files.
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
class PlannedOutput:
    """An output weight file: its name, the JSON text of its header (padded), its size in bytes."""

    name: str
    header: str
    size: int


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A stored tensor of the output and where its bytes lie; `aliases` are tied names that are not stored.

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
    """A file copied from beside an input's weights: absolute source path, name in the output folder."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Code:
    """Code that makes values, as it was when the plan was made: mergec's own (`kernel` is empty), or that of a kernel
    of an installed package, by the kernel's address and the package's name and version.

    `digest` is empty where nothing tells: then keys of what it makes are like no others.
    """

    kernel: str
    package: str
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the executor needs. Bytes unless said otherwise.

    `on_nonfinite` is `report` or `error`: whether infinities and NaNs fail the run; copies are looked at only then.
    `device` is `cpu`, `cuda:0`, …; `compute` is `F32` or `F64`; `single` says that the target is one
    file (`-o x.safetensors`) instead of a folder. `peak_host` and `peak_device` are the largest `Step.host` and
    `Step.device`. `folders` are the inputs that are folders, by their absolute paths: no output may lie in one.
    `made_by` is the code that the keys of `tensors` tell of.
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


FORMAT = 3
"""Of the JSON text; another number means that one can't be read as the other."""

_SHARED = frozenset({"code", "reductions", "scalars"})
"""What passes over tensors that are computed alike have in common: ten times as much as what they don't."""


def to_json(plan: Plan) -> str:
    """The plan as JSON text; `from_json` gives back an equal plan.

    `shared` lists code, reductions and scalars of passes; a pass says which of them are its by their places there.
    """
    shared = _Shared({}, [])
    whole = _encode(plan, shared)
    return json.dumps({"is": "Plan", "format": FORMAT, "shared": shared.encoded} | whole)


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote. Raises ValueError on anything else."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"not a plan of format {FORMAT}")
    classes = _classes()
    shared = [_decode(each, classes, []) for each in data.pop("shared", ())]
    plan = _decode(data, classes, shared)
    if not isinstance(plan, Plan):
        raise ValueError("not a plan")
    return plan


@dataclass(frozen=True, slots=True)
class _Shared:
    """Places by identity, and what has them. The plan holds on to all of them meanwhile."""

    places: dict[int, int]
    encoded: list[Any]

    def place(self, value: Any) -> int:
        if id(value) not in self.places:
            self.places[id(value)] = len(self.encoded)
            self.encoded.append(_encode(value, self))
        return self.places[id(value)]


def _encode(value: Any, shared: _Shared) -> Any:
    kind = type(value)
    if kind is tuple:
        return [_encode(v, shared) for v in value]
    names = getattr(kind, "__match_args__", None)
    if names is None:
        return value
    found: dict[str, Any] = {"is": kind.__name__}
    for name in names:
        part = getattr(value, name)
        found[name] = shared.place(part) if kind is Pass and name in _SHARED else _encode(part, shared)
    return found


def _classes() -> dict[str, type]:
    """What a plan is made of, by name."""
    return {k: v for k, v in globals().items() if isinstance(v, type) and dataclasses.is_dataclass(v)}


def _decode(value: Any, classes: Mapping[str, type], shared: list[Any]) -> Any:
    if isinstance(value, dict):
        kind = classes.get(value.pop("is", ""))
        if kind is None:
            raise ValueError("unknown part of a plan")
        parts = {k: _decode(v, classes, shared) for k, v in value.items()}
        if kind is Pass:
            parts |= {k: shared[parts[k]] for k in _SHARED}
        return kind(**parts)
    if isinstance(value, list):
        return tuple(_decode(v, classes, shared) for v in value)
    return value
