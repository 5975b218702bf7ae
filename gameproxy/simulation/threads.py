"""The thread of a simulated process: what it does takes virtual time, and happens between two events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.python.failure import Failure

from gameproxy.simulation.chance import stream
from gameproxy.simulation.machines import Process

SERVICE_TIME: Final = (50, 400)
"""Least and most microseconds of a call."""


class SimThreadPool:
    """One thread with a queue; has what Twisted and adbapi use of :class:`twisted.python.threadpool.ThreadPool`.

    :ivar fault: called before each call in the thread; what it raises is what comes of the call. It may return
        microseconds that the call takes more.
    :ivar fault_after: called when a database has taken what was written (see :mod:`gameproxy.simulation.lost_answers`);
        what it raises takes the place of the answer.
    """

    def __init__(self, process: Process, name: str = "thread") -> None:
        self.calm()
        self._process = process
        self._kernel = process.kernel
        self._name = name
        self._chance = stream(process.kernel.seed, name, process.machine.name, process.pid)
        self._free_at = 0
        self._told: deque[Callable[[], object]] = deque()

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.fault: Callable[[], int] = _none
        self.fault_after: Callable[[], None] = _nothing

    # What Twisted calls

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """It ends with its process."""

    def adjustPoolsize(self, minthreads: int | None = None, maxthreads: int | None = None) -> None:
        """There is one thread."""

    def callInThread(self, func: Callable[..., Any], *args: object, **kw: object) -> None:
        self.callInThreadWithCallback(None, func, *args, **kw)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        *args: object,
        **kw: object,
    ) -> None:
        least, most = SERVICE_TIME
        begin = max(self._kernel.now, self._free_at)
        self._free_at = begin + least + self._chance.randrange(most - least + 1)
        self._kernel.at(
            self._free_at, self._process.call, self._run, onResult, lambda: func(*args, **kw)
        )

    def tell(self, call: Callable[[], object]) -> None:
        """Call something on the reactor's thread, soon, in the order in which it was asked for."""
        self._told.append(call)
        self._kernel.after(0, self._process.call, self._tell_next)

    def _tell_next(self) -> None:
        self._told.popleft()()

    def _run(
        self, on_result: Callable[[bool, Any], object] | None, call: Callable[[], Any]
    ) -> None:
        try:
            delay = self.fault()
            if delay:
                self._free_at = max(self._free_at, self._kernel.now + delay)
                self._kernel.after(delay, self._process.call, self._finish, on_result, call)
                return
        except Exception:
            self._answer(on_result, False, Failure())
            return
        self._finish(on_result, call)

    def _finish(
        self, on_result: Callable[[bool, Any], object] | None, call: Callable[[], Any]
    ) -> None:
        try:
            result = call()
        except Exception:
            self._answer(on_result, False, Failure())
        else:
            self._answer(on_result, True, result)

    def _answer(
        self, on_result: Callable[[bool, Any], object] | None, success: bool, result: Any
    ) -> None:
        self._kernel.write(f"thread {self._process.name} {self._name} {success:d}")
        if on_result is not None:
            on_result(success, result)


def _none() -> int:
    return 0


def _nothing() -> None:
    """No fault."""
