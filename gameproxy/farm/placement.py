"""The sessions' way to a slot, and those who wait for one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.config import Config, GameConfig
from gameproxy.farm import orders
from gameproxy.farm.database import Operation
from gameproxy.farm.restoring import SlotRow
from gameproxy.farm.rests import Rests
from gameproxy.farm.seat import Seat
from gameproxy.farm.slots import Outlook, SlotTable
from gameproxy.farm.store import FarmStore, told_by_store
from gameproxy.interfaces import AttemptFailed, Slot, SlotRequest, Waiting
from gameproxy.reasons import CloseReason, Refusal

POLL_INTERVAL: Final = 0.025
"""Seconds between looks whether another process changed the database, while somebody waits for that."""
BUSY_PAUSE: Final = 1.0
"""Seconds after which a session tries again the game servers that were full or draining."""
UNAVAILABLE_PAUSE: Final = 5.0
"""Seconds after which to try again when the database cannot be used."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds for the database's answer, if that is more than ``queue_timeout``."""


class Placement:
    """Gives slots to the sessions of this proxy; :class:`gameproxy.interfaces.Farm` says how.

    :param reactor: provides IReactorTime.
    :param key_for: gives a game server's 32-byte key.
    :param start: called with a row in state ``starting`` and its game: the game server that is to be started now.
    :param on_evict: called with a session that has to end, and why.
    :param on_doubt: called with a session whose client may be gone, as its player wants to begin another.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        table: SlotTable,
        store: FarmStore,
        reactor: Any,
        key_for: Callable[[str], bytes],
        start: Callable[[str, GameConfig], None],
        on_evict: Callable[[str, Refusal], None],
        on_doubt: Callable[[str], None],
    ) -> None:
        self.configure(config, table)
        self._store = store
        self._reactor = reactor
        self._key_for = key_for
        self._start = start
        self._on_evict = on_evict
        self._on_doubt = on_doubt
        self._rests = Rests()
        self._seats: dict[str, Seat] = {}
        self._queues: dict[str, dict[str, Seat]] = {}
        self._looking: dict[str, bool] = {}
        self._poll: IDelayedCall | None = None
        self._data_version: int | None = None

    def configure(self, config: Config, table: SlotTable) -> None:
        """Go on with another configuration."""
        self._config = config
        self._listed = {server.id: server for server in config.servers}
        self._table = table

    def stop(self) -> None:
        """Give back all slots of this proxy."""
        for session in list(self._seats):
            self.release(session)
        if self._poll is not None and self._poll.active():
            self._poll.cancel()

    def rows(self) -> list[SlotRow]:
        """The rows of all sessions, as far as they are known to be in the database. May be called in any thread."""
        return [
            SlotRow(
                session=seat.request.session,
                place=None if seat.state == "queued" else seat.place,
                identity=seat.request.identity,
                address=seat.request.peer.address,
                game=seat.request.game,
                state=seat.state,
                evicted=seat.evicted,
                tried=(*seat.failed, *seat.busy),
            )
            for seat in list(self._seats.values())
            if seat.state
        ]

    # gameproxy.interfaces.Farm

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot, or wait in the queue for one."""
        if request.session in self._seats:
            return fail(Refusal(CloseReason.INTERNAL))
        seat = Seat(request, on_waiting)
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

    def give_back(self, sessions: Iterable[str]) -> None:
        """Give back what the database has under this proxy's name for sessions that it no longer has."""
        for session in sessions:
            # In its turn: what is still to be counted of a session that has just ended comes first.
            self._must(partial(self._table.release, session=session), "giving a slot back")

    # Waiting

    def look(self, game: str) -> None:
        """See how those of this proxy who wait for ``game`` stand now, if there are any."""
        if self._queues.get(game):
            self.serve(game)

    def look_at_all(self) -> None:
        """Time has passed: servers have rested, pauses are over."""
        for game in list(self._queues):
            self.look(game)

    def serve(self, game: str) -> None:
        """Serve the queue of ``game`` and start the game servers that it needs or that are to be kept warm."""
        if game in self._looking:
            self._looking[game] = True
            return
        self._looking[game] = False
        now = self._reactor.seconds()
        queue = self._queues.get(game, {})
        tried = {
            session: tuple(seat.failed)
            for session, seat in queue.items()
            if seat.busy and now >= seat.retry_at
        }
        sessions, resting = tuple(queue), self._rests.resting(now)
        done = self._store.write(
            lambda cursor: self._table.look(cursor, game, sessions, tried, resting, now)
        )
        done.addCallback(self._looked, game, sessions, tuple(tried))
        done.addErrback(told_by_store)
        done.addBoth(self._look_again, game)

    def _looked(
        self, outlook: Outlook, game: str, sessions: Sequence[str], retried: Sequence[str]
    ) -> None:
        self._start_servers(outlook)
        queue = self._queues.get(game, {})
        for session in sessions:
            seat = queue.get(session)
            if seat is None:
                continue
            if session in retried:
                seat.busy.clear()
            try:
                self._settle(seat, outlook)
            except Exception:
                # One session's fault is not to hold up those behind it.
                self._failed(seat, Failure())

    def _look_again(self, result: object, game: str) -> None:
        if self._looking.pop(game):
            self.look(game)

    def _ask(self, seat: Seat, operation: Operation[Outlook]) -> Deferred[Slot]:
        result: Deferred[Slot] = Deferred(lambda _: self._cancelled(seat))
        seat.result = result
        seat.timeout = self._reactor.callLater(
            max(self._config.selection.queue_timeout, ANSWER_TIMEOUT),
            self._give_up,
            seat,
            Refusal(CloseReason.INTERNAL, retry_after=UNAVAILABLE_PAUSE),
        )
        done = self._store.write(operation)
        done.addCallbacks(partial(self._asked, seat), partial(self._refused, seat, result))
        done.addErrback(partial(self._failed, seat))
        return result

    def _asked(self, seat: Seat, outlook: Outlook) -> None:
        self._start_servers(outlook)
        for session in outlook.evicted:
            self.evict(session, CloseReason.REPLACED)
        seat.state = "queued"
        if seat.result is not None:
            if seat.failures_before is None and outlook.positions:
                seat.failures_before = outlook.failures
            self._settle(seat, outlook)
        if outlook.served:
            self.look(seat.request.game)

    def _refused(self, seat: Seat, result: Deferred[Slot], failure: Failure) -> None:
        if not seat.state:
            seat.asked = False
        refusal = refusal_of(failure)
        if refusal.reason is CloseReason.ALREADY_CONNECTED:
            player, now = seat.request.identity.player, self._reactor.seconds()
            doubted = self._store.write(lambda cursor: orders.doubt(cursor, player, now))
            doubted.addErrback(told_by_store)
        if seat.result is result:
            self._take_result(seat).errback(refusal)

    def _failed(self, seat: Seat, failure: Failure) -> None:
        self._log.failure("a session's request failed", failure)
        if seat.result is not None:
            self._give_up(seat, Refusal(CloseReason.INTERNAL))

    def _cancelled(self, seat: Seat) -> None:
        self._leave_queue(seat)
        seat.result = None

    def _settle(self, seat: Seat, outlook: Outlook) -> None:
        """Tell a session that has no slot yet what the outlook says of it."""
        session, game = seat.request.session, seat.request.game
        place = outlook.places.get(session)
        if place is not None:
            seat.place, seat.state, seat.told = place, "reserved", None
            key = self._key_for(place.server)
            slot = Slot(session, place.server, game, place.host, place.port, key)
            self._take_result(seat).callback(slot)
            return
        position = outlook.positions.get(session)
        if position is None:
            self._give_up(seat, Refusal(CloseReason.INTERNAL))
            return
        started = self._table.games.get(game)
        needed = started.start_attempts if started is not None else 1
        failed = outlook.failures - (seat.failures_before or 0)
        if min(outlook.streak, failed) >= needed and not outlook.starting:
            self._give_up(seat, Refusal(CloseReason.START_FAILED))
            return
        self._join_queue(seat)
        waiting = Waiting("starting" if outlook.starting else "queued", position)
        if waiting != seat.told and seat.result is not None:
            seat.told = waiting
            seat.on_waiting(waiting)

    def _join_queue(self, seat: Seat) -> None:
        queue = self._queues.setdefault(seat.request.game, {})
        if seat.request.session in queue:
            return
        self._leave_queue(seat)
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
        self._watch()

    def _leave_queue(self, seat: Seat) -> None:
        self._queues.get(seat.request.game, {}).pop(seat.request.session, None)
        if seat.timeout is not None:
            if seat.timeout.active():
                seat.timeout.cancel()
            seat.timeout = None

    def _take_result(self, seat: Seat) -> Deferred[Slot]:
        result, seat.result = seat.result, None
        assert result is not None
        self._leave_queue(seat)
        return result

    def _give_up(self, seat: Seat, refusal: Refusal) -> None:
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

    def doubt(self, session: str, at: float) -> None:
        """See whether the client of a session of this proxy is still there, once for each time of doubt."""
        seat = self._seats.get(session)
        if seat is not None and seat.doubted_at != at:
            seat.doubted_at = at
            self._on_doubt(session)

    def _start_servers(self, outlook: Outlook) -> None:
        for server, game in outlook.to_start.items():
            self._start(server, game)

    # Changes by other processes

    def _watch(self) -> None:
        """Look soon and often for what other processes write, while there is something to wait for."""
        if self._poll is None:
            self._poll = self._reactor.callLater(POLL_INTERVAL, self._check_version)

    def _check_version(self) -> None:
        done = self._store.read(_data_version)
        done.addCallbacks(self._checked_version, told_by_store)
        done.addBoth(self._watch_on)

    def _checked_version(self, version: int) -> None:
        changed, self._data_version = version != self._data_version, version
        if changed:
            self.look_at_all()

    def _watch_on(self, result: object) -> None:
        self._poll = None
        if any(self._queues.values()):
            self._watch()

    def _listed_of(self, game: str) -> list[str]:
        return [server.id for server in self._listed.values() if server.game == game]

    def _must(self, operation: Operation[None], name: str) -> Deferred[None]:
        return self._store.must(operation, name).addErrback(lambda failure: None)


def refusal_of(failure: Failure) -> Refusal:
    """What a session is told when the farm fails it; the store has logged what is wrong with the database."""
    if isinstance(failure.value, Refusal):
        return failure.value
    return Refusal(CloseReason.INTERNAL, retry_after=UNAVAILABLE_PAUSE)


def _data_version(cursor: sqlite3.Cursor) -> int:
    return int(cursor.execute("PRAGMA data_version").fetchone()[0])
