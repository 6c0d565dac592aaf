"""Small models on the meta device, under many configs: what transformers would store for each.

A probe is a config, changed in one way or several, and the names and shapes that follow from it.
"""

from __future__ import annotations

import copy
import inspect
import random
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mergec.grammar.records import dataclass
from transformers import PreTrainedConfig
from transformers.configuration_utils import ALLOWED_LAYER_TYPES
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

Data = dict[str, Any]
Path = tuple[str, ...]
Step = tuple[Path, Any]
Make = Callable[[PreTrainedConfig], Any]

IDLE = frozenset((
    "_attn_implementation", "_name_or_path", "activation_function", "architectures", "attention_dropout",
    "attention_probs_dropout_prob", "attn_implementation", "auto_map", "chunk_size_feed_forward", "dtype",
    "hidden_act", "hidden_activation", "hidden_dropout", "hidden_dropout_prob", "id2label",
    "initializer_range", "label2id", "layer_norm_eps", "max_length", "model_type", "output_attentions",
    "output_hidden_states", "problem_type", "return_dict", "rms_norm_eps", "rope_parameters", "rope_scaling",
    "rope_theta", "task_specific_params", "torch_dtype", "transformers_version", "use_cache",
))  # fmt: skip
"""Keys that no tensor follows from; what else has no effect is found out."""
_TOKEN = re.compile(r"(_id|_ids|_token|_token_index|_token_id)$")
_DEPTH = re.compile(r"layers?$|depth$|blocks?$")
_RATIO = re.compile(r"ratio|factor|expan|mult")
_WORDS = {
    "position_embedding_type": ("absolute", "relative_key", "rotary", "relative_key_query", "relative"),
    "feat_extract_norm": ("group", "layer"),
    "feed_forward_proj": ("relu", "gated-gelu"),
    "norm_type": ("batch", "layer"),
    "summary_type": ("last", "cls_index"),
}
_EXPERTS = re.compile(r"^(?!.*(per_tok|shared|top)).*experts?$|^expert_num$")
_PERIOD = re.compile(r"period$|interval$|step$|every|freq|pattern$|offset$")
_BY_POSITION = re.compile(r"period$|interval$|sparse_step$|_freq|pattern$|first_k|max_window|layer_step|kv_shared")
_ABSENT = "absent"
_NO_MARKS = frozenset(("training", "layer_idx", "layer_id", "layer_index", "p", "drop_prob", "layer_number"))
_DEEP = 6
_MOST_TENSORS = 5000
_MOST_BASES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """`config` is as the class completes what it is given; `tensors`: name to shape, as stored.

    `base` is the number of the probe of which this one differs, in one key where `single`.
    """

    base: int
    single: bool
    given: Data
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]
    marks: Mapping[str, Mapping[str, tuple[Any, ...]]]


def stored(model: Any) -> dict[str, torch.Tensor]:
    """The tensors that `save_pretrained` would write."""
    state = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    for name in model._keys_to_ignore_on_save or ():
        state.pop(name, None)
    state = remove_tied_weights_from_state_dict(state, model)
    return dict(revert_weight_conversion(model, state))


def marks(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, tuple[Any, ...]]]:
    """What the modules of layers differ in: for each list of layers, by the prefix of its tensors,
    attributes with their values, a layer an item."""
    own = [n for n, _ in (*model.named_parameters(), *model.named_buffers())]
    out: dict[str, dict[str, tuple[Any, ...]]] = {}
    for path, layers in model.named_modules():
        if not isinstance(layers, torch.nn.ModuleList) or len(layers) < 2:
            continue
        inner = next((n for n in own if n.startswith(f"{path}.0.")), None)
        if inner is None:
            continue
        head = path if inner in tensors else _renamed(path, inner, tensors)
        found: dict[str, list[Any]] = {}
        for k, layer in enumerate(layers):
            for below, module in layer.named_modules():
                values = {"": type(module).__name__, **vars(module)}
                for name, value in values.items():
                    if name[:1] == "_" or name in _NO_MARKS or type(value) not in (int, float, bool, str, type(None)):
                        continue
                    found.setdefault(f"{below}.{name}", [_ABSENT] * len(layers))[k] = value
        telling = {n: tuple(v) for n, v in found.items() if len(set(map(repr, v))) > 1 and v != list(range(len(v)))}
        if telling:
            out[head] = telling
    return out


def _renamed(path: str, inner: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """What a list of layers is called in a file, by a tensor of its first layer."""
    tail = inner[len(path) :]
    return next((n.removesuffix(tail) for n in tensors if n.endswith(tail)), path)


class Prober:
    """Builds models of one architecture, and remembers them."""

    def __init__(self, config_class: type[PreTrainedConfig], make: Make, base: Data) -> None:
        self.config_class, self.make, self.base = config_class, make, base
        self.probes: list[Probe] = []
        self.steps: dict[int, list[list[Step]]] = {}
        self.without: set[Path] = set()
        self.usual = self.complete({})

    def complete(self, given: Data) -> Data | None:
        """What the class makes of a config; None where it refuses it."""
        try:
            return self.config_class(**copy.deepcopy(given)).to_dict()
        except Exception:  # whatever the class says to a strange config
            return None

    def probe(self, given: Data, base: int = 0, *, single: bool = False) -> Probe | None:
        """A model under this config; None where it can't be built."""
        try:
            config = self.config_class(**copy.deepcopy(given))
            with torch.device("meta"):
                model = self.make(config)
            tensors = stored(model)
        except Exception:
            return None
        if not tensors or len(tensors) > _MOST_TENSORS:
            return None
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return Probe(base, single, given, model.config.to_dict(), shapes, marks(model, tensors))

    def run(self) -> None:
        """Probes the base, each key by itself, and several at a time; and the same from configs
        that have parts which the base lacks."""
        first = self.probe(self.base)
        if first is None:
            return
        first = self._richer(first)
        self.probes.append(first)
        self._singles(0)
        known = {_kind(name) for name in first.tensors}
        for _ in range(_MOST_BASES):
            news = [(k, {_kind(n) for n in p.tensors} - known) for k, p in enumerate(self.probes)]
            k, new = max(news, key=lambda each: len(each[1]))
            if not new:
                break
            known |= new
            p = self.probes[k]
            self.probes.append(Probe(len(self.probes), False, p.given, p.config, p.tensors, p.marks))
            self._singles(len(self.probes) - 1)
        self._together()

    def _richer(self, first: Probe) -> Probe:
        """The base with fewer experts, and with a number for each key that has none and counts."""
        # an offset lies below its period
        for path, value in sorted(leaves(first.given), key=lambda each: not each[0][-1].endswith("offset")):
            tries: list[Any] = []
            if _is_int(value) and _EXPERTS.search(path[-1]) and value > 4:
                tries = [4]
            elif _is_int(value) and _PERIOD.search(path[-1]) and value > 2:
                tries = [1 if path[-1].endswith("offset") else 2]
            elif value is None:
                tries = [12, 8, 16]
            self.base = first.given
            for other in tries:
                made = self._changed(first.given, [(path, other)], 0)
                if made is not None and (_is_int(value) or _only_sizes(made.tensors, first.tensors)):
                    first = made
                    break
        for above, level in list(_levels(first.given)):
            for key, value in level.items():
                if _DEPTH.search(key) and _is_int(value) and 1 < value < _DEEP and any(map(_BY_POSITION.search, level)):
                    made = self._changed(first.given, [((*above, key), _DEEP)], 0)
                    first = made if made is not None else first
        for above, level in list(_levels(first.given)):
            heads, width = level.get("num_attention_heads"), level.get("hidden_size")
            if "head_dim" not in level and _is_int(heads) and _is_int(width) and heads:
                path = (*above, "head_dim")
                made = self._changed(first.given, [(path, 2 * (width // heads))], 0)
                if made is not None and _only_sizes(made.tensors, first.tensors):
                    first = made
                    self.without.add(path)
        self.base = first.given
        return Probe(0, False, first.given, first.config, first.tensors, first.marks)

    def _singles(self, base: int) -> None:
        start = self.probes[base]
        steps = self.steps.setdefault(base, [])
        stuck: list[tuple[Path, int]] = []
        for path, value in leaves(start.given):
            seen: set[str] = {repr(sorted(start.tensors.items()))}
            built = False
            for k, other in enumerate(alternatives(path, value, self)):
                made = self._changed(start.given, [(path, other)], base, single=True)
                if made is None:
                    continue
                built = True
                key = repr(sorted(made.tensors.items()))
                if key in seen:
                    if len(seen) == 1 and k > 4:
                        break
                    continue
                seen.add(key)
                self.probes.append(made)
                steps.append([(path, other)])
            if not built and _is_int(value) and value > 1:
                stuck.append((path, value))
            if path in self.without or value is not None:
                made = self._changed(start.given, [(path, None)], base, single=True)
                if made is not None and _only_sizes(made.tensors, start.tensors):
                    self.probes.append(made)
                    steps.append([(path, None)])
        for path, value in stuck:
            self._coupled(base, path, value)

    def _coupled(self, base: int, path: Path, value: int) -> None:
        """Changes a key that others have to go along with."""
        start = self.probes[base]
        for beside, held in leaves(start.given):
            if beside == path or not _is_int(held) or held < 2:
                continue
            for both in ([(path, 2 * value), (beside, 2 * held)], [(path, 2 * value), (beside, held // 2)]):
                made = self._changed(start.given, both, base, single=True)
                if made is not None and made.tensors != start.tensors:
                    self.probes.append(made)
                    self.steps[base].append(both)

    def _together(self) -> None:
        """Pairs of changes that count, and random sets of them."""
        draw = random.Random(0)
        for base, steps in self.steps.items():
            pairs = [[*x, *y] for k, x in enumerate(steps) for y in steps[:k] if x[0][0] != y[0][0]]
            draw.shuffle(pairs)
            chosen = pairs[: 60 if base == 0 else 12]
            for _ in range(30 if base == 0 else 12):
                some = [step for each in draw.sample(steps, min(len(steps), draw.randint(2, 8))) for step in each]
                chosen.append(list({path: (path, other) for path, other in some}.values()))
            for each in chosen:
                made = self._changed(self.probes[base].given, each, base)
                if made is not None:
                    self.probes.append(made)

    def silent(self, path: Path) -> list[Probe]:
        """The base without a key, under each change of a number."""
        steps = [[], *(s for s in self.steps[0] if all(_is_int(v) and at != path for at, v in s))]
        made = [self._changed(self.base, [(path, None), *each], 0) for each in steps]
        return [probe for probe in made if probe is not None]

    def _changed(self, given: Data, steps: list[Step], base: int, *, single: bool = False) -> Probe | None:
        given = copy.deepcopy(given)
        for path, other in steps:
            if other is None and path in self.without:
                get(given, path[:-1]).pop(path[-1], None)
            else:
                _put(given, path, other)
        return self.probe(given, base, single=single)


def _kind(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _only_sizes(these: Mapping[str, Any], those: Mapping[str, Any]) -> bool:
    return these.keys() == those.keys() and these != those


def _levels(data: Data, above: Path = ()) -> Iterator[tuple[Path, Data]]:
    yield above, data
    for key, value in data.items():
        if isinstance(value, dict) and key not in IDLE:
            yield from _levels(value, (*above, key))


def leaves(data: Data, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each key of a config and of those nested in it."""
    for key, value in data.items():
        if key in IDLE or key.startswith("_") or not isinstance(key, str) or not key.isidentifier():
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        elif not _TOKEN.search(key) and not isinstance(value, dict):
            yield (*above, key), value


def get(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _put(data: Data, path: Path, value: Any) -> None:
    """Sets a key. Lists with an item a layer go along with a depth."""
    at = get(data, path[:-1])
    before = at.get(path[-1])
    at[path[-1]] = value
    if _is_int(before) and _is_int(value) and before > 0 and _DEPTH.search(path[-1]):
        for key, items in at.items():
            if isinstance(items, list) and len(items) == before and before > 1:
                at[key] = [items[k % before] for k in range(value)]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def alternatives(path: Path, value: Any, prober: Prober) -> Iterator[Any]:
    """Other values for a key, likely ones first."""
    key = path[-1]
    if isinstance(value, bool):
        yield not value
    elif _is_int(value):
        if _DEPTH.search(key) and value > 0:
            yield from (value + 1, value + 3, value - 1)
        yield 2 * value
        if value <= 8:
            yield from (value + 1, value - 1, 0) if value else (1, 2)
        yield from (value // 2, 3 * value, value + 8)
    elif isinstance(value, float):
        if _RATIO.search(key):
            yield from (2 * value, value + 1)
    elif value is None:
        if re.search(r"(idxs|indices|indexes|layers|layer_ids)$", key):
            yield from ([0], [1], [0, 2], [])
        yield from (8, 16, True, 2)
    elif isinstance(value, str):
        for word in dict.fromkeys((*_literals(prober.config_class, path), *_WORDS.get(key, ()))):
            if word != value:
                yield word
    elif isinstance(value, (list, tuple)):
        yield from _lists(path, list(value), prober)


def _literals(config_class: type[PreTrainedConfig], path: Path) -> list[str]:
    """The words that a key's annotation allows."""
    kind: Any = config_class
    for key in path[:-1]:
        kind = getattr(kind, "sub_configs", {}).get(key)
        if not isinstance(kind, type):
            return []
    hint = {k: v for c in reversed(kind.__mro__) for k, v in getattr(c, "__annotations__", {}).items()}
    found: list[str] = []

    def gather(kind: Any) -> None:
        if typing.get_origin(kind) is typing.Literal:
            found.extend(w for w in typing.get_args(kind) if isinstance(w, str))
        for part in typing.get_args(kind):
            if not isinstance(part, (str, int)):
                gather(part)

    gather(hint.get(path[-1]))
    return found


def _kinds_of_layers(prober: Prober) -> list[str]:
    """The kinds of layers that a model's own code names."""
    modules = [sys.modules[prober.config_class.__module__]]
    modules += [
        m for n, m in list(sys.modules.items()) if n == modules[0].__name__.replace(".configuration_", ".modeling_")
    ]
    text = "".join(inspect.getsource(module) for module in modules)
    return [word for word in ALLOWED_LAYER_TYPES if f'"{word}"' in text]


def _lists(path: Path, items: list[Any], prober: Prober) -> Iterator[Any]:
    try:
        usual = get(prober.usual, path)
    except (KeyError, TypeError):
        usual = None
    known: list[Any] = []
    for item in [*items, *(usual if isinstance(usual, (list, tuple)) else ())]:
        if item not in known and not isinstance(item, (list, dict)):
            known.append(item)
    for word in _literals(prober.config_class, path):
        if word not in known:
            known.append(word)
    words = [k for k in known if isinstance(k, str)]
    if words and re.search(r"types?$", path[-1]):
        words += [word for word in _kinds_of_layers(prober) if word not in words]
    if words:
        for at in range(min(4, len(items))):
            for word in words:
                if word != items[at]:
                    yield [*items[:at], word, *items[at + 1 :]]
        for word in words:
            yield [word] * len(items)
        yield [*items, words[0]]
        yield [*items, *items]
    elif all(isinstance(k, bool) for k in items) and items:
        for at in range(min(4, len(items))):
            yield [*items[:at], not items[at], *items[at + 1 :]]
    elif all(_is_int(k) for k in items) and items:
        if re.search(r"layer|idx|index|moe", path[-1]):
            yield from ([], [0], [1], [0, 1], [1, 2], [2])
        for at in dict.fromkeys((0, 1, len(items) - 1)):
            if 0 <= at < len(items):
                for other in (2 * items[at], 1 - items[at] if items[at] in (0, 1) else items[at] + 8):
                    yield [*items[:at], other, *items[at + 1 :]]
        yield [2 * k for k in items]
        yield [*items, items[-1]]
        if len(items) > 1:
            yield items[:-1]
    elif not items:
        yield from ([0], [1], [0, 1], [0, 2])
    else:
        yield [*items, copy.deepcopy(items[-1])]
        yield items[:-1]
