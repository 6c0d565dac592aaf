"""Names of tensors for people: those of many layers as one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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


def globs(names: Collection[str], others: Iterable[str]) -> list[str]:
    """Globs that cover these names and none of the others: by what the names end in, or by what
    they begin with, whichever takes fewer.

    >>> globs(["a.0.steps", "a.1.steps"], ["a.0.weight", "a.1.weight"])
    ['*.steps']
    """
    kept = [name.split(".") for name in others]
    wanted = [name.split(".") for name in names]
    ends = _shortest([parts[::-1] for parts in wanted], [parts[::-1] for parts in kept])
    starts = _shortest(wanted, kept)
    by_end = dict.fromkeys(".".join(("*", *part[::-1])) if more else ".".join(part[::-1]) for part, more in ends)
    by_start = dict.fromkeys(".".join((*part, "*")) if more else ".".join(part) for part, more in starts)
    modules = not any(part.isdigit() for start in by_start for part in start.split("."))
    return list(by_start if len(by_start) < len(by_end) + modules else by_end)


def _shortest(names: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> list[tuple[tuple[str, ...], bool]]:
    """For each name its shortest beginning that no other has, and whether it goes on."""
    taken = {tuple(parts[:k]) for parts in others for k in range(1, len(parts) + 1)}
    found = []
    for parts in names:
        length = next((k for k in range(1, len(parts)) if tuple(parts[:k]) not in taken), len(parts))
        found.append((tuple(parts[:length]), length < len(parts)))
    return found
