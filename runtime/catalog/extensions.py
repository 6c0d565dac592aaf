"""Finds the primitives that installed packages offer, when a recipe first uses a name that is known
nowhere else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...compiler.evaluate.extensions import GROUP, Primitive, PrimitiveError
from .extension_code import kernel_code

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Primitives(Mapping[str, Primitive]):
    """Primitives by name: those given, then those of installed packages.

    The packages' metadata is searched at the first look-up, and a package is imported when its name
    is asked for.
    """

    def __init__(self, given: Iterable[Primitive] = ()) -> None:
        self._given = {p.name: _with_code(p) for p in given}
        self._points: dict[str, list[EntryPoint]] | None = None

    def __getitem__(self, name: str) -> Primitive:
        """Raises KeyError for an unknown name, PrimitiveError for one that can't be used."""
        found = self._given.get(name)
        if found is None:
            found = self._given[name] = _loaded(name, self._installed()[name])
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._given or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._given, *self._installed())))

    def __len__(self) -> int:
        return len({*self._given, *self._installed()})

    def _installed(self) -> dict[str, list[EntryPoint]]:
        if self._points is None:
            # costs tens of milliseconds, and most recipes have no use for it
            from importlib import metadata

            self._points = {}
            for point in metadata.entry_points(group=GROUP):
                self._points.setdefault(point.name, []).append(point)
        return self._points


def _loaded(name: str, points: list[EntryPoint]) -> Primitive:
    packages = sorted({_package(p) for p in points})
    if len(points) > 1:
        raise PrimitiveError(f"several packages offer it: {', '.join(packages)}")
    try:
        found = points[0].load()
    except Exception as error:
        raise PrimitiveError(f"importing `{points[0].value}` of {packages[0]} fails: {error}") from error
    if not isinstance(found, Primitive):
        raise PrimitiveError(f"`{points[0].value}` of {packages[0]} is no `Primitive`")
    if found.name != name:
        raise PrimitiveError(f"`{points[0].value}` of {packages[0]} calls itself `{found.name}`")
    return _with_code(dataclasses.replace(found, package=packages[0]))


def _with_code(primitive: Primitive) -> Primitive:
    """The primitive, with the digest of its kernel's code."""
    return dataclasses.replace(primitive, code=functools.partial(kernel_code, primitive.kernel, primitive.package))


def _package(point: EntryPoint) -> str:
    """Name and version of the package that has an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed package"
