"""The side of the game servers: dialling and the handshake."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameFormat
from gameproxy.handshake import GameServerHandshake, admit_mac, admitted_mac
from gameproxy.interfaces import Attempt, AttemptFailed, Introduction, Peer, Slot
from gameproxy.messages import Admitted, FrameType, Kick, Notice
from gameproxy.proxy_header import encode_v2
from gameproxy.reasons import CloseReason
from gameproxy.server_side import Dialling, ServerSide
from gameproxy.wire import LINGER
from tests.fake_transport import FakeTransport

INT32 = FORMATS["int32"]
KEY, NONCE, PROXY_NONCE = b"k" * 32, b"n" * 16, b"p" * 16
GAME = INT32.encode(b"\x10hello")
PEER = Peer("203.0.113.5", 40000, False, "198.51.100.1", 7777)
CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT = 40.0, 5.0


@implementer(IHostnameResolver)
class Resolver:
    """Resolves every name to one address, or, when told not to, never."""

    answers = True

    def resolveHostName(
        self, receiver: IResolutionReceiver, name: str, portNumber: int, *rest: object
    ) -> None:
        if self.answers:
            receiver.addressResolved(IPv4Address("TCP", "192.0.2.77", portNumber))
            receiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    """A reactor on which a test makes the connections, with names."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()


class ServerSideTestCase(SynchronousTestCase):
    """Dials a game server that the test plays."""

    def dial(
        self,
        admission: str = "handshake",
        host: str = "192.0.2.1",
        format: FrameFormat = INT32,
        properties: str = '{"team": "red"}',
        connect: bool = True,
    ) -> None:
        """Begin an attempt; unless told otherwise, the game server accepts the connection."""
        self.reactor = Reactor()
        dialling = Dialling(
            self.reactor,
            lambda size: PROXY_NONCE[:size],
            format,
            Dialect("native", format),
            admission,
            CONNECT_TIMEOUT,
            HANDSHAKE_TIMEOUT,
        )
        self.format = format
        slot = Slot("session-1", "server-1", "echo", host, 9000, KEY)
        introduction = Introduction("session-1", "ada", PEER, properties)
        self.attempt = ServerSide(dialling, slot, introduction)
        self.admitted: list[Attempt] = []
        self.failures: list[AttemptFailed] = []
        self.others: list[Failure] = []
        self.gone: list[None] = []
        self.attempt.admitted.addCallbacks(self.admitted.append, self.failed)
        self.attempt.gone.addCallback(self.gone.append)
        self.server = GameServerHandshake(server="server-1", key=KEY, nonce=NONCE)
        if connect:
            self.accept()

    def failed(self, failure: Failure) -> None:
        """The attempt failed, or was given up."""
        if failure.check(AttemptFailed):
            self.failures.append(failure.value)
        else:
            self.others.append(failure)

    def accept(self) -> None:
        """The game server's system accepts the connection."""
        host, port, factory, _, _ = self.reactor.tcpClients[-1]
        self.transport = FakeTransport(IPv4Address("TCP", host, port))
        self.transport.connect(factory.buildProtocol(self.transport.getPeer()))

    def send(self, body: bytes) -> None:
        """The game server sends a frame."""
        self.transport.deliver(self.format.encode(body))

    def sent(self) -> bytes:
        """The body of the one frame that the proxy has sent."""
        data = self.transport.unsent
        self.assertEqual(data[:4], INT32.header(len(data) - 4))
        self.transport.take()
        return data[4:]

    def answer(self) -> bytes:
        """The body of ADMITTED after CHALLENGE and ADMIT."""
        self.send(self.server.challenge())
        return self.server.accept(self.server.receive(self.sent()))

    def assert_failed(self, reason: CloseReason, busy: bool = False) -> AttemptFailed:
        """It failed once, for this reason, and its connection and timers go."""
        (failure,) = self.failures
        self.assertEqual((failure.reason, failure.busy), (reason, busy))
        self.assert_gone()
        self.assertEqual((self.admitted, self.others), ([], []))
        return failure

    def assert_gone(self) -> None:
        """No connection remains, nor a timer."""
        if self.reactor.tcpClients and hasattr(self, "transport"):
            self.transport.take()
        self.reactor.advance(LINGER)
        self.assertEqual(self.gone, [None])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class DiallingTests(ServerSideTestCase):
    """Until the connection stands."""

    def test_where_to(self) -> None:
        """IPv4, IPv6 and names are dialled; the connect timeout holds, also above Twisted's 30 s."""
        for host, dialled in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("game.example", "192.0.2.77"),
        ):
            self.dial(host=host, connect=False)
            self.assertEqual(self.reactor.tcpClients[0][:2], (dialled, 9000))
            self.assertEqual(self.reactor.tcpClients[0][3], CONNECT_TIMEOUT)

    def test_refused(self) -> None:
        """A dial that fails is ``server_unreachable``, and nothing remains."""
        self.dial(connect=False)
        _, _, factory, _, _ = self.reactor.tcpClients[0]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assert_failed(CloseReason.SERVER_UNREACHABLE)

    def test_too_slow(self) -> None:
        """A dial, or the look-up of a name, that takes too long is ``server_unreachable``."""
        for host, answers in (("192.0.2.1", True), ("game.example", False)):
            Resolver.answers = answers
            self.addCleanup(setattr, Resolver, "answers", True)
            self.dial(host=host, connect=False)
            self.reactor.advance(CONNECT_TIMEOUT - 0.1)
            self.assertEqual(self.failures, [])
            self.reactor.advance(0.1)
            self.assert_failed(CloseReason.SERVER_UNREACHABLE)

    def test_given_up(self) -> None:
        """An attempt that is abandoned while it dials leaves nothing, and is no failure."""
        self.dial(connect=False)
        self.attempt.abandon()
        self.attempt.abandon()
        self.assertEqual((len(self.others), self.failures), (1, []))
        self.assert_gone()

    def test_given_up_after_it_failed(self) -> None:
        """Abandoning what has failed changes nothing."""
        self.dial(connect=False)
        self.reactor.tcpClients[0][2].clientConnectionFailed(
            None, Failure(ConnectionRefusedError())
        )
        self.attempt.abandon()
        self.assert_failed(CloseReason.SERVER_UNREACHABLE)


class HandshakeTests(ServerSideTestCase):
    """CHALLENGE, ADMIT, ADMITTED."""

    def test_admitted(self) -> None:
        """The game server is told whom to admit, under its key; with ADMITTED the attempt is done."""
        self.dial()
        self.assertEqual(self.transport.unsent, b"")
        self.send(self.server.challenge())
        body = self.sent()
        self.assertEqual((body[0], body[1:33]), (FrameType.ADMIT, admit_mac(KEY, body[33:])))
        fields: dict[str, Any] = json.loads(body[33:])
        self.assertEqual(
            fields,
            {
                "session": "session-1",
                "player": "ada",
                "address": "203.0.113.5",
                "game": "echo",
                "server": "server-1",
                "nonce": NONCE.hex(),
                "proxy_nonce": PROXY_NONCE.hex(),
                "properties": {"team": "red"},
            },
        )
        self.assertEqual(self.admitted, [])
        self.send(self.server.accept(self.server.receive(body)))
        self.assertEqual(self.admitted, [self.attempt])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.attempt.hand_over().early, b"")

    @given(st.lists(st.integers(1, 60), max_size=20))
    @settings(max_examples=60)
    def test_what_comes_right_behind(self, sizes: list[int]) -> None:
        """However the stream is cut, what comes behind ADMITTED is handed over complete and in order."""
        self.dial()
        stream = self.format.encode(self.answer()) + GAME + GAME[:6]
        for size in [*sizes, len(stream)]:
            self.transport.deliver(stream[:size])
            stream = stream[size:]
        side = self.attempt.hand_over()
        self.assertEqual(side.early + side.scanner.scan(GAME[6:]), GAME + GAME)

    def test_what_is_wrong(self) -> None:
        """Whatever the game server does wrong before ADMITTED is ``handshake_failed``: it is not let off."""
        other = GameServerHandshake(server="server-2", key=KEY, nonce=NONCE).challenge()
        unsigned = Admitted("session-1", PROXY_NONCE.hex()).to_json()

        def admitted(key: bytes, session: str, nonce: bytes) -> bytes:
            text = Admitted(session, nonce.hex()).to_json()
            return b"\x09" + admitted_mac(key, text) + text

        challenge = GameServerHandshake(server="server-1", key=KEY, nonce=NONCE).challenge()
        right = admitted(KEY, "session-1", PROXY_NONCE)
        at_first = [
            other,
            b"",
            b"\x10game",
            b"\x07{}",
            b'\x07{"protocol":2,"server":"server-1","nonce":"%s"}' % NONCE.hex().encode(),
            Kick("x", "y", 60.0).encode(),
            b"\x0a{}",
            right,
            b"\x10" * 4097,
        ]
        at_second = [
            admitted(b"x" * 32, "session-1", PROXY_NONCE),
            admitted(KEY, "session-2", PROXY_NONCE),
            admitted(KEY, "session-1", NONCE),
            b"\x09" + admit_mac(KEY, unsigned) + unsigned,
            b"\x09" + bytes(32) + unsigned,
            b"\x09",
            challenge,
            Kick("x", "y", 60.0).encode(),
        ]
        for bad in at_first:
            self.dial()
            self.send(bad)
            self.assert_failed(CloseReason.HANDSHAKE_FAILED)
        for bad in at_second:
            self.dial()
            self.send(challenge)
            self.send(bad)
            self.send(right)
            self.assert_failed(CloseReason.HANDSHAKE_FAILED)

    def test_a_bad_length(self) -> None:
        """A length that no frame may have, or none before ADMITTED, is ``handshake_failed`` at once."""
        for length in (b"\xff\xff\xff\xff", INT32.header(4097)):
            self.dial()
            self.transport.deliver(length)
            self.assert_failed(CloseReason.HANDSHAKE_FAILED)

    def test_refused(self) -> None:
        """REFUSED at any time: ``full`` and ``draining`` let another be tried, anything else does not."""
        for code, busy in (("full", True), ("draining", True), ("banned", False), ("", False)):
            for challenged in (False, True):
                self.dial()
                if challenged:
                    self.send(self.server.challenge())
                self.send(Notice(code, "Not you.").encode(FrameType.REFUSED))
                failure = self.assert_failed(CloseReason.REFUSED, busy)
                self.assertEqual(failure.message, "Not you.")

    def test_silence(self) -> None:
        """A game server that does not answer in time has failed, before CHALLENGE or after ADMIT."""
        for challenged in (False, True):
            self.dial()
            self.reactor.advance(HANDSHAKE_TIMEOUT - 0.1)
            if challenged:
                self.send(self.server.challenge())
            self.assertEqual(self.failures, [])
            self.reactor.advance(0.1)
            self.assert_failed(CloseReason.HANDSHAKE_FAILED)

    def test_it_goes(self) -> None:
        """A game server that ends its stream, or breaks, before ADMITTED has failed."""
        for go in ("end", "reset"):
            self.dial()
            self.send(self.server.challenge())
            getattr(self.transport, go)()
            self.assert_failed(CloseReason.HANDSHAKE_FAILED)

    def test_too_long_for_the_format(self) -> None:
        """An ADMIT that the format cannot carry is the client's doing: ``refused``, and no other is tried."""
        self.dial(format=FORMATS["vim-arcade"], properties='{"a": "%s"}' % ("x" * 900))
        self.send(self.server.challenge())
        self.assertIn("too long", self.assert_failed(CloseReason.REFUSED).message)

    def test_given_up(self) -> None:
        """An attempt that is abandoned in the handshake or when it has been admitted ends its connection."""
        steps: list[Callable[[], None]] = [
            lambda: None,
            lambda: self.send(self.server.challenge()),
            lambda: self.send(self.answer()),
        ]
        for step in steps:
            self.dial()
            step()
            self.attempt.abandon()
            self.attempt.abandon()
            self.transport.deliver(GAME)
            self.assertEqual(self.failures, [])
            self.assertEqual(len(self.admitted) + len(self.others), 1)
            self.assert_gone()

    def test_it_goes_when_it_has_admitted(self) -> None:
        """Then the attempt has not failed any more; that the connection is gone is told."""
        self.dial()
        self.send(self.answer())
        self.transport.reset()
        self.assertEqual((self.admitted, self.failures), ([self.attempt], []))
        self.assert_gone()

    def test_what_comes_before_it_is_handed_over(self) -> None:
        """What comes after ADMITTED waits, unread, until the connection is handed over."""
        self.dial()
        self.send(self.answer())
        self.transport.deliver(GAME)
        self.send(self.server.challenge())
        self.assertEqual(self.failures, [])
        side = self.attempt.hand_over()
        self.assertEqual(side.early, GAME)
        self.assertIsNotNone(side.scanner.stopped)


class OtherAdmissionTests(ServerSideTestCase):
    """Game servers that take no handshake."""

    def test_proxy_v2(self) -> None:
        """The header is all that is sent, and the session is in at once."""
        self.dial("proxy-v2")
        self.assertEqual(self.transport.unsent, encode_v2(PEER, "session-1"))
        self.assertEqual(self.admitted, [self.attempt])

    def test_none(self) -> None:
        """Nothing is sent, and the session is in at once; what comes is handed over with the connection."""
        self.dial("none")
        self.assertEqual(self.transport.unsent, b"")
        self.assertEqual(self.admitted, [self.attempt])
        self.assertEqual(self.attempt.hand_over().early, b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])
