"""Weight files that are complete, by what distinguishes them from others."""

from __future__ import annotations

from ...compiler.checkpoint.catalog import InputFile
from ...grammar.records import dataclass


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A complete weight file: its name in the folder, its size in bytes, when it was last written
    to, and which file of the system it is."""

    name: str
    size: int
    mtime_ns: int
    device: int
    inode: int


def sealed(name: str, file: InputFile) -> SealedFile:
    """The weight file of that name, as it is."""
    return SealedFile(name, file.size, file.mtime_ns, file.device, file.inode)
