"""Scalar ops on counts of bit patterns: how the k-th largest magnitude of several tensors follows
from them.

Counts are a dict from a 16-bit digit to how many numbers have it, among those that agree with the
digits before. With the sign cleared, floats order as their patterns do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping

Counts = Mapping[int, int]


def _found(rank: float, counts: tuple[Counts, ...]) -> tuple[int, int]:
    """The digit of the `rank`-th largest, and its rank among the numbers of that digit."""
    total: Counter[int] = Counter()
    for part in counts:
        total.update(part)
    left = int(rank)
    for digit in sorted(total, reverse=True):
        if left <= total[digit]:
            return digit, left
        left -= total[digit]
    return 0, max(left, 1)


def digit_of_rank(rank: float, *counts: Counts) -> float:
    return float(_found(rank, counts)[0])


def rank_in_digit(rank: float, *counts: Counts) -> float:
    return float(_found(rank, counts)[1])


def join_digits(*digits: float) -> float:
    """The pattern so far as a number; exact, as at most three digits are ever looked up by."""
    pattern = 0
    for digit in digits:
        pattern = pattern << 16 | int(digit)
    return float(pattern)


def number_of_digits(*digits: float) -> float:
    """The float32 (two digits) or float64 (four) whose pattern they are."""
    pattern = 0
    for digit in digits:
        pattern = pattern << 16 | int(digit)
    if len(digits) == 2:
        return float(struct.unpack("<f", struct.pack("<I", pattern))[0])
    return float(struct.unpack("<d", struct.pack("<Q", pattern))[0])
