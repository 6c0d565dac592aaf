"""The register of errors and warnings: what each code means, how it is fixed, and what status the
process ends with.

The texts are data, errors.toml; a test holds its codes and those in the source equal, and compiles
the examples.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from .records import dataclass


class Exit(enum.IntEnum):
    """Exit statuses of the command line."""

    DONE = 0
    RECIPE = 1
    USAGE = 2
    INPUT = 3
    RUN = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class CodeGroup:
    """Codes with one beginning: what they are about, and the exit status of those that have none of
    their own."""

    title: str
    exit: Exit = Exit.RECIPE


GROUPS: Mapping[str, CodeGroup] = MappingProxyType(
    {
        "E00": CodeGroup("The command line", Exit.USAGE),
        "E01": CodeGroup("Syntax"),
        "E02": CodeGroup("Names, calls and types"),
        "E03": CodeGroup("Places, regions, coverage and ties"),
        "E04": CodeGroup("Inputs", Exit.INPUT),
        "W05": CodeGroup("Warnings"),
        "E06": CodeGroup("Running and the target", Exit.RUN),
        "E07": CodeGroup("Importing configurations of mergekit"),
        "W07": CodeGroup("Warnings about configurations of mergekit"),
    }
)
"""Codes by their beginnings."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """An entry of the register.

    `meaning` is a paragraph, `example` a recipe (or a file, or a command) that causes the error,
    `fix` what to do. `exit` is the status of a run that ends with it, where the group's is not
    right.
    """

    code: str
    title: str
    meaning: str
    example: str
    fix: str
    exit: int | None = None


class _Register(Mapping[str, ErrorCode]):
    """The register, read when first asked for: errors are rarer than imports of this module."""

    @functools.cached_property
    def _entries(self) -> Mapping[str, ErrorCode]:
        import tomllib

        text = Path(__file__).with_name("errors.toml").read_text("utf-8")
        return {code: ErrorCode(code, **fields) for code, fields in tomllib.loads(text).items()}

    def __getitem__(self, code: str) -> ErrorCode:
        return self._entries[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


ERRORS: Mapping[str, ErrorCode] = _Register()
"""Code to entry, in the order of the codes."""


def exit_of(code: str, file: str | None) -> Exit:
    """The exit status of a run that ends with an error about `file`.

    An input that can't be used is to blame only where the error names its file: else the recipe
    asks for what is not there, or not so.
    """
    group = GROUPS.get(code[:3], CodeGroup("codes of an installed package"))
    try:
        found = ERRORS.get(code)
    except (OSError, MemoryError):
        found = None  # what is wrong may be that no file can be opened any more
    status = group.exit if found is None or found.exit is None else Exit(found.exit)
    return Exit.RECIPE if status is Exit.INPUT and file is None else status
