"""The farm's database: one SQLite file, one connection, and transactions that concurrent requests share."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from time import sleep
from typing import Any, Final, TypeVar, cast

from twisted.enterprise import adbapi
from twisted.internet import threads
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")
Operation = Callable[[sqlite3.Cursor], T]
"""What is done in a transaction. It runs in the database's thread: no reactor, no shared state."""

REQUESTS_MAX: Final = 20_000
"""Most requests that wait for a transaction; musts, which sessions bound, are not counted."""
BATCH_MAX: Final = 500
"""Most requests that share a transaction, so that other writers get their turn."""
RETRY_AFTER: Final = 1.0
"""Seconds from a failed transaction to the next, for what has to be written."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer of the same file."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds for what is under way when the database is closed."""

_WAL_ATTEMPTS: Final = 20
_LOOKS: Final = 50
"""How often to look for the lock at a stretch, which takes half a millisecond."""
_LOOK_PAUSE: Final = 0.001
"""Seconds between two stretches."""
_ALONE: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""Result codes that are one operation's own fault; with all others the database is out of order."""


_log = Logger()


class StoreError(Exception):
    """The database cannot be used until somebody does what the message says."""


class StoreUnavailable(Exception):
    """The database cannot be used now: locked, full, read-only, missing. It may be well again soon."""


def told_by_store(failure: Failure) -> None:
    """An errback for what is tried again later: the store has logged its trouble; anything else is a fault."""
    if not failure.check(StoreUnavailable, StoreError):
        _log.failure("a transaction of the farm failed", failure)


@dataclass(eq=False, slots=True)
class _Request:
    """An operation and who waits for it. A must has a name, for the log, and is tried until it is done."""

    operation: Operation[Any]
    writes: bool
    must: str | None = None
    result: Deferred[Any] = field(default_factory=Deferred)


class FarmStore:
    """The farm's database.

    All requests go through one queue, in order, one transaction at a time; those that arrive while a transaction is
    under way share the next one, each in a savepoint of its own: one that raises is undone, and fails, alone.

    :param path: the SQLite file; made when missing, also when it is deleted or replaced later. ``:memory:`` is one
        for this store alone.
    :param reactor: provides IReactorTime, IReactorCore and IReactorFromThreads.
    :param thread_pool: where SQLite is called, instead of the one thread of its own.
    """

    def __init__(self, path: str, reactor: Any, thread_pool: ThreadPool | None = None) -> None:
        self.path = path
        self._reactor = reactor
        self._pool = adbapi.ConnectionPool(
            "sqlite3",
            path,
            check_same_thread=False,
            isolation_level=None,
            timeout=BUSY_TIMEOUT,
            cp_min=1,
            cp_max=1,
            cp_noisy=False,
            cp_openfun=self._opened,
            cp_reactor=reactor,
        )
        if thread_pool is not None:
            self._pool.threadpool = thread_pool
        self.restore: Callable[[sqlite3.Cursor], Callable[[], None] | None] = lambda cursor: None
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
        # Below: the database thread's own.
        self._identities: dict[str, tuple[int, int]] = {}
        self._restored = False

    def write(self, operation: Operation[T]) -> Deferred[T]:
        """Run an operation in a transaction that may write.

        :return: fires with its result when it is committed; fails with what it raised, when nothing of it is left,
            or with :class:`StoreUnavailable`.
        """
        return self._ask(_Request(operation, writes=True))

    def read(self, operation: Operation[T]) -> Deferred[T]:
        """Run an operation that only reads; else as :meth:`write`."""
        return self._ask(_Request(operation, writes=False))

    def must(self, operation: Operation[T], name: str) -> Deferred[T]:
        """Run an operation that has to happen: it is tried, in its order, until the database takes it.

        :param name: what it is, for the log.
        :return: fires with its result; fails only with what the operation itself raises, which is logged too.
        """
        request = _Request(operation, writes=True, must=name)
        self._enqueue(request)
        return request.result

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
        batch = [queue.popleft() for _ in range(min(len(queue), BATCH_MAX))]
        self._wrote = any(request.writes for request in batch)
        self._requests -= sum(request.must is None for request in batch)
        self._running = True
        done = threads.deferToThreadPool(
            self._reactor, self._pool.threadpool, self._transact, batch
        )
        done.addCallbacks(partial(self._succeeded, batch), partial(self._failed, batch))
        done.addErrback(lambda failure: _log.failure("farm database", failure))

    def _succeeded(
        self,
        batch: Sequence[_Request],
        done: tuple[Callable[[], None] | None, list[Any]],
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
        self._running = False
        self._pump()

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
        self._pool.close()
        if self._give_up.active():
            self._give_up.cancel()
            self._closed.callback(None)
        self._give_up = None

    def _go_on_without(self) -> None:
        _log.error("the farm's database {path} does not answer: ending without it", path=self.path)
        assert self._closed is not None
        self._closed.callback(None)

    # Transactions, in the database's thread

    def _opened(self, connection: sqlite3.Connection) -> None:
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            # A first look makes the files that belong to the database.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._identities = {name: i for name in self._names() if (i := _identity(name))}
        except BaseException:
            connection.close()
            raise
        self._restored = False

    def _names(self) -> list[str]:
        """The database's file, and those that SQLite keeps beside it."""
        return (
            [] if self.path == ":memory:" else [self.path, f"{self.path}-wal", f"{self.path}-shm"]
        )

    def _connect(self) -> sqlite3.Connection:
        """The connection to what is at the path now."""
        connection: sqlite3.Connection = self._pool.connect()
        if self.path == ":memory:" or _identity(self.path) == self._identities.get(self.path):
            return connection
        self._pool.disconnect(connection)
        # The file was deleted or replaced. SQLite would play what is left of the old one's log into the new one; but
        # another proxy may have been here first, and then the log is the new one's.
        for name in self._names()[1:]:
            identity = _identity(name)
            if identity is not None and identity == self._identities.get(name):
                Path(name).unlink(missing_ok=True)
        return cast(sqlite3.Connection, self._pool.connect())

    def _transact(self, batch: Sequence[_Request]) -> tuple[Callable[[], None] | None, list[Any]]:
        """Run a batch.

        :return: what :attr:`restore` returned, if it was called; for each request its result or the Failure of it.
        :raises StoreError, sqlite3.Error, OSError: nothing of the batch has happened.
        """
        connection = self._connect()
        cursor = connection.cursor()
        writes = not self._restored or any(request.writes for request in batch)
        try:
            if writes:
                _begin_writing(cursor)
            else:
                cursor.execute("BEGIN")
            on_restored = None
            if upgrade(cursor) or not self._restored or (writes and not self.is_restored(cursor)):
                on_restored = self.restore(cursor)
            outcomes = [_attempt(cursor, request.operation) for request in batch]
            cursor.execute("COMMIT")
        except BaseException as error:
            # Closing undoes the transaction, and a fresh connection is what recovers from most troubles. But one that
            # only had to wait too long for others can read still.
            if connection.in_transaction or not _is_busy(error):
                self._pool.disconnect(connection)
            raise
        self._restored = True
        return on_restored, outcomes


def _use_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode. SQLite does not wait for others who do that to the same new file: this does."""
    for _ in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        # To begin a transaction is to wait, BUSY_TIMEOUT at most, until the others are done.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    raise sqlite3.OperationalError("database is locked")


def _begin_writing(cursor: sqlite3.Cursor) -> None:
    """Begin a transaction that may write, as soon as nobody else has one.

    SQLite's own waiting looks for the lock ever more rarely: while another program writes in a tight loop it meets none
    of the gaps, which last microseconds.

    :raises sqlite3.OperationalError: somebody else has the lock all the time.
    """
    (milliseconds,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    stretches = int(milliseconds / 1000 / (1.5 * _LOOK_PAUSE))
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        for _ in range(stretches):
            for _ in range(_LOOKS):
                try:
                    cursor.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                else:
                    return
            sleep(_LOOK_PAUSE)
        cursor.execute("BEGIN IMMEDIATE")
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _attempt(cursor: sqlite3.Cursor, operation: Operation[T]) -> T | Failure:
    cursor.execute("SAVEPOINT request")
    try:
        result = operation(cursor)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not _is_alone(error):
            raise
        failure = Failure()
        failure.cleanFailure()
        cursor.execute("ROLLBACK TO request")
        cursor.execute("RELEASE request")
        return failure
    cursor.execute("RELEASE request")
    return result


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _is_alone(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return code & 0xFF in _ALONE


def _identity(name: str) -> tuple[int, int] | None:
    """Which file has that name now."""
    try:
        status = Path(name).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def upgrade(cursor: sqlite3.Cursor) -> bool:
    """Bring the schema up to date, in the transaction that is open.

    :return: whether that was needed.
    :raises StoreError: the database is of a newer version of this program.
    """
    version = cast(int, cursor.execute("PRAGMA user_version").fetchone()[0])
    if version == SCHEMA_VERSION:
        return False
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the database has version {version}, this gameproxy knows {SCHEMA_VERSION}: "
            "install a newer gameproxy, or move the file away"
        )
    for number, script in _SCRIPTS:
        if number > version:
            for statement in _statements(script):
                cursor.execute(statement)
    cursor.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return True


def _scripts() -> list[tuple[int, str]]:
    files = (file for file in resources.files(__package__).joinpath("schema").iterdir())
    return sorted(
        (int(file.name.removesuffix(".sql")), file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".sql")
    )


def _statements(script: str) -> list[str]:
    """Its statements, one by one: executescript would commit what is open."""
    statements = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements


_SCRIPTS: Final = _scripts()
SCHEMA_VERSION: Final = _SCRIPTS[-1][0]
