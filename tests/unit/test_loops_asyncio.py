"""gameproxy.loops.on_asyncio: what takes a transport that does what a test says"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.loops import FLUSH_TIME, LINGER, Stream
from gameproxy.loops.on_asyncio import AsyncioStream


class FakeLoop:
    """Notes what is to come.

    :ivar delays: of the calls that are to come.
    """

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, call: Any) -> Any:
        self.delays.append(delay)
        loop = self

        class Handle:
            def cancel(self) -> None:
                loop.delays.remove(delay)

        return Handle()


class FakeTransport:
    """Has some bytes that are not sent yet.

    :ivar high: the limit above which the protocol is paused.
    """

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent
        self.high = 65536

    def write_eof(self) -> None:
        """The end is sent after the rest."""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def resume_reading(self) -> None:
        """It reads already."""


class Silent:
    """A receiver that does nothing."""

    def opened(self, stream: Stream) -> None:
        """It is there."""

    def received(self, data: bytes) -> None:
        """Something came."""

    def closed(self) -> None:
        """It is gone."""


class EndTest(SynchronousTestCase):
    """The end of a stream"""

    def test_little_unsent(self) -> None:
        """Also when so little waits that the transport would not have said so, it tells when all is sent: from then on
        the other side has a second."""
        loop, transport = FakeLoop(), FakeTransport(unsent=10)
        stream = AsyncioStream(cast(asyncio.AbstractEventLoop, loop), Silent())
        stream.connection_made(cast(asyncio.Transport, transport))
        stream.end()
        self.assertEqual((transport.high, loop.delays), (0, [FLUSH_TIME]))
        stream.resume_writing()
        self.assertEqual(loop.delays, [LINGER])
        stream.connection_lost(None)
        self.assertEqual(loop.delays, [])
