"""The target on disk: it appears whole, by one rename, or not at all.

Beside the target `NAME` lies, during a run, the hidden folder `.NAME.partial`:

    lock      held by the run that works there
    out       what becomes the target
    journal   which tensors in `out` are complete
    old       the target that is being replaced, where the file system can't swap two paths

A run that is stopped leaves it there, and another of the same plan goes on from it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from types import TracebackType

from ...compiler.plan.plan import Plan
from ...grammar.diagnostic import Diagnostic, Exit, MergecError
from ...grammar.records import dataclass
from ..files.faults import output_fault, show, writing
from ..files.paths import within
from ..files.syscalls import exchange, move, sync
from ..resume.journal import Contents, Done, Journal, head_of, other, read
from .replaceable import Standing, look

_PARTS = frozenset({"lock", "out", "journal", "old"})
"""What the partial folder may hold."""

HOPELESS = ("E0606", "E0607", "E0612", "E0614", "E0662")
"""Errors after which nothing is kept: the same plan could only fail again, and another would not go on from it."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a run that was stopped has left: the partial folder, how many of the output's tensors are complete in it,
    and how many bytes of disk it takes."""

    folder: str
    done: int
    tensors: int
    nbytes: int


class Target:
    """The output folder, or the output file of a plan that is `single`.

    Use as a context manager: entering checks, locks and makes the partial folder, or takes up that of an unfinished run
    of the same plan, unless it is to begin `fresh`; `commit()` puts the result in place. Without a commit an old target
    stays as it was, and the partial folder where another run can go on from it (`unfinished`). Raises MergecError with
    E0601 to E0610, E0616 or E0617.

    Once entered, `entries` are the tensors that are complete in `folder`, as its journal says; `given_up` says why an
    unfinished run that was there is not gone on with, if there was one. After a failure `left` says what else than the
    work of this run is in the partial folder, if that is still there.
    """

    def __init__(self, path: str, plan: Plan, *, force: bool = False, fresh: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.entries: tuple[Done, ...] = ()
        self.given_up: str | None = None
        self.unfinished: Unfinished | None = None
        self.left: str | None = None
        self._journal: Journal | None = None
        self._plan, self._force, self._fresh = plan, force, fresh
        self._parent, self._name = os.path.split(self.path)
        self._partial = os.path.join(self._parent, f".{self._name}.partial")
        self._old = os.path.join(self._partial, "old")
        self._lock = -1
        self._standing: Standing | None = None

    @property
    def folder(self) -> str:
        """The folder in which the plan's files are to be written."""
        return os.path.join(self._partial, "out")

    @property
    def journal(self) -> Journal:
        """Where complete tensors are to be noted."""
        assert self._journal is not None
        return self._journal

    def __enter__(self) -> Target:
        self._check_parent()
        self._check_inputs()
        if not self._in_need_of_recovery():
            self._check_free()
        try:
            self._acquire()
        except BaseException:
            with suppress(OSError):  # where not even the lock could be put into it
                os.rmdir(self._partial)
            raise
        try:
            with writing(self._partial):
                self._restore()
            self._standing = self._check_free()
            with writing(self._partial):
                self._take_up()
            self._check_space()
            if self._journal is None:
                with writing(self.folder):
                    os.mkdir(self.folder)
                with writing(self._journal_path):
                    self._journal = Journal.create(self._journal_path, head_of(self._plan))
        except BaseException as fault:
            self._end(fault)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock >= 0:
            self._end(fault)

    def keep_only(self, files: Collection[int]) -> None:
        """Removes what else than these of the plan's weight files an unfinished run has left in `folder`."""
        keep = {self._plan.outputs[k].name for k in files}
        with writing(self.folder):
            for name in os.listdir(self.folder):
                if name not in keep:
                    _remove(os.path.join(self.folder, name))

    def commit(self) -> None:
        """Puts the result in place of the target; everything in `folder` must be on disk (`Writer.finish`).

        What is replaced is what was looked at: a target that has been put there since, or put something into, stays.
        """
        made = os.path.join(self.folder, self._plan.outputs[0].name) if self._plan.single else self.folder
        with writing(self.path):
            if self._standing is not None and os.path.lexists(self.path):
                self._check_still(self.path)
                self._replace(made)
            else:
                self._place(made)
            sync(self._parent)
        self._release()

    def _place(self, made: str) -> None:
        """Puts what was made where there was no target. Raises OSError."""
        try:
            move(made, self.path)
        except FileExistsError:
            self._check_free()
            raise self._not_replaced("it has been put there while the output was made") from None

    def _replace(self, made: str) -> None:
        """Swaps the target for what was made, and back where another one came out. Raises OSError."""
        if exchange(made, self.path):
            try:
                self._check_still(made)
            except BaseException:
                exchange(made, self.path)
                raise
        elif self._plan.single:
            os.replace(made, self.path)
        else:
            # killed between the two, the next run puts the old one back
            os.rename(self.path, self._old)
            try:
                self._check_still(self._old)
                os.rename(made, self.path)
            except BaseException:
                self._restore()
                raise

    def _check_still(self, place: str) -> None:
        """Sees that what is at `place` is the target that was looked at, and that it may still be replaced."""
        now = look(place, single=self._plan.single)
        if self._standing is None or now is None or not self._standing.same(now):
            raise self._not_replaced("it has been put there while the output was made")
        if now.why_not is not None:
            raise self._not_replaced(now.why_not)

    # --- checks ----------------------------------------------------------------------------------

    def _check_parent(self) -> None:
        help = ("make it first, or give another path",)
        if not self._name:
            raise output_fault("E0602", "the root folder can't be a target", self.path)
        if not os.path.isdir(self._parent):
            raise output_fault("E0602", f"no folder `{show(self._parent)}` to put the output in", self.path, *help)
        if not os.access(self._parent, os.W_OK | os.X_OK):
            raise output_fault("E0602", f"folder `{show(self._parent)}` is not writable", self.path)

    def _check_free(self) -> Standing | None:
        """What stands at the target, where it may be replaced; None where nothing does."""
        with writing(self.path):
            standing = look(self.path, single=self._plan.single)
        if standing is not None and not self._force:
            raise self._not_free(standing.why_not)
        if standing is not None and standing.why_not is not None:
            raise self._not_replaced(standing.why_not)
        return standing

    def _not_free(self, why_not: str | None) -> MergecError:
        """The error for a target that exists. `why_not`: `--force` would not replace it."""
        notes = () if why_not is None else (f"`--force` would not replace it: {why_not}",)
        help = "give another path, or replace it with `--force`" if why_not is None else "give another path"
        message = f"`{show(self.path)}` exists already"
        return MergecError(Diagnostic("E0601", message, notes=notes, help=(help,), file=self.path), Exit.RUN)

    def _not_replaced(self, why_not: str) -> MergecError:
        message = f"`{show(self.path)}` is not replaced: {why_not}"
        help = ("give another path", "or move away what is there yourself, and run again")
        return MergecError(Diagnostic("E0608", message, help=help, file=self.path), Exit.USAGE)

    def _check_inputs(self) -> None:
        target = os.path.join(os.path.realpath(self._parent), self._name)
        followed = os.path.realpath(self.path)
        for path in self._input_paths():
            for place in (os.path.abspath(path), os.path.realpath(path)):
                folder, name = os.path.split(place)
                checkpoint = os.path.realpath(folder)
                if os.path.join(checkpoint, name) in (target, followed):
                    self._fail_input("is one of the inputs", place)
                if within(checkpoint, target) or within(checkpoint, followed):
                    self._fail_input("holds one of the inputs", place)
                # where one of a folder's loose weight files is an input, the output may well lie beside it
                if within(target, checkpoint) and os.path.exists(os.path.join(checkpoint, "config.json")):
                    self._fail_input("lies in the folder of one of the inputs", place)
        for folder in self._plan.folders:
            # what lies there would be a part of that input the next time
            if within(target, os.path.realpath(folder)) or within(followed, os.path.realpath(folder)):
                self._fail_input("lies in one of the inputs", folder)

    def _input_paths(self) -> Sequence[str]:
        return [*(i.path for i in self._plan.inputs), *(t.path for t in self._plan.tagalongs)]

    def _fail_input(self, what: str, place: str) -> None:
        message = f"`{show(self.path)}` {what}: `{show(place)}`"
        raise output_fault("E0603", message, self.path, "give a path outside the inputs")

    def _check_space(self) -> None:
        with writing(self._parent):
            status = os.statvfs(self._parent)
        needed = sum(output.size for output in self._plan.outputs)
        needed += sum(len(document.text.encode()) for document in self._plan.documents)
        for tagalong in self._plan.tagalongs:
            with suppress(OSError):  # the writer says so, with the file's name
                needed += os.stat(tagalong.path).st_size
        # what an unfinished run has taken is there already
        needed = max(0, needed - _on_disk(self.folder))
        free = status.f_bavail * status.f_frsize
        if needed > free:
            message = f"the output needs {_amount(needed)} and `{show(self._parent)}` has {_amount(free)} free"
            raise output_fault("E0604", message, self.path, "free some space, or give a path on another disk")

    # --- the partial folder ----------------------------------------------------------------------

    def _acquire(self) -> None:
        """Locks the partial folder, which it makes; another run may be about to remove it."""
        path = os.path.join(self._partial, "lock")
        while self._lock < 0:
            with writing(self._partial):
                with suppress(FileExistsError):
                    os.mkdir(self._partial)
                try:
                    self._check_own()
                    descriptor, new = self._opened_lock(path)
                except FileNotFoundError:
                    continue
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                        if new:
                            self._begin(path, descriptor)
                        self._lock = descriptor
                except BlockingIOError:
                    help = "wait until it is done, or give another path"
                    raise output_fault("E0605", f"another run is making `{show(self.path)}`", self.path, help) from None
                except FileNotFoundError:
                    pass  # the run that held it has just removed it
                finally:
                    if self._lock < 0:
                        os.close(descriptor)

    def _check_own(self) -> None:
        """Sees that the partial folder has nothing in it that no run puts there. Raises OSError."""
        if not stat.S_ISDIR(os.lstat(self._partial).st_mode):
            raise self._not_own("it is no folder")
        strange = sorted({*os.listdir(self._partial)} - _PARTS)
        if strange:
            raise self._not_own(f"it holds `{show(strange[0])}`")
        if os.path.lexists(self._old) and not _is_folder(self._old):
            raise self._not_own("`old` in it is no folder")

    def _opened_lock(self, path: str) -> tuple[int, bool]:
        """The lock, not yet held, and whether it is new. Raises OSError."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size:
                raise self._not_own("`lock` in it is no lock") from None
            return os.open(path, flags), False

    def _begin(self, path: str, descriptor: int) -> None:
        """Sees that a partial folder whose lock is new was empty, or that a run has left it; then sees the lock onto
        the disk, as after a loss of power it tells whose folder that is. Raises OSError."""
        try:
            left = sorted({*os.listdir(self._partial)} - {"lock"})
            if left and read(self._journal_path) is None:
                raise self._not_own(f"it holds `{left[0]}`")
            os.fsync(descriptor)
        except BaseException:
            os.unlink(path)
            raise

    def _not_own(self, why: str) -> MergecError:
        """The error for something else at the place where a run would work."""
        message = f"`{show(self._partial)}`, where the output would be made, is none of mergec's: {why}"
        return output_fault("E0616", message, self._partial, "move it away, or give another path for the output")

    def _in_need_of_recovery(self) -> bool:
        return os.path.lexists(self._old) and not os.path.lexists(self.path)

    def _restore(self) -> None:
        """Puts back an old target where a run was killed while it swapped it for a new one.

        It goes only where the new one stands. Raises OSError; MergecError (E0617) where something else does.
        """
        if not os.path.lexists(self._old):
            return
        if not os.path.lexists(self.path):
            os.rename(self._old, self.path)
        elif os.path.lexists(self.folder):
            message = f"something is at `{show(self.path)}` that was not there when a run was stopped"
            note = f"`{show(self._old)}` is what that run was replacing"
            help = ("move one of the two away, and run again",)
            raise MergecError(Diagnostic("E0617", message, notes=(note,), help=help, file=self.path), Exit.RUN)
        else:
            _remove(self._old)

    @property
    def _journal_path(self) -> str:
        return os.path.join(self._partial, "journal")

    def _take_up(self) -> None:
        """Goes on from what an unfinished run has left, if it made the same; clears it away otherwise."""
        contents = read(self._journal_path)
        if not self._fresh:
            self.entries, self.given_up = self._found(contents)
        if contents is None or not self.entries:
            self._remove_work()
            return
        self._journal = Journal.reopen(self._journal_path, contents.length)

    def _found(self, contents: Contents | None) -> tuple[tuple[Done, ...], str | None]:
        """The tensors that an unfinished run has left, or why they are of no use."""
        if not _is_folder(self.folder):
            return (), None
        if contents is None:
            return (), "its journal can't be read" if os.path.lexists(self._journal_path) else None
        why_not = other(contents.head, self._plan)
        if why_not is None and not all(self._sensible(entry) for entry in contents.entries):
            why_not = "its journal tells of tensors that there are not"
        return (self._present(contents.entries) if why_not is None else ()), why_not

    def _sensible(self, entry: Done) -> bool:
        tensors = self._plan.tensors
        return entry.tensor < len(tensors) and entry.non_finite <= tensors[entry.tensor].nbytes

    def _present(self, entries: Sequence[Done]) -> tuple[Done, ...]:
        """The entries of tensors whose files are there. One that another folder shares is none of ours to write to."""
        ours = set()
        for number, output in enumerate(self._plan.outputs):
            with suppress(OSError):
                status = os.lstat(os.path.join(self.folder, output.name))
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size == output.size:
                    ours.add(number)
        tensors = self._plan.tensors
        return tuple(e for e in entries if tensors[e.tensor].file in ours)

    def _remove_work(self) -> None:
        # the journal goes first: without it, what is left of the rest is nothing that anybody trusts
        _remove(self._journal_path)
        with suppress(OSError):  # an empty folder goes without being opened, whatever else is open
            os.rmdir(self.folder)
        _remove(self.folder)

    def _end(self, fault: BaseException | None) -> None:
        """Leaves what is worth it, and says in `left` what else is still there."""
        if self._journal is not None:  # nothing is added to it any more, and reading it takes a file's place
            self._journal.close()
            self._journal = None
        lock = os.fstat(self._lock)
        try:
            self._leave(fault)
        except OSError:
            self.left = f"what an earlier run has left in `{show(self._partial)}` stays there"
            self._close()
            return
        with suppress(OSError):  # it is gone, or another run's by now
            if self.unfinished is None and os.path.samestat(lock, os.stat(os.path.join(self._partial, "lock"))):
                self.left = f"`{show(self._partial)}` could not be removed, and holds nothing of use"

    def _leave(self, fault: BaseException | None) -> None:
        """Keeps what another run can go on from, if there is anything, and lets go of the lock."""
        contents = read(self._journal_path)
        if contents is None or not contents.entries or not _is_folder(self.folder) or _hopeless(fault):
            self._release()
            return
        tensors = {entry.tensor for entry in contents.entries}
        self.unfinished = Unfinished(self._partial, len(tensors), len(self._plan.tensors), _on_disk(self.folder))
        self._close()

    def _release(self) -> None:
        """Removes the partial folder and then lets go of the lock; the target itself is as it should be."""
        with suppress(OSError, MergecError):
            self._restore()
            self._remove_work()
            os.unlink(os.path.join(self._partial, "lock"))
            os.rmdir(self._partial)
        self._close()

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        os.close(self._lock)
        self._lock = -1


def waiting(path: str, plan: Plan) -> tuple[tuple[Done, ...], str | None]:
    """The tensors that a run of this plan would find finished by one that was stopped, as far as the journal tells; or
    why it would not go on from there."""
    target = Target(path, plan)
    with writing(target._journal_path):
        contents = read(target._journal_path)
    return target._found(contents)


def clear_leftovers(path: str, plan: Plan) -> None:
    """Removes what a killed run has left beside a target that is as it should be. Does nothing where another run works
    there, or where it can't be removed."""
    target = Target(path, plan)
    if os.path.isdir(target._partial):
        with suppress(MergecError):
            target._acquire()
            target._release()


def _hopeless(fault: BaseException | None) -> bool:
    """Whether going on could only end in the same way: the recipe or an input has to change first."""
    return isinstance(fault, MergecError) and any(d.code in HOPELESS for d in fault.diagnostics)


def _on_disk(folder: str) -> int:
    """Bytes of disk that the files in a folder take."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _is_folder(path: str) -> bool:
    """Whether there is a folder at `path`, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _remove(path: str) -> None:
    if _is_folder(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _amount(nbytes: int) -> str:
    return f"{nbytes:,} bytes" if nbytes < 10_000_000 else f"{nbytes / 1e9:,.2f} GB"
