"""The database's thread after a transaction that failed: it holds no lock, and the next one begins afresh."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import FarmStore, StoreUnavailable, database
from tests.inline_threads import InlineReactor

JTI = "INSERT INTO used_tickets (jti, expires_at) VALUES (?, 1)"


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(database, "BUSY_TIMEOUT", 0.01)
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.path = folder / "farm.db"
        self.reactor = InlineReactor()
        self.store = FarmStore(str(self.path), self.reactor, self.reactor.threads)  # type: ignore[arg-type]
        self.assertEqual(self.result(self.store.write(self.spend("0"))), 1)
        self.other = sqlite3.connect(self.path, isolation_level=None, timeout=0)
        self.addCleanup(self.other.close)

    def spend(self, jti: str) -> Any:
        return lambda cursor: cursor.execute(JTI, (jti,)).rowcount

    def result(self, deferred: Deferred[Any]) -> Any:
        """What a request comes to at once; of a failure, the exception."""
        results: list[Any] = []
        deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
        self.reactor.settle()
        (result,) = results
        return result

    def tickets(self) -> list[str]:
        rows = self.other.execute("SELECT jti FROM used_tickets ORDER BY jti")
        return [row[0][:9] for row in rows]

    def test_nothing_without_the_lock(self) -> None:
        """While another holds the lock all the time no operation runs: what it did could not be undone."""
        self.other.execute("BEGIN IMMEDIATE")
        ran: list[int] = []
        result = self.result(self.store.write(lambda cursor: ran.append(1)))
        self.assertIsInstance(result, StoreUnavailable)
        self.assertEqual(ran, [])

    def test_no_lock_after_a_failure(self) -> None:
        """A transaction that fails half way is undone at once: others can write, and so can the next one."""

        def break_down(cursor: sqlite3.Cursor) -> None:
            cursor.execute(JTI, ("half",))
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        self.assertIsInstance(self.result(self.store.write(break_down)), StoreUnavailable)
        self.other.execute(JTI, ("other",))
        self.assertEqual(self.result(self.store.write(self.spend("next"))), 1)
        self.assertEqual(self.tickets(), ["0", "next", "other"])

    def test_no_lock_after_having_waited_half_way(self) -> None:
        """So it is with one that only began to write half way, and had to wait too long for others then."""
        for (name,) in self.other.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall():
            self.other.execute(f"DROP TABLE {name}")
        self.other.execute("PRAGMA user_version = 0")
        self.other.execute("BEGIN IMMEDIATE")

        def ask(cursor: sqlite3.Cursor) -> Any:
            return cursor.execute("SELECT count(*) FROM used_tickets").fetchone()

        # The tables are made by whoever asks first, a reader too.
        self.assertIsInstance(self.result(self.store.read(ask)), StoreUnavailable)
        self.other.execute("COMMIT")
        self.assertEqual(self.result(self.store.read(ask)), (0,))

    def test_a_fresh_connection(self) -> None:
        """What was wrong with a connection that has failed is gone with it."""

        def fill(cursor: sqlite3.Cursor) -> None:
            pages = cursor.execute("PRAGMA page_count").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            cursor.execute(JTI, ("x" * 100_000,))

        self.assertIsInstance(self.result(self.store.write(fill)), StoreUnavailable)
        self.assertEqual(self.result(self.store.write(self.spend("y" * 100_000))), 1)
        self.assertEqual(self.tickets(), ["0", "y" * 9])
