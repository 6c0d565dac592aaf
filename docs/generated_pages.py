"""What these pages show of the sources: methods, functions, settings, families and errors, as
markdown.

errors.md is all of it made here, and families.md of what `make sweep` found; other pages hold such
text between `<!-- NAME -->` and `<!-- end NAME -->`. The tests see that it is up to date, and
`UPDATE_DOCS=1 pytest tests/docs` writes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mergec.compiler.evaluate.builtins import BUILTINS
from mergec.compiler.evaluate.calls import REQUIRED, Parameter
from mergec.compiler.evaluate.settings import KEYS
from mergec.compiler.evaluate.standard_library import standard_texts
from mergec.compiler.family.family import Family, families
from mergec.grammar import ast
from mergec.grammar.error_codes import ERRORS, GROUPS, CodeGroup, Exit
from mergec.grammar.parse import parse
from mergec.grammar.source import Source

from tools.sweep import results
from tools.sweep.page import page as families_page


def methods_markdown() -> str:
    """A section for each file of the standard library: its head, its methods with their parameters,
    its helpers."""
    return "\n".join(_method_file(file, text) for file, text in standard_texts().items()).rstrip("\n")


def functions_markdown() -> str:
    """A table of the functions that the language itself provides."""
    rows = [(f"`{b.name}({', '.join(_builtin_parameter(p) for p in b.parameters)})`", b.doc) for b in BUILTINS.values()]
    return _table(("function", "value"), rows)


def settings_markdown() -> str:
    """A table of the keys of `output(…)`."""
    return _table(("key", "meaning"), [(f"`{key}`", meaning) for key, meaning in KEYS.items()])


def families_markdown() -> str:
    """A table of the families with their stacks, places, roles and further layouts."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, family in families().items():
        rows.setdefault(_family_row(family), []).append(name)
    heads = ("families", "stacks", "other places", "roles below a layer", "layouts beside `canonical`")
    return _table(heads, [(", ".join(names), *row) for row, names in rows.items()])


SECTIONS: Mapping[str, Callable[[], str]] = {
    "methods": methods_markdown,
    "functions": functions_markdown,
    "settings": settings_markdown,
    "families": families_markdown,
}
"""What there is, by the name of its markers."""


def refreshed(page: str, text: str) -> str:
    """The page of that name, `text`, with what is made here made anew. Raises ValueError where a
    marker has no end."""
    if page == "errors.md":
        return errors_markdown()
    if page == "families.md":
        return families_page(*results.read(results.PATH.read_text("utf-8")))
    for name, markdown in SECTIONS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            _, found, after = rest.partition(end)
            if not found:
                raise ValueError(f"`{start.strip()}` has no end")
            text = f"{before}{start}{markdown()}\n{end}{after}"
    return text


def errors_markdown() -> str:
    """All pages about codes, group by group."""
    lines = ["# Errors and warnings", ""]
    lines += ["Made from `grammar/errors.toml`; `mergec --explain CODE` shows a page of it."]
    lines += ["Of several errors the least exit status counts: a wrong recipe outweighs a corrupt input."]
    for start, group in GROUPS.items():
        lines += ["", f"## {group.title}", "", _status(group)]
        for code, found in ERRORS.items():
            if code.startswith(start):
                status = "" if found.exit is None else f" Exit status {found.exit}."
                lines += ["", f"### {code}: {found.title}", "", found.meaning.strip() + status, ""]
                lines += ["```", found.example.strip("\n"), "```", "", found.fix.strip()]
    return "\n".join(lines) + "\n"


def _status(group: CodeGroup) -> str:
    if group.exit is Exit.INPUT:
        return "Exit status 3 where the error names a file, else 1: the recipe asks for what is not there."
    return f"Exit status {group.exit}, but where an entry says otherwise."


# --- methods -------------------------------------------------------------------------------------


def _method_file(file: str, text: str) -> str:
    module = parse(Source(file, text))
    defs = [s for s in module.statements if isinstance(s, ast.Def)]
    # a method declares which of its parameters are models; a helper does not
    methods = [d for d in defs if any(p.kind and p.kind.name == "region" for p in d.parameters)]
    helpers = [d.name.id for d in defs if d not in methods]
    lines = [
        f"### {', '.join(f'`{d.name.id}`' for d in methods)} (stdlib/{file})",
        "",
        "```text",
        *_head(text),
        "```",
        "",
    ]
    for method in methods:
        calls = ", ".join(_shown(p) for p in method.parameters)
        rows = [_parameter_row(p) for p in method.parameters]
        lines += [f"`{method.name.id}({calls})`", "", _table(("parameter", "kind", "default"), rows), ""]
    if helpers:
        lines += [f"Helpers in the file: {', '.join(f'`{name}`' for name in helpers)}.", ""]
    return "\n".join(lines)


def _head(text: str) -> list[str]:
    """The comment with which a file begins."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").removeprefix(" "))
    return head


def _shown(parameter: ast.ParameterDeclaration) -> str:
    name = f"*{parameter.name.id}" if parameter.variadic else parameter.name.id
    return name if parameter.default is None else f"{name}={parameter.default.span.text}"


def _parameter_row(parameter: ast.ParameterDeclaration) -> tuple[str, str, str]:
    kind = parameter.kind.span.text if parameter.kind else "any"
    if parameter.variadic:
        kind, default = f"{kind}s, any number of them", "–"
    elif parameter.default is not None:
        default = f"`{parameter.default.span.text}`"
    else:
        default = "the model named `base`" if parameter.name.id == "base" else "must be given"
    return f"`{parameter.name.id}`", kind, default


def _builtin_parameter(parameter: Parameter) -> str:
    if parameter.variadic:
        return f"*{parameter.name}"
    if parameter.default is REQUIRED:
        return parameter.name
    shown = f'"{parameter.default}"' if isinstance(parameter.default, str) else parameter.default
    return f"{parameter.name}={shown}"


# --- families ------------------------------------------------------------------------------------


def _family_row(family: Family) -> tuple[str, ...]:
    """What a family has, as cells of a table; those that do not differ share a row."""
    roles: dict[str, list[str]] = {}
    for stack in family.stacks:
        for role in family.roles_of(stack.name):
            roles.setdefault(role, []).append(stack.name)
    partial = {role: stacks for role, stacks in roles.items() if len(stacks) < len(family.stacks)}
    cells = [_joined(role for role in roles if role not in partial)]
    for stack in family.stacks:
        own = [role for role, stacks in partial.items() if stack.name in stacks]
        if own:
            cells.append(f"{stack.name} alone: {_joined(own)}")
    return (
        ", ".join(f"`{s.name}`" for s in family.stacks),
        ", ".join(f"`{place}`" for place in family.places),
        "; ".join(cells),
        ", ".join(f"`{layout.name}`" for layout in family.layouts) or "–",
    )


def _joined(roles: Iterable[str]) -> str:
    """Roles with the same beginning together: `attn` .q .k .v .o."""
    groups: dict[str, list[str]] = {}
    for role in roles:
        head, _, tail = role.partition(".")
        groups.setdefault(head, []).extend([f".{tail}"] if tail else [])
    return ", ".join(" ".join([f"`{head}`", *tails]) for head, tails in groups.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
