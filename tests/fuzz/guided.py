"""Fuzzing led by coverage: `python tests/fuzz/guided.py recipe -max_total_time=600
tests/fuzz/corpus/recipes`.

Needs the extra `fuzz` (Atheris). What follows the target's name is for libFuzzer; an input that
breaks something is written to the current folder as `crash-…`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["mergec"]):
    from targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    check = TARGETS[name].check

    def one(data: bytes) -> None:
        if name in ("header", "pickle"):
            check(data)
        else:
            check(data.decode("utf-8", "replace"))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
