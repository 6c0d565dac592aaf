"""What a run takes of the system is its own: counted as such, not handed to processes that are
forked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mergec.runtime.files.direct import Direct
from mergec.runtime.files.syscalls import address, anonymous
from mergec.runtime.machine.host import HostArena, HostBuffer

SMAPS = Path("/proc/self/smaps")
SIZE = 6 << 20
MEASURE = Path(__file__).resolve().parents[2] / "benchmarks" / "measure.py"

linux = pytest.mark.skipif(not SMAPS.exists(), reason="what a process maps is told by Linux alone")


def _mapping(place: int) -> str:
    """What the system says of the mapping at an address."""
    found = ""
    for line in SMAPS.read_text().splitlines():
        first, _, rest = line.partition("-")
        if rest and all(c in "0123456789abcdef" for c in first):
            inside = int(first, 16) <= place < int(rest.split()[0], 16)
            if found and not inside:
                break
        else:
            inside = bool(found)
        found += f"{line}\n" if inside else ""
    return found


TAKEN: dict[str, Callable[[], tuple[Any, int]]] = {
    "an arena": lambda: (arena := HostArena(SIZE), arena.address),
    "a buffer": lambda: (buffer := HostBuffer("F32", SIZE // 4), buffer.address),
    "room for copies": lambda: (room := Direct(lambda *_: -1, 1).buffer(), address(room)),
    "anything": lambda: (region := anonymous(SIZE), address(memoryview(region))),
}


@linux
@pytest.mark.parametrize("what", TAKEN)
def test_it_is_private_and_in_small_pages(what: str) -> None:
    owner, place = TAKEN[what]()
    mapping = _mapping(place)
    assert mapping.splitlines()[0].split()[1] == "rw-p", mapping
    flags = next(line for line in mapping.splitlines() if line.startswith("VmFlags")).split()
    # not copied on a fork, no huge pages
    assert {"dc", "nh"} <= set(flags)
    del owner


@linux
def test_what_is_held_is_counted_whether_private_or_shared(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("measure", MEASURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    held, size = {}, 32 << 20
    for kind, used in (("MAP_PRIVATE", 0), ("MAP_PRIVATE", size), ("MAP_SHARED", size)):
        program = f"""
import mmap, time
m = mmap.mmap(-1, {size}, flags=mmap.MAP_ANONYMOUS | mmap.{kind})
for place in range(0, {used}, 4096):
    m[place] = 1
time.sleep(0.3)
"""
        found = module.measure([sys.executable, "-S", "-c", program], cwd=tmp_path, log=tmp_path / "log").held
        held[kind, used] = found
    for kind in ("MAP_PRIVATE", "MAP_SHARED"):
        assert abs(held[kind, size] - held["MAP_PRIVATE", 0] - size) < 4 << 20
