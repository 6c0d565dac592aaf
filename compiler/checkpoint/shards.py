"""What a weight file's name says of the set that it belongs to: `model-00002-of-00004.safetensors`
is one of four."""

from __future__ import annotations

import re

from ...grammar.records import dataclass

_SHARD = re.compile(
    r"(?P<stem>.*?)(?<!\d)(?P<number>\d{1,9})(?P<of>[-_. ]of[-_. ])(?P<count>\d{1,9})(?!\d)(?P<rest>.*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """File `number`, written with `digits` digits, of a set that `stem`, `count` and `rest`
    name."""

    stem: str
    number: int
    digits: int
    of: str
    count: str
    rest: str

    def name(self, number: int) -> str:
        """The name of the set's file of that number."""
        return f"{self.stem}{number:0{self.digits}d}{self.of}{self.count}{self.rest}"


def shard_of(name: str) -> Shard | None:
    """What a file's name says; None where it is not one of a numbered set.

    >>> shard_of("model-00002-of-00004.safetensors").name(3)
    'model-00003-of-00004.safetensors'
    """
    found = _SHARD.fullmatch(name)
    if found is None:
        return None
    return Shard(found["stem"], int(found["number"]), len(found["number"]), found["of"], found["count"], found["rest"])
