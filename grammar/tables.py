"""The parser's tables, made ahead: reading them takes a tenth of the time of making them from `merge.lark`.

`tables.json` is part of the package and made by `python -m mergec.grammar.tables > grammar/tables.json`. It counts only
for the very grammar and the very version of Lark that it was made of; with any other the parser is made anew. Nothing
is ever written where mergec runs, and what is read is JSON: it can hold no code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "lexer": "contextual",
    "propagate_positions": True,
    "maybe_placeholders": False,
}


def parser(*start: str) -> Lark:
    """The parser for some start rules. Tables are made ahead for `module`, which nearly all runs need alone."""
    grammar = Path(__file__).with_name("merge.lark").read_text("utf-8")
    if start == ("module",):
        ready = _read(grammar)
        if ready is not None:
            return ready
    return Lark(grammar, start=list(start), **OPTIONS)


def _read(grammar: str) -> Lark | None:
    """The parser out of `tables.json`; None where that is of another grammar or another Lark, or is not there."""
    try:
        text = Path(__file__).with_name("tables.json").read_text("utf-8")
        tables = _numbered(json.loads(text))
    except (OSError, ValueError):
        return None
    if (tables["lark"], tables["grammar"]) != (lark.__version__, _digest(grammar)):
        return None
    return Lark.load({"data": tables["data"], "memo": tables["memo"]})


def _numbered(value: Any) -> Any:
    """With numbers for keys again, which JSON can only spell as strings; no other key consists of digits."""
    if isinstance(value, dict):
        return {int(k) if k.isdigit() else k: _numbered(v) for k, v in value.items()}
    return [_numbered(v) for v in value] if isinstance(value, list) else value


def tables_text() -> str:
    """What `tables.json` should hold, for the Lark that is installed."""
    grammar = Path(__file__).with_name("merge.lark").read_text("utf-8")
    data, memo = Lark(grammar, start=["module"], **OPTIONS).memo_serialize([TerminalDef, Rule])
    tables = {"lark": lark.__version__, "grammar": _digest(grammar), "data": data, "memo": memo}
    return json.dumps(tables, separators=(",", ":")) + "\n"


def _digest(grammar: str) -> str:
    return hashlib.sha256(grammar.encode()).hexdigest()


if __name__ == "__main__":
    print(tables_text(), end="")
