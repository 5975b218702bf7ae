"""gameproxy.cli.demo_probe: the way to a game server with no proxy between"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli.demo_probe import DirectLine, Lost
from gameproxy.framing import FORMATS, Framer
from gameproxy.handshake import GameServerHandshake
from gameproxy.messages import Admit, FrameType, Notice

KEY = bytes(32)
FORMAT = FORMATS["int32"]


class FakeStream:
    """Keeps what is written."""

    reads_on = False
    on_taken = None
    behind = 0

    def __init__(self) -> None:
        self.framer = Framer(FORMAT)
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.framer.feed(data)

    def bodies(self) -> list[bytes]:
        return list(self.framer.frames())

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def end(self) -> None: ...


class DirectLineTests(SynchronousTestCase):
    """The proxy's part of the handshake, and questions."""

    def setUp(self) -> None:
        admit = Admit("session", "guest:probe", "127.0.0.1", "echo", "echo-1", "", "ab" * 16, "{}")
        self.line = DirectLine(admit, KEY)
        self.stream = FakeStream()
        self.line.opened(self.stream)

    def send(self, body: bytes) -> None:
        self.line.received(FORMAT.encode(body))

    def admit(self) -> None:
        server = GameServerHandshake(server="echo-1", key=KEY, nonce=bytes(16))
        self.send(server.challenge())
        [answer] = self.stream.bodies()
        self.send(server.accept(server.receive(answer)))
        self.assertIsNone(self.successResultOf(self.line.admitted))

    def test_echo(self) -> None:
        """Once it is let in it asks, and the next frame is the answer."""
        self.admit()
        answer = self.line.ask(b"\x10one")
        self.assertEqual(self.stream.bodies(), [b"\x10one"])
        self.assertNoResult(answer)
        self.send(b"\x10one")
        self.assertEqual(self.successResultOf(answer), b"\x10one")

    def test_unasked(self) -> None:
        """Frames that answer nothing are left out."""
        self.admit()
        self.send(b"\x10early")
        answer = self.line.ask(b"\x10")
        self.send(b"\x10late")
        self.send(b"\x10later")
        self.assertEqual(self.successResultOf(answer), b"\x10late")

    def test_wrong_key(self) -> None:
        """Who cannot prove to be the game server is not asked anything."""
        server = GameServerHandshake(server="echo-1", key=bytes(31) + b"x", nonce=bytes(16))
        self.send(server.challenge())
        self.stream.bodies()
        self.send(bytes([FrameType.ADMITTED]) + bytes(32) + b"{}")
        self.assertTrue(self.stream.aborted)
        self.line.closed()
        self.failureResultOf(self.line.admitted, Lost)

    def test_refused(self) -> None:
        """When there is no room it goes."""
        self.send(Notice("full", "").encode(FrameType.REFUSED))
        self.assertTrue(self.stream.aborted)
        self.line.closed()
        self.failureResultOf(self.line.admitted, Lost)

    def test_bad_frame(self) -> None:
        """A frame that is too large ends the connection."""
        self.line.received(b"\xff\xff\xff\xff")
        self.assertTrue(self.stream.aborted)
        self.line.closed()
        self.failureResultOf(self.line.admitted, Lost)

    def test_lost(self) -> None:
        """When the connection is lost, who waits for an answer hears so; nothing can be asked then, nor aborted."""
        self.admit()
        answer = self.line.ask(b"\x10")
        self.line.closed()
        self.failureResultOf(answer, Lost)
        self.failureResultOf(self.line.ask(b"\x10"), Lost)
        self.line.abort()
        self.assertFalse(self.stream.aborted)
