"""gameproxy.gameclient"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.framing import FORMATS, Framer
from gameproxy.gameclient import LEAVE_TIMEOUT, End, Ending, GameClient
from gameproxy.messages import (
    Auth,
    FrameType,
    Notice,
    Status,
    Welcome,
    encode_error,
    encode_settings,
    encode_status,
)
from tests.fake_transport import FakeTransport

INT32 = FORMATS["int32"]
WELCOME = Welcome("5e55", "guest:ana", "echo-1", "echo")
CLOSE = Notice("draining", "Connect again.").encode(FrameType.CLOSE)


class Recorder(GameClient):
    """Writes down what happens."""

    def connectionMade(self) -> None:
        self.told: list[object] = []
        super().connectionMade()

    def waiting(self, status: Status) -> None:
        self.told.append(status)

    def welcomed(self, welcome: Welcome) -> None:
        self.told.append(welcome)

    def settings(self, settings: bytes) -> None:
        self.told.append(("settings", settings))

    def received(self, body: bytes) -> None:
        self.told.append(body)

    def ended(self, ending: Ending) -> None:
        self.told.append(ending)


class GameClientTests(SynchronousTestCase):
    """A client's connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = Recorder(self.clock, Auth("guest", name="ana"))
        self.transport = FakeTransport()
        self.transport.connect(self.client)

    def sent(self) -> list[bytes]:
        """The bodies that the client has sent."""
        framer = Framer(INT32)
        framer.feed(self.transport.written)
        return list(framer.frames())

    def say(self, *bodies: bytes) -> None:
        """The proxy sends frames, in one chunk."""
        self.transport.deliver(b"".join(INT32.encode(body) for body in bodies))

    def ending(self) -> Ending:
        """How it ended, which must have been told last and once."""
        self.transport.take()
        endings = [one for one in self.client.told if isinstance(one, Ending)]
        self.assertEqual(endings, self.client.told[-1:])
        return endings[0]

    def test_auth_first(self) -> None:
        """AUTH goes out at once, and small frames are not held back."""
        self.assertEqual(self.sent(), [Auth("guest", name="ana").encode()])
        self.assertTrue(self.transport.no_delay)

    def test_way_in(self) -> None:
        """STATUS, WELCOME and what follows in the same chunk are told, in order."""
        self.say(
            encode_status("queued", 2, "Wait."), WELCOME.encode(), encode_settings(b"s"), b"\x10a"
        )
        self.say(b"")
        expected = [Status("queued", 2, "Wait."), WELCOME, ("settings", b"s"), b"\x10a", b""]
        self.assertEqual(self.client.told, expected)

    def test_nothing_overridden(self) -> None:
        """A client that overrides nothing takes all that may come."""
        client = GameClient(self.clock, Auth("guest", name="ana"))
        transport = FakeTransport()
        transport.connect(client)
        bodies = [encode_status("queued", 1, ""), WELCOME.encode(), encode_settings(b""), b"\x10"]
        transport.deliver(b"".join(INT32.encode(body) for body in bodies))
        self.assertIsNone(transport.how)
        transport.reset()

    def test_large_frames_once_in(self) -> None:
        """Frames of the proxy's own are at most 4096 bytes; once in, max_frame holds."""
        self.say(WELCOME.encode(), b"\x10" * 5000)
        self.assertEqual(self.client.told[1:], [b"\x10" * 5000])

    def test_large_frame_before(self) -> None:
        """A frame over 4096 bytes before WELCOME ends the connection."""
        self.say(encode_error("banned", "x" * 4096))
        ending = self.ending()
        self.assertEqual((ending.end, ending.code), (End.LOST, "protocol_error"))

    def test_refused(self) -> None:
        """ERROR says why, and the client closes."""
        self.say(encode_error("banned", "Ask.", 3.0), WELCOME.encode())
        self.assertEqual(self.ending(), Ending(End.REFUSED, "banned", "Ask."))
        self.assertEqual(self.transport.how, "done")

    def test_closed(self) -> None:
        """CLOSE ends it in good order; nothing after it is told."""
        self.say(WELCOME.encode(), CLOSE, b"\x10late")
        self.assertEqual(self.ending(), Ending(End.CLOSED, "draining", "Connect again."))

    def test_broken_protocol(self) -> None:
        """What may not come ends the connection."""
        status = encode_status("queued", 1, "")
        for before, bad in (
            ([], b""),
            ([], b"\x10early"),
            ([], CLOSE),
            ([], b"\x02{}"),
            ([], b"\x04[]"),
            ([], b'\x04{"state":"queued","position":true,"message":""}'),
            ([WELCOME.encode()], WELCOME.encode()),
            ([WELCOME.encode()], status),
            ([WELCOME.encode()], b"\x06{}"),
        ):
            with self.subTest(bad=bad):
                self.setUp()
                self.say(*before, bad)
                self.assertEqual(self.ending().end, End.LOST)

    def test_lost(self) -> None:
        """A connection that breaks without a word is lost."""
        self.say(WELCOME.encode())
        self.transport.reset()
        self.assertEqual(self.ending().end, End.LOST)

    def test_leave(self) -> None:
        """CLOSE is sent once; what still comes is not told, and it is for the proxy to close."""
        self.say(WELCOME.encode())
        self.client.leave("Bye.")
        self.client.leave("Bye again.")
        self.client.send(b"\x10late")
        self.assertEqual(self.sent()[1:], [Notice("left", "Bye.").encode(FrameType.CLOSE)])
        self.say(b"\x10late")
        self.assertFalse(self.transport.disconnecting)
        self.transport.reset()
        self.assertEqual(self.ending(), Ending(End.LEFT, "left", "Bye."))
        self.assertEqual(len(self.client.told), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_garbage_after_leaving(self) -> None:
        """Who has left has left, whatever comes then."""
        self.say(WELCOME.encode())
        self.client.leave()
        self.transport.deliver(b"\xff" * 4)
        self.assertEqual(self.ending().end, End.LEFT)

    def test_leave_before_welcome(self) -> None:
        """Who is not in yet just closes: CLOSE may not come before WELCOME."""
        self.client.leave()
        self.assertEqual(len(self.sent()), 1)
        self.assertEqual(self.ending().end, End.LEFT)
        self.assertEqual(self.transport.how, "done")

    def test_proxy_does_not_close(self) -> None:
        """A proxy that does not close after CLOSE is waited for LEAVE_TIMEOUT seconds."""
        self.say(WELCOME.encode())
        self.client.leave()
        self.clock.advance(LEAVE_TIMEOUT - 0.1)
        self.assertIsNone(self.transport.how)
        self.clock.advance(0.1)
        self.assertEqual(self.transport.how, "aborted")
        self.assertEqual(self.ending().end, End.LEFT)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data: bytes, is_in: bool) -> None:
    """Whatever a proxy sends, the client raises nothing and hears its end once."""
    client = Recorder(Clock(), Auth("guest", name="ana"))
    transport = FakeTransport()
    transport.connect(client)
    if is_in:
        transport.deliver(INT32.encode(WELCOME.encode()))
    transport.deliver(data)
    transport.reset()
    assert [isinstance(one, Ending) for one in client.told].count(True) == 1
