"""LoRA adapters by their headers: what an adapter changes of each tensor of a model. PEFT's files,
and its rules.

    adapter_model.safetensors                                   what it does
    base_model.model.X.lora_A.weight, X.lora_B.weight           X.weight + s·B·A
    base_model.model.X.lora_embedding_A, X.lora_embedding_B     X.weight + s·(B·A)ᵀ
    base_model.model.X.lora_B.bias                              X.bias + s·bias
    base_model.model.X.lora_magnitude_vector                    V·m/‖V‖ for V = X.weight + s·B·A
    base_model.model.X.base_layer.weight                        X.weight is this, before all that
    base_model.model.X.weight                                   X.weight is this (`modules_to_save`)

The magnitudes are DoRA's (arXiv:2402.09353). s is alpha/r, or alpha/√r for rank-stabilised adapters
(arXiv:2312.03732). Which weight of a model X.weight is, in whatever layout it is stored, is told by
`bind`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Protocol

from ...grammar.diagnostic import Label, MergecError, error
from ...grammar.records import dataclass
from ...grammar.source import Span
from .adapter_config import AdapterConfig
from .catalog import Checkpoint, StoredTensor
from .dtypes import FLOATS
from .layouts import CANONICAL, layout_names, pack
from .model import Model

_PREFIX = "base_model.model."
_PARTS = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_[AB]\.default\.weight|lora_B\.bias|lora_B\.default\.bias"
    r"|lora_embedding_[AB](?:\.default)?|lora_magnitude_vector(?:\.default)?(?:\.weight)?)"
)
_WRAPPED = re.compile(r"(?P<module>.+)\.(?:base_layer|modules_to_save(?:\.default)?|original_module)\.(?P<leaf>[^.]+)")


_LIKE = 3
"""How many parts of two names have to agree, from the end, for them to be taken for the same
tensor's."""

_MERGE_IT = (
    "if it is for such a model with more tensors, say with a head for classes: merge it there with peft's"
    " `merge_and_unload`, save that, and name it with `model(…)`"
)


@dataclass(frozen=True, slots=True)
class LoraProduct:
    """`scale`·B·A of two stored matrices; more axes than two are flattened but for the first.

    `embedding`: its transpose, whatever the weight.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    embedding: bool

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def inputs(self) -> int:
        return math.prod(self.a.shape[1:])

    @property
    def outputs(self) -> int:
        return self.b.shape[0]


@dataclass(slots=True)
class Change:
    """What an adapter does to one tensor: `replaced` by a stored one, then `product`, `vector`
    (scaled) or both added, then `magnitude` instead of the norm."""

    replaced: StoredTensor | None = None
    product: LoraProduct | None = None
    vector: tuple[StoredTensor, float] | None = None
    magnitude: StoredTensor | None = None

    @property
    def sums(self) -> bool:
        """Whether the change is something added, whatever the tensor is."""
        return self.replaced is None and self.magnitude is None


@dataclass(frozen=True, slots=True)
class AdapterPart:
    """The change of a canonical tensor: elements from `first` on of the tensor that `change` is of.

    `piece`: the two need not be of one shape, for another layout keeps several tensors in one.
    `turned`: the weight has its inputs along the first axis, so the product's transpose is added.
    """

    change: Change
    first: int
    piece: bool
    turned: bool


class SameBytes(Protocol):
    """Whether two stored tensors are known to hold equal bytes, as `Catalog.same_bytes` tells
    it."""

    def __call__(self, first: str, second: str, *, other: Checkpoint | None = None, turned: bool = False) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter as the recipe sees it.

    `model` stands for its file: number, label, stored tensors. `changes` is by names of the tensors
    that PEFT would change, in the order of the file. `config` is adapter_config.json. `same_bytes`
    tells of two stored tensors whether they are equal.
    """

    model: Model
    changes: Mapping[str, Change]
    config: AdapterConfig
    same_bytes: SameBytes
    _bound: dict[int, Mapping[str, AdapterPart]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.model.label

    def bound(self, model: Model, span: Span) -> Mapping[str, AdapterPart]:
        """What changes of a model's tensors, by canonical names, tied ones by their own. Raises
        MergecError (E0453)."""
        if model.number not in self._bound:
            self._bound[model.number] = _bind(self, model, span)
        return self._bound[model.number]


# --- reading -------------------------------------------------------------------------------------


def read_changes(
    checkpoint: Checkpoint, config: AdapterConfig, same_bytes: SameBytes, label: str, span: Span
) -> dict[str, Change]:
    """What the tensors of an adapter's file do. Raises MergecError: E0452, E0453."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    changes: dict[str, Change] = {}
    for name, tensor in checkpoint.tensors.items():
        if tensor.dtype not in FLOATS:
            raise _unfit(f"`{_show(name)}` of `{label}` is {tensor.dtype}", span, "an adapter's tensors are floats")
        plain = name.removeprefix(_PREFIX)
        part = _PARTS.fullmatch(plain)
        if part is not None:
            kind = part["part"].replace(".default", "").removesuffix(".weight")
            if pairs.setdefault(part["module"], {}).setdefault(kind, tensor) is not tensor:
                raise _unfit(f"`{label}` has `{kind}` of `{_show(part['module'])}` twice", span, "two adapters in one?")
            continue
        if "lora_" in plain or "token_adapter" in plain:
            raise _other(label, name, span)
        wrapped = _WRAPPED.fullmatch(plain)
        target = f"{wrapped['module']}.{wrapped['leaf']}" if wrapped else plain
        if wrapped and ".original_module." in plain:
            continue
        whole = changes.setdefault(target, Change(replaced=tensor)).replaced
        # PEFT saves a trained embedding under its own name and as what was trained
        if whole is None or (whole is not tensor and not same_bytes(whole.name, name)):
            raise _unfit(f"`{label}` has `{_show(target)}` twice", span, "which one is it?")
    for module, parts in pairs.items():
        for target, change in _module(module, parts, config, label, span):
            have = changes.setdefault(target, Change())
            have.product, have.vector = change.product or have.product, change.vector or have.vector
            have.magnitude = change.magnitude
    return changes


def _module(
    module: str, parts: Mapping[str, StoredTensor], config: AdapterConfig, label: str, span: Span
) -> Iterator[tuple[str, Change]]:
    shown = _show(module)
    if any(t.nbytes == 0 for t in parts.values()):
        raise _unfit(f"`{label}` has an empty tensor for `{shown}`", span, "nothing to add")
    embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    a, b = (parts.get(f"lora_embedding_{x}" if embedding else f"lora_{x}") for x in "AB")
    if a is None or b is None:
        raise _unfit(f"`{label}` has only one of the two factors of `{shown}`", span, "a product has two")
    rank = config.rank(module)
    plain = len(a.shape) >= 2 and len(b.shape) >= 2 and math.prod(b.shape[2:]) == 1
    if not plain or (a.shape[0], b.shape[1]) != (rank, rank):
        notes = (f"A is {list(a.shape)}, B is {list(b.shape)}", f"adapter_config.json gives the rank {rank}")
        raise _unfit(f"the factors of `{shown}` in `{label}` do not fit together", span, "of another rank", notes)
    scale = config.scale(module)
    yield (
        f"{module}.weight",
        Change(product=LoraProduct(a, b, scale, embedding), magnitude=parts.get("lora_magnitude_vector")),
    )
    if "lora_B.bias" in parts:
        yield f"{module}.bias", Change(vector=(parts["lora_B.bias"], scale))


# --- finding the tensors of a model ---------------------------------------------------------------


def _bind(adapter: Adapter, model: Model, span: Span) -> dict[str, AdapterPart]:
    found: dict[str, tuple[Change, int, bool]] = {}
    left = dict(adapter.changes)
    for name in model.space.names:
        if name in left:
            found[name] = left.pop(name), 0, False
    for stored, parts in _elsewhere(model) if left else ():
        change = left.pop(stored, None)
        if change is not None:
            found |= {name: (change, first, len(parts) > 1) for name, first in parts if name not in found}
    if left:
        shown = [f"`{_show(name)}`" for name in left]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        notes, help = [f"not in `{model.label}`: {', '.join(shown[:3])}{more}"], _MERGE_IT
        first = next(iter(left))
        other = _prefixes(first, model.space.names)
        if other is not None:
            had, wanted, pattern = other
            notes.append(f"in `{model.label}` that may be `{_show(had + first.removeprefix(wanted))}`")
            names = f'{{"{_show(had)}{pattern}": "{_show(wanted)}{pattern}"}}'
            help = f"where only the prefix differs, open the model under the adapter's names: `rename={names}`"
        raise error(
            "E0453",
            f"`{model.label}` lacks {len(shown)} of the {len(adapter.changes)} tensors that `{adapter.label}` is for",
            (Label(span, "applied here"), Label(adapter.model.span, "made for another model?")),
            notes=notes,
            help=help,
        )
    # a square weight does not show which way round it is, but others of the same model do
    shapes = {name: view[1].shape for name in found if (view := model.find(name))}
    square = adapter.config.fan_in_fan_out or any(_turned(f[0], shapes.get(n, ()), False) for n, f in found.items())
    return {
        name: AdapterPart(change, first, piece, _turned(change, shapes.get(name, ()), square, True))
        for name, (change, first, piece) in found.items()
    }


def _prefixes(name: str, names: Iterable[str]) -> tuple[str, str, str] | None:
    """Where a tensor's name is that of one alone of `names` but for what stands before: what stands
    there in `names` and in `name`, and a pattern for what follows both. None where that is not so,
    or too little of them agrees."""
    parts = name.split(".")
    for k in range(len(parts) - _LIKE):
        rest = ".".join(parts[k:])
        found = [other for other in names if other == rest or other.endswith(f".{rest}")]
        if found:
            wanted = name.removesuffix(rest)
            numbered = parts[k + 1].isdigit()
            pattern = f"{_show(parts[k])}.{'{i}.*' if numbered else '*'}"
            return (found[0].removesuffix(rest), wanted, pattern) if len(found) == 1 else None
    return None


def _turned(change: Change, shape: tuple[int, ...], square: bool, embeddings: bool = False) -> bool:
    product = change.product
    if product is None or product.embedding:
        return product is not None and embeddings
    if len(shape) != 2 or shape[0] == shape[1]:
        return square and len(shape) == 2
    return shape == (product.inputs, product.outputs)


def _elsewhere(model: Model) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Names under which other layouts store the model's tensors, its own layout's first: the
    canonical tensors in each, and at which element they begin."""
    own: dict[str, list[tuple[str, int]]] = {}
    for name, view in model.tensors.items():
        own.setdefault(view.stored, []).append((name, view.first))
    yield from own.items()
    shapes = {name: view.shape for name, view in model.tensors.items()}
    shapes |= {alias: shapes[primary] for alias, primary in model.aliases.items()}
    for layout in layout_names(model.family):
        if layout not in (CANONICAL, model.layout):
            for packed in pack(model.family, layout, shapes):
                first, parts = 0, []
                for name in packed.parts:
                    parts.append((name, first))
                    first += math.prod(shapes[name])
                yield packed.name, parts


# --- complaints -----------------------------------------------------------------------------------


def _show(name: str) -> str:
    return ascii(name)[1:-1]


def _other(label: str, name: str, span: Span) -> MergecError:
    return error(
        "E0452",
        f"`{label}` is an adapter of a kind that can't be applied",
        span,
        "not a plain LoRA",
        notes=f"it has a tensor `{_show(name)}`",
        help="merge it into its model with peft's `merge_and_unload`, and name the result",
    )


def _unfit(message: str, span: Span, label: str, notes: tuple[str, ...] = ()) -> MergecError:
    return error("E0453", message, span, label, notes=notes)
