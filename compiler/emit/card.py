"""The documents that go with an output: model card and provenance."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...grammar.literals import write_string
from ..checkpoint.agreement import config_faults
from ..checkpoint.catalog import InputFile
from ..checkpoint.documents import json_text
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..evaluate.settings import Settings
from ..evaluate.standard_library import standard_texts
from ..evaluate.statements import Recipe
from .content import file_key

PROVENANCE = "mergec.json"
"""Name of the provenance file in an output folder."""

_MODULES = "modules.json"

RECORDED: Mapping[str, tuple[type, ...]] = {
    "mergec": (str,),
    "stdlib_sha256": (str,),
    "recipe": (str,),
    "defines": (dict,),
    "sets": (dict,),
    "strict": (bool,),
    "libraries": (list,),
    "primitives": (list,),
    "inputs": (list,),
    "template": (str,),
    "seed": (int,),
    "compute": (str,),
    "parameters": (int,),
    "ties": (dict,),
    "copied_from_template": (int,),
    "config_faults": (list,),
}
"""What the provenance file always says, and of which type in JSON."""


def fingerprint(model: Model) -> str:
    """SHA-256 over what the headers say (names, dtypes, shapes, offsets) and the files' sizes;
    reads no weight."""
    h = hashlib.sha256()
    for file in model.checkpoint.files:
        h.update(f"{file.path.rsplit('/', 1)[-1]}|{file.size}\n".encode(errors="backslashreplace"))
    lines = [f"{t.name}|{t.dtype}|{t.shape}|{t.file}|{t.start}|{t.end}\n" for t in model.checkpoint.tensors.values()]
    h.update("".join(lines).encode(errors="backslashreplace"))
    return h.hexdigest()


@functools.cache
def standard_library() -> str:
    """SHA-256 over the texts of the standard library: another one may give a method another
    meaning."""
    h = hashlib.sha256()
    for name, text in standard_texts().items():
        h.update(f"{name}|{len(text)}|{text}".encode())
    return h.hexdigest()


def provenance(
    recipe: Recipe,
    text: str,
    settings: Settings,
    elaboration: Elaboration,
    version: str,
    parameters: int,
    defines: Mapping[str, Any],
    sets: Mapping[str, Any],
) -> str:
    """The provenance file as JSON: all that the recipe can be compiled from again, given the
    inputs.

    `defines` and `sets` are what the command line replaced (`-D`, `--set output.KEY`).
    """
    inputs = [
        {
            "name": m.label,
            "source": m.source,
            "revision": m.checkpoint.revision,
            "family": m.family.name,
            "layout": m.layout,
            "parameters": m.parameters,
            "headers_sha256": fingerprint(m),
            "files": [{"name": _named(f, m), **state(f), "key": file_key(f)} for f in m.checkpoint.files],
        }
        for m in recipe.inputs
    ]
    data: dict[str, Any] = {
        "mergec": version,
        "stdlib_sha256": standard_library(),
        "recipe": text,
        "defines": dict(defines),
        "sets": dict(sets),
        "strict": settings.strict,
        "libraries": [{"name": name, "text": body} for name, body in recipe.libraries],
        "primitives": [{"name": p.name, "package": p.package, "kernel": p.kernel} for p in recipe.primitives],
        "inputs": inputs,
        "template": elaboration.template.label,
        "seed": settings.seed,
        "compute": "float64" if settings.compute == "F64" else "float32",
        "parameters": parameters,
        "ties": elaboration.ties,
        "config_faults": config_faults(elaboration.template),
        "copied_from_template": len(elaboration.copied),
    }
    return json_text(data)


def _named(file: InputFile, model: Model) -> str:
    """The name of an input's file in its folder."""
    inside = file.path.removeprefix(f"{model.checkpoint.location}/")
    return inside if inside != file.path else file.path.rsplit("/", 1)[-1]


def state(file: InputFile) -> dict[str, int]:
    """What shows that a file is still the same, wherever on its file system it was moved."""
    return {"size": file.size, "mtime_ns": file.mtime_ns, "device": file.device, "inode": file.inode}


def model_card(recipe: Recipe, text: str, settings: Settings, facts: Sequence[tuple[str, str]], title: str) -> str:
    """README.md of the output: front matter that the Hub reads, inputs, and the recipe.

    What comes from inputs is quoted (as a string of this language, the same in YAML) or fenced, so
    that it can't become markup.
    """
    sources = list(dict.fromkeys(m.source for m in recipe.inputs))
    front: Mapping[str, Any] = {
        "base_model": sources,
        "library_name": _library(settings.template),
        "license": settings.license,
        "tags": ["merge", "mergec"],
    }
    lines = ["---"]
    for key, value in front.items():
        if isinstance(value, list):
            lines.append(f"{key}:")
            lines.extend(f"- {write_string(v)}" for v in value)
        elif value is not None:
            lines.append(f"{key}: {write_string(value)}")
    fence = "```"
    while fence in text:
        fence += "`"
    lines += ["---", "", f"# {_escape(title)}", "", "A merge made with mergec. Its inputs:", ""]
    for model in recipe.inputs:
        revision = f" at revision `{_code(model.checkpoint.revision)}`" if model.checkpoint.revision else ""
        lines.append(f"- `{_code(model.label)}`: `{_code(model.source)}`{revision}")
    lines += ["", "The recipe:", "", fence, text.rstrip("\n"), fence, ""]
    lines += [f"- {name}: {value}" for name, value in facts]
    return "\n".join(lines) + "\n"


def _library(template: Model) -> str:
    """The library that loads what the output is like."""
    if _MODULES in template.checkpoint.extras:
        return "sentence-transformers"
    return "diffusers" if template.checkpoint.is_pipeline or "_class_name" in template.config else "transformers"


def _escape(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in text if c.isprintable())


def _code(text: str | None) -> str:
    return "".join(c for c in text or "" if c.isprintable() and c != "`")
