"""The file of the farm's database, as one thread uses it: opened, watched for being replaced, and written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Final, ParamSpec, TypeVar, cast

from twisted.enterprise import adbapi
from twisted.internet import threads
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gameproxy.farm.upgrades import upgrade

P = ParamSpec("P")
T = TypeVar("T")
Operation = Callable[[sqlite3.Cursor], T]
"""What is done in a transaction. It runs in the database's thread: no reactor, no shared state."""
Restore = Callable[[sqlite3.Cursor], Callable[[], None] | None]
"""What puts in what must be in the database; it returns what is to be called when that is committed."""
Outcomes = tuple[Callable[[], None] | None, list[Any]]
"""What the Restore returned, if it was called; for each operation its result or the Failure of it."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another writer of the same file."""

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


class Database:
    """One SQLite file, and the one connection to it.

    :param path: the file, as for :class:`~gameproxy.farm.store.FarmStore`.
    :param reactor: provides IReactorCore and IReactorFromThreads.
    :param thread_pool: where SQLite is called, instead of the one thread of its own.
    """

    def __init__(self, path: str, reactor: Any, thread_pool: ThreadPool | None) -> None:
        self._files = (
            [] if path == ":memory:" else [Path(path + end) for end in ("", "-wal", "-shm")]
        )
        """The database's file, and those that SQLite keeps beside it."""
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
        # Below: the thread's own.
        self._identities: list[tuple[int, int] | None] = []
        """Of the files, when they were opened."""
        self._patience = 0.0
        self._restored = False

    def transact(
        self,
        operations: Sequence[Operation[Any]],
        writes: bool,
        alone: bool,
        restore: Restore,
        is_restored: Callable[[sqlite3.Cursor], bool],
    ) -> Deferred[Outcomes]:
        """Run operations in one transaction, each in a savepoint of its own. The one before has to be over.

        :param writes: whether one of them may write.
        :param alone: do without a transaction, when the database is in order.
        :param restore: called before all else on a newly opened database, and when something is missing.
        :param is_restored: asked before all else, when one may write: is what ``restore`` puts in still there?
        :return: fires when it is committed; fails with StoreError, sqlite3.Error or OSError, when nothing of it has
            happened.
        """
        return threads.deferToThreadPool(
            self._reactor,
            self._pool.threadpool,
            self._transact,
            operations,
            writes=writes,
            alone=alone,
            restore=restore,
            is_restored=is_restored,
        )

    def close(self) -> None:
        """Close the connection and end the thread. No transaction may be under way."""
        self._pool.close()

    # In the database's thread

    def _opened(self, connection: sqlite3.Connection) -> None:
        try:
            _use_wal(connection)
            connection.text_factory = text_of
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            # A first look makes the files that belong to the database.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._identities = [_identity(file) for file in self._files]
            # From here on _when_free waits.
            (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
            self._patience = milliseconds / 1000
            connection.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            connection.close()
            raise
        self._restored = False

    def _connect(self) -> sqlite3.Connection:
        """The connection to what is at the path now."""
        connection: sqlite3.Connection = self._pool.connect()
        if not self._files or _identity(self._files[0]) == self._identities[0]:
            return connection
        self._pool.disconnect(connection)
        # The file was deleted or replaced. SQLite would play what is left of the old one's log into the new one; but
        # another proxy may have been here first, and then the log is the new one's.
        for file, opened in zip(self._files[1:], self._identities[1:], strict=True):
            if opened is not None and _identity(file) == opened:
                file.unlink(missing_ok=True)
        return cast(sqlite3.Connection, self._pool.connect())

    def _transact(
        self,
        operations: Sequence[Operation[Any]],
        writes: bool,
        alone: bool,
        restore: Restore,
        is_restored: Callable[[sqlite3.Cursor], bool],
    ) -> Outcomes:
        connection = self._connect()
        cursor = connection.cursor()
        writes = writes or not self._restored
        on_restored = None
        try:
            if alone and self._restored:
                return None, [self._when_free(_attempt, cursor, o) for o in operations]
            self._when_free(cursor.execute, "BEGIN IMMEDIATE" if writes else "BEGIN")
            upgraded = self._when_free(upgrade, cursor)
            if upgraded or not self._restored or (writes and not is_restored(cursor)):
                on_restored = restore(cursor)
            attempt = _attempt_undoably if writes else _attempt
            outcomes = [attempt(cursor, operation) for operation in operations]
            # Until its answer is there nobody knows what is in the database: if it does not come, all is put right.
            self._restored = False
            cursor.execute("COMMIT")
        except BaseException as error:
            # Closing undoes the transaction, and a fresh connection is what recovers from most troubles. But one that
            # only had to wait too long for others can read still.
            if connection.in_transaction or not _is_busy(error):
                self._pool.disconnect(connection)
            raise
        self._restored = True
        return on_restored, outcomes

    def _when_free(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that needs a lock, as soon as nobody else has it.

        SQLite's own waiting looks for the lock ever more rarely: while another program writes in a tight loop it meets
        none of the gaps, which last microseconds.

        :raises sqlite3.OperationalError: somebody else has the lock all the time.
        """
        left = int(self._patience / (1.5 * _LOOK_PAUSE)) * _LOOKS
        while True:
            try:
                return function(*args, **kwargs)
            except sqlite3.OperationalError as error:
                if not left or not _is_busy(error):
                    raise
            left -= 1
            if left % _LOOKS == 0:
                sleep(_LOOK_PAUSE)


def text_of(data: bytes) -> str:
    """A text of the database, whatever bytes somebody wrote into it."""
    return data.decode("utf-8", "backslashreplace")


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


def _attempt(cursor: sqlite3.Cursor, operation: Operation[T]) -> T | Failure:
    """What an operation comes to; its own fault is a Failure, the database's is raised."""
    try:
        return operation(cursor)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not _is_alone(error):
            raise
        failure = Failure()
        failure.cleanFailure()
        return failure


def _attempt_undoably(cursor: sqlite3.Cursor, operation: Operation[T]) -> T | Failure:
    """The same, and nothing is left of an operation that fails."""
    cursor.execute("SAVEPOINT request")
    outcome = _attempt(cursor, operation)
    if isinstance(outcome, Failure):
        cursor.execute("ROLLBACK TO request")
    cursor.execute("RELEASE request")
    return outcome


def _is_busy(error: BaseException) -> bool:
    """Whether somebody else has the lock, so that it is worth waiting."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT


def _is_alone(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return code & 0xFF in _ALONE


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file has that name now."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
