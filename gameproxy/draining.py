"""The end of a proxy, from the order to stop until its last session is over."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from gameproxy.admission import Admission
from gameproxy.config import ProxyConfig
from gameproxy.reasons import CloseReason, Refusal

LAST_WORDS_TIME: Final = 5.0
"""Seconds, beyond ``stall_timeout``, in which all connections are ended when the grace of a drain is over; when it is
hastened, these alone."""


class Drain:
    """Lets sessions go on for a grace, then ends those that are left.

    :param section: has the grace, and how long a client may take nothing.
    :ivar since: when it began, by the clock.
    :ivar ends_at: when those who are left are ended.
    """

    _log = Logger()

    def __init__(self, sessions: Admission, section: ProxyConfig, clock: IReactorTime) -> None:
        self.since = clock.seconds()
        self.ends_at = self.since + section.drain_grace
        self._sessions = sessions
        self._section = section
        self._grace = section.drain_grace
        self._clock = clock
        self._is_over: Deferred[None] | None = None
        self._ending: IDelayedCall | None = None
        self._giving_up: IDelayedCall | None = None

    async def wait(self) -> None:
        """Wait until there are no sessions, or too much time has passed."""
        if not self._sessions:
            return
        grace = self._grace
        self._log.info(
            "Draining: {count} sessions may go on for {grace:g} s.",
            count=len(self._sessions),
            grace=grace,
        )
        self._is_over = Deferred()
        longest = LAST_WORDS_TIME + (self._section.stall_timeout if grace else 0.0)
        self._ending = self._clock.callLater(grace, self._end_all)
        self._giving_up = self._clock.callLater(grace + longest, self._give_up)
        await self._is_over
        for call in (self._ending, self._giving_up):
            if call.active():
                call.cancel()

    def hasten(self) -> None:
        """End those who are left now, and wait for none of them for long."""
        now = self._clock.seconds()
        if self.ends_at <= now:
            return
        self.ends_at, self._grace = now, 0.0
        if self._ending is not None and self._ending.active():
            self._log.info(
                "The drain is hastened: {count} sessions end.", count=len(self._sessions)
            )
            self._ending.reset(0)
            assert self._giving_up is not None
            self._giving_up.reset(LAST_WORDS_TIME)

    def session_ended(self) -> None:
        """A session is over."""
        if not self._sessions:
            self._finish()

    def _end_all(self) -> None:
        for session in self._sessions:
            session.inputs.end(Refusal(CloseReason.DRAINING))

    def _give_up(self) -> None:
        """Somebody takes what was written to it, but so slowly that it would never end."""
        self._log.warn("{count} sessions are left when draining ends.", count=len(self._sessions))
        self._finish()

    def _finish(self) -> None:
        if self._is_over is not None and not self._is_over.called:
            self._is_over.callback(None)
