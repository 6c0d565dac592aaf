"""config.json by key: dotted where nested; that of a language model is at the top, in
`text_config`, or in both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TEXT = "text_config"

Key = str | Sequence[str]
"""A key, dotted or as its parts."""


def place_of(config: Any, key: Key) -> tuple[Any, str]:
    """The map that a key is to be in, None where there is none, and its name in that map."""
    *outer, inner = key.split(".") if isinstance(key, str) else key
    for part in outer:
        config = config.get(part) if isinstance(config, Mapping) else None
    return config, inner


def homes(config: Any, key: Key) -> Iterator[tuple[Any, str]]:
    """The maps that hold a key, each with its name there; first the one where it is to be.

    >>> list(homes({"text_config": {"depth": 2}}, "depth"))
    [({'depth': 2}, 'depth')]
    """
    own, inner = place_of(config, key)
    found = [own]
    if own is config:
        found.append(place_of(config, (_TEXT, inner))[0])
    elif tuple(key.split(".") if isinstance(key, str) else key) == (_TEXT, inner):
        found.append(config)
    yield from ((each, inner) for each in found if isinstance(each, Mapping) and inner in each)


def config_value(config: Any, key: Key) -> Any:
    """What a config says under a key; None where it has none, or there is no config."""
    return next((home[inner] for home, inner in homes(config, key)), None)
