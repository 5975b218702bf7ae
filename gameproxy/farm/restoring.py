"""What a proxy puts back into the database: rows that are missing, or in a backup from another time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gameproxy.farm.registry import StartedServer
from gameproxy.farm.slots import Place
from gameproxy.interfaces import Identity
from gameproxy.reasons import CloseReason

_RECORD: Final = "UPDATE game_servers SET pid = ?, process_started = ?, place = ? WHERE id = ?"


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot as its proxy remembers it, to be written again into a database that lost it.

    :param evicted: whether the session is being ended already.
    :param tried: servers that it is not to be given now.
    """

    session: str
    place: Place | None
    identity: Identity
    address: str
    game: str
    state: str
    evicted: bool
    tried: tuple[str, ...]

    @property
    def server(self) -> str | None:
        """The game server on which it is."""
        return None if self.place is None else self.place.server


def as_used(servers: Iterable[StartedServer], slots: Iterable[SlotRow]) -> list[StartedServer]:
    """The servers, and as ready those on which somebody is that were last seen starting: they say only once where they
    listen."""
    places = {slot.place.server: slot.place for slot in slots if slot.place is not None}
    return [
        replace(server, state="ready", host=place.host, port=place.port)
        if server.state == "starting" and (place := places.get(server.id)) is not None
        else server
        for server in servers
    ]


def restore_servers(cursor: sqlite3.Cursor, proxy: str, servers: Iterable[StartedServer]) -> None:
    """Write the rows of started servers again, where they are missing or from a time before they were ready, or before
    their processes were recorded."""
    for server in servers:
        process = server.process
        if server.state != "starting":
            cursor.execute(
                "DELETE FROM game_servers WHERE id = ? AND state = 'starting'", (server.id,)
            )
        cursor.execute(
            "INSERT OR IGNORE INTO game_servers (id, game, state, host, port, capacity, "
            "heartbeat_at, started_at, proxy, pid, process_started, place) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                server.id,
                server.game,
                server.state,
                server.host,
                server.port,
                server.capacity,
                server.heartbeat_at,
                server.started_at,
                proxy,
                process and process.pid,
                process and process.started,
                process and process.place,
            ),
        )
        if process is not None:
            cursor.execute(
                f"{_RECORD} AND pid IS NULL",
                (process.pid, process.started, process.place, server.id),
            )


def record_process(cursor: sqlite3.Cursor, proxy: str, server: StartedServer) -> bool:
    """Remember which process a server is that has just been started, even if its row has been lost meanwhile.

    :return: whether its row waits for it; not when somebody has given the start up meanwhile.
    """
    restore_servers(cursor, proxy, [server])
    process = server.process
    assert process is not None
    cursor.execute(
        f"{_RECORD} AND state = 'starting'",
        (process.pid, process.started, process.place, server.id),
    )
    return cursor.rowcount > 0


def restore_slots(
    cursor: sqlite3.Cursor, proxy: str, slots: Sequence[SlotRow], now: float
) -> tuple[list[str], list[str]]:
    """Write a proxy's slots again, where they are missing or, in a backup, from another time.

    :return: the sessions for which there is no room any more; those that are in the database alone.
    """
    rows = cursor.execute("SELECT session FROM slots WHERE proxy = ? ORDER BY arrival", (proxy,))
    found = {session: None for (session,) in rows}
    known = {slot.session: None for slot in slots}
    strays = [session for session in found if session not in known]
    unfit = [slot for slot in slots if not _put(cursor, proxy, slot, found, now)]
    if unfit:
        # Where there is no room there may be sessions that are over, or are somewhere else now.
        ended = [*strays, *(slot.session for slot in unfit)]
        cursor.executemany("DELETE FROM slots WHERE session = ?", [(s,) for s in ended])
    homeless = [slot.session for slot in unfit if not _put(cursor, proxy, slot, (), now)]
    return homeless, strays


def _put(
    cursor: sqlite3.Cursor, proxy: str, slot: SlotRow, found: Container[str], now: float
) -> bool:
    """Write a slot as it is.

    :param found: sessions that have a row already.
    :return: whether there is room for it.
    """
    try:
        if slot.session not in found:
            _insert_slot(cursor, proxy, slot, now)
        else:
            cursor.execute(
                "UPDATE slots SET server = ?, state = ?, tried = ? WHERE session = ?",
                (slot.server, slot.state, json.dumps(slot.tried), slot.session),
            )
    except sqlite3.IntegrityError:
        return False
    return True


def _insert_slot(cursor: sqlite3.Cursor, proxy: str, slot: SlotRow, now: float) -> None:
    """Write a slot again. Who has come again meanwhile, elsewhere, has replaced this session."""
    evict = CloseReason.INTERNAL if slot.evicted else None
    if evict is None and not slot.identity.is_guest:
        twin = cursor.execute(
            "SELECT 1 FROM slots WHERE player = ? AND proxy <> ? AND evict IS NULL",
            (slot.identity.player, proxy),
        ).fetchone()
        evict = CloseReason.REPLACED if twin is not None else None
    cursor.execute(
        "INSERT INTO slots (session, server, proxy, player, address, game, state, queued_at, "
        "tried, evict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            slot.session,
            slot.server,
            proxy,
            slot.identity.player,
            slot.address,
            slot.game,
            slot.state,
            now,
            json.dumps(slot.tried),
            evict,
        ),
    )
