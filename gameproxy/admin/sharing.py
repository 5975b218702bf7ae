"""What costs something to find out, found out seldom however many want to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")


class Shared(Generic[T]):
    """Asks, and gives everybody the answer, for a while. There is one question under way at most.

    :param find: asks.
    :param fresh: seconds, from the question, for which an answer is good. A failure is good for nobody else.
    """

    _log = Logger()

    def __init__(self, find: Callable[[], Deferred[T]], fresh: float, clock: IReactorTime) -> None:
        self._find = find
        self._fresh = fresh
        self._clock = clock
        self._under_way = False
        self._asked_at = 0.0
        self._found: tuple[T] | None = None
        self._waiting: list[Deferred[T]] = []

    def get(self) -> Deferred[T]:
        """The answer. Whoever cancels it no longer waits; the question goes on."""
        told: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(told)
        if self._under_way:
            return told
        now = self._clock.seconds()
        if self._found is not None and 0 <= now - self._asked_at < self._fresh:
            self._tell(self._found[0])
            return told
        self._under_way, self._asked_at = True, now
        maybeDeferred(self._find).addCallbacks(self._answered, self._failed)
        return told

    def _answered(self, answer: T) -> None:
        self._under_way, self._found = False, (answer,)
        self._tell(answer)

    def _failed(self, failure: Failure) -> None:
        self._under_way, self._found = False, None
        self._log.failure("while finding something out for many", failure)
        self._tell(failure)

    def _tell(self, answer: T | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told.callback(answer)  # a failure makes it fail
