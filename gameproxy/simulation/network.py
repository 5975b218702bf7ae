"""The links between simulated machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.simulation.chance import stream

if TYPE_CHECKING:
    from gameproxy.simulation.kernel import Kernel

RETRANSMIT_FIRST: Final = 200_000
"""Microseconds until what was lost is sent again; twice as many each time after."""
RETRANSMITS_MOST: Final = 7
"""How often a segment may be lost, so that none takes longer than half a minute: a player to whom, or of whom, nothing
comes for longer could be idle through no fault of anybody."""
SYN_RETRANSMIT_FIRST: Final = 1_000_000
"""The same, for the first packet of a connection."""
SYN_RETRIES: Final = 6
SYN_LOST: Final = "SYN lost"
SYN_REFUSED: Final = "SYN refused"
"""What connections come to that are being made, in the counts of what a run has reached."""
GIVE_UP: Final = 924_600_000
"""Microseconds after which a connection over a dead link is given up (Linux: tcp_retries2 = 15)."""


@dataclass(slots=True)
class Conditions:
    """How links are, unless they are told otherwise.

    :param latency: least and most microseconds of a packet between two machines.
    :param loopback_latency: the same, within one.
    :param loss: of 1,000 packets between two machines.
    :param segments: of 1,000 segments, how many are smaller than they could be.
    :param drips: how many of the next segments have :attr:`drip` bytes at most.
    :param short_writes: of 1,000 writes, how many take less than all.
    :param send_buffer: bytes that the system keeps of what was written.
    :param receive_buffer: bytes that the system keeps of what was not read.
    """

    latency: tuple[int, int] = (200, 3_000)
    loopback_latency: tuple[int, int] = (15, 60)
    loss: int = 0
    segments: int = 200
    drips: int = 0
    drip: int = 1
    short_writes: int = 50
    send_buffer: int = 65_536
    receive_buffer: int = 65_536


class Link:
    """One direction between two machines.

    :ivar draw: gives a number from its own chance: of so many that are equally likely, from 0.
    :ivar down: whether nothing gets through.
    :ivar extra: microseconds that each packet takes more.
    """

    __slots__ = ("_conditions", "_held", "_least", "_loopback", "_span", "down", "draw", "extra")

    def __init__(self, chance: Random, conditions: Conditions, loopback: bool) -> None:
        bits = chance.getrandbits
        # As even as it need be, and several times as fast as randrange.
        self.draw: Callable[[int], int] = lambda count: bits(32) * count >> 32
        self.down = False
        self.extra = 0
        self._conditions = conditions
        self._loopback = loopback
        self._least, most = conditions.loopback_latency if loopback else conditions.latency
        self._span = most - self._least + 1
        self._held: list[Callable[[], object]] = []

    def delay(self) -> int:
        """Microseconds that the next packet takes."""
        return self._least + self.draw(self._span) + self.extra

    def loses(self) -> bool:
        """Whether the next packet is lost."""
        return self.down or (self._loss > 0 and self.draw(1000) < self._loss)

    def delay_of_segment(self) -> int:
        """Microseconds until a segment arrives, with the times that it is lost and sent again."""
        delay = self.delay()
        if loss := self._loss:
            for losses in range(RETRANSMITS_MOST):
                if self.draw(1000) >= loss:
                    break
                delay += RETRANSMIT_FIRST << losses
        return delay

    @property
    def _loss(self) -> int:
        return 0 if self._loopback else self._conditions.loss

    def hold(self, deliver: Callable[[], object]) -> None:
        """Keep what cannot get through until the link is up."""
        self._held.append(deliver)

    def up(self) -> list[Callable[[], object]]:
        """Let packets through again.

        :return: what was kept, in order.
        """
        self.down = False
        held, self._held = self._held, []
        return held


class Network:
    """All links, by the addresses of their ends."""

    def __init__(self, kernel: Kernel) -> None:
        self.conditions = Conditions()
        self._kernel = kernel
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, source: str, target: str) -> Link:
        """The way from one address to another."""
        link = self._links.get((source, target))
        if link is None:
            chance = stream(self._kernel.seed, "link", source, target)
            link = Link(chance, self.conditions, source == target)
            self._links[source, target] = link
        return link

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from one address to another: what is sent waits, as TCP's does."""
        self._kernel.write("cut", source, target)
        self.link(source, target).down = True

    def mend(self, source: str, target: str) -> None:
        """Let all through again, what has waited first."""
        self._kernel.write("mend", source, target)
        for deliver in self.link(source, target).up():
            deliver()

    def clog(self, source: str, target: str, extra: int) -> None:
        """Let each packet take so many microseconds more; 0: as before."""
        self._kernel.write("clog", source, target, extra)
        self.link(source, target).extra = extra

    def mend_all(self) -> None:
        """All links are as they were at first."""
        usual = Conditions()
        self.conditions.loss = usual.loss
        self.conditions.drips = usual.drips
        self.conditions.short_writes = usual.short_writes
        for (source, target), link in list(self._links.items()):
            if link.extra:
                self.clog(source, target, 0)
            if link.down:
                self.mend(source, target)
