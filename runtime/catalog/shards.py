"""Whether all weight files of a set are there, by the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.checkpoint.shards import Shard, shard_of
from ..files.faults import show

_MOST_NAMED = 3
_NUMBERED = re.compile(r"(?P<stem>.*?)(?<!\d)(?P<number>\d{2,9})(?P<rest>(\.[A-Za-z_]\w*)+)")
_MODEL_PARALLEL = "consolidated."
"""What Meta's files are called, one for each of the devices that a model was cut for, the first of
them 0."""


def check_complete(folder: str, weights: Sequence[str], index: str | None) -> None:
    """Sees that each set among the weight files, which `index` lists where there is one, is
    complete.

    Raises CatalogError E0460.
    """
    sets: dict[tuple[str, str, int], dict[int, Shard]] = {}
    for name in weights:
        shard = shard_of(name)
        if shard is not None:
            sets.setdefault((shard.stem, shard.rest, int(shard.count)), {})[shard.number] = shard
    for (_, _, count), files in sorted(sets.items(), key=lambda item: len(item[1]) - item[0][2]):
        numbers = range(0, count) if 0 in files else range(1, count + 1)
        odd = next((shard for number, shard in files.items() if number not in numbers), None)
        if odd is not None:
            raise _incomplete(folder, f"`{show(odd.name(odd.number))}` is not one of {count} files", (), index)
        if len(files) < count:
            left = count - len(files)
            # no more of the range is looked at than it takes, whatever the names claim
            some, missing = next(iter(files.values())), (n for n in numbers if n not in files)
            named = [show(some.name(n)) for n, _ in zip(missing, range(_MOST_NAMED), strict=False)]
            more = f" and {left - len(named)} more" if left > len(named) else ""
            notes = [f"missing: {', '.join(f'`{name}`' for name in named)}{more}"]
            if len(sets) > 1:
                counts = " and ".join(str(n) for n in sorted({key[2] for key in sets}))
                notes.append(f"files of {counts}: those of two checkpoints?")
            where = "here" if index is None else "in the index"
            raise _incomplete(
                folder, f"by their names the weights are {count} files, of which {len(files)} {_are(files)} {where}",
                tuple(notes), index,
            )  # fmt: skip
    if index is None:
        _check_numbers(folder, weights)


def _check_numbers(folder: str, weights: Sequence[str]) -> None:
    """Sees that files which are numbered, `consolidated.00.pth`, are so without a gap, and from the
    first on."""
    sets: dict[tuple[str, str, int], dict[int, str]] = {}
    for name in weights:
        found = _NUMBERED.fullmatch(name)
        if found is not None and shard_of(name) is None:
            files = sets.setdefault((found["stem"], found["rest"], len(found["number"])), {})
            files[int(found["number"])] = name
    for (stem, rest, digits), files in sets.items():
        first, last = min(files), max(files)
        if stem == _MODEL_PARALLEL:
            first = 0
        elif first > 1:
            continue  # versions, numbers of steps
        missing = next((n for n in range(first, last) if n not in files), None)
        if missing is not None:
            name = f"{stem}{missing:0{digits}d}{rest}"
            raise CatalogError(
                "E0460",
                f"`{show(files[last])}` is here, but not `{show(name)}`",
                file=folder,
                help=("fetch the missing files again", "or give the files names without numbers, if there are no more"),
            )


def _are(files: dict[int, Shard]) -> str:
    return "is" if len(files) == 1 else "are"


def _incomplete(folder: str, message: str, notes: tuple[str, ...], index: str | None) -> CatalogError:
    return CatalogError(
        "E0460",
        message,
        file=folder,
        notes=notes,
        help=(
            f"fetch the missing files{' and the index' if index else ''} again",
            f"or name the files of this model without `-of-`{', in the index too' if index else ''},"
            " if there are no more of it",
        ),
    )
