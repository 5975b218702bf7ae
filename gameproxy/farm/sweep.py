"""What has had its time, and leaves the tables: tickets, bans, and game servers that closed long ago."""

from __future__ import annotations

import math
import sqlite3
from typing import Final

_FORGET_CLOSED_AFTER: Final = 3600.0
_CLOSED: Final = "game_servers WHERE state = 'closed' AND origin = 'started' AND taken = 0"
_LEFT: Final = "origin = 'unlisted' AND taken = 0"
"""Of servers that are no longer listed, and that the last session has left."""
_TIME: Final = "CASE WHEN typeof({0}) = 'real' AND {0} < :latest THEN {0} ELSE 0 END"
"""The times in a row; what game servers wrote in other words, as text or in milliseconds, is none."""
_CLOSED_AT: Final = f"max({_TIME.format('started_at')}, {_TIME.format('heartbeat_at')})"


def sweep(cursor: sqlite3.Cursor, now: float) -> None:
    """Remove tickets and bans that have expired, and servers that closed long ago; close those that have drained since
    nobody lists them."""
    cursor.execute("DELETE FROM used_tickets WHERE expires_at < ?", (now,))
    cursor.execute("DELETE FROM bans WHERE expires_at <= ?", (now,))
    cursor.execute(
        f"UPDATE game_servers SET state = 'closed', origin = 'listed' WHERE {_LEFT}"  # noqa: S608 - constants
    )
    closed_before = f"{_CLOSED} AND {_CLOSED_AT} < :before"
    times = {"before": now - _FORGET_CLOSED_AFTER, "latest": now + _FORGET_CLOSED_AFTER}
    sums = cursor.execute(
        "SELECT game, CAST(total(connections_added) AS INTEGER), "  # noqa: S608 - constants
        f"CAST(total(connections_removed) AS INTEGER) FROM {closed_before} "
        "GROUP BY game ORDER BY game",
        times,
    ).fetchall()
    for game, added, removed in sums:
        _add_to_closed(cursor, game, added, removed)
    if sums:
        cursor.execute(f"DELETE FROM {closed_before}", times)  # noqa: S608 - constants


def next_sweep(cursor: sqlite3.Cursor, now: float) -> float:
    """When something of what is there now has had its time; infinity when nothing ever has."""
    (at,) = cursor.execute(
        "SELECT min(at) FROM (SELECT min(expires_at) AS at FROM used_tickets "  # noqa: S608 - constants
        "UNION ALL SELECT min(expires_at) FROM bans "
        f"UNION ALL SELECT min({_CLOSED_AT}) + :life FROM {_CLOSED} "
        f"UNION ALL SELECT min(0) FROM game_servers WHERE {_LEFT})",
        {"life": _FORGET_CLOSED_AFTER, "latest": now + _FORGET_CLOSED_AFTER},
    ).fetchone()
    return float(at) if isinstance(at, int | float) else math.inf


def _add_to_closed(cursor: sqlite3.Cursor, game: str, added: int, removed: int) -> None:
    """What servers counted stays part of the farm's sums, in one row for each game."""
    # Should a listed server have that id, its row takes them, and the sums are right too.
    name = f"closed {game}"
    cursor.execute(
        "INSERT OR IGNORE INTO game_servers (id, game, state, capacity, origin) "
        "VALUES (?, ?, 'closed', 0, 'closed')",
        (name, game),
    )
    cursor.execute(
        "UPDATE game_servers SET connections_added = connections_added + ?, "
        "connections_removed = connections_removed + ? WHERE id = ?",
        (added, removed, name),
    )
