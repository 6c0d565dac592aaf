"""What an adapter does to tensors that share storage: the same to all of them, or to each its own.

PEFT adapts modules, not the storage that they share: LoRA on the head of a tied model leaves its embedding as it was.
Only where the adapter's config says so (`ensure_weight_tying`) does a tensor of which the adapter says nothing get what
another of the names gets.
"""

from __future__ import annotations

from ...grammar.source import Span
from ..checkpoint.adapter import Adapter, Part
from ..checkpoint.catalog import StoredTensor
from ..checkpoint.model import Model


def change_of(adapter: Adapter, model: Model, name: str, span: Span) -> Part | None:
    """What the adapter does to the model's canonical tensor `name`. Raises MergecError (E0453)."""
    bound = adapter.bound(model, span)
    if name in bound or not adapter.config.tied:
        return bound.get(name)
    return next((bound[other] for other in sharing(model, name) if other in bound), None)


def sharing(model: Model, name: str) -> list[str]:
    """The other names of a tensor's storage, that under which it is stored first."""
    primary = model.aliases.get(name, name)
    names = [primary, *(alias for alias, other in model.aliases.items() if other == primary)]
    return [other for other in names if other != name]


def same_change(adapter: Adapter, one: Part | None, two: Part | None) -> bool:
    """Whether two tensors of one shape are known to be changed alike: by equal tensors, and by equal products."""
    if one is None or two is None:
        return one is two
    if (one.first, one.piece) != (two.first, two.piece):
        return False
    first, second = one.change, two.change
    if first is second:
        return True
    if one.turned != two.turned and (first.magnitude is not None or second.magnitude is not None):
        return False  # one number for each row of the one, for each column of the other
    a, b = first.vector, second.vector
    if (a is None) != (b is None) or (a is not None and b is not None and a[1] != b[1]):
        return False
    return (
        _equal(adapter, first.replaced, second.replaced)
        and _equal(adapter, first.magnitude, second.magnitude)
        and _equal(adapter, a and a[0], b and b[0])
        and _same_product(adapter, one, two)
    )


def _same_product(adapter: Adapter, one: Part, two: Part) -> bool:
    """Whether what is added is equal: B·A and (B'·A')ᵀ are where A is B' turned, and B is A' turned."""
    first, second = one.change.product, two.change.product
    if first is None or second is None:
        return first is second
    if first.scale != second.scale:
        return False
    if one.turned == two.turned:
        return _equal(adapter, first.a, second.a) and _equal(adapter, first.b, second.b)
    pairs = ((first.a, second.b), (second.a, first.b))
    return all(adapter.same_bytes(a.name, b.name, turned=True) for a, b in pairs)


def _equal(adapter: Adapter, one: StoredTensor | None, two: StoredTensor | None) -> bool:
    if one is None or two is None:
        return one is two
    return (one.dtype, one.shape) == (two.dtype, two.shape) and adapter.same_bytes(one.name, two.name)
