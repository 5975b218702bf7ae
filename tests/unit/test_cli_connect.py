"""gameproxy.cli.connect, with its console"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock
from unittest.mock import patch

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import connect, main
from gameproxy.cli.connect import PASSWORD_VARIABLE, TICKET_VARIABLE, body_maker
from gameproxy.cli.console import LONGEST_LINE, Console
from gameproxy.cli.contact import LINGER, Contact, described
from gameproxy.client import Client, Guest
from gameproxy.framing import FORMATS, FrameFormat, Framer
from gameproxy.messages import (
    Auth,
    FrameType,
    Notice,
    Welcome,
    encode_error,
    encode_settings,
    encode_status,
)
from gameproxy.testing import seeded_entropy
from tests.fake_loop import FakeLoop
from tests.fake_transport import FakeTransport

INT32 = FORMATS["int32"]
WELCOME = Welcome("5e55", "guest:\x1b[1mana", "echo-1", "echo").encode()
CLOSE = Notice("draining", "Back soon.\x07").encode(FrameType.CLOSE)


class ContactTests(SynchronousTestCase):
    """A person's client, between a terminal and a proxy."""

    def setUp(self) -> None:
        self.loop = FakeLoop()
        self.clock = self.loop.clock
        self.terminal = FakeTransport()

    def start(
        self,
        is_terminal: bool = False,
        retry: bool = False,
        dialect: str = "native",
        body_of: Callable[[bytes], bytes] = b"\x42".__add__,
    ) -> None:
        self.console = Console(is_terminal)
        self.terminal.connect(self.console)
        client = Client(self.loop, "play.example", 7777, Guest("ana"), dialect=dialect)
        self.contact = Contact(client, self.console, "play.example:7777", body_of)
        self.status = self.contact.start(seeded_entropy() if retry else None)

    @property
    def proxy(self) -> FakeTransport:
        """The proxy's end of the latest connection."""
        return self.loop.transports[-1]

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
        """The proxy's end is over, and all is; the exit status."""
        for transport in self.loop.transports:
            transport.reset()
        self.assertNoResult(self.status)  # until all is printed
        self.terminal.take()
        status: int = self.successResultOf(self.status)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return status

    def test_all_is_printed(self) -> None:
        """Whatever comes is printed, with nothing that a terminal would obey; CLOSE is an orderly end."""
        self.start()
        self.say(encode_status("queued", 2, "Wait."), encode_status("connecting", None, "Soon."))
        self.say(WELCOME, encode_settings(b"\x00"), b"\x10hi\n", b"")
        self.say(CLOSE)
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

    def test_progress_on_a_terminal(self) -> None:
        """On a terminal the way in is one line that is written over, and gone at WELCOME."""
        self.start(is_terminal=True)
        self.say(encode_status("queued", 2, "Wait.\x1b[0m"), encode_status("queued", 1, "Wait."))
        self.say(WELCOME)
        clear = "\r\x1b[K"
        self.assertEqual(
            self.terminal.written.decode(),
            f"{clear}connecting to play.example:7777"
            f"{clear}STATUS queued, position 2: Wait.\\x1b[0m"
            f"{clear}STATUS queued, position 1: Wait."
            f"{clear}WELCOME guest:\\x1b[1mana to echo on echo-1, session 5e55\n",
        )

    def test_progress_in_a_narrow_terminal(self) -> None:
        """What is longer than the line would be left there when it is written over: it is cut."""
        with mock.patch.dict(os.environ, COLUMNS="24"):
            self.start(is_terminal=True)
            self.say(encode_status("queued", 2, "Wait."), WELCOME)
        self.assertEqual(
            self.terminal.written.decode().split("\r\x1b[K")[1:3],
            ["connecting to play.exam", "STATUS queued, position"],
        )

    def test_lines_become_frames(self) -> None:
        """Lines are read from WELCOME on, and each is a frame; so is the last, though it has no end."""
        self.start()
        self.terminal.deliver(b"early\n")
        self.assertEqual(self.sent(), [])
        self.say(WELCOME)
        self.terminal.deliver(b"late\n\nunfin")
        self.terminal.deliver(b"ished")
        self.assertEqual(self.sent(), [b"\x42early", b"\x42late", b"\x42"])
        self.terminal.end()
        self.assertEqual(self.sent()[3:], [b"\x42unfinished"])

    def test_line_that_is_no_frame(self) -> None:
        """A line of which no frame can be made is said to be none, and the session goes on."""

        def body_of(line: bytes) -> bytes:
            if line == b"bad":
                raise ValueError("this is bad")
            return line

        self.start(body_of=body_of)
        self.say(WELCOME)
        self.terminal.deliver(b"bad\n\x01\n\x10good\n")
        self.assertEqual(self.printed()[1], "not sent: this is bad")
        self.assertIn("not sent: a frame's first byte", self.printed()[2])
        self.assertEqual(self.sent(), [b"\x10good"])

    def test_end_of_input(self) -> None:
        """When the lines end it listens LINGER seconds on, then leaves in good order."""
        self.start()
        self.say(WELCOME)
        self.terminal.end()
        self.clock.advance(LINGER - 0.1)
        self.say(b"\x10answer")
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.sent()[0][:1], b"\x06")
        self.assertEqual(self.end(), 0)
        self.assertEqual(self.printed()[-1], "you left")
        self.assertIn("answer", self.printed()[-2])

    def test_lost_while_lingering(self) -> None:
        """A connection that is lost when the lines have ended leaves no timer behind."""
        self.start()
        self.say(WELCOME)
        self.terminal.end()
        self.assertEqual(self.end(), 1)

    def test_refused(self) -> None:
        """ERROR is a failure; what it says is escaped, and when to come again is said."""
        for seconds, more in ((None, ""), (3.0, " (in 3 s)")):
            self.setUp()
            self.start()
            self.say(encode_error("queue_full", "Later.\x1b", seconds))
            self.assertEqual(self.end(), 1)
            self.assertEqual(self.printed(), [f"ERROR queue_full: Later.\\x1b{more}"])

    def test_lost(self) -> None:
        """A lost connection is a failure."""
        self.start()
        self.say(WELCOME)
        self.assertEqual(self.end(), 1)
        self.assertIn("lost: server_lost: ", self.printed()[-1])

    def test_cannot_connect(self) -> None:
        """Nobody listens, or there can be no such host: said, with what to check, and a failure."""
        for error in (ConnectionRefusedError("No."), OSError("No."), ValueError("No.")):
            self.setUp()
            self.loop.error = error
            self.start()
            self.assertEqual(self.end(), 1)
            self.assertIn("cannot connect to play.example:7777: No. Check host", self.printed()[0])

    def test_no_proxy(self) -> None:
        """What answers with something else, or hangs up, is probably no proxy, or one of another dialect."""
        for answer in (b"HTTP/1.1 400 Bad Request\r\n", b""):
            self.setUp()
            self.start()
            self.proxy.deliver(answer)
            self.assertEqual(self.end(), 1)
            self.assertIn("no session at play.example:7777: ", self.printed()[0])
            self.assertIn("Check --dialect and --format", self.printed()[0])

    def test_plain(self) -> None:
        """In plain there is no WELCOME, and lines are taken at once."""
        self.start(dialect="plain", body_of=bytes)
        self.terminal.deliver(b"\x01hello\n")
        self.assertEqual(self.printed(), ["connected to play.example:7777"])
        self.assertEqual(self.proxy.written, INT32.encode(b"\x01hello"))
        self.assertEqual(self.end(), 1)

    def test_long_line(self) -> None:
        """A line that is too long for the buffer is said to be so, and ends it."""
        self.start()
        self.say(WELCOME)
        self.terminal.deliver(b"x" * (LONGEST_LINE + 1))
        self.assertIn("a line may have", self.printed()[-1])
        self.assertEqual(self.sent()[0][:1], b"\x06")
        self.terminal.deliver(b"y\n")
        self.assertEqual(len(self.sent()), 1)

    def test_nobody_reads(self) -> None:
        """When what is printed goes nowhere, the client leaves."""
        self.start()
        self.say(WELCOME)
        IHalfCloseableProtocol(self.console).writeConnectionLost()
        self.assertEqual(self.sent()[0][:1], b"\x06")

    def test_slow_terminal(self) -> None:
        """A terminal that takes nothing stops the proxy's side; what need not be said is not said."""
        self.start()
        self.say(WELCOME)
        for _ in range(10_000):
            self.say(*[b"\x10" + b"x" * 1000] * 10, encode_settings(b"s"))
            if not self.proxy.reading:
                break
        self.assertFalse(self.proxy.reading)
        self.assertLess(len(self.terminal.unsent), 100_000)
        while not self.proxy.reading:
            self.terminal.take()
        self.say(b"\x10last")
        self.terminal.take()
        self.assertIn("last", self.printed()[-1])
        self.assertEqual(self.end(), 1)

    def test_flood_of_news(self) -> None:
        """STATUS and SETTINGS without end do not pile up before a terminal that takes nothing."""
        self.start()
        for _ in range(2000):
            self.say(encode_status("queued", 1, "x" * 1000))
        self.say(WELCOME)
        for _ in range(2000):
            self.say(encode_settings(b"s" * 1000))
        self.assertLess(len(self.terminal.unsent), 100_000)

    def test_slow_proxy(self) -> None:
        """A proxy that takes nothing stops the reading of lines, until it does."""
        self.start()
        self.say(WELCOME)
        for _ in range(20):
            self.terminal.deliver(b"x" * 10_000 + b"\n")
        self.assertFalse(self.terminal.reading)
        self.assertLess(len(self.proxy.unsent), 100_000)
        while not self.terminal.reading:
            self.proxy.take()
            self.terminal.deliver()
        self.proxy.take()
        self.terminal.deliver()
        self.proxy.take()
        self.assertEqual(len(self.sent()), 20)

    def test_lost_with_slow_proxy(self) -> None:
        """When the connection is lost while lines wait, no more are read, though not all is printed yet."""
        self.start()
        self.say(WELCOME)
        for _ in range(1000):
            self.say(*[b"\x10" + b"x" * 1000] * 10)
        self.terminal.deliver((b"x" * 60_000 + b"\n") * 3)
        self.assertFalse(self.terminal.reading)
        self.proxy.reset()
        self.assertFalse(self.terminal.reading)

    def test_retry(self) -> None:
        """With --retry it connects again, says when, and goes on with the lines that are left."""
        self.loop.error = ConnectionRefusedError("No.")
        self.start(retry=True)
        self.assertRegex(self.printed()[0], r"^No\.; connecting again in 0\.[2-5] s$")
        self.loop.error = None
        self.clock.advance(0.5)
        self.say(WELCOME)
        self.terminal.deliver(b"one\n")
        self.proxy.reset()
        self.assertRegex(self.printed()[-1], r"^server_lost: .*; connecting again in .* s$")
        self.terminal.deliver(b"two\n")
        self.clock.advance(1)
        self.say(WELCOME)
        self.terminal.deliver()
        self.assertEqual(self.sent(), [b"\x42two"])
        self.terminal.end()
        self.clock.advance(LINGER)
        self.assertEqual(self.end(), 0)
        self.assertEqual(self.printed()[-1], "you left")

    def test_retry_after_the_last_line(self) -> None:
        """When the lines had ended already, it leaves the next session after LINGER seconds."""
        self.start(retry=True)
        self.say(WELCOME)
        self.terminal.end()
        self.proxy.reset()
        self.clock.advance(1)
        self.say(WELCOME)
        self.clock.advance(LINGER)
        self.assertEqual(self.end(), 0)

    def test_retry_refused(self) -> None:
        """With --retry, too, what will not change is an end."""
        self.start(retry=True)
        self.say(encode_error("banned", "Ask."))
        self.assertEqual(self.end(), 1)
        self.assertEqual(self.printed(), ["ERROR banned: Ask."])

    def test_program_ends(self) -> None:
        """Ctrl-C leaves in good order, and waits until all is printed."""
        self.start()
        self.say(WELCOME)
        ended = self.contact.end()
        self.assertEqual(self.sent()[0][:1], b"\x06")
        self.assertNoResult(ended)
        self.successResultOf(self.end_of(ended))
        self.assertEqual(self.printed()[-1], "you left")
        self.successResultOf(self.contact.end())

    def test_program_ends_on_the_way_in(self) -> None:
        """Ctrl-C while connecting, waiting for WELCOME, or between two attempts ends that."""
        for retry, hold, error in (
            (False, True, None),
            (False, False, None),
            (True, False, ConnectionRefusedError("No.")),
        ):
            self.setUp()
            self.loop.hold, self.loop.error = hold, error
            self.start(retry=retry)
            ended = self.contact.end()
            self.successResultOf(self.end_of(ended))
            self.assertEqual(self.printed()[-1], "given up")

    def end_of(self, ended: object) -> object:
        self.end()
        return ended


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

    def setUp(self) -> None:
        self.environment = {}
        for name in (TICKET_VARIABLE, PASSWORD_VARIABLE):
            self.assertNotIn(name, os.environ)

    def parsed(self, *arguments: str) -> tuple[object, Auth, bytes]:
        """The address, the AUTH and the frame of the line ``00`` that a command line means."""
        args = self.args(*arguments)
        with patch.dict(os.environ, self.environment):
            return args.address, connect.auth_of(args), body_maker(args)(b"00")  # type: ignore[attr-defined]  # as of args

    def args(self, *arguments: str) -> object:
        """The arguments that ``run`` gets."""
        with patch.object(connect, "run", lambda args: args):
            return main(["connect", *arguments])

    def test_guest(self) -> None:
        """--guest NAME, with a host name."""
        found = self.parsed("play.example:7777", "--guest", "ana")
        self.assertEqual(found, (("play.example", 7777), Auth("guest", name="ana"), b"\x1000"))

    def test_ticket(self) -> None:
        """--ticket TICKET, with an IPv6 address, a game and a type."""
        found = self.parsed("[::1]:80", "--ticket", "t", "--game", "chess", "--type", "0xff")
        self.assertEqual(found, (("::1", 80), Auth("ticket", ticket="t", game="chess"), b"\xff00"))

    def test_password(self) -> None:
        """--username NAME: the password is asked for, not shown."""
        with patch("getpass.getpass", lambda prompt: "secret"):
            found = self.parsed("127.0.0.1:1", "--username", "ana")
        self.assertEqual(found[1], Auth("password", username="ana", password="secret"))
        self.environment[PASSWORD_VARIABLE] = "known"
        found = self.parsed("127.0.0.1:1", "--username", "ana")
        self.assertEqual(found[1], Auth("password", username="ana", password="known"))

    def test_ticket_that_others_do_not_see(self) -> None:
        """A ticket may be in a file, the environment, or the first line of the input, of which no more is read."""
        file = Path(self.mktemp())
        file.write_text("secret\n")
        self.assertEqual(self.parsed("h:1", "--ticket", f"@{file}")[1].ticket, "secret")
        self.environment[TICKET_VARIABLE] = "known"
        self.assertEqual(self.parsed("h:1")[1].ticket, "known")
        self.assertEqual(self.parsed("h:1", "--guest", "a")[1], Auth("guest", name="a"))
        reading, writing = os.pipe()
        os.write(writing, b"piped\nline\n")
        kept = os.dup(0)
        try:
            os.dup2(reading, 0)
            self.assertEqual(self.parsed("h:1", "--ticket", "-")[1].ticket, "piped")
            self.assertEqual(os.read(0, 100), b"line\n")
        finally:
            os.dup2(kept, 0)
            for descriptor in (reading, writing, kept):
                os.close(descriptor)

    def test_properties(self) -> None:
        """--properties JSON goes as it was written."""
        found = self.parsed("h:1", "--guest", "a", "--properties", '{"team": "red"}')
        self.assertEqual(found[1].properties, '{"team": "red"}')

    def test_frames(self) -> None:
        """Lines have a type of their own where there are types; with --hex they are all of the frame."""
        guest = ("h:1", "--guest", "a")
        for more, body in (
            (["--hex"], b"\x00"),
            (["--dialect", "preamble"], b"00"),
            (["--dialect", "plain"], b"00"),
            (["--dialect", "preamble", "--type", "0x20"], b"\x2000"),
        ):
            with self.subTest(more=more):
                self.assertEqual(self.parsed(*guest, *more)[2], body)
        wrong = body_maker(self.args(*guest, "--hex"))  # type: ignore[arg-type]  # as of args
        for line in (b"0", b"xy", "\N{DIGIT ZERO}é".encode()):
            self.assertRaises(ValueError, wrong, line)

    def test_plain_is_nobody(self) -> None:
        """In the dialect plain nobody need say who it is."""
        self.assertEqual(self.parsed("h:1", "--dialect", "plain")[1].mechanism, "guest")

    def test_formats(self) -> None:
        """--format takes what [framing] takes: a name, or keys, which may override those of a name."""
        for text, wanted in (
            ("varint", FORMATS["varint"]),
            ('{"length_bytes": 2, "byte_order": "little"}', FrameFormat(0, 2, "little")),
            ('{"format": "vim-arcade", "max_frame": 600}', FrameFormat(2, 2, max_frame=600)),
        ):
            with self.subTest(text=text):
                args = self.args("h:1", "--guest", "a", "--format", text)
                self.assertEqual(args.format, wanted)  # type: ignore[attr-defined]  # as of args

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
            (["localhost:1", "--guest", "a", "--type", "0x10", "--hex"], "not allowed with"),
            (["localhost:1", "--ticket", "@/nowhere"], "cannot be read"),
            (["localhost:1", "--guest", "a", "--properties", "[]"], "must be a JSON object"),
            (["localhost:1", "--guest", "a", "--format", "int17"], "must be one of int32"),
            (["localhost:1", "--guest", "a", "--format", "{"], "not JSON"),
            (["localhost:1", "--guest", "a", "--format", '{"size": 2}'], "size: unknown key"),
            (["localhost:1", "--guest", "a", "--format", '{"length_bytes": 5}'], "length_bytes: "),
        ):
            with self.subTest(arguments=arguments), redirect_stderr(io.StringIO()) as errors:
                error = self.assertRaises(SystemExit, self.parsed, *arguments)
                self.assertEqual(error.code, 2)
                self.assertIn(problem, errors.getvalue())
