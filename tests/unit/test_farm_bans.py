"""gameproxy.farm.bans: what was added is read alone, and comes to the same as reading all."""

from __future__ import annotations

import sqlite3
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.bans import Bans

SCHEMA = (files("gameproxy.farm") / "schema" / "0001.sql").read_text("utf-8")
SUBJECTS = st.sampled_from(
    [
        ("player", "ann"),
        ("player", "ben"),
        ("address", "192.0.2.1"),
        ("address", "192.0.2.1/32"),
        ("address", "192.0.2.0/24"),
        ("address", "::ffff:192.0.2.1"),
        ("address", "2001:db8::1"),
        ("address", "2001:db8::/64"),
        ("address", "nonsense"),
        ("other", "ann"),
    ]
)
UNTIL = st.sampled_from([None, 50.0, 100.0, 200.0])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["INSERT OR IGNORE", "INSERT OR REPLACE", "UPSERT", "DELETE", "LOOK"]),
        SUBJECTS,
        UNTIL,
    ),
    max_size=30,
)
INSERT = "INTO bans (kind, subject, expires_at) VALUES (?, ?, ?)"


def database() -> sqlite3.Cursor:
    """A farm without anything in it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    return connection.cursor()


def change(cursor: sqlite3.Cursor, how: str, subject: tuple[str, str], until: float | None) -> None:
    """Change a ban."""
    if how == "UPSERT":
        conflict = " ON CONFLICT (kind, subject) DO UPDATE SET expires_at = excluded.expires_at"
        cursor.execute("INSERT " + INSERT + conflict, (*subject, until))
    elif how == "DELETE":
        cursor.execute("DELETE FROM bans WHERE kind = ? AND subject = ?", subject)
    elif how != "LOOK":
        cursor.execute(f"{how} {INSERT}", (*subject, until))


def verdicts(bans: Bans, cursor: sqlite3.Cursor) -> list[float | None]:
    """Until when each of some is banned."""
    who = [("ann", ""), ("ben", ""), (None, "192.0.2.1"), (None, "192.0.2.9")]
    who += [(None, "2001:db8::1"), (None, "2001:db8::2"), (None, "2001:db8:1::")]
    return [bans.banned_until(cursor, player, address, 60.0) for player, address in who]


class BansTests(SynchronousTestCase):
    """gameproxy.farm.bans.Bans"""

    @given(CHANGES)
    def test_as_if_all_was_read(
        self, changes: list[tuple[str, tuple[str, str], float | None]]
    ) -> None:
        """Whatever changes, in whichever way, and whenever it is looked: it comes to the same as reading all bans."""
        cursor = database()
        bans = Bans()
        for how, subject, until in changes:
            change(cursor, how, subject, until)
            if how == "LOOK":
                self.assertEqual(verdicts(bans, cursor), verdicts(Bans(), cursor))
        self.assertEqual(verdicts(bans, cursor), verdicts(Bans(), cursor))

    def test_only_what_was_added(self) -> None:
        """When bans were only added, only these are read, however many there are."""
        cursor = database()
        rows = [("address", f"10.0.{n >> 8}.{n & 255}", None) for n in range(2000)]
        cursor.executemany("INSERT " + INSERT, rows)
        bans = Bans()
        self.assertIsNone(bans.banned_until(cursor, None, "192.0.2.1", 0.0))
        steps: list[int] = []
        cursor.connection.set_progress_handler(lambda: steps.append(1) and None, 100)
        change(cursor, "INSERT OR IGNORE", ("address", "192.0.2.0/24"), 100.0)
        self.assertEqual(bans.banned_until(cursor, None, "192.0.2.1", 0.0), 100.0)
        self.assertLess(len(steps), 10)
        change(cursor, "DELETE", ("address", "10.0.0.1"), None)
        self.assertIsNone(bans.banned_until(cursor, None, "10.0.0.1", 0.0))
        self.assertGreater(len(steps), 50)  # this is how reading all looks

    def test_replaced(self) -> None:
        """A ban that takes another's place, with its row, counts for that: also when it is shorter."""
        cursor = database()
        bans = Bans()
        for until in (200.0, 100.0):
            change(cursor, "INSERT OR REPLACE", ("address", "192.0.2.1"), until)
            self.assertEqual(bans.banned_until(cursor, None, "192.0.2.1", 0.0), until)
