"""gameproxy.cli.demo and gameproxy.cli.demo_view: the command line, and where things are shown"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

from rich.console import Console
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import demo, main
from gameproxy.cli.demo import TROUBLES_KEPT, Troubles, summary
from gameproxy.cli.demo_facts import Snapshot
from gameproxy.cli.demo_view import (
    LineView,
    LiveView,
    PictureView,
    program,
    view_for,
)
from gameproxy.interfaces import Traffic
from tests.demo_snapshots import ADDRESS, snapshot

NO_TERMINAL = -1


class Audience:
    """Presses no key."""

    def press(self, key: str) -> None:
        raise AssertionError(key)

    def leave(self) -> None:
        raise AssertionError


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Dead(Terminal):
    """A terminal that was closed."""

    dead = False

    def write(self, text: str) -> int:
        if self.dead:
            raise OSError(5, "Input/output error")
        return super().write(text)


class ViewTests(SynchronousTestCase):
    """Where it is shown."""

    def view_for(self, output: io.StringIO) -> object:
        return view_for(output, NO_TERMINAL, None, "gameproxy", ADDRESS, Audience())

    def test_lines(self) -> None:
        """Where there is no terminal: the address and how to join in, then a plain line for each snapshot."""
        output = io.StringIO()
        view = self.view_for(output)
        assert isinstance(view, LineView)
        view.show(snapshot())
        view.close()
        first, second = output.getvalue().splitlines()
        self.assertEqual(
            first,
            f"Listening on {ADDRESS}. To join in:"
            f" gameproxy connect {ADDRESS} --guest you --game arena",
        )
        self.assertEqual(
            second,
            "   2 s  servers: 1 ready, 1 starting  sessions: 10 (8 relaying, 2 selecting)"
            "  100 frames/s 2.0 kB/s  set-up: 20 ms  added latency: 0.20 ms  over: 3 left",
        )

    def test_line_of_nothing(self) -> None:
        """Before anything happens the line says so."""
        output = io.StringIO()
        LineView(output, ADDRESS, "").show(Snapshot(0.0))
        self.assertEqual(
            output.getvalue().splitlines()[1],
            "   0 s  servers: none  sessions: 0  0 frames/s 0 B/s  over: none",
        )

    def test_terminal(self) -> None:
        """A terminal shows pages on its second screen, without a cursor, in place; and is given back, with nothing of
        them, however often that is asked for."""
        output = Terminal()
        with patch.dict("os.environ", {"TERM": "xterm"}):
            view = self.view_for(output)
            assert isinstance(view, LiveView)
            view.show(snapshot())
            view.show(snapshot(seconds=3.0))
            shown = output.getvalue()
            view.close()
            view.close()
        self.assertTrue(shown.startswith("\x1b[?1049h\x1b[H\x1b[?25l"))
        self.assertIn("0:02", shown)
        self.assertIn("0:03", shown)
        self.assertIn("Ctrl-C ends it", shown)
        self.assertIn("gameproxy play", shown)
        rest = output.getvalue()[len(shown) :]
        self.assertEqual(rest, "\x1b[?25h\x1b[?1049l")

    def test_no_scrolling(self) -> None:
        """A page has a line less of ends of lines than the terminal has lines."""
        for size in ((80, 24), (200, 50), (30, 8)):
            with self.subTest(size=size):
                output = Terminal()
                console = Console(
                    file=output, force_terminal=True, width=size[0], height=size[1], _environ={}
                )
                view = LiveView(console, ADDRESS, "", None)
                start = len(output.getvalue())
                view.show(snapshot(servers=30))
                self.assertEqual(output.getvalue()[start:].count("\n"), size[1] - 1)
                view.close()

    def test_poor_terminal(self) -> None:
        """A terminal that cannot show a page gets lines."""
        with patch.dict("os.environ", {"TERM": "dumb"}):
            self.assertIsInstance(self.view_for(Terminal()), LineView)
        ascii_only = Terminal()
        ascii_only.encoding = "ascii"
        with patch.dict("os.environ", {"TERM": "xterm"}):
            self.assertIsInstance(self.view_for(ascii_only), LineView)

    def test_no_colour(self) -> None:
        """With NO_COLOR there is none."""
        for environment, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
            output = Terminal()
            console = Console(
                file=output,
                force_terminal=True,
                color_system="standard",
                _environ={"TERM": "xterm", **environment},
            )
            view = LiveView(console, ADDRESS, "", None)
            view.show(snapshot())
            view.close()
            self.assertEqual("\x1b[32m" in output.getvalue(), colours)

    def test_terminal_is_gone(self) -> None:
        """A terminal that is no more need not be given back."""
        output = Dead()
        view = LiveView(Console(file=output, force_terminal=True, _environ={}), ADDRESS, "", None)
        output.dead = True
        with self.assertRaises(OSError):
            view.show(snapshot())
        view.close()

    def test_picture(self) -> None:
        """A picture is of the last snapshot before the end: small, well-formed, and needs nothing from elsewhere."""
        file = Path(self.mktemp())
        view = PictureView(file, ADDRESS, "gameproxy")
        view.show(snapshot())
        view.show(snapshot(seconds=75.0))
        view.show(replace(snapshot(seconds=76.0), ending=True))
        view.close()
        text = file.read_text("utf-8")
        ElementTree.fromstring(text)
        self.assertIn("1:15", text)
        self.assertEqual(text.count("http"), 1)  # the name of SVG itself
        self.assertNotIn("<image", text)
        self.assertLess(len(text), 60_000)
        file.unlink()
        view.close()
        self.assertFalse(file.exists())

    def test_picture_of_nothing(self) -> None:
        """There is none when nothing was shown."""
        file = Path(self.mktemp())
        PictureView(file, ADDRESS, "gameproxy").close()
        self.assertFalse(file.exists())

    def test_program(self) -> None:
        """The command is called as short as it may be typed."""
        with patch.dict("os.environ", {"PATH": "/usr/bin:/opt/bin"}):
            for called, said in (
                ("/opt/bin/gameproxy", "gameproxy"),
                ("/srv/bin/gameproxy", "/srv/bin/gameproxy"),
                ("/srv/gameproxy/__main__.py", "python -m gameproxy"),
            ):
                with patch.object(sys, "argv", [called]):
                    self.assertEqual(program(), said)


class CommandTests(SynchronousTestCase):
    """The command line, and what is said at the end."""

    def test_wrong_usage(self) -> None:
        """--for takes a number of seconds, more than 0; --bots from 1 to 120; --seed a number."""
        for option, texts, advice in (
            (
                "--for",
                ("0", "-1", "nan", "inf", "soon"),
                "must be a number of seconds, more than 0",
            ),
            ("--bots", ("0", "121", "-1", "many", "1.5", "9" * 99, "²"), "must be 1 to 120"),
            ("--seed", ("x",), "invalid int value"),
        ):
            for text in texts:
                with self.subTest(text=text), redirect_stderr(io.StringIO()) as errors:
                    wrong = self.assertRaises(SystemExit, main, ["demo", option, text])
                    self.assertEqual(wrong.code, 2)
                    self.assertIn(f"{option}: {advice}", errors.getvalue())

    def test_summary(self) -> None:
        """In the end it is said what there was."""
        self.assertEqual(
            summary(snapshot()),
            "Done in 2 s: 3 sessions (3 left), 100 frames from players, 100 to them.",
        )
        self.assertIn("0 sessions (none)", summary(Snapshot(1.0, traffic=Traffic())))

    def test_troubles(self) -> None:
        """Troubles are told on standard error, with nothing that a terminal would obey."""
        troubles = Troubles()
        troubles.add("bot-1 was cut off: \x1b")
        troubles.add("first\nsecond")
        with redirect_stderr(io.StringIO()) as errors:
            self.assertTrue(troubles.tell())
        self.assertEqual(
            errors.getvalue(), "Trouble: bot-1 was cut off: \\x1b\nTrouble: first\nsecond\n"
        )

    def test_no_troubles(self) -> None:
        """When there were none, nothing is said."""
        with redirect_stderr(io.StringIO()) as errors:
            self.assertFalse(Troubles().tell())
        self.assertEqual(errors.getvalue(), "")

    def test_many_troubles(self) -> None:
        """However many there are, some are kept, and the others counted."""
        troubles = Troubles()
        for number in range(TROUBLES_KEPT + 5):
            troubles.add(f"{number}")
        with redirect_stderr(io.StringIO()) as errors:
            troubles.tell()
        lines = errors.getvalue().splitlines()
        self.assertEqual(len(lines), TROUBLES_KEPT + 1)
        self.assertEqual(lines[-1], "... and 5 more.")

    def test_log(self) -> None:
        """Errors that are logged are troubles, and nothing else is; nor is Ctrl-C a second time."""
        troubles = Troubles()
        with patch.object(demo, "globalLogBeginner") as beginner:
            troubles.watch_log()
            log = Logger(
                observer=LogPublisher(*beginner.beginLoggingTo.call_args.args[0])  # type: ignore[arg-type]  # it is one
            )
            log.warn("a game server has ended")
            log.error("the database cannot be used")
            log.failure("it fails", Failure(ReactorNotRunning()))
            log.failure("it breaks", Failure(ValueError("why")))
        with redirect_stderr(io.StringIO()) as errors:
            self.assertTrue(troubles.tell())
        self.assertNotIn("has ended", errors.getvalue())
        self.assertNotIn("it fails", errors.getvalue())
        self.assertIn("Trouble: the database cannot be used", errors.getvalue())
        self.assertIn("Trouble: it breaks", errors.getvalue())
        self.assertIn("why", errors.getvalue())
