"""What the tables say, for people: sums and rows. Each function is one operation on a cursor."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
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
    names = ("connections", "connections_added", "connections_removed", "reserved")
    # What somebody edited to something else than a number of sessions counts for nothing.
    totals = (f"total({name}) FILTER (WHERE typeof({name}) = 'integer')" for name in names)
    by_state = cursor.execute(
        "SELECT state, count(*) FROM game_servers GROUP BY state ORDER BY state"
    ).fetchall()
    sums = cursor.execute(f"SELECT {', '.join(totals)} FROM game_servers").fetchone()  # noqa: S608 - constants
    return {"servers": dict(by_state)} | {
        name: int(value) for name, value in zip(names, sums, strict=True)
    }


def queue_length(cursor: sqlite3.Cursor) -> int:
    """How many sessions wait, at all proxies and for all games."""
    row = cursor.execute("SELECT count(*) FROM slots WHERE state = 'queued'").fetchone()
    return int(row[0])


def server_rows(
    cursor: sqlite3.Cursor, limit: int = -1, offset: int = 0
) -> list[dict[str, object]]:
    """The game servers that are not closed, by game and id.

    :param limit: how many at most; negative: all.
    :param offset: how many of the first are left out.
    """
    rows = cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM game_servers WHERE state <> 'closed' "  # noqa: S608 - constants
        "ORDER BY game, id LIMIT ? OFFSET ?",
        (limit, offset),
    )
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


def ban_rows(
    cursor: sqlite3.Cursor, now: float, limit: int = -1, offset: int = 0
) -> list[dict[str, object]]:
    """The bans that are not over, by kind and subject; ``limit`` and ``offset`` as of :func:`server_rows`."""
    rows = cursor.execute(
        f"SELECT {', '.join(_BAN_COLUMNS)} FROM bans "  # noqa: S608 - constants
        "WHERE expires_at IS NULL OR expires_at > ? ORDER BY kind, subject LIMIT ? OFFSET ?",
        (now, limit, offset),
    )
    return [dict(zip(_BAN_COLUMNS, row, strict=True)) for row in rows]


def ban_row(cursor: sqlite3.Cursor, kind: str, subject: str) -> dict[str, object] | None:
    """The ban of a player or an address, written as it was banned."""
    row = cursor.execute(
        f"SELECT {', '.join(_BAN_COLUMNS)} FROM bans WHERE kind = ? AND subject = ?",  # noqa: S608 - constants
        (kind, subject),
    ).fetchone()
    return None if row is None else dict(zip(_BAN_COLUMNS, row, strict=True))


@dataclass(frozen=True, slots=True)
class FarmStatus:
    """What the status of a proxy tells of the farm: how many sessions wait, its sums, and how each game stands."""

    waiting: int
    stats: dict[str, object]
    games: list[dict[str, object]]

    def document(self) -> dict[str, object]:
        """The same for programs."""
        return {"queue": {"length": self.waiting}, "farm": self.stats, "games": self.games}


def farm_status(cursor: sqlite3.Cursor) -> FarmStatus:
    """How the farm stands."""
    return FarmStatus(queue_length(cursor), farm_stats(cursor), game_rows(cursor))


def proxy_rows(cursor: sqlite3.Cursor) -> list[dict[str, object]]:
    """The proxies that take part in the farm: ``id``, ``pid``, and ``beat``, their last sign of life."""
    rows = cursor.execute("SELECT id, pid, beat FROM proxies ORDER BY id")
    return [dict(zip(("id", "pid", "beat"), row, strict=True)) for row in rows]


def game_rows(cursor: sqlite3.Cursor) -> list[dict[str, object]]:
    """How each game stands: ``game``, ``sessions`` and how many of them are ``waiting``, ``servers`` that are not
    closed and ``free`` slots on those that are ready; of its starts the ``failures`` in a row, and until when none is
    made (``not_before``)."""
    names = ("game", "sessions", "waiting", "servers", "free", "failures", "not_before")
    rows = cursor.execute(
        "WITH games AS (SELECT game FROM game_servers WHERE state <> 'closed' "
        "UNION SELECT game FROM slots UNION SELECT game FROM starts WHERE streak > 0) "
        "SELECT game, (SELECT count(*) FROM slots WHERE slots.game = games.game), "
        "(SELECT count(*) FROM slots WHERE slots.game = games.game AND state = 'queued'), "
        "(SELECT count(*) FROM game_servers AS s WHERE s.game = games.game AND state <> 'closed'), "
        "(SELECT CAST(total(capacity - taken) AS INTEGER) FROM game_servers AS s "
        "WHERE s.game = games.game AND open = 1), "
        "coalesce((SELECT streak FROM starts WHERE starts.game = games.game), 0), "
        "coalesce((SELECT not_before FROM starts WHERE starts.game = games.game), 0.0) "
        "FROM games ORDER BY game"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]
