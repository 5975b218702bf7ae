"""This proxy's sign of life, as its row says it."""

from __future__ import annotations

import sqlite3


class Pulse:
    """Renews the sign of life, and knows by it whether the database is as this proxy left it.

    Used in the database's thread.

    :ivar count: how many were written.
    """

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        self._at = 0.0
        self.count = 0

    def begin(self, at: float) -> None:
        """The proxy was registered, with that as its sign of life: seconds since the epoch."""
        self._at = at

    def is_there(self, cursor: sqlite3.Cursor) -> bool:
        """Whether the last one is: not when this proxy was removed, nor when a backup was written into the file."""
        row = cursor.execute("SELECT beat FROM proxies WHERE id = ?", (self._proxy,)).fetchone()
        return row is not None and self.is_last(row[0])

    def is_last(self, beat: float) -> bool:
        """Whether a sign of life that was found in this proxy's row is the last one."""
        return beat == self._at

    def renew(self, cursor: sqlite3.Cursor, now: float) -> bool:
        """Give a sign of life, with one statement.

        :return: whether that was done; not when the last one is not there.
        """
        cursor.execute(
            "UPDATE proxies SET beat = ? WHERE id = ? AND beat = ?", (now, self._proxy, self._at)
        )
        if not cursor.rowcount:
            return False
        self._at = now
        self.count += 1
        return True
