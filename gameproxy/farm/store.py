"""The farm's database, as the reactor's thread uses it: concurrent requests share its transactions."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gameproxy.farm.database import Database, Operation, Outcomes, Restore
from gameproxy.farm.upgrades import StoreError
from gameproxy.sites import LATE, STORE_ONE_AT_A_TIME, STORE_PAUSE, Disturbs, never

T = TypeVar("T")

REQUESTS_MAX: Final = 20_000
"""Most requests that wait for a transaction; musts, which sessions bound, are not counted."""
BATCH_MAX: Final = 500
"""Most requests that share a transaction, so that other writers get their turn."""
RETRY_AFTER: Final = 1.0
"""Seconds from a failed transaction to the next, for what has to be written."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds for what is under way when the database is closed."""


_log = Logger()


class StoreUnavailable(Exception):
    """The database cannot be used now: locked, full, read-only, missing. It may be well again soon."""


def told_by_store(failure: Failure) -> None:
    """An errback for what is tried again later: the store has logged its trouble; anything else is a fault."""
    if not failure.check(StoreUnavailable, StoreError):
        _log.failure("a transaction of the farm failed", failure)


@dataclass(eq=False, slots=True)
class _Request:
    """An operation and who waits for it. A must has a name, for the log, and is tried until it is done.

    :param alone: whether it shares no transaction and has none.
    """

    operation: Operation[Any]
    writes: bool
    must: str | None = None
    alone: bool = False
    result: Deferred[Any] = field(default_factory=Deferred)


class FarmStore:
    """The farm's database.

    All requests go through one queue, in order, one transaction at a time; those that arrive while a transaction is
    under way share the next one, each in a savepoint of its own: one that raises is undone, and fails, alone.

    :param path: the SQLite file; made when missing, also when it is deleted or replaced later. ``:memory:`` is one
        for this store alone.
    :param reactor: provides IReactorTime, IReactorCore and IReactorFromThreads.
    :param thread_pool: where SQLite is called, instead of the one thread of its own.
    :param disturbs: asked at its sites.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        thread_pool: ThreadPool | None = None,
        disturbs: Disturbs = never,
    ) -> None:
        self.path = path
        self._reactor = reactor
        self._disturbs = disturbs
        self._database = Database(path, reactor, thread_pool)
        self.restore: Restore = lambda cursor: None
        """Called in the first transaction on a newly opened database, before all else: it puts in what must be there
        and may be there already. A database that was deleted is filled again by it. What it returns is called on the
        reactor's thread when that is committed."""
        self.is_restored: Callable[[sqlite3.Cursor], bool] = lambda cursor: True
        """Asked in each transaction that may write, before all else: is what :attr:`restore` puts in still there?"""
        self._waiting: deque[_Request] = deque()
        self._reads: deque[_Request] = deque()
        """Those that wait by themselves, because the database is in trouble: it may be readable still."""
        self._wrote = False
        self._requests = 0
        self._running = False
        self._retry: IDelayedCall | None = None
        self._give_up: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None
        self._incident: list[str] = []
        self._trouble: Exception | None = None

    def write(self, operation: Operation[T]) -> Deferred[T]:
        """Run an operation in a transaction that may write.

        :return: fires with its result when it is committed; fails with what it raised, when nothing of it is left,
            or with :class:`StoreUnavailable`.
        """
        return self._ask(_Request(operation, writes=True))

    def read(self, operation: Operation[T]) -> Deferred[T]:
        """Run an operation that only reads; else as :meth:`write`."""
        return self._ask(_Request(operation, writes=False))

    def alone(self, operation: Operation[T], writes: bool = False) -> Deferred[T]:
        """Run a single statement, which needs no transaction; else as :meth:`read` or :meth:`write`."""
        return self._ask(_Request(operation, writes, alone=True))

    def must(self, operation: Operation[T], name: str) -> Deferred[T]:
        """Run an operation that has to happen: it is tried, in its order, until the database takes it.

        :param name: what it is, for the log.
        :return: fires with its result; fails only with what the operation itself raises, which is logged too.
        """
        request = _Request(operation, writes=True, must=name)
        self._enqueue(request)
        return request.result

    @property
    def in_trouble(self) -> bool:
        """Whether the database did not take what was written last; what is read is no proof that it is well again."""
        return self._trouble is not None

    def close(self) -> Deferred[None]:
        """Do what was asked for as far as the database takes it at once, and close it.

        :return: fires when that is done, or when the database has not answered for :data:`CLOSE_TIMEOUT`.
        """
        if self._closed is None:
            self._closed = Deferred()
            self._give_up = self._reactor.callLater(CLOSE_TIMEOUT, self._go_on_without)
            self._pump()
        return self._closed

    # The queue, on the reactor's thread

    def _ask(self, request: _Request) -> Deferred[Any]:
        if self._closed is not None:
            return fail(StoreUnavailable("the database is closed"))
        if self._requests >= REQUESTS_MAX:
            return fail(StoreUnavailable("too many requests wait for the database"))
        if self._retry is not None and self._trouble is not None and request.writes:
            return fail(self._trouble)
        self._requests += 1
        self._enqueue(request)
        return request.result

    def _enqueue(self, request: _Request) -> None:
        in_trouble = self._trouble is not None and not request.writes
        (self._reads if in_trouble else self._waiting).append(request)
        self._pump()

    def _pump(self) -> None:
        if self._running:
            return
        if self._closed is not None:
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._waiting.extend(self._reads)
            self._reads.clear()
        writes_may = self._waiting and self._retry is None
        queue = self._reads if self._reads and (self._wrote or not writes_may) else self._waiting
        if not queue:
            self._finish_closing()
        if not queue or (queue is self._waiting and not writes_may):
            return
        most = 1 if self._disturbs(STORE_ONE_AT_A_TIME) else BATCH_MAX
        batch = _next_batch(queue, most)
        self._wrote = any(request.writes for request in batch)
        self._requests -= sum(request.must is None for request in batch)
        self._running = True
        done = self._database.transact(
            [request.operation for request in batch],
            self._wrote,
            batch[0].alone,
            self.restore,
            self.is_restored,
        )
        done.addCallbacks(partial(self._succeeded, batch), partial(self._failed, batch))
        done.addErrback(lambda failure: _log.failure("farm database", failure))

    def _succeeded(
        self,
        batch: Sequence[_Request],
        done: Outcomes,
    ) -> None:
        on_restored, outcomes = done
        if self._trouble is not None and self._wrote:
            _log.info("the farm's database {path} works again", path=self.path)
            self._incident.clear()
            self._trouble = None
        if on_restored is not None:
            try:
                on_restored()
            except Exception:
                _log.failure("restoring the farm's database {path}", path=self.path)
        for request, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                request.result.callback(outcome)
                continue
            if request.must is not None:
                _log.failure("{name} failed", outcome, name=request.must)
            request.result.errback(outcome)
        # What the results led to shares the next transaction.
        if self._disturbs(STORE_PAUSE):
            self._reactor.callLater(LATE, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._running = False
        self._pump()

    def _failed(self, batch: Sequence[_Request], failure: Failure) -> None:
        kind = failure.getErrorMessage()
        if kind not in self._incident:
            self._incident.append(kind)
            _log.error(
                "the farm's database {path} cannot be used: {error}", path=self.path, error=kind
            )
        error = failure.value
        if not isinstance(error, StoreError):
            error = StoreUnavailable(kind)
        self._trouble = error
        failed = [request for request in batch if request.must is None]
        self._waiting.extendleft(r for r in reversed(batch) if r.must is not None)
        if self._closed is not None:
            failed.extend(request for request in self._waiting if request.must is None)
            self._waiting.clear()
        elif any(request.must is not None for request in self._waiting):
            failed.extend(self._pause())
        for request in failed:
            request.result.errback(Failure(error))
        self._go_on()

    def _pause(self) -> list[_Request]:
        """Let the musts wait for a while; reads go on by themselves.

        :return: the other requests, which are not to wait for that.
        """
        if self._retry is None:
            self._retry = self._reactor.callLater(RETRY_AFTER, self._resume)
        waiting = list(self._waiting)
        self._waiting = deque(request for request in waiting if request.must is not None)
        self._reads.extend(request for request in waiting if not request.writes)
        failed = [request for request in waiting if request.writes and request.must is None]
        self._requests -= len(failed)
        return failed

    def _resume(self) -> None:
        self._retry = None
        self._pump()

    def _finish_closing(self) -> None:
        if self._closed is None or self._waiting or self._give_up is None:
            return
        self._database.close()
        if self._give_up.active():
            self._give_up.cancel()
            self._closed.callback(None)
        self._give_up = None

    def _go_on_without(self) -> None:
        _log.error("the farm's database {path} does not answer: ending without it", path=self.path)
        assert self._closed is not None
        self._closed.callback(None)


def _next_batch(queue: deque[_Request], most: int) -> list[_Request]:
    """Take the requests that share the next transaction."""
    batch = [queue.popleft()]
    while queue and len(batch) < most and not (batch[0].alone or queue[0].alone):
        batch.append(queue.popleft())
    return batch
