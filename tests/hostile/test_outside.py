"""What leaves mergec: nothing to the network, no markup to a model card, no control sequence to a
terminal; and no code of a model comes in."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import mergec
import numpy as np
import pytest
import yaml
from mergec.cli.main import main
from safetensors.numpy import save_file

EVIL = '"]\n# heading <script>alert(1)</script> `code` ![](http://x) \x1b[2J\x07\u202e'


def checkpoint(folder: Path, tensors: tuple[str, ...] = ("model.norm.weight",)) -> None:
    folder.mkdir()
    save_file({name: np.ones(2, np.float32) for name in tensors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": EVIL, "auto_map": {"AutoModel": "modeling.Evil"}}))


def card_of(tmp_path: Path, recipe: str) -> str:
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    return (tmp_path / "out" / "README.md").read_text("utf-8")


def test_compiling_and_merging_open_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a socket was opened")

    checkpoint(tmp_path / "a")
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    recipe = tmp_path / "r.mrg"
    recipe.write_text('let a = model("./a")\n* = a * 2\n')
    assert main([str(recipe), "-o", str(tmp_path / "out"), "-q"]) == 0
    assert main(["--explain", str(recipe)]) == 0
    assert main(["inspect", str(tmp_path / "a")]) == 0


def test_code_that_a_model_ships_is_carried_and_not_run(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a")
    code = f"open({str(tmp_path / 'was-run')!r}, 'w')\n"
    for name in ("modeling.py", "__init__.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / "a" / name).write_text(code)
    card_of(tmp_path, f'let a = model("{tmp_path / "a"}")\n* = a * 2\n')
    assert not (tmp_path / "was-run").exists()
    assert "modeling" not in sys.modules
    assert (tmp_path / "out" / "modeling.py").read_text() == code


@pytest.mark.parametrize("fence", ["```", "````\n```", "~~~", "---\nlicense: evil\n---", "</pre><script>"])
def test_a_recipe_stays_inside_its_fence(fence: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "a")
    text = f'let a = model("{tmp_path / "a"}")\nlet s = """\n{fence}\n# heading\n"""\n* = a * 2\n'
    lines = card_of(tmp_path, text).split("\n")
    inside = text.rstrip("\n").split("\n")
    begin = next(k for k in range(len(lines)) if lines[k + 1 : k + 1 + len(inside)] == inside)
    marks = lines[begin]
    assert set(marks) == {"`"}
    assert len(marks) >= 3
    assert lines[begin + 1 + len(inside)] == marks
    # no line of the recipe is a fence as long as the one around it
    assert not any(line.strip().startswith(marks) for line in inside)


def test_names_stay_inside_the_front_matter_and_their_code_spans(tmp_path: Path) -> None:
    name = 'x` <b>bold</b> [l](http:) "]\nlicense: evil\n---\n# heading 😀\u2028\x85\x7f'
    folder = tmp_path / "a"
    checkpoint(folder)
    evil = tmp_path / name.replace("/", "|")
    folder.rename(evil)
    literal = json.dumps(str(evil), ensure_ascii=False).replace("\x7f", "\\u007f").replace("\u2028", "\\u2028")
    literal = literal.replace("\x85", "\\u0085")
    card = card_of(tmp_path, f'let a = model({literal})\noutput(license="mit\\nx: y\\n---\\n😀")\n* = a * 2\n')
    _, front, body = card.split("---\n", 2)
    loaded = yaml.safe_load(front)
    assert loaded == {
        "base_model": [str(evil)],
        "library_name": "transformers",
        "license": "mit\nx: y\n---\n😀",
        "tags": ["merge", "mergec"],
    }
    listed = body.split("The recipe:")[0]
    assert [line for line in listed.split("\n") if line.startswith("#")] == ["# merged model"]
    span = next(line for line in listed.split("\n") if line.startswith("- "))
    assert span.count("`") == 4
    assert all(c.isprintable() for c in span)


COMMANDS = (
    ["--explain", "r.mrg"],
    ["--explain", "r.mrg", "*"],
    ["--explain=dot", "r.mrg"],
    ["--explain=mermaid", "r.mrg"],
    ["--explain=json", "r.mrg"],
    ["--check", "r.mrg"],
    ["--check", "\x1b[31mr.mrg"],
    ["--check", "r.mrg", "--error-format=json"],
    ["--emit", "graph", "r.mrg"],
    ["--emit", "schedule", "r.mrg"],
    ["--emit", "ast", "r.mrg"],
    ["inspect", "a"],
    ["inspect", "--format", "json", "a"],
    ["inspect", "\x1b[31m"],
    ["r.mrg", "-o", "out\x1b[31m"],
    ["--explain", "E0\x1b[31m"],
    ["--explain", "--method", "\x1b[31m"],
    ["\x1b[31m"],
    ["--\x1b[31m"],
    ["fmt", "--check", "r.mrg", "\x1b[31mr.mrg"],
    ["import", "\x1b[31m.yml"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda w: " ".join(w).replace("\x1b", "ESC"))
def test_a_terminal_gets_no_control_sequence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "model.\x1b[31m\x07\r\x9b2J\u202e.weight"
    checkpoint(tmp_path / "a", ("model.norm.weight", evil, "model.embed_tokens.weight"))
    recipe = 'let a = model("a")\nlet b = model("a")  # \x1b[31m\n*  = a * 2 + b\n'
    for name in ("r.mrg", "\x1b[31mr.mrg"):
        (tmp_path / name).write_text(recipe)
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        main(words)
    out, err = capsys.readouterr()
    shown = out + err
    assert shown
    assert not any(c in shown for c in "\x1b\x07\r\x9b\u202e"), ascii(shown)
