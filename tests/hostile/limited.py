"""Compiles recipes, in a process whose memory is limited, and prints what came of each as a line of
JSON.

Run as `python limited.py < texts.json`: a JSON object of names to recipes, or, for names that begin
with `yaml `, to configurations of mergekit.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from mergec.cli.import_mergekit.importer import import_text
from mergec.compiler.checkpoint.catalog import MemoryCatalog
from mergec.compiler.pipeline import compile_recipe
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.render import render
from mergec.grammar.source import Source

MEMORY = 1 << 30
"""Bytes of address space."""


def main() -> None:
    texts = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    layers = {f"layers.{i}.attn.q.weight": ("F32", (8, 8)) for i in range(4)}
    tensors = {"embed.weight": ("F32", (64, 8)), **layers, "head.weight": ("F32", (64, 8))}
    catalog = MemoryCatalog({name: {"tensors": tensors} for name in ("a", "b")}, {"circle": 'use "circle"'})
    for name, text in texts.items():
        source = Source(name, text)
        try:
            if name.startswith("yaml "):
                import_text(source, MemoryCatalog({}), Path())
            else:
                compile_recipe(source, catalog, "0")
            code, length = "", 0
        except MergecError as error:
            code, length = error.diagnostics[0].code, len(render(error.diagnostics))
        print(json.dumps([name, code, length]), flush=True)


if __name__ == "__main__":
    main()
