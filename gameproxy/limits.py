"""All that ``[limits]`` of a configuration asks for, for one proxy."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime

from gameproxy.address_limits import AddressLimits
from gameproxy.config import LimitsConfig
from gameproxy.farm import GameFarm
from gameproxy.interfaces import SessionRecord
from gameproxy.limit_counts import LimitCounts
from gameproxy.offences import Offences
from gameproxy.relay import RelayLimits
from gameproxy.session import Session


class Limits:
    """What clients may do.

    :ivar counts: how often they did more.
    :ivar addresses: for admission.
    """

    def __init__(self, section: LimitsConfig, clock: IReactorTime) -> None:
        self.counts = LimitCounts(section.modes)
        self.addresses = AddressLimits(section, clock, self.counts)
        self._offences = Offences(section, clock)
        self._clock = clock

    def relay(self, section: LimitsConfig) -> RelayLimits:
        """Those for relays."""
        return RelayLimits.of(section, self._clock, self.counts)

    def reconfigure(self, section: LimitsConfig, sessions: Iterable[Session]) -> None:
        """Go on with other limits. Sessions that relay keep those on frames, bytes and idleness with which they began.

        :param sessions: that were let in and are not over.
        """
        self.counts.reconfigure(section.modes)
        self.addresses.reconfigure(section, sessions)
        self._offences.reconfigure(section)

    def session_ended(self, record: SessionRecord, farm: GameFarm) -> None:
        """A session is over: ban its client, if that is due."""
        if not record.limit or record.player is None:
            return
        sentence = self._offences.committed(record.player, record.peer.address)
        if sentence is not None:
            who = sentence.kind, sentence.subject, sentence.seconds
            farm.ban_subject(*who, "broke limits again and again", f"proxy {farm.proxy}")
