"""Running recipes: mergec's Python interface, in this process; its command line for a sample."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import mergec
from mergec.cli.commands.inspect import inspect_json


class Refused(Exception):
    """mergec said no. `str` is the code and the message."""

    @property
    def code(self) -> str:
        return str(self).partition(":")[0]


def inspected(model: Path) -> dict[str, Any]:
    """What `mergec inspect --format json` prints. Raises Refused."""
    try:
        found: dict[str, Any] = json.loads(inspect_json(str(model)))
    except mergec.MergecError as error:
        raise _refusal(error) from None
    return found


@contextmanager
def merged(a: Path, b: Path, recipe: str) -> Iterator[Path]:
    """The output of a recipe over the models `a` and `b`, for as long as it is asked for. Raises
    Refused."""
    out = a.parent / "merged"
    rmtree(out, ignore_errors=True)
    try:
        mergec.compile(_whole(a, b, recipe), device="cpu", lanes=1).run(out, fresh=True)
    except mergec.MergecError as error:
        rmtree(out, ignore_errors=True)
        raise _refusal(error) from None
    try:
        yield out
    finally:
        rmtree(out, ignore_errors=True)


def by_command(a: Path, b: Path, recipe: str, out: Path) -> None:
    """The same by `mergec RECIPE -o OUT`. Raises Refused."""
    text = a.parent / "recipe.mrg"
    text.write_text(_whole(a, b, recipe), "utf-8")
    words = [sys.executable, "-m", "mergec", str(text), "-o", str(out), "-q", "--error-format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode:
        first = json.loads((done.stderr or done.stdout or "{}").splitlines()[0])
        raise Refused(f"{first.get('code')}: {first.get('message')}")


def findings(out: Path) -> list[str]:
    """What `mergec verify` finds wrong with an output."""
    try:
        return [_told(d) for d in mergec.verify(out).diagnostics]
    except mergec.MergecError as error:
        return [_told(d) for d in error.diagnostics]


def _whole(a: Path, b: Path, recipe: str) -> str:
    return f'let a = model("{a}")\nlet b = model("{b}")\n{recipe}\n'


def _refusal(error: mergec.MergecError) -> Refused:
    errors = [d for d in error.diagnostics if d.severity is mergec.Severity.ERROR]
    return Refused(_told(errors[0]))


def _told(found: mergec.Diagnostic) -> str:
    return f"{found.code}: {found.message}"
