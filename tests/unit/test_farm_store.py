"""The store: shared transactions, what happens when the database is in trouble, upgrades."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import FarmStore, StoreError, StoreUnavailable, database, upgrades
from gameproxy.farm import store as store_module
from gameproxy.farm.upgrades import SCHEMA_VERSION
from tests.inline_threads import InlineReactor

JTI = "INSERT INTO used_tickets (jti, expires_at) VALUES (?, 1)"


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.path = folder / "farm.db"
        self.reactor = InlineReactor()
        self.store = self.make_store()

    def make_store(self, path: str | None = None) -> FarmStore:
        return FarmStore(path or str(self.path), self.reactor, self.reactor.threads)  # type: ignore[arg-type]

    def spend(self, jti: str) -> Any:
        return lambda cursor: cursor.execute(JTI, (jti,)).rowcount

    def outcome(self, result: Deferred[Any]) -> list[Any]:
        """What a request comes to, when it does."""
        results: list[Any] = []
        result.addCallbacks(results.append, lambda failure: results.append(failure.value))
        return results

    def do(self, operation: Any) -> Any:
        results = self.outcome(self.store.write(operation))
        self.reactor.settle()
        (result,) = results
        return result

    def tickets(self) -> list[str]:
        with sqlite3.connect(self.path) as connection:
            return [
                row[0] for row in connection.execute("SELECT jti FROM used_tickets ORDER BY jti")
            ]

    def test_requests_share_transactions(self) -> None:
        """What comes while a transaction is under way shares the next one."""
        self.do(self.spend("0"))
        before = self.reactor.threads.count
        results = [self.outcome(self.store.write(self.spend(str(n)))) for n in range(1, 101)]
        self.reactor.settle()
        self.assertEqual(results, [[1]] * 100)
        self.assertEqual(self.reactor.threads.count - before, 2)
        self.assertEqual(len(self.tickets()), 101)

    def test_one_that_raises_is_undone_alone(self) -> None:
        """An operation that raises leaves nothing, gets its own exception, and does not disturb the others."""

        def bad(cursor: sqlite3.Cursor) -> None:
            cursor.execute(JTI, ("bad",))
            raise KeyError("mine")

        first = self.outcome(self.store.write(self.spend("a")))
        middle = self.outcome(self.store.write(bad))
        double = self.outcome(self.store.write(self.spend("a")))
        last = self.outcome(self.store.write(self.spend("c")))
        self.reactor.settle()
        self.assertEqual((first, last), ([1], [1]))
        self.assertIsInstance(middle[0], KeyError)
        self.assertIsInstance(double[0], sqlite3.IntegrityError)
        self.assertEqual(self.tickets(), ["a", "c"])

    def test_bounded(self) -> None:
        """Beyond the bound requests fail at once; musts are still taken."""
        self.patch(store_module, "REQUESTS_MAX", 2)
        self.do(self.spend("0"))
        self.reactor.threads.held = True
        flying = self.outcome(self.store.write(self.spend("a")))
        waiting = [self.outcome(self.store.write(self.spend(jti))) for jti in "bc"]
        beyond = self.outcome(self.store.write(self.spend("d")))
        must = self.outcome(self.store.must(self.spend("e"), "spending"))
        self.assertIsInstance(beyond[0], StoreUnavailable)
        self.reactor.threads.held = False
        self.reactor.threads.run()
        self.reactor.settle()
        self.assertEqual([flying, *waiting, must], [[1]] * 4)

    def test_batches_are_bounded(self) -> None:
        """A transaction has at most so many requests that other writers get their turn."""
        self.patch(store_module, "BATCH_MAX", 10)
        self.do(self.spend("0"))
        before = self.reactor.threads.count
        results = [self.outcome(self.store.write(self.spend(str(n)))) for n in range(1, 22)]
        self.reactor.settle()
        self.assertEqual(results, [[1]] * 21)
        self.assertEqual(self.reactor.threads.count - before, 3)

    def test_musts_are_done_in_order_in_the_end(self) -> None:
        """While the database is out of order writes fail, and musts wait; then they are done, in their order."""
        self.do(self.spend("0"))
        order: list[str] = []
        self.reactor.threads.broken = sqlite3.OperationalError("disk I/O error")
        write = self.outcome(self.store.write(self.spend("write")))
        musts = [
            self.outcome(self.store.must(lambda cursor, name=name: order.append(name), "noting"))
            for name in "abc"
        ]
        self.reactor.pass_time(5.0, 0.25)
        self.assertIsInstance(write[0], StoreUnavailable)
        self.assertEqual((order, musts), ([], [[], [], []]))
        self.reactor.threads.broken = None
        late = self.outcome(self.store.must(lambda cursor: order.append("d"), "noting"))
        self.reactor.pass_time(1.0, 0.25)
        self.assertEqual(order, ["a", "b", "c", "d"])
        self.assertEqual([*musts, late], [[None]] * 4)

    def test_new_writes_do_not_wait_for_a_pause(self) -> None:
        """While musts wait for the next try, a new write fails at once and is no try; then all goes on."""
        self.do(self.spend("0"))
        self.reactor.threads.broken = sqlite3.OperationalError("disk I/O error")
        must = self.outcome(self.store.must(self.spend("must"), "spending"))
        behind = self.outcome(self.store.write(self.spend("behind")))
        self.reactor.settle()
        self.assertIsInstance(behind[0], StoreUnavailable)
        before = self.reactor.threads.count
        for number in range(20):
            self.assertIsInstance(self.do(self.spend(str(number))), StoreUnavailable)
            self.reactor.advance(0.04)
        self.assertEqual(self.reactor.threads.count, before)
        self.reactor.threads.broken = None
        self.reactor.pass_time(0.3, 0.1)
        self.assertEqual((must, self.do(self.spend("late"))), ([1], 1))
        self.assertEqual(self.tickets(), ["0", "late", "must"])

    def test_reads_while_locked(self) -> None:
        """While another process holds the lock and musts wait for it, reads are answered, by the same connection."""
        self.patch(database, "BUSY_TIMEOUT", 0.01)
        self.store = self.make_store()
        self.do(self.spend("a"))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        must = self.outcome(self.store.must(self.spend("b"), "spending"))
        self.reactor.settle()
        for _ in range(5):
            read = self.outcome(
                self.store.read(lambda c: c.execute("SELECT count(*) FROM used_tickets").fetchone())
            )
            self.reactor.pass_time(0.5, 0.1)
            self.assertEqual((read, must), ([(1,)], []))
        other.execute("ROLLBACK")
        self.reactor.pass_time(1.1, 0.1)
        self.assertEqual((must, self.tickets()), ([1], ["a", "b"]))

    def test_reads_in_trouble_do_not_keep_writes_from_their_turn(self) -> None:
        """However many reads come while the database is in trouble, a write is tried between them."""
        self.do(self.spend("0"))
        self.reactor.threads.locked = True
        self.assertIsInstance(self.do(self.spend("a")), StoreUnavailable)
        self.reactor.threads.locked = False
        reads = 0

        def read_on(result: object) -> None:
            nonlocal reads
            reads += 1
            if reads < 50:
                self.store.read(lambda cursor: None).addCallback(read_on)

        read_on(None)
        write = self.store.write(self.spend("b")).addCallback(lambda _: reads)
        self.reactor.settle()
        self.assertLess(self.successResultOf(write), 5)
        self.assertEqual(reads, 50)

    def test_musts_that_raise(self) -> None:
        """A must that raises by its own fault is told and logged, not tried for ever."""
        result = self.outcome(self.store.must(lambda cursor: cursor.execute("rubbish"), "talking"))
        self.reactor.settle()
        self.assertIsInstance(result[0], sqlite3.OperationalError)
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)

    def test_locked(self) -> None:
        """While another process holds the lock, writes fail; the next one after it works."""
        self.patch(database, "BUSY_TIMEOUT", 0.01)
        self.store = self.make_store()
        self.do(self.spend("a"))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assertIsInstance(self.do(self.spend("b")), StoreUnavailable)
        read = self.outcome(self.store.read(lambda c: c.execute("SELECT 1").fetchone()))
        self.reactor.settle()
        other.execute("ROLLBACK")
        self.assertEqual(self.do(self.spend("b")), 1)
        self.assertEqual(self.tickets(), ["a", "b"])
        self.assertTrue(read)

    def test_full(self) -> None:
        """A full disk in the middle fails the transaction as a whole; nothing of it stays."""
        self.do(self.spend("a"))

        def fill(cursor: sqlite3.Cursor) -> None:
            pages = cursor.execute("PRAGMA page_count").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            for number in range(100):
                cursor.execute(JTI, (f"{number}" + "x" * 5000,))

        good = self.outcome(self.store.write(self.spend("b")))
        bad = self.outcome(self.store.write(fill))
        late = self.outcome(self.store.write(self.spend("c")))
        self.reactor.settle()
        self.assertEqual(good, [1])
        self.assertIsInstance(bad[0], StoreUnavailable)
        self.assertIsInstance(late[0], StoreUnavailable)
        self.assertEqual((self.tickets(), self.do(self.spend("d"))), (["a", "b"], 1))

    def test_one_line_for_an_incident(self) -> None:
        """However many requests fail, each kind of trouble is logged once, and its end."""
        lines: list[str] = []
        self.patch(store_module, "_log", _Lines(lines))
        self.do(self.spend("a"))
        self.reactor.threads.broken = sqlite3.OperationalError("disk I/O error")
        for number in range(20):
            self.assertIsInstance(self.do(self.spend(str(number))), StoreUnavailable)
        self.reactor.threads.broken = None
        self.do(self.spend("b"))
        self.assertEqual(len(lines), 2, lines)

    def test_missing_folder(self) -> None:
        """A database that cannot be made fails what is asked of it, and is made when it can."""
        folder = self.path.parent / "later"
        self.store = self.make_store(str(folder / "farm.db"))
        self.assertIsInstance(self.do(self.spend("a")), StoreUnavailable)
        folder.mkdir()
        self.assertEqual(self.do(self.spend("a")), 1)

    def test_no_database(self) -> None:
        """A file that is something else is left as it is."""
        self.path.write_text("this is no database, but somebody's letter\n" * 50)
        self.assertIsInstance(self.do(self.spend("a")), StoreUnavailable)
        self.assertIn("letter", self.path.read_text())

    def test_deleted(self) -> None:
        """A deleted database is made again, and what must be in it is put there, before anything else."""
        restored: list[int] = []
        self.store.restore = lambda cursor: restored.append(
            cursor.execute("SELECT count(*) FROM used_tickets").fetchone()[0]
        )
        self.do(self.spend("a"))
        self.do(self.spend("b"))
        self.assertEqual(restored, [0])
        for file in self.path.parent.glob("farm.db*"):
            file.unlink()
        self.assertEqual(self.do(self.spend("a")), 1)
        self.assertEqual((restored, self.tickets()), ([0, 0], ["a"]))

    def test_deleted_alone(self) -> None:
        """The database file may go alone, too: what SQLite keeps beside it does not come back in the new one."""
        self.do(self.spend("a"))
        self.path.unlink()
        self.do(self.spend("b"))
        self.assertEqual(self.tickets(), ["b"])

    def test_replaced_under_two(self) -> None:
        """Two who find the database replaced, one after the other, both go on with the new one."""
        second = self.make_store()
        self.do(self.spend("a"))
        self.outcome(second.write(self.spend("b")))
        self.reactor.settle()
        self.path.unlink()
        self.do(self.spend("c"))
        result = self.outcome(second.write(self.spend("d")))
        self.reactor.settle()
        self.do(self.spend("e"))
        self.assertEqual((result, self.tickets()), ([1], ["c", "d", "e"]))

    def test_replaced(self) -> None:
        """A database that another was moved over is the other one from then on."""
        self.do(self.spend("a"))
        aside = self.path.with_name("aside.db")
        other = self.make_store(str(aside))
        result = self.outcome(other.write(self.spend("other")))
        self.reactor.settle()
        other.close()
        self.reactor.settle()
        self.assertEqual(result, [1])
        aside.rename(self.path)
        self.do(self.spend("b"))
        self.assertEqual(self.tickets(), ["b", "other"])

    def test_emptied(self) -> None:
        """A database that was emptied in place is filled again."""
        restored: list[int] = []
        self.store.restore = lambda cursor: restored.append(1)
        self.do(self.spend("a"))
        with sqlite3.connect(self.path) as other:
            for (name,) in other.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall():
                other.execute(f"DROP TABLE {name}")
            other.execute("PRAGMA user_version = 0")
        other.close()
        self.do(self.spend("b"))
        self.assertEqual((self.tickets(), restored), (["b"], [1, 1]))

    def test_restored_when_it_is_committed(self) -> None:
        """What follows from restoring happens when that is in the database, not when it was undone."""
        told: list[int] = []

        def restore(cursor: sqlite3.Cursor) -> Any:
            cursor.execute(JTI, ("restored",))
            return lambda: told.append(len(self.tickets())) or 1 / 0

        def fill(cursor: sqlite3.Cursor) -> None:
            cursor.execute("PRAGMA max_page_count = 1")
            cursor.execute(JTI, ("x" * 100_000,))

        self.store.restore = restore
        self.assertIsInstance(self.do(fill), StoreUnavailable)
        self.assertEqual(told, [])
        self.assertEqual(self.do(self.spend("a")), 1)
        self.assertEqual(told, [2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_restoring_again_after_a_failure(self) -> None:
        """What could not be restored because the transaction failed is restored by the next one."""
        attempts: list[int] = []

        def restore(cursor: sqlite3.Cursor) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise sqlite3.OperationalError("disk I/O error")

        self.store.restore = restore
        self.assertIsInstance(self.do(self.spend("a")), StoreUnavailable)
        self.do(self.spend("a"))
        self.do(self.spend("b"))
        self.assertEqual(len(attempts), 2)

    def test_newer_database(self) -> None:
        """A database of a newer version is not touched, and the error says what to do."""
        with sqlite3.connect(self.path) as other:
            other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        other.close()
        error = self.do(self.spend("a"))
        self.assertIsInstance(error, StoreError)
        self.assertIn("newer", str(error))

    def test_upgrades_in_order(self) -> None:
        """A database of an older version gets the scripts that it does not have yet, in one transaction."""
        self.do(self.spend("a"))
        self.store.close()
        self.reactor.settle()
        scripts = [(1, "rubbish;"), (2, "CREATE TABLE two (x);"), (3, "ALTER TABLE two ADD y;")]
        self.patch(upgrades, "_SCRIPTS", scripts)
        self.patch(upgrades, "SCHEMA_VERSION", 3)
        self.store = self.make_store()
        self.assertEqual(self.do(lambda c: c.execute("SELECT y FROM two").fetchall()), [])
        self.assertEqual(self.do(lambda c: c.execute("PRAGMA user_version").fetchone()), (3,))

    def test_upgrade_that_fails(self) -> None:
        """An upgrade that fails leaves the old version whole."""
        self.do(self.spend("a"))
        self.store.close()
        self.reactor.settle()
        with self.patched_scripts([(2, "CREATE TABLE two (x); rubbish;")], 2):
            self.store = self.make_store()
            self.assertIsInstance(self.do(self.spend("b")), StoreUnavailable)
        self.store = self.make_store()
        self.assertEqual(self.do(self.spend("c")), 1)

    def patched_scripts(self, scripts: list[tuple[int, str]], version: int) -> Any:
        from unittest.mock import patch

        return patch.multiple(upgrades, _SCRIPTS=scripts, SCHEMA_VERSION=version)

    def test_memory(self) -> None:
        """``:memory:`` is a database of its own."""
        self.store = self.make_store(":memory:")
        self.assertEqual([self.do(self.spend("a")), self.do(self.spend("b"))], [1, 1])

    def test_close(self) -> None:
        """Closing does first what was asked before, and takes nothing more."""
        self.do(self.spend("a"))
        flying, must = self.outcome(self.store.write(self.spend("b"))), None
        must = self.outcome(self.store.must(self.spend("c"), "spending"))
        closed = self.outcome(self.store.close())
        again = self.outcome(self.store.write(self.spend("d")))
        self.reactor.settle()
        self.assertEqual((flying, must, closed), ([1], [1], [None]))
        self.assertIsInstance(again[0], StoreUnavailable)
        self.assertEqual(self.tickets(), ["a", "b", "c"])

    def test_close_in_trouble(self) -> None:
        """Closing does not wait for a database that is out of order, and nobody is left waiting."""
        self.do(self.spend("a"))
        self.reactor.threads.broken = sqlite3.OperationalError("disk I/O error")
        self.store.must(self.spend("b"), "spending")
        flying = self.outcome(self.store.write(self.spend("c")))
        self.reactor.settle()
        closed = self.outcome(self.store.close())
        self.reactor.settle()
        self.assertEqual((closed, len(flying)), ([None], 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_without_an_answer(self) -> None:
        """A thread that hangs holds up the end for 10 s; when it answers after all the database is closed."""
        self.do(self.spend("0"))
        self.reactor.threads.held = True
        asked = self.outcome(self.store.write(self.spend("1")))
        closed = self.outcome(self.store.close())
        self.reactor.pass_time(9.0, 0.5)
        self.assertEqual(closed, [])
        self.reactor.pass_time(2.0, 0.5)
        self.assertEqual((closed, self.reactor.getDelayedCalls()), ([None], []))
        self.reactor.threads.held = False
        self.reactor.threads.run()
        self.reactor.settle()
        self.assertEqual((asked, self.tickets()), ([1], ["0", "1"]))
        self.assertIsNone(self.store._give_up)

    def test_close_before_anything(self) -> None:
        """A store that was never used can be closed."""
        closed = self.outcome(self.store.close())
        self.assertEqual(closed, [None])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ToldTests(SynchronousTestCase):
    def test_faults_are_logged(self) -> None:
        """The store's own trouble is not told twice; what else went wrong does not pass in silence."""
        store_module.told_by_store(Failure(StoreUnavailable("locked")))
        store_module.told_by_store(Failure(StoreError("newer")))
        self.assertEqual(self.flushLoggedErrors(), [])
        store_module.told_by_store(Failure(KeyError("fault")))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class _Lines:
    """Takes a logger's place."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def error(self, line: str, **_: object) -> None:
        self._lines.append(line)

    info = error
