"""What each output's value is, as one key: two outputs of equal keys have equal values.

A key covers the operations, their attributes, the code that computes them and what is read, so it
names a value across runs. It is of two parts, the form of the value and the leaves in it, so that
outputs that are computed alike have their form made once. A number of the whole model is a leaf
too: below it lie all tensors, and its own key is made of those of its nodes. No output that has
such a number is computed like another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from ...grammar.records import dataclass
from ..evaluate.extensions import INSTALLED
from ..ops.table import OPS
from .graph import Attribute, Graph, Node, Output, StoredRange, below

Place = Callable[[StoredRange], str]
"""The text that stands for where the bytes of a stored range lie."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A value but for its leaves: its text, and the leaves in the order in which the text has
    them."""

    text: str
    ranges: tuple[StoredRange, ...]
    masks: tuple[int, ...]
    numbers: tuple[str, ...]


def output_keys(graph: Graph, place: Place, code: Mapping[str, str]) -> Iterator[tuple[Output, str]]:
    """Each output with its key, 32 hexadecimal digits.

    `code` has digests of the code that makes values: of mergec's own under the empty text, which
    counts for all that is not a copy, and of kernels of installed packages under their addresses.

    Takes time and memory by the number of outputs, not by that of the nodes that the graph has
    written out.
    """
    numbers = _node_keys(below(n for n in graph.nodes if _of_the_model(n)), place, code)
    forms: dict[int, _Form] = {}
    slots: dict[int, tuple[int, ...]] = {}
    for output in graph.outputs:
        number, like = output.node.id, output.equivalence
        if number not in forms:
            forms[number] = _form(output.node, numbers, code)
        form = forms[number]
        if like is None:
            leaves = [place(found) for found in form.ranges]
            masks = form.masks
        else:
            if number not in slots:
                order = {source: k for k, source in enumerate(like.sources)}
                slots[number] = tuple([order[found] for found in form.ranges])
            leaves = [place(like.range(k, output.reads[k])) for k in slots[number]]
            masks = tuple([like.key(key, output.name) for key in form.masks])
        own = "" if is_copy(output) else code[""]
        yield output, _digest("|".join((form.text, own, output.dtype, *leaves, *map(str, masks), *form.numbers)))


def is_copy(output: Output) -> bool:
    """Whether an output has the bytes of a stored range: nothing is computed."""
    return output.node.op == "source" and output.node.attribute("range").dtype == output.dtype


def _of_the_model(node: Node) -> bool:
    return node.op in OPS and OPS[node.op].whole_model


def _form(root: Node, numbers: Mapping[int, str], code: Mapping[str, str]) -> _Form:
    """The form of a value, its nodes numbered from the leaves up in the order of their inputs."""
    local: dict[int, int] = {}
    lines: list[str] = []
    ranges: dict[StoredRange, int] = {}
    masks: dict[int, int] = {}
    given: list[str] = []
    todo: list[tuple[Node, bool]] = [(root, False)]
    while todo:
        node, ready = todo.pop()
        if node.id in local:
            continue
        number = numbers.get(node.id) if _of_the_model(node) else None
        if not ready and number is None:
            todo.append((node, True))
            todo.extend((i, False) for i in reversed(node.inputs))
            continue
        local[node.id] = len(local)
        text = repr(node.attributes)
        if number is not None:
            given.append(number)
            lines.append("number")
            continue
        if node.op == "source":
            found = node.attribute("range")
            text = f"{found.dtype} {ranges.setdefault(found, len(ranges))}"
        elif node.op == "bernoulli":
            key = node.attribute("key")
            text = f"mask {masks.setdefault(key, len(masks))}"
        elif node.op in INSTALLED:
            text = repr(_with_code(node, code))
        lines.append(f"{node.op} {text} {node.shape} {[local[i.id] for i in node.inputs]}")
    return _Form(_digest("\n".join(lines)), tuple(ranges), tuple(masks), tuple(given))


def _node_keys(nodes: list[Node], place: Place, code: Mapping[str, str]) -> dict[int, str]:
    """The key of each node; inputs come before their users."""
    known: dict[int, str] = {}
    for node in nodes:
        attributes = _with_code(node, code) if node.op in INSTALLED else node.attributes
        shown = [f"{k}={place(v) if isinstance(v, StoredRange) else repr(v)}" for k, v in attributes]
        known[node.id] = _digest("|".join((node.op, repr(node.shape), *shown, *(known[i.id] for i in node.inputs))))
    return known


def _with_code(node: Node, code: Mapping[str, str]) -> list[Attribute]:
    """The attributes of an installed kernel, its code in place of its package: a digest of that
    says which."""
    kernel = node.attribute("kernel")
    return [(k, code[kernel] if k == "package" else v) for k, v in node.attributes]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=16).hexdigest()
