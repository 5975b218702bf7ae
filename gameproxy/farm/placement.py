"""The sessions' way to a slot: :class:`GameFarm` is their view of the farm, and keeps who waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.config import Config, GameConfig
from gameproxy.farm.bans import Bans
from gameproxy.farm.processes import Processes
from gameproxy.farm.rests import Rests
from gameproxy.farm.selection import Selector
from gameproxy.farm.slots import Outlook, Place, SlotTable
from gameproxy.farm.store import FarmStore, Operation
from gameproxy.interfaces import AttemptFailed, Entropy, Slot, SlotRequest, Waiting
from gameproxy.reasons import CloseReason, Refusal

POLL_INTERVAL: Final = 0.025
"""Seconds between looks whether another process changed the database, while somebody waits for that."""
BUSY_PAUSE: Final = 1.0
"""Seconds after which a session tries again the game servers that were full or draining."""
UNAVAILABLE_PAUSE: Final = 5.0
"""Seconds after which to try again when the database cannot be used."""


class Starter(Protocol):
    """What starts game servers."""

    def start(self, server: str, game: GameConfig) -> None:
        """Start the game server for which there is a row in state ``starting``."""
        ...


@dataclass(eq=False, slots=True)
class _Seat:
    """One session at the farm, from acquire to release.

    :param state: that of its row as far as it is known to be committed; empty before there is one.
    :param asked: whether there may be a row.
    :param failed: servers that did not let it in, not to be tried again.
    :param busy: servers that were full, to be tried again after ``retry_at``.
    :param told: what it was last told about its waiting.
    """

    request: SlotRequest
    on_waiting: Callable[[Waiting], None]
    state: str = ""
    asked: bool = True
    place: Place | None = None
    failed: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    retry_at: float = 0.0
    result: Deferred[Slot] | None = None
    told: Waiting | None = None
    failures_before: int = 0
    timeout: IDelayedCall | None = None
    deadline: float | None = None
    evicted: bool = False


class GameFarm:
    """Gives slots to sessions; :class:`gameproxy.interfaces.Farm` says how.

    :param config: selection, games, servers, duplicates and the folder are looked at.
    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param key_for: gives a game server's 32-byte key.
    :param on_evict: called with a session of this proxy that has to end, and why.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        store: FarmStore,
        starter: Starter,
        processes: Processes,
        reactor: Any,
        entropy: Entropy,
        key_for: Callable[[str], bytes],
        on_evict: Callable[[str, Refusal], None],
    ) -> None:
        self.proxy = f"proxy-{entropy(6).hex()}"
        self._config = config
        self._store = store
        self._starter = starter
        self._processes = processes
        self._reactor = reactor
        self._entropy = entropy
        self._key_for = key_for
        self._on_evict = on_evict
        self._games = {game.name: game for game in config.games}
        self._listed = {server.id: server for server in config.servers}
        self._bans = Bans()
        self._table = SlotTable(
            proxy=self.proxy,
            games=self._games,
            duplicates=config.auth.duplicates,
            queue_size=config.selection.queue_size,
            selector=Selector(config.selection.strategy, config.selection.max_load, entropy),
            bans=self._bans,
            entropy=entropy,
        )
        self._rests = Rests()
        self._seats: dict[str, _Seat] = {}
        self._queues: dict[str, dict[str, _Seat]] = {}
        self._looking: dict[str, bool] = {}
        self._poll: IDelayedCall | None = None
        self._data_version: int | None = None
        store.restore = self._restore

    # The farm's life

    def start(self) -> Deferred[None]:
        """Open the database and register this proxy and the servers of its configuration.

        :return: fires when that is done; fails with StoreError or StoreUnavailable.
        """
        return self._store.write(lambda cursor: None)

    def stop(self) -> Deferred[None]:
        """Give back all slots of this proxy, and close the database. Game servers go on."""
        for session in list(self._seats):
            self.release(session)
        self._store.must(partial(_unregister, proxy=self.proxy), "leaving the farm")
        return self._store.close()

    def _restore(self, cursor: sqlite3.Cursor) -> None:
        """Put in what must be there. It is called in the database's thread."""
        me = self._processes.me()
        cursor.execute(
            "INSERT INTO proxies (id, beat, pid, process_started, place) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            (self.proxy, self._reactor.seconds(), me.pid, me.started, me.place),
        )
        for server in self._listed.values():
            cursor.execute(
                "INSERT INTO game_servers (id, game, state, host, port, capacity, origin, proxy) "
                "VALUES (?, ?, 'ready', ?, ?, ?, 'listed', ?) ON CONFLICT (id) DO UPDATE SET "
                "game = excluded.game, host = excluded.host, port = excluded.port, "
                "capacity = excluded.capacity, origin = 'listed', proxy = excluded.proxy, "
                # Who set it draining by hand does not want it back because a proxy restarts.
                "state = CASE WHEN state = 'draining' AND origin = 'listed' THEN state ELSE 'ready' END",
                (server.id, server.game, server.host, server.port, server.capacity, self.proxy),
            )
        self._bans.forget()

    # gameproxy.interfaces.Farm

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot, or wait in the queue for one."""
        if request.session in self._seats:
            return fail(Refusal(CloseReason.INTERNAL))
        seat = _Seat(request, on_waiting)
        self._seats[request.session] = seat
        now = self._reactor.seconds()
        resting = self._rests.resting(now)
        nothing_left = self._rests.refusal(self._listed_of(request.game), now)
        return self._ask(
            seat,
            lambda cursor: self._table.take(cursor, request, resting, nothing_left, now),
        )

    def try_another(
        self, slot: Slot, failure: AttemptFailed, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Give back a slot whose game server did not let the session in, and take another."""
        seat = self._seats.get(slot.session)
        if seat is None:
            return fail(Refusal(CloseReason.INTERNAL))
        now = self._reactor.seconds()
        seat.on_waiting = on_waiting
        nothing_left = Refusal(
            failure.reason, failure.message if failure.reason is CloseReason.REFUSED else None
        )
        if failure.busy:
            seat.busy.append(slot.server)
            seat.retry_at = now + BUSY_PAUSE
        else:
            seat.failed.append(slot.server)
            if slot.server in self._listed:
                self._rests.failed(slot.server, failure.reason, now)
            if len(seat.failed) >= self._config.selection.attempts:
                return fail(nothing_left)
        failed, busy, resting = tuple(seat.failed), tuple(seat.busy), self._rests.resting(now)
        return self._ask(
            seat,
            lambda cursor: self._table.move(
                cursor, slot.session, slot.game, failed, busy, resting, nothing_left, now
            ),
        )

    def relaying(self, slot: Slot) -> None:
        """The session relays from now on."""
        self._rests.succeeded(slot.server)
        seat = self._seats.get(slot.session)
        if seat is not None:
            seat.state = "connected"
            self._must(
                lambda cursor: self._table.connect(cursor, slot.session), "counting a session"
            )

    def release(self, session: str) -> None:
        """The session is over."""
        seat = self._seats.pop(session, None)
        if seat is None:
            return
        self._leave_queue(seat)
        seat.result = None
        if seat.asked:
            done = self._must(
                lambda cursor: self._table.release(cursor, session), "giving a slot back"
            )
            done.addCallback(lambda _: self.look(seat.request.game))

    def ban(self, player: str, seconds: float, reason: str, actor: str) -> None:
        """Ban a player; a longer ban stays as it is."""
        now = self._reactor.seconds()
        self._must(
            partial(_ban, player=player, reason=reason, actor=actor, now=now, until=now + seconds),
            "banning a player",
        )

    def check_address(self, address: str) -> Deferred[None]:
        """Fails with :class:`Refusal` (``banned``, ``internal``) when that IP may not connect."""
        now = self._reactor.seconds()
        checked = self._store.read(
            lambda cursor: self._table.check_bans(cursor, None, address, now)
        )
        return checked.addErrback(_as_refusal)

    # Waiting

    def look(self, game: str) -> None:
        """See how those of this proxy who wait for ``game`` stand now."""
        queue = self._queues.get(game)
        if not queue:
            return
        if game in self._looking:
            self._looking[game] = True
            return
        self._looking[game] = False
        now = self._reactor.seconds()
        tried = {}
        for session, seat in queue.items():
            if seat.busy and now >= seat.retry_at:
                seat.busy.clear()
                tried[session] = tuple(seat.failed)
        sessions, resting = tuple(queue), self._rests.resting(now)
        done = self._store.write(
            lambda cursor: self._table.look(cursor, game, sessions, tried, resting, now)
        )
        done.addCallback(self._looked, game, sessions)
        # The next look comes within a second, and the store has told its trouble.
        done.addErrback(lambda failure: failure.trap(Exception) and None)
        done.addBoth(self._look_again, game)

    def _looked(self, outlook: Outlook, game: str, sessions: Sequence[str]) -> None:
        self._start_servers(game, outlook)
        queue = self._queues.get(game, {})
        for session in sessions:
            seat = queue.get(session)
            if seat is not None:
                self._settle(seat, outlook)

    def _look_again(self, result: object, game: str) -> None:
        if self._looking.pop(game):
            self.look(game)

    def _ask(self, seat: _Seat, operation: Operation[Outlook]) -> Deferred[Slot]:
        result: Deferred[Slot] = Deferred(lambda _: self._cancelled(seat))
        seat.result = result
        done = self._store.write(operation)
        done.addCallbacks(partial(self._asked, seat), partial(self._refused, seat, result))
        done.addErrback(lambda failure: self._log.failure("farm", failure))
        return result

    def _asked(self, seat: _Seat, outlook: Outlook) -> None:
        game = seat.request.game
        self._start_servers(game, outlook)
        for session in outlook.evicted:
            self.evict(session, CloseReason.REPLACED)
        seat.state = "queued"
        if seat.result is not None:
            if seat.told is None:
                seat.failures_before = outlook.failures
            self._settle(seat, outlook)
        if outlook.served:
            self.look(game)

    def _refused(self, seat: _Seat, result: Deferred[Slot], failure: Failure) -> None:
        if not seat.state:
            seat.asked = False
        if seat.result is result:
            seat.result = None
            result.errback(_refusal_of(failure))

    def _cancelled(self, seat: _Seat) -> None:
        self._leave_queue(seat)
        seat.result = None

    def _settle(self, seat: _Seat, outlook: Outlook) -> None:
        """Tell a session that has no slot yet what the outlook says of it."""
        session, game = seat.request.session, seat.request.game
        place = outlook.places.get(session)
        if place is not None:
            seat.place, seat.state = place, "reserved"
            key = self._key_for(place.server)
            slot = Slot(session, place.server, game, place.host, place.port, key)
            self._take_result(seat).callback(slot)
            return
        position = outlook.positions.get(session)
        if position is None:
            self._give_up(seat, Refusal(CloseReason.INTERNAL))
            return
        needed = self._games[game].start_attempts if game in self._games else 1
        if min(outlook.streak, outlook.failures - seat.failures_before) >= needed:
            self._give_up(seat, Refusal(CloseReason.START_FAILED))
            return
        self._join_queue(seat)
        waiting = Waiting("starting" if outlook.starting else "queued", position)
        if waiting != seat.told and seat.result is not None:
            seat.told = waiting
            seat.on_waiting(waiting)

    def _join_queue(self, seat: _Seat) -> None:
        queue = self._queues.setdefault(seat.request.game, {})
        if seat.request.session in queue:
            return
        queue[seat.request.session] = seat
        now = self._reactor.seconds()
        if seat.deadline is None:
            seat.deadline = now + self._config.selection.queue_timeout
        seat.timeout = self._reactor.callLater(
            max(0.0, seat.deadline - now),
            self._give_up,
            seat,
            Refusal(CloseReason.QUEUE_TIMEOUT),
        )
        self.watch()

    def _leave_queue(self, seat: _Seat) -> None:
        self._queues.get(seat.request.game, {}).pop(seat.request.session, None)
        if seat.timeout is not None:
            if seat.timeout.active():
                seat.timeout.cancel()
            seat.timeout = None

    def _take_result(self, seat: _Seat) -> Deferred[Slot]:
        result, seat.result = seat.result, None
        assert result is not None
        self._leave_queue(seat)
        return result

    def _give_up(self, seat: _Seat, refusal: Refusal) -> None:
        """It waits no longer; its row goes, so that those behind it move up."""
        result = self._take_result(seat)
        self.release(seat.request.session)
        result.errback(refusal)

    def evict(self, session: str, reason: CloseReason) -> None:
        """End a session of this proxy, once."""
        seat = self._seats.get(session)
        if seat is not None and not seat.evicted:
            seat.evicted = True
            self._on_evict(session, Refusal(reason))

    def _start_servers(self, game: str, outlook: Outlook) -> None:
        for server in outlook.to_start:
            self._starter.start(server, self._games[game])

    # Changes by other processes

    def watch(self) -> None:
        """Look soon and often for what other processes write, while there is something to wait for."""
        if self._poll is None:
            self._poll = self._reactor.callLater(POLL_INTERVAL, self._check_version)

    def _is_watching(self) -> bool:
        return any(self._queues.values())

    def _check_version(self) -> None:
        done = self._store.read(_data_version)
        done.addCallbacks(self._checked_version, lambda failure: None)
        done.addBoth(self._watch_on)

    def _checked_version(self, version: int) -> None:
        changed, self._data_version = version != self._data_version, version
        if changed:
            for game in list(self._queues):
                self.look(game)

    def _watch_on(self, result: object) -> None:
        self._poll = None
        if self._is_watching():
            self.watch()

    def _listed_of(self, game: str) -> list[str]:
        return [server.id for server in self._listed.values() if server.game == game]

    def _must(self, operation: Operation[None], name: str) -> Deferred[None]:
        return self._store.must(operation, name).addErrback(lambda failure: None)


def _refusal_of(failure: Failure) -> Refusal:
    """What a session is told when the farm fails it; the store has logged what is wrong with the database."""
    if isinstance(failure.value, Refusal):
        return failure.value
    return Refusal(CloseReason.INTERNAL, retry_after=UNAVAILABLE_PAUSE)


def _as_refusal(failure: Failure) -> Failure:
    return Failure(_refusal_of(failure))


def _data_version(cursor: sqlite3.Cursor) -> int:
    return int(cursor.execute("PRAGMA data_version").fetchone()[0])


def _unregister(cursor: sqlite3.Cursor, proxy: str) -> None:
    cursor.execute("DELETE FROM proxies WHERE id = ?", (proxy,))


def _ban(
    cursor: sqlite3.Cursor, player: str, reason: str, actor: str, now: float, until: float
) -> None:
    cursor.execute(
        "INSERT INTO bans (kind, subject, reason, actor, created_at, expires_at) "
        "VALUES ('player', ?, ?, ?, ?, ?) ON CONFLICT (kind, subject) DO UPDATE SET "
        "reason = excluded.reason, actor = excluded.actor, created_at = excluded.created_at, "
        "expires_at = excluded.expires_at "
        "WHERE expires_at IS NOT NULL AND expires_at < excluded.expires_at",
        (player, reason, actor, now, until),
    )
