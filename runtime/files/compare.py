"""Whether files hold the same bytes as others, or as what would be written."""

from __future__ import annotations

from collections.abc import Iterator

from .opening import regular
from .syscalls import read_all

_SAMPLE = 4096
_SAMPLES = 8
_CHUNK = 1 << 20


def same_ranges(first: int, first_start: int, second: int, second_start: int, nbytes: int) -> bool:
    """Compares `nbytes` bytes of the open files `first` and `second`, beginning at the two offsets.

    Looks at a few samples first, as tensors that differ mostly differ everywhere. Raises OSError;
    EOFError where a file ends before its range.
    """
    if first == second and first_start == second_start:
        return True
    one, two = bytearray(_CHUNK), bytearray(_CHUNK)
    for at, length in _ranges(nbytes):
        if length < len(one):
            one, two = bytearray(length), bytearray(length)
        elif length > len(one):
            one, two = bytearray(_CHUNK), bytearray(_CHUNK)
        _fill(first, one, first_start + at)
        _fill(second, two, second_start + at)
        if one != two:
            return False
    return True


def is_transpose(
    first: int, first_start: int, second: int, second_start: int, shape: tuple[int, int], size: int
) -> bool:
    """Whether the matrix of this shape in the open file `first` is the transpose of the one in
    `second`, both stored by rows, `size` bytes per element.

    Raises OSError; EOFError where a file ends before its range.
    """
    rows, columns = shape
    most = max(1, _CHUNK // (max(rows, 1) * size))
    for at in range(0, columns, most):
        count = min(most, columns - at)
        one, two = bytearray(count * size), bytearray(count * rows * size)
        _fill(second, two, second_start + at * rows * size)
        for row in range(rows):
            _fill(first, one, first_start + (row * columns + at) * size)
            if any(one[k::size] != two[row * size + k :: rows * size] for k in range(size)):
                return False
    return True


def holds(path: str, data: bytes) -> bool:
    """Whether the file at `path` is `data` and nothing else. Raises OSError, also for what is no
    regular file."""
    found = bytearray(len(data) + 1)
    with regular(path) as (descriptor, _):
        return found[: read_all(descriptor, memoryview(found), 0)] == data


def _ranges(nbytes: int) -> Iterator[tuple[int, int]]:
    """Ranges to compare: samples spread over everything, then all of it in chunks."""
    if nbytes > _CHUNK:
        step = (nbytes - _SAMPLE) // (_SAMPLES - 1)
        for i in range(_SAMPLES):
            yield i * step, _SAMPLE
    for at in range(0, nbytes, _CHUNK):
        yield at, min(_CHUNK, nbytes - at)


def _fill(descriptor: int, buffer: bytearray, offset: int) -> None:
    done = read_all(descriptor, memoryview(buffer), offset)
    if done < len(buffer):
        raise EOFError(offset + done)
