"""Fuzzes for as long as it is told to: `python tests/fuzz/run.py --minutes 60 [TARGET …]`.

Prints executions and finds of each target. What breaks is written to `--finds`, one file a kind of
failure, for a test of its own in test_fuzz.py (`FOUND`).
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS

SECONDS = 60
"""An input that takes longer is a find."""

MEMORY = 4 << 30
"""Bytes of address space; an input that needs more is a find."""


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way takes it for one of its own."""


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow


def main() -> int:
    p = argparse.ArgumentParser(description="Fuzzes mergec.")
    p.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    p.add_argument("--minutes", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=None, help="for the same inputs again")
    p.add_argument("--finds", type=Path, default=Path("fuzz-finds"))
    given = p.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _alarm)
    rng = random.Random(seed)
    executions = dict.fromkeys(given.targets, 0)
    finds: dict[tuple[str, str], str] = {}
    began = told = time.monotonic()
    while time.monotonic() - began < 60 * given.minutes:
        for name in given.targets:
            value = TARGETS[name].make(rng)
            signal.alarm(SECONDS)
            try:
                TARGETS[name].check(value)
            except BaseException as error:
                signal.alarm(0)
                if isinstance(error, KeyboardInterrupt):
                    raise
                frame = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}"
                if (name, kind) not in finds:
                    finds[name, kind] = f"{error}"[:200]
                    given.finds.mkdir(parents=True, exist_ok=True)
                    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
                    (given.finds / f"{name}-{kind}").write_bytes(raw)
                    print(f"FOUND {name} {kind}: {finds[name, kind]}", flush=True)
            finally:
                signal.alarm(0)
            executions[name] += 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{(told - began) / 60:.0f} min  {executions}  {len(finds)} finds", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"seed {seed}: {minutes:.1f} minutes, {executions}, {sum(executions.values())} in all, {len(finds)} finds")
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
