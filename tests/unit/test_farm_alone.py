"""Statements that the store runs outside of transactions, and how it waits for a lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import FarmStore, StoreUnavailable, database
from gameproxy.farm.database import Operation
from gameproxy.farm.upgrades import upgrade
from tests.inline_threads import InlineReactor

JTI = "INSERT INTO used_tickets (jti, expires_at) VALUES (?, 1)"


def in_transaction(cursor: sqlite3.Cursor) -> bool:
    return cursor.connection.in_transaction


def spend(cursor: sqlite3.Cursor, jti: str) -> int:
    return cursor.execute(JTI, (jti,)).rowcount


class AloneTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.path = folder / "farm.db"
        self.reactor = InlineReactor()
        self.store = FarmStore(str(self.path), self.reactor, self.reactor.threads)  # type: ignore[arg-type]

    def outcome(self, result: Deferred[Any]) -> list[Any]:
        """What a request comes to, when it does."""
        results: list[Any] = []
        result.addCallbacks(results.append, lambda failure: results.append(failure.value))
        return results

    def settled(self, result: Deferred[Any]) -> Any:
        outcome = self.outcome(result)
        self.reactor.settle()
        return outcome[0]

    def other(self) -> sqlite3.Connection:
        """Another program that uses the database."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def writers(self) -> list[tuple[str, Callable[[Operation[Any]], Deferred[Any]]]]:
        """The ways to write, each with a name."""
        return [("a", self.store.write), ("b", partial(self.store.alone, writes=True))]

    def tickets(self) -> list[Any]:
        return self.other().execute("SELECT jti FROM used_tickets ORDER BY jti").fetchall()

    def test_no_transaction(self) -> None:
        """What is to be alone is in no transaction, also when it comes with others; these share theirs."""
        self.settled(self.store.write(in_transaction))
        flying = self.outcome(self.store.read(in_transaction))
        before = self.reactor.threads.count
        requests = [
            self.store.read(in_transaction),
            self.store.read(in_transaction),
            self.store.alone(in_transaction),
            self.store.alone(in_transaction),
            self.store.write(in_transaction),
            self.store.read(in_transaction),
        ]
        results = [self.outcome(request) for request in requests]
        self.reactor.settle()
        self.assertEqual(
            (flying, results), ([True], [[True], [True], [False], [False], [True], [True]])
        )
        self.assertEqual(self.reactor.threads.count - before, 4)

    def test_restored_first(self) -> None:
        """On a database that is new, or made again, what must be in it is put there first."""
        told: list[str] = []

        def restore(cursor: sqlite3.Cursor) -> Any:
            cursor.execute(JTI, ("restored",))
            return lambda: told.append("restored")

        self.store.restore = restore
        for turn in range(2):
            found = self.store.alone(lambda c: c.execute("SELECT jti FROM used_tickets").fetchall())
            self.assertEqual(self.settled(found), [("restored",)])
            self.assertEqual(told, ["restored"] * (turn + 1))
            self.path.unlink()

    def test_own_fault(self) -> None:
        """One that raises by its own fault gets that back, and the store goes on as it was."""
        self.settled(self.store.write(in_transaction))
        self.assertIsInstance(
            self.settled(self.store.alone(lambda cursor: 1 / 0)), ZeroDivisionError
        )
        bad = self.store.alone(lambda cursor: cursor.execute("rubbish"))
        self.assertIsInstance(self.settled(bad), sqlite3.OperationalError)
        self.assertEqual(self.settled(self.store.alone(in_transaction)), False)

    def test_waits_for_the_lock(self) -> None:
        """A statement alone and a transaction wait while another program writes, and are done when it has ended."""
        self.settled(self.store.write(in_transaction))
        other = self.other()
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 7:
                other.execute("COMMIT")

        self.patch(database, "sleep", sleep)
        for jti, ask in self.writers():
            pauses.clear()
            other.execute("BEGIN IMMEDIATE")
            done = self.settled(ask(partial(spend, jti=jti)))
            self.assertEqual((done, pauses), (1, [0.001] * 7))
        self.assertEqual(self.tickets(), [("a",), ("b",)])

    def test_waits_no_longer_than_it_should(self) -> None:
        """When another program does not let go of the lock, writes fail in time, and the connection is kept."""
        self.settled(self.store.write(in_transaction))
        self.other().execute("BEGIN IMMEDIATE")
        pauses: list[float] = []
        self.patch(database, "sleep", pauses.append)
        opened = self.settled(self.store.read(lambda cursor: cursor.connection))
        for jti, ask in self.writers():
            pauses.clear()
            failed = self.settled(ask(partial(spend, jti=jti)))
            self.assertIsInstance(failed, StoreUnavailable)
            self.assertTrue(2.5 <= sum(pauses) <= database.BUSY_TIMEOUT, sum(pauses))
        self.assertIs(self.settled(self.store.read(lambda cursor: cursor.connection)), opened)

    def test_waits_not_for_what_never_comes(self) -> None:
        """A transaction that read before another program wrote cannot write any more: that fails at once."""
        self.settled(self.store.write(in_transaction))
        other = self.other()
        pauses: list[float] = []
        self.patch(database, "sleep", pauses.append)

        def outdated(cursor: sqlite3.Cursor) -> None:
            cursor.execute("BEGIN")
            cursor.execute("SELECT count(*) FROM used_tickets").fetchone()
            other.execute(JTI, ("other",))
            cursor.execute(JTI, ("mine",))

        self.assertIsInstance(
            self.settled(self.store.alone(outdated, writes=True)), StoreUnavailable
        )
        self.assertEqual((pauses, self.tickets()), ([], [("other",)]))

    def test_reads_wait_too(self) -> None:
        """A read that meets another program's recovery of the log waits for its end."""
        self.settled(self.store.write(in_transaction))
        tries = 0

        def recovering(cursor: sqlite3.Cursor) -> bool:
            nonlocal tries
            tries += 1
            if tries < 4:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
                raise error
            return upgrade(cursor)

        self.patch(database, "upgrade", recovering)
        self.assertEqual((self.settled(self.store.read(in_transaction)), tries), (True, 4))
