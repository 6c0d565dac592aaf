"""Reads the text cases of tests/import/*.txt: a configuration of mergekit, and the recipe that it
becomes.

=== what is shown
merge_method: linear
…
--- recipe
let a = model("./llama/a")
…
--- printed                   errors and warnings, where there are some

The models llama, llama-tied and qwen2-tied are those of tests/oracle/data/models; others are not at
hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mergec.cli.import_mergekit.importer import import_text
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.render import render
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog

FOLDER = Path(__file__).parent / "import"
MODELS = FOLDER.parent / "oracle" / "data" / "models"


@dataclass(frozen=True, slots=True)
class Case:
    file: Path
    title: str
    config: str
    recipe: str
    printed: str

    def written(self, recipe: str, printed: str) -> str:
        parts = [f"=== {self.title}\n{self.config.strip(chr(10))}\n"]
        parts += [f"--- recipe\n{recipe.strip(chr(10))}\n"] if recipe else []
        parts += [f"--- printed\n{printed.strip(chr(10))}\n"] if printed else []
        return "".join(parts)


def read_cases(file: Path) -> list[Case]:
    """The cases of a file, in order."""
    cases = []
    for block in re.split(r"^=== ", file.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        config, *pieces = re.split(r"^--- (recipe|printed)\n", body, flags=re.MULTILINE)
        sections = dict(zip(pieces[0::2], pieces[1::2], strict=True))
        cases.append(Case(file, title, config, sections.get("recipe", ""), sections.get("printed", "")))
    return cases


def imported(config: str, target: Path = MODELS) -> tuple[str, str, tuple[str, ...]]:
    """Recipe, what is printed, and the codes in that; the configuration lies as `config.yml` in the
    current folder."""
    try:
        found = import_text(Source("config.yml", config), LocalCatalog(), target)
    except MergecError as error:
        return "", render(error.diagnostics), tuple(d.code for d in error.diagnostics)
    return found.text, render(found.warnings), tuple(d.code for d in found.warnings)
