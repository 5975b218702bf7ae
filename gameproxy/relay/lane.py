"""One direction of a session that is relayed."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from gameproxy.framing import Control, FrameError
from gameproxy.relay.meter import Meter, Scanning
from gameproxy.wire import Side, StallWatch, Wire


class Ends(Protocol):
    """What hears of a lane's end: its relay."""

    def source_ended(self, lane: Lane) -> None:
        """A side ended its stream or broke; what it had sent has been passed on."""
        ...

    def sink_stalled(self, lane: Lane) -> None:
        """A side takes nothing of what is written to it."""
        ...

    def scan_stopped(self, lane: Lane, stopped: Control | FrameError) -> None:
        """A side sent a frame for the proxy, or a bad one."""
        ...


class Source(Protocol):
    """What reads a lane's bytes: a wire, or a plane in its place."""

    def pause(self) -> None:
        """Read no more for now."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


@implementer(IPushProducer)
class Lane:
    """One direction: holds the wire of its source, and is the producer of its sink.

    :param relay: is told of its end.
    :ivar meter: scans in place of the scanner, and sees whether it is too much.
    :ivar source: pauses while the sink is slow. A plane that reads in place of the wire puts itself here.
    :ivar scanner: what has passed, and what stopped it.
    :ivar scanning: scans what comes: the meter, or the scanner.
    """

    def __init__(
        self,
        relay: Ends,
        source: Side,
        sink: Wire,
        clock: IReactorTime,
        stall_timeout: float,
        meter: Meter | None = None,
    ) -> None:
        self._relay = relay
        self._wire = source.wire
        self._early = source.early
        self._sink = sink
        self._clock = clock
        self._stall_timeout = stall_timeout
        self._stall_watch: StallWatch | None = None
        self.source: Source = source.wire
        self.scanner = source.scanner
        self.meter = meter
        self.scanning: Scanning = source.scanner if meter is None else meter

    @property
    def is_slow(self) -> bool:
        """Whether nothing is read, as the sink has enough."""
        return self._stall_watch is not None

    def connect(self) -> None:
        """Receive what the source sends from now on, and be told when the sink is slow."""
        self._wire.holder = self
        self._sink.set_producer(self)

    def begin(self) -> None:
        """Pass on what the source sent early."""
        early, self._early = self._early, b""
        self._pass_on(early)

    def let_go(self, last_words: bytes) -> bytes:
        """Relay no more.

        :return: the last words, if the sink's stream stands between two frames so that they can be said.
        """
        self._stop_watching()
        return last_words if self.scanner.between_frames else b""

    def scan_stopped(self) -> None:
        """Have the relay see what stopped the scan."""
        assert self.scanner.stopped is not None
        self._relay.scan_stopped(self, self.scanner.stopped)

    # What the source's wire calls

    def data_received(self, data: bytes) -> None:
        self._pass_on(self.scanning.scan(data))

    def stream_ended(self) -> None:
        self._relay.source_ended(self)

    # What the sink's transport calls

    def pauseProducing(self) -> None:
        self.source.pause()
        if self._stall_watch is None:  # called with every write to a full buffer
            self._stall_watch = StallWatch(
                self._clock, self._sink, self._stall_timeout, self._stalled
            )
            if self.meter is not None:
                self.meter.pause()

    def resumeProducing(self) -> None:
        self._stop_watching()
        if self.meter is not None:
            self.meter.resume()
        self.source.resume()

    def stopProducing(self) -> None:
        """The sink is gone: its wire tells the other lane, which ends both."""

    def _stop_watching(self) -> None:
        if self._stall_watch is not None:
            if self._stall_watch.active():
                self._stall_watch.cancel()
            self._stall_watch = None

    def _stalled(self) -> None:
        self._relay.sink_stalled(self)

    def _pass_on(self, data: bytes) -> None:
        self._sink.write(data)
        if self.scanner.stopped is not None:
            self.scan_stopped()
