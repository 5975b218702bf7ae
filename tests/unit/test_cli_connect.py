"""gameproxy.cli.connect"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from unittest.mock import patch

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gameproxy.cli import connect, main
from gameproxy.cli.connect import LINGER, Console, TypedClient, described, play
from gameproxy.framing import FORMATS, Framer
from gameproxy.messages import (
    Auth,
    FrameType,
    Notice,
    Welcome,
    encode_error,
    encode_settings,
    encode_status,
)
from tests.fake_transport import FakeTransport

INT32 = FORMATS["int32"]
WELCOME = Welcome("5e55", "guest:\x1b[1mana", "echo-1", "echo").encode()


@implementer(IStreamClientEndpoint)
class OneConnection:
    """An endpoint that leads to a transport, or fails.

    :param error: what it fails with.
    """

    def __init__(self, transport: FakeTransport, error: Exception | None = None) -> None:
        self.transport = transport
        self.error = error

    def connect(self, factory: Factory) -> Deferred[object]:
        if self.error is not None:
            return fail(self.error)
        protocol = factory.buildProtocol(None)
        self.transport.connect(protocol)
        return succeed(protocol)


class PlayTests(SynchronousTestCase):
    """A person's client, between a terminal and a proxy."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.console = Console()
        self.terminal = FakeTransport()
        self.terminal.connect(self.console)
        self.proxy = FakeTransport()
        self.client = TypedClient(self.clock, Auth("guest", name="ana"), self.console, 0x42)

    def play(self, error: Exception | None = None) -> None:
        self.status = Deferred.fromCoroutine(play(OneConnection(self.proxy, error), self.client))

    def say(self, *bodies: bytes) -> None:
        """The proxy sends frames."""
        self.proxy.deliver(b"".join(INT32.encode(body) for body in bodies))

    def sent(self) -> list[bytes]:
        """The bodies that the proxy got after AUTH."""
        framer = Framer(INT32)
        framer.feed(self.proxy.written)
        return list(framer.frames())[1:]

    def printed(self) -> list[str]:
        return self.terminal.written.decode().splitlines()

    def end(self) -> int:
        """All is over; the exit status."""
        self.proxy.take()
        self.assertNoResult(self.status)  # until all is printed
        self.terminal.take()
        status: int = self.successResultOf(self.status)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return status

    def test_all_is_printed(self) -> None:
        """Whatever comes is printed, with nothing that a terminal would obey; CLOSE is an orderly end."""
        self.play()
        self.say(encode_status("queued", 2, "Wait."), encode_status("connecting", None, "Soon."))
        self.say(WELCOME, encode_settings(b"\x00"), b"\x10hi\n", b"")
        self.say(Notice("draining", "Back soon.\x07").encode(FrameType.CLOSE))
        self.assertEqual(self.end(), 0)
        self.assertEqual(
            self.printed(),
            [
                "STATUS queued, position 2: Wait.",
                "STATUS connecting: Soon.",
                "WELCOME guest:\\x1b[1mana to echo on echo-1, session 5e55",
                "SETTINGS of 1 bytes: 00  \\x00",
                "frame of 4 bytes: 10 68 69 0a  \\x10hi\\n",
                "frame of 0 bytes:   ",
                "CLOSE draining: Back soon.\\x07",
            ],
        )

    def test_lines_become_frames(self) -> None:
        """Lines are read from WELCOME on, and each is a frame of the type asked for."""
        self.play()
        self.terminal.deliver(b"early\n")
        self.assertEqual(self.sent(), [])
        self.say(WELCOME)
        self.terminal.deliver(b"late\n\nunfinished")
        self.assertEqual(self.sent(), [b"\x42early", b"\x42late", b"\x42"])

    def test_end_of_input(self) -> None:
        """When the lines end it listens LINGER seconds on, then leaves in good order."""
        self.play()
        self.say(WELCOME)
        self.terminal.end()
        self.clock.advance(LINGER - 0.1)
        self.say(b"\x10answer")
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.sent()[0][:1], b"\x06")
        self.proxy.reset()
        self.assertEqual(self.end(), 0)
        self.assertEqual(self.printed()[-1], "you left")
        self.assertIn("answer", self.printed()[-2])

    def test_lost_while_lingering(self) -> None:
        """A connection that is lost when the lines have ended leaves no timer behind."""
        self.play()
        self.say(WELCOME)
        self.terminal.end()
        self.proxy.reset()
        self.assertEqual(self.end(), 1)

    def test_refused(self) -> None:
        """ERROR is a failure."""
        self.play()
        self.say(encode_error("auth_failed", "Sign in again."))
        self.assertEqual(self.end(), 1)
        self.assertEqual(self.printed(), ["ERROR auth_failed: Sign in again."])

    def test_lost(self) -> None:
        """A lost connection is a failure."""
        self.play()
        self.say(WELCOME)
        self.proxy.reset()
        self.assertEqual(self.end(), 1)
        self.assertIn("lost: server_lost: ", self.printed()[-1])

    def test_cannot_connect(self) -> None:
        """Nobody listens, or there is no such host: said, and a failure."""
        self.play(ConnectionRefusedError("No."))
        self.assertEqual(self.end(), 1)
        self.assertIn("cannot connect: ", self.printed()[0])

    def test_long_line(self) -> None:
        """A line that is too long for the buffer is said to be so, and ends it."""
        self.play()
        self.say(WELCOME)
        self.terminal.deliver(b"x" * (Console.MAX_LENGTH + 1))
        self.assertIn("lines may have", self.printed()[-1])
        self.assertEqual(self.sent()[0][:1], b"\x06")

    def test_nobody_reads(self) -> None:
        """When what is printed goes nowhere, the client leaves."""
        self.play()
        self.say(WELCOME)
        IHalfCloseableProtocol(self.console).writeConnectionLost()
        self.assertEqual(self.sent()[0][:1], b"\x06")

    def test_backpressure(self) -> None:
        """A terminal that takes nothing stops the proxy's side, and a proxy that takes nothing the terminal's."""
        self.play()
        self.say(WELCOME)
        for _ in range(100):
            self.say(b"\x10" + b"x" * 1000)
            self.say(*[b"\x10" + b"x" * 1000] * 10)
        self.assertFalse(self.proxy.reading)
        self.terminal.take()
        self.assertTrue(self.proxy.reading)
        for _ in range(20):
            self.terminal.deliver(b"x" * 10_000 + b"\n")
        self.assertFalse(self.terminal.reading)
        self.proxy.take()
        self.assertTrue(self.terminal.reading)

    def test_program_ends(self) -> None:
        """Ctrl-C leaves in good order, and waits until all is printed; before there is a connection there is nothing
        to do."""
        self.successResultOf(self.client.end())
        self.play()
        self.say(WELCOME)
        ended = self.client.end()
        self.assertEqual(self.sent()[0][:1], b"\x06")
        self.assertNoResult(ended)
        self.proxy.reset()
        self.assertEqual(self.end(), 0)
        self.successResultOf(ended)


class WordsTests(SynchronousTestCase):
    """Frames for people."""

    def test_long_bodies(self) -> None:
        """Only the first 64 bytes are shown."""
        text = described(b"\x10" + b"x" * 1000)
        self.assertTrue(text.startswith("of 1001 bytes: 10 78 78"))
        self.assertEqual(text.count("78"), 63)
        self.assertEqual(text.count("..."), 2)

    def test_no_text(self) -> None:
        """What is not UTF-8 is shown as such."""
        self.assertEqual(described(b"\xff"), "of 1 bytes: ff  \N{REPLACEMENT CHARACTER}")


class CommandTests(SynchronousTestCase):
    """The command line."""

    def parsed(self, *arguments: str) -> tuple[object, Auth, int]:
        """The address, the AUTH and the type that a command line means."""
        with patch.object(connect, "run", lambda args: args):
            args = main(["connect", *arguments])
        return args.address, connect.auth_of(args), args.type  # type: ignore[attr-defined]  # run gave the arguments

    def test_guest(self) -> None:
        """--guest NAME, with a host name."""
        found = self.parsed("play.example:7777", "--guest", "ana")
        self.assertEqual(found, (("play.example", 7777), Auth("guest", name="ana"), 0x10))

    def test_ticket(self) -> None:
        """--ticket TICKET, with an IPv6 address, a game and a type."""
        found = self.parsed("[::1]:80", "--ticket", "t", "--game", "chess", "--type", "0xff")
        self.assertEqual(found, (("::1", 80), Auth("ticket", ticket="t", game="chess"), 0xFF))

    def test_password(self) -> None:
        """--username NAME: the password is asked for, not shown."""
        with patch("getpass.getpass", lambda prompt: "secret"):
            found = self.parsed("127.0.0.1:1", "--username", "ana")
        self.assertEqual(found[1], Auth("password", username="ana", password="secret"))

    def test_wrong_usage(self) -> None:
        """An address that is none, nobody or two to be, and a type of the proxy's own."""
        for arguments, problem in (
            (["localhost", "--guest", "a"], "must be HOST:PORT"),
            (["::1:7777", "--guest", "a"], "must be HOST:PORT"),
            (["localhost:65536", "--guest", "a"], "must be HOST:PORT"),
            (["localhost:1"], "one of the arguments --guest --ticket --username is required"),
            (["localhost:1", "--guest", "a", "--ticket", "t"], "not allowed with"),
            (["localhost:1", "--guest", "a", "--type", "0x0f"], "must be 0x10 to 0xff"),
            (["localhost:1", "--guest", "a", "--type", "chat"], "must be 0x10 to 0xff"),
        ):
            with self.subTest(arguments=arguments), redirect_stderr(io.StringIO()) as errors:
                error = self.assertRaises(SystemExit, main, ["connect", *arguments])
                self.assertEqual(error.code, 2)
                self.assertIn(problem, errors.getvalue())
