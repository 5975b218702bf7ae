"""gameproxy.admin.http: one request on a connection, and bounds on everything"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admin.http import BODY_MAX, CONNECTIONS_MAX, PATIENCE, AdminFactory, Answer, Asked


class Transport(StringTransport):
    """Notes that it is aborted, and tells its protocol."""

    def abortConnection(self) -> None:
        self.aborting = True
        self.lose()

    aborting = False
    lost = False

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self.value().split(b" ")[1])

    @property
    def headers(self) -> dict[str, str]:
        head = self.value().partition(b"\r\n\r\n")[0].decode("ascii")
        return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])  # type: ignore[misc]

    @property
    def body(self) -> bytes:
        return self.value().partition(b"\r\n\r\n")[2]


class HttpTests(SynchronousTestCase):
    """A site under a clock that answers as the test wants."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000.0)
        self.asked: list[Asked] = []
        self.result: Any = lambda: succeed(Answer(200, b"fine\n"))
        self.factory = AdminFactory(self.clock, self.answer)

    def answer(self, asked: Asked) -> Deferred[Answer]:
        self.asked.append(asked)
        result: Deferred[Answer] = self.result()
        return result

    def connect(self) -> Transport | None:
        protocol = self.factory.buildProtocol(None)
        if protocol is None:
            return None
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def say(self, data: bytes) -> Transport:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(data)
        return transport

    def test_answer(self) -> None:
        """A request has one answer, which nobody keeps, and the connection ends; nothing is left of it."""
        transport = self.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((transport.status, transport.body), (200, b"fine\n"))
        headers = transport.headers
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(headers["Connection"], "close")
        self.assertEqual(headers["Content-Length"], "5")
        self.assertEqual(headers["Date"], "Tue, 14 Nov 2023 22:13:20 GMT")
        self.assertFalse([name for name in headers if name.startswith("Access-Control")])
        self.assertTrue(transport.disconnecting)
        transport.lose()
        self.assertEqual((self.clock.getDelayedCalls(), self.factory.channels), ([], []))

    def test_asked(self) -> None:
        """A request is its method, its decoded path, its parameters, its body and what it says of itself."""
        self.say(
            b"PUT /v1/bans/address/192.0.2.0%2F24?limit=1&limit=2&a+b=%C3%A9&c HTTP/1.1\r\n"
            b"Content-Type: Application/JSON; charset=utf-8\r\nAuthorization: Bearer abc\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        self.assertEqual(
            self.asked,
            [
                Asked(
                    "PUT",
                    ("v1", "bans", "address", "192.0.2.0/24"),
                    {"limit": ["1", "2"], "a b": ["\xe9"], "c": [""]},
                    b"{}",
                    "application/json",
                    b"Bearer abc",
                    "192.168.1.1",
                )
            ],
        )

    def test_head(self) -> None:
        """HEAD has the headers of GET, and no body."""
        transport = self.say(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        self.assertEqual((transport.headers["Content-Length"], transport.body), ("5", b""))

    def test_odd(self) -> None:
        """A path that is no UTF-8 is none; a token that comes twice is none."""
        self.say(b"GET /%ff HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n")
        (asked,) = self.asked
        self.assertEqual((asked.path, asked.authorization), (None, b""))

    def test_second_request(self) -> None:
        """What follows a request on its connection is not done, whether it comes at once or while it is answered."""
        request = b"GET /a HTTP/1.1\r\n\r\n"
        self.say(2 * request).protocol.dataReceived(request)
        self.assertEqual(len(self.asked), 1)
        answering: Deferred[Answer] = Deferred()
        self.result = lambda: answering
        transport = self.say(request)
        transport.protocol.dataReceived(1000 * request)
        answering.callback(Answer(200))
        self.assertEqual(len(self.asked), 2)

    def test_flood_while_answering(self) -> None:
        """Whoever sends on while its answer is made is read no more: nothing piles up."""
        self.result = Deferred
        transport = self.say(b"GET /a HTTP/1.1\r\n\r\n")
        for _ in range(10):
            transport.protocol.dataReceived(b"x" * 8192)
        self.assertEqual(transport.producerState, "paused")

    def test_long_body(self) -> None:
        """A body that is too long is not kept, however its length is told; it is told so."""
        for length in (BODY_MAX, BODY_MAX + 1, 10_000_000):
            body = b"x" * length
            whole = b"Content-Length: %d\r\n\r\n" % length + body
            chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % length + body + b"\r\n0\r\n\r\n"
            for rest in (whole, chunked):
                self.asked.clear()
                self.say(b"POST /v1/kicks HTTP/1.1\r\n" + rest)
                (asked,) = self.asked
                self.assertEqual(asked.body, body if length <= BODY_MAX else None)

    def test_body_is_bounded_while_it_comes(self) -> None:
        """Of a body without an end no more is kept than of one that is too long."""
        transport = self.say(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            transport.protocol.dataReceived(b"2000\r\n" + bytes(0x2000) + b"\r\n")
        (request,) = transport.protocol.requests
        self.assertEqual(len(request._body), BODY_MAX + 1)

    def test_long_head(self) -> None:
        """A head that is too long, or has too many lines, ends the connection without an answer to what it asks."""
        for head in (b"GET /" + b"a" * 20_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000):
            transport = self.say(head + b"\r\n\r\n")
            self.assertTrue(transport.disconnecting)
        self.assertEqual(self.asked, [])

    def test_nonsense(self) -> None:
        """What is no HTTP is told so, and nothing is asked."""
        for data in (b"\x16\x03\x01\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"):
            self.assertEqual(self.say(data).value()[:12], b"HTTP/1.1 400")
        self.assertEqual(self.asked, [])

    def test_slow(self) -> None:
        """Whoever says nothing, says it byte by byte, or waits for an answer, is cut off when its time is over."""
        self.result = Deferred
        waiting = self.say(b"GET / HTTP/1.1\r\n\r\n")
        silent, slow = self.connect(), self.say(b"GET /")
        assert silent is not None
        for _ in range(int(PATIENCE) - 1):
            self.clock.advance(1.0)
            slow.protocol.dataReceived(b"a")
        self.assertFalse(silent.lost or slow.lost or waiting.lost)
        self.clock.advance(1.1)
        self.assertTrue(silent.lost and slow.lost and waiting.lost)
        self.assertEqual(self.factory.channels, [])

    def test_many(self) -> None:
        """There are only so many connections; when one ends another may come."""
        transports = [self.connect() for _ in range(CONNECTIONS_MAX)]
        self.assertIsNone(self.connect())
        assert transports[0] is not None
        transports[0].lose()
        self.assertIsNotNone(self.connect())

    def test_gone(self) -> None:
        """When whoever asked goes, the answer is cancelled, and nothing is logged."""
        cancelled: list[object] = []
        self.result = lambda: Deferred(cancelled.append)
        self.say(b"GET / HTTP/1.1\r\n\r\n").lose()
        self.assertEqual(len(cancelled), 1)

    def test_answer_after_the_end(self) -> None:
        """An answer that cannot be cancelled and comes after the end harms nobody."""
        late: Deferred[Answer] = Deferred()
        self.result = lambda: late
        transport = self.say(b"GET / HTTP/1.1\r\n\r\n")
        transport.lose()
        late.callback(Answer(200))
        self.assertEqual(transport.value(), b"")

    def test_fault(self) -> None:
        """What fails is told as that, with nothing of it, and logged."""
        self.result = lambda: fail(ZeroDivisionError("secret"))
        transport = self.say(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(transport.status, 500)
        self.assertNotIn(b"secret", transport.value())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_close(self) -> None:
        """When the site ends its connections do."""
        transport = self.connect()
        self.factory.close()
        assert transport is not None
        self.assertTrue(transport.aborting)
