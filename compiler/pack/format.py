"""What the compiler has to know of a format of weight files.

All of it is here: the runtime gets names, sizes, fixed bytes and places, and writes them as it is
told. A new format is a module beside this one, as `safetensors.py` is, and a `Reader`
(`runtime/formats/outputs.py`) for what reads outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...grammar.records import dataclass
from ..checkpoint.catalog import OWN, Part
from ..plan.plan import FixedBytes


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor that goes into a file: the canonical tensors `parts`, one after the other, are its
    `nbytes` bytes.

    Its elements lie row-major and little-endian, whatever the format.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """What a file of `size` bytes holds: tensors in order, the byte at which each starts, and all
    else.

    What neither a tensor nor `fixed` covers is zeros.
    """

    tensors: tuple[FileTensor, ...]
    starts: tuple[int, ...]
    fixed: tuple[FixedBytes, ...]
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class OutputFormat:
    """A format of weight files, `name` in messages.

    Files are called by `suffix` and a stem: `stem`, or that of the template's files where this is
    one of its `stems`. `indexed`: a document says which file of several a tensor is in. `dtypes`
    are those it can hold,
    as it calls them. `metadata` is what its loaders look for in every file. `place` puts tensors
    and metadata into one file, in an order and with the alignment that suits the format.
    """

    name: str
    stem: str
    suffix: str
    indexed: bool
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    place: Callable[[Sequence[FileTensor], Mapping[str, str]], Placement]
    stems: tuple[str, ...] = ()

    def file_name(self, number: int, count: int, part: Part = OWN) -> str:
        """The name of file `number` (from 0) of `count` of a part."""
        stem = self._called(part) + (f".{part.variant}" if part.variant else "")
        numbered = "" if count == 1 else f"-{number + 1:05d}-of-{count:05d}"
        return _in(part, f"{stem}{numbered}{self.suffix}")

    def index_name(self, part: Part = OWN) -> str | None:
        """The name of a part's index."""
        if not self.indexed:
            return None
        return _in(part, f"{self._called(part)}{self.suffix}.index{f'.{part.variant}' if part.variant else ''}.json")

    def _called(self, part: Part) -> str:
        return part.stem if part.stem in self.stems else self.stem


def _in(part: Part, name: str) -> str:
    return f"{part.folder}/{name}" if part.folder else name
