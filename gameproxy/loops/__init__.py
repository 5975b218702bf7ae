"""What a game server or a client needs of an event loop: streams, time, threads, futures.

One code serves both kinds of loop: :class:`~gameproxy.loops.on_twisted.TwistedLoop` and
:class:`~gameproxy.loops.on_asyncio.AsyncioLoop`. The futures of each are its own (Deferreds, or asyncio's), and txaio
makes and joins them; coroutines await them on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

FLUSH_TIME: Final = 10.0
"""Seconds in which the other side may still take what was written before the end of a stream."""
LINGER: Final = 1.0
"""Seconds in which what still comes is discarded, after this side of a stream has ended: to close at once would reset
the connection, and the other side might lose what was sent last."""


class Stream(Protocol):
    """A connection, as one writes to it.

    While the other side does not take what is written, it is not read from either, unless ``reads_on`` is set.

    :ivar reads_on: read all the same. A client's is set: who serves it may wait for its reading before taking more.
    :ivar on_taken: called when the other side has taken what was written, after the buffer was full.
    """

    reads_on: bool
    on_taken: Callable[[], object] | None

    @property
    def behind(self) -> int:
        """Bytes that wait in this process for the other side to take them, but for some 64 KiB that may wait
        uncounted: the one who writes is to bound them."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes. After the end they go nowhere."""
        ...

    def pause(self) -> None:
        """Do not read, until :meth:`resume`. Doing it twice changes nothing."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    def end(self) -> None:
        """End the connection when all is sent; nothing is received any more. Doing it twice changes nothing."""
        ...

    def abort(self) -> None:
        """End the connection now; what is not sent yet is lost."""
        ...


class Receiver(Protocol):
    """A connection, as one hears from it."""

    def opened(self, stream: Stream) -> None:
        """The connection is there. Called once, before all else."""
        ...

    def received(self, data: bytes) -> None:
        """Bytes came, in pieces of any size; none after :meth:`Stream.end`."""
        ...

    def closed(self) -> None:
        """The connection exists no more. Called once."""
        ...


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> object:
        """It is not to come. May be done once, while it has not come."""
        ...


class Listener(Protocol):
    """A port that takes connections."""

    @property
    def port(self) -> int:
        """Its number."""
        ...

    def close(self) -> Awaitable[None]:
        """Take no more connections; those that are there go on.

        :return: done when the port is free.
        """
        ...


class Loop(Protocol):
    """An event loop.

    :ivar txaio: makes and joins futures of its kind: ``create_future``, ``resolve``, ``as_future``, ``gather``, ...
    :ivar make_logger: makes a log with ``info``, ``warn`` and ``error``, which take a format and its fields: Twisted's,
        or that of :mod:`logging`. It has the name of the class whose method calls this.
    """

    txaio: Any
    make_logger: Callable[[], Any]

    def seconds(self) -> float:
        """Seconds since the epoch."""
        ...

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Call something in ``delay`` seconds."""
        ...

    def listen(self, host: str, port: int, build: Callable[[], Receiver]) -> Awaitable[Listener]:
        """Take connections.

        :param port: 0: any free one.
        :param build: makes the receiver of each.
        :return: fails with OSError when the address cannot be listened at.
        """
        ...

    def connect(
        self, host: str, port: int, timeout: float, build: Callable[[], Receiver]
    ) -> Awaitable[None]:
        """Make a connection.

        :param host: an IP or a name.
        :param timeout: seconds that it may take.
        :param build: makes its receiver, when it is there.
        :return: fails with OSError when it cannot be made, of which TimeoutError is a kind. May be cancelled, and
            fails as all that is cancelled does on this loop.
        """
        ...

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        """Call something that may block."""
        ...

    def log_to_stderr(self) -> None:
        """Write what is logged to standard error: for programs, which :meth:`run` runs."""
        ...

    def run(self, program: Callable[[], Awaitable[object]], stop: Callable[[], object]) -> None:
        """Run the loop until a program has ended.

        :param stop: called at SIGTERM and at Ctrl-C: has the program end soon.
        """
        ...
