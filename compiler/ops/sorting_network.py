"""Which pairs of a list to put in order so that all of it is: what sorts regions without looking at
an element."""

from __future__ import annotations

from collections.abc import Iterator


def comparators(count: int) -> Iterator[tuple[int, int]]:
    """Pairs i < j, in order: where each puts the smaller of two items at i and the larger at j,
    `count` items end up ascending.

    Batcher's merge exchange, about n·log²n/4 pairs (Knuth, The Art of Computer Programming 3,
    5.2.2, algorithm M).

    >>> list(comparators(3))
    [(0, 2), (0, 1), (1, 2)]
    """
    top = 1 << max(0, (count - 1).bit_length() - 1)
    width = top
    while width and count > 1:
        merged, group, distance = top, 0, width
        while True:
            yield from ((i, i + distance) for i in range(count - distance) if i & width == group)
            if merged == width:
                break
            distance, merged, group = merged - width, merged >> 1, width
        width >>= 1
