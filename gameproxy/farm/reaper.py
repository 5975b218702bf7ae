"""The farm's upkeep: a look at the whole farm, a little more often than once a second, and what follows from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.farm import registry
from gameproxy.farm.keeper import ServerKeeper, Standstill
from gameproxy.farm.pulse import Pulse
from gameproxy.farm.registry import PROXY_LIFE
from gameproxy.farm.store import FarmStore, told_by_store
from gameproxy.farm.survey import Survey, Surveyor
from gameproxy.farm.sweep import sweep
from gameproxy.reasons import CloseReason

INTERVAL: Final = 0.75
"""Seconds between two looks: who is banned or replaced through another proxy ends within a second."""
BEAT_INTERVAL: Final = 5.0
"""Seconds between two signs of life of this proxy, and between two times at which it tidies up."""
_COUNTED_AT_MOST: Final = 2 * INTERVAL
"""Seconds that count between two looks: not those in which the database could not be read or the machine slept."""


class Reaper:
    """Looks after the farm while the proxy runs.

    :param on_evict: called with sessions of this proxy that have to end; again while they have not.
    :param on_doubt: called with sessions of this proxy that keep their players out, and since when; again as long.
    :param on_look: called after each look.
    """

    _log = Logger()

    def __init__(
        self,
        proxy: str,
        store: FarmStore,
        keeper: ServerKeeper,
        surveyor: Surveyor,
        pulse: Pulse,
        reactor: Any,
        on_evict: Callable[[str, CloseReason], None],
        on_doubt: Callable[[str, float], None],
        on_look: Callable[[], None],
    ) -> None:
        self._proxy = proxy
        self._store = store
        self._keeper = keeper
        self._surveyor = surveyor
        self._pulse = pulse
        self._reactor = reactor
        self._on_evict = on_evict
        self._on_doubt = on_doubt
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
        looked = self._store.alone(self._surveyor.look)
        looked.addCallback(self._read_if_changed, now)
        looked.addCallbacks(partial(self._act, now), self._failed)
        looked.addErrback(lambda failure: self._log.failure("upkeep of the farm", failure))
        looked.addBoth(lambda _: self._schedule())

    def _read_if_changed(
        self, known: Survey | None, now: float
    ) -> Survey | Deferred[Survey | None]:
        if known is not None:
            return known
        bans = self._bans_version

        def read(cursor: sqlite3.Cursor) -> Survey | None:
            return self._surveyor.read(cursor, bans, now)

        def read_again(survey: Survey | None) -> Survey | Deferred[Survey | None]:
            return self._store.write(read) if survey is None else survey

        return self._store.read(read).addCallback(read_again)

    def _act(self, now: float, survey: Survey | None) -> None:
        if self._stopped or survey is None:
            return
        elapsed = 0.0
        if self._looked_at is not None and self._writable:
            elapsed = min(max(now - self._looked_at, 0.0), _COUNTED_AT_MOST)
        self._looked_at = now
        if not self._writable or not 0 <= now - self._beat_at < BEAT_INTERVAL:
            self._beat_at = now
            self._beat(now)
            self._tidy(now, survey)
        self._bans_version = survey.bans_version
        for session, reason in survey.evicted:
            self._on_evict(session, reason)
        for session, at in survey.doubted:
            self._on_doubt(session, at)
        beats = {proxy.id: proxy.beat for proxy in survey.others}
        stood = self._beats.observe(beats, elapsed)
        silent = {p: beats[p] for p, seconds in stood.items() if seconds >= PROXY_LIFE}
        self._bury(survey, silent)
        self._keeper.inspect(survey.servers, survey.ended, elapsed)
        self._on_look()

    def _beat(self, now: float) -> None:
        """Give a sign of life; if something is wrong with the last one, after that has been put right."""

        def renew(cursor: sqlite3.Cursor) -> bool:
            return self._pulse.renew(cursor, now)

        beaten = self._store.alone(renew, writes=True)
        beaten.addCallback(lambda done: done or self._store.write(renew))
        beaten.addCallbacks(self._beaten, self._failed)

    def _tidy(self, now: float, survey: Survey) -> None:
        if survey.listed and now < survey.next_sweep:
            return

        def tidy(cursor: sqlite3.Cursor) -> None:
            if not survey.listed:
                registry.list_servers(cursor, self._proxy, self._surveyor.listed)
            sweep(cursor, now)

        self._store.write(tidy).addErrback(told_by_store)

    def _bury(self, survey: Survey, silent: dict[str, float]) -> None:
        """Remove dead proxies, and adopt the servers that nobody looks after.

        :param silent: proxies that give no sign of life, with their last one.
        """
        ended = [proxy.id for proxy in survey.others if proxy.process in survey.ended]
        dead = [proxy.id for proxy in survey.others if proxy.id in ended or proxy.id in silent]
        living = [self._proxy, *(proxy.id for proxy in survey.others if proxy.id not in dead)]
        if not dead and all(server.proxy in living for server in survey.servers):
            return
        if dead:
            self._log.warn("proxies {proxies} are dead: their slots are free", proxies=dead)

        def bury(cursor: sqlite3.Cursor) -> None:
            registry.remove_proxies(cursor, ended)
            registry.remove_silent_proxies(cursor, silent)
            registry.adopt_servers(cursor, self._proxy)

        self._store.write(bury).addErrback(told_by_store)

    def _beaten(self, _: object) -> None:
        self._writable = True

    def _failed(self, failure: Failure) -> None:
        """While this proxy cannot write, nobody can give a sign of life: that time counts for nothing."""
        self._writable = False
        told_by_store(failure)
