"""Small files beside the weights that lie, names that claim too much, and links."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.grammar.render import render
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.numpy import load_file, save_file

TENSORS = {"model.embed_tokens.weight": np.ones((4, 2), np.float32), "model.norm.weight": np.ones(2, np.float32)}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with two tensors."""
    inside = tmp_path / "model"
    inside.mkdir()
    save_file(TENSORS, inside / "model.safetensors")
    (inside / "config.json").write_text(json.dumps(CONFIG))
    return inside


def merge(folder: Path, settings: str = "", place: str = "*") -> Path:
    out = folder.parent / "out"
    recipe = f'let base = model("{folder}")\noutput({settings})\n{place} = base * 0.5\n'
    mergec.compile(recipe, device="cpu").run(out)
    return out


def refusal(folder: Path, settings: str = "", place: str = "*") -> MergecError:
    with pytest.raises(MergecError) as caught:
        merge(folder, settings, place)
    assert not (folder.parent / "out").exists()
    assert "\x1b" not in render(caught.value.diagnostics)
    return caught.value


# --- tokenizers ----------------------------------------------------------------------------------


def tokens(vocab: Any, added: Any = ()) -> str:
    return json.dumps({"model": {"vocab": vocab}, "added_tokens": list(added) if added == () else added})


TOKENIZERS = {
    "not JSON": ("{", "it is not JSON"),
    "not UTF-8": (b"\xff", "file is not UTF-8 at byte 0"),
    "a list": ("[]", "its JSON is not an object"),
    "deep": ('{"a":' * 100_000, "its JSON is nested too deeply"),
    "a bomb of lists": ('{"a": [' + "[]," * 400_000 + "0]}", "it has more brackets than text"),
    "no model": ("{}", "`model` is not an object"),
    "vocab a number": (tokens(3), "`vocab` is neither an object nor a list"),
    "vocab of numbers": (tokens([1]), "entry 0 of `vocab` is not a token with its score"),
    "vocab of empty lists": (tokens([[]]), "entry 0 of `vocab` is not a token with its score"),
    "token a number": (tokens([[1, 2]]), "the token of id `0` is not text"),
    "token half a character": (tokens({"\ud800": 1}), "the token of id `1` is not text"),
    "id a fraction": (tokens({"a": 1.5}), "token `a` has the id `1.5`"),
    "id text": (tokens({"a": "0"}), "token `a` has the id `0`"),
    "id a boolean": (tokens({"a": True}), "token `a` has the id `True`"),
    "id below zero": (tokens({"a": -1}), "token `a` has the id `-1`"),
    "id beyond any vocabulary": (tokens({"a": 10**12}), "token `a` has the id `1000000000000`"),
    "id beyond numbers": ('{"model": {"vocab": {"a": 1e999}}}', "token `a` has the id `inf`"),
    "a terminal's sequence": (tokens({"\x1b[2J": "x"}), "token `\x1b[2J` has the id `x`"),
    "added a map": (tokens({}, {}), "`added_tokens` is not a list"),
    "added a number": (tokens({}, [1]), "entry 0 of `added_tokens` has no `content` and `id`"),
    "added without id": (tokens({}, [{"content": "x"}]), "entry 0 of `added_tokens` has no `content` and `id`"),
    "added a list": (tokens({}, [{"content": "x", "id": []}]), "token `x` has the id `list`"),
}


@pytest.mark.parametrize("fault", TOKENIZERS)
def test_tokenizer(fault: str, folder: Path) -> None:
    content, message = TOKENIZERS[fault]
    path = folder / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    found = refusal(folder, "tokenizer=base, pad_vocab_to=8")
    diagnostic = found.diagnostics[0]
    assert (diagnostic.code, diagnostic.file, found.exit) == ("E0436", str(path), Exit.INPUT)
    assert message in diagnostic.message


def test_huge_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(folder, "tokenizer=base").diagnostics[0].code == "E0436"


@pytest.mark.parametrize("content", ["[]", "{", "3", '{"a": ' + "[" * 100_000])
def test_chat_template_in_a_file_that_is_not_sound(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    assert refusal(folder, "chat_template=base").diagnostics[0].code == "E0436"


@pytest.mark.parametrize(
    "content", ['{"chat_template": 3}', '{"chat_template": [{"name": 1}]}', '{"chat_template": "\\ud800"}']
)
def test_chat_template_of_a_wrong_type(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    assert refusal(folder, "chat_template=base").diagnostics[0].code == "E0318"


def test_templates_are_copied_and_not_run(folder: Path) -> None:
    text = "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(text)
    assert (merge(folder, "chat_template=base") / "chat_template.jinja").read_text() == text


# --- configs and names ---------------------------------------------------------------------------

CONFIGS: dict[str, Any] = {
    "wrong types": {"architectures": 3, "model_type": [], "tie_word_embeddings": "x", "text_config": 5, "dtype": {}},
    "absurd numbers": {**CONFIG, "num_hidden_layers": 10**18, "vocab_size": -1, "hidden_size": 1e308},
    "lists of wrong things": {"architectures": [None, 1, {}], "layer_types": [[[]]], "model_type": None},
    "keys with dots": {"a.layers": [1], "x_config": {"b.layers": [1], "": 2}, "x.y_config": {"num_layers": 3}, "": 1},
    "half of a character": {**CONFIG, "note": "\ud800"},
    "a terminal's sequence": {"model_type": "\x1b[2J\x1b]0;title\x07"},
    "not finite": {**CONFIG, "eps": float("nan"), "x": float("inf")},
    "an empty one": {},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_of_wrong_types(name: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    out = merge(folder)
    assert load_file(out / "model.safetensors")["model.norm.weight"].tolist() == [0.5, 0.5]
    assert json.loads((out / "config.json").read_text()).keys() >= CONFIGS[name].keys()
    told = mergec.compile(f'let base = model("{folder}")\n* = base', device="cpu")
    assert "\x1b" not in render(told.diagnostics)


@pytest.mark.parametrize(
    ("name", "place", "code"),
    [
        ("model.layers.999999999.w.weight", "*", "E0181"),
        ("model.layers." + "9" * 1000 + ".w.weight", "*", ""),
        ("x." + "9" * 1000 + ".w", "x[*].w", "E0303"),
        ("x.99999999.w", "x[*].w", "E0303"),
        ("../../../etc/passwd", "*", ""),
        ("/etc/passwd", "*", ""),
        ("a\nb\x1b[31m\x00c", "*", ""),
        ("model." + "1." * 500 + "w", "*", ""),
        ("a" * 1024, '"*a*a*a*a*a*a*a*a*a*a*a*a*a*b"', "E0304"),
        ("{i}.{e}.*.%s.%d", "*", ""),
    ],
    ids=["layer", "long layer", "long number", "number", "path", "root", "signs", "numbers", "stars", "patterns"],
)
def test_tensor_name(name: str, place: str, code: str, folder: Path) -> None:
    save_file({**TENSORS, name: np.ones(2, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").unlink()
    if code:
        assert refusal(folder, "", place).diagnostics[0].code == code
        return
    out = merge(folder, "", place)
    assert load_file(out / "model.safetensors")[name].tolist() == [0.5, 0.5]
    assert sorted(os.listdir(folder.parent)) == ["model", "out"]


def test_file_names_that_are_not_text(folder: Path) -> None:
    for name in (b"x\xff.txt", b"model-\xff.safetensors"):
        (folder / os.fsdecode(name)).write_bytes(b"")
    (folder / "model.safetensors").rename(folder / os.fsdecode(b"model-\xff.safetensors"))
    out = merge(folder)
    assert (out / os.fsdecode(b"x\xff.txt")).exists()
    for name in ("mergec.json", "README.md"):
        (out / name).read_text("utf-8")
    assert json.loads((out / "mergec.json").read_text("utf-8"))


def test_pipe_beside_the_weights(folder: Path) -> None:
    os.mkfifo(folder / "notes.txt")
    assert refusal(folder).diagnostics[0].code == "E0611"


# --- links ---------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot as the Hub's cache holds it: links to blobs beside it."""
    repository = tmp_path / "hub" / "models--org--name"
    inside = repository / "snapshots" / ("c" * 40)
    inside.mkdir(parents=True)
    (repository / "blobs").mkdir()
    blob = repository / "blobs" / ("0" * 64)
    save_file(TENSORS, blob)
    (inside / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    config = repository / "blobs" / ("1" * 40)
    config.write_text(json.dumps(CONFIG))
    (inside / "config.json").symlink_to(f"../../blobs/{config.name}")
    return inside


def opened(folder: Path) -> str:
    """The code with which a folder is refused, or nothing."""
    try:
        LocalCatalog().open(str(folder), revision=None, subfolder=None, near="r.mrg")
    except CatalogError as error:
        return error.code
    return ""


def test_snapshot_of_the_cache(snapshot: Path, tmp_path: Path) -> None:
    assert opened(snapshot) == ""
    link = tmp_path / "model"
    link.symlink_to(snapshot)
    assert opened(link) == ""
    recipe = f'let a = model("{link}")\n* = a * 2\n'
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 0
    assert not (tmp_path / "out" / "config.json").is_symlink()


@pytest.mark.parametrize("kind", ["another repository", "from outside", "no blob", "beside the snapshots"])
def test_link_that_only_looks_like_the_cache(kind: str, snapshot: Path, tmp_path: Path) -> None:
    repository = snapshot.parents[1]
    folder, target = snapshot, repository / "blobs" / ("0" * 64)
    if kind == "another repository":
        target = tmp_path / "hub" / "models--other--secret" / "blobs" / ("2" * 64)
        target.parent.mkdir(parents=True)
        save_file(TENSORS, target)
    elif kind == "from outside":
        folder = tmp_path / "downloaded"
        folder.mkdir()
    elif kind == "no blob":
        target = repository / "blobs" / "secret.txt"
        target.write_text("x")
    else:
        folder = repository / "snapshots"
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors").symlink_to(target)
    assert opened(folder) == "E0408"


# --- pickles -------------------------------------------------------------------------------------


class Attack:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pickle-was-run",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt", "model.pkl"])
def test_pickle_is_refused_unread(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / name).write_bytes(pickle.dumps(Attack()))
    (inside / "training_args.bin").write_bytes(pickle.dumps(Attack()))
    for source in (inside, inside / name):
        with pytest.raises(CatalogError) as caught:
            LocalCatalog().open(str(source), revision=None, subfolder=None, near="r.mrg")
        assert caught.value.code == "E0405"
        assert "save_pretrained" in caught.value.help[0]
    save_file(TENSORS, inside / "model.safetensors")
    out = merge(inside)
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]
    assert not any(p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl") for p in out.iterdir())


@pytest.mark.parametrize("digits", [9, 10, 5000])
def test_ids_of_added_tokens_that_no_vocabulary_reaches(digits: int, folder: Path) -> None:
    """An id may have more digits than Python turns into a number: the file is copied as it is."""
    decoder = {"added_tokens_decoder": {"9" * digits: {"content": "<x>"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(decoder))
    out = merge(folder)
    assert json.loads((out / "tokenizer_config.json").read_text()) == decoder
