"""Writes the output's files into the partial folder: every byte goes straight to its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from types import TracebackType

from ...compiler.plan.plan import Document, Extent, Plan, PlannedOutput, Tagalong
from ..files.descriptors import Descriptors, room
from ..files.direct import PIECE, UNIT, Direct
from ..files.faults import file_fault, reason, show, writing
from ..files.inputs import Inputs
from ..files.opening import as_it_is
from ..files.syscalls import reserve, share, start_writeback, sync, write_all
from ..resume.ledger import Ledger
from ..resume.sealed import SealedFile, sealed

_COPY_CHUNK = 16 << 20
_BUFFER = 1 << 20
_SHARED_UNIT = 1 << 12
_WRITEBACK = 64 << 20


class Writer:
    """Writes a plan's files in `folder`, an existing empty folder; weight data from any number of
    threads.

    Use as a context manager: `start()`, then `write` and `copy` in any order, then `seal()` and
    `finish()`. A `ledger` is notified of every write. Methods raise MergecError with exit status 4:
    E0609 for a full disk, E0610 where the system refuses otherwise, E0612 for a name that would
    lead out of the folder; `copy` also what `Inputs` raises.
    """

    def __init__(self, folder: str, plan: Plan, ledger: Ledger | None = None) -> None:
        self._folder, self._ledger = folder, ledger
        self._outputs: Sequence[PlannedOutput] = plan.outputs
        self._documents: Sequence[Document] = plan.documents
        self._tagalongs: Sequence[Tagalong] = plan.tagalongs
        self._fixed = tuple([[(f.start, f.start + len(f.data)) for f in output.fixed] for output in plan.outputs])
        self.paths = tuple(self._place(output.name) for output in plan.outputs)
        most_open = room(plan.lanes)
        self._descriptors = Descriptors(self._open, most_open)
        self._direct = Direct(self._open, most_open)
        self._lock = Lock()
        self._dirty = [0] * len(plan.outputs)
        self._sharing: dict[int, bool] = {}  # by input file

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, present: Collection[int] = (), linked: Collection[int] = ()) -> None:
        """Makes every weight file with its fixed bytes and its full size, so that a full disk shows
        at once.

        Files in `present`, by index, are there from an unfinished run: what is in them stays. Those
        in `linked` are complete, and belong to an earlier output as well: they are not touched.
        """
        for index, (path, output) in enumerate(zip(self.paths, self._outputs, strict=True)):
            if index in linked:
                continue
            if any(end > output.size for _, end in self._fixed[index]):
                raise ValueError(f"fixed bytes of {output.name} lie outside the file")
            with writing(path), _opened(path, new=index not in present) as descriptor:
                if not reserve(descriptor, output.size):
                    os.ftruncate(descriptor, output.size)
                for fixed in output.fixed:
                    write_all(descriptor, memoryview(fixed.data), fixed.start)

    def write(self, file: int, start: int, data: memoryview) -> None:
        """Writes `data` (contiguous) at byte `start` of weight file `file`."""
        self._check_range(file, start, data.nbytes)
        with writing(self.paths[file]):
            if not self._direct.write(file, start, data.cast("B")):
                with self._descriptors.borrow(file) as descriptor:
                    write_all(descriptor, data.cast("B"), start)
                    self._written(file, descriptor, data.nbytes)
        if self._ledger is not None:
            self._ledger.wrote(file, start, data.cast("B"))

    def copy(self, inputs: Inputs, extent: Extent, file: int, start: int) -> None:
        """Copies a range of an input to byte `start` of weight file `file`.

        Where the file system can share blocks, and both ranges lie equally in their blocks, the
        kernel shares them; else the bytes go straight to the disk where they can, and what is left
        is again the kernel's, where it can.
        """
        self._check_range(file, start, extent.nbytes)
        done = 0 if self._can_share(inputs, extent, file, start) else self._copy_directly(inputs, extent, file, start)
        if done < extent.nbytes:
            rest = Extent(extent.file, extent.start + done, extent.nbytes - done)
            copied = self._copy_in_kernel(inputs, rest, file, start + done)
            if copied < rest.nbytes:
                self._copy_through_memory(inputs, rest, copied, file, start + done)

    def seal(self) -> tuple[SealedFile, ...]:
        """Syncs the weight files to disk; nothing may be written to them after that."""
        self.close()
        found = []
        for path in self.paths:
            with writing(path):
                sync(path)
                file = as_it_is(path, os.stat(path))
            found.append(sealed(os.path.relpath(path, self._folder), file))
        return tuple(found)

    def finish(self, documents: Sequence[Document] | None = None) -> None:
        """Writes documents (those of the plan, unless others are given) and companion files, and
        syncs everything in `folder` to disk but the weight files: `seal` does that."""
        for document in self._documents if documents is None else documents:
            path = self._place(document.name)
            with writing(path), _opened(path) as descriptor:
                write_all(descriptor, memoryview(document.text.encode()), 0)
                os.fsync(descriptor)
        for tagalong in self._tagalongs:
            self._carry(tagalong)
        with writing(self._folder):
            for folder, _, _ in os.walk(self._folder):
                sync(folder)

    def close(self) -> None:
        """Closes all files."""
        self._descriptors.close()
        self._direct.close()

    def _can_share(self, inputs: Inputs, extent: Extent, file: int, start: int) -> bool:
        """Whether a copy needs no writing, as both files can have the same blocks on disk; one is
        tried."""
        first = -start % _SHARED_UNIT
        if (extent.start - start) % _SHARED_UNIT or extent.nbytes < first + _SHARED_UNIT:
            return False
        if extent.file not in self._sharing:
            with inputs.borrow(extent.file) as source, self._descriptors.borrow(file) as target:
                shared = share(source, extent.start + first, target, start + first, _SHARED_UNIT)
            self._sharing[extent.file] = shared
        return self._sharing[extent.file]

    def _copy_directly(self, inputs: Inputs, extent: Extent, file: int, start: int) -> int:
        """Copies through memory what can be written past the page cache; how many bytes that
        was."""
        done = 0
        while self._direct.suits(start + done, extent.nbytes - done):
            nbytes = min(PIECE, (extent.nbytes - done) // UNIT * UNIT)
            part = self._direct.buffer()[:nbytes]
            inputs.read_into(extent.file, extent.start + done, part)
            self.write(file, start + done, part)
            done += nbytes
        return done

    def _copy_in_kernel(self, inputs: Inputs, extent: Extent, file: int, start: int) -> int:
        """Copies as much as the kernel will, and returns how many bytes that was."""
        if not hasattr(os, "copy_file_range"):
            return 0
        done = 0
        with inputs.borrow(extent.file) as source, self._descriptors.borrow(file) as target:
            while done < extent.nbytes:
                count = min(_COPY_CHUNK, extent.nbytes - done)
                if done == 0 and (extent.start - start) % _SHARED_UNIT == 0:
                    # a file system that shares blocks between files can do so from a block boundary
                    # on
                    count = min(count, -extent.start % _SHARED_UNIT or count)
                try:
                    count = os.copy_file_range(source, target, count, extent.start + done, start + done)
                except OSError:
                    break  # copying through memory meets the same fault and says which file it is about
                if count == 0:
                    break
                done += count
                self._written(file, target, count)
        if done and self._ledger is not None:
            self._ledger.copied(file, start, done)
        return done

    def _copy_through_memory(self, inputs: Inputs, extent: Extent, done: int, file: int, start: int) -> None:
        buffer = memoryview(bytearray(min(_BUFFER, extent.nbytes - done)))
        while done < extent.nbytes:
            part = buffer[: extent.nbytes - done]
            inputs.read_into(extent.file, extent.start + done, part)
            self.write(file, start + done, part)
            done += part.nbytes

    def _carry(self, tagalong: Tagalong) -> None:
        path = self._place(tagalong.name)
        try:
            source = os.open(tagalong.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            message = f"can't read `{show(tagalong.path)}`: {reason(error)}"
            raise file_fault("E0611", message, tagalong.path) from error
        with open(source, "rb", buffering=0) as file, writing(path):
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise file_fault("E0611", f"`{show(tagalong.path)}` is not a regular file", tagalong.path)
            with _opened(path) as descriptor:
                offset = 0
                while part := file.read(_BUFFER):
                    write_all(descriptor, memoryview(part), offset)
                    offset += len(part)
                os.fsync(descriptor)

    def _place(self, name: str) -> str:
        """The path of `name` in the folder. Raises MergecError E0612 for a name that is no plain
        relative path."""
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name:
            raise file_fault("E0612", f"`{show(name)}` is not a name of a file in the output folder", self._folder)
        path = os.path.join(self._folder, *parts)
        if len(parts) > 1:
            with writing(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def _check_range(self, file: int, start: int, nbytes: int) -> None:
        output, stop = self._outputs[file], start + nbytes
        if start < 0 or stop > output.size or any(start < end and first < stop for first, end in self._fixed[file]):
            raise ValueError(f"bytes {start} to {stop} lie outside the data of {output.name}")

    def _open(self, file: int, flags: int = 0) -> int:
        return os.open(self.paths[file], os.O_WRONLY | os.O_CLOEXEC | flags)

    def _written(self, file: int, descriptor: int, nbytes: int) -> None:
        """Starts writeback now and then, so that the disk works while there is computing to do."""
        with self._lock:
            self._dirty[file] += nbytes
            due = self._dirty[file] >= _WRITEBACK
            if due:
                self._dirty[file] = 0
        if due:
            start_writeback(descriptor)


@contextmanager
def _opened(path: str, *, new: bool = True) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
