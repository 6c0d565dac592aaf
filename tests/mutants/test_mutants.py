"""Mutants: what is drawn and what isn't, and that a mutant is what a process imports, whichever
starts it."""

from __future__ import annotations

import ast
import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.operators import mutants, mutated

SOURCE = '''"""A module."""

from __future__ import annotations

import functools

LIMIT = 3
"""The most."""
Pair = tuple[int, str]


def first(items: list[int], most: int = 2) -> int | None:
    """The first one that is small."""
    for item in items:
        if item < most and not item == 1:
            return item
    return None


def checked(x: int) -> int:
    if x > LIMIT:
        raise ValueError(f"{x} is more than {LIMIT}")
    found = []
    found.append(x - 1)
    return [y for y in found if y][0]


@functools.cache
def kept() -> bool:
    return True


class Thing:
    def __repr__(self) -> str:
        return "a" + "thing"
'''


def changes(function: str) -> set[str]:
    return {m.change for m in mutants(ast.parse(SOURCE), "m") if m.function == function}


def test_of_each_kind() -> None:
    assert changes("first") == {
        "2 -> 3",
        "2 -> 1",
        "item < most and (not item == 1) -> True",
        "item < most and (not item == 1) -> False",
        "item < most and (not item == 1) -> item < most or not item == 1",
        "item < most and (not item == 1) -> not item == 1",
        "item < most and (not item == 1) -> item < most",
        "item < most -> item <= most",
        "item < most -> item >= most",
        "not item == 1 -> item == 1",
        "item == 1 -> item != 1",
        "1 -> 2",
        "1 -> 0",
        "return item -> return None",
    }
    assert changes("checked") == {
        "x > LIMIT -> True",
        "x > LIMIT -> False",
        "x > LIMIT -> x >= LIMIT",
        "x > LIMIT -> x <= LIMIT",
        "raise ValueError(f'{x} is more than {LIMIT}') -> pass",
        "found.append(x - 1) -> pass",
        "x - 1 -> x + 1",
        "1 -> 2",
        "1 -> 0",
        "return [y for y in found if y][0] -> return None",
        "y -> True",
        "0 -> 1",
        "0 -> -1",
    }
    assert changes("<module>") == {"3 -> 4", "3 -> 2"}
    assert not changes("Thing.__repr__")


def test_keys_tell_them_apart() -> None:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        keys = [m.key for m in mutants(ast.parse(path.read_text("utf-8")), path.stem)]
        assert len(set(keys)) == len(keys) > 10


def test_each_is_a_program_of_its_own() -> None:
    as_it_is = ast.dump(ast.parse(SOURCE))
    seen = {as_it_is}
    for k, mutant in enumerate(mutants(ast.parse(SOURCE), "m")):
        tree = mutated(SOURCE, "m", k)
        compile(tree, "m.py", "exec")
        assert ast.dump(tree) not in seen, mutant.key
        seen.add(ast.dump(tree))


def test_what_is_kept_for_the_process_is_known() -> None:
    """What runs at import, or once in a process, is reached by the first test alone, whichever that
    is."""
    always = {(m.function, m.change) for m in mutants(ast.parse(SOURCE), "m") if m.always}
    assert always == {
        *(("<module>", change) for change in ("3 -> 4", "3 -> 2")),
        *(("first", change) for change in ("2 -> 3", "2 -> 1")),
        *(("kept", change) for change in ("True -> False", "return True -> return None")),
    }


@pytest.mark.parametrize("served", [True, False])
def test_a_mutant_is_served_to_every_process(served: bool, tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    (package / "part" / "__init__.py").write_text("", "utf-8")
    (package / "part" / "sizes.py").write_text(SOURCE, "utf-8")
    where = {m.change: k for k, m in enumerate(mutants(ast.parse(SOURCE), "part.sizes"))}
    tree = mutated(SOURCE, "part.sizes", where["3 -> 4"])
    folder = tmp_path / "served"
    folder.mkdir()
    path = str(package / "part" / "sizes.py")
    (folder / "part.sizes.code").write_bytes(marshal.dumps(compile(tree, path, "exec", dont_inherit=True)))
    hook = Path(__file__).parent / "hook"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(hook), str(package)]), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"MUTANTS_SERVED": str(folder)} if served else {}
    inner = "from part.sizes import LIMIT; import part.sizes; print(LIMIT, part.sizes.__file__)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", outer], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{4 if served else 3} {path}"
    assert (package / "part" / "sizes.py").read_text("utf-8") == SOURCE
