"""What is counted of sessions. No count is kept by player or address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gameproxy.interfaces import PLANES, SessionRecord, Traffic
from gameproxy.reasons import CloseReason
from gameproxy.session import Session


@dataclass
class Metrics:
    """Counts since the start.

    :ivar ended: sessions that are over, by close reason.
    :ivar traffic: what the sessions that are over have relayed.
    """

    ended: Counter[CloseReason] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)

    def session_ended(self, record: SessionRecord) -> None:
        """Count a session that is over."""
        self.ended[record.reason] += 1
        self.traffic += record.traffic


def traffic_of(sessions: Iterable[Session]) -> Traffic:
    """What sessions that are not over have relayed so far."""
    return sum((one.relay.traffic for one in sessions if one.relay), Traffic())


def by_state(sessions: Iterable[Session]) -> dict[str, int]:
    """How many sessions are in each state; states with none are left out."""
    return dict(Counter(session.state for session in sessions))


def by_relay(sessions: Iterable[Session]) -> dict[str, int]:
    """How many sessions' frames move on each plane now."""
    moving = Counter(
        one.relay.plane for one in sessions if one.relay is not None and one.state == "relaying"
    )
    return {plane: moving[plane] for plane in PLANES}
