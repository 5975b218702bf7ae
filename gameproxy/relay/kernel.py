"""Sessions on the kernel's relay (docs/sockmap.md): each begins on the epoll plane, and is there again when it must be.

What a direction of a session may be:

========= ====================== =============================== ===============================================
state     who reads its source   what is watched                 becomes
========= ====================== =============================== ===============================================
on epoll  the epoll plane        that it can be read             in kernel, when both directions are clear
in kernel the program            that it ends; the ring of stops draining, when the program has left something
draining  nobody                 whether the sink takes anything here, when TCP has taken what was passed on
here      the epoll plane, what  that it can be read             in kernel, when it is clear and has paused
          the program leaves
ending    nobody; it is thrown   whether the sink takes anything gone, behind what was passed on and last words
          away
========= ====================== =============================== ===============================================

Both directions enter the kernel together, and leave it and return each by itself. Clear is one of which all has been
read, scanned and written. From every state it may become ending.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gameproxy.interfaces import Outcome, Traffic
from gameproxy.relay.epoll import EpollPlane, EpollRelay
from gameproxy.relay.kernel_plane import (
    FIRST_LOOK,
    FIRST_PAUSE,
    LONGEST_LOOK,
    LONGEST_PAUSE,
    KernelEnd,
    KernelPlane,
)
from gameproxy.relay.sockmap import Lane as KernelLane
from gameproxy.relay.sockmap import NotTaken, Pair
from gameproxy.relay.transport import Terms
from gameproxy.wire import LINGER, Side, StallWatch, Wire

LOOKS: Final = 4
"""How often within the stall timeout it is looked whether a side takes what the kernel has for it."""


class KernelRelay(EpollRelay):
    """Relays on the epoll plane, and hands the session to the kernel when it has lived for a time.

    :param on: has the program.
    :param after: seconds until it is handed over.
    """

    def __init__(
        self,
        on: KernelPlane,
        after: float,
        client: Side,
        server: Side,
        terms: Terms,
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._on = on
        super().__init__(on.epoll, client, server, terms, on_end)
        self._after = after
        self._pause = FIRST_PAUSE
        self._pair: Pair | None = None
        self._sockets = 2
        self._next: IDelayedCall | None = None

    def _make_ends(self, on: EpollPlane) -> tuple[KernelEnd, KernelEnd]:
        self._both = (
            KernelEnd(self._on, self._client, self._from_client, self._server),
            KernelEnd(self._on, self._server, self._from_server, self._client),
        )
        return self._both

    @property
    def plane(self) -> str:
        return "sockmap" if all(end.in_kernel for end in self._both) else super().plane

    @property
    def traffic(self) -> Traffic:
        if self._pair is None:
            return super().traffic
        client, server = self._pair.lanes
        return Traffic(client.frames, client.size, server.frames, server.size)

    def start(self) -> None:
        super().start()
        if self._ended:
            return
        if self._after:
            self._next = self._on.clock.callLater(self._after, self._hand_over)
        else:
            self._hand_over()

    def take_back(self) -> None:
        """Have user space read both sides again, from the next byte of each on; the kernel gets them after a pause."""
        for end in self._both:
            end.take_back()

    def _hand_over(self) -> None:
        self._next = None
        if all(end.empty() for end in self._both):
            try:
                self._pair = self._on.take(self._terms.dialect.format, self._both)
            except NotTaken:
                pass
            else:
                self._look_later()
                return
        if not self._ended:
            self._next = self._on.clock.callLater(self._pause, self._hand_over)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _look_later(self) -> None:
        self._next = self._on.clock.callLater(self._terms.stall_timeout / LOOKS, self._look)

    def _look(self) -> None:
        self._look_later()
        for end in self._both:
            end.look()

    def _gone(self, _: object) -> None:
        """A socket is closed. Sooner the pair must not be let go of: its sockets would lose what they receive."""
        self._sockets -= 1
        if not self._sockets and self._pair is not None:
            self._on.let_go(self._pair)

    def _finish(
        self, outcome: Outcome, to_client: bytes, to_server: bytes, over: Wire | None = None
    ) -> None:
        is_first = not self._ended
        if is_first:
            if self._next is not None:
                self._next.cancel()
            for end in self._both:
                end.stop()
        super()._finish(outcome, to_client, to_server, over)
        if is_first and self._pair is not None:
            for wire in (self._client, self._server):
                wire.gone.addCallback(self._gone)

    def _end(
        self, wire: Wire, last_words: bytes, is_over: bool, peer_closes_first: bool = False
    ) -> None:
        def end() -> None:
            super(KernelRelay, self)._end(wire, last_words, is_over, peer_closes_first)

        lane = self._both[wire is self._client].kernel
        if lane is None or wire.ending or lane.is_drained():
            end()
            return
        deadline: IDelayedCall | StallWatch
        if is_over:
            deadline = self._terms.clock.callLater(LINGER, wire.abort)
        else:
            deadline = StallWatch(self._terms.clock, wire, self._terms.stall_timeout, wire.abort)
        Undelivered(lane, wire, end, self._on.clock, deadline)


class Undelivered:
    """What the kernel has passed on to a wire whose TCP has not taken it: with the end of the stream it would be lost.

    What comes over the wire meanwhile is thrown away, as when it is being ended.

    :param end: ends the wire.
    :param clock: tells when to look again.
    :param deadline: aborts the wire if that takes too long.
    """

    def __init__(
        self,
        lane: KernelLane,
        wire: Wire,
        end: Callable[[], None],
        clock: IReactorTime,
        deadline: IDelayedCall | StallWatch,
    ) -> None:
        self._lane = lane
        self._end = end
        self._clock = clock
        self._deadline = deadline
        self._pause = FIRST_LOOK
        self._looking: IDelayedCall | None = None
        wire.ignore()
        wire.gone.addCallback(self._gone)
        self._look_later()

    def _look_later(self) -> None:
        self._looking = self._clock.callLater(self._pause, self._look)
        self._pause = min(2 * self._pause, LONGEST_LOOK)

    def _look(self) -> None:
        self._looking = None
        if self._lane.is_drained():
            self._stop()
            self._end()
        else:
            self._look_later()

    def _gone(self, _: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
