"""What people type: options out of range, twice, misspelt, from other programs; recipes that are
none."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from commands import COPY, make, mergec
from mergec.cli.main import main
from mergec.cli.terminal.arguments import COMMANDS, UsageError, parse_arguments
from mergec.grammar.diagnostic import MergecError
from mergec.runtime.catalog import recipes
from mergec.runtime.catalog.recipes import read_source


@pytest.mark.parametrize(
    ("words", "message", "help"),
    [
        ("--lanes 0", "argument --lanes: `0` is not a number from 1 to 256", "see `mergec --help`"),
        ("--lanes -1", "argument --lanes: `-1` is not a number from 1 to 256", "see `mergec --help`"),
        ("--lanes 10000", "argument --lanes: `10000` is not a number from 1 to 256", "see `mergec --help`"),
        ("--lanes two", "argument --lanes: `two` is not a number from 1 to 256", "see `mergec --help`"),
        ("--memory 0", "`--memory 0` is not a size", "write it as `2GiB` or `500MB`"),
        ("--memory -1GiB", "argument --memory: expected one argument", "see `mergec --help`"),
        ("--memory -5", "`--memory -5` is not a size", "write it as `2GiB` or `500MB`"),
        ("--memory 1e30", "`--memory 1e30` is not a size", "write it as `2GiB` or `500MB`"),
        ("--threads 2", "unknown option `--threads`", "did you mean `--lanes`?"),
        ("--cuda", "unknown option `--cuda`", "did you mean `--device cuda`?"),
        ("--outptu x", "unknown option `--outptu`", "did you mean `--output`?"),
        ("--memroy=1GiB", "unknown option `--memroy=1GiB`", "did you mean `--memory`?"),
        ("--forc", "unknown option `--forc`", "did you mean `--force`?"),
        ("--frobnicate", "unknown option `--frobnicate`", "did you mean `--strict`?"),
        ("--docs", "unknown option `--docs`", "did you mean `--device`?"),
        ("-f", "unknown option `-f`", "see `mergec --help`"),
        ("--allow-crimes", "unknown option `--allow-crimes`", "see `mergec --help`"),
        ("--allow-pickel", "unknown option `--allow-pickel`", "did you mean `--allow-pickle`?"),
        ("--output=", "`--output` is given an empty path", None),
        ("-D x", "`-D x` is not of the form NAME=VALUE", None),
    ],
)
def test_options(words: str, message: str, help: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(["r.mrg", *words.split(" ")])
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0002", message)
    assert found.help[:1] == (() if help is None else (help,))


def test_of_options_given_twice_the_last_counts() -> None:
    words = "r.mrg -o a --lanes 1 -o b --lanes 2 -D x=1 -D x=2 --memory 1MiB --memory 1GiB"
    given = parse_arguments(words.split(" "))
    assert (given.output, given.lanes, given.defines, given.memory) == ("b", 2, {"x": 2}, 1 << 30)


def test_a_setting_from_the_command_line_is_shown_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    assert main([str(tmp_path / "copy.mrg"), "--check", "--set", "output.dtyp=x"]) == 1
    assert capfd.readouterr().err.startswith(
        "error[E0203]: the output has no setting `dtyp`\n"
        " --> <command line>:1:1\n"
        "  |\n"
        "1 | --set output.dtyp=x\n"
        "  | ^^^^^^^^^^^^^^^^^^^ unknown setting\n"
    )


def test_a_huge_budget_is_no_budget() -> None:
    assert parse_arguments(["r.mrg", "--memory", "99999999999999999999GiB"]).memory > 1 << 80


@pytest.mark.parametrize("command", ["fmt", "import", "inspect", "verify"])
def test_commands_have_coded_errors_too(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert "error[E0002]: the following arguments are required" in capfd.readouterr().err
    assert main([command, "--stric", "x"]) == 2
    assert "error[E0002]: unknown option `--stric`" in capfd.readouterr().err


WRONG = ["fmt bad.mrg", "import bad.yml", "inspect missing", "verify missing", "bad.mrg --check"]


@pytest.mark.parametrize("words", WRONG)
def test_every_command_says_it_as_it_is_asked_to(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mrg").write_text("let a = (\n")
    (tmp_path / "bad.yml").write_text("merge_method: none\n")
    monkeypatch.chdir(tmp_path)
    status = main(words.split())
    plain = capfd.readouterr().err
    assert (status, plain[:8]) == (1, "error[E0")
    assert main([*words.split(), "--color=never"]) == status
    assert capfd.readouterr().err == plain
    assert main([*words.split(), "--color", "always"]) == status
    colored = capfd.readouterr().err
    assert colored != plain
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == plain
    assert main([*words.split(), "--error-format", "json"]) == status
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [one["code"] for one in found] == re.findall(r"^error\[(E\d+)\]", plain, re.M)


def test_editors_read_nothing_but_json_from_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    (tmp_path / "odd.mrg").write_text('let  a = model("a")\n')
    (tmp_path / "c.yml").write_text(
        "merge_method: linear\nmodels: [{model: a.safetensors, parameters: {weight: 1}}]\nodd: 1\n"
    )
    assert main(["fmt", "--check", "--error-format=json", str(tmp_path / "odd.mrg")]) == 1
    assert tuple(capfd.readouterr()) == (f"{tmp_path}/odd.mrg: not formatted\n", "")
    assert main(["import", "--error-format=json", str(tmp_path / "c.yml")]) == 0
    warnings = [json.loads(line)["code"] for line in capfd.readouterr().err.splitlines()]
    assert warnings
    assert all(code.startswith("W07") for code in warnings)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_recipe_that_is_called_like_a_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    (tmp_path / name).write_text(COPY)
    monkeypatch.chdir(tmp_path)
    assert main([f"./{name}", "-o", "one", "-q"]) == 0
    assert main(["-q", "-o", "two", "--", name]) == 0
    assert main(["--check", name]) == 0
    assert (tmp_path / "one").is_dir()
    assert (tmp_path / "two").is_dir()
    capfd.readouterr()
    # the command is what the word stands for
    assert main([name, "--lanes", "1"]) == 2
    assert f"  = help: the recipe of that name is `mergec ./{name}`\n" in capfd.readouterr().err
    (tmp_path / name).unlink()
    assert main([name, "--lanes", "1"]) == 2
    assert "recipe" not in capfd.readouterr().err
    assert main(["-q", name, "r.mrg"]) == 2
    assert f"  = help: a command comes first: `mergec {name} r.mrg`\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("merge r.mrg -o out", "there is no command `merge`; to merge: `mergec r.mrg -o out`"),
        ("r.mrg out", "`mergec r.mrg -o out`"),
    ],
)
def test_words_of_other_programs(words: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert f"  = help: {message}\n" in capfd.readouterr().err


def test_a_third_word_of_an_explanation_is_the_one_too_many(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "r.mrg", "head", "x"]) == 2
    assert "one recipe and one place or file, not also `x`" in capfd.readouterr().err


@pytest.mark.parametrize("words", ["--color always --bogus", "--bogus --color=always", "verify --color=always"])
def test_complaints_about_the_command_line_are_coloured_where_that_is_asked_for(
    words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert "\x1b[" in capfd.readouterr().err


def test_a_second_recipe_is_not_taken_for_an_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one.mrg", "two.mrg"):
        (tmp_path / name).write_text("")
    assert main(["--check", str(tmp_path / "one.mrg"), str(tmp_path / "two.mrg")]) == 2
    assert " -o " not in capfd.readouterr().err


# --- recipes -------------------------------------------------------------------------------------


def _refusal(path: Path) -> tuple[str, str, tuple[str, ...]]:
    with pytest.raises(MergecError) as caught:
        read_source(path)
    (found,) = caught.value.diagnostics
    return found.code, found.message, found.help


def test_what_is_no_recipe(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "a.safetensors"
    help = (f'a recipe names a checkpoint: `let a = model("{path}")`',)
    assert _refusal(path) == ("E0403", "the recipe is not UTF-8 text", help)
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    assert _refusal(path) == ("E0403", "the recipe is not UTF-8 text", help)
    help = (f'a recipe names a checkpoint: `let {tmp_path.name} = model("{tmp_path}")`',)
    assert _refusal(tmp_path) == ("E0402", f"`{tmp_path}` is a folder and not a recipe", help)
    message = "the recipe can't be read: no such file or directory"
    assert _refusal(tmp_path / "cpoy.mrg") == ("E0402", message, (f"did you mean `{tmp_path}/copy.mrg`?",))


def test_endless_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "MAX_RECIPE", 1 << 20)
    assert _refusal(Path("/dev/zero"))[:2] == ("E0480", "the recipe has more than 1 MiB")


@pytest.mark.parametrize("text", ["", "# nothing\n# but words\n", "\n\n"])
def test_recipes_without_statements(tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.mrg").write_text(text)
    assert main([str(tmp_path / "r.mrg"), "-o", str(tmp_path / "out")]) == 1
    assert "error[E0220]: the recipe names no model" in capfd.readouterr().err


def test_marks_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "r.mrg").write_bytes(b"\xef\xbb\xbf" + COPY.replace("\n", "\r\n").encode())
    assert read_source(tmp_path / "r.mrg").text == COPY


def test_recipe_from_a_pipe(tmp_path: Path) -> None:
    make(tmp_path, größe=COPY + "# größe\n")
    recipe = (tmp_path / "größe.mrg").read_bytes()
    done = mergec("-", "-o", "out", folder=tmp_path, input=recipe, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    done = mergec("-", "-o", "out2", folder=tmp_path, input=b"\xff")
    assert (done.returncode, done.stderr) == (3, b"error[E0403]: the recipe is not UTF-8 text\n --> <stdin>\n")
    assert mergec("fmt", "-", folder=tmp_path, input=recipe).stdout == recipe
    assert os.path.exists(tmp_path / "out")


@pytest.mark.parametrize("name", ["x.safetensor", "x.Safetensors", "x.bin", "x.gguf", "x.pth", "a.b/x.sft"])
def test_one_file_in_a_form_that_is_not_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.b").mkdir()
    assert main(["copy.mrg", "-o", name, "-q"]) == 2
    said = capfd.readouterr().err
    stem = name.rpartition(".")[0]
    assert f"  = help: one file: `-o {stem}.safetensors`\n  = help: a folder of that name: `-o {name}/`\n" in said
    assert main(["copy.mrg", "-o", f"{stem}.safetensors", "-q"]) == 0
    assert (tmp_path / f"{stem}.safetensors").is_file()
    assert main(["copy.mrg", "-o", f"{name}/", "-q"]) == 0
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("name", ["out-1.5", "v0.2", "model.fp16", "out.d"])
def test_other_dots_in_a_folders_name_are_nobodys_business(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["copy.mrg", "-o", name, "-q"]) == 0
    assert (tmp_path / name).is_dir()


def test_a_check_of_an_output_looks_at_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["--check", "copy.mrg", "-o", "runs/1/out"]) == 4
    assert "error[E0602]" in capfd.readouterr().err
    (tmp_path / "runs/1").mkdir(parents=True)
    assert main(["--check", "copy.mrg", "-o", "runs/1/out"]) == 0
