"""The partial folder, where a run works, and the lock on it.

During a run, the hidden folder `.NAME.partial` lies next to the target `NAME`:

    lock      held by the run that works there
    out       what becomes the target
    journal   which tensors in `out` are complete
    old       the target that is being replaced, where the file system can't swap two paths
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress

from ...grammar.diagnostic import MergecError
from ..files.faults import file_fault, show, writing
from ..resume.journal import read
from .trees import is_folder, remove

_PARTS = frozenset({"lock", "out", "journal", "old"})
"""What the partial folder may hold."""


class Partial:
    """The partial folder of a target, an absolute path: its parts as paths, and whether this run
    holds it."""

    def __init__(self, target: str) -> None:
        parent, name = os.path.split(target)
        self.target, self.path = target, os.path.join(parent, f".{name}.partial")
        self.lock, self.out, self.journal, self.old = (
            os.path.join(self.path, part) for part in ("lock", "out", "journal", "old")
        )
        self._descriptor = -1
        self._status: os.stat_result | None = None

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def acquire(self) -> None:
        """Locks the folder, which it makes; another run may be about to remove it.

        Raises MergecError: E0605 where another run works there, E0616 where it is none of ours,
        E0609 and E0610.
        """
        try:
            while not self.held:
                with writing(self.path):
                    self._try()
        except BaseException:
            with suppress(OSError):  # where not even the lock could be put into it
                os.rmdir(self.path)
            raise

    def _try(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self.path)
        try:
            self._check_own()
            descriptor, new = self._opened_lock()
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if os.path.samestat(status, os.stat(self.lock)):
                if new:
                    self._begin(descriptor)
                self._descriptor, self._status = descriptor, status
        except BlockingIOError:
            help = "wait until it is done, or give another path"
            raise file_fault("E0605", f"another run is making `{show(self.target)}`", self.target, help) from None
        except FileNotFoundError:
            pass  # the run that held it has just removed it
        finally:
            if not self.held:
                os.close(descriptor)

    def _check_own(self) -> None:
        """Sees that the folder has nothing in it that no run puts there. Raises OSError."""
        if not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise self._not_own("it is no folder")
        strange = sorted({*os.listdir(self.path)} - _PARTS)
        if strange:
            raise self._not_own(f"it holds `{show(strange[0])}`")
        if os.path.lexists(self.old) and not is_folder(self.old):
            raise self._not_own("`old` in it is no folder")

    def _opened_lock(self) -> tuple[int, bool]:
        """The lock, not yet held, and whether it is new. Raises OSError."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self.lock, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            status = os.lstat(self.lock)
            if not stat.S_ISREG(status.st_mode) or status.st_size:
                raise self._not_own("`lock` in it is no lock") from None
            return os.open(self.lock, flags), False

    def _begin(self, descriptor: int) -> None:
        """Sees that a folder whose lock is new was empty, or that a run has left it; then syncs the
        lock to disk, as after a loss of power it shows whose folder that is. Raises OSError."""
        try:
            left = sorted({*os.listdir(self.path)} - {"lock"})
            if left and read(self.journal) is None:
                raise self._not_own(f"it holds `{left[0]}`")
            os.fsync(descriptor)
        except BaseException:
            os.unlink(self.lock)
            raise

    def _not_own(self, why: str) -> MergecError:
        """The error for something else at the place where a run would work."""
        message = f"`{show(self.path)}`, where the output would be made, is none of mergec's: {why}"
        return file_fault("E0616", message, self.path, "move it away, or give another path for the output")

    def remove_work(self) -> None:
        """Removes what was made. Raises OSError."""
        # the journal goes first: without it, nobody trusts what is left of the rest
        remove(self.journal)
        with suppress(OSError):  # an empty folder goes without being opened, whatever else is open
            os.rmdir(self.out)
        remove(self.out)

    def remove(self) -> None:
        """Removes all of it, and the folder. Raises OSError."""
        self.remove_work()
        os.unlink(self.lock)
        os.rmdir(self.path)

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._descriptor)
        self._descriptor = -1

    @property
    def survives(self) -> bool:
        """Whether the folder that this run has held is still there, and no other run's by now."""
        with suppress(OSError):
            return self._status is not None and os.path.samestat(self._status, os.stat(self.lock))
        return False
