"""What the tables say, for people: sums and rows. Each function is one operation on a cursor."""

from __future__ import annotations

import sqlite3
from typing import Final

_BAN_COLUMNS: Final = ("kind", "subject", "reason", "actor", "created_at", "expires_at")
_COLUMNS: Final = (
    "id",
    "game",
    "state",
    "origin",
    "host",
    "port",
    "capacity",
    "connections",
    "connections_added",
    "connections_removed",
    "reserved",
    "reported_load",
    "started_at",
    "heartbeat_at",
    "pid",
)


def farm_stats(cursor: sqlite3.Cursor) -> dict[str, object]:
    """The farm's sums: ``servers`` by state, ``connections``, ``connections_added``, ``connections_removed``,
    ``reserved``."""
    by_state = cursor.execute(
        "SELECT state, count(*) FROM game_servers GROUP BY state ORDER BY state"
    ).fetchall()
    sums = cursor.execute(
        "SELECT total(connections), total(connections_added), total(connections_removed), "
        "total(reserved) FROM game_servers"
    ).fetchone()
    names = ("connections", "connections_added", "connections_removed", "reserved")
    return {"servers": dict(by_state)} | {
        name: int(value) for name, value in zip(names, sums, strict=True)
    }


def queue_length(cursor: sqlite3.Cursor) -> int:
    """How many sessions wait, at all proxies and for all games."""
    row = cursor.execute("SELECT count(*) FROM slots WHERE state = 'queued'").fetchone()
    return int(row[0])


def server_rows(cursor: sqlite3.Cursor) -> list[dict[str, object]]:
    """The game servers that are not closed, by game and id."""
    rows = cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM game_servers WHERE state <> 'closed' ORDER BY game, id"  # noqa: S608 - constants
    )
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


def ban_rows(cursor: sqlite3.Cursor, now: float) -> list[dict[str, object]]:
    """The bans that are not over, by kind and subject."""
    rows = cursor.execute(
        f"SELECT {', '.join(_BAN_COLUMNS)} FROM bans "  # noqa: S608 - constants
        "WHERE expires_at IS NULL OR expires_at > ? ORDER BY kind, subject",
        (now,),
    )
    return [dict(zip(_BAN_COLUMNS, row, strict=True)) for row in rows]
