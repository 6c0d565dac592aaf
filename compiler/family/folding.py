"""Names of tensors for people: those of many layers as one."""

from __future__ import annotations

from collections.abc import Iterable

from .space import Space


def listed(names: Iterable[str], space: Space) -> str:
    """The first few of the folded names, for a message."""
    shown = fold(names, space)
    return ", ".join(shown[:6]) + (" …" if len(shown) > 6 else "")


def fold(names: Iterable[str], space: Space) -> list[str]:
    """Names for people, layers folded: `layers[12..15].mlp.down_proj.weight`."""
    runs: dict[tuple[str, str], list[int]] = {}
    for name in names:
        at = space.layer_of(name)
        runs.setdefault(space.slot(name), []).extend([at[1]] if at else [])
    grouped: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (stack, rest), numbers in runs.items():
        grouped.setdefault((stack, tuple(sorted(numbers))), []).append(rest)
    out = []
    for (stack, layers), rests in grouped.items():
        if not stack:
            out.extend(rests)
            continue
        shown: list[list[int]] = []
        for n in layers:
            if shown and shown[-1][1] == n - 1:
                shown[-1][1] = n
            else:
                shown.append([n, n])
        index = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in shown)
        whole = f"{stack}[{index}]"
        if len(rests) > 3:
            out.append(f"{whole} ({len(rests)} tensors each)")
        else:
            out.extend(f"{whole}.{rest}" for rest in rests)
    return out
