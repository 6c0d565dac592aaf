"""A plugin for pytest: which places each test reaches, one line of JSON a test.

MUTANTS_MAP: the file to append to; workers of pytest-xdist write one each, with their names after a
dot.
"""

import json
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path

import pytest
import sitecustomize


class Measured:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._folder = Path(tempfile.mkdtemp(prefix="mutants-"))
        # processes that tests start write here; this one began without
        os.environ["MUTANTS_REACHED"] = str(self._folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        began = time.perf_counter()
        self._failed = False
        result = yield
        seconds = time.perf_counter() - began
        places = int.from_bytes(sitecustomize.reached[:], "little")
        sitecustomize.reached[:] = bytes(sitecustomize.SIZE)
        for other in self._folder.iterdir():
            places |= int.from_bytes(other.read_bytes(), "little")
            other.unlink()
        packed = zlib.compress(places.to_bytes(sitecustomize.SIZE, "little"), 1).hex()
        line = {"test": item.nodeid, "seconds": seconds, "failed": self._failed, "reached": packed}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        return result

    def pytest_runtest_logreport(self, report):
        self._failed = self._failed or report.failed

    def pytest_unconfigure(self):
        self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def pytest_configure(config):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker or not config.getoption("numprocesses", None):
        config.pluginmanager.register(Measured(Path(os.environ["MUTANTS_MAP"] + f".{worker or 'alone'}")))
