"""Which game server a session gets: a query on an index. Its cost does not grow with the farm, but for ``random``,
which counts the servers that suit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final, Protocol

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


class Selector(Protocol):
    """Picks game servers. It is called in the database's thread, within the transaction that takes the slot."""

    def pick(self, cursor: sqlite3.Cursor, game: str, excluded: Iterable[str] = ()) -> str | None:
        """The id of a server of ``game`` to be used next, ``None`` if there is none.

        :param cursor: to read game_servers with; rows with ``open = 1`` are ready and have a free slot.
        :param excluded: servers that must not be picked.
        """
        ...


class StrategySelector:
    """Picks game servers by one of the strategies of the configuration.

    :param strategy: ``packed`` (fullest first), ``least_connections`` or ``random``.
    :param max_load: only servers below this load are picked.
    :param entropy: for the database's thread alone.
    """

    def __init__(self, strategy: str, max_load: float, entropy: Entropy) -> None:
        self.strategy = strategy
        self.max_load = max_load
        self._entropy = entropy

    def pick(self, cursor: sqlite3.Cursor, game: str, excluded: Iterable[str] = ()) -> str | None:
        """The first server of ``game`` that suits, in the strategy's order."""
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
