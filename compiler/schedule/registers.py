"""Straight-line code for the blocks of a pass, with registers that are used again after their last
use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..graph.graph import Node
from ..ops.table import OPS
from ..plan.plan import (
    Argument,
    Constant,
    Held,
    Instruction,
    Mask,
    Operand,
    Register,
    Scalar,
)


class CodeBuilder:
    """The code for some values of one pass.

    `held` are the values that lie whole in memory. `operand` says how the pass reads a value that
    it doesn't compute, and `number` which scalar a number is.
    """

    def __init__(
        self,
        roots: Sequence[Node],
        held: Mapping[int, Held],
        operand: Callable[[Node], Operand],
        number: Callable[[Node], Scalar | Constant],
    ) -> None:
        self._held, self._operand, self._number = held, operand, number
        self.operands: list[Operand] = []
        self.code: list[Instruction] = []
        self.registers = self.masks = 0
        self._free: dict[type, list[int]] = {Register: [], Mask: []}
        self._blocks: dict[int, Register | Mask] = {}
        order = self._collect(roots)
        uses: dict[int, int] = {}
        for node in order:
            for source in self._inputs(node):
                uses[source.id] = uses.get(source.id, 0) + 1
        for root in roots:
            uses[root.id] = uses.get(root.id, 0) + 1  # never freed: reductions and stores read it at the end
        for node in order:
            self._emit(node, uses)

    def register(self, node: Node) -> Register:
        """Where the value of a root that is a tensor of numbers is in the end."""
        block = self._blocks[node.id]
        assert isinstance(block, Register)
        return block

    def block(self, node: Node) -> Register | Mask:
        """Where the value of a root is in the end."""
        return self._blocks[node.id]

    def argument(self, node: Node) -> Argument:
        return self._number(node) if node.shape is None else self._blocks[node.id]

    def _inputs(self, node: Node) -> tuple[Node, ...]:
        """The inputs that are blocks: not numbers, and nothing below a leaf."""
        if self._is_leaf(node):
            return ()
        return tuple([i for i in node.inputs if i.shape is not None])

    def _is_leaf(self, node: Node) -> bool:
        """Whether the node's value is read, from files or from a held buffer, instead of
        computed."""
        return node.op in ("source", "gather", "part", "low_rank") or node.id in self._held

    def _collect(self, roots: Sequence[Node]) -> list[Node]:
        """Depth first, so that what is loaded is soon used."""
        order: list[Node] = []
        done: set[int] = set()
        todo: list[tuple[Node, bool]] = [(r, False) for r in reversed(roots)]
        while todo:
            node, ready = todo.pop()
            if node.id in done:
                continue
            if ready:
                done.add(node.id)
                order.append(node)
            else:
                todo.append((node, True))
                todo.extend((i, False) for i in reversed(self._inputs(node)))
        return order

    def _emit(self, node: Node, uses: dict[int, int]) -> None:
        args: list[Argument] = []
        attributes = plain_attributes(node)
        op = node.op
        if self._is_leaf(node):
            op, attributes = "load", (("operand", len(self.operands)),)
            self.operands.append(self._operand(node))
        else:
            args = [self.argument(i) for i in node.inputs]
        inputs = self._inputs(node)
        for source in inputs:
            uses[source.id] -= 1
        # the result may take the place of an input that dies here: kernels are elementwise
        dying = [i for i in dict.fromkeys(inputs) if uses[i.id] == 0]
        kind: type = Mask if node.kind == "mask" else Register
        if op in OPS and not OPS[op].in_place:
            out = self._take(kind)
            self._release(dying)
        else:
            self._release(dying)
            out = self._take(kind)
        self._blocks[node.id] = out
        self.code.append(Instruction(op, out, tuple(args), attributes))

    def _take(self, kind: type) -> Register | Mask:
        free = self._free[kind]
        if free:
            return kind(free.pop())  # type: ignore[no-any-return]
        if kind is Mask:
            self.masks += 1
            return Mask(self.masks - 1)
        self.registers += 1
        return Register(self.registers - 1)

    def _release(self, nodes: list[Node]) -> None:
        for node in nodes:
            block = self._blocks[node.id]
            self._free[type(block)].append(block.index)


def plain_attributes(node: Node) -> tuple[tuple[str, int | float | str], ...]:
    """The attributes of a node that the plan has too: numbers and text."""
    return tuple((k, v) for k, v in node.attributes if isinstance(v, int | float | str))
