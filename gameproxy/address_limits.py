"""How often clients of one address may connect, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final

from twisted.internet.interfaces import IReactorTime

from gameproxy.config import LimitsConfig
from gameproxy.limit_counts import LimitCounts
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.session import Session
from gameproxy.steady_time import SteadyTime
from gameproxy.throttle import Throttle
from gameproxy.wire import PROBE_TIME

DOUBTED: Final = 8
"""Sessions of an address that has too many which are doubted when one more comes: those doubted longest ago."""
AFTER_DOUBT: Final = PROBE_TIME + 0.5
"""Seconds after which whoever was in the way is gone, if its client is."""


class AddressLimits:
    """``[limits.connections_per_second]`` and ``[limits.sessions_per_address]``.

    What has no address, as a UNIX socket has none, is not limited: it would all count as one.

    :ivar counts: of all limits that were broken, these and others.
    """

    def __init__(self, section: LimitsConfig, clock: IReactorTime, counts: LimitCounts) -> None:
        self.counts = counts
        self._time = SteadyTime(clock)
        self._throttle: Throttle | None = None
        self._pace: tuple[float, float] | None = None
        self._sessions: dict[str, dict[str, Session]] = {}
        self.reconfigure(section, ())

    def reconfigure(self, section: LimitsConfig, sessions: Iterable[Session]) -> None:
        """Go on with other limits. Where rate and burst are the same nobody is forgiven what he owes.

        :param sessions: that were let in and are not over, in the order in which they came.
        """
        connections, most = section.connections_per_second, section.sessions_per_address
        self._refuses_connections = connections.mode == "enforce"
        pace = None
        if connections.mode != "off":
            pace = connections.needed_rate, connections.allowed_burst
        if pace != self._pace:
            self._throttle = None if pace is None else Throttle(self._time, *pace)
            self._pace = pace
        self._refuses_sessions = most.mode == "enforce"
        self._most = None if most.mode == "off" else int(most.needed_rate)
        self._sessions.clear()
        for session in sessions:
            self.enter(session)

    def refusal(self, address: str) -> Refusal | None:
        """Why one more connection from an address must end at once, or ``None``. It is counted as one."""
        return (address and (self._throttled(address) or self._too_many(address))) or None

    def enter(self, session: Session) -> None:
        """A session was let in."""
        if self._most is not None and session.peer.address:
            self._sessions.setdefault(session.peer.address, {})[session.id] = session

    def leave(self, session: Session) -> None:
        """It is over; one that was never let in changes nothing."""
        sessions = self._sessions.get(session.peer.address, {})
        sessions.pop(session.id, None)
        if not sessions:
            self._sessions.pop(session.peer.address, None)

    def _throttled(self, address: str) -> Refusal | None:
        if self._throttle is None:
            return None
        wait = self._throttle.wait(prefix_of(address))
        if not wait:
            return None
        self.counts.count("connections_per_second")
        return (
            Refusal(CloseReason.THROTTLED, retry_after=wait) if self._refuses_connections else None
        )

    def _too_many(self, address: str) -> Refusal | None:
        sessions = self._sessions.get(address, {})
        if self._most is None or len(sessions) < self._most:
            return None
        self.counts.count("sessions_per_address")
        if not self._refuses_sessions:
            return None
        # A player whose connection was cut off comes again, and is not to be kept out by what is left of it.
        for id in list(sessions)[:DOUBTED]:
            sessions[id] = session = sessions.pop(id)
            session.doubt()
        return Refusal(
            CloseReason.LIMIT_EXCEEDED,
            f"There may be {self._most} sessions of one address. End another one first.",
            AFTER_DOUBT,
        )


def prefix_of(address: str) -> str:
    """What an address has in common with those that belong to the same: its /24 of IPv4, its /64 of IPv6."""
    ip = ip_address(address)
    bits = 64 if isinstance(ip, IPv6Address) else 8
    return f"{ip.version} {int(ip) >> bits}"
