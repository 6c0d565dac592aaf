"""A plugin for pytest: runs the tests that a file lists, in its order, each for as many seconds as
the file says.

MUTANTS_CHOSEN: the file, a line a test: its seconds and its id.
"""

import faulthandler
import os
import sys
from pathlib import Path

import pytest

CHOSEN = {}
for line in Path(os.environ["MUTANTS_CHOSEN"]).read_text("utf-8").splitlines():
    seconds, name = line.split(" ", 1)
    CHOSEN[name] = len(CHOSEN), float(seconds)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.nodeid not in CHOSEN]
    items[:] = sorted((item for item in items if item.nodeid in CHOSEN), key=lambda item: CHOSEN[item.nodeid])
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # ends the process, and says so on stderr, whatever a test is busy with
    faulthandler.dump_traceback_later(CHOSEN[item.nodeid][1], exit=True, file=ERRORS)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure():
    global ERRORS
    ERRORS = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")
