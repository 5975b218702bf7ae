"""One end of a simulated TCP connection: what comes, what goes, and when it can be read and written.

Instead of packets there are segments, which arrive in order after the time that their link takes; what is lost is late.
Flow control is TCP's: a sender's buffer is full when the receiver does not read.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from gameproxy.simulation.machines import ANY, Process
from gameproxy.simulation.network import GIVE_UP, Link

SEGMENT_MAX: Final = 1460
"""Bytes of a segment."""
_END: Final = "end"
_RESET: Final = "reset"

Address = tuple[str, int]


class Selectable(Protocol):
    """What a reactor calls when a socket can be read or written."""

    def doRead(self) -> Any: ...
    def doWrite(self) -> Any: ...


class End:
    """One end of a connection, or of what is to be one.

    :param peer: the other end, if it is known.
    :ivar name: what the trace calls it.
    """

    def __init__(self, process: Process, peer: End | None) -> None:
        self.process = process
        self.kernel = process.kernel
        self.peer = peer
        process.sockets_made += 1
        self.name = f"{process.name}.{process.sockets_made}"
        self.local: Address = (ANY, 0)
        self.remote: Address | None = None
        self.state = "new"
        self.closed = False
        self.owner: Selectable | None = None
        """Who reads from it, or did last: a transport."""
        self.reader: Selectable | None = None
        self.writer: Selectable | None = None
        self.dispatch: Callable[[Selectable, bool], None] | None = None
        """Given by the reactor: reads from, or writes to, a selectable."""
        self._conditions = process.kernel.network.conditions
        self._read_due = False
        self._write_due = False
        self._error = 0
        self._accepting: deque[End] = deque()
        """Connections that were made to it, if it listens, and wait to be accepted."""
        # What came
        self._incoming = bytearray()
        self._incoming_end = False
        self._heard_at = 0
        # What goes
        self._link: Link | None = None
        self._outgoing = bytearray()
        self._end_wanted = False
        self._end_sent = False
        self._pipe: deque[tuple[bytes | str, int]] = deque()
        """What is under way, and when it was sent."""
        self._last_arrival = 0
        self._in_flight = 0
        self._kept = 0
        self._acknowledged = 0
        self._overdue = 0
        self._window_due = False

    # What the reactor asks

    def watch_reading(self, reader: Selectable | None) -> None:
        """Say who is called when there is something to read."""
        self.reader = self.owner = reader
        self._readable()

    def watch_writing(self, writer: Selectable | None) -> None:
        """Say who is called when something can be written."""
        self.writer = writer
        self._writable()

    @property
    def is_readable(self) -> bool:
        """Whether reading, or accepting, would not have to wait."""
        return bool(
            self._incoming
            or self._incoming_end
            or self._accepting
            or self._error
            or self.state == "dead"
        )

    @property
    def is_writable(self) -> bool:
        """Whether writing would not have to wait. Linux says so when a third of the buffer is free."""
        if self.state == "connected" and not self._error:
            return 3 * self._kept <= 2 * self._conditions.send_buffer
        return bool(self._error) or self.state == "dead"

    @property
    def acknowledged(self) -> int:
        """Bytes that the peer has taken."""
        return self._acknowledged

    def _readable(self) -> None:
        if self.reader is not None and not self._read_due and self.is_readable:
            self._read_due = True
            self.kernel.after(0, self.process.call, self._read)

    def _writable(self) -> None:
        if self.writer is not None and not self._write_due and self.is_writable:
            self._write_due = True
            self.kernel.after(0, self.process.call, self._write)

    def _read(self) -> None:
        self._read_due = False
        if self.reader is not None and self.dispatch is not None and self.is_readable:
            self.dispatch(self.reader, True)
            self._readable()

    def _write(self) -> None:
        self._write_due = False
        if self.writer is not None and self.dispatch is not None and self.is_writable:
            self.dispatch(self.writer, False)
            self._writable()

    # What a fault does

    def break_connection(self) -> None:
        """Somebody between the two ends resets the connection: both get a reset now."""
        peer = self.peer
        self._receive_reset()
        if peer is not None:
            peer._receive_reset()

    # The stream to the peer

    def _pump(self) -> None:
        """Send as much as the peer has room for."""
        peer, link = self.peer, self._link
        assert peer is not None
        assert link is not None
        conditions = self._conditions
        while self._outgoing:
            room = conditions.receive_buffer - len(peer._incoming) - self._in_flight
            if room <= 0:
                return
            most = SEGMENT_MAX
            if conditions.drips:
                conditions.drips -= 1
                most = conditions.drip
            elif conditions.segments and link.draw(1000) < conditions.segments:
                most = 1 + link.draw(SEGMENT_MAX)
            segment = bytes(self._outgoing[: min(most, room)])
            del self._outgoing[: len(segment)]
            self._in_flight += len(segment)
            self._transmit(segment)
        if self._end_wanted and not self._end_sent:
            self._end_sent = True
            self._transmit(_END)

    def _transmit(self, item: bytes | str) -> None:
        assert self._link is not None
        now = self.kernel.now
        self._pipe.append((item, now))
        arrival = now + self._link.delay_of_segment()
        self._last_arrival = max(arrival, self._last_arrival + 1)
        self.kernel.after(self._last_arrival - now, self._arrive)

    def _arrive(self) -> None:
        """The next item arrives at the peer, or waits until the link is mended."""
        assert self._link is not None
        assert self.peer is not None
        if not self._link.down and self.peer.process.machine.powered:
            self._deliver(self.peer, *self._pipe.popleft())
            return
        self._overdue += 1
        if self._overdue == 1:
            self._link.hold(self._retransmit)
            self.kernel.after(GIVE_UP, self._give_up, self._acknowledged)

    def _retransmit(self) -> None:
        """The link is mended: all that is overdue comes."""
        assert self._link is not None
        overdue, self._overdue = self._overdue, 0
        arrival = self.kernel.now + self._link.delay()
        for number in range(overdue):
            self.kernel.at(arrival + number, self._arrive)
        self._last_arrival = max(self._last_arrival, arrival + overdue)

    def _give_up(self, acknowledged: int) -> None:
        if self._overdue and self._acknowledged == acknowledged and self.state == "connected":
            self._fail(errno.ETIMEDOUT)

    def _deliver(self, peer: End, item: bytes | str, sent_at: int) -> None:
        kernel = self.kernel
        peer._heard_at = kernel.now
        if item is _RESET:
            peer._receive_reset()
            return
        if peer.state == "dead" or (peer.closed and item is not _END):
            # Nobody is there any more to take it.
            peer._reset_back(self)
            return
        if isinstance(item, str):
            kernel.write("fin", peer.name, kernel.now - sent_at)
            peer._incoming_end = True
            peer._readable()
            return
        size = len(item)
        kernel.write(f"data {peer.name} {size} {kernel.now - sent_at}")
        self._in_flight -= size
        peer._incoming += item
        peer._readable()
        assert peer._link is not None
        if peer._link.down:
            peer._link.hold(partial(self._acknowledge, size))
        else:
            self._acknowledge(size)

    def _acknowledge(self, size: int) -> None:
        self._kept -= size
        self._acknowledged += size
        self._writable()

    def _tell_window(self) -> None:
        """There is room again: the peer may send on."""
        peer = self.peer
        if peer is None or not peer._outgoing or peer._window_due:
            return
        peer._window_due = True
        assert self._link is not None
        if self._link.down:
            self._link.hold(peer._window_opened)
        else:
            self.kernel.after(self._link.delay(), peer._window_opened)

    def _window_opened(self) -> None:
        self._window_due = False
        self._pump()

    # Ends

    def _reset(self) -> None:
        """End the connection so that the peer gets a reset."""
        if self.state != "connected":
            return
        self._die()
        self._transmit(_RESET)

    def _reset_back(self, sender: End) -> None:
        """Answer what came too late."""
        self._die()
        assert self._link is not None
        delay = self._link.delay()
        if self._link.down:
            self._link.hold(sender._receive_reset)
        else:
            self.kernel.after(delay, sender._receive_reset)

    def _receive_reset(self) -> None:
        if self.state == "connecting":
            self._fail(errno.ECONNREFUSED)
        if self.state != "connected":
            return
        self.kernel.write("rst", self.name)
        self._fail(errno.EPIPE if self._incoming_end else errno.ECONNRESET)

    def _fail(self, error: int) -> None:
        """The connection is over; what came before can still be read."""
        self.kernel.write("failed", self.name, errno.errorcode[error])
        self._die()
        self._error = error
        self._readable()
        self._writable()

    def _die(self) -> None:
        self.state = "dead"
        self._outgoing.clear()
