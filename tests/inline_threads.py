"""A reactor for tests on which threads do not run: what is given to them is done at once, in order.

With it all of the farm runs under a clock that the test turns, on a real SQLite database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class InlineThreadPool:
    """Takes the place of ``twisted.python.threadpool.ThreadPool`` for a FarmStore.

    :ivar held: when true, work is kept until :meth:`run`.
    :ivar broken: when set, what all work fails with.
    :ivar locked: when true, as if another process held the database's lock: what would write fails.
    :ivar before: called before each piece of work, with whether it would write.
    :ivar count: how much work was done.
    """

    def __init__(self) -> None:
        self.held = False
        self.broken: Exception | None = None
        self.locked = False
        self.before: Callable[[bool], object] = lambda writes: None
        self.count = 0
        self.work: list[Callable[[], None]] = []

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to stop."""

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], None], function: Any, *args: Any, **kwargs: Any
    ) -> None:
        def work() -> None:
            self.count += 1
            try:
                writes = kwargs.get("writes", False)
                self.before(writes)
                if self.broken is not None:
                    raise self.broken
                if self.locked and writes:
                    raise sqlite3.OperationalError("database is locked")
                result = function(*args, **kwargs)
            except BaseException:
                on_result(False, Failure())
            else:
                on_result(True, result)

        self.work.append(work)
        if not self.held:
            self.run()

    def run(self) -> None:
        """Do what was kept, and what comes meanwhile."""
        while self.work:
            self.work.pop(0)()


class InlineReactor(Clock):
    """A clock with as much of a reactor as adbapi and the farm need.

    Results of threads come with :meth:`advance`, as from a real reactor: never inside the call that asked for them.

    :ivar spawned: the arguments of each ``spawnProcess``.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        super().__init__()
        self.rightNow = now
        self.threads = InlineThreadPool()
        self.spawned: list[Any] = []

    def callWhenRunning(self, function: Any, *args: Any, **kwargs: Any) -> object:
        return self.callLater(0, function, *args, **kwargs)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.callLater(0, function, *args, **kwargs)

    def addSystemEventTrigger(self, *args: Any, **kwargs: Any) -> object:
        return object()

    def removeSystemEventTrigger(self, trigger: object) -> None:
        if hasattr(trigger, "cancel"):
            trigger.cancel()

    def getThreadPool(self) -> InlineThreadPool:
        return self.threads

    def settle(self) -> None:
        """Let what is due now happen, however long the chain of causes."""
        while any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
            self.advance(0)

    def pass_time(self, seconds: float, step: float = 0.005) -> None:
        """Turn the clock in small steps, so that each wait ends when it would."""
        end = self.seconds() + seconds
        self.settle()
        while self.seconds() < end:
            self.advance(min(step, end - self.seconds()))
            self.settle()


class Node:
    """One process's view of an :class:`InlineReactor`: it can be killed, and then nothing of it happens any more, or
    stopped, and then it happens when it goes on.

    :ivar alive: whether it has not been killed.
    """

    def __init__(self, reactor: InlineReactor) -> None:
        self._reactor = reactor
        self.alive = True
        self._held: list[Any] | None = None

    def stop(self) -> None:
        """As SIGSTOP."""
        self._held = []

    def go_on(self) -> None:
        """As SIGCONT: what was due meanwhile is done now, in order."""
        held, self._held = self._held or [], None
        for function, args, kwargs in held:
            self._reactor.callLater(0, self._run, function, args, kwargs)

    def callLater(self, delay: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self._reactor.callLater(delay, self._run, function, args, kwargs)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._reactor.callFromThread(self._run, function, args, kwargs)

    def _run(self, function: Any, args: Any, kwargs: Any) -> None:
        if self._held is not None:
            self._held.append((function, args, kwargs))
        elif self.alive:
            function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
