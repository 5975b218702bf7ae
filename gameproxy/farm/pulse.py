"""This proxy's sign of life, as its row says it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

TOLD_FOR: Final = 10.0
"""Seconds for which a sign of life tells that the database is as this proxy left it: a backup that is older than that
has none that is younger."""


class Pulse:
    """Renews the sign of life, and knows by it whether the database is as this proxy left it.

    Used in the database's thread.

    :param clock: gives the time in seconds since the epoch.
    :ivar count: how many were written.
    """

    def __init__(self, proxy: str, clock: Callable[[], float]) -> None:
        self._proxy = proxy
        self._clock = clock
        self._at = 0.0
        self.count = 0

    def begin(self, at: float) -> None:
        """The proxy was registered, with that as its sign of life: seconds since the epoch."""
        self._at = at

    def is_there(self, cursor: sqlite3.Cursor) -> bool:
        """Whether the last one is, and tells something still: not when this proxy was removed, nor when a backup was
        written into the file."""
        return self.is_found(cursor) and self._is_young()

    def is_found(self, cursor: sqlite3.Cursor) -> bool:
        """Whether the last one is there, however old it is."""
        return self._find(cursor) == self._at

    def is_another(self, cursor: sqlite3.Cursor) -> bool:
        """Whether one is there that is not the last: then this is a backup."""
        return self._find(cursor) not in (None, self._at)

    def is_last(self, beat: float) -> bool:
        """Whether a sign of life that was found in this proxy's row is the last one, and tells something still."""
        return beat == self._at and self._is_young()

    def renew(self, cursor: sqlite3.Cursor, now: float) -> bool:
        """Give a sign of life, with one statement.

        :return: whether that was done; not when the last one is not there, or tells nothing any more.
        """
        if not self._is_young():
            return False
        cursor.execute(
            "UPDATE proxies SET beat = ? WHERE id = ? AND beat = ?", (now, self._proxy, self._at)
        )
        if not cursor.rowcount:
            return False
        self._at = now
        self.count += 1
        return True

    def _find(self, cursor: sqlite3.Cursor) -> float | None:
        """The one that is there."""
        row = cursor.execute("SELECT beat FROM proxies WHERE id = ?", (self._proxy,)).fetchone()
        return None if row is None else row[0]

    def _is_young(self) -> bool:
        """A proxy that stood still has given no other meanwhile: then the last one may be a backup's too."""
        return 0 <= self._clock() - self._at < TOLD_FOR
