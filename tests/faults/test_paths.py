"""Paths of every kind, and the same bytes wherever and whenever a merge runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import COPY, make, mergec

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Where Python takes the system's names for ASCII, and keeps other bytes as they are."""

NAMES = [b"two words", "größe 模型".encode(), b'it\'s "q"', b"new\nline", b"not utf-8 \xff", b"-x", b"~", b"x" * 240]


def _made(folder: Path) -> dict[str, object]:
    """The files of an output, but for what its record says of the inputs' and outputs' places and
    times."""
    made: dict[str, object] = {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}
    record = json.loads((folder / "mergec.json").read_text("utf-8"))
    for file in (file for model in record["inputs"] for file in model["files"]):
        del file["key"], file["inode"]
    return made | {"mergec.json": {k: v for k, v in record.items() if k not in ("weights", "tensors", "record_sha256")}}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = make(tmp_path_factory.mktemp("plain"))
    assert mergec("copy.mrg", "-o", "out", folder=folder).returncode == 0
    return _made(folder / "out")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_for_the_recipe_its_folder_and_the_output(
    tmp_path: Path, name: bytes, expected: dict[str, object]
) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(folder)
    inside = make(Path(os.fsdecode(folder)))
    words = [os.path.join(folder, b"copy.mrg"), b"-o", os.path.join(folder, name)]
    done = mergec(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.startswith(b"wrote ")
    assert b"\n  parameters" in done.stdout
    assert _made(inside / os.fsdecode(name)) == expected


@pytest.mark.parametrize("env", [{}, ASCII, {**ASCII, "PYTHONIOENCODING": "ascii"}], ids=["utf-8", "C", "ascii"])
def test_names_in_a_recipe_are_utf8_whatever_the_locale(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "größe").mkdir()
    make(
        tmp_path / "größe", größe='use "größe/lib.mrg"\nlet word = "x"\nlet a = model("größe/a.safetensors")\n"*" = a\n'
    )
    shutil.move(tmp_path / "größe" / "größe.mrg", tmp_path)
    (tmp_path / "größe" / "lib.mrg").write_text('let half = "x"\n')
    done = mergec("größe.mrg", "-o", "größe/ä", folder=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "größe" / "ä" / "model.safetensors").exists()
    record = json.loads((tmp_path / "größe" / "ä" / "mergec.json").read_text("utf-8"))
    assert [library["name"] for library in record["libraries"]] == ["größe/lib.mrg"]
    done = mergec("inspect", "größe/a.safetensors", folder=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert mergec("--check", "größe.mrg", "-D", "word=größe", folder=tmp_path, env=env).returncode == 0
    done = mergec("--check", "größe.mrg", "-D", b"word=\xff", folder=tmp_path, env=env)
    assert done.stderr == b"error[E0002]: the value of `-D word` is not UTF-8 text\n"


def test_the_same_bytes_in_any_place_and_at_any_time(tmp_path: Path, expected: dict[str, object]) -> None:
    surroundings: list[dict[str, str]] = [
        {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/New_York", "SOURCE_DATE_EPOCH": "1"},
        {"LC_ALL": "POSIX", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0"},
    ]
    for number, env in enumerate(surroundings):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder)
        shift = "import time; now = time.time; time.time = lambda: now() + 1e8"
        start = f"{shift}; from mergec.cli.main import main; sys.exit(main())"
        done = mergec("copy.mrg", "-o", "out", folder=folder, env=env, start=start)
        assert done.returncode == 0, done.stderr
        assert _made(folder / "out") == expected


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "gone").mkdir()
    start = "import os; os.chdir('gone'); os.rmdir('../gone'); from mergec.cli.main import main; sys.exit(main())"
    done = mergec(tmp_path / "copy.mrg", "-o", tmp_path / "out", folder=tmp_path, start=start)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error[E0002]: the current folder has been removed\n")


def test_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    make(home, home='let a = model("~/a.safetensors")\n"*" = a\n')
    done = mergec("~/home.mrg", "--output=~/out", folder=tmp_path, env={"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["home"]
    assert (home / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("length", [252, 256, 5000])
def test_names_that_are_too_long(tmp_path: Path, length: int) -> None:
    make(tmp_path)
    done = mergec("copy.mrg", "-o", "x" * length, folder=tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith(b"error[E06")
    assert b"file name too long" in done.stderr
    done = mergec("x" * length, "-o", "out", folder=tmp_path)
    assert (done.returncode, b"E0402" in done.stderr) == (3 if length > 255 else 1, True)


def test_umask_and_modes(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "a.safetensors").chmod(0o400)
    for mask, folder_mode, file_mode in ((0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664)):
        out = tmp_path / f"out{mask}"
        done = mergec("copy.mrg", "-o", out, folder=tmp_path, before=lambda mask=mask: os.umask(mask) and None)
        assert done.returncode == 0, done.stderr
        assert out.stat().st_mode & 0o777 == folder_mode
        assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {file_mode}


def test_an_output_shares_nothing_with_its_inputs(tmp_path: Path) -> None:
    """Neither hard links nor anything else: what is written into the output later stays there."""
    make(tmp_path)
    before = (tmp_path / "a.safetensors").read_bytes()
    assert mergec("copy.mrg", "-o", "out", folder=tmp_path).returncode == 0
    weights = tmp_path / "out" / "model.safetensors"
    assert weights.stat().st_ino != (tmp_path / "a.safetensors").stat().st_ino
    assert weights.stat().st_nlink == 1
    with weights.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"overwrit")
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_two_runs_onto_different_targets_at_once(tmp_path: Path, expected: dict[str, object]) -> None:
    make(tmp_path, copy=COPY)
    start = (
        "import os; from mergec.cli.main import main\n"
        "if os.fork(): sys.exit(main(['-q', 'copy.mrg', '-o', 'one']) or os.wait()[1])\n"
        "else: os._exit(main(['-q', 'copy.mrg', '-o', 'two']))"
    )
    done = mergec(folder=tmp_path, start=start)
    assert done.returncode == 0, done.stderr
    assert _made(tmp_path / "one") == _made(tmp_path / "two") == expected
