"""What monitoring asks of the tables: few numbers, whatever the size of the farm. One operation on a cursor."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from gameproxy.farm.reports import farm_stats

SERVER_STATES: Final = ("starting", "ready", "draining", "lost")
"""Those of game servers that are not closed."""
BAN_KINDS: Final = ("player", "address")


@dataclass(frozen=True, slots=True)
class Queue:
    """A game's queue.

    :param waiting: how many sessions wait in it, at all proxies.
    :param oldest: for how many seconds the first of them has.
    """

    waiting: int = 0
    oldest: float = 0.0


@dataclass(frozen=True, slots=True)
class GameCounts:
    """How a game stands.

    :param servers: its game servers that are not closed, by state.
    :param connected: slots whose sessions relay; ``reserved`` those whose do not yet; ``free`` those that may be taken.
    :param failed_starts: in a row.
    """

    servers: dict[str, int] = field(default_factory=dict)
    connected: int = 0
    reserved: int = 0
    free: int = 0
    failed_starts: int = 0
    queue: Queue = Queue()


@dataclass(frozen=True, slots=True)
class FarmCounts:
    """How the whole farm stands.

    :param games: those that were asked for, each of which is there.
    :param bans: bans that are not over, by kind.
    :param proxies: how many take part.
    :param relayed: sessions that have begun to relay since the farm was made.
    """

    games: dict[str, GameCounts]
    bans: dict[str, int]
    proxies: int
    relayed: int


def farm_counts(cursor: sqlite3.Cursor, games: tuple[str, ...], now: float) -> FarmCounts:
    """Count.

    :param games: whose numbers are wanted; rows of others, whoever wrote them, count for nothing.
    """
    stats = farm_stats(cursor)
    rows = cursor.execute(
        "SELECT game, state, count(*), CAST(total(connections) AS INTEGER), "
        "CAST(total(reserved) AS INTEGER), "
        "CAST(total(capacity - taken) FILTER (WHERE open = 1) AS INTEGER) "
        "FROM game_servers WHERE state <> 'closed' GROUP BY game, state"
    ).fetchall()
    queues = {
        game: Queue(waiting, max(now - queued_at, 0.0))
        for game, waiting, queued_at in cursor.execute(
            "SELECT game, count(*), CAST(min(queued_at) AS REAL) FROM slots "
            "WHERE state = 'queued' GROUP BY game"
        )
    }
    failures = dict(cursor.execute("SELECT game, CAST(streak AS INTEGER) FROM starts").fetchall())
    bans = cursor.execute(
        "SELECT kind, count(*) FROM bans WHERE expires_at IS NULL OR expires_at > ? GROUP BY kind",
        (now,),
    ).fetchall()
    (proxies,) = cursor.execute("SELECT count(*) FROM proxies").fetchone()
    counts = {}
    for game in games:
        own = [row[1:] for row in rows if row[0] == game]
        counts[game] = GameCounts(
            servers={state: count for state, count, *_ in own if state in SERVER_STATES},
            connected=sum(row[2] for row in own),
            reserved=sum(row[3] for row in own),
            free=sum(row[4] for row in own),
            failed_starts=failures.get(game, 0),
            queue=queues.get(game, Queue()),
        )
    return FarmCounts(
        games=counts,
        bans={kind: count for kind, count in bans if kind in BAN_KINDS},
        proxies=proxies,
        relayed=int(str(stats["connections_added"])),
    )
