"""The swap by rename: what was made takes the place of the target at one instant, if that may be
replaced."""

from __future__ import annotations

import os

from ...grammar.diagnostic import MergecError, error
from ..files.faults import show, writing
from ..files.syscalls import exchange, move, sync
from .partial import Partial
from .replaceable import Standing, look
from .trees import remove


class Swap:
    """Puts one file (`single`) or a folder in the place of a partial folder's target; over another
    one by `force`.

    What is replaced is what was looked at: a target that has been put there since, or put something
    into, stays.
    """

    def __init__(self, partial: Partial, *, single: bool, force: bool) -> None:
        self._partial, self._path = partial, partial.target
        self._single, self._force = single, force
        self._standing: Standing | None = None

    def look(self) -> None:
        """Looks at what stands at the target. Raises MergecError: E0601 where something does and
        `force` is not given, E0608 where it may not be replaced."""
        with writing(self._path):
            standing = look(self._path, single=self._single)
        if standing is not None and not self._force:
            raise self._not_free(standing.why_not)
        if standing is not None and standing.why_not is not None:
            raise self._not_replaced(standing.why_not)
        self._standing = standing

    def put(self, made: str) -> None:
        """Puts `made` in place, and syncs that to disk."""
        with writing(self._path):
            if self._standing is not None and os.path.lexists(self._path):
                self._check_still(self._path)
                self._replace(made)
            else:
                self._place(made)
            sync(os.path.dirname(self._path))

    def _place(self, made: str) -> None:
        """Puts what was made where there was no target. Raises OSError."""
        try:
            move(made, self._path)
        except FileExistsError:
            self.look()
            raise self._not_replaced("it has been put there while the output was made") from None

    def _replace(self, made: str) -> None:
        """Swaps the target for what was made, and back where another one came out. Raises
        OSError."""
        if exchange(made, self._path):
            try:
                self._check_still(made)
            except BaseException:
                exchange(made, self._path)
                raise
        elif self._single:
            os.replace(made, self._path)
        else:
            # killed between the two, the next run puts the old one back
            os.rename(self._path, self._partial.old)
            try:
                self._check_still(self._partial.old)
                os.rename(made, self._path)
            except BaseException:
                self.restore()
                raise

    def _check_still(self, place: str) -> None:
        """Sees that what is at `place` is the target that was looked at, and that it may still be
        replaced."""
        now = look(place, single=self._single)
        if self._standing is None or now is None or not self._standing.same(now):
            raise self._not_replaced("it has been put there while the output was made")
        if now.why_not is not None:
            raise self._not_replaced(now.why_not)

    @property
    def interrupted(self) -> bool:
        """Whether a run was killed in the midst of a swap, so that there is no target to look
        at."""
        return os.path.lexists(self._partial.old) and not os.path.lexists(self._path)

    def restore(self) -> None:
        """Puts back an old target where a run was killed while it swapped it for a new one.

        It goes only where the new one stands. Raises OSError; MergecError (E0617) where something
        else does.
        """
        old = self._partial.old
        if self.interrupted:
            os.rename(old, self._path)
        elif os.path.lexists(old) and os.path.lexists(self._partial.out):
            message = f"something is at `{show(self._path)}` that was not there when a run was stopped"
            note = f"`{show(old)}` is what that run was replacing"
            help = ("move one of the two away, and run again",)
            raise error("E0617", message, notes=note, help=help, file=self._path)
        else:
            remove(old)

    def _not_free(self, why_not: str | None) -> MergecError:
        """The error for a target that exists. `why_not`: `--force` would not replace it."""
        notes = () if why_not is None else (f"`--force` would not replace it: {why_not}",)
        help = "give another path, or replace it with `--force`" if why_not is None else "give another path"
        message = f"`{show(self._path)}` exists already"
        return error("E0601", message, notes=notes, help=help, file=self._path)

    def _not_replaced(self, why_not: str) -> MergecError:
        message = f"`{show(self._path)}` is not replaced: {why_not}"
        help = ("give another path", "or move away what is there yourself, and run again")
        return error("E0608", message, help=help, file=self._path)
