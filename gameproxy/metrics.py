"""What is counted of sessions. No count is kept by player or address."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gameproxy.interfaces import PLANES, SessionRecord, Traffic
from gameproxy.phases import Phase
from gameproxy.reasons import CloseReason
from gameproxy.session import Session

BOUNDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Seconds: where the buckets of a histogram end; what is more is in one more."""


class Durations:
    """How often something took how long: a histogram.

    :ivar counts: how often it was in each bucket: at most the bound of the same place, and more than the one before; in
        the last, more than all.
    :ivar total: all together, in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """It took so long once more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass
class Metrics:
    """Counts since the start.

    :ivar ended: sessions that are over, by close reason.
    :ivar traffic: what the sessions that are over have relayed.
    :ivar phases: how long it took to come through each.
    :ivar turned_away: connections that were closed without a word.
    """

    ended: Counter[CloseReason] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)
    phases: dict[Phase, Durations] = field(
        default_factory=lambda: {phase: Durations() for phase in Phase}
    )
    turned_away: int = 0

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
