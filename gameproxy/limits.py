"""All that ``[limits]`` of a configuration asks for, for one proxy."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from gameproxy.address_limits import AddressLimits
from gameproxy.config import LimitsConfig
from gameproxy.farm import GameFarm
from gameproxy.interfaces import SessionRecord
from gameproxy.limit_counts import LimitCounts
from gameproxy.offences import Offences
from gameproxy.relay import RelayLimits


class Limits:
    """What clients may do.

    :ivar counts: how often they did more.
    :ivar addresses: for admission.
    :ivar relay: for relays.
    """

    def __init__(self, section: LimitsConfig, clock: IReactorTime) -> None:
        self.counts = LimitCounts(section.modes)
        self.addresses = AddressLimits(section, clock, self.counts)
        self.relay = RelayLimits.of(section, clock, self.counts)
        self._offences = Offences(section, clock)

    def session_ended(self, record: SessionRecord, farm: GameFarm) -> None:
        """A session is over: ban its client, if that is due."""
        if not record.limit or record.player is None:
            return
        sentence = self._offences.committed(record.player, record.peer.address)
        if sentence is not None:
            who = sentence.kind, sentence.subject, sentence.seconds
            farm.ban_subject(*who, "broke limits again and again", f"proxy {farm.proxy}")
