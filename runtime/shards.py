"""Whether all weight files of a set are there, by the numbers in their names."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.catalog import CatalogError
from ..compiler.shards import Shard, shard_of
from .faults import show

_MOST_NAMED = 3


def check_complete(folder: str, weights: Sequence[str], index: str | None) -> None:
    """Sees that each set among the weight files, of which `index` tells where there is one, is complete.

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
            "or name the files of this model without `-of-`, if there are no more of it",
        ),
    )
