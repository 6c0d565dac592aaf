"""The plan's input files: opened when needed, read by position, refused where they have changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from ...compiler.checkpoint.catalog import InputFile
from ...grammar.diagnostic import MergecError
from .descriptors import Descriptors, room
from .faults import file_fault, reason, show
from .opening import as_it_is


class Inputs:
    """Reads ranges of the plan's input files, from any number of threads.

    Use as a context manager. Every method raises MergecError with exit status 3: E0606 for a file
    that is not what it was when the plan was made, E0607 for one that ends before a range, E0611
    for one that can't be read.
    """

    def __init__(self, files: Sequence[InputFile], limit: int | None = None) -> None:
        self._files = tuple(files)
        self._descriptors = Descriptors(self._open, limit or room())

    def __enter__(self) -> Inputs:
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def path(self, file: int) -> str:
        """The absolute path of input `file`."""
        return self._files[file].path

    def borrow(self, file: int) -> AbstractContextManager[int]:
        """The open descriptor of input `file`, for positioned reads."""
        return self._descriptors.borrow(file)

    def borrowed(self, files: Sequence[int]) -> AbstractContextManager[Sequence[int]]:
        """The open descriptors of several inputs, for positioned reads."""
        return self._descriptors.borrow_each(files)

    def read_into(self, file: int, start: int, view: memoryview) -> None:
        """Fills `view` (contiguous, bytes) from byte `start` of input `file`."""
        view, done = view.cast("B"), 0
        with self.borrow(file) as descriptor:
            while done < view.nbytes:
                try:
                    count = os.preadv(descriptor, [view[done:]], start + done)
                except OSError as error:
                    raise self.fault(file, error, start + done) from error
                if count == 0:
                    raise self.ended(file, start + done)
                done += count

    def check(self) -> None:
        """Sees that every input is still what it was; to be called before anything is read and when
        all has been."""
        for file, planned in enumerate(self._files):
            try:
                self._compare(file, os.stat(planned.path))
            except OSError as error:
                raise _unopened(planned.path, error) from error

    def close(self) -> None:
        """Closes all files."""
        self._descriptors.close()

    def ended(self, file: int, offset: int) -> MergecError:
        """The error for input `file` ending at `offset`, within a range of the plan."""
        path = self.path(file)
        return file_fault("E0607", f"`{show(path)}` ends early, at byte {offset}", path, "fetch the file again")

    def fault(self, file: int, error: OSError, offset: int) -> MergecError:
        """The error for input `file` being unreadable at `offset`."""
        path = self.path(file)
        return file_fault("E0611", f"can't read `{show(path)}` at byte {offset}: {reason(error)}", path)

    def _open(self, file: int) -> int:
        planned = self._files[file]
        try:
            descriptor = os.open(planned.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unopened(planned.path, error) from error
        try:
            self._compare(file, os.fstat(descriptor))
        except MergecError:
            os.close(descriptor)
            raise
        return descriptor

    def _compare(self, file: int, status: os.stat_result) -> None:
        planned = self._files[file]
        what = planned.change(as_it_is(planned.path, status))
        if what is not None:
            path, help = planned.path, "run again, when nothing writes to it"
            raise file_fault("E0606", f"`{show(path)}` has changed: {what}", path, help)


def _unopened(path: str, error: OSError) -> MergecError:
    return file_fault("E0611", f"can't read `{show(path)}`: {reason(error)}", path)
