"""Who takes part in the farm, as rows: proxies, listed and started game servers, their sessions and their bans.

All of it runs in the database's thread, within transactions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gameproxy.config import ServerConfig
from gameproxy.farm.processes import Processes, ProcessName
from gameproxy.reasons import CloseReason

PROXY_LIFE: Final = 15.0
"""Seconds after a proxy's last sign of life when it counts as dead."""
START_PAUSE: Final = 1.0
LONGEST_START_PAUSE: Final = 60.0
"""Seconds before the next start of a game after a first failure, and after many."""
START_JITTER: Final = 0.25
"""By which part of itself, at most, chance makes such a pause longer."""


@dataclass(frozen=True, slots=True)
class ProxyRow:
    """A proxy that takes part.

    :param beat: its last sign of life: seconds since the epoch, or whatever somebody edited it to.
    :param process: ``None`` where somebody edited that to what names none.
    """

    id: str
    beat: float
    process: ProcessName | None


@dataclass(frozen=True, slots=True)
class StartedServer:
    """The row of a game server that a proxy started and that is not closed.

    Numbers that somebody edited to something else are ``None``.

    :param proxy: the proxy that looks after it.
    """

    id: str
    game: str
    state: str
    host: str | None
    port: int | None
    capacity: int
    taken: int
    connections_added: int
    proxy: str | None
    heartbeat_at: float | None
    started_at: float | None
    process: ProcessName | None


def register_proxy(cursor: sqlite3.Cursor, proxy: str, processes: Processes, now: float) -> None:
    """Take part, and sweep away the proxies of this machine that ended without saying so."""
    me = processes.me()
    dead = [p for p in dead_proxies(cursor, processes) if p != proxy]
    remove_proxies(cursor, dead)
    cursor.execute(
        "INSERT INTO proxies (id, beat, pid, process_started, place) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET beat = excluded.beat",
        (proxy, now, me.pid, me.started, me.place),
    )


def proxies(cursor: sqlite3.Cursor) -> list[ProxyRow]:
    """The proxies that take part."""
    rows = cursor.execute("SELECT id, beat, pid, process_started, place FROM proxies ORDER BY id")
    return [ProxyRow(name, beat, _process(*process)) for name, beat, *process in rows]


def dead_proxies(cursor: sqlite3.Cursor, processes: Processes) -> list[str]:
    """The proxies whose processes have certainly ended."""
    return [p.id for p in proxies(cursor) if p.process and processes.is_gone(p.process)]


def remove_proxies(cursor: sqlite3.Cursor, proxies: Iterable[str]) -> None:
    """They are dead or leave: their slots go with them."""
    cursor.executemany("DELETE FROM proxies WHERE id = ?", [(proxy,) for proxy in proxies])


def remove_old_proxies(cursor: sqlite3.Cursor, time: float) -> None:
    """Remove proxies whose signs of life are older than that: nobody has seen for how long they stand still."""
    cursor.execute("DELETE FROM proxies WHERE beat < ?", (time,))


def remove_silent_proxies(cursor: sqlite3.Cursor, proxies: Mapping[str, float]) -> None:
    """Remove proxies that gave no sign of life for long, unless they have given another since."""
    cursor.executemany("DELETE FROM proxies WHERE id = ? AND beat = ?", list(proxies.items()))


def list_servers(cursor: sqlite3.Cursor, proxy: str, servers: Sequence[ServerConfig]) -> None:
    """Make the rows of ``[[servers]]``. Those that no living proxy lists any more are closed; if somebody is on them,
    they are drained first, as ``unlisted`` ones."""
    for server in servers:
        cursor.execute(
            "INSERT INTO game_servers (id, game, state, host, port, capacity, origin, proxy) "
            "VALUES (?, ?, 'ready', ?, ?, ?, 'listed', ?) ON CONFLICT (id) DO UPDATE SET "
            "game = excluded.game, host = excluded.host, port = excluded.port, "
            "capacity = excluded.capacity, origin = 'listed', proxy = excluded.proxy, "
            # Who set it draining by hand does not want it back because a proxy restarts.
            "state = CASE WHEN state = 'draining' AND origin = 'listed' THEN state ELSE 'ready' END",
            (server.id, server.game, server.host, server.port, server.capacity, proxy),
        )
    cursor.execute(
        "UPDATE game_servers SET proxy = NULL, "
        "state = CASE WHEN taken > 0 THEN 'draining' ELSE 'closed' END, "
        "origin = CASE WHEN taken > 0 THEN 'unlisted' ELSE origin END "
        "WHERE origin = 'listed' AND state <> 'closed' "
        "AND (proxy = ? OR proxy IS NULL OR proxy NOT IN (SELECT id FROM proxies)) "
        "AND id NOT IN (SELECT value FROM json_each(?))",
        (proxy, json.dumps([server.id for server in servers])),
    )


def are_listed(cursor: sqlite3.Cursor, servers: Sequence[ServerConfig]) -> bool:
    """Whether proxies that take part list these servers: if one has left, others may have closed them then."""
    (listed,) = cursor.execute(
        "SELECT count(*) FROM game_servers WHERE id IN (SELECT value FROM json_each(?)) "
        "AND origin = 'listed' AND proxy IN (SELECT id FROM proxies)",
        (json.dumps([server.id for server in servers]),),
    ).fetchone()
    return bool(listed == len(servers))


def adopt_servers(cursor: sqlite3.Cursor, proxy: str) -> None:
    """Look after the started servers whose proxy is dead or gone."""
    cursor.execute(
        "UPDATE game_servers SET proxy = ? WHERE origin = 'started' AND state <> 'closed' "
        "AND (proxy IS NULL OR proxy NOT IN (SELECT id FROM proxies))",
        (proxy,),
    )


def started_servers(cursor: sqlite3.Cursor) -> list[StartedServer]:
    """The started servers that are not closed, of all proxies."""
    rows = cursor.execute(
        "SELECT id, game, state, host, port, capacity, taken, connections_added, proxy, "
        "heartbeat_at, started_at, pid, process_started, place FROM game_servers "
        "WHERE origin = 'started' AND state <> 'closed' ORDER BY id"
    )
    found = []
    for *fields, heartbeat_at, started_at, pid, started, place in rows:
        fields += _number(heartbeat_at), _number(started_at), _process(pid, started, place)
        found.append(StartedServer(*fields))
    return found


def _process(pid: object, started: str | None, place: object) -> ProcessName | None:
    if isinstance(pid, int) and isinstance(place, str):
        return ProcessName(pid, started, place)
    return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def close_server(cursor: sqlite3.Cursor, server: str, now: float, chance: float) -> None:
    """Its process has ended; a start that was under way has failed.

    :param chance: anything from 0 to 1, for the pause before the next start.
    """
    row = cursor.execute(
        "SELECT game, state FROM game_servers WHERE id = ? AND state <> 'closed'", (server,)
    ).fetchone()
    if row is None:
        return
    # A row that says nothing of its time has one from now on: the sweep goes by it.
    cursor.execute(
        "UPDATE game_servers SET state = 'closed', started_at = coalesce(started_at, ?) "
        "WHERE id = ?",
        (now, server),
    )
    if row[1] == "starting":
        _count_failure(cursor, row[0], now, chance)


def fail_start(cursor: sqlite3.Cursor, server: str, game: str, now: float, chance: float) -> bool:
    """A start took too long; ``False`` when the server became ready after all."""
    cursor.execute(
        "UPDATE game_servers SET state = 'draining' WHERE id = ? AND state = 'starting'", (server,)
    )
    if not cursor.rowcount:
        return False
    _count_failure(cursor, game, now, chance)
    return True


def _count_failure(cursor: sqlite3.Cursor, game: str, now: float, chance: float) -> None:
    cursor.execute("INSERT OR IGNORE INTO starts (game) VALUES (?)", (game,))
    cursor.execute(
        "UPDATE starts SET failures = failures + 1, streak = streak + 1 WHERE game = ?", (game,)
    )
    (last,) = cursor.execute(
        "SELECT CAST(pause AS REAL) FROM starts WHERE game = ?", (game,)
    ).fetchone()
    pause = min(max(2 * last, START_PAUSE), LONGEST_START_PAUSE / (1 + START_JITTER))
    # Of the starts that were under way together, one failure makes the pause; the others do not lengthen it.
    cursor.execute(
        "UPDATE starts SET pause = ?, not_before = ? "
        "WHERE game = ? AND CAST(not_before AS REAL) <= ?",
        (pause, now + pause * (1 + START_JITTER * chance), game, now),
    )


def set_state(cursor: sqlite3.Cursor, server: str, old: str, new: str) -> bool:
    """Change a server's state, if it is still the old one."""
    cursor.execute(
        "UPDATE game_servers SET state = ? WHERE id = ? AND state = ?", (new, server, old)
    )
    return cursor.rowcount > 0


def retire_server(cursor: sqlite3.Cursor, server: str, game: str, min_ready: int) -> bool:
    """Set an idle server draining, unless somebody has taken a slot or it is ready and has to be kept warm."""
    cursor.execute(
        "UPDATE game_servers SET state = 'draining' WHERE id = ? AND taken = 0 AND ("
        "state IN ('draining', 'lost') OR state = 'ready' AND ? < (SELECT count(*) FROM game_servers "
        "WHERE game = ? AND state = 'ready' AND origin = 'started'))",
        (server, min_ready, game),
    )
    return cursor.rowcount > 0


def ban(
    cursor: sqlite3.Cursor,
    kind: str,
    subject: str,
    reason: str,
    actor: str,
    now: float,
    until: float | None,
) -> None:
    """Ban a player or an address until then, ``None`` for ever; a longer ban stays as it is."""
    cursor.execute(
        "INSERT INTO bans (kind, subject, reason, actor, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kind, subject) DO UPDATE SET "
        "reason = excluded.reason, actor = excluded.actor, created_at = excluded.created_at, "
        "expires_at = excluded.expires_at WHERE expires_at IS NOT NULL "
        "AND (excluded.expires_at IS NULL OR expires_at < excluded.expires_at)",
        (kind, subject, reason, actor, now, until),
    )


def unban(cursor: sqlite3.Cursor, kind: str, subject: str) -> bool:
    """Lift a ban, written as it was; whether there was one."""
    cursor.execute("DELETE FROM bans WHERE kind = ? AND subject = ?", (kind, subject))
    return cursor.rowcount > 0


def kick(cursor: sqlite3.Cursor, player: str) -> int:
    """Mark all sessions of a player to be ended by their proxies; how many there are."""
    cursor.execute(
        "UPDATE slots SET evict = ? WHERE player = ? AND evict IS NULL",
        (CloseReason.KICKED, player),
    )
    return cursor.rowcount


def evicted_sessions(cursor: sqlite3.Cursor, proxy: str) -> list[tuple[str, CloseReason]]:
    """The sessions of a proxy that are marked to be ended by it, and why."""
    rows = cursor.execute(
        "SELECT session, evict FROM slots WHERE proxy = ? AND evict IS NOT NULL ORDER BY arrival",
        (proxy,),
    )
    return [(session, _reason(code)) for session, code in rows]


def _reason(code: object) -> CloseReason:
    try:
        return CloseReason(str(code))
    except ValueError:
        return CloseReason.KICKED
