"""Which game server a session gets: a few queries on indexes, whose cost does not grow with the farm."""

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
SOME: Final = 8
"""How many of the fullest servers that suit ``random`` looks at first."""
DRAWS: Final = 64
"""How often, at most, it then draws one of all that are ready until it meets one that suits."""
_SOME: Final = f"SELECT id {_SUITS} AND load < :max_load ORDER BY load DESC, id LIMIT {SOME}"
_LOTS: Final = (
    "SELECT max(1, coalesce((SELECT CAST(lot AS INTEGER) FROM game_servers "
    "WHERE game = :game AND lot IS NOT NULL ORDER BY lot DESC LIMIT 1), 1))"
)
# The plus keeps SQLite to the index by lot.
_LOT: Final = f"SELECT id {_SUITS} AND +load < :max_load AND lot = :lot LIMIT 1"


def room_below(max_load: float, capacity: int) -> int:
    """How many sessions an empty game server gets until its load has reached ``max_load``."""
    if capacity <= 0:
        return 0
    # Rounding may leave it one short.
    taken = int(capacity * max_load)
    return taken + (taken / capacity < max_load)


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
        return self._draw(cursor, arguments)

    def _draw(self, cursor: sqlite3.Cursor, arguments: dict[str, object]) -> str | None:
        """One at random. All that suit have the same chance, but for the draws that meet none of them.

        Where ``s`` is the part of the ready servers that suits, these are ``(1 - s) ** DRAWS`` of all: less than 1 in
        800 where one in ten suits, 1 in 27 where one in twenty does. Then it is one of the fullest that suit.
        """
        some = [str(row[0]) for row in cursor.execute(_SOME, arguments)]
        if len(some) == SOME:
            lots = cursor.execute(_LOTS, arguments).fetchone()[0]
            for _ in range(DRAWS):
                arguments["lot"] = 1 + self._choose(lots)
                row = cursor.execute(_LOT, arguments).fetchone()
                if row is not None:
                    return str(row[0])
        return some[self._choose(len(some))] if some else None

    def _choose(self, count: int) -> int:
        """A number from 0 to below ``count``."""
        return int.from_bytes(self._entropy(8), "big") % count
