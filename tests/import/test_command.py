"""`mergec import`, and YAML files where recipes are expected."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from import_cases import MODELS
from mergec.cli.main import main
from safetensors.numpy import load_file

CONFIG = """\
models:
- model: llama/a
- model: llama/b
merge_method: linear
parameters: {weight: [1, 2]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration beside its models."""
    (tmp_path / "llama").symlink_to(MODELS / "llama")
    (tmp_path / "config.yml").write_text(CONFIG, "utf-8")
    return tmp_path


def test_the_recipe_goes_to_standard_output(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["import", str(folder / "config.yml")]) == 0
    assert f'let a = model("./{folder.name}/llama/a")' in capsys.readouterr().out


def test_paths_are_relative_to_the_recipe_that_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "recipes").mkdir()
    recipe = folder / "recipes" / "recipe.mrg"
    assert main(["import", str(folder / "config.yml"), "-o", str(recipe)]) == 0
    assert 'let a = model("../llama/a")' in recipe.read_text("utf-8")
    assert main(["--check", str(recipe)]) == 0
    assert main(["import", str(folder / "config.yml"), "-o", str(recipe)]) == 1
    assert "E0601" in capsys.readouterr().err
    assert main(["import", str(folder / "config.yml"), "-o", str(recipe), "--force"]) == 0


def untouched(path: Path) -> tuple[int, ...]:
    """What tells that nobody has written to a file; when it was last read may be another time."""
    status = path.lstat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@pytest.mark.parametrize("what", ["text", "other", "pipe", "folder", "link", "dangling"])
def test_only_a_recipe_is_replaced(what: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ("recipe.mrg" if what != "text" else "notes.txt")
    (tmp_path / "kept.mrg").write_text("* = 1\n")
    if what == "text":
        path.write_text("years of work")
    elif what == "other":
        path = tmp_path / "weights.bin"
        path.write_bytes(bytes(range(256)))
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("kept.mrg" if what == "link" else "nowhere")
    before = untouched(path)
    words = ["import", str(folder / "config.yml"), "-o", str(path)]
    assert main(words) == 1
    assert "--force" not in capsys.readouterr().err
    assert main([*words, "--force"]) == 2
    assert "E0608" in capsys.readouterr().err
    assert untouched(path) == before
    assert (tmp_path / "kept.mrg").read_text() == "* = 1\n"


def test_a_recipe_is_told_by_its_name_or_its_text(folder: Path, tmp_path: Path) -> None:
    for name, text in (("recipe.mrg", "half a"), ("recipe.txt", 'let a = model("a")\n* = a\n')):
        (tmp_path / name).write_text(text)
        assert main(["import", str(folder / "config.yml"), "-o", str(tmp_path / name), "--force"]) == 0
        assert "model(" in (tmp_path / name).read_text()


def test_models_are_looked_for_in_the_current_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yml").write_text(CONFIG, "utf-8")
    monkeypatch.chdir(MODELS)
    assert main(["--check", str(tmp_path / "config.yml")]) == 0
    assert "ok" in capsys.readouterr().out


def test_a_yaml_file_merges_as_its_recipe_does(folder: Path) -> None:
    assert main(["import", str(folder / "config.yml"), "-o", str(folder / "recipe.mrg")]) == 0
    for name in ("config.yml", "recipe.mrg"):
        assert main([str(folder / name), "-o", str(folder / f"{name}-out"), "-q"]) == 0
    one, two = (load_file(folder / f"{n}-out" / "model.safetensors") for n in ("config.yml", "recipe.mrg"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_errors_of_the_compiler_point_into_the_yaml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yml").write_text(CONFIG.replace("llama/b", "nowhere").replace("[1, 2]", "1"), "utf-8")
    assert main(["--check", str(folder / "config.yml")]) == 1
    shown = capsys.readouterr().err
    assert "error[E0401]: no checkpoint at `nowhere`" in shown
    assert "3 | - model: nowhere\n  |          ^^^^^^^ asked for here" in shown


def test_a_parameter_out_of_range_is_shown_where_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONFIG.replace("linear", "dare_ties\nbase_model: llama/base").replace("}", ", density: [0.5, 1.5]}")
    (folder / "config.yml").write_text(text, "utf-8")
    assert main(["--check", str(folder / "config.yml")]) == 1
    shown = capsys.readouterr().err
    assert "E0209" in shown
    assert "density: [0.5, 1.5]}\n" in shown
    assert "^^^^^^^^^^" in shown


def test_strict_fails_where_something_is_passed_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yml").write_text(CONFIG + "bogus: 1\n", "utf-8")
    assert main(["import", str(folder / "config.yml")]) == 0
    assert main(["import", str(folder / "config.yml"), "--strict"]) == 1
    assert "warning[W0711]: mergekit does not know `bogus`" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "no/such.yml"]) == 1
    assert "E0402" in capsys.readouterr().err


def test_the_syntax_tree_of_an_import(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--emit=ast", str(folder / "config.yml")]) == 0
    assert "linear" in capsys.readouterr().out


def test_a_merge_of_merges_needs_no_folder_in_between(folder: Path) -> None:
    (folder / "config.yml").write_text(
        """\
name: mean
models: [{model: llama/a}, {model: llama/b}]
merge_method: linear
parameters: {weight: 1}
---
models: [{model: mean, parameters: {weight: 1}}, {model: llama/c, parameters: {weight: 3}}]
merge_method: linear
""",
        "utf-8",
    )
    assert main([str(folder / "config.yml"), "-o", str(folder / "out"), "-q"]) == 0
    a, b, c, made = (load_file(folder / p / "model.safetensors") for p in ("llama/a", "llama/b", "llama/c", "out"))
    for name, tensor in made.items():
        np.testing.assert_allclose(tensor, ((a[name] + b[name]) / 2 + 3 * c[name]) / 4, rtol=1e-5, atol=1e-7)
