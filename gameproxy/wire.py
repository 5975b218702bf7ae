"""One connection of the proxy's, to a client or to a game server: who receives from it, and how it is ended.

A :class:`Wire` is a Twisted protocol that passes what comes to whoever holds it at the moment, and knows the one thing
that is easy to get wrong: ending a connection so that neither the last message nor the data before it is lost to a
reset, while a peer that does not read, or does not stop sending, cannot keep it open.
"""

from __future__ import annotations

import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from typing import Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.framing import FrameScanner
from gameproxy.tls_errors import tls_fault

LINGER: Final = 1.0
"""Seconds that a peer gets to take the end of a stream, or to close first."""
DISCARD_MAX: Final = 65536
"""Bytes that are read and thrown away from a peer that goes on sending after all we had to say has reached it."""
QUESTIONS: Final = 3
"""How often a silent peer is asked whether it is still there, before it counts as lost."""
QUESTION_INTERVAL: Final = 10
"""Whole seconds between two such questions."""
PROBE_TIME: Final = 2.5
"""Seconds in which a peer that is doubted must be heard of: it is asked at once, and each second."""
_STALL_CHECKS: Final = 4
"""How often progress is looked at within the time that a peer may go without any."""
_TCP_INFO_ACKED: Final = struct.Struct("=120xQ")
"""``tcpi_bytes_acked`` in Linux's ``struct tcp_info`` (since 4.1; linux/tcp.h)."""
_TCP_INFO_HEARD: Final = struct.Struct("=52xII")
"""``tcpi_last_data_recv`` and ``tcpi_last_ack_recv`` there, in milliseconds."""
_INT: Final = struct.Struct("=i")


class Holder(Interface):
    """Who receives what comes over a wire at the moment."""

    def data_received(self, data: bytes) -> None:
        """Bytes came, any number of them."""
        ...

    def stream_ended(self) -> None:
        """Nothing comes any more: the peer ended its stream, or the connection broke. Called at most once."""
        ...


class _Nobody:
    """Wants nothing of what comes."""

    def data_received(self, data: bytes) -> None: ...

    def stream_ended(self) -> None: ...


@implementer(IHalfCloseableProtocol)
class Wire(Protocol):
    """One TCP or TLS connection.

    :param clock: for the deadlines of ending.
    :param connected: called with the wire when the connection is made; it must give the wire a holder.
    :ivar holder: receives what comes; may be changed at any time.
    :ivar gone: fires with ``None`` when the connection exists no more.
    :ivar ending: whether :meth:`end` or :meth:`abort` was called, or the connection is gone.
    :ivar fault: what was wrong with TLS when the connection broke, for operators; else empty.
    """

    transport: ITransport
    holder: Holder

    def __init__(self, clock: IReactorTime, connected: Callable[[Wire], None]) -> None:
        self._clock = clock
        self._connected: Callable[[Wire], None] | None = connected
        self.gone: Deferred[None] = Deferred()
        self.ending = False
        self.fault = ""
        self._peer_ended = False
        self._has_producer = False
        self._deadline: IDelayedCall | StallWatch | None = None
        self._lingering: IDelayedCall | None = None  # our end of the stream is out
        self._discarded = 0  # bytes that came since
        self._idle = 0
        self._probing: IDelayedCall | None = None

    # What Twisted calls

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        # It would be kept as long as the wire is.
        connected, self._connected = self._connected, None
        assert connected is not None
        connected(self)

    def dataReceived(self, data: bytes) -> None:
        if not self.ending:
            self.holder.data_received(data)
            return
        if self._lingering is None:
            return
        self._discarded += len(data)
        if self._discarded > DISCARD_MAX and not self.unacknowledged():
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # TCP and TLS transports have it

    def readConnectionLost(self) -> None:
        self._peer_ended = True
        if self.ending:
            self.transport.loseConnection()
        else:
            self.holder.stream_ended()

    def writeConnectionLost(self) -> None:
        """Our end of the stream is on its way: all that is left is the peer's."""
        self._linger()

    def connectionLost(self, reason: Failure | None = None) -> None:
        held = not self.ending and not self._peer_ended
        self.ending = True
        fault = tls_fault(reason.value) if reason is not None else ""
        self.fault = fault and f"TLS: {fault}"
        self._stop_deadlines()
        try:
            if held:
                self.holder.stream_ended()
        finally:  # a slot depends on it
            self.gone.callback(None)

    # What its holders call

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return bool(ISSLTransport.providedBy(self.transport))

    @property
    def tls_version(self) -> str:
        """Its version of TLS, as OpenSSL names it (``TLSv1.3``), once the handshake is over; empty: none."""
        handle = self.transport.getHandle() if self.secure else None  # type: ignore[attr-defined]  # TLS has it
        return "" if handle is None else str(handle.get_protocol_version_name())

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is being ended."""
        if data and not self.ending:
            self.transport.write(data)

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Say who is to pause while the peer does not read, in place of whoever was; ``None``: nobody."""
        if self._has_producer:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]  # and this
        self._has_producer = producer is not None
        if producer is not None:
            self.transport.registerProducer(producer, True)  # type: ignore[attr-defined]  # and this

    def keep_little(self, size: int) -> None:
        """Read no more than so many bytes at a time, and have the producer pause when so many wait to be sent."""
        self.transport.bufferSize = size  # type: ignore[attr-defined]  # transports on sockets have it

    def pause(self) -> None:
        """Read no more for now."""
        if not self.ending:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # and this

    def resume(self) -> None:
        """Read on."""
        if not self.ending:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # and this

    def ignore(self) -> None:
        """Throw away what still comes, until the connection is ended."""
        self.set_producer(None)
        self.holder = _Nobody()
        if not self._peer_ended:
            self.resume()

    def end(
        self,
        last_words: bytes = b"",
        *,
        peer_closes_first: bool = False,
        stall_timeout: float | None = None,
    ) -> None:
        """End the connection: all that was written goes out, then ``last_words``, then the end of the stream; what
        still comes is discarded. When all has reached the peer, it has :data:`LINGER` seconds to close; from one that
        sends more than :data:`DISCARD_MAX` bytes in that time, no more is read. Then the connection is aborted.

        Doing it twice changes nothing.

        :param peer_closes_first: give the peer :data:`LINGER` seconds to close before we do, so that the port waits
            on its side.
        :param stall_timeout: how many seconds a peer that takes nothing of what was written is waited for; ``None``:
            all must be over within :data:`LINGER` seconds, progress or not.
        """
        if self.ending:
            return
        self.set_producer(None)
        self.write(last_words)
        if not self._peer_ended:
            self.resume()  # while reading is paused, nothing tells that the peer has closed
        self.ending = True
        if peer_closes_first and not self._peer_ended:
            self._deadline = self._clock.callLater(LINGER, self._end_stream, stall_timeout)
        else:
            self._end_stream(stall_timeout)

    def abort(self) -> None:
        """End the connection at once; what was not sent yet is lost."""
        self.ending = True
        self._stop_deadlines()
        self.transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport and ISSLTransport have it

    def keep_alive(self, idle: int, stall_timeout: float) -> None:
        """Have the system ask the peer, when it is silent, whether it is still there: one without power or network says
        nothing. After :data:`QUESTIONS` without an answer the connection breaks. A transport that is no socket asks
        nobody.

        :param idle: whole seconds of silence before the first question. Many connections need different ones: asked in
            one moment, their peers are more than a network's queue holds.
        :param stall_timeout: seconds for which a peer may take nothing of what was written: it is not lost sooner.
        """
        if not ISystemHandle.providedBy(self.transport):
            return
        self._idle = idle
        self.transport.setTcpKeepAlive(True)  # type: ignore[attr-defined]  # those on sockets have it
        self._set_questions(idle, QUESTION_INTERVAL)
        # Nobody is asked while something that was sent is not acknowledged: then this ends the connection, where else
        # the system would go on trying for a quarter of an hour. With it Linux does not count the questions: it ends
        # the connection when it would ask again and so much time is over (tcp_keepalive_timer, net/ipv4/tcp_timer.c),
        # which is to be so after the last question. It ends a connection, too, whose peer is there and does not read:
        # how long that may be, stall_timeout says.
        unanswered = max(idle + QUESTION_INTERVAL * (QUESTIONS - 0.5), stall_timeout)
        self._set_tcp(socket.TCP_USER_TIMEOUT, int(1000 * unanswered))

    def probe(self) -> None:
        """Find out now whether the peer is still there. If nothing is heard of it in :data:`PROBE_TIME`, the connection
        breaks."""
        if self._idle and not self.ending and self._probing is None:
            self._set_questions(1, 1)
            self._probing = self._clock.callLater(PROBE_TIME, self._probed)

    def silence(self) -> float:
        """For how many seconds nothing was heard of the peer, not even that it took what was sent, where the system
        tells (Linux), else 0."""
        with suppress(OSError, AttributeError, struct.error):
            info = self._socket().getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_HEARD.size
            )
            data, acknowledgement = _TCP_INFO_HEARD.unpack(info)
            return float(min(data, acknowledgement)) / 1000
        return 0.0

    def acknowledged(self) -> int:
        """How many bytes the peer has taken since the connection was made, where the system tells (Linux), else 0."""
        with suppress(OSError, AttributeError, struct.error):
            info = self._socket().getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_ACKED.size
            )
            acked: int = _TCP_INFO_ACKED.unpack(info)[0]
            return acked
        return 0

    def unacknowledged(self) -> int:
        """How many bytes the system still keeps because the peer has not taken them, where it tells, else 0."""
        with suppress(OSError, AttributeError):
            waiting: int = _INT.unpack(ioctl(self._socket(), termios.TIOCOUTQ, bytes(_INT.size)))[0]
            return waiting
        return 0

    def _socket(self) -> socket.socket:
        """The socket below whatever wraps it.

        :raises AttributeError: there is none.
        """
        transport: ITransport | None = self.transport
        while isinstance(transport, ProtocolWrapper):
            transport = transport.transport
        handle: socket.socket = transport.getHandle()  # type: ignore[union-attr]  # those on sockets have it
        return handle

    def _probed(self) -> None:
        self._probing = None
        if self.silence() < PROBE_TIME:
            self._set_questions(self._idle, QUESTION_INTERVAL)
        else:  # it breaks, and whoever holds it is told so
            self.transport.abortConnection()  # type: ignore[attr-defined]  # as in abort()

    def _set_questions(self, idle: int, interval: int) -> None:
        self._set_tcp(socket.TCP_KEEPINTVL, interval)
        self._set_tcp(socket.TCP_KEEPIDLE, idle)  # last: it is what sets the clock anew

    def _set_tcp(self, option: int, value: int) -> None:
        with suppress(OSError):  # a UNIX socket has no such thing
            self._socket().setsockopt(socket.IPPROTO_TCP, option, value)

    def _end_stream(self, stall_timeout: float | None) -> None:
        if stall_timeout is None:
            self._deadline = self._clock.callLater(LINGER, self.abort)
        else:
            self._deadline = StallWatch(self._clock, self, stall_timeout, self.abort)
        if self._peer_ended or self.secure or not ITCPTransport.providedBy(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
        if isinstance(self.transport, ProtocolWrapper):  # it will not tell when our end is out
            self._linger()

    def _linger(self) -> None:
        self._lingering = self._clock.callLater(LINGER, self._lingered)

    def _lingered(self) -> None:
        """An abort throws away what the system has not delivered yet: wait for that, as long as it goes on."""
        if self.unacknowledged():
            self._linger()
        else:
            self.abort()

    def _stop_deadlines(self) -> None:
        for deadline in (self._deadline, self._lingering, self._probing):
            if deadline is not None and deadline.active():
                deadline.cancel()


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a session that is about to be relayed.

    :param wire: the connection.
    :param scanner: what has watched the stream that comes over it so far, and is to go on.
    :param early: what the scanner has let pass, but nobody has passed on yet.
    """

    wire: Wire
    scanner: FrameScanner
    early: bytes


class StallWatch:
    """Notices that a peer takes nothing for a time. Runs from its creation until it is cancelled or has called.

    :param wire: the connection to the peer.
    :param timeout: seconds without any progress.
    :param stalled: called once, at most a quarter of ``timeout`` late.
    """

    def __init__(
        self, clock: IReactorTime, wire: Wire, timeout: float, stalled: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._wire = wire
        self._timeout = timeout
        self._stalled = stalled
        self._acknowledged = wire.acknowledged()
        self._checks_left = _STALL_CHECKS
        self._call = clock.callLater(timeout / _STALL_CHECKS, self._look)

    def active(self) -> bool:
        """Whether it still watches."""
        return self._call.active()

    def cancel(self) -> None:
        """Stop watching."""
        self._call.cancel()

    def _look(self) -> None:
        before, self._acknowledged = self._acknowledged, self._wire.acknowledged()
        # Looks are counted, not seconds: a wall clock that is set forward must not end anybody's session.
        self._checks_left = _STALL_CHECKS if self._acknowledged != before else self._checks_left - 1
        if self._checks_left == 0:
            self._stalled()
        else:
            self._call = self._clock.callLater(self._timeout / _STALL_CHECKS, self._look)
