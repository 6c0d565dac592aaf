"""The parser's tables, made ahead: reading them takes a tenth of the time of making them from
`merge.lark`.

`tables.json` is part of the package and made by `python -m mergec.grammar.tables >
grammar/tables.json`. It counts only for the very grammar that it was made of; for another, or where
Lark can't read it, the parser is made anew. What is in it does not depend on Lark's version, as far
as the package's requirements allow one: states and symbols are numbered by the grammar alone, and
options are not in it. Nothing is ever written where mergec runs, and what is read is JSON: it can
hold no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "lexer": "contextual",
    "propagate_positions": True,
    "maybe_placeholders": False,
}
START = ["module"]
"""The start rules that there are tables for; nearly all runs need no other."""


def parser(*start: str) -> Lark:
    """The parser for some start rules."""
    grammar = Path(__file__).with_name("merge.lark").read_text("utf-8")
    if list(start) == START:
        ready = _read(grammar)
        if ready is not None:
            return ready
    return Lark(grammar, start=list(start), **OPTIONS)


def _read(grammar: str) -> Lark | None:
    """The parser out of `tables.json`; None where that is of another grammar or not there, or Lark
    can't read it."""
    try:
        tables = _numbered(json.loads(Path(__file__).with_name("tables.json").read_text("utf-8")))
        if tables["grammar"] != _digest(grammar):
            return None
        data = tables["data"] | {"options": OPTIONS | {"start": START}}
        return Lark.load({"data": data, "memo": tables["memo"]})
    except Exception:
        # the form is Lark's own affair: whatever another version says of it, the grammar tells as
        # much
        return None


def _numbered(value: Any) -> Any:
    """With numbers for keys again, which JSON can only spell as strings; no other key consists of
    digits."""
    if isinstance(value, dict):
        return {int(k) if k.isdigit() else k: _numbered(v) for k, v in value.items()}
    return [_numbered(v) for v in value] if isinstance(value, list) else value


def tables_text() -> str:
    """What `tables.json` should hold."""
    grammar = Path(__file__).with_name("merge.lark").read_text("utf-8")
    data, memo = Lark(grammar, start=START, **OPTIONS).memo_serialize([TerminalDef, Rule])
    del data["options"]
    data["parser"]["parser"] = _in_order(data["parser"]["parser"])
    tables = {"grammar": _digest(grammar), "data": data, "memo": memo}
    return json.dumps(tables, separators=(",", ":")) + "\n"


def _in_order(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of actions with symbols numbered by name and states as they are reached from the
    start: Lark numbers both in another order each time."""
    names: Mapping[int, str] = table["tokens"]
    symbols = {symbol: k for k, symbol in enumerate(sorted(names, key=lambda symbol: names[symbol]))}
    states = {table["start_states"][rule]: k for k, rule in enumerate(START)}
    rows: dict[int, dict[int, Any]] = {}
    reached = list(states)
    for state in reached:  # which grows
        row = rows[states[state]] = {}
        for symbol in sorted(table["states"][state], key=lambda symbol: symbols[symbol]):
            action, argument = table["states"][state][symbol]
            shift = not action
            if shift and argument not in states:
                states[argument] = len(states)
                reached.append(argument)
            row[symbols[symbol]] = (action, states[argument] if shift else argument)
    return dict(table) | {
        "tokens": {number: names[symbol] for symbol, number in symbols.items()},
        "states": rows,
        "start_states": {rule: states[state] for rule, state in table["start_states"].items()},
        "end_states": {rule: states[state] for rule, state in table["end_states"].items()},
    }


def _digest(grammar: str) -> str:
    return hashlib.sha256(grammar.encode()).hexdigest()


if __name__ == "__main__":
    print(tables_text(), end="")
