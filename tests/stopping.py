"""A progress that stops a run in its midst."""

from __future__ import annotations

import threading

from mergec.compiler.plan.plan import Plan


class Stop:
    """A progress that cancels when so many tensors were begun."""

    def __init__(self, after: int, cancel: threading.Event) -> None:
        self._left, self._cancel = after, cancel

    def begins(self, plan: Plan, notices: object) -> None: ...

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...

    def tensor(self, index: int) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left < 0:
            self._cancel.set()
