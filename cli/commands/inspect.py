"""`mergec inspect MODEL`: what a checkpoint is, from its headers alone."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import Any

from ...compiler.checkpoint.catalog import Catalog, CatalogError
from ...compiler.checkpoint.documents import catalog_diagnostic
from ...compiler.checkpoint.model import Model, bind
from ...compiler.family.family import Family
from ...compiler.family.folding import fold
from ...compiler.terms.terms import before_layers
from ...grammar.diagnostic import Diagnostic, MergecError
from ...grammar.error_codes import Exit
from ...grammar.render import escape, render
from ...grammar.render import to_json as diagnostics_json
from ...grammar.source import Source, Span
from ...runtime.catalog.local import LocalCatalog
from ..explain.checkpoint import depths_text, dtypes, family_text, guesses, listed, nbytes, place_of, ties_text
from ..terminal.amounts import count, size
from ..terminal.arguments import ALLOW_PICKLE, Parser
from ..terminal.columns import facts
from ..terminal.reporter import Reporter
from ..terminal.streams import say


def parse_words(words: list[str]) -> Namespace:
    """The arguments of `mergec inspect`. Raises UsageError."""
    parser = Parser(
        prog="mergec inspect", description="What a checkpoint is: family, layout, ties, dtypes, parameters."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--allow-pickle", action="store_true", help=ALLOW_PICKLE)
    parser.shared()
    return parser.parse_args(words)


def run(given: Namespace, _: Reporter) -> Exit:
    """Prints what each model is. Raises MergecError."""
    catalog = LocalCatalog(allow_pickle=given.allow_pickle)
    if given.format == "json":
        say("\n".join(inspect_json(model, catalog) for model in given.models).rstrip("\n"), exact=True)
    else:
        say("\n".join(inspect_text(model, catalog) for model in given.models).rstrip("\n"))
    return Exit.DONE


def inspect_text(source: str, catalog: Catalog | None = None) -> str:
    """A checkpoint as text for people: family, layout, ties, dtypes, parameters, roles with their
    tensors, what is ignored.

    `source` is a folder or a `.safetensors` file, relative to the working folder. Raises
    MergecError (E04xx).
    """
    model, warnings = _open(source, catalog)
    parts = ", ".join(f"{n:,} {dtype}" for dtype, n in dtypes(model).items())
    files = model.checkpoint.files
    rows = [
        ("family", escape(family_text(model))),
        ("layout", model.layout),
        ("parameters", f"{model.parameters:,} in {count(len(model.tensors), 'tensor')}, {size(nbytes(model))}"),
        ("dtypes", parts or "none"),
        ("ties", ties_text(model.family, model.aliases)),
        ("layers", depths_text(model.space.depths)),
        ("files", f"{count(len(files), 'weight file')}, {size(sum(f.size for f in files))}"),
    ]
    if guesses(model):
        rows.append(("from names", escape("; ".join(guesses(model)))))
    if model.ignored:
        rows.append(("ignored", f"{count(len(model.ignored), 'buffer')}: {listed(map(escape, model.ignored))}"))
    lines = [escape(model.checkpoint.location), *facts(rows), "", "places"]
    lines += facts([(place, escape(", ".join(names))) for place, names in roles(model).items()])
    lines += facts([(place, count(len(names), "tensor")) for place, names in _below(model).items()])
    if warnings:
        lines += ["", render(warnings).rstrip("\n")]
    return "\n".join(lines) + "\n"


def inspect_json(source: str, catalog: Catalog | None = None) -> str:
    """The same as a JSON object; sizes are bytes. Raises MergecError (E04xx)."""
    model, warnings = _open(source, catalog)
    data: dict[str, Any] = {
        "location": model.checkpoint.location,
        "family": model.family.name,
        "inferred": model.family.inferred,
        "guesses": guesses(model),
        "transformers": model.family.version,
        "layout": model.layout,
        "parameters": model.parameters,
        "bytes": nbytes(model),
        "dtypes": dtypes(model),
        "ties": dict(model.aliases),
        "depths": dict(model.space.depths),
        "files": [{"path": f.path, "bytes": f.size} for f in model.checkpoint.files],
        "ignored": list(model.ignored),
        "places": {place: list(names) for place, names in {**roles(model), **_below(model)}.items()},
        "tensors": {
            name: {
                "dtype": model.dtype(view),
                "shape": list(view.shape),
                "stored": model.checkpoint.tensors[view.stored].name,
                "first": view.first,
            }
            for name, view in model.tensors.items()
        },
        "warnings": [json.loads(line) for line in diagnostics_json(warnings).splitlines()],
    }
    return json.dumps(data, indent=2) + "\n"


def roles(model: Model) -> dict[str, tuple[str, ...]]:
    """Place to the tensors there, folded, in the order of a model: before the layers, each stack,
    after them.

    A tensor that no role covers stands under its own path. Those of parts in folders below are not
    among them.
    """
    family = model.family
    below = {name for names in _below(model).values() for name in names}
    outside = [n for n in model.tensors if n not in below and model.space.layer_of(n) is None]
    out: dict[str, tuple[str, ...]] = {}
    for early in (True, False):
        for name in outside:
            if before_layers(model.space, name) is early:
                place = place_of(family, name).removesuffix(".bias")
                out[place] = (*out.get(place, ()), name)
        if early:
            for stack in family.stacks:
                out.update(_in_stack(model, stack.name))
    return out


def _below(model: Model) -> dict[str, tuple[str, ...]]:
    """The tensors of parts in folders below, by the place that each part is."""
    found = {}
    for part in model.checkpoint.parts:
        if part.folder:
            word = part.prefix.rstrip(".")
            plain = all(step.isidentifier() for step in word.split("."))
            place = word if plain else f'"{part.prefix}*"'
            found[place] = tuple(n for n in model.tensors if n.startswith(part.prefix))
    return found


def _in_stack(model: Model, stack: str) -> dict[str, tuple[str, ...]]:
    """Roles below a stack's layers, each with the tensors that it alone covers."""
    found: dict[str, list[str]] = {}
    for name in model.tensors:
        at = model.space.layer_of(name)
        if at is not None and at[0].name == stack:
            found.setdefault(_role(model.family, stack, at[2]), []).append(name)
    folded = {role: fold(names, model.space) for role, names in found.items()}
    return {
        f"{stack}[*].{role}" if role else f"{stack}[*]": tuple(n.removeprefix(stack) for n in names)
        for role, names in folded.items()
    }


def _role(family: Family, stack: str, rest: str) -> str:
    """The most specific role that a name below a layer belongs to."""
    best = ("", -1)
    for role, modules in family.roles_of(stack).items():
        # roles of a single expert are relative to it: their tensors stand under `experts`
        for module in () if role.startswith("experts.") and family.experts else modules:
            if (rest == module or rest.startswith(module + ".")) and (len(module), role.count(".")) > (best[1], 0):
                best = (role, len(module))
    return best[0]


def _open(source: str, catalog: Catalog | None) -> tuple[Model, list[Diagnostic]]:
    opened = catalog or LocalCatalog()
    span = Span(Source("<command line>", source), 0, len(source))
    try:
        checkpoint = opened.open(source, revision=None, subfolder=None, near=os.path.join(os.getcwd(), "-"))
        label = source.rstrip("/").rsplit("/", 1)[-1]
        return bind(opened, checkpoint, number=0, label=label, source=source, rename=None, span=span)
    except CatalogError as error:
        raise MergecError(catalog_diagnostic(error, span)) from None
