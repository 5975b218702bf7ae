"""Pairs of sockets whose frames the kernel passes on, and how the one hands them to the other and back.

A :class:`Lane` is one direction of a pair. It is either the kernel's, or *ours*: then the kernel leaves all that comes
to whoever reads the source. The kernel gives a lane back by itself when there is something that it must not decide;
what it has sent on and what it has left meet at one byte, and the lane's scanner is made to go on exactly there.

The sockets stay in the kernel's maps until the pair is closed, even when both lanes are ours for good. Taking out a
socket that is still receiving loses data: Linux lets go of the program first and of the arriving data's way to it
afterwards, and what comes between the two is dropped (``sk_psock_stop_verdict`` and ``sk_psock_verdict_recv``).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gameproxy.framing import FrameScanner
from gameproxy.relay.sockmap import tcp
from gameproxy.relay.sockmap.layout import NEVER, Account, Bucket, Record, Stop


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a session, as it is handed over.

    :param source: where it comes from: a connected TCP socket that does not block, of which all has been read.
    :param scanner: has seen all that was read, holds nothing, and knows what may pass. It is the lane's from now on.
    :param frames: limits the frames, unless it is ``None``. The lane's from now on, as is ``bytes``.
    :param bytes: limits the bytes, unless it is ``None``.
    """

    source: socket.socket
    scanner: FrameScanner
    frames: Account | None = None
    bytes: Account | None = None


@dataclass(slots=True)
class _Limit:
    """A limit of a lane.

    :ivar counted: how much of what the bucket has let pass though it was too much the account knows of.
    """

    account: Account
    bucket: Bucket
    counted: int = 0


class Lane:
    """One direction of a pair.

    :ivar source: the socket from which it reads.
    :ivar sink: the socket to which it writes.
    :ivar scanner: while the lane is ours, stands at the first byte that the kernel has left. Whoever reads the lane
        has it scan all that is read, and writes what it returns to the sink. The accounts of the lane's limits stand
        there too.
    :ivar cookie: the source's, by which the kernel tells of it.
    :ivar ours: whether the kernel leaves to us what comes.
    :ivar stopped: why it does, the last time that it did by itself.
    """

    __slots__ = (
        "__weakref__",
        "_first_bytes",
        "_first_written",
        "_is_drained",
        "_is_taken",
        "_limits",
        "_read",
        "_record",
        "_seen_begun",
        "_seen_bytes",
        "cookie",
        "ours",
        "scanner",
        "sink",
        "source",
        "stopped",
    )

    def __init__(self, way: Way, sink: socket.socket, record: Record) -> None:
        self.source = way.source
        self.sink = sink
        self.scanner = way.scanner
        self.cookie = record.cookie
        self.ours = False
        self.stopped: Stop | None = None
        self._record = record
        self._limits = tuple(
            _Limit(account, bucket)
            for account, bucket in (
                (way.frames, record.frame_bucket),
                (way.bytes, record.byte_bucket),
            )
            if account is not None
        )
        self._is_taken = True
        self._is_drained = False
        self._read = 0
        self._seen_begun = self._seen_bytes = 0
        self._first_bytes = 0
        self._first_written = tcp.written(sink)
        for limit in self._limits:
            limit.bucket.fill(limit.account.limit)
            limit.bucket.ahead = limit.account.ahead

    @property
    def frames(self) -> int:
        """Frames that have passed whole, here and in the kernel."""
        record, scanner = self._record, self.scanner
        begun = scanner.frames + (scanner.remaining > 0) + record.begun - self._seen_begun
        is_here = self.ours or record.is_resuming
        return begun - ((scanner if is_here else record).remaining > 0)

    @property
    def size(self) -> int:
        """Bytes that have passed, here and in the kernel."""
        return self.scanner.size + self._record.bytes - self._seen_bytes

    @property
    def relayed(self) -> int:
        """Bytes that the kernel has passed on."""
        return self._record.bytes

    @property
    def unread(self) -> int:
        """Bytes that the kernel has left to us and :meth:`read` has not returned yet."""
        return self._record.left - self._read if self._is_taken else 0

    @property
    def is_lost(self) -> bool:
        """Whether the kernel does not know which bytes it has left: no more can be read."""
        return bool(self._record.lost)

    def is_drained(self) -> bool:
        """Whether the sink's TCP has taken all that the kernel has passed on.

        To be asked, until it says so, before anything is written to the sink of a lane that is ours, which would
        overtake that; and before the sink's stream is ended. ``False`` also if it cannot be told now.
        """
        if self._is_drained:  # and since then only we have written
            return True
        written = tcp.written(self.sink)
        if written is None or self._first_written is None:
            return False
        is_drained = written - self._first_written == self._record.bytes - self._first_bytes
        self._is_drained = is_drained and self.ours
        return is_drained

    def has_ended(self) -> bool:
        """Whether the source's stream has ended, and the kernel has passed all of it on or we have read what it left.
        (The program is run for what comes before the lock is free, so there is never anything in between.) Of a source
        that was not taken only :meth:`read` tells."""
        return self._is_taken and tcp.received(self.source).ended and not self.unread

    def read(self, size: int) -> bytes:
        """Read from the source, while the lane is ours.

        :return: at most ``size`` bytes; none at the end of the stream.
        :raises BlockingIOError: there is nothing yet.
        :raises OSError: the connection is broken.
        """
        data = self.source.recv(size)
        self._has_read(len(data))
        return data

    def recv_into(self, buffer: memoryview, /) -> int:
        """As :meth:`read`, into memory that is there, under the name that sockets have for it.

        :return: how many bytes were read; 0 at the end of the stream.
        """
        size = self.source.recv_into(buffer)
        self._has_read(size)
        return size

    def _has_read(self, size: int) -> None:
        if self.is_lost:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the kernel has lost what comes next")
        if not size and self.unread:
            raise BlockingIOError("what has come before the end is still on its way")
        if self._is_taken:
            self._read += size

    def count_over(self) -> None:
        """Have the accounts count what the kernel has passed on that was too much."""
        for limit in self._limits:
            over = limit.bucket.over
            if over > limit.counted:
                limit.account.count(over - limit.counted)
                limit.counted = over

    def stop(self) -> None:
        """Make the lane ours, from the next byte on."""
        self._take(None)

    def look(self) -> bool:
        """Take the lane if the kernel has given it back, and say whether it has."""
        why = self._record.stopped
        if self.ours or not why or self._record.is_resuming:
            return False
        self._take(Stop(why))
        return True

    def _take(self, why: Stop | None) -> None:
        if self.ours:
            return
        record = self._record
        # Also if it has stopped by itself: should that be an old story, and the program going on, it stops now.
        record.asked = 1
        with suppress(OSError):  # a socket that is closed, to which nothing can come any more
            tcp.received(self.source)  # takes the lock, so that what has begun has ended
        self.ours = True
        self.stopped = why
        begun, size = record.begun - self._seen_begun, record.bytes - self._seen_bytes
        # A lane that was resumed, and to which nothing has come since, is as the scanner left it.
        remaining = self.scanner.remaining if record.is_resuming else record.remaining
        self.scanner.skip(begun, size, remaining)
        self._seen_begun, self._seen_bytes = record.begun, record.bytes
        record.resume_at = NEVER
        for limit in self._limits:
            limit.account.ahead = limit.bucket.ahead
        self.count_over()

    def resume(self) -> bool:
        """Make the lane the kernel's again, if nothing is under way here.

        :return: whether it is. It is not when the scanner holds something, when there is something to be read, or when
            the sink's TCP has not taken all that was written; nor when the kernel has given it back by now, which may
            have passed something on before: see :meth:`is_drained`.
        """
        if not self.ours or not self._is_taken:
            return not self.ours
        if self.unread or not self.scanner.holds_nothing or not self.is_drained():
            return False
        # From here on, what the sink's TCP takes comes from the kernel.
        written = tcp.written(self.sink)
        if written is None:
            return False
        record = self._record
        self._first_written, self._first_bytes = written, record.bytes
        record.is_based = 0
        record.resume_remaining = self.scanner.remaining
        for limit in self._limits:
            limit.bucket.ahead = limit.account.ahead
        tcp.received(self.source)  # takes the lock: whoever sees what follows sees this
        # Where nothing has been left the program goes on from its own state, which is the same.
        record.resume_at = self._read if record.stopped else NEVER
        record.asked = 0
        tcp.received(self.source)  # and from here on the program sees that
        self.ours = self._is_drained = False
        if record.left != self._read:  # perhaps behind something that it has passed on
            self._take(None)
            return False
        return True

    def not_taken(self) -> None:
        """The source could not be handed over: what comes from it is ours, and always will be."""
        self._is_taken = False
        self.ours = True

    def let_go(self) -> None:
        """The record is about to be another's."""
        self._take(None)
        self._limits = ()
        self._record = Record.from_buffer_copy(self._record)


class Pair:
    """Two sockets between which the kernel passes frames on.

    :ivar from_client: what comes from the client.
    :ivar from_server: what comes from the game server.
    """

    def __init__(
        self, from_client: Lane, from_server: Lane, on_close: Callable[[Pair], None]
    ) -> None:
        self.from_client = from_client
        self.from_server = from_server
        self._on_close: Callable[[Pair], None] | None = on_close

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """Both."""
        return self.from_client, self.from_server

    def stop(self) -> None:
        """Make both lanes ours, from the next byte of each on."""
        for lane in self.lanes:
            lane.stop()

    def close(self) -> None:
        """Take both sockets out of the kernel's hands; they are to be closed now, and nothing may be read any more.

        What the kernel has passed on and a sink's TCP has not taken is lost, and so is what was left and not read: see
        :meth:`Lane.is_drained` and :attr:`Lane.unread`.
        """
        if self._on_close is not None:
            self._on_close(self)
            self._on_close = None
