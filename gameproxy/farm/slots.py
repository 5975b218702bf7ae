"""The slots and the queue as rows: what a transaction does with them.

A :class:`SlotTable` has no state of its own and runs in the database's thread. Whoever looks serves the queue for all
proxies, in order of arrival; a session that another proxy served is found by its own at the next look.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gameproxy.config import GameConfig
from gameproxy.farm.bans import Bans
from gameproxy.farm.selection import Selector, room_below
from gameproxy.interfaces import Entropy, Identity, SlotRequest
from gameproxy.reasons import CloseReason, Refusal

QUEUE_FULL_PAUSE: Final = 5.0
"""Seconds after which somebody turned away from a full queue may try again."""
DUPLICATE_PAUSE: Final = 5.0
"""Seconds after which a player who has a session may try again: if its client is gone that has been noticed by then."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot is: a game server's id, host and TCP port."""

    server: str
    host: str
    port: int


@dataclass(slots=True)
class Outlook:
    """What a transaction found or did for the sessions that it was asked about.

    :param places: sessions that have a slot.
    :param positions: sessions that wait, with their positions; 1 is next.
    :param starting: whether a start of the game is under way.
    :param failures: how many starts of the game have failed, ever.
    :param streak: how many of the latest starts of the game have failed in a row.
    :param to_start: rows made in state ``starting``, which this proxy has to start now, each with its game as it was
        known then.
    :param evicted: sessions, of whatever proxy, that have to end: they were replaced.
    :param served: how many waiting sessions were given a slot, of all proxies.
    """

    places: dict[str, Place] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    starting: bool = False
    failures: int = 0
    streak: int = 0
    to_start: dict[str, GameConfig] = field(default_factory=dict)
    evicted: list[str] = field(default_factory=list)
    served: int = 0


@dataclass(frozen=True, slots=True)
class SlotTable:
    """What can be done with slots.

    ``resting``, in the methods, are servers that nobody is given now.

    :param proxy: this proxy's id.
    :param games: the games whose servers can be started, by name.
    :param duplicates: ``replace`` or ``refuse``.
    :param queue_size: most sessions that wait for one game.
    :param max_load: from which load on a game server gets no more sessions.
    :param entropy: for the database's thread alone.
    """

    proxy: str
    games: Mapping[str, GameConfig]
    duplicates: str
    queue_size: int
    max_load: float
    selector: Selector
    bans: Bans
    entropy: Entropy

    def take(
        self,
        cursor: sqlite3.Cursor,
        request: SlotRequest,
        resting: Sequence[str],
        nothing_left: Refusal,
        now: float,
    ) -> Outlook:
        """Take a slot for a new session, or a position in the queue.

        :param nothing_left: what to raise when there is no game server to wait for.
        :raises Refusal: it gets neither.
        """
        _spend_ticket(cursor, request.identity)
        self.check_bans(cursor, request.identity.player, request.peer.address, now)
        evicted = self._settle_duplicates(cursor, request.identity)
        cursor.execute(
            "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
            "VALUES (?, ?, ?, ?, ?, 'queued', ?)",
            (
                request.session,
                self.proxy,
                request.identity.player,
                request.peer.address,
                request.game,
                now,
            ),
        )
        outlook = self._serve(cursor, request.session, request.game, (), resting, nothing_left, now)
        outlook.evicted = evicted
        if outlook.positions:
            waiting = _count(cursor, "slots WHERE game = ? AND state = 'queued'", request.game)
            if waiting > self.queue_size:
                raise Refusal(CloseReason.QUEUE_FULL, retry_after=QUEUE_FULL_PAUSE)
        return outlook

    def move(
        self,
        cursor: sqlite3.Cursor,
        session: str,
        game: str,
        failed: Sequence[str],
        busy: Sequence[str],
        resting: Sequence[str],
        nothing_left: Refusal,
        now: float,
    ) -> Outlook:
        """Give a session's slot back and take another, or its old position in the queue.

        :param failed: servers that this session is not to be given any more.
        :param busy: servers that it is not to be given until :meth:`look` is told so.
        """
        cursor.execute(
            "UPDATE slots SET server = NULL, state = 'queued', tried = ? WHERE session = ?",
            (json.dumps([*failed, *busy]), session),
        )
        if not cursor.rowcount:
            raise Refusal(CloseReason.INTERNAL)
        return self._serve(cursor, session, game, failed, resting, nothing_left, now)

    def look(
        self,
        cursor: sqlite3.Cursor,
        game: str,
        sessions: Sequence[str],
        tried: Mapping[str, Sequence[str]],
        resting: Sequence[str],
        now: float,
    ) -> Outlook:
        """Serve a game's queue, start what it needs, and tell how these sessions stand.

        :param tried: for sessions for which it changed: the servers that they are not to be given now.
        """
        for session, servers in tried.items():
            cursor.execute(
                "UPDATE slots SET tried = ? WHERE session = ?",
                (json.dumps(list(servers)), session),
            )
        outlook = Outlook(served=self._match(cursor, game, resting))
        self._find(cursor, sessions, outlook)
        if len(outlook.places) < len(sessions):
            queue = cursor.execute(
                "SELECT session FROM slots WHERE game = ? AND state = 'queued' ORDER BY arrival",
                (game,),
            )
            positions = {row[0]: position for position, row in enumerate(queue, 1)}
            outlook.positions = {s: positions[s] for s in sessions if s in positions}
        self._plan(cursor, game, outlook, now)
        return outlook

    def connect(self, cursor: sqlite3.Cursor, session: str) -> None:
        """The session relays now."""
        # A backup may have it queued still, when it is over already and its row about to go.
        cursor.execute(
            "UPDATE slots SET state = 'connected' WHERE session = ? AND server IS NOT NULL",
            (session,),
        )

    def release(self, cursor: sqlite3.Cursor, session: str) -> None:
        """The session is over."""
        cursor.execute("DELETE FROM slots WHERE session = ?", (session,))

    def make_server(self, cursor: sqlite3.Cursor, game: str, now: float) -> str:
        """Make the row of a game server that is to be started, because somebody asks for it.

        :raises Refusal: the game is not started here, or there are as many as there may be.
        """
        startable = self.games.get(game)
        if startable is None:
            raise Refusal(CloseReason.UNKNOWN_GAME)
        if _count(cursor, f"{_STARTED} AND game = ?", game) >= startable.max_servers:
            raise Refusal(CloseReason.NO_SERVER)
        return self._make_row(cursor, startable, now)

    def check_bans(
        self, cursor: sqlite3.Cursor, player: str | None, address: str, now: float
    ) -> None:
        """:raises Refusal: the player or the address is banned."""
        until = self.bans.banned_until(cursor, player, address, now)
        if until is not None:
            retry_after = None if math.isinf(until) else until - now
            raise Refusal(CloseReason.BANNED, retry_after=retry_after)

    def _settle_duplicates(self, cursor: sqlite3.Cursor, identity: Identity) -> list[str]:
        """Mark the player's other sessions, at all proxies, to be ended."""
        if identity.is_guest:
            return []
        rows = cursor.execute(
            "SELECT session FROM slots WHERE player = ? AND evict IS NULL ORDER BY arrival",
            (identity.player,),
        )
        others = [session for (session,) in rows]
        if others and self.duplicates == "refuse":
            raise Refusal(CloseReason.ALREADY_CONNECTED, retry_after=DUPLICATE_PAUSE)
        cursor.executemany(
            "UPDATE slots SET evict = ? WHERE session = ?",
            [(CloseReason.REPLACED, session) for session in others],
        )
        return others

    def _serve(
        self,
        cursor: sqlite3.Cursor,
        session: str,
        game: str,
        failed: Sequence[str],
        resting: Sequence[str],
        nothing_left: Refusal,
        now: float,
    ) -> Outlook:
        outlook = Outlook(served=self._match(cursor, game, resting))
        self._find(cursor, [session], outlook)
        if outlook.places:
            return outlook
        if not self._has_hope(cursor, game, [*failed, *resting]):
            raise nothing_left
        outlook.positions[session] = _count(
            cursor,
            "slots WHERE game = ? AND state = 'queued' "
            "AND arrival <= (SELECT arrival FROM slots WHERE session = ?)",
            game,
            session,
        )
        self._plan(cursor, game, outlook, now)
        return outlook

    def _match(self, cursor: sqlite3.Cursor, game: str, resting: Sequence[str]) -> int:
        """Give free slots to waiting sessions of all proxies, in order; how many were given."""
        if self.selector.pick(cursor, game, resting) is None:
            return 0
        served = 0
        queue = cursor.execute(
            "SELECT session, tried FROM slots "
            "WHERE game = ? AND state = 'queued' AND evict IS NULL ORDER BY arrival",
            (game,),
        ).fetchall()
        for session, tried in queue:
            excluded = _names(tried)
            server = self.selector.pick(cursor, game, [*excluded, *resting])
            if server is not None:
                cursor.execute(
                    "UPDATE slots SET server = ?, state = 'reserved' WHERE session = ?",
                    (server, session),
                )
                served += 1
            elif not excluded:
                break
        return served

    def _find(self, cursor: sqlite3.Cursor, sessions: Sequence[str], outlook: Outlook) -> None:
        for session, server, host, port in cursor.execute(
            "SELECT slots.session, game_servers.id, game_servers.host, game_servers.port "
            "FROM json_each(?) AS wanted CROSS JOIN slots ON slots.session = wanted.value "
            "JOIN game_servers ON game_servers.id = slots.server",
            (json.dumps(list(sessions)),),
        ):
            outlook.places[session] = Place(server, host, port)

    def _has_hope(self, cursor: sqlite3.Cursor, game: str, excluded: Sequence[str]) -> bool:
        """Whether a server other than ``excluded`` has, may get, or can be started to have, a free slot."""
        living = (
            "EXISTS (SELECT 1 FROM game_servers WHERE game = :game AND state <> 'closed' "
            "AND id NOT IN (SELECT value FROM json_each(:excluded))"
        )
        hopeful, others = cursor.execute(
            f"SELECT {living} AND (state = 'starting' OR usable)), {living})",
            {"game": game, "excluded": json.dumps(list(excluded))},
        ).fetchone()
        if hopeful:
            return True
        startable = self.games.get(game)
        if startable is None:
            return False
        started = _count(cursor, f"{_STARTED} AND game = ?", game)
        return bool(others) or started < startable.max_servers

    def _plan(self, cursor: sqlite3.Cursor, game: str, outlook: Outlook, now: float) -> None:
        """Make rows for the servers that the queue needs and those to be kept warm.

        Who waits after :meth:`_match` can use none of the servers that are ready: only those that are starting count.
        """
        startable = self.games.get(game)
        if startable is None:
            return
        row = cursor.execute(
            "SELECT CAST(failures AS INTEGER), CAST(streak AS INTEGER), CAST(not_before AS REAL) "
            "FROM starts WHERE game = ?",
            (game,),
        ).fetchone()
        outlook.failures, outlook.streak, not_before = row or (0, 0, 0.0)
        capacities = cursor.execute(
            "SELECT CAST(capacity AS INTEGER) FROM game_servers WHERE game = ? AND state = 'starting'",
            (game,),
        ).fetchall()
        starting = len(capacities)
        coming = sum(room_below(self.max_load, capacity) for (capacity,) in capacities)
        started = _count(cursor, f"{_STARTED} AND game = ?", game)
        warm = starting + _count(cursor, f"{_STARTED} AND game = ? AND state = 'ready'", game)
        waiting = _count(
            cursor, "slots WHERE game = ? AND state = 'queued' AND evict IS NULL", game
        )
        while (
            now >= not_before
            and started < startable.max_servers
            and (waiting > coming or warm < startable.min_ready)
            # After a failure one start at a time shows whether it works again.
            and not (outlook.streak and starting)
        ):
            outlook.to_start[self._make_row(cursor, startable, now)] = startable
            starting, started, warm = starting + 1, started + 1, warm + 1
            coming += room_below(self.max_load, startable.capacity)
        outlook.starting = starting > 0

    def _make_row(self, cursor: sqlite3.Cursor, game: GameConfig, now: float) -> str:
        while True:
            server = f"{game.name}-{self.entropy(3).hex()}"
            cursor.execute(
                "INSERT OR IGNORE INTO game_servers (id, game, state, capacity, started_at, proxy) "
                "VALUES (?, ?, 'starting', ?, ?, ?)",
                (server, game.name, game.capacity, now, self.proxy),
            )
            if cursor.rowcount:
                return server


_STARTED: Final = "game_servers WHERE state <> 'closed' AND origin = 'started'"


def _count(cursor: sqlite3.Cursor, what: str, *arguments: object) -> int:
    row = cursor.execute(f"SELECT count(*) FROM {what}", arguments).fetchone()  # noqa: S608 - constants
    return int(row[0])


def _names(text: str) -> list[str]:
    """A list of names in JSON; empty when somebody wrote anything else into the row."""
    try:
        names = json.loads(text)
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _spend_ticket(cursor: sqlite3.Cursor, identity: Identity) -> None:
    if identity.ticket is None:
        return
    cursor.execute(
        "INSERT OR IGNORE INTO used_tickets (jti, expires_at) VALUES (?, ?)",
        (identity.ticket.jti, identity.ticket.expires_at),
    )
    if not cursor.rowcount:
        raise Refusal(CloseReason.AUTH_FAILED)
