"""A family for a checkpoint that is in no table: an entry made from its tensor names.

The layer stacks are the numbered runs of modules, the roles follow from the names that modules
commonly have:

    blocks.0.attn.wq.weight, …, blocks.7.mlp.fc2.weight
    layers = blocks.{i}, attn = attn, attn.q = attn.wq, mlp = mlp, mlp.down = mlp.fc2
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from ...grammar.records import dataclass
from .architectures import has_head, tied_head
from .config_keys import config_value
from .model_types import Entry
from .patterns import enclosing, split

# Names by role, the most telling first. A module's name is compared as a whole, without regard to
# case.
_ATTENTION = ("self_attn", "self_attention", "selfattention", "attention", "attn", "mixer", "linear_attn")
_CROSS = ("encdecattention", "encoder_attn", "cross_attn", "cross_attention", "crossattention", "multihead_attn")
_MLP = ("mlp", "feed_forward", "feedforward", "ffn", "ff", "densereludense", "block_sparse_moe", "moe")
_PROJECTIONS = {
    "q": ("q_proj", "query", "wq", "to_q", "q_lin", "q"),
    "k": ("k_proj", "key", "wk", "to_k", "k_lin", "k"),
    "v": ("v_proj", "value", "wv", "to_v", "v_lin", "v"),
    "o": ("o_proj", "out_proj", "wo", "to_out", "out_lin", "dense", "c_proj", "proj", "out", "o"),
    "qkv": ("qkv_proj", "query_key_value", "wqkv", "qkv", "c_attn", "in_proj"),
    "q_a": ("q_a_proj",),
    "q_b": ("q_b_proj",),
    "kv_a": ("kv_a_proj_with_mqa", "kv_a_proj"),
    "kv_b": ("kv_b_proj",),
    "q_norm": ("q_norm", "q_layernorm", "query_norm"),
    "k_norm": ("k_norm", "k_layernorm", "key_norm"),
}
_FEED = {
    "gate": ("gate_proj", "w1", "wi_0", "wg"),
    "up": (
        "up_proj",
        "w3",
        "wi_1",
        "wi",
        "fc1",
        "c_fc",
        "dense_h_to_4h",
        "fc_in",
        "lin1",
        "linear_1",
        "intermediate_dense",
    ),
    "down": ("down_proj", "w2", "wo", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "lin2", "linear_2", "output_dense"),
    "gate_up": ("gate_up_proj", "wi_fused"),
}
_NORM_1 = (
    "input_layernorm", "attention_norm", "self_attn_layer_norm", "attn_norm", "layernorm_before", "layer_norm1",
    "norm1", "ln_1", "ln1", "ln", "norm", "sa_layer_norm", "operator_norm", "layer_norm",
)  # fmt: skip
_NORM_2 = (
    "pre_feedforward_layernorm", "post_attention_layernorm", "ffn_norm", "mlp_norm", "layernorm_after", "layer_norm2",
    "norm2", "ln_2", "ln2", "final_layer_norm", "output_layer_norm",
)  # fmt: skip
# the layers of BERT and its kin have no module for the feed-forward part as a whole
_BERT = {
    "attn": ["attention.self", "attention.output.dense"],
    "mlp": ["intermediate.dense", "output.dense"],
    "mlp.up": ["intermediate.dense"],
    "mlp.down": ["output.dense"],
    "norm1": ["attention.output.LayerNorm"],
    "norm2": ["output.LayerNorm"],
}
_ROUTER = ("router", "gate", "wg")
_EXPERTS = ("experts", "expert")
_SHARED = ("shared_experts", "shared_expert")
_EMBED = (
    "embed_tokens", "wte", "word_embeddings", "tok_embeddings", "token_embedding", "token_embeddings", "embed_in",
    "shared", "embedding", "embeddings", "embed", "emb",
)  # fmt: skip
_HEAD = ("lm_head", "embed_out", "output_layer", "output", "head")
_NORM = (
    "norm", "ln_f", "final_layernorm", "final_layer_norm", "final_norm", "norm_f", "ln_final", "ln_out",
    "embedding_norm",
)  # fmt: skip
# of an encoder, a decoder or a tower
_PART_NORM = (*_NORM, "post_layernorm", "layernorm_post", "ln_post", "layer_norm", "layernorm")
_PART_EMBED = (*_EMBED, "patch_embedding", "patch_embed", "patch_embeddings", "patch_conv")
_PROJECTOR = (
    "multi_modal_projector", "multimodal_projector", "mm_projector", "projector", "connector", "aligner",
    "audio_projector", "merger",
)  # fmt: skip

# what a part of a module's path says about it: the first that fits of what is made out, then of
# encoder and decoder the outer one, as a decoder may be a model that calls its own stack an encoder
_MODALITIES = (
    ("vision", ("vision", "visual", "image", "vit")),
    ("audio", ("audio", "speech")),
    ("text", ("text", "language", "llm")),
)
_HALVES = (("encoder", ("encoder",)), ("decoder", ("decoder",)))
_LAYERS = ("layers", "layer", "blocks", "block", "h")
_MAIN = ("text.layers", "decoder.layers", "layers", "encoder.layers")
_PARTS = ("text", "vision", "audio", "encoder", "decoder")
_DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "depth")
_EXPERT_COUNT = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TIE = "tie_word_embeddings"


def infer(names: Collection[str], config: Mapping[str, Any] | None) -> Entry:
    """An entry for checkpoints whose tensors have these names; roles reach as far as the names
    tell.

    `config` may be missing or anything at all: only keys of the expected types are looked at.
    """
    config = config or {}
    runs, loose = _runs(names)
    stacks = _name_stacks(runs)
    nested = [key for key, value in config.items() if isinstance(value, Mapping) and key.endswith("config")]
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in loose))
    places = _places(modules, loose, stacks) | _parts(modules, loose, stacks)
    roles = {stack: _roles(runs[prefix]) for stack, prefix in stacks.items()}
    main = max(stacks, key=lambda stack: runs[stacks[stack]].length, default=None)
    vocabulary, ties = _vocabulary(places, set(names), config)
    kind = config.get("model_type")
    extra = next(_keys(("num_nextn_predict_layers",), config, nested), None)
    facts = _facts({stack: (prefix, runs[prefix].depth) for stack, prefix in stacks.items()}, extra, config, nested)
    return {
        "name": kind if isinstance(kind, str) and kind else "unknown",
        "stacks": {
            stack: {
                "prefix": prefix + "{i}",
                "depth_key": _depth_key(stack, prefix, runs[prefix].depth, extra, config, nested, len(stacks) == 1),
                "extra_key": extra,
                "facts": facts.get(stack, []),
            }
            for stack, prefix in stacks.items()
        },
        "places": places,
        "roles": {} if main is None or len(stacks) > 1 else roles[main],
        "stack_roles": roles if len(stacks) > 1 else {},
        "experts": next((run.experts for prefix in stacks.values() if (run := runs[prefix]).experts), None),
        "ties": ties,
        "ignored": ["*.rotary_emb.inv_freq", "*.position_ids"],
        "vocabulary": vocabulary,
        "vocab_key": next(_keys(["vocab_size"], config, _text_first(nested)), None),
        "experts_key": next(_keys(_EXPERT_COUNT, config, nested), None),
    }


# --- stacks --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """The layers under one prefix: their numbers, and the modules that hold tensors, as paths
    relative to the layer.

    `experts` is the path of an expert, numbered `{e}`; `tails` are the modules of an expert.
    `fused` are tensors that hold a part of all experts.
    """

    numbers: set[str] = field(default_factory=set)
    modules: dict[str, None] = field(default_factory=dict)
    experts: str | None = None
    tails: dict[str, None] = field(default_factory=dict)
    fused: dict[str, None] = field(default_factory=dict)
    seen: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def length(self) -> int:
        return len(self.numbers)

    @property
    def depth(self) -> int:
        """One past the highest layer; some between may hold no tensor."""
        return max(map(int, self.numbers)) + 1

    def add(self, texts: tuple[str, ...], numbers: Sequence[str]) -> None:
        self.numbers.add(numbers[0])
        if texts in self.seen:
            return
        if len(numbers) == 1:
            self.seen.add(texts)
        if len(texts) == 3 and texts[1].strip(".").rpartition(".")[2].lower() in _EXPERTS:
            self.seen.add(texts)
            self.experts = texts[1].strip(".") + ".{e}"
            self.tails[_module_of(texts[2])] = None
        else:
            # further numbers are sublayers (T5), which differ from each other: kept as they are
            rest = "".join(text + number for text, number in zip(texts[1:], (*numbers[1:], ""), strict=True))
            module = _module_of(rest)
            self.modules[module] = None
            if module.rpartition(".")[2].lower() in _EXPERTS:
                self.fused[rest.strip(".")] = None

    @property
    def layered(self) -> bool:
        """Layers hold modules; the numbered parts of a plain sequence of weights hold tensors
        only."""
        return self.experts is not None or any(self.modules)

    @property
    def attends(self) -> bool:
        """Whether its layers have attention, or what stands for it."""
        parts = {part.lower() for module in self.modules for part in module.split(".")}
        return any("attn" in part or "attention" in part or part in _ATTENTION for part in parts)


def _module_of(name: str) -> str:
    return name.strip(".").rpartition(".")[0]


def _runs(names: Iterable[str]) -> tuple[dict[str, _Run], list[str]]:
    """The numbered runs that may be layer stacks, by prefix, and the names outside them."""
    runs: dict[str, _Run] = {}
    loose: list[str] = []
    below: dict[str, list[str]] = {}
    for name in names:
        texts, numbers = split(name)
        # braces would read as variables of a pattern
        if not numbers or not texts[0] or "{" in name:
            loose.append(name)
            continue
        runs.setdefault(texts[0], _Run()).add(texts, numbers)
        below.setdefault(texts[0], []).append(name)
    longest = max((run.length for run in runs.values() if run.layered), default=0)
    for prefix in list(runs):
        # a lone layer beside a stack is a block of its own (a prediction head), not a stack
        if not runs[prefix].layered or runs[prefix].length < min(2, longest):
            del runs[prefix]
            loose += below[prefix]
    return runs, loose


def _name_stacks(runs: Mapping[str, _Run]) -> dict[str, str]:
    """Place to prefix. One stack is `layers`; several are distinguished by their prefixes."""
    # convolutions in front of a transformer are numbered too, and are not its layers
    attending = [prefix for prefix, run in runs.items() if run.attends]
    main = attending or list(runs)
    if len(main) == 1:
        others = {prefix.rstrip("."): prefix for prefix in runs if prefix != main[0]}
        return {"layers": main[0], **others}
    sides = {prefix: _side(prefix) for prefix in main}
    # a model of two halves within
    for modality in ("text", "audio"):
        inner = {prefix: _half(prefix) for prefix in main if sides[prefix] == modality}
        if len(inner) == 2 and set(inner.values()) == {"encoder", "decoder"}:
            sides |= inner
    said = set(sides.values())
    # the stack that says nothing beside an encoder is the decoder, beside a vision tower the text
    # model
    other = "decoder" if "encoder" in said and "decoder" not in said else "text" if said & {"vision", "audio"} else None
    silent = [prefix for prefix, side in sides.items() if side is None]
    plain = [prefix for prefix in silent if prefix.rstrip(".").rpartition(".")[2] in _LAYERS]
    silent = plain if len(plain) == 1 else silent
    if len(silent) == 1 and other and other not in said:
        sides[silent[0]] = other
    out: dict[str, str] = {}
    for prefix in runs:
        side = sides.get(prefix)
        alike = [each for each in main if sides[each] == side]
        # of several of one part the longest is its stack, where one is
        depths = sorted((runs[each].length for each in alike), reverse=True)
        longest = len(alike) == 1 or (len(alike) > 1 and runs[prefix].length == depths[0] > depths[1])
        out[f"{side}.layers" if side is not None and longest else prefix.rstrip(".")] = prefix
    return out


def _side(prefix: str) -> str | None:
    """What a module's path says of the part that it belongs to."""
    return next((side for side, _ in _said(prefix)), None)


def _half(prefix: str) -> str | None:
    """Whether a path names an encoder or a decoder."""
    return next((side for side, _ in _said(prefix) if side in ("encoder", "decoder")), None)


def _said(path: str) -> Iterator[tuple[str, str]]:
    """The part that a path names, and the module that is it."""
    parts = path.rstrip(".").split(".")
    for side, words in _MODALITIES:
        yield from ((side, ".".join(parts[: k + 1])) for k, part in enumerate(parts) if _says(part, words))
    for k, part in enumerate(parts):
        yield from ((side, ".".join(parts[: k + 1])) for side, words in _HALVES if _says(part, words))


def _says(part: str, words: Sequence[str]) -> bool:
    return any(word in words or word.removesuffix("s") in words for word in part.lower().split("_"))


# --- roles ---------------------------------------------------------------------------------------


def roles_below(tails: Iterable[str]) -> tuple[dict[str, list[str]], str | None]:
    """Roles below a layer, and the path of an expert, from the names that its tensors have
    there."""
    run = _Run()
    for tail in tails:
        texts, numbers = split(f"layer.0.{tail}")
        run.add(texts, numbers)
    return _roles(run), run.experts


def _roles(run: _Run) -> dict[str, list[str]]:
    """Roles below a layer, as module paths relative to it."""
    paths = list(run.modules)
    roles: dict[str, list[str]] = {}
    cross = _module(paths, _CROSS)
    attention = _module([p for p in paths if cross is None or not _under(p, cross)], _ATTENTION)
    for role, root in (("attn", attention), ("cross_attn", cross)):
        if root is not None:
            roles[role] = [root]
            roles |= _leaves(role, root, paths, _PROJECTIONS)
    mlp = _module([*paths, *([run.experts] if run.experts else [])], _MLP)
    if mlp is not None:
        roles["mlp"] = [mlp]
        roles |= _leaves("mlp", mlp, paths, _FEED)
        if "mlp.gate" in roles and "mlp.up" not in roles:
            roles["mlp.up"] = roles.pop("mlp.gate")  # w1 and w2 without w3: nothing is gated
    else:
        # in the layers of BART and its kin the two stand by themselves
        direct = [path for path in paths if "." not in path]
        two = {f"mlp.{name}": _module(direct, _FEED[name]) for name in ("up", "down")}
        found = {role: [path] for role, path in two.items() if path is not None}
        if len(found) == 2:
            roles |= {"mlp": [path for (path,) in found.values()], **found}
    home = run.experts.removesuffix(".{e}") if run.experts else next((_module_of(name) for name in run.fused), None)
    if home is not None:
        roles["experts"] = [home]
        router = _leaf(home.rpartition(".")[0], paths, _ROUTER)
        if router is not None:
            roles["router"] = [router]
        shared = _leaf(home.rpartition(".")[0], paths, _SHARED)
        if shared is not None:
            roles["shared_experts"] = [shared]
        parts = run.tails if run.experts else [name for name in run.fused if _module_of(name) == home]
        for name, words in _FEED.items():
            part = next((p for w in words for p in parts if p.rpartition(".")[2].lower() == w), None)
            if part:
                roles[f"experts.{name}"] = [part]
    roles |= _norms(paths)
    for role, part in (("norm1", "attn"), ("norm_cross", "cross_attn"), ("norm2", "mlp")):
        beside = _norm_beside(roles[part][0], paths) if part in roles and role not in roles else None
        roles |= {role: [beside]} if beside else {}
    return roles | (_BERT if all(p in paths for p in _BERT["mlp"]) else {})


def _norms(paths: Sequence[str]) -> dict[str, list[str]]:
    direct = [p for p in paths if "." not in p]
    first, second = _module(direct, _NORM_1), _module(direct, _NORM_2)
    out = {"norm1": first, "norm2": second}
    if second == "pre_feedforward_layernorm":
        out["norm1_post"] = _module(direct, ("post_attention_layernorm",))
        out["norm2_post"] = _module(direct, ("post_feedforward_layernorm",))
    return {role: [path] for role, path in out.items() if path is not None}


def _norm_beside(part: str, paths: Sequence[str]) -> str | None:
    """The norm of a sublayer that is a module of its own, as in T5: `layer.0.layer_norm` beside
    `layer.0.SelfAttention`."""
    holder = part.rpartition(".")[0]
    return next((p for p in paths if holder and p == f"{holder}.layer_norm"), None)


def _module(paths: Iterable[str], words: Sequence[str]) -> str | None:
    """The path down to the first component that is one of the words: the most telling word, the
    shallowest path."""
    best: tuple[int, int, str] | None = None
    for path in paths:
        parts = path.split(".")
        for depth, part in enumerate(parts):
            if part.lower() in words:
                found = (depth, words.index(part.lower()), ".".join(parts[: depth + 1]))
                best = min(best, found) if best else found
                break
    return best[2] if best else None


def _leaves(role: str, root: str, paths: Sequence[str], table: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    found = {f"{role}.{name}": _leaf(root, paths, words) for name, words in table.items()}
    return {name: [path] for name, path in found.items() if path is not None}


def _leaf(root: str, paths: Sequence[str], words: Sequence[str]) -> str | None:
    """The module below `root` that is called by one of the words: the shallowest, then the most
    telling word."""
    found: list[tuple[int, int, str]] = []
    base = root.count(".") + 1
    for path in paths:
        if _under(path, root):
            parts = path.split(".")
            for depth, part in enumerate(parts[base:], base):
                if part.lower() in words:
                    found.append((depth, words.index(part.lower()), ".".join(parts[: depth + 1])))
                    break
    return min(found)[2] if found else None


def _under(path: str, root: str) -> bool:
    return path == root or path.startswith(root + ".")


# --- outside the layers --------------------------------------------------------------------------


def _places(modules: Sequence[str], loose: Sequence[str], stacks: Mapping[str, str]) -> dict[str, list[str]]:
    """Embedding, head and final norm, as modules.

    Of several norms that which stands nearest to the main stack is the final one: a projector and a
    head may have their own.
    """
    places: dict[str, list[str]] = {}
    main = next((stacks[name] for name in _MAIN if name in stacks), "")
    for role, words in (("embed", _EMBED), ("head", _HEAD), ("norm", _NORM)):
        found = []
        for module in modules:
            last = module.rpartition(".")[2].lower()
            if last in words and f"{module}.weight" in loose:
                away = _away(module, main) if role == "norm" else (0, 0)
                found.append((_side(module) in ("vision", "audio"), away, words.index(last), module.count("."), module))
        best = min(found, default=None)
        # the vision tower's own embedding or norm is not the model's
        if best is not None and not best[0]:
            places[role] = [best[-1]]
    return places


def _parts(modules: Sequence[str], loose: Sequence[str], stacks: Mapping[str, str]) -> dict[str, list[str]]:
    """The parts that have a stack of their own, with the embedding and the norm of each; and what
    joins those of a multimodal model."""
    places: dict[str, list[str]] = {}
    for stack, prefix in stacks.items():
        part = stack.removesuffix(".layers")
        if part == stack or part not in _PARTS:
            continue
        root = next((module for side, module in _said(prefix) if side == part), None)
        places[part] = held = [root] if root is not None else _beside(prefix, part, modules, stacks)
        inside = [m for m in modules if any(_under(m, top) for top in held) and not _joins(m)]
        if part in ("vision", "audio"):
            embed = _module(inside, _PART_EMBED)
        else:
            embed = _nearest([m for m in inside if f"{m}.weight" in loose], _EMBED, prefix)
        around = enclosing(prefix.rstrip("."))
        beside = [m for m in inside if enclosing(m) == around[: m.count(".")] and f"{m}.weight" in loose]
        found = {"embed": embed, "norm": _nearest(beside, _PART_NORM, prefix)}
        places |= {f"{part}.{role}": [module] for role, module in found.items() if module is not None}
    if places.keys() & {"vision", "audio"}:
        joining = [top for m in modules if (top := _joins(m)) is not None]
        if joining:
            places["projector"] = [min(joining, key=lambda top: (top.count("."), top))]
    return places


def _beside(prefix: str, part: str, modules: Sequence[str], stacks: Mapping[str, str]) -> list[str]:
    """A part that no module's name tells: what lies beside its stack and belongs to no other."""
    root = ".".join(enclosing(prefix.rstrip(".")))
    if root and not any(_under(other, root) for other in stacks.values() if other != prefix):
        return [root]
    lead = f"{root}." if root else ""
    own = [m for m in modules if m.startswith(lead) and _side(m) in (part, None) and not _joins(m)] if root else []
    return [prefix.rstrip("."), *sorted({lead + m[len(lead) :].partition(".")[0] for m in own})]


def _away(module: str, prefix: str) -> tuple[int, int]:
    """How far a module is from a stack: by the modules that hold both, then by those between."""
    shared = len(enclosing(module, prefix))
    return -shared, module.count(".") - shared


def _nearest(modules: Iterable[str], words: Sequence[str], prefix: str) -> str | None:
    """The module that is called by one of the words, nearest to a stack."""
    found = [
        (_away(m, prefix), words.index(last), m)
        for m in modules
        for last in [m.rpartition(".")[2].lower()]
        if last in words
    ]
    return min(found)[-1] if found else None


def _joins(module: str) -> str | None:
    """The projector that a module is or belongs to."""
    parts = module.split(".")
    return next((".".join(parts[: k + 1]) for k, part in enumerate(parts) if part.lower() in _PROJECTOR), None)


def _vocabulary(
    places: dict[str, list[str]], names: Collection[str], config: Mapping[str, Any]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Tensors with a vocabulary axis, and the tie of head and embedding. A head that the file lacks
    gets a place."""
    if "embed" not in places:
        return {}, []
    embed = places["embed"][0]
    tied = config_value(config, _TIE) is not False
    common = embed.rpartition(".")[2] in ("embed_tokens", "wte")
    if "head" not in places and config and tied and common and has_head(config):
        places["head"] = [tied_head(config)]
    heads = [f"{place}.weight" for place in places.get("head", ())]
    ties = (
        [{"primary": f"{embed}.weight", "aliases": heads, "config_key": _TIE, "default": heads[0] not in names}]
        if heads
        else []
    )
    biases = [f"{place}.bias" for place in places.get("head", ()) if f"{place}.bias" in names]
    return dict.fromkeys([f"{embed}.weight", *heads, *biases], 0), ties


# --- the config's keys ---------------------------------------------------------------------------


def _keys(words: Iterable[str], config: Mapping[str, Any], nested: Sequence[str]) -> Iterator[str]:
    """The keys among `words` that the config has, dotted where they lie in a nested config."""
    words = tuple(words)
    yield from (word for word in words if word in config)
    yield from (f"{key}.{word}" for key in nested for word in words if word in config[key])


def _depth_key(
    stack: str,
    prefix: str,
    depth: int,
    extra: str | None,
    config: Mapping[str, Any],
    nested: Sequence[str],
    alone: bool,
) -> str | None:
    """The key that says how deep the stack is.

    None where none has this number, or only that of another tower; of a model's only stack it may
    have another.
    """
    side = stack.partition(".")[0]
    beyond = config_value(config, extra) if extra else 0
    counts = {depth, depth - beyond} if type(beyond) is int else {depth}
    keys = list(_keys((f"num_{side}_layers", f"{side}_layers", *_DEPTH), config, nested))
    keys.sort(key=lambda key: side not in key)
    for key in keys:
        value = config_value(config, key)
        if type(value) is int and value in counts and _may_say(key, prefix):
            return key
    return keys[0] if keys and alone else None


def _may_say(key: str, prefix: str) -> bool:
    """Whether a config's key may be about the stack of this prefix: the vision tower's is not about
    the text model."""
    towers = {_side(key.rpartition(".")[0]), _side(prefix)} & {"vision", "audio", "text"}
    return len(towers) < 2


def _text_first(nested: Sequence[str]) -> list[str]:
    """Nested configs, those of vision and audio towers last."""
    return sorted(nested, key=lambda key: _side(key) in ("vision", "audio"))


def _facts(
    stacks: Mapping[str, tuple[str, int]], extra: str | None, config: Mapping[str, Any], nested: Sequence[str]
) -> dict[str, list[dict[str, str]]]:
    """The lists of the config that have an item for each layer, by stack; `stacks` are prefixes and
    depths."""
    beyond = config_value(config, extra) if extra else 0
    found: dict[str, list[dict[str, str]]] = {}
    keys = [key for key in config if "." not in key]
    keys += [f"{outer}.{key}" for outer in nested for key in config[outer] if isinstance(key, str) and "." not in key]
    for key in keys:
        value, name = config_value(config, key), key.rpartition(".")[2]
        numbers = isinstance(value, list) and key.replace(".", "").isidentifier() and _has_numbers(name, value)
        if not isinstance(value, list) or not (numbers or _has_item_each(name, value)):
            continue
        fits = {
            stack: (_said_of(key, stack, prefix), depth)
            for stack, (prefix, depth) in stacks.items()
            if _may_say(key, prefix)
            and (
                max(value) < depth
                if numbers
                else len(value) in (depth, depth - beyond if type(beyond) is int else depth)
            )
        }
        # of stacks that are as deep: the one that the key names, else the text model or the decoder
        best = max(
            fits, key=lambda stack: (fits[stack][0], stack.partition(".")[0] in ("text", "decoder")), default=None
        )
        if best is not None:
            found.setdefault(best, []).append({"rule": f"i in {key}"} if numbers else {"items": key})
    return found


def _has_item_each(key: str, value: Sequence[Any]) -> bool:
    """Whether a list whose length is that of a stack is no such by chance: its key says so, or it
    is a long one that does not name tokens, classes or layers."""
    words = key.lower()
    if any(word in words for word in ("layer", "block", "types", "pattern")):
        return len(value) < 2 or not _ascends(value)
    named = any(word in words for word in ("token", "architectures", "label", "name", "ids", "index", "indices"))
    return len(value) >= 4 and not named and not _ascends(value)


def _has_numbers(key: str, value: Sequence[Any]) -> bool:
    """Whether a list holds the numbers of layers that are of another kind; those that only hand on
    what they computed are the same as the others."""
    if any(word in key for word in ("out", "intermediate", "feature", "hidden")):
        return False
    return key.endswith(("_layers", "_idxs", "_layer_indices", "_layers_indices")) and bool(value) and _ascends(value)


def _ascends(value: Sequence[Any]) -> bool:
    """Whether these are numbers of layers."""
    return all(type(each) is int for each in value) and list(value) == sorted(set(value))


def _said_of(key: str, stack: str, prefix: str) -> bool:
    """Whether a key names the stack: by the config that it lies in, or in its name."""
    sides = {stack.partition(".")[0], _side(prefix)}
    return any(side in key for side in sides if side is not None)
