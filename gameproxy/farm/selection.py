"""Which game server a session gets: one query on an index, at a cost that does not grow with the farm."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from gameproxy.interfaces import Entropy

_SUITS: Final = (
    "FROM game_servers WHERE open = 1 AND game = :game "
    "AND id NOT IN (SELECT value FROM json_each(:excluded))"
)
QUERIES: Final = {
    "packed": f"SELECT id {_SUITS} AND load < :max_load ORDER BY load DESC, id LIMIT 1",
    # The plus keeps SQLite from the index by load, which is in the wrong order here.
    "least_connections": f"SELECT id {_SUITS} AND +load < :max_load ORDER BY taken, id LIMIT 1",
}
"""The strategies that are an order; the indexes of the schema give it."""
_COUNT: Final = f"SELECT count(*) {_SUITS} AND load < :max_load"
_NTH: Final = f"SELECT id {_SUITS} AND load < :max_load ORDER BY id LIMIT 1 OFFSET :offset"


class Selector:
    """Picks game servers.

    :param strategy: ``packed`` (fullest first), ``least_connections`` or ``random``.
    :param max_load: only servers below this load are picked.
    """

    def __init__(self, strategy: str, max_load: float, entropy: Entropy) -> None:
        self.strategy = strategy
        self.max_load = max_load
        self._entropy = entropy

    def pick(self, cursor: sqlite3.Cursor, game: str, excluded: Iterable[str] = ()) -> str | None:
        """The id of a server of ``game`` that has a free slot and is none of ``excluded``; ``None`` if none suits."""
        arguments: dict[str, object] = {
            "game": game,
            "max_load": self.max_load,
            "excluded": json.dumps(list(excluded)),
        }
        if self.strategy != "random":
            row = cursor.execute(QUERIES[self.strategy], arguments).fetchone()
            return None if row is None else str(row[0])
        count = cursor.execute(_COUNT, arguments).fetchone()[0]
        if not count:
            return None
        arguments["offset"] = int.from_bytes(self._entropy(8), "big") % count
        return str(cursor.execute(_NTH, arguments).fetchone()[0])
