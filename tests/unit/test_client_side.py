"""The side of the clients, before they relay."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from gameproxy.client_side import EARLY_MAX, ClientFactory, ClientSide, EarlyBytes, peer_of
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS
from gameproxy.interfaces import Peer, Waiting
from gameproxy.messages import Auth, FrameType, Welcome
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.wire import LINGER, Side, Wire
from tests.fake_transport import BUFFER, FakeTransport

INT32 = FORMATS["int32"]
AUTH = INT32.encode(Auth("guest", name="bob").encode())
GAME = INT32.encode(b"\x10move")


class ScriptedSession:
    """Stands for a session, and is its own inputs: it notes what it is told, and ends as a session would.

    :ivar hands_over: whether it takes the client over as soon as it has authenticated.
    """

    id = "0123456789abcdef"

    def __init__(self, client: ClientSide) -> None:
        self.inputs = self
        self.auths: list[Auth] = []
        self.refusals: list[Refusal] = []
        self.ended = 0
        self.hands_over = False
        self.side: Side | None = None
        self._client = client

    def authenticate(self, auth: Auth) -> None:
        self.auths.append(auth)
        if self.hands_over:
            self.side = self._client.hand_over()

    def end(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self._client.refuse(refusal)

    def client_ended(self) -> None:
        self.ended += 1
        self._client.leave()


class ClientSideTestCase(SynchronousTestCase):
    """Has one client on a fake transport."""

    def connect(self, dialect: str = "native", all_early: int = 1 << 20) -> None:
        """A client connects."""
        self.clock = Clock()
        self.transport = FakeTransport()
        self.all_early = EarlyBytes(all_early)
        words = Dialect(dialect, INT32)

        def accept(wire: Wire, peer: Peer) -> None:
            self.client = ClientSide(wire, INT32, words, self.all_early)
            self.client.session = self.session = ScriptedSession(self.client)  # type: ignore[assignment]

        wire = ClientFactory(self.clock, lambda: True, accept).buildProtocol(None)
        self.transport.connect(wire)
        self.room = all_early

    def told(self) -> list[tuple[int, dict[str, Any]]]:
        """The frames that the client was sent: their types and payloads."""
        data, frames = self.transport.written, []
        while data:
            size = int.from_bytes(data[:4], "big")
            frames.append((data[4], json.loads(data[5 : 4 + size])))
            data = data[4 + size :]
        return frames

    def assert_refused(self, reason: CloseReason) -> None:
        """The session was ended with this reason once, the client was told, and nothing is kept of it."""
        self.assertEqual([refusal.reason for refusal in self.session.refusals], [reason])
        (error,) = self.told()
        self.assertEqual((error[0], error[1]["code"]), (FrameType.ERROR, reason))
        self.assert_nothing_kept()

    def assert_nothing_kept(self) -> None:
        """All the room for early bytes is free."""
        self.assertTrue(self.all_early.take(self.room))
        self.all_early.give_back(self.room)

    def early(self) -> bytes:
        """Hand the client over, and give what it had sent."""
        side = self.client.hand_over()
        self.assertIs(side.wire, self.client.wire)
        return side.early


class AuthTests(ClientSideTestCase):
    """The first frame."""

    def test_auth_in_any_chunks(self) -> None:
        """AUTH starts the session when it is complete, once."""
        for size in (1, 7, 1000):
            self.connect()
            for at in range(0, len(AUTH), size):
                self.assertEqual(self.session.auths, [])
                self.transport.deliver(AUTH[at : at + size])
            self.assertEqual(self.session.auths, [Auth("guest", name="bob")])
            self.assertEqual(self.session.refusals, [])

    def test_nothing_is_kept_of_who_is_refused(self) -> None:
        """Whoever has sent much behind what is no AUTH, and is given time to read that, takes no memory meanwhile."""
        for junk in (INT32.encode(b"\x01{"), INT32.encode(b"\x10"), INT32.encode(b"\x01{}")):
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            self.connect()
            self.transport.deliver(junk + bytes(1_000_000))
            self.assertEqual(len(self.session.refusals), 1)
            self.assertIsNone(self.transport.how)
            self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)
            tracemalloc.stop()

    def test_what_is_no_auth(self) -> None:
        """Another frame, bad JSON, no frame at all or one that is too large is ``protocol_error``."""
        too_large = Auth("guest", name="b" * 4096).encode()
        for data in (
            GAME,
            INT32.encode(b"\x02" + AUTH[5:]),
            INT32.encode(b""),
            INT32.encode(b"\x06{}"),
            INT32.encode(b"\x01{"),
            INT32.encode(b'\x01{"protocol":1}'),
            b"\xff\xff\xff\xff",
            INT32.header(4097),
            INT32.encode(too_large),
        ):
            self.connect()
            self.transport.deliver(data)
            self.transport.deliver(AUTH)
            self.assertEqual(self.session.auths, [])
            self.assert_refused(CloseReason.PROTOCOL_ERROR)

    def test_another_version(self) -> None:
        """Another protocol is ``unsupported_version``."""
        self.connect()
        self.transport.deliver(INT32.encode(b'\x01{"protocol":2,"mechanism":"guest"}'))
        self.assert_refused(CloseReason.UNSUPPORTED_VERSION)

    def test_the_largest_auth(self) -> None:
        """AUTH of exactly 4096 bytes is taken."""
        body = Auth("ticket", ticket="").encode()
        body = Auth("ticket", ticket="x" * (4096 - len(body))).encode()
        self.connect()
        self.transport.deliver(INT32.encode(body))
        self.assertEqual(len(self.session.auths), 1)

    def test_the_session_may_take_over_at_once(self) -> None:
        """What came in one chunk with AUTH is not lost when the session takes the client over at once."""
        self.connect()
        self.session.hands_over = True
        self.transport.deliver(AUTH + GAME + GAME[:6])
        self.assertEqual(self.session.side.early, GAME + GAME[:6])

    def test_a_bad_frame_with_auth(self) -> None:
        """AUTH with a bad frame behind it does not even begin."""
        self.connect()
        self.transport.deliver(AUTH + AUTH)
        self.assertEqual(self.session.auths, [])
        self.assert_refused(CloseReason.PROTOCOL_ERROR)


class EarlyTests(ClientSideTestCase):
    """What comes between AUTH and WELCOME."""

    @given(
        st.lists(st.binary(max_size=30).map(lambda b: b"\x10" + b)), st.lists(st.integers(1, 40))
    )
    @settings(max_examples=100)
    def test_is_kept_in_order(self, bodies: list[bytes], sizes: list[int]) -> None:
        """However the stream is cut, what is handed over is what came after AUTH, complete and in order."""
        self.connect()
        game = b"".join(map(INT32.encode, bodies)) + INT32.header(9) + b"\x10"
        stream = AUTH + game
        for size in [*sizes, len(stream)]:
            self.transport.deliver(stream[:size])
            stream = stream[size:]
        self.assertEqual(len(self.session.auths), 1)
        self.assertEqual(self.early(), game)
        self.assert_nothing_kept()

    def test_the_watch_goes_on(self) -> None:
        """A frame whose header is not complete is kept back, and goes on with the scanner that is handed over."""
        self.connect()
        self.transport.deliver(AUTH + GAME[:3])
        side = self.client.hand_over()
        self.assertEqual(side.early, b"")
        self.assertEqual(side.scanner.scan(GAME[3:]), GAME)

    def test_exactly_as_much_as_is_allowed(self) -> None:
        """65536 bytes may come, headers and all; one more is ``protocol_error``. It counts from behind AUTH."""
        game = INT32.encode(b"\x10" + bytes(EARLY_MAX - 5))
        self.assertEqual(len(game), 65536)
        for more in (b"", b"\0"):
            for chunks in ((AUTH + game + more,), (AUTH, game + more), (AUTH, game, more)):
                self.connect()
                for chunk in chunks:
                    self.transport.deliver(chunk)
                if more:
                    self.assert_refused(CloseReason.PROTOCOL_ERROR)
                else:
                    self.assertEqual(self.early(), game)

    def test_all_clients_share_a_bound(self) -> None:
        """When all clients together have sent too much, the next is turned away with ``proxy_full``."""
        self.connect(all_early=len(GAME))
        self.transport.deliver(AUTH + GAME)
        self.assertEqual(self.session.refusals, [])
        self.transport.deliver(GAME[:1])
        self.assert_refused(CloseReason.PROXY_FULL)

    def test_reserved_types(self) -> None:
        """A second AUTH, or any other type below 0x10, is ``protocol_error``, and so is a bad frame."""
        frames = [INT32.encode(bytes([first]) + b"{}") for first in range(0x10)]
        for frame in [*frames, AUTH, b"\xff\xff\xff\xff"]:
            for dialect in ("native", "preamble"):
                self.connect(dialect)
                self.transport.deliver(AUTH)
                self.transport.deliver(GAME + frame + GAME)
                self.assert_refused(CloseReason.PROTOCOL_ERROR)

    def test_nothing_is_kept_of_who_ends(self) -> None:
        """When the client ends its stream, breaks, or is refused, what it had sent is let go, once."""
        for end in (
            lambda: self.transport.end(),
            lambda: self.transport.reset(),
            lambda: self.client.refuse(Refusal(CloseReason.BANNED)),
            lambda: self.client.leave(),
        ):
            self.connect(all_early=1000)
            self.transport.deliver(AUTH + GAME)
            self.assertFalse(self.all_early.take(1000))
            end()
            self.transport.deliver(GAME)
            self.assert_nothing_kept()
            self.assertFalse(self.all_early.take(1001))


class PlainTests(ClientSideTestCase):
    """Clients of a game that knows nothing of the proxy."""

    def test_the_first_frame_starts_the_session(self) -> None:
        """A guest's session begins when its first frame is whole, once, and all is handed over."""
        self.connect("plain")
        first = INT32.encode(b"\x01anything")
        self.transport.deliver(first[:8])
        self.assertEqual(self.session.auths, [])
        self.transport.deliver(first[8:])
        self.transport.deliver(first)
        self.assertEqual(self.session.auths, [Auth("guest", name="01234567")])
        self.assertEqual(self.early(), first + first)

    def test_the_session_may_take_over_at_once(self) -> None:
        """The first frame, and what came with it, is not lost then."""
        self.connect("plain")
        self.session.hands_over = True
        self.transport.deliver(GAME + GAME[:5])
        self.assertEqual(self.session.side.early, GAME + GAME[:5])

    def test_nothing_is_said(self) -> None:
        """Nothing of the proxy's own goes over the wire, not even when the session cannot go on."""
        self.connect("plain")
        self.client.waiting(Waiting("queued", 3))
        self.client.connecting()
        self.client.welcome(Welcome("s", "p", "g", "echo"))
        self.transport.deliver(b"\xff\xff\xff\xff")
        self.assertEqual(self.session.refusals[0].reason, CloseReason.PROTOCOL_ERROR)
        self.assertEqual(self.session.auths, [])
        self.transport.take()
        self.assertEqual((self.transport.taken, self.transport.stream_ended), (b"", True))


class TellingTests(ClientSideTestCase):
    """What the client is told."""

    def test_status_and_welcome(self) -> None:
        """STATUS and WELCOME, as the session says."""
        self.connect()
        self.client.waiting(Waiting("queued", 3))
        self.client.waiting(Waiting("starting", 1))
        self.client.connecting()
        self.client.welcome(Welcome("s", "p", "g", "echo"))
        frames = self.told()
        self.assertEqual([type_ for type_, _ in frames], [4, 4, 4, 2])
        positions = [(fields["state"], fields.get("position")) for _, fields in frames[:3]]
        self.assertEqual(positions, [("queued", 3), ("starting", 1), ("connecting", None)])
        self.assertEqual(frames[3][1]["server"], "g")

    def test_status_does_not_pile_up(self) -> None:
        """A client that does not read is told no more how it waits, until it reads; what ends its waiting is."""
        self.connect()
        for position in range(5000):
            self.client.waiting(Waiting("queued", position))
            self.client.connecting()
        self.assertLess(len(self.transport.unsent), BUFFER + 500)
        self.assertTrue(self.transport.reading)
        self.transport.take()
        self.client.waiting(Waiting("queued", 1))
        self.assertTrue(self.transport.unsent)
        while len(self.transport.unsent) < BUFFER:
            self.client.waiting(Waiting("queued", 1))
        self.client.welcome(Welcome("s", "p", "g", "echo"))
        self.assertIn(b"echo", self.transport.unsent)

    def test_an_error_is_the_last_word(self) -> None:
        """ERROR goes out, then the end of the stream; the client has a second to read it. Nothing comes after."""
        self.connect()
        self.client.refuse(Refusal(CloseReason.BANNED, retry_after=5.0))
        self.client.waiting(Waiting("queued", 1))
        ((type_, fields),) = self.told()
        self.assertEqual((type_, fields["code"], fields["retry_after"]), (5, "banned", 5.0))
        self.transport.take()
        self.transport.deliver(AUTH)
        self.assertTrue(self.transport.stream_ended)
        self.clock.advance(LINGER)
        self.assertEqual(self.transport.how, "aborted")
        self.assertEqual((self.session.auths, self.session.ended), ([], 0))
        self.assertTrue(self.client.gone.called)

    def test_the_client_goes(self) -> None:
        """A client that ends its stream before it relays is gone, as one that breaks."""
        for how in ("end", "reset"):
            self.connect()
            self.transport.deliver(AUTH[:-1])
            getattr(self.transport, how)()
            self.transport.take()
            self.assertEqual((self.session.ended, self.transport.unsent), (1, b""))
            self.assertTrue(self.client.gone.called)
            self.assertEqual(self.clock.getDelayedCalls(), [])


class ConnectionTests(SynchronousTestCase):
    """Who connects."""

    def test_no_room(self) -> None:
        """Without room nothing is even built."""
        factory = ClientFactory(Clock(), lambda: False, lambda *_: self.fail("accepted"))
        self.assertIsNone(factory.buildProtocol(None))

    def test_where_a_client_comes_from(self) -> None:
        """Addresses are bare IPs: no scope, and no IPv4 inside IPv6. A UNIX socket has none."""
        here = IPv4Address("TCP", "198.51.100.1", 7777)
        for address, ip in (
            (IPv4Address("TCP", "203.0.113.5", 4000), "203.0.113.5"),
            (IPv6Address("TCP", "::ffff:203.0.113.5", 4000), "203.0.113.5"),
            (IPv6Address("TCP", "fe80::1%eth0", 4000), "fe80::1"),
            (IPv6Address("TCP", "2001:DB8::1", 4000), "2001:db8::1"),
        ):
            transport = FakeTransport(address, here)
            self.assertEqual(peer_of(transport), Peer(ip, 4000, False, "198.51.100.1", 7777))
        unix = FakeTransport(UNIXAddress(b"/a"), UNIXAddress(b"/a"))
        self.assertEqual(peer_of(unix), Peer("", 0, False, "", 0))

    def test_secure(self) -> None:
        """A client is secure when its transport is."""
        transport = FakeTransport()
        alsoProvides(transport, ISSLTransport)
        self.assertTrue(peer_of(transport).secure)
