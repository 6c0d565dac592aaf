"""Where there is a C compiler, there must be compiled kernels: tests of them may not be skipped."""

from __future__ import annotations

import shutil

import pytest
from mergec.runtime.native.library import kernels

COMPILERS = ("cc", "gcc", "clang")


def none_and_no_compiler() -> bool:
    """True where nothing can be tested. Fails where a build has failed, or is old, that could have
    been made."""
    if kernels() is not None:
        return False
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    assert found is None, f"there is a C compiler, {found}, and there are no compiled kernels that fit: see why not"
    return True


def skip_without_a_compiler() -> None:
    """To be called before compiled kernels are tested."""
    if none_and_no_compiler():
        pytest.skip("no C compiler here")
