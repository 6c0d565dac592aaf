"""What may be in a pickle of weights, as inert stand-ins: storages, tensors, tables, and the few
names that build them.

A name of the pickle is looked up in `NAMES` alone and never imported. The functions there are this
module's own: they look at their arguments' types and keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ....compiler.checkpoint.dtypes import NAMES as STORED_NAMES
from ....compiler.checkpoint.dtypes import SIZES
from ....grammar.records import dataclass
from ..safetensors import MAX_RANK

Value = Any
"""Whatever the machine has on its stack: a stand-in, a number, a string, bytes, a tuple of such, or
None."""


MAX_KEY = 64
"""The longest name of a storage accepted, in characters; PyTorch numbers them."""


class Unsound(Exception):
    """Arguments that PyTorch would never have written."""


class Table(list[Value]):
    """A mapping of the pickle as alternating keys and values: a key may be anything there, and
    hashing one could take for ever."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class OpaqueValue:
    """Something that no weight depends on."""


OPAQUE = OpaqueValue()
LIST = OpaqueValue()
"""A list or a set. Weights are in none, so what is put into it is dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """What a storage or a tensor is made of: PyTorch's name, and the stored dtype (None:
    safetensors has none)."""

    name: str
    dtype: str | None


@dataclass(frozen=True, slots=True, eq=False)
class StorageType:
    """A class of storages; `element` is None for those of plain bytes."""

    element: Element | None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A record of the archive, `data/KEY`; `count` in elements, or bytes where `element` is
    None."""

    key: str
    element: Element | None
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Elements of a storage, from `offset` on; strides in elements."""

    storage: Storage
    element: Element
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A tensor that is no plain array of numbers: `kind` says what it is instead."""

    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Unfamiliar:
    """A name that stands for nothing here, `MODULE.NAME`, or an object that was made by it of
    `parts`: settings, numbers of other libraries, whole models. It is never looked up, and does
    nothing. `items` are those that were put into it, as into a dict of its own class.

    `numbers`: it is an array or a tensor of a kind of its own, whatever its parts.
    """

    name: str
    parts: list[Value]
    items: Table
    numbers: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Callee:
    """A function or class that a pickle may call, as one of this module."""

    make: Callable[[tuple[Value, ...]], Value]


# --- callables ------------------------------------------------------------------------------------


def _storage_of(value: Value) -> Storage:
    if type(value) is not Storage:
        raise Unsound("a tensor is made of something that is no storage")
    return value


def _integer(value: Value) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise Unsound("a tensor has a place or length that is no whole number")
    return value


def _integers(value: Value) -> tuple[int, ...]:
    if type(value) is not tuple:
        raise Unsound("a tensor has a shape or strides that are no tuple")
    # a file can refer to one long tuple from a million tensors
    if len(value) > MAX_RANK:
        raise Unsound(f"a tensor has {len(value)} dimensions, over the limit of {MAX_RANK}")
    return tuple(_integer(n) for n in value)


def _tensor(storage: Storage, element: Element | None, offset: Value, shape: Value, strides: Value) -> Tensor:
    if element is None:
        raise Unsound("a tensor does not say what it is made of")
    made = Tensor(storage, element, _integer(offset), _integers(shape), _integers(strides))
    if len(made.shape) != len(made.strides):
        raise Unsound("a tensor has more or fewer strides than dimensions")
    return made


def _rebuild_tensor(args: tuple[Value, ...]) -> Tensor:
    storage, offset, shape, strides = _some(args, 4)[:4]
    return _tensor(_storage_of(storage), _storage_of(storage).element, offset, shape, strides)


def _rebuild_tensor_v2(args: tuple[Value, ...]) -> Tensor | Foreign:
    made = _rebuild_tensor(_some(args, 6))
    return _as_marked(made, args[6:])


def _rebuild_tensor_v3(args: tuple[Value, ...]) -> Tensor | Foreign:
    storage, offset, shape, strides, _, _, element = _some(args, 7)[:7]
    if type(element) is not Element:
        raise Unsound("a tensor has a dtype that is none")
    return _as_marked(_tensor(_storage_of(storage), element, offset, shape, strides), args[7:])


def _as_marked(made: Tensor, metadata: tuple[Value, ...]) -> Tensor | Foreign:
    """A tensor whose metadata says that its numbers are to be negated or conjugated is not what is
    stored."""
    plain = not metadata or metadata[0] is None or (type(metadata[0]) is Table and not metadata[0])
    return made if plain else Foreign("lazily negated or conjugated")


def _parameter(args: tuple[Value, ...]) -> Value:
    if type(_some(args, 1)[0]) not in (Tensor, Foreign):
        raise Unsound("a parameter is made of something that is no tensor")
    return args[0]


def _from_type(args: tuple[Value, ...]) -> Value:
    callee, _, inner = _some(args, 3)[:3]
    # not itself: that would call as deep as the file nests it
    if type(callee) is not Callee or callee.make not in _REBUILDERS or type(inner) is not tuple:
        raise Unsound("a tensor of a class of its own is made of no plain one")
    return callee.make(inner)


def _foreign(kind: str) -> Callee:
    return Callee(lambda _: Foreign(kind))


def _table(args: tuple[Value, ...]) -> Table:
    if args:
        raise Unsound("an ordered dict is made of something")
    return Table()


def _size(args: tuple[Value, ...]) -> Value:
    if len(args) != 1 or type(args[0]) is not tuple:
        raise Unsound("a shape is made of no tuple")
    return args[0]


def _some(args: tuple[Value, ...], least: int) -> tuple[Value, ...]:
    if len(args) < least:
        raise Unsound("a function gets fewer arguments than it has")
    return args


_REBUILDERS = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3)

# --- names ----------------------------------------------------------------------------------------

_STORED = {
    **STORED_NAMES,
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}
_NO_DTYPE = (
    "complex32",
    "complex64",
    "complex128",
    "qint8",
    "quint8",
    "qint32",
    "quint4x2",
    "quint2x4",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
)
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}


def _names() -> dict[tuple[str, str], Value]:
    elements = {name: Element(name, dtype) for name, dtype in _STORED.items() if dtype in SIZES}
    elements |= {name: Element(name, None) for name in _NO_DTYPE}
    names: dict[tuple[str, str], Value] = {("torch", name): element for name, element in elements.items()}
    names |= {("torch", storage): StorageType(elements[name]) for storage, name in _STORAGES.items()}
    names |= {
        ("torch", "UntypedStorage"): StorageType(None),
        ("torch.storage", "UntypedStorage"): StorageType(None),
        ("torch", "Tensor"): OPAQUE,
        ("torch", "Size"): Callee(_size),
        ("torch", "device"): Callee(lambda _: OPAQUE),
        ("torch", "per_tensor_affine"): OPAQUE,
        ("torch", "per_channel_affine"): OPAQUE,
        ("torch.nn.parameter", "Parameter"): OPAQUE,
        ("torch.nn.parameter", "Buffer"): OPAQUE,
        ("torch.serialization", "_get_layout"): Callee(lambda _: OPAQUE),
        ("torch._tensor", "_rebuild_from_type_v2"): Callee(_from_type),
        ("torch._utils", "_rebuild_tensor"): Callee(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Callee(_rebuild_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v3"): Callee(_rebuild_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): Callee(_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): Callee(_parameter),
        ("torch._utils", "_rebuild_qtensor"): _foreign("quantised"),
        ("torch._utils", "_rebuild_sparse_tensor"): _foreign("sparse"),
        ("torch._utils", "_rebuild_sparse_csr_tensor"): _foreign("sparse"),
        ("torch._utils", "_rebuild_nested_tensor"): _foreign("nested"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage"): _foreign("without data"),
        ("collections", "OrderedDict"): Callee(_table),
        ("collections", "defaultdict"): Callee(lambda _: Table()),
    }
    for module in ("builtins", "__builtin__"):
        names |= {(module, "set"): Callee(lambda _: LIST), (module, "frozenset"): Callee(lambda _: LIST)}
    return names


NAMES: Mapping[tuple[str, str], Value] = MappingProxyType(_names())
"""Every module and name that means something in a pickle of weights, and what stands for it."""

_ARRAYS = ("torch._utils", "torch._tensor", "torch.storage", "numpy.core.multiarray", "numpy._core.multiarray")
_NO_ARRAYS = ("scalar",)

_ATTACKS = frozenset((
    "__builtin__", "_ctypes", "_io", "_operator", "_pickle", "_posixsubprocess", "asyncio", "bdb", "builtins",
    "cPickle", "cProfile", "cloudpickle", "code", "codeop", "commands", "ctypes", "dill", "distutils", "doctest",
    "ftplib", "gc", "http", "idlelib", "imp", "importlib", "inspect", "io", "linecache", "marshal", "multiprocessing",
    "nt", "operator", "os", "pdb", "pickle", "pip", "pkgutil", "popen2", "posix", "pty", "pydoc", "requests", "runpy",
    "setuptools", "shelve", "shutil", "signal", "smtplib", "socket", "socketserver", "ssl", "subprocess", "sys",
    "tempfile", "timeit", "trace", "types", "urllib", "venv", "webbrowser", "zipimport",
))  # fmt: skip
"""Modules that no data needs and that attacks use. We run none of them; but Python would, so who
meets a file with one should know."""

_RUNNERS = ("torch.load", "torch.hub", "torch.jit", "torch.package", "torch.serialization", "torch.utils", "numpy.load")
"""What runs or loads further code in libraries whose other names are data."""

_TYPES = ("bool", "bytearray", "bytes", "complex", "dict", "float", "int", "list", "object", "range", "slice", "str")
_DATA = frozenset(
    (*(f"builtins.{name}" for name in _TYPES), "builtins.tuple", "builtins.xrange", "types.SimpleNamespace")
)


def unfamiliar(module: str, name: str) -> Unfamiliar | None:
    """What stands for a name that is not among `NAMES`; None where it is one that runs things."""
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full in _DATA:
        return Unfamiliar(full, [], Table())
    words = {module.split(".")[0], *name.split(".")[:-1]}
    if not _ATTACKS.isdisjoint(words) or any(f"{full}.".startswith(f"{runner}.") for runner in _RUNNERS):
        return None
    return Unfamiliar(full, [], Table(), module in _ARRAYS and name not in _NO_ARRAYS)


def storage(identity: Value) -> Storage:
    """The stand-in for what a pickle refers to by an identity of its own. Raises Unsound."""
    if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
        raise Unsound("a storage is referred to in an unknown way")
    _, kind, key, _, count = identity
    if type(kind) is not StorageType or type(key) is not str or len(key) > MAX_KEY:
        raise Unsound("a storage is referred to in an unknown way")
    return Storage(key, kind.element, _integer(count))
