"""Reads the text cases of tests/errors: a recipe, the headers of its checkpoints, and what is to be
printed.

=== what is shown
let base = model("base")
…
--- model NAME …              tensors of checkpoints that are not in models.txt
config {"model_type": "llama"}
model.layers.{0..1}.mlp.{gate,up}_proj.weight  F32 [6, 4]
equal lm_head.weight model.embed_tokens.weight   or: equal unknown
beside epoch optimizer        what a pickle has beside tensors
part 2_Dense                  weights in a folder; `.` is the checkpoint's own, `. fp16` a variant
metadata notes 1000           so many characters under a key of the header's metadata
--- file lib.mrg              a file that the recipe uses
--- document NAME FILE        a small file beside a checkpoint's weights
--- options                   keywords of `mergec.compile`, as JSON
--- output
error[E0201]: …
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mergec
from mergec.compiler.checkpoint.catalog import Part
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.render import render

FOLDER = Path(__file__).parent / "errors"


@dataclass(slots=True)
class Case:
    """One case; `sections` are (heading, text) in file order, the recipe's heading being empty."""

    file: Path
    title: str
    sections: list[tuple[str, str]] = field(default_factory=list)

    @property
    def recipe(self) -> str:
        return self.sections[0][1]

    @property
    def output(self) -> str | None:
        return next((text for heading, text in self.sections if heading == "output"), None)

    def written(self) -> str:
        parts = [f"=== {self.title}\n"]
        for heading, text in self.sections:
            parts.append((f"--- {heading}\n" if heading else "") + text.rstrip("\n") + "\n")
        return "".join(parts)


def read_cases(file: Path) -> list[Case]:
    """The cases of a file, in order."""
    cases: list[Case] = []
    for block in re.split(r"^=== ", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        pieces = re.split(r"^--- (.+)\n", body, flags=re.MULTILINE)
        headings = ["", *pieces[1::2]]
        cases.append(Case(file, title, list(zip(headings, pieces[0::2], strict=True))))
    return cases


def rewrite(case: Case, printed: str) -> None:
    """Replaces what a case of its file expects by `printed`."""
    update(replace(case, sections=[(h, text) for h, text in case.sections if h != "output"] + [("output", printed)]))


def update(case: Case) -> None:
    """Puts a case in the place of that of its title in its file."""
    cases = [case if each.title == case.title else each for each in read_cases(case.file)]
    case.file.write_text("\n".join(each.written().rstrip("\n") + "\n" for each in cases), "utf-8")


def expand(name: str) -> Iterator[str]:
    """`x.{0..1}.{a,b}` as four names."""
    parts = re.split(r"\{([^{}]*)\}", name)
    choices = []
    for k, part in enumerate(parts):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if k % 2 == 0:
            choices.append([part])
        elif numbers:
            choices.append([str(n) for n in range(int(numbers[1]), int(numbers[2]) + 1)])
        else:
            choices.append(part.split(","))
    return ("".join(c) for c in itertools.product(*choices))


def checkpoint(table: str) -> dict[str, Any]:
    """A checkpoint for `MemoryCatalog` from its table."""
    out: dict[str, Any] = {"tensors": {}, "equal": [], "documents": {}}
    for line in filter(None, map(str.strip, table.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "config":
            out["config"] = json.loads(rest)
        elif word == "beside":
            out["passed_over"] = rest.split()
        elif word == "part":
            folder, _, variant = rest.partition(" ")
            out.setdefault("parts", []).append(Part(folder.strip("."), variant=variant or None))
        elif word == "metadata":
            key, _, length = rest.partition(" ")
            out.setdefault("metadata", {})[key] = "x" * int(length)
        elif word == "equal" and rest == "unknown":
            out["equal"] = None
        elif word == "equal":
            out["equal"].append(tuple(rest.split()))
        else:
            dtype, _, shape = rest.strip().partition(" ")
            out["tensors"].update({name: (dtype, tuple(json.loads(shape))) for name in expand(word)})
    return out


def models_of(sections: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Checkpoints by name from `model` and `document` sections."""
    found: dict[str, dict[str, Any]] = {}
    for heading, text in sections:
        kind, _, rest = heading.partition(" ")
        if kind == "model":
            found.update({name: checkpoint(text) for name in rest.split()})
        elif kind == "document":
            name, _, document = rest.partition(" ")
            found[name]["documents"][document] = text
    return found


def shared_models() -> dict[str, dict[str, Any]]:
    """The checkpoints of models.txt, which every case and every page's example can name."""
    return models_of(read_cases(FOLDER / "models.txt")[0].sections)


def outcome(recipe: str, sections: list[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """What compiling prints, and the codes in it."""
    files = {h.removeprefix("file "): text for h, text in sections if h.startswith("file ")}
    options = next((json.loads(text) for h, text in sections if h == "options"), {})
    catalog = mergec.MemoryCatalog({**shared_models(), **models_of(sections)}, files)
    try:
        found = mergec.compile(recipe, catalog=catalog, device="cpu", **options).diagnostics
    except MergecError as error:
        found = error.diagnostics
    return render(found), tuple(d.code for d in found)
