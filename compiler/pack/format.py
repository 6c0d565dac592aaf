"""What the compiler has to know of a format of weight files.

All of it is here: the runtime gets names, sizes, fixed bytes and places, and writes them as it is
told. A new format is a module beside this one, as `safetensors.py` is, and a `Reader`
(`runtime/formats/outputs.py`) for what reads outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...grammar.records import dataclass
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

    Files are called by `stem` and `suffix`. `index` is the name of the document that says which
    file of several a tensor is in; None where the format has none. `dtypes` are those it can hold,
    as it calls them. `metadata` is what its loaders look for in every file. `place` puts tensors
    and metadata into one file, in an order and with the alignment that suits the format.
    """

    name: str
    stem: str
    suffix: str
    index: str | None
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    place: Callable[[Sequence[FileTensor], Mapping[str, str]], Placement]

    def file_name(self, number: int, count: int) -> str:
        """The name of file `number` (from 0) of `count`."""
        return (
            f"{self.stem}{self.suffix}" if count == 1 else f"{self.stem}-{number + 1:05d}-of-{count:05d}{self.suffix}"
        )
