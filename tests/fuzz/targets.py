"""What is fuzzed. Each target makes an input from random numbers, and checks it: whatever comes in,
only a MergecError with diagnostics comes out, which can be printed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mergec.cli.formatter.format import format_module
from mergec.cli.import_mergekit.importer import import_text
from mergec.compiler.checkpoint.catalog import CatalogError, Checkpoint, MemoryCatalog
from mergec.compiler.checkpoint.dtypes import SIZES
from mergec.compiler.checkpoint.tokenizer import read_tokenizer
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.ast import Module
from mergec.grammar.diagnostic import Diagnostic, MergecError
from mergec.grammar.parse import parse
from mergec.grammar.render import render, to_json
from mergec.grammar.source import Source, Span
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.formats.pickled.header import read_pickle
from mergec.runtime.formats.safetensors import parse_header
from mutations import JSON_WORDS, RECIPE_WORDS, YAML_WORDS, corpus, mutated, strewn, swapped

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pickled_files import ORDERED, REBUILD, number, saved, state, storage, tensor
from pickled_files import text as written

_LETS = "".join(f'let {name} = model("{name}")\n' for name in ("a", "b", "base"))
_HEADER = {
    "__metadata__": {"format": "pt"},
    "model.embed_tokens.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
    "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [32, 40]},
    "model.norm.weight": {"dtype": "I64", "shape": [], "data_offsets": [40, 48]},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """`make` draws an input, `check` raises anything but AssertionError only where mergec has a
    bug."""

    make: Callable[[random.Random], str | bytes]
    check: Callable[[Any], None]


def _printable(diagnostics: tuple[Diagnostic, ...]) -> None:
    """Sees that diagnostics can be printed on any terminal without moving its cursor."""
    assert diagnostics, "an error without a diagnostic"
    text = render(diagnostics)
    assert all(c == "\n" or c.isprintable() or c == "\u3000" or c.isspace() for c in text), ascii(text)
    assert not any(c in text for c in "\x1b\r\x07\x08\x00\x9b"), ascii(text)
    text.encode()
    for line in to_json(diagnostics).splitlines():
        json.loads(line)


# --- recipes -------------------------------------------------------------------------------------


@functools.cache
def _texts(folder: str) -> tuple[str, ...]:
    return tuple(corpus(folder))


@functools.cache
def _statements() -> tuple[str, ...]:
    modules = [parse(Source(str(number), text)) for number, text in enumerate(_texts("recipes"))]
    return tuple(statement.span.text for module in modules for statement in module.statements)


def make_recipe(rng: random.Random) -> str:
    if rng.random() < 0.4:
        text = mutated(rng, _texts("recipes"), RECIPE_WORDS)
    else:
        parts = [rng.choice(_statements()) for _ in range(rng.randrange(1, 9))]
        text = "\n".join(swapped(rng, part, RECIPE_WORDS, 2) for part in parts) + "\n"
    return (_LETS if rng.random() < 0.7 else "") + text


def _catalog() -> MemoryCatalog:
    layers = {
        f"model.layers.{i}.{part}.weight": ("F32", (4, 4))
        for i in range(4)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
    }
    outer: dict[str, Any] = {"model.embed_tokens.weight": ("F32", (8, 4)), "model.norm.weight": ("F32", (4,))}
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    vocabulary = json.dumps({"model": {"vocab": {f"t{i}": i for i in range(8)}}, "added_tokens": []})
    tied = {"tensors": {**outer, **layers}, "config": llama, "documents": {"tokenizer.json": vocabulary}}
    head = {**tied, "tensors": {**outer, **layers, "lm_head.weight": ("F32", (8, 4))}}
    odd = {"tensors": {"x.weight": ("BF16", (3, 5)), "ids": ("I64", (7,)), "none": ("F32", (0, 4)), "s": ("F16", ())}}
    names = ("a", "base", "./chat", "./math", "meta-llama/Llama-3.2-1B")
    libraries = {"lib.mrg": "def half(x) = x / 2\nlet two = 2\n", "methods.mrg": "def mid(a, b) = (a + b) / 2\n"}
    return MemoryCatalog({**dict.fromkeys(names, tied), "b": head, "c": odd}, libraries)


def check_recipe(text: str) -> None:
    try:
        compiled = compile_recipe(Source("fuzz.mrg", text), _catalog(), "0", Options(block=1 << 15, check_graph=True))
    except MergecError as error:
        _printable(error.diagnostics)
        return
    for document in compiled.plan.documents:
        document.text.encode()
    if compiled.diagnostics:
        _printable(compiled.diagnostics)


# --- the formatter -------------------------------------------------------------------------------


def _plain(node: Any) -> Any:
    """A syntax tree without its spans."""
    if isinstance(node, tuple):
        return tuple(_plain(each) for each in node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = [f.name for f in dataclasses.fields(node)]
        values = [(f, getattr(node, f)) for f in fields if not isinstance(getattr(node, f), Span)]
        return (type(node).__name__, *((f, _plain(value)) for f, value in values))
    return repr(node)


def check_format(text: str) -> None:
    try:
        module: Module = parse(Source("fuzz.mrg", text))
    except MergecError as error:
        _printable(error.diagnostics)
        return
    once = format_module(module)
    again = parse(Source("fuzz.mrg", once))
    assert _plain(again.statements) == _plain(module.statements), "formatting has changed the meaning"
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in module.comments), "a comment is lost"
    assert format_module(again) == once, "formatting again changes something"


# --- checkpoints ---------------------------------------------------------------------------------


def make_header(rng: random.Random) -> bytes:
    text = mutated(rng, (json.dumps(_HEADER), *_texts("json")), JSON_WORDS, 3)
    return strewn(rng, text.encode("utf-8", "surrogatepass"), 2)


def check_header(raw: bytes) -> None:
    for size in (8 + len(raw) + 48, 8 + len(raw)):
        try:
            tensors, metadata = parse_header(raw, size, "fuzz.safetensors")
        except CatalogError as error:
            refused = error.message
        else:
            refused = ""
        assert refused.isprintable(), ascii(refused)
        if refused:
            continue
        ends = sorted((t.start, t.end) for t in tensors.values())
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ends)), "a gap or an overlap"
        assert not ends or (ends[0][0], ends[-1][1]) == (8 + len(raw), size), "the data is not covered"
        for name, text in metadata.items():
            (name + text).encode()


_PARTS = ("config", "index", "tokenizer", "header")


def make_folder(rng: random.Random) -> str:
    """A checkpoint's small files as one JSON object: name to text."""
    files = {}
    for part in _PARTS:
        texts = [t for t in _texts("json") if rng.random() < 0.8] or ["{}"]
        if rng.random() < 0.7:
            files[part] = mutated(rng, texts, JSON_WORDS, 3)
    return json.dumps(files)


def check_folder(text: str) -> None:
    files: Mapping[str, str] = json.loads(text)
    header = json.dumps({k: v for k, v in _HEADER.items() if k != "__metadata__"}).encode()
    if "header" in files:
        header = files["header"].encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory(prefix="mergec-fuzz-") as path:
        folder = Path(path) / "model"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
        names = {"config": "config.json", "tokenizer": "tokenizer.json", "index": "model.safetensors.index.json"}
        if "index" in files:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        for part, name in names.items():
            if part in files:
                (folder / name).write_bytes(files[part].encode("utf-8", "surrogatepass"))
        for settings in ("", "tokenizer=base, pad_vocab_to=8", "chat_template=base"):
            recipe = f'let base = model("{folder}")\noutput({settings})\n* = base * 0.5 + base\n"*norm*" = base\n'
            try:
                compiled = compile_recipe(Source("fuzz.mrg", recipe), LocalCatalog(), "0")
            except MergecError as error:
                _printable(error.diagnostics)
            else:
                for document in compiled.plan.documents:
                    document.text.encode()


def make_tokenizer(rng: random.Random) -> str:
    return mutated(rng, _texts("json"), JSON_WORDS, 4)


def check_tokenizer(text: str) -> None:
    class Shelf(MemoryCatalog):
        def document(self, checkpoint: Checkpoint, name: str) -> str | None:  # noqa: ARG002
            return text

    try:
        found = read_tokenizer(Shelf({}), Checkpoint("memory:x", (), {}, extras=("tokenizer.json",)))
    except CatalogError:
        return
    assert found is None or all(isinstance(k, str) and type(v) is int and v >= 0 for k, v in found.ids.items())


# --- pickles --------------------------------------------------------------------------------------

_PICKLES = (
    state(w=tensor(), v=tensor((1,), (1,), 1), epoch=number(3)),
    state(state_dict=ORDERED + b"(" + written("w") + tensor() + b"u}b", optimizer=b"]q\x00(h\x00N\x88e", n=b"N"),
    b"\x80\x04\x95\x10" + bytes(7) + b"}\x94\x8c\x01w\x94" + tensor((2, 1), (1, 1)) + b"s.",
)
_INSTRUCTIONS = (
    *(bytes([code]) for code in b"(01N})]tsaeubQR.q\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94\x81\x82\x92io"),
    *(b"h" + bytes([k]) for k in range(4)),
    *(b"q" + bytes([k]) for k in range(4)),
    *(storage("0", 2), storage("0", 8, "torch.storage\nUntypedStorage"), tensor(), REBUILD, ORDERED),
    *(number(n) for n in (-1, 0, 1, 2, 1 << 31, 1 << 62, 1 << 63, 1 << 200)),
    *(written(word) for word in ("w", "model", "storage", "0", "cpu", "\x1b[31m", "")),
    *(b"cos\nsystem\n", b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch\nfloat16\n", b"ctorch\nSize\n", b"ctorch\nHalfStorage\n"),
    *(
        b"X\xff\xff\xff\xff",
        b"\x8d" + b"\xff" * 8,
        b"\x95" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\x7f",
        b"r\xff\xff\xff\xff",
    ),
)


def make_pickle(rng: random.Random) -> bytes:
    """A pickle with instructions put in, or an archive of one with bytes changed."""
    raw = bytearray(rng.choice(_PICKLES))
    for _ in range(rng.randrange(5)):
        at = rng.randrange(2, len(raw) + 1)
        raw[at : at + rng.choice((0, 0, 0, 1, 3))] = rng.choice(_INSTRUCTIONS) * rng.choice((1, 1, 1, 2, 50))
    data = strewn(rng, bytes(raw), 1)
    return data if rng.random() < 0.6 else strewn(rng, saved(data), 3)


def check_pickle(raw: bytes) -> None:
    """Reads `raw` as an archive and as the pickle in one: what is not refused lies within the
    file."""
    with tempfile.TemporaryDirectory(prefix="mergec-fuzz-") as folder:
        path = Path(folder) / "pytorch_model.bin"
        for data in (raw, saved(raw)):
            path.write_bytes(data)
            try:
                header = read_pickle(str(path))
            except CatalogError as error:
                refused = " ".join((error.message, *error.notes, *error.help))
                assert refused.isprintable(), ascii(refused)
                continue
            for found in header.tensors.values():
                assert 0 <= found.start <= found.end <= len(data), "a tensor outside the file"
                assert found.nbytes == math.prod(found.shape) * SIZES[found.dtype], "a tensor of another size"


# --- configurations of mergekit ------------------------------------------------------------------


def make_yaml(rng: random.Random) -> str:
    return mutated(rng, _texts("yaml"), YAML_WORDS)


def check_yaml(text: str) -> None:
    source = Source("fuzz.yml", text)
    try:
        imported = import_text(source, MemoryCatalog({}), Path())
    except MergecError as error:
        _printable(error.diagnostics)
        return
    if imported.warnings:
        _printable(tuple(imported.warnings))
    parse(Source("fuzz.mrg", imported.text))


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "recipe": Target(make_recipe, check_recipe),
        "format": Target(make_recipe, check_format),
        "header": Target(make_header, check_header),
        "folder": Target(make_folder, check_folder),
        "tokenizer": Target(make_tokenizer, check_tokenizer),
        "pickle": Target(make_pickle, check_pickle),
        "yaml": Target(make_yaml, check_yaml),
    }
)
