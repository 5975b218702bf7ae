"""A loop for unit tests of clients: time that the test turns, and connections that move nothing by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from gameproxy.loops import Receiver
from gameproxy.loops.on_twisted import TwistedLoop, TwistedStream
from tests.fake_transport import FakeTransport


class FakeLoop(TwistedLoop):
    """A Twisted loop on a :class:`Clock`.

    :ivar transports: of the connections made, in order.
    :ivar addresses: host and port of each attempt to connect.
    :ivar error: when set, what ``connect`` fails with.
    :ivar hold: when true, connections are not made, and ``connect`` waits for ever.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)  # type: ignore[arg-type]  # only its time is used
        self.transports: list[FakeTransport] = []
        self.addresses: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.hold = False

    def connect(
        self, host: str, port: int, timeout: float, build: Callable[[], Receiver]
    ) -> Awaitable[None]:
        self.addresses.append((host, port))
        if self.error is not None:
            return fail(self.error)
        if self.hold:
            return Deferred()
        transport = FakeTransport()
        self.transports.append(transport)
        transport.connect(TwistedStream(self.clock, build()))
        return succeed(None)
