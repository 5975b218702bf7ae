"""The farm's upkeep: a look at the whole farm, a little more often than once a second, and what follows from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.farm import registry
from gameproxy.farm.bans import Bans
from gameproxy.farm.keeper import ServerKeeper, Standstill
from gameproxy.farm.processes import Processes
from gameproxy.farm.registry import PROXY_LIFE, StartedServer
from gameproxy.farm.store import FarmStore, told_by_store
from gameproxy.reasons import CloseReason

INTERVAL: Final = 0.75
"""Seconds between two looks: who is banned or replaced through another proxy ends within a second."""
BEAT_INTERVAL: Final = 5.0
"""Seconds between two signs of life of this proxy."""
_COUNTED_AT_MOST: Final = 2 * INTERVAL
"""Seconds that count between two looks: not those in which the database could not be read or the machine slept."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the farm found.

    :param evicted: sessions of this proxy that have to end, and why.
    :param beats: each other proxy's last sign of life.
    :param dead: proxies whose processes have ended.
    """

    evicted: list[tuple[str, CloseReason]]
    bans_version: tuple[int, int]
    servers: list[StartedServer]
    beats: dict[str, float]
    dead: list[str]


class Reaper:
    """Looks after the farm while the proxy runs.

    :param beat: writes this proxy's sign of life, with the time.
    :param on_evict: called with sessions of this proxy that have to end; again while they have not.
    :param on_look: called after each look.
    """

    _log = Logger()

    def __init__(
        self,
        proxy: str,
        store: FarmStore,
        keeper: ServerKeeper,
        bans: Bans,
        processes: Processes,
        reactor: Any,
        beat: Callable[[sqlite3.Cursor, float], None],
        on_evict: Callable[[str, CloseReason], None],
        on_look: Callable[[], None],
    ) -> None:
        self._proxy = proxy
        self._store = store
        self._keeper = keeper
        self._bans = bans
        self._processes = processes
        self._reactor = reactor
        self._write_beat = beat
        self._on_evict = on_evict
        self._on_look = on_look
        self._beats = Standstill()
        self._bans_version: tuple[int, int] | None = None
        self._looked_at: float | None = None
        self._writable = True
        self._beat_at = 0.0
        self._next: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin; the proxy is registered already."""
        self._beat_at = self._reactor.seconds()
        self._schedule()

    def stop(self) -> None:
        """End."""
        self._stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _schedule(self) -> None:
        if not self._stopped:
            self._next = self._reactor.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self._next = None
        now = self._reactor.seconds()
        if not self._writable or not 0 <= now - self._beat_at < BEAT_INTERVAL:
            self._beat_at = now
            beaten = self._store.write(partial(self._beat, now))
            beaten.addCallbacks(self._beaten, self._not_beaten)
        known = self._bans_version
        done = self._store.read(lambda cursor: self._survey(cursor, known, now))
        done.addCallbacks(partial(self._act, now), told_by_store)
        done.addErrback(lambda failure: self._log.failure("upkeep of the farm", failure))
        done.addBoth(lambda _: self._schedule())

    # In the database's thread

    def _beat(self, now: float, cursor: sqlite3.Cursor) -> None:
        self._write_beat(cursor, now)
        registry.sweep(cursor, now)

    def _survey(
        self, cursor: sqlite3.Cursor, bans_known: tuple[int, int] | None, now: float
    ) -> Survey:
        evicted = [
            (session, _reason(code))
            for session, code in cursor.execute(
                "SELECT session, evict FROM slots WHERE proxy = ? AND evict IS NOT NULL "
                "ORDER BY arrival",
                (self._proxy,),
            )
        ]
        bans_version = self._bans.version(cursor)
        if bans_version != bans_known:
            slots = cursor.execute(
                "SELECT session, player, address FROM slots WHERE proxy = ? ORDER BY arrival",
                (self._proxy,),
            ).fetchall()
            for session, player, address in slots:
                if self._bans.banned_until(cursor, player, address, now) is not None:
                    evicted.append((session, CloseReason.BANNED))
        beats = dict(
            cursor.execute(
                "SELECT id, beat FROM proxies WHERE id <> ? ORDER BY id", (self._proxy,)
            ).fetchall()
        )
        return Survey(
            evicted,
            bans_version,
            registry.started_servers(cursor, self._processes),
            beats,
            [p for p in registry.dead_proxies(cursor, self._processes) if p != self._proxy],
        )

    # On the reactor's thread

    def _act(self, now: float, survey: Survey) -> None:
        if self._stopped:
            return
        elapsed = 0.0
        if self._looked_at is not None and self._writable:
            elapsed = min(max(now - self._looked_at, 0.0), _COUNTED_AT_MOST)
        self._looked_at = now
        self._bans_version = survey.bans_version
        for session, reason in survey.evicted:
            self._on_evict(session, reason)
        stood = self._beats.observe(survey.beats, elapsed)
        silent = {p: survey.beats[p] for p, seconds in stood.items() if seconds >= PROXY_LIFE}
        self._bury(survey, silent)
        self._keeper.inspect(survey.servers, elapsed)
        self._on_look()

    def _bury(self, survey: Survey, silent: dict[str, float]) -> None:
        """Remove dead proxies, and adopt the servers that nobody looks after.

        :param silent: proxies that give no sign of life, with their last one.
        """
        dead = [proxy for proxy in survey.beats if proxy in survey.dead or proxy in silent]
        living = [self._proxy, *(proxy for proxy in survey.beats if proxy not in dead)]
        if not dead and all(server.proxy in living for server in survey.servers):
            return
        if dead:
            self._log.warn("proxies {proxies} are dead: their slots are free", proxies=dead)

        def bury(cursor: sqlite3.Cursor) -> None:
            registry.remove_proxies(cursor, survey.dead)
            registry.remove_silent_proxies(cursor, silent)
            registry.adopt_servers(cursor, self._proxy)

        self._store.write(bury).addErrback(told_by_store)

    def _beaten(self, _: None) -> None:
        self._writable = True

    def _not_beaten(self, failure: Failure) -> None:
        """While this proxy cannot write, nobody can give a sign of life: that time counts for nothing."""
        self._writable = False
        told_by_store(failure)


def _reason(code: object) -> CloseReason:
    try:
        return CloseReason(str(code))
    except ValueError:
        return CloseReason.KICKED
