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
from typing import Final, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger

from gameproxy.dialect import Dialect
from gameproxy.framing import FrameFormat
from gameproxy.interfaces import Outcome, Traffic
from gameproxy.relay.epoll import DirectEnd, EpollPlane, EpollRelay
from gameproxy.relay.lane import Lane
from gameproxy.relay.sockmap import Lane as KernelLane
from gameproxy.relay.sockmap import NotTaken, Pair, SockmapPlane, Way
from gameproxy.sites import Disturbs, never
from gameproxy.wire import LINGER, Side, StallWatch, Wire

FIRST_PAUSE: Final = 0.01
"""Seconds after which a direction that the kernel has handed back goes there again, or it is tried again to hand over.
Each time that it comes back sooner than it has paused the pause is twice as long, else half as long."""
LONGEST_PAUSE: Final = 2.56
"""Seconds of the longest pause."""
FIRST_LOOK: Final = 0.001
"""Seconds after which it is looked again for what no event tells: each time twice as many."""
LONGEST_LOOK: Final = 0.064
"""Seconds of the longest time between two such looks."""
BROKEN_LOOKS: Final = 20
"""How often it is looked whether something that came before a connection broke arrives: about a second."""
READS: Final = 4
"""How often a socket is read to have it empty before it is handed over."""
LOOKS: Final = 4
"""How often within the stall timeout it is looked whether a side takes what the kernel has for it."""


class KernelPlane:
    """The program in the kernel, for sessions of an epoll plane.

    :param program: loaded; it is closed with this.
    :ivar descriptor: of the ring in which the program tells what it has stopped.
    """

    log = Logger()

    def __init__(self, epoll: EpollPlane, clock: IReactorTime, program: SockmapPlane) -> None:
        self.epoll = epoll
        self.clock = clock
        self.descriptor = program.fileno()
        self._program = program
        self._ends: dict[KernelLane, KernelEnd] = {}

    @property
    def pairs(self) -> int:
        """How many sessions have been handed over and are not gone."""
        return len(self._ends) // 2

    def take(self, format: FrameFormat, ends: tuple[KernelEnd, KernelEnd]) -> Pair:
        """Hand a session to the kernel.

        :raises NotTaken: not now.
        """
        try:
            self.epoll.join(self)
        except OSError as error:
            raise NotTaken("the ring cannot be read") from error
        pair = self._program.add(format, ends[0].way(), ends[1].way())
        self._ends.update(zip(pair.lanes, ends, strict=True))
        for lane, end in zip(pair.lanes, ends, strict=True):
            end.hand_over(lane)
        return pair

    def let_go(self, pair: Pair) -> None:
        """Make room for another: the sockets of this one are closed."""
        for lane in pair.lanes:
            del self._ends[lane]
        pair.close()

    def close(self) -> None:
        """Let go of the program; nothing is relayed any more."""
        self.epoll.leave(self)
        self._program.close()

    # What the epoll plane calls

    def read(self, buffer: memoryview) -> int:
        """Take what the program has stopped."""
        for lane in self._program.take_stopped():
            end = self._ends[lane]
            try:
                end.stopped()
            except Exception:
                self.log.failure("While taking a session back")
                end.abort()
        return 0

    def hand_back(self) -> None:
        """The ring neither ends nor breaks."""

    def abort(self) -> None:
        """It reads what it can; nobody else could."""


class KernelEnd(DirectEnd):
    """One end of a session: its socket is read by the program, or on the epoll plane.

    :ivar kernel: the program's lane, once it has been handed over.
    """

    __slots__ = (
        "_acknowledged",
        "_broken_looks",
        "_given_at",
        "_is_draining",
        "_is_over",
        "_is_paused",
        "_look",
        "_looking",
        "_on",
        "_pause",
        "_returning",
        "kernel",
    )

    def __init__(self, on: KernelPlane, wire: Wire, lane: Lane, sink: Wire) -> None:
        super().__init__(on.epoll, wire, lane, sink)
        self.kernel: KernelLane | None = None
        self._on = on
        self._is_paused = self._is_draining = self._is_over = False
        self._broken_looks = 0
        self._acknowledged = -1
        self._given_at = 0.0
        self._pause = FIRST_PAUSE
        self._look = FIRST_LOOK
        self._looking: IDelayedCall | None = None
        self._returning: IDelayedCall | None = None

    @property
    def in_kernel(self) -> bool:
        """Whether the program reads it."""
        return self.kernel is not None and not self.kernel.ours

    @property
    def is_clear(self) -> bool:
        """Whether it is read on the plane, and nothing waits on the way to the other."""
        sink = self._sink_transport
        waits = self._is_paused or self._is_draining or self._looking is not None
        return (
            self.is_direct
            and not (self._is_over or waits)
            and not (sink.dataBuffer or sink._tempDataBuffer)
        )

    def way(self) -> Way:
        """What the program needs to know of it."""
        return Way(cast(Connection, self._wire.transport).socket, self._scanner)

    def empty(self) -> bool:
        """Read it until there is nothing more, as far as that comes to an end soon.

        :return: whether it is clear then.
        """
        for _ in range(READS):
            if not self.is_clear:
                return False
            if not self.read(self._plane.buffer):
                break
        return self.is_clear

    # Into the kernel

    def hand_over(self, lane: KernelLane) -> None:
        """The program reads from now on."""
        self.kernel = lane
        self._receive = lane.read_into
        self._given()

    def _given(self) -> None:
        self._given_at = self._on.clock.seconds()
        if not self.in_kernel:  # its stream has ended meanwhile
            return
        try:
            self._plane.await_end(self)
        except OSError:
            self.take_back()

    def _return(self) -> None:
        self._returning = None
        assert self.kernel is not None
        if self.empty() and self.kernel.resume():
            self._given()
        elif not self._is_over and self.is_direct:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._returning = self._on.clock.callLater(self._pause, self._return)

    # Out of it

    def stopped(self) -> None:
        """The program has left something, and reads no more."""
        self._plane.leave(self)
        if self._on.clock.seconds() - self._given_at < self._pause:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = max(self._pause / 2, FIRST_PAUSE)
        self._returning = self._on.clock.callLater(self._pause, self._return)
        self._drain()

    def take_back(self) -> None:
        """Read here again, from the next byte on."""
        if self.kernel is not None and self.in_kernel:
            self.kernel.stop()
            self.stopped()

    def look(self) -> None:
        """Take it back if the other side has taken nothing since the last look, though something waits for it: how long
        that may be so is seen here."""
        before, self._acknowledged = self._acknowledged, self._sink.acknowledged()
        if (
            self.kernel is not None
            and self.in_kernel
            and before == self._acknowledged
            and not self.kernel.is_drained()
        ):
            self.take_back()

    def _drain(self) -> None:
        """Read when what the kernel has passed on is in the other side's TCP. Until then that is slow."""
        assert self.kernel is not None
        if self.kernel.is_drained():
            self._look = FIRST_LOOK
            if self._is_draining:
                self._is_draining = False
                self._lane.resumeProducing()
            else:
                self.resume()
        elif self.kernel.has_ended():  # all of it has been passed on
            super().hand_back()
        else:
            if not self._is_draining:
                self._is_draining = True
                self._lane.pauseProducing()
            self._look_later()

    # In between

    def pause(self) -> None:
        self._is_paused = True
        super().pause()

    def resume(self) -> None:
        self._is_paused = False
        if not self.in_kernel and not self._is_draining and not self._is_over:
            super().resume()

    def read(self, buffer: memoryview) -> int:
        size = super().read(buffer)
        if size:
            self._broken_looks = 0
        elif self.kernel is not None and self.kernel.unread and self.is_direct:
            self._await_left()
        return size

    def hand_back(self) -> None:
        lane = self.kernel
        if lane is None or (lane.ours and not lane.unread) or self._broken_looks == BROKEN_LOOKS:
            super().hand_back()
        elif self.in_kernel:
            self.take_back()
        else:  # Twisted's transport would not know how much is to come
            self._broken_looks += 1
            self._await_left()

    def stop(self) -> None:
        """Read no more, neither here nor there."""
        self._is_over = True
        for call in (self._looking, self._returning):
            if call is not None:
                call.cancel()
        self._looking = self._returning = None
        if self.kernel is not None:
            self.kernel.stop()

    def _await_left(self) -> None:
        """What the program has left has not come yet. At the end of a stream nothing would tell when it does."""
        self._plane.leave(self)
        self._look_later()

    def _look_later(self) -> None:
        if self._looking is None and not self._is_over:
            self._looking = self._on.clock.callLater(self._look, self._look_again)
            self._look = min(2 * self._look, LONGEST_LOOK)

    def _look_again(self) -> None:
        self._looking = None
        if self._is_draining:
            self._drain()
        elif not self._is_paused and self.read(self._plane.buffer):
            self._look = FIRST_LOOK
            if self.is_direct and not self._is_paused:
                self.resume()


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
        dialect: Dialect,
        clock: IReactorTime,
        stall_timeout: float,
        on_end: Callable[[Outcome], None],
        disturbs: Disturbs = never,
    ) -> None:
        self._on = on
        super().__init__(on.epoll, client, server, dialect, clock, stall_timeout, on_end, disturbs)
        self._clock = clock
        self._format = dialect.format
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
                self._pair = self._on.take(self._format, self._both)
            except NotTaken:
                pass
            else:
                for wire in (self._client, self._server):
                    wire.gone.addCallback(self._gone)
                self._look_later()
                return
        if not self._ended:
            self._next = self._on.clock.callLater(self._pause, self._hand_over)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _look_later(self) -> None:
        self._next = self._on.clock.callLater(self._stall_timeout / LOOKS, self._look)

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
        if not self._ended:
            if self._next is not None:
                self._next.cancel()
            for end in self._both:
                end.stop()
        super()._finish(outcome, to_client, to_server, over)

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
            deadline = self._clock.callLater(LINGER, wire.abort)
        else:
            deadline = StallWatch(self._clock, wire, self._stall_timeout, wire.abort)
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
