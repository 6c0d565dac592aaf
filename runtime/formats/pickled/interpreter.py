"""Interprets a pickle as data: what it says becomes stand-ins (`standins.py`), and nothing that it
names is run.

A pickle is a program for a small machine with a stack and a memo. This is that machine with all
instructions taken out that look anything up: a class that weights don't need, such as that of a
training script's settings, stays a name, and an object of it what it would have been made of. Each
instruction makes at most one small object, so time and memory are bounded by the number of
instructions and by the length of the pickle.

`pickletools.genops` would decode the instructions, and the tests hold this to it. But it undoes
escapes in names, which loading a pickle does not, takes halves of surrogate pairs for text, and a
checkpoint of 20,000 tensors takes it 28 % longer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NoReturn

from ....compiler.checkpoint.catalog import CatalogError
from ....grammar.records import dataclass
from ...files.faults import show
from .standins import LIST, NAMES, OPAQUE, Callee, Table, Unfamiliar, Unsound, Value, storage, unfamiliar

MAX_STEPS = 4_000_000
"""The most instructions carried out; a tensor takes about 25."""

MAX_LINE = 256
"""The longest module or name accepted, in bytes."""

_REFUSED: Mapping[int, str] = MappingProxyType(
    {
        ord("i"): "INST",
        ord("o"): "OBJ",
        ord("P"): "PERSID",
        0x82: "EXT1",
        0x83: "EXT2",
        0x84: "EXT4",
        0x97: "NEXT_BUFFER",
        0x98: "READONLY_BUFFER",
    }
)
"""Instructions that ask their surroundings for objects, or that PyTorch has never written."""


@dataclass(frozen=True, slots=True)
class Interpreted:
    """The value of a pickle, as stand-ins; `unfamiliar`: it names more than weights need."""

    value: Value
    unfamiliar: bool


def interpret(data: bytes, path: str) -> Interpreted:
    """Interprets the pickle `data`, of the file at `path`.

    Raises CatalogError: E0442 for what would run code, E0443 for a pickle that is not sound.
    """
    machine = _Machine(data, path)
    value = machine.run()
    return Interpreted(value, bool(machine.unfamiliar))


class _Machine:
    """`stack` is the part of the stack above the last mark, `below` what lies under each mark."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data, self.path = data, path
        self.at = 0
        self.stack: list[Value] = []
        self.below: list[list[Value]] = []
        self.memo: list[Value] = []
        self.unfamiliar: dict[tuple[str, str], Unfamiliar] = {}

    def run(self) -> Value:
        if len(self.data) < 2 or self.data[0] != 0x80 or not 2 <= self.data[1] <= 5:
            self.fail("it does not begin as one")
        self.at = 2
        data, steps = self.data, STEPS
        for _ in range(MAX_STEPS):
            try:
                code = data[self.at]
                self.at += 1
                if code == 0x2E:
                    return self.end()
                step = steps.get(code)
                if step is None:
                    self.refuse(code)
                step(self)
            except IndexError:
                self.fail("it is truncated" if self.at >= len(data) else "it takes more from its stack than is there")
            except Unsound as error:
                self.fail(str(error))
        self.fail(f"it has more than {MAX_STEPS:,} instructions")

    def end(self) -> Value:
        if self.at != len(self.data):
            self.fail(f"{len(self.data) - self.at} bytes follow its end")
        if self.below or len(self.stack) != 1:
            self.fail("it leaves more or less than one value")
        return self.stack[0]

    def fail(self, message: str) -> NoReturn:
        help = ("fetch the file again",)
        raise CatalogError("E0443", f"the pickle is not sound at byte {self.at}: {message}", file=self.path, help=help)

    def refuse(self, code: int) -> NoReturn:
        if code not in _REFUSED:
            self.fail(f"instruction 0x{code:02x} is none that PyTorch writes")
        self.forbid(f"the pickle uses the instruction `{_REFUSED[code]}`, which weights don't need")

    def forbid(self, message: str) -> NoReturn:
        help = ("don't load it elsewhere unless you trust its maker; who does can save its state dict as safetensors",)
        notes = ("nothing of it was run",)
        raise CatalogError("E0442", message, file=self.path, help=help, notes=notes)

    def take(self, count: int) -> bytes:
        """The next bytes of the pickle."""
        end = self.at + count
        if end > len(self.data):
            self.fail(f"it is truncated: {count} bytes should follow")
        raw, self.at = self.data[self.at : end], end
        return raw

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_LINE + 1)
        if end < 0:
            self.fail("a name does not end")
        raw, self.at = self.data[self.at : end], end + 1
        return raw.decode("utf-8", "backslashreplace")

    def text(self, count: int) -> None:
        try:
            self.stack.append(self.take(count).decode("utf-8"))
        except UnicodeDecodeError:
            self.fail("a text is not UTF-8")

    def bytes_(self, count: int) -> None:
        self.take(count)
        self.stack.append(OPAQUE)

    def marked(self) -> list[Value]:
        """What lies above the last mark, which is removed."""
        found = self.stack
        self.stack = self.below.pop()
        return found

    def put(self, index: int) -> None:
        # every pickler numbers what it keeps in order, and so no number makes a memo that is longer
        # than the pickle
        if index == len(self.memo):
            self.memo.append(self.stack[-1])
        elif index < len(self.memo):
            self.memo[index] = self.stack[-1]
        else:
            self.fail(f"its memo has {len(self.memo)} entries and is written at {index}")

    def name(self, module: Value, name: Value) -> None:
        if type(module) is not str or type(name) is not str:
            self.fail("a name is no text")
        found = NAMES.get((module, name)) or self.unfamiliar.get((module, name))
        if found is None:
            found = unfamiliar(module, name)
            if found is None:
                self.forbid(f"the pickle names `{show(module)}.{show(name)}`, which weights don't need")
            self.unfamiliar[module, name] = found
        self.stack.append(found)

    def made(self, callee: Value, args: Value) -> Value:
        """What a call gives."""
        if type(callee) is Unfamiliar:
            return Unfamiliar(callee.name, [args], Table(), callee.numbers)
        if type(callee) is not Callee:
            self.forbid("the pickle calls something that is no function of weights")
        if type(args) is not tuple:
            self.fail("it calls a function with something that is no tuple")
        return callee.make(args)


def _number(width: str) -> Callable[[_Machine], None]:
    form = struct.Struct(width)

    def step(m: _Machine) -> None:
        m.stack.append(form.unpack(m.take(form.size))[0])

    return step


def _sized(width: int, then: Callable[[_Machine, int], None]) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        then(m, int.from_bytes(m.take(width), "little"))

    return step


def _constant(value: Value) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.stack.append(value)

    return step


def _tuple(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return step


def _mark(m: _Machine) -> None:
    m.below.append(m.stack)
    m.stack = []


def _pop(m: _Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.marked()


def _pop_mark(m: _Machine) -> None:
    m.marked()


def _marked_tuple(m: _Machine) -> None:
    found = tuple(m.marked())
    m.stack.append(found)


def _long(m: _Machine, count: int) -> None:
    m.stack.append(int.from_bytes(m.take(count), "little", signed=True))


def _get(m: _Machine, index: int) -> None:
    if index >= len(m.memo):
        m.fail(f"its memo has no entry {index}")
    m.stack.append(m.memo[index])


def _empty_dict(m: _Machine) -> None:
    m.stack.append(Table())


def _set(m: _Machine, items: list[Value]) -> None:
    target = m.stack[-1]
    if type(target) is Unfamiliar:
        target = target.items
    if type(target) is not Table or len(items) % 2:
        m.fail("it puts items into something that is no dict")
    target.extend(items)


def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set(m, [key, value])


def _add(m: _Machine) -> None:
    if m.stack[-1] is not LIST and type(m.stack[-1]) is not Unfamiliar:
        m.fail("it appends to something that is no list")


def _append(m: _Machine) -> None:
    m.stack.pop()
    _add(m)


def _add_marked(m: _Machine) -> None:
    m.marked()
    _add(m)


def _frozen_set(m: _Machine) -> None:
    m.marked()
    m.stack.append(LIST)


def _global(m: _Machine) -> None:
    m.name(m.line(), m.line())


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _reduce(m: _Machine) -> None:
    args, callee = m.stack.pop(), m.stack.pop()
    m.stack.append(m.made(callee, args))


def _new_with_names(m: _Machine) -> None:
    named, args, callee = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(m.made(callee, (args, named) if type(callee) is Unfamiliar else args))


def _build(m: _Machine) -> None:
    # state dicts have attributes of their own (`_metadata`), on which no weight depends
    state, target = m.stack.pop(), m.stack[-1]
    if type(target) is Unfamiliar:
        target.parts.append(state)
    elif type(target) is not Table:
        m.forbid("the pickle gives state to something that is no dict")


def _storage(m: _Machine) -> None:
    m.stack.append(storage(m.stack.pop()))


def _frame(m: _Machine, length: int) -> None:
    if length > len(m.data) - m.at:
        m.fail(f"it is truncated: {length} bytes should follow")


STEPS: Mapping[int, Callable[[_Machine], None]] = MappingProxyType(
    {
        ord("("): _mark,
        ord("0"): _pop,
        ord("1"): _pop_mark,
        ord("N"): _constant(None),
        0x88: _constant(True),
        0x89: _constant(False),
        ord("J"): _number("<i"),
        ord("K"): _number("<B"),
        ord("M"): _number("<H"),
        ord("G"): _number(">d"),
        0x8A: _sized(1, _long),
        ord("X"): _sized(4, _Machine.text),
        0x8C: _sized(1, _Machine.text),
        0x8D: _sized(8, _Machine.text),
        ord("B"): _sized(4, _Machine.bytes_),
        ord("C"): _sized(1, _Machine.bytes_),
        0x8E: _sized(8, _Machine.bytes_),
        ord(")"): _constant(()),
        ord("t"): _marked_tuple,
        0x85: _tuple(1),
        0x86: _tuple(2),
        0x87: _tuple(3),
        ord("]"): _constant(LIST),
        ord("a"): _append,
        ord("e"): _add_marked,
        0x8F: _constant(LIST),
        0x90: _add_marked,
        0x91: _frozen_set,
        ord("}"): _empty_dict,
        ord("s"): _set_item,
        ord("u"): lambda m: _set(m, m.marked()),
        ord("h"): _sized(1, _get),
        ord("j"): _sized(4, _get),
        ord("q"): _sized(1, _Machine.put),
        ord("r"): _sized(4, _Machine.put),
        0x94: lambda m: m.put(len(m.memo)),
        ord("c"): _global,
        0x93: _stack_global,
        ord("R"): _reduce,
        0x81: _reduce,
        0x92: _new_with_names,
        ord("b"): _build,
        ord("Q"): _storage,
        0x95: _sized(8, _frame),
    }
)
"""What each instruction does, by its code as Python's `pickle` defines it."""
