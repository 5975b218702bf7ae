"""The kernel's plane, and one direction of a session on it: what takes it there and back (the table in kernel.py)."""

from __future__ import annotations

from typing import Final, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger

from gameproxy.framing import FrameFormat
from gameproxy.relay.epoll import DirectEnd, EpollPlane
from gameproxy.relay.lane import Lane
from gameproxy.relay.sockmap import Lane as KernelLane
from gameproxy.relay.sockmap import NotTaken, Pair, SockmapPlane, Way
from gameproxy.wire import Wire

FIRST_PAUSE: Final = 0.01
"""Seconds after which a direction that the kernel has handed back goes there again, or it is tried again to hand over.
Each time that it comes back sooner than it has paused the pause is twice as long, else half as long."""
LONGEST_PAUSE: Final = 2.56
"""Seconds of the longest pause."""
FIRST_LOOK: Final = 0.001
"""Seconds after which it is looked again for what no event tells: each time twice as many."""
LONGEST_LOOK: Final = 0.064
"""Seconds of the longest time between two such looks."""
READS: Final = 4
"""How often a socket is read to have it empty before it is handed over."""


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
        """Whether it is read on the plane, nothing waits on the way to the other, and nothing that comes is forgiven:
        the kernel does not."""
        meter = self._lane.meter
        waits = self._is_paused or self._is_draining or self._looking is not None
        return (
            self.is_direct
            and not (self._is_over or waits)
            and not self._sink_waits()
            and not (meter is not None and meter.is_forgiving)
        )

    def way(self) -> Way:
        """What the program needs to know of it."""
        meter = self._lane.meter
        limits = () if meter is None else meter.buckets
        return Way(cast(Connection, self._wire.transport).socket, self._scanner, *limits)

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
        self._source = lane
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
        is_clear = self.empty()
        if is_clear and self.kernel.resume():
            self._given()
        elif not self._is_over and self.is_direct:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._returning = self._on.clock.callLater(self._pause, self._return)
            if is_clear:  # for a moment the kernel may have had it
                self._plane.leave(self)
                self._drain()

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
        that may be so is seen here. And count what was too much."""
        if self.kernel is not None:
            self.kernel.count_over()
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
        if not size and self.kernel is not None and self.kernel.unread and self.is_direct:
            # What the program has left has not come yet. At the end of a stream nothing would tell when it does.
            self._plane.leave(self)
            self._look_later()
        return size

    def hand_back(self) -> None:
        if self.in_kernel:
            self.take_back()
        elif self.kernel is not None and self.kernel.is_lost:
            self.abort()  # whoever read on would read from a wrong byte
        else:
            super().hand_back()

    def find_no_room(self) -> None:
        if self.kernel is None:
            self.hand_back()
        else:
            self.abort()  # Twisted's transport does not know what the program has left, nor of a stream that is lost

    def stop(self) -> None:
        """Read no more, neither here nor there."""
        self._is_over = True
        for call in (self._looking, self._returning):
            if call is not None:
                call.cancel()
        self._looking = self._returning = None
        if self.kernel is not None:
            self.kernel.stop()

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
