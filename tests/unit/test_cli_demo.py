"""gameproxy.cli.demo and gameproxy.cli.demo_view: what is shown, and the command line"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from rich.console import Console
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import demo, main
from gameproxy.cli.demo import Result, report
from gameproxy.cli.demo_view import (
    SERVERS_SHOWN,
    LineView,
    LiveView,
    Rates,
    ServerRow,
    Snapshot,
    as_page,
    as_size,
    in_words,
    view_for,
)
from gameproxy.interfaces import Traffic

ADDRESS = "127.0.0.1:4123"
JOIN_IN = f"gameproxy connect {ADDRESS} --guest you"


def snapshot(seconds: float = 2.0, servers: int = 2, frames: int = 100) -> Snapshot:
    """Ten sessions on some servers; frames of 20 bytes, as many back as forth."""
    return Snapshot(
        seconds=seconds,
        servers=[
            ServerRow(f"echo-{number}", "starting" if number else "ready", 4, 2, 1, 7)
            for number in range(servers)
        ],
        sessions={"relaying": 8, "selecting": 2},
        ended={"left": 3},
        traffic=Traffic(frames, 20 * frames, frames, 20 * frames),
    )


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class WordsTests(SynchronousTestCase):
    """Numbers for people."""

    def test_sizes(self) -> None:
        """Sizes have the unit that leaves three digits before the point at most."""
        sizes = [0, 999, 1000, 5321, 2_500_000, 7e9, 7e13]
        expected = ["0 B", "999 B", "1.0 kB", "5.3 kB", "2.5 MB", "7.0 GB", "70000.0 GB"]
        self.assertEqual([as_size(size) for size in sizes], expected)

    def test_counts(self) -> None:
        """Counts are in the order of their names."""
        self.assertEqual(in_words({"b": 2, "a": 1}), "1 a, 2 b")

    def test_rates(self) -> None:
        """Rates are of both directions, since the last snapshot; without time between they are 0."""
        rates = Rates()
        self.assertEqual(rates.since_last(snapshot(2.0, frames=100)), (100.0, 2000.0))
        self.assertEqual(rates.since_last(snapshot(2.5, frames=130)), (120.0, 2400.0))
        self.assertEqual(rates.since_last(snapshot(2.5, frames=130)), (0.0, 0.0))


class ViewTests(SynchronousTestCase):
    """What is shown."""

    def test_lines(self) -> None:
        """Where there is no terminal: the address and how to join in, then a plain line for each snapshot."""
        output = io.StringIO()
        view = view_for(output, "gameproxy", ADDRESS)
        self.assertIsInstance(view, LineView)
        view.show(snapshot())
        view.close()
        first, second = output.getvalue().splitlines()
        self.assertEqual(first, f"Listening on {ADDRESS}. To join in: {JOIN_IN}")
        self.assertEqual(
            second,
            "   2 s  servers: 1 ready, 1 starting  sessions: 10 (8 relaying, 2 selecting)"
            "  100 frames/s 2.0 kB/s  over: 3 left",
        )

    def test_line_of_nothing(self) -> None:
        """Before anything happens the line says so."""
        output = io.StringIO()
        LineView(output, ADDRESS, JOIN_IN).show(Snapshot(0.0, [], {}, {}, Traffic()))
        self.assertIn("0 s  servers: none  sessions: 0  0 frames/s", output.getvalue())
        self.assertIn("over: none", output.getvalue())

    def test_terminal(self) -> None:
        """In a terminal the page is drawn in place, and the last one stays."""
        output = Terminal()
        view = view_for(output, "gameproxy", ADDRESS)
        self.assertIsInstance(view, LiveView)
        view.show(snapshot())
        view.show(snapshot(seconds=3.0))
        view.close()
        self.assertIn("0:02", output.getvalue())
        self.assertIn("0:03", output.getvalue())
        self.assertIn("\x1b[1A", output.getvalue())

    def page(self, shown: Snapshot) -> str:
        console = Console(file=io.StringIO(), width=80, height=24)
        console.print(as_page(shown, (100.0, 2000.0), ADDRESS, JOIN_IN))
        output: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
        return output

    def test_page(self) -> None:
        """The page names the servers with their occupancy, the sessions, the traffic and how to join in."""
        page = self.page(snapshot(seconds=75.0))
        for part in ("1:15", "echo-0", "ready", "3/4", "10  8 relaying, 2 selecting", "3 left"):
            self.assertIn(part, page)
        self.assertIn("100 frames/s  2.0 kB/s", page)
        self.assertIn(JOIN_IN, page)

    def test_page_of_nothing(self) -> None:
        """Before anything happens the page says so."""
        page = self.page(Snapshot(0.0, [], {}, {}, Traffic()))
        self.assertEqual(page.count("none yet"), 2)

    def test_page_fits(self) -> None:
        """However many servers there are, the page fits into 80 columns and 24 lines."""
        page = self.page(snapshot(servers=SERVERS_SHOWN + 5))
        self.assertIn("and 5 more", page)
        lines = page.splitlines()
        self.assertLess(len(lines), 24)
        self.assertLessEqual(max(len(line) for line in lines), 80)

    def test_markup(self) -> None:
        """What a server is called is shown as it is."""
        row = ServerRow("[red]x[/red]", "[bold]", 1, 0, 0, 0)
        page = self.page(Snapshot(0.0, [row], {}, {}, Traffic()))
        self.assertIn("[red]x[/red]", page)
        self.assertIn("[bold]", page)


class CommandTests(SynchronousTestCase):
    """The command line, and what is said at the end."""

    def test_wrong_seconds(self) -> None:
        """--for takes a number of seconds, more than 0."""
        for text in ("0", "-1", "nan", "inf", "soon"):
            with self.subTest(text=text), redirect_stderr(io.StringIO()) as errors:
                self.assertEqual(
                    self.assertRaises(SystemExit, main, ["demo", "--for", text]).code, 2
                )
                self.assertIn("--for: must be a number of seconds, more than 0", errors.getvalue())

    def test_done(self) -> None:
        """All is well: 0, and what there was."""
        with redirect_stdout(io.StringIO()) as output:
            self.assertEqual(report(Result(snapshot(), [])), 0)
        self.assertEqual(
            output.getvalue(),
            "Done in 2 s: 3 sessions (3 left), 100 frames from players, 100 to them.\n",
        )

    def test_trouble(self) -> None:
        """A trouble: 1, and the trouble on standard error, with nothing that a terminal would obey."""
        with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
            nothing = Snapshot(1.0, [], {}, {}, Traffic())
            self.assertEqual(report(Result(nothing, ["bot-1 was cut off: \x1b"])), 1)
        self.assertIn("0 sessions (none)", output.getvalue())
        self.assertEqual(errors.getvalue(), "Trouble: bot-1 was cut off: \\x1b\n")

    def test_log(self) -> None:
        """Errors are seen on standard error, and nothing else is."""
        with (
            patch.object(demo, "globalLogBeginner") as beginner,
            patch("sys.stderr", io.StringIO()) as errors,
        ):
            demo._log_errors()
            publisher = LogPublisher(*beginner.beginLoggingTo.call_args.args[0])
            log = Logger(observer=publisher)
            log.warn("a game server has ended")
            log.error("the database cannot be used")
        self.assertNotIn("has ended", errors.getvalue())
        self.assertIn("the database cannot be used", errors.getvalue())
